#include "fovea/models/station_fusion.h"

#include <cmath>

#include "fovea/core/error.h"

namespace fovea::models {

namespace {
void expect_shape(const torch::Tensor& t, std::vector<int64_t> shape, const char* name) {
  if (!t.defined() || t.sizes() != shape)
    throw ArgumentError(c10::str("station_fusion: ", name, " is ", t.defined() ? c10::str(t.sizes()) : "missing", ", expected ", c10::IntArrayRef(shape)));
}

void expect_sources(const torch::Tensor& source, int64_t sources) {
  if (source.numel() == 0) return;
  const int64_t least = source.min().item<int64_t>(), most = source.max().item<int64_t>();
  if (least < 0 || most >= sources) throw ArgumentError(c10::str("station_fusion: source ", least < 0 ? least : most, ", expected 0 to ", sources - 1));
}

void expect_finite(const torch::Tensor& t, const char* name) {
  if (!t.isfinite().all().item<bool>()) throw ArgumentError(c10::str("station_fusion: a ", name, " of a present value or target is not finite"));
}

// Rows [B,M,...] where present, 0 elsewhere: what stands in the cell of a missing value is never computed with.
torch::Tensor where_present(const torch::Tensor& t, const torch::Tensor& present) {
  return torch::where(t.dim() == 3 ? present.unsqueeze(2) : present, t, torch::zeros_like(t));
}
}  // namespace

StationFusionImpl::StationFusionImpl(const StationFusionConfig& config) : config_(config) {
  if (config.sources < 1 || config.layers < 1 || config.covariates < 0) throw ArgumentError("station_fusion: expected a source and a layer or more");
  usual = register_parameter("usual", torch::zeros({}));
  source_ = register_parameter("source", 0.3 * torch::randn({config.sources, config.source_width}));
  offset = register_parameter("offset", torch::zeros({config.sources}));
  slope = register_parameter("slope", torch::zeros({config.covariates}));
  lift_ = register_parameter("lift", (0.5 * torch::randn({1, config.channels})).repeat({config.sources, 1}));
  error_floor_ = register_parameter("error_floor", torch::full({config.sources}, -2.0));
  const auto layers = register_module("layers", torch::nn::ModuleList());
  for (int64_t i = 0; i < config.layers; ++i) {
    layers_.push_back(nn::PlaceAttention(
        nn::PlaceAttentionOptions(config.channels, config.source_width).heads(config.heads).axes(config.axes).score(config.score)));
    layers->push_back(layers_.back());
  }
  mean_ = register_module("mean", torch::nn::Linear(torch::nn::LinearOptions(config.channels, 1).bias(false)));
  const int64_t known = config.layers * layers_[0]->heads() + config.source_width + config.covariates + 1;
  variance_ = register_module("variance", torch::nn::Sequential(torch::nn::Linear(known, config.hidden), torch::nn::GELU(), torch::nn::Linear(config.hidden, 1)));
}

FusedField StationFusionImpl::forward(const Measurements& m, const Targets& targets) {
  if (!m.places.defined() || m.places.dim() != 3 || !targets.places.defined() || targets.places.dim() != 3)
    throw ArgumentError("station_fusion: places are missing, expected [B,M,D] and [B,N,D]");
  const int64_t B = m.places.size(0), M = m.places.size(1), N = targets.places.size(1), K = config_.covariates;
  expect_shape(m.places, {B, M, config_.axes}, "places"), expect_shape(targets.places, {B, N, config_.axes}, "places of targets");
  expect_shape(m.value, {B, M}, "value"), expect_shape(m.source, {B, M}, "source"), expect_shape(targets.source, {B, N}, "source of targets");
  if (m.error.defined()) expect_shape(m.error, {B, M}, "error");
  if (K > 0) expect_shape(m.covariates, {B, M, K}, "covariates"), expect_shape(targets.covariates, {B, N, K}, "covariates of targets");
  const auto present = m.value.isnan().logical_not();
  const auto source = where_present(m.source, present), places = where_present(m.places, present), value = where_present(m.value, present);
  expect_sources(source, config_.sources), expect_sources(targets.source, config_.sources);
  expect_finite(places, "place"), expect_finite(targets.places, "place"), expect_finite(value, "value");
  const auto told = m.error.defined() ? where_present(m.error.nan_to_num(0), present) : torch::zeros_like(value);
  expect_finite(told, "error");
  const auto of_source = [](const torch::Tensor& table, const torch::Tensor& at) { return table.index_select(0, at.flatten()).unflatten(0, at.sizes()); };

  auto level = of_source(offset, source), target_level = of_source(offset, targets.source);
  if (K > 0) {
    const auto known = where_present(m.covariates, present);
    expect_finite(known, "covariate"), expect_finite(targets.covariates, "covariate");
    level = level + torch::matmul(known, slope), target_level = target_level + torch::matmul(targets.covariates, slope);
  }
  const auto count = present.sum(1, /*keepdim=*/true);
  const auto residual = where_present(value - level, present);
  const auto centre = torch::where(count > 0, residual.sum(1, true) / count.clamp_min(1), usual.expand({B, 1}));
  const auto v = where_present(residual - centre, present);

  nn::PlaceGeometry to_measured{places, places, of_source(source_, source), of_source(source_, source), {}, present}, to_targets = to_measured;
  to_measured.log_variance = to_targets.log_variance = (told.square() + (2 * of_source(error_floor_, source)).exp()).log();
  to_targets.asking = targets.places, to_targets.asking_source = of_source(source_, targets.source);
  auto u = v.unsqueeze(2) * of_source(lift_, source), asked = torch::zeros({B, N, config_.channels}, u.options());
  std::vector<torch::Tensor> known;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const auto read = layers_[i](to_targets, u);
    asked = asked + read.values, known.push_back(read.lse);
    if (i + 1 < layers_.size()) u = u + layers_[i](to_measured, u).values;
  }
  // How much the values near a target differ, by 1 / (1 + distance^2): a day with fronts is told from a calm one.
  {
    torch::NoGradGuard no_grad;
    const auto near = present.unsqueeze(1) / (1 + (targets.places.unsqueeze(2) - places.unsqueeze(1)).square().sum(3));  // [B,N,M]
    const auto total = near.sum(2).clamp_min(1e-9), middle = (near * v.unsqueeze(1)).sum(2) / total;
    known.push_back(((near * (v.unsqueeze(1) - middle.unsqueeze(2)).square()).sum(2) / total + 0.01).log().unsqueeze(2));
  }
  known.push_back(to_targets.asking_source);
  if (K > 0) known.push_back(targets.covariates);
  return {mean_(asked).squeeze(2) + centre + target_level, variance_->forward(torch::cat(known, 2)).squeeze(2)};
}

torch::Tensor StationFusionImpl::weights(const Measurements& measured, const Targets& targets) {
  Measurements with_gradient = measured;
  with_gradient.value = measured.value.detach().clone().requires_grad_();
  const auto mean = forward(with_gradient, targets).mean;
  std::vector<torch::Tensor> rows;
  for (int64_t i = 0; i < mean.size(1); ++i)
    rows.push_back(torch::autograd::grad({mean.select(1, i).sum()}, {with_gradient.value}, {}, /*retain_graph=*/true)[0]);
  return torch::stack(rows, 1);
}

}  // namespace fovea::models
