#pragma once
#include <vector>

#include <torch/torch.h>

#include "fovea/nn/patch_merging.h"
#include "fovea/nn/swin_block.h"

namespace fovea::nn {

struct SwinStageOptions {
  explicit SwinStageOptions(const WindowAttentionOptions& attention) : attention_(attention) {}
  TORCH_ARG(WindowAttentionOptions, attention);   ///< its shift is ignored: odd blocks shift by half a window, even ones not
  TORCH_ARG(std::vector<double>, drop_path) = {};  ///< one rate a block; its length is the depth
  TORCH_ARG(double, mlp_ratio) = 4;
  TORCH_ARG(double, dropout) = 0;
  TORCH_ARG(MergingOrder, merging) = MergingOrder::kAll;
  TORCH_ARG(bool, recompute) = false;              ///< keep each block's input only, run the block again in backward
};

/// Some Swin blocks on one grid, then patch merging.
/// Shapes   x [B,E,Z,Y,X] -> [B,2E,Z/2,Y/2,X/2], channels last in memory (no copy if x is)
/// Names    blocks.i.*, downsample.*
class SwinStageImpl : public torch::nn::Module {
 public:
  explicit SwinStageImpl(const SwinStageOptions& options);
  torch::Tensor forward(torch::Tensor x);

  torch::nn::ModuleList blocks{nullptr};
  PatchMerging downsample{nullptr};

 private:
  bool recompute_;
};
TORCH_MODULE(SwinStage);

}  // namespace fovea::nn
