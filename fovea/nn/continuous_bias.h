#pragma once
#include <torch/torch.h>

#include "fovea/nn/patch_embed.h"

namespace fovea::nn {

/// Relative position bias as a smooth function of the displacement: a small perceptron over log-spaced coordinates. It
/// holds no entry for any displacement, so that the same weights serve windows of every size.
///   bias[d,h] = 16 sigmoid(mlp(c(d)))_h,  c_axis = sign(r) log2(1 + |r|) / log2 8,  r = 8 d_axis / (w_axis - 1)
/// w is the window that the weights were trained with. An axis of one token has the coordinate 0, which makes a window
/// of 1 x wy x wx the two-dimensional form.
/// Shapes   window -> table [(2wz-1)(2wy-1)(2wx-1),H], rows as in relative_position_index_of()
/// Names    0.weight [512,3], 0.bias [512], 2.weight [H,512]: Swin-v2's cpb_mlp, whose first weight in two dimensions is
///          [512,2] (Y, X): a column of zeros in front makes it ours
/// Source   Liu et al. 2022 (Swin-v2), arXiv:2111.09883, equations 3 and 4
class ContinuousBiasImpl : public torch::nn::Module {
 public:
  /// trained_window: the window whose corner has the coordinate 1.
  ContinuousBiasImpl(int64_t heads, const Triple& trained_window);
  torch::Tensor forward(const Triple& window);

 private:
  Triple trained_window_;
  torch::nn::Linear first_{nullptr}, last_{nullptr};
};
TORCH_MODULE(ContinuousBias);

/// c(d) of every displacement of a window, [(2wz-1)(2wy-1)(2wx-1),3] f64 in Z, Y, X order.
torch::Tensor log_spaced_displacements(const Triple& window, const Triple& trained_window);

/// A bias table for windows of another size: trilinear over the displacements, the extreme ones onto each other, so that
/// (0,0,0) stays where it is and all others keep their share of the window's edge.
/// Shapes   table [(2f-1)^3,H] for the window `from` -> [(2t-1)^3,H] for `to`; differentiable
/// Errors   caller error: a table that is not of `from`
torch::Tensor resize_bias_table(const torch::Tensor& table, const Triple& from, const Triple& to);

}  // namespace fovea::nn
