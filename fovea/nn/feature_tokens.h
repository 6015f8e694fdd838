#pragma once
#include <vector>

#include <torch/torch.h>

namespace fovea::nn {

struct FeatureTokensOptions {
  FeatureTokensOptions(int64_t numbers, std::vector<int64_t> categories, int64_t dim)
      : numbers_(numbers), categories_(std::move(categories)), dim_(dim) {}
  TORCH_ARG(int64_t, numbers);                  ///< P, numeric features; 0: none
  TORCH_ARG(std::vector<int64_t>, categories);  ///< for each of the Q categorical features, how many values it has
  TORCH_ARG(int64_t, dim);                      ///< E
};

/// The rows of a table as tokens, one for each feature:
///   number    bias_j + x_j weight_j
///   category  bias_j + embedding_j[code]
///   missing   missing_j, a learned token of that feature: nothing is imputed
/// All weights begin uniform in +-E^-0.5. Numbers are expected in units of their spread (z-scores of the training set).
/// Shapes   numbers [B,P] floating, NaN = missing; codes [B,Q] int64, -1 = missing -> [B,P+Q,E], numbers first. With
///          P = 0 or Q = 0 that tensor may be left undefined. A missing number has no gradient.
/// Names    number.{weight,bias} [P,E], category.{weight [sum of sizes,E],bias [Q,E]}, missing [P+Q,E]
/// Errors   ArgumentError: other shapes or dtypes, a code that is no value of its feature, an infinite number
/// Source   Gorishniy et al. 2021 (FT-Transformer), arXiv:2106.11959, section 3.3; the missing tokens are ours
class FeatureTokensImpl : public torch::nn::Module {
 public:
  explicit FeatureTokensImpl(const FeatureTokensOptions& options);
  torch::Tensor forward(const torch::Tensor& numbers, const torch::Tensor& codes = {});

  /// What each feature is, without its value: the biases, [P+Q,E].
  torch::Tensor names() const;
  /// P + Q.
  int64_t features() const { return missing.size(0); }

  torch::Tensor number_weight, number_bias, category_weight, category_bias;  // undefined where there are none
  torch::Tensor missing;

 private:
  torch::Tensor number_tokens(const torch::Tensor& numbers) const;
  torch::Tensor category_tokens(const torch::Tensor& codes) const;

  FeatureTokensOptions options_;
  torch::Tensor first_row_;  // of each categorical feature in category_weight: [Q] int64
};
TORCH_MODULE(FeatureTokens);

}  // namespace fovea::nn
