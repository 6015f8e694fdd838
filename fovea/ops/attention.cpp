#include "fovea/ops/attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>
#include <limits>

#include "fovea/kernels/attention.h"
#include "fovea/ops/argument_check.h"
#include "fovea/ops/kernel_tensors.h"
#include "fovea/ops/parallel.h"

namespace fovea::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// ---- schema ---------------------------------------------------------------------------------------------------------

TORCH_LIBRARY_FRAGMENT(fovea, m) {
  m.def(
      "attention(Tensor q, Tensor k, Tensor v, Tensor? bias=None, Tensor? key_mask=None, bool causal=False, "
      "float? scale=None) -> (Tensor out, Tensor lse)",
      {at::Tag::pt2_compliant_tag});
  // grad_bias has the shape of bias, or is empty unless bias_wanted.
  m.def(
      "attention_backward(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor? bias=None, "
      "Tensor? key_mask=None, bool causal=False, float? scale=None, bool bias_wanted=False) "
      "-> (Tensor grad_q, Tensor grad_k, Tensor grad_v, Tensor grad_bias)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "attention_rows(Tensor q, Tensor k, Tensor queries, Tensor? bias=None, Tensor? key_mask=None, "
      "float? scale=None, bool causal=False) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

// ---- checks ---------------------------------------------------------------------------------------------------------

/// What the three ops take in common. v is undefined for attention_rows.
struct Inputs {
  Tensor q, k, v, bias, key_mask;
  bool causal;
  std::optional<double> scale;

  c10::SymInt batch() const { return q.sym_size(0); }
  c10::SymInt heads() const { return q.sym_size(1); }
  c10::SymInt queries() const { return q.sym_size(2); }
  c10::SymInt keys() const { return k.sym_size(2); }
};

/// Rank, sizes, dtypes and devices of one call; metadata only.
void check_attention(const char* op, const Inputs& in, const Tensor& queries = {}) {
  const Argument q{"q", in.q}, k{"k", in.k}, v{"v", in.v}, bias{"bias", in.bias}, key_mask{"key_mask", in.key_mask},
      rows{"queries", queries};
  const ArgumentCheck check(op, {q, k, v, bias, key_mask, rows});
  check.one_device();
  check.rank(q, 4, "[B,H,N,C]");
  check.rank(k, 4, "[B,Hk,M,C]");
  check.rank(v, 4, "[B,Hk,M,Cv]");
  check.rank(key_mask, 2, "[B,M]");
  check.rank(rows, 1, "[R]");
  check.dtype(q, {at::kFloat, at::kDouble, at::kBFloat16}, "");
  for (const Argument& a : {k, v}) check.dtype(a, {in.q.scalar_type()}, "the dtype of q");
  check.dtype_of_scores(bias, q);
  check.dtype(key_mask, {at::kBool}, "true = the key takes part");
  check.dtype(rows, {at::kLong}, "");

  for (const Argument& a : {k, v, key_mask}) check.size(a, 0, "samples", in.batch(), "the samples of q");
  check.size(v, 1, "heads", in.k.sym_size(1), "the heads of k");
  check.size(v, 2, "tokens", in.keys(), "the tokens of k");
  check.size(key_mask, 1, "tokens", in.keys(), "the tokens of k");
  check.size(k, 3, "channels", in.q.sym_size(3), "the channels of q");
  check.at_least_one(q, 3, "channels");
  check.at_least_one(k, 1, "heads");
  if (in.heads() % in.k.sym_size(1) != 0) {
    check.fail(c10::str("q has ", in.heads(), " heads"),
               c10::str("a multiple of ", in.k.sym_size(1), " (the heads of k)"));
  }
  if (in.bias.defined()) {
    const c10::SymInt scores[] = {in.batch(), in.heads(), in.queries(), in.keys()};
    const int64_t rank = in.bias.dim();
    bool fits = rank <= 4;
    for (int64_t axis = 0; fits && axis < rank; ++axis) {
      const c10::SymInt size = in.bias.sym_size(axis);
      fits = size == 1 || size == scores[4 - rank + axis];
    }
    if (!fits) {
      check.fail(c10::str("bias has shape ", shape_text(in.bias.sym_sizes())),
                 c10::str("a shape that broadcasts to [B,H,N,M] = ", shape_text(scores)));
    }
  }
}

// ---- meta -----------------------------------------------------------------------------------------------------------
// Allocation is the same on every device: the CPU functions below start from these.

/// [B,H,N,C] with tokens before heads in memory if `like` has them so: the layout a Linear's output is split in, and
/// the one its successor wants back.
Tensor empty_heads(const Tensor& like, c10::SymInt channels, at::ScalarType dtype) {
  const c10::SymInt b = like.sym_size(0), h = like.sym_size(1), n = like.sym_size(2), c = std::move(channels);
  const auto options = like.options().dtype(dtype);
  if (like.sym_stride(1) < like.sym_stride(2)) {
    return at::empty_strided_symint({b, h, n, c}, {n * h * c, c, h * c, 1}, options);
  }
  return at::empty_symint({b, h, n, c}, options);
}

std::tuple<Tensor, Tensor> attention_outputs(const Inputs& in) {
  check_attention("attention", in);
  const at::ScalarType scores = kernel_dtype(in.q.scalar_type());
  return {empty_heads(in.q, in.v.sym_size(3), in.q.scalar_type()),
          at::empty_symint({in.batch(), in.heads(), in.queries()}, in.q.options().dtype(scores))};
}

Gradients attention_gradients(const Inputs& in, const Tensor& grad_out, const Tensor& out, const Tensor& lse,
                              bool bias_wanted) {
  check_attention("attention_backward", in);
  const Argument q{"q", in.q}, o{"out", out}, l{"lse", lse}, g{"grad_out", grad_out};
  const ArgumentCheck check("attention_backward", {q, o, l, g});
  check.one_device();
  check.rank(l, 3, "[B,H,N]");
  for (const Argument& a : {o, g}) {
    check.rank(a, 4, "[B,H,N,Cv]");
    check.dtype(a, {in.q.scalar_type()}, "the dtype of q");
    check.size(a, 3, "channels", in.v.sym_size(3), "the channels of v");
  }
  check.dtype(l, {kernel_dtype(in.q.scalar_type())}, "what attention returned");
  for (const Argument& a : {o, g, l}) {
    check.size(a, 0, "samples", in.batch(), "the samples of q");
    check.size(a, 1, "heads", in.heads(), "the heads of q");
    check.size(a, 2, "tokens", in.queries(), "the tokens of q");
  }
  if (bias_wanted && !in.bias.defined()) check.fail("bias_wanted is true without bias", "a bias");
  const auto grad_like = [](const Tensor& t) { return empty_heads(t, t.sym_size(3), t.scalar_type()); };
  return {grad_like(in.q), grad_like(in.k), grad_like(in.v),
          bias_wanted ? at::empty_symint(in.bias.sym_sizes(), in.bias.options()) : at::empty({0}, in.q.options())};
}

Tensor attention_rows_output(const Inputs& in, const Tensor& queries) {
  check_attention("attention_rows", in, queries);
  return at::empty_symint({in.batch(), in.heads(), queries.sym_size(0), in.keys()},
                          in.q.options().dtype(kernel_dtype(in.q.scalar_type())));
}

Inputs inputs(const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias,
              const OptionalTensor& key_mask, bool causal, std::optional<double> scale) {
  return {q, k, v, or_undefined(bias), or_undefined(key_mask), causal, scale};
}

std::tuple<Tensor, Tensor> attention_meta(const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias,
                                          const OptionalTensor& key_mask, bool causal, std::optional<double> scale) {
  return attention_outputs(inputs(q, k, v, bias, key_mask, causal, scale));
}

Gradients attention_backward_meta(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v,
                                  const Tensor& out, const Tensor& lse, const OptionalTensor& bias,
                                  const OptionalTensor& key_mask, bool causal, std::optional<double> scale,
                                  bool bias_wanted) {
  return attention_gradients(inputs(q, k, v, bias, key_mask, causal, scale), grad_out, out, lse, bias_wanted);
}

Tensor attention_rows_meta(const Tensor& q, const Tensor& k, const Tensor& queries, const OptionalTensor& bias,
                           const OptionalTensor& key_mask, std::optional<double> scale, bool causal) {
  return attention_rows_output(inputs(q, k, {}, bias, key_mask, causal, scale), queries);
}

// ---- CPU ------------------------------------------------------------------------------------------------------------

template <class T>
void run(const kernels::AttentionParams<T>& p) {
  kernels::cpu::attention_forward(p, torch_parallel_for);
}
void run(const kernels::AttentionParams<double>& p) { kernels::reference::attention_forward(p, torch_parallel_for); }
template <class T>
void run(const kernels::AttentionBackwardParams<T>& p) {
  kernels::cpu::attention_backward(p, torch_parallel_for);
}
void run(const kernels::AttentionBackwardParams<double>& p) {
  kernels::reference::attention_backward(p, torch_parallel_for);
}
void run(const kernels::AttentionRowsParams<float>& p) { kernels::cpu::attention_rows(p, torch_parallel_for); }
void run(const kernels::AttentionRowsParams<double>& p) { kernels::reference::attention_rows(p, torch_parallel_for); }

/// The inputs in a kernel's dtype and layout, bias broadcast to the scores by strides of 0.
Inputs kernel_inputs(const Inputs& in, at::ScalarType dtype) {
  Inputs k{for_kernel(in.q, dtype),
           for_kernel(in.k, dtype),
           for_kernel(in.v, dtype),
           in.bias,
           in.key_mask,
           in.causal,
           in.scale};
  if (k.bias.defined()) 
    k.bias = in.bias.to(kernel_dtype(dtype)).expand_symint({in.batch(), in.heads(), in.queries(), in.keys()});
  return k;
}

/// `in` as kernel_inputs() left it; it owns what the parameters point at.
template <class T>
kernels::AttentionParams<T> params(const Inputs& in) {
  kernels::AttentionParams<T> p;
  p.q = view_of<const T, 4>(in.q);
  p.k = view_of<const T, 4>(in.k);
  p.v = view_of<const T, 4>(in.v);
  p.bias = view_of<const kernels::ScoreOf<T>, 4>(in.bias);
  p.key_mask = view_of<const uint8_t, 2>(in.key_mask);
  p.causal = in.causal;
  p.scale = in.scale.value_or(1 / std::sqrt(static_cast<double>(in.q.size(3))));
  return p;
}

std::tuple<Tensor, Tensor> attention_cpu(const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias,
                                         const OptionalTensor& key_mask, bool causal, std::optional<double> scale) {
  const Inputs in = inputs(q, k, v, bias, key_mask, causal, scale);
  auto [out, lse] = attention_outputs(in);
  if (out.numel() == 0 || k.size(2) == 0) return {out.zero_(), lse.fill_(-std::numeric_limits<double>::infinity())};
  const Inputs kernel_in = kernel_inputs(in, q.scalar_type());
  with_attention_type(q.scalar_type(), [&, &out = out, &lse = lse](auto element) {
    using T = decltype(element);
    kernels::AttentionParams<T> p = params<T>(kernel_in);
    p.out = view_of<T, 4>(out);
    p.lse = view_of<kernels::ScoreOf<T>, 3>(lse);
    run(p);
  });
  return {out, lse};
}

Gradients attention_backward_cpu(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v,
                                 const Tensor& out, const Tensor& lse, const OptionalTensor& bias,
                                 const OptionalTensor& key_mask, bool causal, std::optional<double> scale,
                                 bool bias_wanted) {
  const Inputs in = inputs(q, k, v, bias, key_mask, causal, scale);
  auto [grad_q, grad_k, grad_v, grad_bias] = attention_gradients(in, grad_out, out, lse, bias_wanted);
  const Tensor grads[] = {grad_q, grad_k, grad_v, grad_bias};
  if (out.numel() == 0 || k.size(2) == 0) {
    for (const Tensor& grad : grads) grad.zero_();
  } else {
    const at::ScalarType dtype = q.scalar_type();
    const Inputs kernel_in = kernel_inputs(in, dtype);
    const Tensor kernel_out = for_kernel(out, dtype), kernel_grad_out = for_kernel(grad_out, dtype);
    const Tensor kernel_grad_bias = kernel_output(grad_bias, lse.scalar_type());
    with_attention_type(dtype, [&](auto element) {
      using T = decltype(element);
      using Score = kernels::ScoreOf<T>;
      kernels::AttentionBackwardParams<T> p;
      p.forward = params<T>(kernel_in);
      // The backward kernel reads out and lse through the forward's own parameters.
      p.forward.out = view_of<T, 4>(kernel_out);
      p.forward.lse = view_of<Score, 3>(lse);
      p.grad_out = view_of<const T, 4>(kernel_grad_out);
      p.grad_q = view_of<T, 4>(grads[0]);
      p.grad_k = view_of<T, 4>(grads[1]);
      p.grad_v = view_of<T, 4>(grads[2]);
      if (bias_wanted) p.grad_bias = view_of<Score, 4>(kernel_grad_bias.expand(kernel_in.bias.sizes()));
      run(p);
    });
    put(kernel_grad_bias, grad_bias);
  }
  return {grad_q, grad_k, grad_v, grad_bias};
}

Tensor attention_rows_cpu(const Tensor& q, const Tensor& k, const Tensor& queries, const OptionalTensor& bias,
                          const OptionalTensor& key_mask, std::optional<double> scale, bool causal) {
  const Inputs in = inputs(q, k, {}, bias, key_mask, causal, scale);
  const Tensor weights = attention_rows_output(in, queries);
  check_query_indices("attention_rows", queries, q.size(2), "the tokens of q");
  if (weights.numel() == 0) return weights;
  const Inputs kernel_in = kernel_inputs(in, kernel_dtype(q.scalar_type()));
  with_kernel_type(q.scalar_type(), [&](auto element) {
    using T = decltype(element);
    kernels::AttentionRowsParams<T> p;
    p.forward = params<T>(kernel_in);
    p.queries = view_of<const int64_t, 1>(queries);
    p.weights = view_of<T, 4>(weights);
    run(p);
  });
  return weights;
}

// ---- autograd -------------------------------------------------------------------------------------------------------

Gradients attention_backward(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v,
                             const Tensor& out, const Tensor& lse, const OptionalTensor& bias,
                             const OptionalTensor& key_mask, bool causal, std::optional<double> scale,
                             bool bias_wanted) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("fovea::attention_backward", "")
                             .typed<decltype(attention_backward)>();
  return op.call(grad_out, q, k, v, out, lse, bias, key_mask, causal, scale, bias_wanted);
}

class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                               const OptionalTensor& bias, const OptionalTensor& key_mask, bool causal,
                               std::optional<double> scale) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [out, lse] = attention(q, k, v, bias, key_mask, causal, scale);
    ctx->save_for_backward({q, k, v, or_undefined(bias), or_undefined(key_mask), out, lse});
    ctx->saved_data["causal"] = causal;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["bias_wanted"] = bias && bias->requires_grad();
    ctx->mark_non_differentiable({lse});
    return {out, lse};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const bool bias_wanted = ctx->saved_data["bias_wanted"].toBool();
    auto [grad_q, grad_k, grad_v, grad_bias] = attention_backward(
        grads[0], saved[0], saved[1], saved[2], saved[5], saved[6], or_none(saved[3]), or_none(saved[4]),
        ctx->saved_data["causal"].toBool(), ctx->saved_data["scale"].toOptional<double>(), bias_wanted);
    return {grad_q, grad_k, grad_v, bias_wanted ? grad_bias : Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

std::tuple<Tensor, Tensor> attention_autograd(const Tensor& q, const Tensor& k, const Tensor& v,
                                              const OptionalTensor& bias, const OptionalTensor& key_mask, bool causal,
                                              std::optional<double> scale) {
  const variable_list outputs = AttentionFunction::apply(q, k, v, bias, key_mask, causal, scale);
  return {outputs[0], outputs[1]};
}

/// Rows explain a forward pass; they are constants to autograd.
Tensor attention_rows_autograd(const Tensor& q, const Tensor& k, const Tensor& queries, const OptionalTensor& bias,
                               const OptionalTensor& key_mask, std::optional<double> scale, bool causal) {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return attention_rows(q, k, queries, bias, key_mask, scale, causal);
}

// ---- autocast -------------------------------------------------------------------------------------------------------

std::tuple<Tensor, Tensor> attention_autocast(const Tensor& q, const Tensor& k, const Tensor& v,
                                              const OptionalTensor& bias, const OptionalTensor& key_mask, bool causal,
                                              std::optional<double> scale) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  return attention(to_autocast_dtype(q), to_autocast_dtype(k), to_autocast_dtype(v), bias, key_mask, causal, scale);
}

Tensor attention_rows_autocast(const Tensor& q, const Tensor& k, const Tensor& queries, const OptionalTensor& bias,
                               const OptionalTensor& key_mask, std::optional<double> scale, bool causal) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  return attention_rows(to_autocast_dtype(q), to_autocast_dtype(k), queries, bias, key_mask, scale, causal);
}

