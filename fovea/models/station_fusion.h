#pragma once
#include <torch/torch.h>

#include <vector>

#include "fovea/nn/place_attention.h"

namespace fovea::models {

struct StationFusionConfig {
  int64_t axes = 3;        // D of places: space first, time last, in units in which fields change by a good part over 1
  int64_t sources = 1;     // kinds of measurement: networks of stations, a satellite
  int64_t covariates = 0;  // K, known wherever one asks: elevation
  int64_t source_width = 4, channels = 8, heads = 4, layers = 2, hidden = 16;
  nn::PlaceScore score = nn::PlaceScore::kMultihead;

  template <class V>
  void visit(V& v) {
    v("axes", axes, "of places, time last");
    v("sources", sources, "kinds of measurement");
    v("covariates", covariates, "numbers known wherever one asks");
    v("source_width", source_width, "of a source's embedding");
    v("channels", channels, "of the values' stream");
    v("heads", heads, "of a layer");
    v("layers", layers, "of attention");
    v("hidden", hidden, "units of the variance's perceptron");
    v("score", score, "multihead, or the controls uniform, laplace, dot");
  }
};

/// What was measured, by tasks (a day, a field) of M cells each.
struct Measurements {
  torch::Tensor places;      // [B,M,D]
  torch::Tensor source;      // [B,M] int64, below `sources`
  torch::Tensor value;       // [B,M]; NaN: missing
  torch::Tensor error;       // [B,M] standard deviation as told by who measured, 0 or more; undefined or NaN: not told
  torch::Tensor covariates;  // [B,M,K]; undefined for K = 0
};
/// Where one asks, and as whom: a source that would measure there.
struct Targets {
  torch::Tensor places, source, covariates;  // [B,N,D], [B,N], [B,N,K]
};
struct FusedField {
  torch::Tensor mean, log_variance;  // [B,N]
};

/// Values at any place and time from whatever was measured elsewhere: stations, grids, several sources with their own offsets and errors. The
/// mean is linear in the values with weights learned from places, sources and errors (nn::PlaceAttention in layers, targets ask and are not
/// asked), so that its weights are exact and a missing value is a key of weight 0.
///   c = mean of the values present;  u_j = (y_j - offset_s - c - <slope, x_j>) lift_s
///   u <- u + PlaceAttention(u),  layer by layer;  mean_i = <w, u_i> + c + offset_s + <slope, x_i>
///   log variance_i = perceptron(lse of every layer and head, source, covariates, spread of the values weighted by nearness)
/// Where nothing at all is present: c is `usual`, and the variance is that of a place far from everything.
/// Names    usual, source [S,E], offset [S], lift [S,V], slope [K], error_floor [S], layers.I.*, mean.weight, variance.{0,2}.*
/// Errors   ArgumentError: shapes that do not fit, a source that is none, a place, error or covariate of a present value that is not finite
/// Cost     layers times O(B H (M + N) M (V + E))
/// Source   Kim et al. 2019 (attentive neural processes), arXiv:1901.05761; universal kriging for the shape of the mean: Matheron 1969
class StationFusionImpl : public torch::nn::Module {
 public:
  explicit StationFusionImpl(const StationFusionConfig& config);
  FusedField forward(const Measurements& measured, const Targets& targets);
  /// d mean_i / d value_j, [B,N,M]: the exact weights, 0 for missing values.
  torch::Tensor weights(const Measurements& measured, const Targets& targets);

  torch::Tensor usual, offset, slope;

 private:
  StationFusionConfig config_;
  torch::Tensor source_, lift_, error_floor_;
  std::vector<nn::PlaceAttention> layers_;
  torch::nn::Linear mean_{nullptr};
  torch::nn::Sequential variance_{nullptr};
};
TORCH_MODULE(StationFusion);

}  // namespace fovea::models
