#include "fovea/nn/cbam.h"

#include <cmath>

#include "fovea/nn/linear.h"
#include "fovea/nn/trace.h"
#include "fovea/ops/spatial_gate.h"

namespace fovea::nn {

namespace {
/// The convolution under the name `conv`; its forward is the gate's.
struct Taps : torch::nn::Module {
  explicit Taps(const SpatialGateOptions& options) {
    std::vector<int64_t> sizes(static_cast<size_t>(options.axes()), options.kernel());
    sizes.insert(sizes.begin(), {1, 2});
    weight = register_parameter("weight", torch::empty(sizes));
    torch::nn::init::kaiming_uniform_(weight, std::sqrt(5.0));
  }
  torch::Tensor weight;
};

/// The spatial axes of [B,C,...].
std::vector<int64_t> spatial_axes(const torch::Tensor& x) {
  std::vector<int64_t> axes;
  for (int64_t axis = 2; axis < x.dim(); ++axis) axes.push_back(axis);
  return axes;
}
}  // namespace

SpatialGateImpl::SpatialGateImpl(const SpatialGateOptions& options) : options_(options) {
  TORCH_CHECK(options.kernel() > 0 && options.kernel() % 2 == 1, "spatial gate: kernel is ", options.kernel(),
              ", expected an odd number");
  TORCH_CHECK(options.axes() == 2 || options.axes() == 3, "spatial gate: axes is ", options.axes(), ", expected 2 or 3");
  const auto taps = std::make_shared<Taps>(options);
  const auto spatial = register_module("spatial", std::make_shared<torch::nn::Module>());
  weight = spatial->register_module("conv", taps)->weight;
  bn_ = spatial->register_module("bn", torch::nn::BatchNorm3d(torch::nn::BatchNorm3dOptions(1).eps(1e-5).momentum(0.01)));
}

std::pair<torch::Tensor, torch::Tensor> SpatialGateImpl::gated(const torch::Tensor& x) {
  const bool plane = options_.axes() == 2;
  TORCH_CHECK(x.dim() == options_.axes() + 2, "spatial gate: x has ", x.dim(), " axes, expected ", options_.axes() + 2,
              plane ? ", [B,C,Y,X]" : ", [B,C,Z,Y,X]");
  // A plane is a volume of one slice.
  const auto volume = plane ? x.unsqueeze(2) : x, taps = plane ? weight.unsqueeze(2) : weight;
  torch::Tensor out, map;
  if (!torch::GradMode::is_enabled() && !is_training() && fused_on_cpu(x)) {
    const double scale = bn_->weight.item<double>() / std::sqrt(bn_->running_var.item<double>() + bn_->options.eps());
    const double shift = bn_->bias.item<double>() - scale * bn_->running_mean.item<double>();
    std::tie(out, map) = ops::spatial_gate(volume, taps, scale, shift);
  } else {
    const auto pool = x.is_cpu() ? ops::channel_pool(volume)
                                 : torch::cat({volume.amax(1, /*keepdim=*/true), volume.mean(1, /*keepdim=*/true)}, 1);
    const std::vector<int64_t> padding = {taps.size(2) / 2, taps.size(3) / 2, taps.size(4) / 2};
    map = torch::sigmoid(bn_(torch::conv3d(pool, taps, {}, 1, padding)));
    out = map * volume;
  }
  return plane ? std::pair(out.squeeze(2), map.squeeze(2)) : std::pair(out, map);
}

torch::Tensor SpatialGateImpl::forward(const torch::Tensor& x) { return traced(this, gated(x).first); }

torch::Tensor SpatialGateImpl::map(const torch::Tensor& x) { return gated(x).second; }

ChannelGateImpl::ChannelGateImpl(const ChannelGateOptions& options) {
  const int64_t hidden = std::max<int64_t>(1, options.channels() / options.reduction());
  in = torch::nn::Linear(options.channels(), hidden), out = torch::nn::Linear(hidden, options.channels());
  register_module("mlp", torch::nn::Sequential(torch::nn::Flatten(), in, torch::nn::ReLU(), out));
}

torch::Tensor ChannelGateImpl::forward(const torch::Tensor& x) {
  const auto axes = spatial_axes(x);
  TORCH_CHECK(!axes.empty() && x.size(1) == in->options.in_features(), "channel gate: x is ", x.sizes(), ", expected [B,",
              in->options.in_features(), ",...] with spatial axes");
  const auto mlp = [&](const torch::Tensor& pooled) { return out(torch::relu(in(pooled))); };  // [B,C]
  auto gate = torch::sigmoid(mlp(x.mean(axes)) + mlp(x.amax(axes)));
  for (size_t i = 0; i < axes.size(); ++i) gate = gate.unsqueeze(-1);
  return traced(this, gate * x);
}

CbamImpl::CbamImpl(const CbamOptions& options) {
  channel_gate =
      register_module("ChannelGate", ChannelGate(ChannelGateOptions(options.channels()).reduction(options.reduction())));
  if (options.spatial()) spatial_gate = register_module("SpatialGate", SpatialGate(options.gate()));
}

torch::Tensor CbamImpl::forward(const torch::Tensor& x) {
  const auto y = channel_gate(x);
  return traced(this, spatial_gate ? spatial_gate(y) : y);
}

}  // namespace fovea::nn