// ---- registration ---------------------------------------------------------------------------------------------------

TORCH_LIBRARY_IMPL(fovea, Meta, m) {
  m.impl("attention", attention_meta);
  m.impl("attention_backward", attention_backward_meta);
  m.impl("attention_rows", attention_rows_meta);
}

TORCH_LIBRARY_IMPL(fovea, CPU, m) {
  m.impl("attention", attention_cpu);
  m.impl("attention_backward", attention_backward_cpu);
  m.impl("attention_rows", attention_rows_cpu);
}

TORCH_LIBRARY_IMPL(fovea, Autograd, m) {
  m.impl("attention", attention_autograd);
  m.impl("attention_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("attention_rows", attention_rows_autograd);
}

TORCH_LIBRARY_IMPL(fovea, AutocastCPU, m) {
  m.impl("attention", attention_autocast);
  m.impl("attention_rows", attention_rows_autocast);
}

}  // namespace

std::tuple<Tensor, Tensor> attention(const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias,
                                     const OptionalTensor& key_mask, bool causal, std::optional<double> scale) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("fovea::attention", "").typed<decltype(attention)>();
  return op.call(q, k, v, bias, key_mask, causal, scale);
}

Tensor attention_rows(const Tensor& q, const Tensor& k, const Tensor& queries, const OptionalTensor& bias,
                      const OptionalTensor& key_mask, std::optional<double> scale, bool causal) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("fovea::attention_rows", "").typed<decltype(attention_rows)>();
  return op.call(q, k, queries, bias, key_mask, scale, causal);
}

}  // namespace fovea::ops
