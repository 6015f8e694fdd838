#pragma once
#include <torch/torch.h>

#include <vector>

#include "fovea/nn/msa_attention.h"

namespace fovea::models {

struct AlignmentTransformerConfig {
  int64_t columns = 0;  // L of the alignment
  int64_t states = 21;  // 20 residues and the gap
  int64_t dim = 64, heads = 8, blocks = 1;
};

/// A small MSA Transformer for one protein family, trained on its own masked residues: tied attention over residues, then
/// attention over sequences, then the perceptron.
/// Shapes   forward: residues [R,L] int64 up to `states`, which is the mask -> logits [R,L,states]
/// Names    letter [states + 1,E], place [L,E], block0, block1 ... (nn::MsaBlock), norm.*, out.*
/// Cost     O(R L (R + L) E) a block; no map is stored
/// Source   Rao et al. 2021 (MSA Transformer), figure 1, without pre-training on other families
class AlignmentTransformerImpl : public torch::nn::Module {
 public:
  explicit AlignmentTransformerImpl(const AlignmentTransformerConfig& config);
  torch::Tensor forward(const torch::Tensor& residues);
  /// The tied maps [blocks * H, L, L] that these sequences are read with; without gradient.
  torch::Tensor maps(const torch::Tensor& residues);

  torch::Tensor letter, place;
  std::vector<nn::MsaBlock> blocks;
  torch::nn::LayerNorm norm{nullptr};
  torch::nn::Linear out{nullptr};

 private:
  torch::Tensor tokens(const torch::Tensor& residues);

  AlignmentTransformerConfig config_;
};
TORCH_MODULE(AlignmentTransformer);

}  // namespace fovea::models
