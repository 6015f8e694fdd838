#include "fovea/ops/window_attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>

#include "fovea/kernels/window_attention.h"
#include "fovea/ops/argument_check.h"
#include "fovea/ops/kernel_tensors.h"
#include "fovea/ops/parallel.h"

namespace fovea::ops {
namespace {

using at::IntArrayRef;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalDouble = std::optional<double>;
using Gradients = std::tuple<Tensor, Tensor, Tensor>;

// ---- schema ---------------------------------------------------------------------------------------------------------

TORCH_LIBRARY_FRAGMENT(fovea, m) {
  m.def(
      "window_attention(Tensor qkv, Tensor? bias_table, int[3] window, int[3] shift, float? scale=None, "
      "Tensor? pad_token=None, float? mask_value=None, Tensor? bias=None) -> (Tensor out, Tensor lse)",
      {at::Tag::pt2_compliant_tag});
  // grad_bias has the shape of bias_table or bias, whichever is given; a gradient that is not wanted is empty.
  m.def(
      "window_attention_backward(Tensor grad_out, Tensor qkv, Tensor out, Tensor lse, Tensor? bias_table, "
      "int[3] window, int[3] shift, float? scale=None, Tensor? pad_token=None, float? mask_value=None, "
      "Tensor? bias=None, bool bias_wanted=False, bool pad_token_wanted=False) "
      "-> (Tensor grad_qkv, Tensor grad_bias, Tensor grad_pad_token)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "window_attention_rows(Tensor qkv, Tensor? bias_table, int[3] window, int[3] shift, Tensor queries, "
      "float? scale=None, Tensor? pad_token=None, float? mask_value=None, Tensor? bias=None) "
      "-> (Tensor weights, Tensor keys)",
      {at::Tag::pt2_compliant_tag});
}

// ---- checks ---------------------------------------------------------------------------------------------------------

/// What the three ops take in common.
struct Inputs {
  Tensor qkv, bias_table, bias, pad_token;
  IntArrayRef window, shift;
  OptionalDouble scale, mask_value;

  c10::SymInt size(int64_t axis) const { return qkv.sym_size(axis); }  // B Z Y X 3 H C
  c10::SymInt heads() const { return qkv.sym_size(5); }
  c10::SymInt channels() const { return qkv.sym_size(6); }
  int64_t tokens() const { return window[0] * window[1] * window[2]; }
  const Tensor& any_bias() const { return bias.defined() ? bias : bias_table; }
};

constexpr int64_t kMaxWindowTokens = 1 << 20;
constexpr const char* kAxisNames[] = {"Z", "Y", "X"};

/// Rank, sizes, dtypes and devices of one call; metadata only.
void check_window_attention(const char* op, const Inputs& in, const Tensor& queries = {}) {
  const Argument qkv{"qkv", in.qkv}, bias_table{"bias_table", in.bias_table}, bias{"bias", in.bias},
      pad_token{"pad_token", in.pad_token}, rows{"queries", queries};
  ArgumentCheck check(op, {qkv, bias_table, bias, pad_token, rows});
  check.show("window", in.window);
  check.show("shift", in.shift);
  check.one_device();
  check.rank(qkv, 7, "[B,Z,Y,X,3,H,C]");
  check.rank(bias_table, 2, "[(2wz-1)(2wy-1)(2wx-1),H]");
  check.rank(bias, 3, "[H,n,n]");
  check.rank(pad_token, 3, "[3,H,C]");
  check.rank(rows, 1, "[R]");
  check.dtype(qkv, {at::kFloat, at::kDouble, at::kBFloat16}, "");
  check.dtype(pad_token, {in.qkv.scalar_type()}, "the dtype of qkv");
  for (const Argument& a : {bias_table, bias}) check.dtype_of_scores(a, qkv);
  check.dtype(rows, {at::kLong}, "");

  int64_t tokens = 1, displacements = 1;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t w = in.window[axis], s = in.shift[axis];
    if (w < 1 || w > kMaxWindowTokens || (tokens *= w) > kMaxWindowTokens) {
      check.fail(c10::str("window is ", w, " along ", kAxisNames[axis]),
                 c10::str("at least 1, and at most ", kMaxWindowTokens, " tokens a window"));
    }
    if (s < 0 || s >= w)
      check.fail(c10::str("shift is ", s, " along ", kAxisNames[axis]), c10::str("0 <= shift < ", w, " (window)"));
    displacements *= 2 * w - 1;
  }
  if (in.bias_table.defined() && in.bias.defined())
    check.fail("bias_table and bias are both given", "at most one of them");
  check.size(qkv, 4, "parts", 3, "query, key, value");
  check.at_least_one(qkv, 6, "channels");
  check.size(bias_table, 0, "rows", displacements, "(2wz-1)(2wy-1)(2wx-1)");
  check.size(bias_table, 1, "heads", in.heads(), "the heads of qkv");
  check.size(bias, 0, "heads", in.heads(), "the heads of qkv");
  check.size(bias, 1, "queries", tokens, "the tokens of a window");
  check.size(bias, 2, "keys", tokens, "the tokens of a window");
  check.size(pad_token, 0, "parts", 3, "query, key, value");
  check.size(pad_token, 1, "heads", in.heads(), "the heads of qkv");
  check.size(pad_token, 2, "channels", in.channels(), "the channels of qkv");
}

// ---- meta -----------------------------------------------------------------------------------------------------------
// Allocation is the same on every device: the CPU functions below start from these.

Inputs inputs(const Tensor& qkv, const OptionalTensor& bias_table, IntArrayRef window, IntArrayRef shift,
              OptionalDouble scale, const OptionalTensor& pad_token, OptionalDouble mask_value,
              const OptionalTensor& bias) {
  return {qkv, or_undefined(bias_table), or_undefined(bias), or_undefined(pad_token), window, shift, scale, mask_value};
}

std::tuple<Tensor, Tensor> window_attention_meta(const Tensor& qkv, const OptionalTensor& bias_table,
                                                 IntArrayRef window, IntArrayRef shift, OptionalDouble scale,
                                                 const OptionalTensor& pad_token, OptionalDouble mask_value,
                                                 const OptionalTensor& bias) {
  const Inputs in = inputs(qkv, bias_table, window, shift, scale, pad_token, mask_value, bias);
  check_window_attention("window_attention", in);
  return {at::empty_symint({in.size(0), in.size(1), in.size(2), in.size(3), in.heads() * in.channels()}, qkv.options()),
          at::empty_symint({in.size(0), in.heads(), in.size(1), in.size(2), in.size(3)},
                           qkv.options().dtype(kernel_dtype(qkv.scalar_type())))};
}

Gradients window_attention_backward_meta(const Tensor& grad_out, const Tensor& qkv, const Tensor& out,
                                         const Tensor& lse, const OptionalTensor& bias_table, IntArrayRef window,
                                         IntArrayRef shift, OptionalDouble scale, const OptionalTensor& pad_token,
                                         OptionalDouble mask_value, const OptionalTensor& bias, bool bias_wanted,
                                         bool pad_token_wanted) {
  const Inputs in = inputs(qkv, bias_table, window, shift, scale, pad_token, mask_value, bias);
  const char* const op = "window_attention_backward";
  check_window_attention(op, in);
  const Argument x{"qkv", qkv}, o{"out", out}, g{"grad_out", grad_out}, l{"lse", lse};
  const ArgumentCheck check(op, {x, o, l, g});
  check.one_device();
  check.rank(l, 5, "[B,H,Z,Y,X]");
  for (const Argument& a : {o, g}) {
    check.rank(a, 5, "[B,Z,Y,X,H*C]");
    check.dtype(a, {qkv.scalar_type()}, "the dtype of qkv");
    check.size(a, 4, "channels", in.heads() * in.channels(), "heads times channels of qkv");
  }
  check.dtype(l, {kernel_dtype(qkv.scalar_type())}, "what window_attention returned");
  check.size(l, 1, "heads", in.heads(), "the heads of qkv");
  for (const Argument& a : {o, g, l}) {
    check.size(a, 0, "samples", in.size(0), "the samples of qkv");
    const int64_t first = a.name == l.name ? 2 : 1;
    for (int axis = 0; axis < 3; ++axis) check.size(a, first + axis, "tokens", in.size(1 + axis), "the grid of qkv");
  }
  if (bias_wanted && !in.any_bias().defined())
    check.fail("bias_wanted is true without bias_table or bias", "one of them");
  if (pad_token_wanted && !in.pad_token.defined())
    check.fail("pad_token_wanted is true without pad_token", "a pad_token");
  const auto grad_like = [&](const Tensor& t, bool wanted) {
    return wanted ? at::empty_symint(t.sym_sizes(), t.options()) : at::empty({0}, qkv.options());
  };
  return {grad_like(qkv, true), grad_like(in.any_bias(), bias_wanted), grad_like(in.pad_token, pad_token_wanted)};
}

std::tuple<Tensor, Tensor> window_attention_rows_meta(const Tensor& qkv, const OptionalTensor& bias_table,
                                                      IntArrayRef window, IntArrayRef shift, const Tensor& queries,
                                                      OptionalDouble scale, const OptionalTensor& pad_token,
                                                      OptionalDouble mask_value, const OptionalTensor& bias) {
  const Inputs in = inputs(qkv, bias_table, window, shift, scale, pad_token, mask_value, bias);
  check_window_attention("window_attention_rows", in, queries);
  const c10::SymInt rows = queries.sym_size(0);
  return {at::empty_symint({in.size(0), in.heads(), rows, in.tokens()},
                           qkv.options().dtype(kernel_dtype(qkv.scalar_type()))),
          at::empty_symint({rows, in.tokens()}, queries.options())};
}

// ---- CPU ------------------------------------------------------------------------------------------------------------

template <class T>
void run(const kernels::WindowAttentionParams<T>& p) {
  kernels::cpu::window_attention_forward(p, torch_parallel_for);
}
void run(const kernels::WindowAttentionParams<double>& p) {
  kernels::reference::window_attention_forward(p, torch_parallel_for);
}
template <class T>
void run(const kernels::WindowAttentionBackwardParams<T>& p) {
  kernels::cpu::window_attention_backward(p, torch_parallel_for);
}
void run(const kernels::WindowAttentionBackwardParams<double>& p) {
  kernels::reference::window_attention_backward(p, torch_parallel_for);
}
void run(const kernels::WindowAttentionRowsParams<float>& p) {
  kernels::cpu::window_attention_rows(p, torch_parallel_for);
}
void run(const kernels::WindowAttentionRowsParams<double>& p) {
  kernels::reference::window_attention_rows(p, torch_parallel_for);
}

/// The inputs in a kernel's dtype and layout.
Inputs kernel_inputs(const Inputs& in, at::ScalarType dtype) {
  // Kernels number the tokens of one sample with 32 bits; a tensor on the meta device may be larger.
  const int64_t tokens = in.qkv.numel() / std::max<int64_t>(1, in.qkv.size(0) * in.qkv.size(5) * in.qkv.size(6) * 3);
  TORCH_CHECK(tokens <= INT32_MAX, "window_attention: a sample has ", tokens, " tokens, expected at most ", INT32_MAX);
  Inputs k = in;
  k.qkv = for_kernel(in.qkv, dtype);
  const at::ScalarType scores = kernel_dtype(dtype);
  k.bias_table = in.bias_table.defined() ? in.bias_table.to(scores) : in.bias_table;
  k.bias = in.bias.defined() ? in.bias.to(scores) : in.bias;
  k.pad_token = for_kernel(in.pad_token, dtype);
  return k;
}

/// `in` as kernel_inputs() left it; it owns what the parameters point at.
template <class T>
kernels::WindowAttentionParams<T> params(const Inputs& in) {
  kernels::WindowAttentionParams<T> p;
  p.qkv = view_of<const T, 7>(in.qkv);
  p.bias_table = view_of<const kernels::ScoreOf<T>, 2>(in.bias_table);
  p.bias = view_of<const kernels::ScoreOf<T>, 3>(in.bias);
  p.pad_token = view_of<const T, 3>(in.pad_token);
  p.window = {in.window[0], in.window[1], in.window[2]};
  p.shift = {in.shift[0], in.shift[1], in.shift[2]};
  p.scale = in.scale.value_or(1 / std::sqrt(static_cast<double>(in.qkv.size(6))));
  p.mask_value = in.mask_value;
  return p;
}

/// [B,Z,Y,X,H*C] -> [B,Z,Y,X,H,C]
template <class T>
View<T, 6> heads_view(const Tensor& t, const Tensor& qkv) {
  return view_of<T, 6>(t.unflatten(-1, {qkv.size(5), qkv.size(6)}));
}

std::tuple<Tensor, Tensor> window_attention_cpu(const Tensor& qkv, const OptionalTensor& bias_table, IntArrayRef window,
                                                IntArrayRef shift, OptionalDouble scale,
                                                const OptionalTensor& pad_token, OptionalDouble mask_value,
                                                const OptionalTensor& bias) {
  auto [out, lse] = window_attention_meta(qkv, bias_table, window, shift, scale, pad_token, mask_value, bias);
  if (out.numel() == 0) return {out, lse};
  const Inputs in = kernel_inputs(inputs(qkv, bias_table, window, shift, scale, pad_token, mask_value, bias),
                                  qkv.scalar_type());
  with_attention_type(qkv.scalar_type(), [&, &out = out, &lse = lse](auto element) {
    using T = decltype(element);
    kernels::WindowAttentionParams<T> p = params<T>(in);
    p.out = heads_view<T>(out, qkv);
    p.lse = view_of<kernels::ScoreOf<T>, 5>(lse);
    run(p);
  });
  return {out, lse};
}

Gradients window_attention_backward_cpu(const Tensor& grad_out, const Tensor& qkv, const Tensor& out, const Tensor& lse,
                                        const OptionalTensor& bias_table, IntArrayRef window, IntArrayRef shift,
                                        OptionalDouble scale, const OptionalTensor& pad_token,
                                        OptionalDouble mask_value, const OptionalTensor& bias, bool bias_wanted,
                                        bool pad_token_wanted) {
  auto [grad_qkv, grad_bias, grad_pad_token] =
      window_attention_backward_meta(grad_out, qkv, out, lse, bias_table, window, shift, scale, pad_token, mask_value,
                                     bias, bias_wanted, pad_token_wanted);
  const Tensor grads[] = {grad_qkv, grad_bias, grad_pad_token};
  if (out.numel() == 0) {
    for (const Tensor& grad : grads) grad.zero_();
  } else {
    const at::ScalarType dtype = qkv.scalar_type();
    const Inputs in = kernel_inputs(inputs(qkv, bias_table, window, shift, scale, pad_token, mask_value, bias), dtype);
    const Tensor kernel_out = for_kernel(out, dtype), kernel_grad_out = for_kernel(grad_out, dtype);
    const Tensor kernel_grad_bias = kernel_output(grad_bias, lse.scalar_type());
    with_attention_type(dtype, [&](auto element) {
      using T = decltype(element);
      using Score = kernels::ScoreOf<T>;
      kernels::WindowAttentionBackwardParams<T> p;
      p.forward = params<T>(in);
      // The backward kernel reads out and lse through the forward's own parameters.
      p.forward.out = heads_view<T>(kernel_out, qkv);
      p.forward.lse = view_of<Score, 5>(lse);
      p.grad_out = heads_view<const T>(kernel_grad_out, qkv);
      p.grad_qkv = view_of<T, 7>(grads[0]);
      if (bias_wanted && in.bias.defined()) p.grad_bias = view_of<Score, 3>(kernel_grad_bias);
      if (bias_wanted && in.bias_table.defined()) p.grad_bias_table = view_of<Score, 2>(kernel_grad_bias);
      if (pad_token_wanted) p.grad_pad_token = view_of<T, 3>(grads[2]);
      run(p);
    });
    put(kernel_grad_bias, grads[1]);
  }
  return {grad_qkv, grad_bias, grad_pad_token};
}

std::tuple<Tensor, Tensor> window_attention_rows_cpu(const Tensor& qkv, const OptionalTensor& bias_table,
                                                     IntArrayRef window, IntArrayRef shift, const Tensor& queries,
                                                     OptionalDouble scale, const OptionalTensor& pad_token,
                                                     OptionalDouble mask_value, const OptionalTensor& bias) {
  auto [weights, keys] =
      window_attention_rows_meta(qkv, bias_table, window, shift, queries, scale, pad_token, mask_value, bias);
  check_query_indices("window_attention_rows", queries, qkv.size(1) * qkv.size(2) * qkv.size(3),
                      "the tokens of the grid");
  if (queries.numel() == 0) return {weights, keys};
  const Inputs in = kernel_inputs(inputs(qkv, bias_table, window, shift, scale, pad_token, mask_value, bias),
                                  kernel_dtype(qkv.scalar_type()));
  with_kernel_type(qkv.scalar_type(), [&, &weights = weights, &keys = keys](auto element) {
    using T = decltype(element);
    kernels::WindowAttentionRowsParams<T> p;
    p.forward = params<T>(in);
    p.queries = view_of<const int64_t, 1>(queries);
    p.weights = view_of<T, 4>(weights);
    p.keys = view_of<int64_t, 2>(keys);
    run(p);
  });
  return {weights, keys};
}

// ---- autograd -------------------------------------------------------------------------------------------------------

Gradients window_attention_backward(const Tensor& grad_out, const Tensor& qkv, const Tensor& out, const Tensor& lse,
                                    const OptionalTensor& bias_table, IntArrayRef window, IntArrayRef shift,
                                    OptionalDouble scale, const OptionalTensor& pad_token, OptionalDouble mask_value,
                                    const OptionalTensor& bias, bool bias_wanted, bool pad_token_wanted) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("fovea::window_attention_backward", "")
                             .typed<decltype(window_attention_backward)>();
  return op.call(grad_out, qkv, out, lse, bias_table, window, shift, scale, pad_token, mask_value, bias, bias_wanted,
                 pad_token_wanted);
}

class WindowAttentionFunction : public torch::autograd::Function<WindowAttentionFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& qkv, const OptionalTensor& bias_table,
                               IntArrayRef window, IntArrayRef shift, OptionalDouble scale,
                               const OptionalTensor& pad_token, OptionalDouble mask_value, const OptionalTensor& bias) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [out, lse] = window_attention(qkv, bias_table, window, shift, scale, pad_token, mask_value, bias);
    ctx->save_for_backward({qkv, or_undefined(bias_table), or_undefined(pad_token), or_undefined(bias), out, lse});
    ctx->saved_data["window"] = window;
    ctx->saved_data["shift"] = shift;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["mask_value"] = mask_value;
    const auto wanted = [](const OptionalTensor& t) { return t && t->requires_grad(); };
    ctx->saved_data["bias_table_wanted"] = wanted(bias_table);
    ctx->saved_data["pad_token_wanted"] = wanted(pad_token);
    ctx->saved_data["bias_wanted"] = wanted(bias);
    ctx->mark_non_differentiable({lse});
    return {out, lse};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<int64_t> window = ctx->saved_data["window"].toIntVector(),
                               shift = ctx->saved_data["shift"].toIntVector();
    const bool table_wanted = ctx->saved_data["bias_table_wanted"].toBool(),
               bias_wanted = ctx->saved_data["bias_wanted"].toBool(),
               pad_token_wanted = ctx->saved_data["pad_token_wanted"].toBool();
    auto [grad_qkv, grad_bias, grad_pad_token] =
        window_attention_backward(grads[0], saved[0], saved[4], saved[5], or_none(saved[1]), window, shift,
                                  ctx->saved_data["scale"].toOptional<double>(), or_none(saved[2]),
                                  ctx->saved_data["mask_value"].toOptional<double>(), or_none(saved[3]),
                                  table_wanted || bias_wanted, pad_token_wanted);
    const Tensor none;
    return {grad_qkv, table_wanted ? grad_bias : none,          none, none,
            none,     pad_token_wanted ? grad_pad_token : none, none, bias_wanted ? grad_bias : none};
  }
};

