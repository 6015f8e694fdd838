#pragma once
#include <torch/torch.h>

namespace fovea::nn {

struct PrimitiveAttentionOptions {
  TORCH_ARG(int64_t, waves) = 4;  ///< F: whole turns that places are told by
};

/// Softmax attention between places of a periodic field whose keys carry the field's primitive: the form of Cole and Hopf's
/// solution of Burgers' equation, with everything in it to be learned.
///   m = mean f,  P' = f - m (mean 0),  z_i = x_i - drift m
///   s_ij = sum_k a_k cos 2 pi k (z_i - x_j) + b_k sin 2 pi k (z_i - x_j) + primitive P_j
///   u_i = mean m + sum_j softmax_j(s_ij) sum_k c_k cos 2 pi k (z_i - x_j) + d_k sin 2 pi k (z_i - x_j)
/// Queries are places, moved with the mean flow and turned by rotary coordinates; values are places alone.
/// Exact    for u_t + u u_x = nu u_xx at time t: drift t, primitive -1 / (2 nu), mean 1; scores log theta, values
///          -2 nu theta' / theta, theta the periodic heat kernel of nu t
/// Shapes   f [B,N] at evenly spaced points x_i = i / N of one period -> [B,N]
/// Names    score [F,2] (a, b), value [F,2] (c, d), drift, primitive (in tens), mean
/// Start    primitive -1, as attention falls where the potential is high; scores and values 0: the field's mean
/// Cost     op attention: O(B N^2 F), no map is stored
/// Errors   ArgumentError: a field of another shape, fewer points than 2 F
/// Source   Cole 1951; Hopf 1950
class PrimitiveAttentionImpl : public torch::nn::Module {
 public:
  explicit PrimitiveAttentionImpl(const PrimitiveAttentionOptions& options);
  torch::Tensor forward(const torch::Tensor& f);

  torch::Tensor score, value, drift, primitive, mean;

 private:
  torch::Tensor waves(const torch::Tensor& place) const;
  torch::Tensor turned(const torch::Tensor& waves, const torch::Tensor& weights) const;

  PrimitiveAttentionOptions options_;
};
TORCH_MODULE(PrimitiveAttention);

}  // namespace fovea::nn
