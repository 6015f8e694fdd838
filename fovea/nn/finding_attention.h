#pragma once
#include <torch/torch.h>

namespace fovea::nn {

struct FindingAttentionOptions {
  explicit FindingAttentionOptions(int64_t dim) : dim_(dim), source_dim_(dim) {}
  TORCH_ARG(int64_t, dim);         ///< E, of the questions and of what is found
  TORCH_ARG(int64_t, source_dim);  ///< of the regions' tokens
};

/// What a question found among regions, and whether it found anything.
struct Finding {
  torch::Tensor vector;   // [B,Q,E]
  torch::Tensor weights;  // [B,Q,N], sum 1; all 0 where every region is masked
  torch::Tensor found;    // [B,Q], logit: larger than 0, there is something; -inf where every region is masked
};

/// Single-head cross-attention that may come back with nothing.
///   s_n = <q, k_n> / sqrt(E);  w = softmax(s);  vector = out_proj(sum_n w_n v_n);  found = log mean_n exp(s_n) - nothing(x)
/// `found` compares the scores, before the softmax takes their size away, with a threshold that the question sets: it is
/// the log odds of the regions against a token "nothing here" that has no value and N times the weight of exp(nothing(x)).
/// Because it is the scores themselves that must tell present from absent, a region with all the marks of another
/// question's finding must score low: attention stays where the question points.
/// Shapes   x [B,Q,E], source [B,N,source_dim], mask bool [B,N] (true = takes part) or undefined
/// Names    {q,k,v,out}_proj.*, nothing.*
/// Errors   ArgumentError: other shapes
/// Cost     O(B Q N E); all weights are returned, so O(B Q N) memory: for few questions
/// Source   ours; log mean exp pooling of instances: Ramon & De Raedt 2000
class FindingAttentionImpl : public torch::nn::Module {
 public:
  explicit FindingAttentionImpl(const FindingAttentionOptions& options);
  Finding forward(const torch::Tensor& x, const torch::Tensor& source, const torch::Tensor& mask = {});

  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, out_proj{nullptr}, nothing{nullptr};

 private:
  FindingAttentionOptions options_;
};
TORCH_MODULE(FindingAttention);

}  // namespace fovea::nn
