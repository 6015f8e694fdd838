#pragma once
#include <torch/torch.h>

#include <array>
#include <utility>

namespace fovea::nn {

/// What the score of two places is made of.
enum class PlaceScore {
  kUniform,    ///< nothing: every measurement counts alike
  kLaplace,    ///< one head, -|distance| in learned ranges
  kDot,        ///< one head, a dot product of learned waves of both places
  kMultihead,  ///< H heads: ranges, who measured, and how well
};
inline auto config_names(PlaceScore) {
  return std::array{std::pair{PlaceScore::kUniform, "uniform"}, std::pair{PlaceScore::kLaplace, "laplace"}, std::pair{PlaceScore::kDot, "dot"},
                    std::pair{PlaceScore::kMultihead, "multihead"}};
}

struct PlaceAttentionOptions {
  PlaceAttentionOptions(int64_t channels, int64_t source_width) : channels_(channels), source_width_(source_width) {}
  TORCH_ARG(int64_t, channels);      ///< V, of the values' stream
  TORCH_ARG(int64_t, source_width);  ///< E, of the embedding of a source
  TORCH_ARG(int64_t, heads) = 4;     ///< H, of kMultihead; the other kinds have one
  TORCH_ARG(int64_t, axes) = 3;      ///< D of the places, time last
  TORCH_ARG(PlaceScore, score) = PlaceScore::kMultihead;
};

/// Places with measurements, keys, and places that ask: all that the weights depend on. No measured value is in it.
struct PlaceGeometry {
  torch::Tensor asking, measured;                // [B,N,D], [B,M,D]
  torch::Tensor asking_source, measured_source;  // [B,N,E], [B,M,E] embeddings
  torch::Tensor log_variance;                    // [B,M] of the measurements' errors
  torch::Tensor present;                         // [B,M] bool
};

/// One reading of measured values by places. Weights come from places, sources and errors alone, so what is read is linear in the values, as
/// kriging is; layers of it are a polynomial of smoothers that learns to undo what neighbours have in common.
///   s[h,i,j] = -|x_i - x_j| / range_h - |t_i - t_j| / span_h + <W_q e_i, W_k e_j> / sqrt(E) - p_h log(error_j^2)
///   s[h,i,0] = a learned number: the mean of nothing, read as 0, when all measurements are far
///   read_i   = W_o sum_j softmax_j(s) W_v u_j,   weight_i = 1 - softmax_0
/// A missing measurement is a masked key: its weight is 0 to the bit, whatever stands in its cell.
/// Shapes   u [B,M,V] -> read [B,N,V], lse [B,N,H] (log of how much there is to read: no gradient)
/// Names    rate [H,2] (log of 1 / range, 1 / span), rest [H], precision [H], query.weight, key.weight [H*E,E], value.weight [H*V,V],
///          out.weight [V,H*V]; kDot: waves.weight, place.weight
/// Cost     O(B H N M (V + E)) time, B*H*N*M memory for the distances' scores
/// Source   Kim et al. 2019 (attentive neural processes), arXiv:1901.05761, section 3: the four kinds. Linear values and the error are ours
class PlaceAttentionImpl : public torch::nn::Module {
 public:
  explicit PlaceAttentionImpl(const PlaceAttentionOptions& options);
  struct Read {
    torch::Tensor values, lse;
  };
  Read forward(const PlaceGeometry& geometry, const torch::Tensor& u);
  int64_t heads() const { return heads_; }

  torch::Tensor rate, rest, precision;

 private:
  torch::Tensor bias(const PlaceGeometry& geometry) const;  // [B,H,N,1+M]
  torch::Tensor waves_of(const torch::Tensor& places);

  PlaceAttentionOptions options_;
  int64_t heads_ = 1;
  torch::nn::Linear query_{nullptr}, key_{nullptr}, value_{nullptr}, out_{nullptr}, waves_{nullptr}, place_{nullptr};
};
TORCH_MODULE(PlaceAttention);

}  // namespace fovea::nn
