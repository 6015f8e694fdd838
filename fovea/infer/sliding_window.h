#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include "fovea/core/dtype.h"

namespace fovea::infer {

using Triple = std::array<int64_t, 3>;  // Z, Y, X

/// A network as the sliding window sees it: windows [B,C,z,y,x] f32 -> logits [B,K,z,y,x] of the same size. It may move
/// them to another device; what it returns is brought back to the CPU as f32.
using WindowNetwork = std::function<torch::Tensor(const torch::Tensor&)>;

/// Whose rule places the windows and shapes the Gaussian.
enum class WindowRule {
  /// As many windows as steps of at most (1 - overlap) * patch need, spread evenly and rounded to voxels (half to even).
  /// Gaussian about voxel patch/2, scaled to a maximum of 10 and rounded to float16; what rounds to 0 takes the smallest
  /// weight that does not.
  kNnunet,
  /// Steps of floor(patch * (1 - overlap)), the last window moved back to end with the image.
  /// Gaussian about (patch - 1)/2, no weight below the largest of 1e-3 and its own minimum.
  kMonai,
};
enum class Blending { kConstant, kGaussian };

inline auto config_names(WindowRule) { return std::array{std::pair{WindowRule::kNnunet, "nnunet"}, std::pair{WindowRule::kMonai, "monai"}}; }
inline auto config_names(Blending) { return std::array{std::pair{Blending::kConstant, "constant"}, std::pair{Blending::kGaussian, "gaussian"}}; }

struct SlidingWindowConfig {
  WindowRule rule = WindowRule::kNnunet;
  Triple patch_size{64, 64, 64};
  double overlap = 0.5;
  Blending blending = Blending::kGaussian;
  double sigma_scale = 0.125;
  std::vector<int> mirror_axes;
  int64_t batch = 1;

  template <class V>
  void visit(V& v) {
    v("rule", rule, "whose windows and Gaussian: nnunet or monai");
    v("patch_size", patch_size, "voxels of a window, Z, Y, X");
    v("overlap", overlap, "share of a window that its neighbour covers too; nnU-Net's step size is 1 - overlap");
    v("blending", blending, "weights of a window's voxels: constant or gaussian");
    v("sigma_scale", sigma_scale, "deviation of the Gaussian as share of the patch");
    v("mirror_axes", mirror_axes, "axes (0 = Z, 1 = Y, 2 = X) mirrored at test time, all combinations averaged as logits");
    v("batch", batch, "windows given to the network at once");
  }

  /// Errors   ArgumentError naming the field, its value and what it should be.
  void validate() const;
};

/// What nnU-Net does at inference: step 0.5, Gaussian of patch/8, mirroring over all given axes. Its accumulators are
/// float16; ours are float32.
SlidingWindowConfig nnunet_windows(const Triple& patch_size, std::vector<int> mirror_axes = {0, 1, 2});

/// The defaults of MONAI's sliding_window_inference: overlap 0.25, constant weights, no mirroring.
SlidingWindowConfig monai_windows(const Triple& patch_size);

/// First voxel of the windows along Z, Y, X, ascending, for an image of `shape`. Axes shorter than the patch are padded
/// with zeros to its length, half before and half (the larger) behind; starts count from the padded beginning.
std::array<std::vector<int64_t>, 3> window_starts(const Triple& shape, const SlidingWindowConfig& config);

/// Voxels of padding before the first voxel of each axis.
Triple padding_before(const Triple& shape, const SlidingWindowConfig& config);

/// Weight of each voxel of a window: f32 [pz,py,px], all positive.
torch::Tensor window_weights(const SlidingWindowConfig& config);

/// One window, mirrored as the config says: f32 logits [B,K,z,y,x] on the CPU.
/// Errors   ArgumentError when the network's output does not have the shape of its input.
torch::Tensor predict_window(const torch::Tensor& windows, const WindowNetwork& network, const SlidingWindowConfig& config);

/// Into how many stripes along Y and X a volume is cut so that the accumulators of one fit into memory. Windows that
/// cross a cut are computed once for each stripe they touch.
struct Stripes {
  int64_t y = 1, x = 1;
  bool operator==(const Stripes&) const = default;
};

/// Windows computed in all for an image of `shape` cut into `stripes`.
int64_t window_count(const Triple& shape, const SlidingWindowConfig& config, const Stripes& stripes = {});

/// Takes blended logits [K,dz,dy,dx] (f32, strided, valid during the call) of the voxels from `start` (z, y, x) on. Every
/// voxel comes once; within a stripe in ascending z.
using ScoreSink = std::function<void(const Triple& start, const torch::Tensor& scores)>;
/// Called after each batch of windows; may throw to stop.
using WindowProgress = std::function<void(int64_t done, int64_t total)>;

/// The engine: windows in Z, Y, X order, logits times weights summed in that order in f32, divided by the summed weights
/// as soon as no later window reaches a voxel. The full volume of scores never exists: memory is K * patch_z planes of one
/// stripe. A voxel's sum has the same order for any stripes, so its bits do not depend on them, provided that the
/// network's answer to a window does not depend on what else is in its batch (always so with batch 1).
/// Shapes   image [C,Z,Y,X], any real dtype, on the CPU
void stream_scores(const torch::Tensor& image, const WindowNetwork& network, const SlidingWindowConfig& config,
                   const Stripes& stripes, const ScoreSink& sink, const WindowProgress& progress = {});

/// All logits at once, f32 [K,Z,Y,X]: for small volumes.
torch::Tensor predict_scores(const torch::Tensor& image, const WindowNetwork& network, const SlidingWindowConfig& config,
                             const WindowProgress& progress = {});

struct LabelOptions {
  Stripes stripes;       // as the memory plan chose
  ScoreSink score_sink;  // sees the scores before they are dropped; may be empty
  WindowProgress progress;
};

/// Index of the largest logit of each voxel (the first one of several equal): [Z,Y,X] u8, or i16 for over 256 classes.
/// The labels equal the arg-max of predict_scores() bit for bit; memory as stream_scores() plus the labels.
/// Errors   ArgumentError naming the voxel when a logit is nan.
torch::Tensor predict_labels(const torch::Tensor& image, const WindowNetwork& network, const SlidingWindowConfig& config,
                             const LabelOptions& options = {});

/// Softmax over the classes, for keeping probabilities: f16, or u8 as round(255 p). scores [K,...] -> the same shape.
torch::Tensor probabilities(const torch::Tensor& scores, DType dtype);

}  // namespace fovea::infer
