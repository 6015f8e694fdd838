#pragma once
#include <memory>
#include <vector>

#include <torch/torch.h>

#include "fovea/nn/patch_embed.h"

namespace fovea::models {

using nn::Triple;

/// A network that labels every voxel.
struct NetworkImpl : torch::nn::Module {
  using torch::nn::Module::Module;

  /// Shapes   x [B,Cin,Z,Y,X] -> logits [B,K,Z,Y,X]
  /// Errors   ArgumentError on channels or sizes: see check_input()
  virtual torch::Tensor forward(torch::Tensor x) = 0;

  /// Logits at several scales, full resolution first; the others, for deep supervision, at half, quarter ... of it.
  virtual std::vector<torch::Tensor> forward_scales(torch::Tensor x) { return {forward(std::move(x))}; }

  virtual int64_t in_channels() const = 0;
  virtual int64_t out_channels() const = 0;

  /// Each axis of the input is a multiple of this.
  virtual Triple size_multiple() const = 0;

  /// Throws ArgumentError unless `x` is [B,in_channels,Z,Y,X] with sizes that the network takes.
  virtual void check_input(const torch::Tensor& x) const;

  int64_t parameter_count() const;
};
using Network = std::shared_ptr<NetworkImpl>;

}  // namespace fovea::models
