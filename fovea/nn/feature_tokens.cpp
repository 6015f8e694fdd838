#include "fovea/nn/feature_tokens.h"

#include <cmath>
#include <numeric>
#include <sstream>

#include "fovea/core/error.h"
#include "fovea/nn/trace.h"

namespace fovea::nn {

namespace {
template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream line;
  line << "feature_tokens: ";
  (line << ... << parts);
  throw ArgumentError(line.str());
}

// [row, column] of the first true element.
std::pair<int64_t, int64_t> first_of(const torch::Tensor& wrong) {
  const auto at = wrong.nonzero()[0];
  return {at[0].item<int64_t>(), at[1].item<int64_t>()};
}
}  // namespace

FeatureTokensImpl::FeatureTokensImpl(const FeatureTokensOptions& options) : options_(options) {
  const auto& sizes = options.categories();
  const int64_t numbers = options.numbers(), count = static_cast<int64_t>(sizes.size()), dim = options.dim();
  if (numbers < 0 || numbers + count < 1 || dim < 1)
    refuse("numbers is ", numbers, ", categories ", count, ", dim ", dim, ", expected at least one feature and dim >= 1");
  for (size_t j = 0; j < sizes.size(); ++j)
    if (sizes[j] < 1) refuse("categorical feature ", j, " has ", sizes[j], " values, expected 1 or more");

  const auto draw = [&](int64_t rows) {
    const double bound = 1 / std::sqrt(static_cast<double>(dim));
    return torch::empty({rows, dim}).uniform_(-bound, bound);
  };
  // A submodule of its own only for the name: number.weight.
  if (numbers > 0) {
    auto group = register_module("number", std::make_shared<torch::nn::Module>());
    number_weight = group->register_parameter("weight", draw(numbers));
    number_bias = group->register_parameter("bias", draw(numbers));
  }
  if (count > 0) {
    auto group = register_module("category", std::make_shared<torch::nn::Module>());
    category_weight = group->register_parameter("weight", draw(std::accumulate(sizes.begin(), sizes.end(), int64_t{0})));
    category_bias = group->register_parameter("bias", draw(count));
    const auto values = torch::tensor(sizes, torch::kInt64);
    first_row_ = values.cumsum(0) - values;
  }
  missing = register_parameter("missing", draw(numbers + count));
}

torch::Tensor FeatureTokensImpl::number_tokens(const torch::Tensor& numbers) const {
  if (!numbers.defined() || numbers.dim() != 2 || numbers.size(1) != options_.numbers() || !numbers.is_floating_point())
    refuse("numbers is ", numbers.defined() ? c10::str(numbers.dtype(), numbers.sizes()) : "absent",
           ", expected floating [B,", options_.numbers(), "]");
  if (const auto infinite = numbers.isinf(); infinite.any().item<bool>()) {
    const auto [row, column] = first_of(infinite);
    refuse("number ", column, " of row ", row, " is infinite, expected a finite one, or NaN where it is missing");
  }
  const auto unknown = numbers.isnan();
  const auto x = numbers.masked_fill(unknown, 0).to(number_weight.scalar_type()).unsqueeze(2);  // [B,P,1]
  const auto given = number_bias + x * number_weight;
  return torch::where(unknown.unsqueeze(2), missing.slice(0, 0, options_.numbers()), given);
}

torch::Tensor FeatureTokensImpl::category_tokens(const torch::Tensor& codes) const {
  const auto& sizes = options_.categories();
  const auto count = static_cast<int64_t>(sizes.size());
  if (!codes.defined() || codes.dim() != 2 || codes.size(1) != count || codes.scalar_type() != torch::kInt64)
    refuse("codes is ", codes.defined() ? c10::str(codes.dtype(), codes.sizes()) : "absent", ", expected int64 [B,",
           count, "]");
  const auto values = torch::tensor(sizes, torch::TensorOptions(torch::kInt64).device(codes.device()));
  if (const auto wrong = (codes < -1) | (codes >= values); wrong.any().item<bool>()) {
    const auto [row, column] = first_of(wrong);
    refuse("code ", codes[row][column].item<int64_t>(), " of categorical feature ", column, " in row ", row,
           " is no value of it, expected 0 to ", sizes[column] - 1, ", or -1 where it is missing");
  }
  const auto rows = codes.clamp_min(0) + first_row_.to(codes.device());
  const auto given = torch::embedding(category_weight, rows) + category_bias;
  return torch::where((codes < 0).unsqueeze(2), missing.slice(0, options_.numbers()), given);
}

torch::Tensor FeatureTokensImpl::forward(const torch::Tensor& numbers, const torch::Tensor& codes) {
  const bool has_numbers = number_weight.defined(), has_codes = category_weight.defined();
  if (!has_numbers && numbers.defined() && numbers.numel() > 0) refuse("numbers given, expected none");
  if (!has_codes && codes.defined() && codes.numel() > 0) refuse("codes given, expected none");
  if (!has_codes) return traced(this, number_tokens(numbers));
  if (!has_numbers) return traced(this, category_tokens(codes));
  const auto first = number_tokens(numbers), second = category_tokens(codes);
  if (first.size(0) != second.size(0))
    refuse("numbers has ", first.size(0), " rows, codes ", second.size(0), ", expected the same patients in both");
  return traced(this, torch::cat({first, second}, 1));
}

torch::Tensor FeatureTokensImpl::names() const {
  if (!category_bias.defined()) return number_bias;
  return number_bias.defined() ? torch::cat({number_bias, category_bias}) : category_bias;
}

}  // namespace fovea::nn
