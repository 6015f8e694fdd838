#include "fovea/nn/deformable_self_attention.h"

#include <cmath>

#include "fovea/nn/initialise.h"
#include "fovea/nn/trace.h"
#include "fovea/ops/attention.h"
#include "fovea/ops/deformable_attention.h"

namespace fovea::nn {

namespace {
/// A convolution's weight and bias under its name, in two or three dimensions.
std::pair<torch::Tensor, torch::Tensor> register_convolution(torch::nn::Module& parent, const std::string& name, int64_t in,
                                                             int64_t out, int64_t kernel, size_t axes, bool bias = true) {
  const auto module = parent.register_module(name, std::make_shared<torch::nn::Module>());
  std::vector<int64_t> sizes(axes, kernel);
  sizes.insert(sizes.begin(), {out, in});
  auto weight = module->register_parameter("weight", torch::empty(sizes));
  torch::nn::init::kaiming_uniform_(weight, std::sqrt(5.0));
  torch::Tensor b;
  if (bias) {
    b = module->register_parameter("bias", torch::empty({out}));
    const double bound = 1 / std::sqrt(double(weight[0].numel()));
    torch::nn::init::uniform_(b, -bound, bound);
  }
  return {weight, b};
}

torch::Tensor depthwise(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias, int64_t stride) {
  const int64_t padding = weight.size(2) / 2;
  return x.dim() == 4 ? torch::conv2d(x, weight, bias, stride, padding, 1, weight.size(0))
                      : torch::conv3d(x, weight, bias, stride, padding, 1, weight.size(0));
}

/// [B,E,...] -> [B,N,E] and the 1x1 convolution on it.
torch::Tensor on_tokens(const torch::Tensor& tokens, const torch::Tensor& weight, const torch::Tensor& bias) {
  return torch::linear(tokens, weight.flatten(1), bias);
}

/// All points of a grid whose axes take the given values, in axis order: [N,D].
torch::Tensor grid_points(const std::vector<torch::Tensor>& axes) {
  return torch::stack(torch::meshgrid(axes, "ij"), -1).flatten(0, -2);
}

int64_t steps(int64_t n) { return std::max<int64_t>(1, n - 1); }
}  // namespace

DeformableSelfAttentionImpl::DeformableSelfAttentionImpl(const DeformableSelfAttentionOptions& options) : options_(options) {
  const auto& o = options_;
  const size_t axes = o.grid().size();
  TORCH_CHECK(axes == 2 || axes == 3, "deformable self-attention: grid has ", axes, " axes, expected 2 or 3");
  TORCH_CHECK(o.groups() > 0 && o.heads() % o.groups() == 0 && o.dim() % o.heads() == 0, "deformable self-attention: ", o.groups(),
              " groups, ", o.heads(), " heads, width ", o.dim(), ", expected each to divide the next");
  TORCH_CHECK(o.kernel() % 2 == 1 && o.stride() > 0 && o.kernel() >= o.stride(), "deformable self-attention: kernel ", o.kernel(),
              " and stride ", o.stride(), ", expected an odd kernel no smaller than the stride");
  for (const int64_t n : o.grid()) keys_.push_back((n + 2 * (o.kernel() / 2) - o.kernel()) / o.stride() + 1);
  std::tie(q_weight_, q_bias_) = register_convolution(*this, "proj_q", o.dim(), o.dim(), 1, axes);
  std::tie(k_weight_, k_bias_) = register_convolution(*this, "proj_k", o.dim(), o.dim(), 1, axes);
  std::tie(v_weight_, v_bias_) = register_convolution(*this, "proj_v", o.dim(), o.dim(), 1, axes);
  std::tie(out_weight_, out_bias_) = register_convolution(*this, "proj_out", o.dim(), o.dim(), 1, axes);
  const int64_t width = o.dim() / o.groups();
  const auto network = register_module("conv_offset", std::make_shared<torch::nn::Module>());
  std::tie(depthwise_weight_, depthwise_bias_) = register_convolution(*network, "0", 1, width, o.kernel(), axes);
  norm_ = network->register_module("1", std::make_shared<torch::nn::Module>())
              ->register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})));
  to_offset_ = register_convolution(*network, "3", width, int64_t(axes), 1, axes, /*bias=*/false).first;
  if (o.bias() == DeformedBias::kTable) {
    std::vector<int64_t> sizes = {o.heads()};
    for (const int64_t n : o.grid()) sizes.push_back(2 * n - 1);
    table_ = register_parameter("rpe_table", torch::empty(sizes));
    truncated_normal_(table_, 0.01);
  } else if (o.bias() == DeformedBias::kLog) {
    log_in_ = torch::nn::Linear(int64_t(axes), 32);
    log_out_ = torch::nn::Linear(torch::nn::LinearOptions(32, o.heads() / o.groups()).bias(false));
    register_module("rpe_table", torch::nn::Sequential(log_in_, torch::nn::ReLU(), log_out_));
  } else if (o.bias() == DeformedBias::kDepthwise) {
    std::tie(lepe_weight_, lepe_bias_) = register_convolution(*this, "rpe_table", 1, o.dim(), 3, axes);
  }
}

torch::Tensor DeformableSelfAttentionImpl::reference_points(const torch::TensorOptions& like) const {
  std::vector<torch::Tensor> axes;
  for (size_t a = 0; a < keys_.size(); ++a) {
    const auto cell = torch::arange(keys_[a], like) + 0.5;
    axes.push_back(options_.reference() == ReferencePoints::kHalfPixel
                       ? cell * (2.0 / double(steps(keys_[a]))) - 1
                       : (cell * (double(options_.grid()[a]) / double(keys_[a])) - 0.5) * (2.0 / double(steps(options_.grid()[a]))) - 1);
  }
  return grid_points(axes);
}

