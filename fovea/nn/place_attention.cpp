#include "fovea/nn/place_attention.h"

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/ops/attention.h"

namespace fovea::nn {

namespace {
constexpr int64_t kWaves = 16;

torch::nn::Linear map(int64_t in, int64_t out) { return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(false)); }

// [B,H,N,C] of [B,N,H*C].
torch::Tensor by_head(const torch::Tensor& t, int64_t heads) { return t.unflatten(2, {heads, -1}).transpose(1, 2).contiguous(); }
}  // namespace

PlaceAttentionImpl::PlaceAttentionImpl(const PlaceAttentionOptions& options) : options_(options) {
  if (options.axes() < 2) throw ArgumentError(c10::str("place_attention: ", options.axes(), " axes, expected one of space or more, and time"));
  if (options.heads() < 1 || options.channels() < 1 || options.source_width() < 1) throw ArgumentError("place_attention: no heads, channels or source width");
  heads_ = options.score() == PlaceScore::kMultihead ? options.heads() : 1;
  // Heads begin from far to near in space, from short to long in time.
  const auto spread = [&](double from, double to) { return heads_ == 1 ? torch::full({1}, (from + to) / 2) : torch::linspace(from, to, heads_); };
  rate = register_parameter("rate", torch::stack({spread(-2, 1), spread(1.5, -0.5)}, 1));
  rest = register_parameter("rest", torch::full({heads_}, -1.0));
  precision = register_parameter("precision", torch::full({heads_}, 0.5));
  const int64_t width = options.source_width(), channels = options.channels();
  query_ = register_module("query", map(width, heads_ * width)), key_ = register_module("key", map(width, heads_ * width));
  value_ = register_module("value", map(channels, heads_ * channels)), out_ = register_module("out", map(heads_ * channels, channels));
  torch::nn::init::zeros_(out_->weight);
  if (options.score() != PlaceScore::kDot) return;
  waves_ = register_module("waves", torch::nn::Linear(options.axes(), kWaves));
  place_ = register_module("place", map(2 * kWaves, width));
}

torch::Tensor PlaceAttentionImpl::waves_of(const torch::Tensor& places) {
  const auto angles = waves_(places);
  return place_(torch::cat({angles.sin(), angles.cos()}, 2));
}

torch::Tensor PlaceAttentionImpl::bias(const PlaceGeometry& g) const {
  const int64_t B = g.asking.size(0), N = g.asking.size(1), M = g.measured.size(1);
  auto score = torch::zeros({B, heads_, N, M}, g.asking.options());
  if (options_.score() == PlaceScore::kLaplace || options_.score() == PlaceScore::kMultihead) {
    const auto apart = g.asking.unsqueeze(2) - g.measured.unsqueeze(1);  // [B,N,M,D]
    const int64_t last = options_.axes() - 1;
    const auto space = apart.slice(3, 0, last).square().sum(3).add(1e-12).sqrt(), time = apart.select(3, last).abs();
    const auto of_head = [&](int64_t which) { return rate.select(1, which).exp().view({1, heads_, 1, 1}); };
    score = -(of_head(0) * space.unsqueeze(1) + of_head(1) * time.unsqueeze(1));
  }
  if (options_.score() != PlaceScore::kUniform) score = score - precision.view({1, heads_, 1, 1}) * g.log_variance.view({B, 1, 1, M});
  return torch::cat({rest.view({1, heads_, 1, 1}).expand({B, heads_, N, 1}), score}, 3);
}

PlaceAttentionImpl::Read PlaceAttentionImpl::forward(const PlaceGeometry& g, const torch::Tensor& u) {
  const int64_t B = u.size(0), M = u.size(1);
  if (u.size(2) != options_.channels() || g.measured.size(1) != M || g.measured.size(2) != options_.axes())
    throw ArgumentError(c10::str("place_attention: u is ", u.sizes(), " at places ", g.measured.sizes(), ", expected [B,M,", options_.channels(), "] and [B,M,", options_.axes(), "]"));
  auto q = query_(g.asking_source), k = key_(g.measured_source);
  switch (options_.score()) {
    case PlaceScore::kUniform:
    case PlaceScore::kLaplace: q = 0 * q, k = 0 * k; break;
    case PlaceScore::kDot: q = q + query_(waves_of(g.asking)), k = k + key_(waves_of(g.measured)); break;
    default: break;
  }
  // Key 0 is the rest: score `rest`, value 0.
  const auto before = [&](const torch::Tensor& t) { return torch::nn::functional::pad(t, torch::nn::functional::PadFuncOptions({0, 0, 1, 0})); };
  const auto present = torch::cat({torch::ones({B, 1}, g.present.options()), g.present}, 1);
  const auto [read, lse] = ops::attention(by_head(q, heads_), by_head(before(k), heads_), by_head(before(value_(u)), heads_), bias(g), present);
  return {out_(read.transpose(1, 2).flatten(2)), lse.transpose(1, 2).to(u.scalar_type())};
}

}  // namespace fovea::nn
