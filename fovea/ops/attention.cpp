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

#define FOVEA_ATTENTION_OPTIONS                                                                                \
  "bool causal=False, float? scale=None, int window_left=-1, int window_right=-1, float softcap=0., "          \
  "float[] alibi_slopes=[], float dropout=0., int dropout_seed=0"

TORCH_LIBRARY_FRAGMENT(fovea, m) {
  m.def("attention(Tensor q, Tensor k, Tensor v, Tensor? bias=None, Tensor? key_mask=None, " FOVEA_ATTENTION_OPTIONS
        ") -> (Tensor out, Tensor lse)",
        {at::Tag::pt2_compliant_tag});
  // grad_bias has the shape of bias, or is empty unless bias_wanted.
  m.def("attention_backward(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor? bias=None, "
        "Tensor? key_mask=None, bool bias_wanted=False, " FOVEA_ATTENTION_OPTIONS
        ") -> (Tensor grad_q, Tensor grad_k, Tensor grad_v, Tensor grad_bias)",
        {at::Tag::pt2_compliant_tag});
  m.def(
      "attention_rows(Tensor q, Tensor k, Tensor queries, Tensor? bias=None, Tensor? key_mask=None, "
      "float? scale=None, bool causal=False, int window_left=-1, int window_right=-1, float softcap=0., "
      "float[] alibi_slopes=[]) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

AttentionOptions options(bool causal, std::optional<double> scale, int64_t window_left, int64_t window_right,
                         double softcap, at::ArrayRef<double> alibi_slopes, double dropout = 0,
                         int64_t dropout_seed = 0) {
  return {causal, scale, window_left, window_right, softcap, alibi_slopes.vec(), dropout, dropout_seed};
}

// ---- checks ---------------------------------------------------------------------------------------------------------

/// What the three ops take in common. v is undefined for attention_rows.
struct Inputs {
  Tensor q, k, v, bias, key_mask;
  AttentionOptions options;

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
  const AttentionOptions& o = in.options;
  if (!(o.softcap >= 0)) check.fail(c10::str("softcap is ", o.softcap), "at least 0 (0: none)");
  if (!(o.dropout >= 0 && o.dropout < 1)) check.fail(c10::str("dropout is ", o.dropout), "0 <= dropout < 1");
  const auto slopes = static_cast<int64_t>(o.alibi_slopes.size());
  if (slopes > 0 && in.heads() != slopes) {
    check.fail(c10::str("alibi_slopes has ", slopes, " numbers"), c10::str(in.heads(), " (the heads of q) or none"));
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
              const OptionalTensor& key_mask, AttentionOptions options) {
  return {q, k, v, or_undefined(bias), or_undefined(key_mask), std::move(options)};
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
           in.options};
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
  const AttentionOptions& o = in.options;
  p.causal = o.causal;
  p.scale = o.scale.value_or(1 / std::sqrt(static_cast<double>(in.q.size(3))));
  p.window_left = o.window_left, p.window_right = o.window_right;
  p.softcap = o.softcap;
  if (!o.alibi_slopes.empty())
    p.alibi_slopes = View<const double, 1>::contiguous(o.alibi_slopes.data(), {in.q.size(1)});
  p.dropout = {o.dropout, static_cast<uint64_t>(o.dropout_seed)};
  return p;
}

std::tuple<Tensor, Tensor> attention_cpu(const Inputs& in) {
  auto [out, lse] = attention_outputs(in);
  if (out.numel() == 0 || in.k.size(2) == 0) return {out.zero_(), lse.fill_(-std::numeric_limits<double>::infinity())};
  const Inputs kernel_in = kernel_inputs(in, in.q.scalar_type());
  with_attention_type(in.q.scalar_type(), [&, &out = out, &lse = lse](auto element) {
    using T = decltype(element);
    kernels::AttentionParams<T> p = params<T>(kernel_in);
    p.out = view_of<T, 4>(out);
    p.lse = view_of<kernels::ScoreOf<T>, 3>(lse);
    run(p);
  });
  return {out, lse};
}

Gradients attention_backward_cpu(const Inputs& in, const Tensor& grad_out, const Tensor& out, const Tensor& lse,
                                 bool bias_wanted) {
  auto [grad_q, grad_k, grad_v, grad_bias] = attention_gradients(in, grad_out, out, lse, bias_wanted);
  const Tensor grads[] = {grad_q, grad_k, grad_v, grad_bias};
  if (out.numel() == 0 || in.k.size(2) == 0) {
    for (const Tensor& grad : grads) grad.zero_();
  } else {
    const at::ScalarType dtype = in.q.scalar_type();
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

Tensor attention_rows_cpu(const Inputs& in, const Tensor& queries) {
  const Tensor weights = attention_rows_output(in, queries);
  check_query_indices("attention_rows", queries, in.q.size(2), "the tokens of q");
  if (weights.numel() == 0) return weights;
  const Inputs kernel_in = kernel_inputs(in, kernel_dtype(in.q.scalar_type()));
  with_kernel_type(in.q.scalar_type(), [&](auto element) {
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

/// The functions that the dispatcher calls take the options one by one, in the order of the schema: O and R (of rows).
template <class... O>
struct AttentionOps {
  static Gradients backward(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v,
                            const Tensor& out, const Tensor& lse, const OptionalTensor& bias,
                            const OptionalTensor& key_mask, bool bias_wanted, O... o) {
    return attention_backward_cpu(inputs(q, k, v, bias, key_mask, options(o...)), grad_out, out, lse, bias_wanted);
  }
  static Gradients backward_meta(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v,
                                 const Tensor& out, const Tensor& lse, const OptionalTensor& bias,
                                 const OptionalTensor& key_mask, bool bias_wanted, O... o) {
    return attention_gradients(inputs(q, k, v, bias, key_mask, options(o...)), grad_out, out, lse, bias_wanted);
  }
  static std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                            const OptionalTensor& bias, const OptionalTensor& key_mask, O... o) {
    return attention_cpu(inputs(q, k, v, bias, key_mask, options(o...)));
  }
  static std::tuple<Tensor, Tensor> meta(const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias,
                                         const OptionalTensor& key_mask, O... o) {
    return attention_outputs(inputs(q, k, v, bias, key_mask, options(o...)));
  }
  static std::tuple<Tensor, Tensor> autograd(const Tensor& q, const Tensor& k, const Tensor& v,
                                             const OptionalTensor& bias, const OptionalTensor& key_mask, O... o);
  static std::tuple<Tensor, Tensor> autocast(const Tensor& q, const Tensor& k, const Tensor& v,
                                             const OptionalTensor& bias, const OptionalTensor& key_mask, O... o) {
    c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
    return attention(to_autocast_dtype(q), to_autocast_dtype(k), to_autocast_dtype(v), bias, key_mask, options(o...));
  }
};
using Ops =
    AttentionOps<bool, std::optional<double>, int64_t, int64_t, double, at::ArrayRef<double>, double, int64_t>;

template <class... R>
struct AttentionRowsOps {
  static AttentionOptions rows_options(std::optional<double> scale, bool causal, int64_t window_left,
                                       int64_t window_right, double softcap, at::ArrayRef<double> alibi_slopes) {
    return options(causal, scale, window_left, window_right, softcap, alibi_slopes);
  }
  static Tensor forward(const Tensor& q, const Tensor& k, const Tensor& queries, const OptionalTensor& bias,
                        const OptionalTensor& key_mask, R... o) {
    return attention_rows_cpu(inputs(q, k, {}, bias, key_mask, rows_options(o...)), queries);
  }
  static Tensor meta(const Tensor& q, const Tensor& k, const Tensor& queries, const OptionalTensor& bias,
                     const OptionalTensor& key_mask, R... o) {
    return attention_rows_output(inputs(q, k, {}, bias, key_mask, rows_options(o...)), queries);
  }
  /// Rows explain a forward pass; they are constants to autograd.
  static Tensor autograd(const Tensor& q, const Tensor& k, const Tensor& queries, const OptionalTensor& bias,
                         const OptionalTensor& key_mask, R... o) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return attention_rows(q, k, queries, bias, key_mask, rows_options(o...));
  }
  static Tensor autocast(const Tensor& q, const Tensor& k, const Tensor& queries, const OptionalTensor& bias,
                         const OptionalTensor& key_mask, R... o) {
    c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
    return attention_rows(to_autocast_dtype(q), to_autocast_dtype(k), queries, bias, key_mask, rows_options(o...));
  }
};
using RowsOps = AttentionRowsOps<std::optional<double>, bool, int64_t, int64_t, double, at::ArrayRef<double>>;

Gradients attention_backward(const Tensor& grad_out, const Inputs& in, const Tensor& out, const Tensor& lse,
                             bool bias_wanted) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("fovea::attention_backward", "")
                             .typed<decltype(Ops::backward)>();
  const AttentionOptions& o = in.options;
  return op.call(grad_out, in.q, in.k, in.v, out, lse, or_none(in.bias), or_none(in.key_mask), bias_wanted, o.causal,
                 o.scale, o.window_left, o.window_right, o.softcap, o.alibi_slopes, o.dropout, o.dropout_seed);
}

class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                               const OptionalTensor& bias, const OptionalTensor& key_mask, const AttentionOptions& o) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [out, lse] = attention(q, k, v, bias, key_mask, o);
    ctx->save_for_backward({q, k, v, or_undefined(bias), or_undefined(key_mask), out, lse});
    auto& saved = ctx->saved_data;
    saved["causal"] = o.causal;
    saved["scale"] = o.scale;
    saved["window_left"] = o.window_left;
    saved["window_right"] = o.window_right;
    saved["softcap"] = o.softcap;
    saved["alibi_slopes"] = o.alibi_slopes;
    saved["dropout"] = o.dropout;
    saved["dropout_seed"] = o.dropout_seed;
    saved["bias_wanted"] = bias && bias->requires_grad();
    ctx->mark_non_differentiable({lse});
    return {out, lse};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list tensors = ctx->get_saved_variables();
    auto& saved = ctx->saved_data;
    const AttentionOptions o{saved["causal"].toBool(),
                             saved["scale"].toOptional<double>(),
                             saved["window_left"].toInt(),
                             saved["window_right"].toInt(),
                             saved["softcap"].toDouble(),
                             saved["alibi_slopes"].toDoubleVector(),
                             saved["dropout"].toDouble(),
                             saved["dropout_seed"].toInt()};
    const bool bias_wanted = saved["bias_wanted"].toBool();
    auto [grad_q, grad_k, grad_v, grad_bias] =
        attention_backward(grads[0], {tensors[0], tensors[1], tensors[2], tensors[3], tensors[4], o}, tensors[5],
                           tensors[6], bias_wanted);
    return {grad_q, grad_k, grad_v, bias_wanted ? grad_bias : Tensor(), Tensor(), Tensor()};
  }
};

template <class... O>
std::tuple<Tensor, Tensor> AttentionOps<O...>::autograd(const Tensor& q, const Tensor& k, const Tensor& v,
                                                        const OptionalTensor& bias, const OptionalTensor& key_mask,
                                                        O... o) {
  const variable_list outputs = AttentionFunction::apply(q, k, v, bias, key_mask, options(o...));
  return {outputs[0], outputs[1]};
}

// ---- registration ---------------------------------------------------------------------------------------------------

TORCH_LIBRARY_IMPL(fovea, Meta, m) {
  m.impl("attention", Ops::meta);
  m.impl("attention_backward", Ops::backward_meta);
  m.impl("attention_rows", RowsOps::meta);
}

TORCH_LIBRARY_IMPL(fovea, CPU, m) {
  m.impl("attention", Ops::forward);
  m.impl("attention_backward", Ops::backward);
  m.impl("attention_rows", RowsOps::forward);
}

TORCH_LIBRARY_IMPL(fovea, Autograd, m) {
  m.impl("attention", Ops::autograd);
  m.impl("attention_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("attention_rows", RowsOps::autograd);
}

TORCH_LIBRARY_IMPL(fovea, AutocastCPU, m) {
  m.impl("attention", Ops::autocast);
  m.impl("attention_rows", RowsOps::autocast);
}

}  // namespace

std::tuple<Tensor, Tensor> attention(const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias,
                                     const OptionalTensor& key_mask, const AttentionOptions& o) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("fovea::attention", "").typed<decltype(Ops::forward)>();
  return op.call(q, k, v, bias, key_mask, o.causal, o.scale, o.window_left, o.window_right, o.softcap, o.alibi_slopes,
                 o.dropout, o.dropout_seed);
}

std::tuple<Tensor, Tensor> attention(const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& bias,
                                     const OptionalTensor& key_mask, bool causal, std::optional<double> scale) {
  return attention(q, k, v, bias, key_mask, AttentionOptions{.causal = causal, .scale = scale});
}

Tensor attention_rows(const Tensor& q, const Tensor& k, const Tensor& queries, const OptionalTensor& bias,
                      const OptionalTensor& key_mask, const AttentionOptions& o) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("fovea::attention_rows", "").typed<decltype(RowsOps::forward)>();
  return op.call(q, k, queries, bias, key_mask, o.scale, o.causal, o.window_left, o.window_right, o.softcap,
                 o.alibi_slopes);
}

Tensor attention_rows(const Tensor& q, const Tensor& k, const Tensor& queries, const OptionalTensor& bias,
                      const OptionalTensor& key_mask, std::optional<double> scale, bool causal) {
  return attention_rows(q, k, queries, bias, key_mask, AttentionOptions{.causal = causal, .scale = scale});
}

}  // namespace fovea::ops
