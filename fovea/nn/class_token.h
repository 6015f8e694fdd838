#pragma once
#include <vector>

#include <torch/torch.h>

#include "fovea/nn/fusion_block.h"

namespace fovea::nn {

struct ClassTokenOptions {
  ClassTokenOptions(int64_t dim, int64_t heads, int64_t sources) : dim_(dim), heads_(heads), sources_(sources) {}
  TORCH_ARG(int64_t, dim);         ///< E
  TORCH_ARG(int64_t, heads);       ///< H
  TORCH_ARG(int64_t, sources);     ///< whose tokens are joined
  TORCH_ARG(int64_t, blocks) = 1;  ///< transformer blocks
};

/// A class token that reads the tokens of several sources, such as a scan's cells and one token of radiomic features.
///   x      = [class, tokens_1 + kind_1, tokens_2 + kind_2, ...]
///   scores = Q K^T / sqrt(C) - log n_s for keys of source s with n_s tokens
///   out    = norm(blocks(x) of the class token)
/// The last term gives every source the same share of an attention that has learnt nothing: without it a source of 27
/// tokens begins 27 times as heavy as one of a single token.
/// Shapes   sources [B,n_s,E] -> [B,E]; present bool [B] each, undefined: all there. A patient of whom nothing is there
///          gets the answer for nothing: the class token reads itself.
/// Names    class_token [E], kind [S,E], blocks.i.* (FusionBlock), norm.*
/// Errors   ArgumentError: another number of sources or width
class ClassTokenImpl : public torch::nn::Module {
 public:
  explicit ClassTokenImpl(const ClassTokenOptions& options);
  torch::Tensor forward(const std::vector<torch::Tensor>& sources, const std::vector<torch::Tensor>& present = {});

  /// While on, forward keeps what attention rows are made of.
  void set_capture(bool on);
  /// What the class token read in the last captured forward, block by block: exact, [blocks,B,H,1 + tokens].
  torch::Tensor rows() const;
  /// Rows of the last block, mean over heads, added up: itself, then each source: [B,1 + S], sums to 1.
  torch::Tensor shares() const;

  torch::Tensor class_token, kind;
  std::vector<FusionBlock> blocks;
  torch::nn::LayerNorm norm{nullptr};

 private:
  ClassTokenOptions options_;
  std::vector<int64_t> counts_;  // tokens of each source in the last forward
};
TORCH_MODULE(ClassToken);

}  // namespace fovea::nn