std::tuple<Tensor, Tensor> window_attention_autograd(const Tensor& qkv, const OptionalTensor& bias_table,
                                                     IntArrayRef window, IntArrayRef shift, OptionalDouble scale,
                                                     const OptionalTensor& pad_token, OptionalDouble mask_value,
                                                     const OptionalTensor& bias) {
  const variable_list outputs =
      WindowAttentionFunction::apply(qkv, bias_table, window, shift, scale, pad_token, mask_value, bias);
  return {outputs[0], outputs[1]};
}

/// Rows explain a forward pass; they are constants to autograd.
std::tuple<Tensor, Tensor> window_attention_rows_autograd(const Tensor& qkv, const OptionalTensor& bias_table,
                                                          IntArrayRef window, IntArrayRef shift, const Tensor& queries,
                                                          OptionalDouble scale, const OptionalTensor& pad_token,
                                                          OptionalDouble mask_value, const OptionalTensor& bias) {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return window_attention_rows(qkv, bias_table, window, shift, queries, scale, pad_token, mask_value, bias);
}

// ---- autocast -------------------------------------------------------------------------------------------------------

std::tuple<Tensor, Tensor> window_attention_autocast(const Tensor& qkv, const OptionalTensor& bias_table,
                                                     IntArrayRef window, IntArrayRef shift, OptionalDouble scale,
                                                     const OptionalTensor& pad_token, OptionalDouble mask_value,
                                                     const OptionalTensor& bias) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  return window_attention(to_autocast_dtype(qkv), bias_table, window, shift, scale, to_autocast_dtype(pad_token),
                          mask_value, bias);
}