torch::Tensor DeformableSelfAttentionImpl::moved(const torch::Tensor& q) {
  const auto& o = options_;
  const int64_t B = q.size(0), D = int64_t(keys_.size()), width = o.dim() / o.groups();
  auto sizes = q.sizes().vec();
  sizes[0] = B * o.groups(), sizes[1] = width;
  const auto found = depthwise(q.reshape(sizes), depthwise_weight_, depthwise_bias_, o.stride());  // (b g) c ...
  const auto normed = torch::gelu(norm_(found.flatten(2).transpose(1, 2)));                        // (b g) m c
  auto offset = on_tokens(normed, to_offset_, {}).view({B, o.groups(), -1, D});
  const auto reference = reference_points(q.options());
  if (o.range_factor() < 0) return (offset + reference).clamp(-1, 1);
  std::vector<double> range;
  for (const int64_t n : keys_) range.push_back(o.range_factor() / double(steps(n)));
  return offset.tanh() * torch::tensor(range, q.options()) + reference;
}

torch::Tensor DeformableSelfAttentionImpl::score_bias(const torch::Tensor& places) {
  const auto& o = options_;
  const int64_t B = places.size(0), g = o.groups(), D = places.size(3), M = places.size(2), heads = o.heads() / g;
  std::vector<torch::Tensor> axes;
  for (const int64_t n : o.grid()) axes.push_back(torch::arange(n, places.options()) * (2.0 / double(steps(n))) - 1);
  const auto queries = grid_points(axes);
  const int64_t N = queries.size(0);
  const auto displacement = queries.view({1, 1, N, 1, D}) - places.unsqueeze(2);  // b g n m d
  torch::Tensor bias;
  if (o.bias() == DeformedBias::kTable) {
    // The table as an image of heads/g channels, read at half the displacement, which then spans [-1, 1].
    namespace F = torch::nn::functional;
    const auto table = table_.view({1, g, heads, -1}).expand({B, g, heads, -1}).reshape([&] {
      auto sizes = table_.sizes().vec();
      sizes[0] = heads, sizes.insert(sizes.begin(), B * g);
      return sizes;
    }());
    auto at = (displacement * 0.5).flip(-1).flatten(0, 1);  // (b g) n m d, the first coordinate along the last axis
    if (D == 3) at = at.unsqueeze(3);
    bias = F::grid_sample(table, at, F::GridSampleFuncOptions().mode(torch::kBilinear).padding_mode(torch::kZeros).align_corners(true));
  } else {
    const auto spaced = displacement.sign() * ((displacement * 4).abs() + 1).log2() / 3.0;  // log 8 is 1
    bias = log_out_(torch::relu(log_in_(spaced))).permute({0, 1, 4, 2, 3});                  // b g h n m
  }
  return bias.reshape({B, o.heads(), N, M});
}

torch::Tensor DeformableSelfAttentionImpl::forward(const torch::Tensor& x) {
  const auto& o = options_;
  TORCH_CHECK(x.dim() == int64_t(o.grid().size()) + 2 && x.size(1) == o.dim() && x.sizes().slice(2).equals(o.grid()),
              "deformable self-attention: x is ", x.sizes(), ", expected [B,", o.dim(), ",...] on the grid ", at::IntArrayRef(o.grid()));
  const int64_t B = x.size(0), D = int64_t(o.grid().size());
  const auto tokens = x.flatten(2).transpose(1, 2);  // b n e
  const auto q = on_tokens(tokens, q_weight_, q_bias_), q_map = q.transpose(1, 2).reshape(x.sizes());
  const auto places = moved(q_map);
  // Read x at the places, each group its channels: place -1 is the middle of the first token.
  const auto sizes = torch::tensor(o.grid(), torch::kInt64);
  const auto n = sizes.to(x.scalar_type());
  const auto location = (((places + 1) * 0.5 * (n - 1) + 0.5) / n).flip(-1);  // b g m d as points
  const auto locations = location.transpose(1, 2).reshape({B, -1, o.groups(), 1, 1, D});
  const auto value = tokens.reshape({B, -1, o.groups(), o.dim() / o.groups()});
  const auto read = ops::deformable_attention(value, sizes.unsqueeze(0), locations, torch::ones_like(locations.select(-1, 0)));
  const auto by_head = [&](const torch::Tensor& t) { return t.view({B, t.size(1), o.heads(), -1}).transpose(1, 2); };
  std::optional<torch::Tensor> bias;
  if (o.bias() == DeformedBias::kTable || o.bias() == DeformedBias::kLog) bias = score_bias(places);
  auto out = std::get<0>(ops::attention(by_head(q), by_head(on_tokens(read, k_weight_, k_bias_)),
                                        by_head(on_tokens(read, v_weight_, v_bias_)), bias))
                 .transpose(1, 2)
                 .reshape({B, -1, o.dim()});
  if (o.bias() == DeformedBias::kDepthwise)
    out = out + depthwise(q_map, lepe_weight_, lepe_bias_, /*stride=*/1).flatten(2).transpose(1, 2);
  return traced(this, on_tokens(out, out_weight_, out_bias_).transpose(1, 2).reshape(x.sizes()));
}

std::pair<torch::Tensor, torch::Tensor> DeformableSelfAttentionImpl::places(const torch::Tensor& x) {
  const auto q = on_tokens(x.flatten(2).transpose(1, 2), q_weight_, q_bias_).transpose(1, 2).reshape(x.sizes());
  const auto n = torch::tensor(options_.grid(), x.options());
  const auto in_tokens = [&](const torch::Tensor& p) { return (p + 1) * 0.5 * (n - 1); };
  return {in_tokens(reference_points(x.options())), in_tokens(moved(q))};
}

}  // namespace fovea::nn
