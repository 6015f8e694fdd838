#include "fovea/nn/class_token.h"

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/nn/initialise.h"

namespace fovea::nn {

ClassTokenImpl::ClassTokenImpl(const ClassTokenOptions& options) : options_(options) {
  const int64_t E = options.dim();
  class_token = register_parameter("class_token", torch::empty({E}));
  kind = register_parameter("kind", torch::empty({options.sources(), E}));
  {
    const torch::NoGradGuard no_grad;
    truncated_normal_(class_token), truncated_normal_(kind);
  }
  torch::nn::ModuleList list;
  for (int64_t i = 0; i < options.blocks(); ++i) {
    blocks.emplace_back(MultiHeadAttentionOptions(E, options.heads()), 4 * E);
    list->push_back(blocks.back());
  }
  register_module("blocks", list);
  norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({E})));
}

torch::Tensor ClassTokenImpl::forward(const std::vector<torch::Tensor>& sources,
                                      const std::vector<torch::Tensor>& present) {
  if (int64_t(sources.size()) != options_.sources() || (!present.empty() && present.size() != sources.size()))
    throw ArgumentError(c10::str("class token: ", sources.size(), " sources and ", present.size(), " marks, expected ",
                                 options_.sources(), " sources"));
  const int64_t B = sources[0].size(0), E = options_.dim();
  const auto f = sources[0].options();
  std::vector<torch::Tensor> x{class_token.expand({B, 1, E})}, mask{torch::ones({B, 1}, f.dtype(torch::kBool))},
      bias{torch::zeros({1}, f)};
  counts_.clear();
  for (size_t s = 0; s < sources.size(); ++s) {
    const auto& tokens = sources[s];
    if (tokens.dim() != 3 || tokens.size(0) != B || tokens.size(2) != E || tokens.size(1) == 0)
      throw ArgumentError(
          c10::str("class token: source ", s, " is ", tokens.sizes(), ", expected [", B, ",n,", E, "]"));
    const int64_t n = tokens.size(1);
    counts_.push_back(n);
    const auto here = present.empty() || !present[s].defined() ? torch::ones({B}, f.dtype(torch::kBool)) : present[s];
    // What is missing may hold anything; zeros keep it finite, and nobody attends to it.
    x.push_back(torch::where(here.view({B, 1, 1}), tokens, torch::zeros({}, f)) + kind[int64_t(s)]);
    mask.push_back(here.unsqueeze(1).expand({B, n}));
    bias.push_back(torch::full({n}, -std::log(double(n)), f));
  }
  auto sequence = torch::cat(x, 1);
  const auto key_mask = torch::cat(mask, 1), prior = torch::cat(bias).view({1, 1, 1, -1});
  for (auto& block : blocks) sequence = block(sequence, key_mask, prior);
  return norm(sequence.select(1, 0));
}

void ClassTokenImpl::set_capture(bool on) {
  for (auto& block : blocks) block->attn->set_capture(on);
}

torch::Tensor ClassTokenImpl::rows() const {
  std::vector<torch::Tensor> rows;
  for (const auto& block : blocks) rows.push_back(block->attn->rows(torch::zeros({1}, torch::kInt64)).select(2, 0));
  return torch::stack(rows);
}

torch::Tensor ClassTokenImpl::shares() const {
  const auto last = rows()[-1].mean(1);  // [B,1 + tokens]
  std::vector<torch::Tensor> shares{last.slice(1, 0, 1)};
  int64_t first = 1;
  for (const int64_t n : counts_) shares.push_back(last.narrow(1, first, n).sum(1, /*keepdim=*/true)), first += n;
  return torch::cat(shares, 1);
}

}  // namespace fovea::nn
