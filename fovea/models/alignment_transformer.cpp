#include "fovea/models/alignment_transformer.h"

#include "fovea/core/error.h"

namespace fovea::models {

AlignmentTransformerImpl::AlignmentTransformerImpl(const AlignmentTransformerConfig& config) : config_(config) {
  if (config.columns < 2 || config.states < 2 || config.heads < 1 || config.blocks < 1 || config.dim < 1 ||
      config.dim % config.heads != 0)
    throw ArgumentError(c10::str("alignment_transformer: ", config.columns, " columns, ", config.states, " states, ",
                                 config.blocks, " blocks of width ", config.dim, " and ", config.heads,
                                 " heads, expected at least 2, 2, 1 and a width that the heads divide"));
  letter = register_parameter("letter", 0.3 * torch::randn({config.states + 1, config.dim}));
  place = register_parameter("place", 0.3 * torch::randn({config.columns, config.dim}));
  for (int64_t i = 0; i < config.blocks; ++i)
    blocks.push_back(
        register_module("block" + std::to_string(i),
                        nn::MsaBlock(nn::MsaBlockOptions(config.dim, config.heads).hidden(2 * config.dim))));
  norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({config.dim})));
  out = register_module("out", torch::nn::Linear(config.dim, config.states));
}

torch::Tensor AlignmentTransformerImpl::tokens(const torch::Tensor& residues) {
  if (residues.dim() != 2 || residues.size(1) != config_.columns || residues.scalar_type() != torch::kInt64)
    throw ArgumentError(c10::str("alignment_transformer: residues are ", residues.dtype(), " ", residues.sizes(),
                                 ", expected int64 [R,", config_.columns, "]"));
  return (torch::embedding(letter, residues) + place).unsqueeze(0);  // 1 R L E
}

torch::Tensor AlignmentTransformerImpl::forward(const torch::Tensor& residues) {
  auto x = tokens(residues);
  for (auto& block : blocks) x = block(x);
  return out(norm(x)).squeeze(0);
}

torch::Tensor AlignmentTransformerImpl::maps(const torch::Tensor& residues) {
  torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> maps;
  auto x = tokens(residues);
  for (auto& block : blocks) {
    maps.push_back(block->residue_map(x).squeeze(0));
    x = block(x);
  }
  return torch::cat(maps);
}

}  // namespace fovea::models
