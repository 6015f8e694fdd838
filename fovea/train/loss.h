#pragma once
#include <torch/types.h>

#include <cstdint>
#include <vector>

namespace fovea::train {

struct SegmentationLossConfig {
  double dice_weight = 1;
  double cross_entropy_weight = 1;
  bool batch_dice = true;
  bool include_background = false;
  double smooth = 1e-5;
  std::vector<double> class_weights;
  int64_t ignore_label = -1;
  double deep_supervision_decay = 0.5;

  template <class V>
  void visit(V& v) {
    v("dice_weight", dice_weight, "factor of the soft Dice term");
    v("cross_entropy_weight", cross_entropy_weight, "factor of the cross-entropy term");
    v("batch_dice", batch_dice, "sum Dice over the batch (as nnU-Net) instead of each sample");
    v("include_background", include_background, "class 0 takes part in the Dice term");
    v("smooth", smooth, "added to numerator and denominator of Dice");
    v("class_weights", class_weights, "cross-entropy weight of each class; [] = all 1");
    v("ignore_label", ignore_label, "voxels with this label take part in nothing; -1 = none");
    v("deep_supervision_decay", deep_supervision_decay, "weight of each coarser output relative to the finer one");
  }
};

/// Soft Dice + cross-entropy of a segmentation, in one pass forward and one backward, without a one-hot copy.
///   p = softmax(x) over classes;  CE = sum_v w[y_v] (-log p[y_v, v]) / sum_v w[y_v]
///   D_k = (2 sum_v p_k[y = k] + s) / (sum_v p_k + sum_v [y = k] + s);  Dice = mean over k (and samples) of 1 - D_k
///   loss = dice_weight Dice + cross_entropy_weight CE
/// Shapes   logits [B,K,...] f32, bf16 or f64, K >= 2, contiguous or channels-last without a copy; labels [B,...] or
///          [B,1,...] of any integer type; result a scalar, f64 for f64 logits, else f32.
/// Numerics softmax and sums in f32 (f64 for f64 logits), voxel sums in f64 in a fixed order: same bits for any number
///          of threads. Fit for use under bf16 autocast. No voxel counted (all ignored): the CE term is 0.
/// Errors   ArgumentError on shapes, dtypes, a label outside [0, K) (which is named) or class_weights of another
/// length. Cost     O(B*K*V) time; memory besides the gradient: 4 B a voxel. Source   Milletari et al. 2016 (soft
/// Dice); as monai.losses.DiceCELoss(softmax, smooth_nr = smooth_dr = smooth).
torch::Tensor dice_cross_entropy(const torch::Tensor& logits, const torch::Tensor& labels,
                                 const SegmentationLossConfig& config);

/// Weighted sum of dice_cross_entropy over the outputs of a deeply supervised network, full resolution first; weights
/// 1, d, d^2, ... (d = deep_supervision_decay) divided by their sum. Labels are downsampled with nearest_labels().
/// Shapes   logits: each [B,K,Z_i,Y_i,X_i]; labels [B,Z,Y,X] or [B,1,Z,Y,X] of the first.
torch::Tensor deep_supervision_loss(const std::vector<torch::Tensor>& logits, const torch::Tensor& labels,
                                    const SegmentationLossConfig& config);

/// Labels on a coarser (or finer) grid: target index i takes source index floor((i + 1/2) * source / target).
/// Shapes   labels [B,Z,Y,X] -> [B, size]
torch::Tensor nearest_labels(const torch::Tensor& labels, torch::IntArrayRef size);

}  // namespace fovea::train