std::tuple<Tensor, Tensor> window_attention_rows_autocast(const Tensor& qkv, const OptionalTensor& bias_table,
                                                          IntArrayRef window, IntArrayRef shift, const Tensor& queries,
                                                          OptionalDouble scale, const OptionalTensor& pad_token,
                                                          OptionalDouble mask_value, const OptionalTensor& bias) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  return window_attention_rows(to_autocast_dtype(qkv), bias_table, window, shift, queries, scale,
                               to_autocast_dtype(pad_token), mask_value, bias);
}

// ---- registration ---------------------------------------------------------------------------------------------------

TORCH_LIBRARY_IMPL(fovea, Meta, m) {
  m.impl("window_attention", window_attention_meta);
  m.impl("window_attention_backward", window_attention_backward_meta);
  m.impl("window_attention_rows", window_attention_rows_meta);
}

TORCH_LIBRARY_IMPL(fovea, CPU, m) {
  m.impl("window_attention", window_attention_cpu);
  m.impl("window_attention_backward", window_attention_backward_cpu);
  m.impl("window_attention_rows", window_attention_rows_cpu);
}

TORCH_LIBRARY_IMPL(fovea, Autograd, m) {
  m.impl("window_attention", window_attention_autograd);
  m.impl("window_attention_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("window_attention_rows", window_attention_rows_autograd);
}

TORCH_LIBRARY_IMPL(fovea, AutocastCPU, m) {
  m.impl("window_attention", window_attention_autocast);
  m.impl("window_attention_rows", window_attention_rows_autocast);
}

}  // namespace

std::tuple<Tensor, Tensor> window_attention(const Tensor& qkv, const OptionalTensor& bias_table, IntArrayRef window,
                                            IntArrayRef shift, OptionalDouble scale, const OptionalTensor& pad_token,
                                            OptionalDouble mask_value, const OptionalTensor& bias) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("fovea::window_attention", "").typed<decltype(window_attention)>();
  return op.call(qkv, bias_table, window, shift, scale, pad_token, mask_value, bias);
}

std::tuple<Tensor, Tensor> window_attention_rows(const Tensor& qkv, const OptionalTensor& bias_table,
                                                 IntArrayRef window, IntArrayRef shift, const Tensor& queries,
                                                 OptionalDouble scale, const OptionalTensor& pad_token,
                                                 OptionalDouble mask_value, const OptionalTensor& bias) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("fovea::window_attention_rows", "")
                             .typed<decltype(window_attention_rows)>();
  return op.call(qkv, bias_table, window, shift, queries, scale, pad_token, mask_value, bias);
}

}  // namespace fovea::ops
