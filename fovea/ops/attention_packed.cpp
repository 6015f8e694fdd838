#include "fovea/ops/attention_packed.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "fovea/ops/argument_check.h"

namespace fovea::ops {
namespace {

using at::Tensor;

TORCH_LIBRARY_FRAGMENT(fovea, m) {
  m.def(
      "attention_packed(Tensor q, Tensor k, Tensor v, int[] q_offsets, int[] k_offsets, bool causal=False, "
      "float? scale=None, int window_left=-1, int window_right=-1, float softcap=0., float[] alibi_slopes=[], "
      "float dropout=0., int dropout_seed=0) -> (Tensor out, Tensor lse)",
      {at::Tag::pt2_compliant_tag});
}

/// The lengths between ascending offsets from 0 to `tokens`.
std::vector<int64_t> lengths(const ArgumentCheck& check, const char* name, at::IntArrayRef offsets, int64_t tokens) {
  if (offsets.empty() || offsets.front() != 0 || offsets.back() != tokens)
    check.fail(c10::str(name, " is ", offsets), c10::str("offsets that ascend from 0 to the ", tokens, " tokens"));
  std::vector<int64_t> all;
  for (size_t s = 1; s < offsets.size(); ++s) {
    if (offsets[s] < offsets[s - 1]) check.fail(c10::str(name, " is ", offsets), "ascending offsets");
    all.push_back(offsets[s] - offsets[s - 1]);
  }
  return all;
}

// Composed of differentiable operations: split and cat are linear in the tokens, forward and backward.
std::tuple<Tensor, Tensor> packed(const Tensor& q, const Tensor& k, const Tensor& v, at::IntArrayRef q_offsets,
                                  at::IntArrayRef k_offsets, bool causal, std::optional<double> scale,
                                  int64_t window_left, int64_t window_right, double softcap,
                                  at::ArrayRef<double> alibi_slopes, double dropout, int64_t dropout_seed) {
  const Argument q_argument{"q", q}, k_argument{"k", k}, v_argument{"v", v};
  const ArgumentCheck check("attention_packed", {q_argument, k_argument, v_argument});
  check.rank(q_argument, 3, "[N,H,C]");
  check.rank(k_argument, 3, "[M,Hk,C]");
  check.rank(v_argument, 3, "[M,Hk,Cv]");
  const auto q_lengths = lengths(check, "q_offsets", q_offsets, q.size(0)),
             k_lengths = lengths(check, "k_offsets", k_offsets, k.size(0));
  if (q_lengths.size() != k_lengths.size())
    check.fail(c10::str("k_offsets holds ", k_lengths.size(), " sequences"),
               c10::str(q_lengths.size(), " (those of q_offsets)"));
  check.size(v_argument, 0, "tokens", k.sym_size(0), "the tokens of k");

  AttentionOptions options{causal,  scale,         window_left, window_right,
                           softcap, alibi_slopes.vec(), dropout,     dropout_seed};
  const auto heads = [](const Tensor& t) { return t.transpose(0, 1).unsqueeze(0); };  // n h c -> 1 h n c
  if (q_lengths.empty()) {
    const auto [out, lse] = attention(heads(q), heads(k), heads(v), {}, {}, options);
    return {out.squeeze(0).transpose(0, 1), lse.squeeze(0).transpose(0, 1)};
  }
  const auto qs = q.split_with_sizes(q_lengths), ks = k.split_with_sizes(k_lengths), vs = v.split_with_sizes(k_lengths);
  std::vector<Tensor> outs, lses;
  for (size_t s = 0; s < qs.size(); ++s, ++options.dropout_seed) {
    const auto [out, lse] = attention(heads(qs[s]), heads(ks[s]), heads(vs[s]), {}, {}, options);
    outs.push_back(out.squeeze(0).transpose(0, 1)), lses.push_back(lse.squeeze(0).transpose(0, 1));
  }
  return {at::cat(outs), at::cat(lses)};
}

TORCH_LIBRARY_IMPL(fovea, CompositeImplicitAutograd, m) { m.impl("attention_packed", packed); }

}  // namespace

std::tuple<Tensor, Tensor> attention_packed(const Tensor& q, const Tensor& k, const Tensor& v,
                                            at::IntArrayRef q_offsets, at::IntArrayRef k_offsets,
                                            const AttentionOptions& o) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("fovea::attention_packed", "").typed<decltype(packed)>();
  return op.call(q, k, v, q_offsets, k_offsets, o.causal, o.scale, o.window_left, o.window_right, o.softcap,
                 o.alibi_slopes, o.dropout, o.dropout_seed);
}

}  // namespace fovea::ops
