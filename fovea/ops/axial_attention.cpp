#include "fovea/ops/axial_attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>
#include <string>
#include <tuple>

#include "fovea/kernels/axial_attention.h"
#include "fovea/ops/argument_check.h"
#include "fovea/ops/kernel_tensors.h"
#include "fovea/ops/parallel.h"

namespace fovea::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Pair = std::tuple<Tensor, Tensor>;

// ---- schema ---------------------------------------------------------------------------------------------------------

TORCH_LIBRARY_FRAGMENT(fovea, m) {
  m.def(
      "axial_attention(Tensor qkv, str axis, Tensor? pair_bias=None, bool tied=False, Tensor? mask=None, "
      "float? scale=None) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "axial_attention_forward(Tensor qkv, str axis, Tensor? pair_bias, bool tied, Tensor? mask, float? scale) "
      "-> (Tensor out, Tensor lse)",
      {at::Tag::pt2_compliant_tag});
  // grad_pair_bias has the shape of pair_bias, or is empty unless bias_wanted.
  m.def(
      "axial_attention_backward(Tensor grad_out, Tensor qkv, Tensor out, Tensor lse, str axis, Tensor? pair_bias=None, "
      "bool tied=False, Tensor? mask=None, float? scale=None, bool bias_wanted=False) "
      "-> (Tensor grad_qkv, Tensor grad_pair_bias)",
      {at::Tag::pt2_compliant_tag});
}

// ---- checks ---------------------------------------------------------------------------------------------------------

/// What the ops take in common.
struct Inputs {
  Tensor qkv, pair_bias, mask;
  std::string axis;
  bool tied;
  std::optional<double> scale;

  Inputs(const Tensor& q, std::string_view a, const OptionalTensor& bias, bool t, const OptionalTensor& m,
         std::optional<double> s)
      : qkv(q), pair_bias(or_undefined(bias)), mask(or_undefined(m)), axis(a), tied(t), scale(s) {}

  bool along_residues() const { return axis == "residues"; }
  c10::SymInt attended() const { return qkv.sym_size(along_residues() ? 2 : 1); }
  c10::SymInt others() const { return qkv.sym_size(along_residues() ? 1 : 2); }
};

/// Rank, sizes, dtypes and devices of one call; metadata only.
void check_axial_attention(const char* op, const Inputs& in) {
  const Argument qkv{"qkv", in.qkv}, bias{"pair_bias", in.pair_bias}, mask{"mask", in.mask};
  const ArgumentCheck check(op, {qkv, bias, mask});
  check.one_device();
  if (in.axis != "residues" && in.axis != "sequences") {
    check.fail(c10::str("axis is \"", in.axis, "\""), "\"residues\" or \"sequences\"");
  }
  check.rank(qkv, 6, "[B,R,L,3,H,C]");
  check.rank(mask, 3, "[B,R,L]");
  check.dtype(qkv, {at::kFloat, at::kDouble, at::kBFloat16}, "");
  check.dtype_of_scores(bias, qkv);
  check.dtype(mask, {at::kBool}, "true = the token takes part");
  check.size(qkv, 3, "parts", 3, "query, key, value");
  check.at_least_one(qkv, 5, "channels");
  constexpr const char* kAxes[] = {"samples", "sequences", "residues"};
  for (int axis = 0; axis < 3; ++axis) check.size(mask, axis, kAxes[axis], in.qkv.sym_size(axis), "as qkv");
  if (in.pair_bias.defined()) {
    const c10::SymInt n = in.attended(), map[] = {in.qkv.sym_size(0), in.qkv.sym_size(4), n, n};
    const int64_t rank = in.pair_bias.dim();
    bool fits = rank >= 2 && rank <= 4;
    for (int64_t axis = 0; fits && axis < rank; ++axis) {
      const c10::SymInt size = in.pair_bias.sym_size(axis);
      const int64_t of_map = 4 - rank + axis;
      fits = size == map[of_map] || (of_map < 2 && size == 1);
    }
    if (!fits) {
      check.fail(
          c10::str("pair_bias has shape ", shape_text(in.pair_bias.sym_sizes())),
          c10::str("[n,n], [H,n,n] or [B,H,n,n] with [B,H,n,n] = ", shape_text(map), ", where B and H may be 1"));
    }
  }
}

// ---- meta -----------------------------------------------------------------------------------------------------------

Pair outputs_of(const Inputs& in) {
  check_axial_attention("axial_attention", in);
  const Tensor& t = in.qkv;
  return {at::empty_symint({t.sym_size(0), t.sym_size(1), t.sym_size(2), t.sym_size(4) * t.sym_size(5)}, t.options()),
          at::empty_symint({t.sym_size(0), in.tied ? c10::SymInt(1) : in.others(), t.sym_size(4), in.attended()},
                           t.options().dtype(kernel_dtype(t.scalar_type())))};
}

Pair gradients_of(const Inputs& in, const Tensor& grad_out, const Tensor& out, const Tensor& lse, bool bias_wanted) {
  const char* op = "axial_attention_backward";
  check_axial_attention(op, in);
  const Argument q{"qkv", in.qkv}, o{"out", out}, l{"lse", lse}, g{"grad_out", grad_out};
  const ArgumentCheck check(op, {q, o, l, g});
  check.one_device();
  check.rank(l, 4, "[B,m,H,n]");
  check.dtype(l, {kernel_dtype(in.qkv.scalar_type())}, "what axial_attention_forward returned");
  constexpr const char* kAxes[] = {"samples", "sequences", "residues"};
  for (const Argument& a : {o, g}) {
    check.rank(a, 4, "[B,R,L,H*C]");
    check.dtype(a, {in.qkv.scalar_type()}, "the dtype of qkv");
    for (int axis = 0; axis < 3; ++axis) check.size(a, axis, kAxes[axis], in.qkv.sym_size(axis), "as qkv");
    check.size(a, 3, "channels", in.qkv.sym_size(4) * in.qkv.sym_size(5), "heads times channels of qkv");
  }
  check.size(l, 0, "samples", in.qkv.sym_size(0), "the samples of qkv");
  check.size(l, 1, "places", in.tied ? c10::SymInt(1) : in.others(), in.tied ? "tied" : "the other axis of qkv");
  check.size(l, 2, "heads", in.qkv.sym_size(4), "the heads of qkv");
  check.size(l, 3, "tokens", in.attended(), "the attended axis of qkv");
  if (bias_wanted && !in.pair_bias.defined()) check.fail("bias_wanted is true without pair_bias", "a pair_bias");
  return {at::empty_symint(in.qkv.sym_sizes(), in.qkv.options()),
          bias_wanted ? at::empty_symint(in.pair_bias.sym_sizes(), in.pair_bias.options())
                      : at::empty({0}, in.qkv.options())};
}

Pair forward_meta(const Tensor& qkv, std::string_view axis, const OptionalTensor& pair_bias, bool tied,
                  const OptionalTensor& mask, std::optional<double> scale) {
  return outputs_of({qkv, axis, pair_bias, tied, mask, scale});
}

Tensor meta(const Tensor& qkv, std::string_view axis, const OptionalTensor& pair_bias, bool tied,
            const OptionalTensor& mask, std::optional<double> scale) {
  return std::get<0>(forward_meta(qkv, axis, pair_bias, tied, mask, scale));
}

Pair backward_meta(const Tensor& grad_out, const Tensor& qkv, const Tensor& out, const Tensor& lse,
                   std::string_view axis, const OptionalTensor& pair_bias, bool tied, const OptionalTensor& mask,
                   std::optional<double> scale, bool bias_wanted) {
  return gradients_of({qkv, axis, pair_bias, tied, mask, scale}, grad_out, out, lse, bias_wanted);
}

// ---- CPU ------------------------------------------------------------------------------------------------------------

void run(const kernels::AxialAttentionParams<float>& p) {
  kernels::cpu::axial_attention_forward(p, torch_parallel_for);
}
void run(const kernels::AxialAttentionParams<double>& p) {
  kernels::reference::axial_attention_forward(p, torch_parallel_for);
}
void run(const kernels::AxialAttentionBackwardParams<float>& g) {
  kernels::cpu::axial_attention_backward(g, torch_parallel_for);
}
void run(const kernels::AxialAttentionBackwardParams<double>& g) {
  kernels::reference::axial_attention_backward(g, torch_parallel_for);
}

/// The inputs in the kernel's dtype and layout, pair_bias broadcast to [B,H,n,n] by strides of 0.
Inputs kernel_inputs(const Inputs& in) {
  Inputs k = in;
  const at::ScalarType dtype = kernel_dtype(in.qkv.scalar_type());
  k.qkv = for_kernel(in.qkv, dtype);
  if (in.pair_bias.defined()) {
    const int64_t n = k.qkv.size(in.along_residues() ? 2 : 1);
    k.pair_bias = in.pair_bias.to(dtype).expand({k.qkv.size(0), k.qkv.size(4), n, n});
  }
  return k;
}

/// [B,R,L,H*C] as [B,R,L,H,C].
Tensor by_head(const Tensor& t, const Tensor& qkv) { return t.unflatten(3, {qkv.size(4), qkv.size(5)}); }

/// `in` as kernel_inputs() left it; it owns what the parameters point at.
template <class T>
kernels::AxialAttentionParams<T> params(const Inputs& in, const Tensor& out, const Tensor& lse) {
  kernels::AxialAttentionParams<T> p;
  p.qkv = view_of<const T, 6>(in.qkv);
  p.axis = in.along_residues() ? kernels::AlignmentAxis::kResidues : kernels::AlignmentAxis::kSequences;
  p.tied = in.tied;
  p.scale = in.scale.value_or(1 / std::sqrt(static_cast<double>(in.qkv.size(5) * (in.tied ? p.others() : 1))));
  p.pair_bias = view_of<const T, 4>(in.pair_bias);
  p.mask = view_of<const uint8_t, 3>(in.mask);
  p.out = view_of<T, 5>(by_head(out, in.qkv));
  p.lse = view_of<T, 4>(lse);
  return p;
}

Pair forward_cpu(const Tensor& qkv, std::string_view axis, const OptionalTensor& pair_bias, bool tied,
                 const OptionalTensor& mask, std::optional<double> scale) {
  const Inputs in(qkv, axis, pair_bias, tied, mask, scale);
  auto [out, lse] = outputs_of(in);
  if (qkv.numel() == 0) return {out, lse.zero_()};
  const Inputs kernel_in = kernel_inputs(in);
  const Tensor kernel_out = kernel_output(out, lse.scalar_type());
  with_kernel_type(lse.scalar_type(),
                   [&, &lse = lse](auto element) { run(params<decltype(element)>(kernel_in, kernel_out, lse)); });
  put(kernel_out, out);
  return {out, lse};
}

Tensor cpu(const Tensor& qkv, std::string_view axis, const OptionalTensor& pair_bias, bool tied,
           const OptionalTensor& mask, std::optional<double> scale) {
  return std::get<0>(forward_cpu(qkv, axis, pair_bias, tied, mask, scale));
}

Pair backward_cpu(const Tensor& grad_out, const Tensor& qkv, const Tensor& out, const Tensor& lse,
                  std::string_view axis, const OptionalTensor& pair_bias, bool tied, const OptionalTensor& mask,
                  std::optional<double> scale, bool bias_wanted) {
  const Inputs in(qkv, axis, pair_bias, tied, mask, scale);
  auto [grad_qkv, grad_bias] = gradients_of(in, grad_out, out, lse, bias_wanted);
  if (qkv.numel() == 0) return {grad_qkv.zero_(), grad_bias.zero_()};
  const at::ScalarType dtype = lse.scalar_type();
  const Inputs kernel_in = kernel_inputs(in);
  const Tensor kernel_out = for_kernel(out, dtype), kernel_grad_out = for_kernel(grad_out, dtype);
  const Tensor kernel_grad_qkv = kernel_output(grad_qkv, dtype), kernel_grad_bias = kernel_output(grad_bias, dtype);
  with_kernel_type(dtype, [&, &lse = lse](auto element) {
    using T = decltype(element);
    kernels::AxialAttentionBackwardParams<T> g;
    g.forward = params<T>(kernel_in, kernel_out, lse);
    g.grad_out = view_of<const T, 5>(by_head(kernel_grad_out, qkv));
    g.grad_qkv = view_of<T, 6>(kernel_grad_qkv);
    if (bias_wanted) g.grad_pair_bias = view_of<T, 4>(kernel_grad_bias.expand(kernel_in.pair_bias.sizes()));
    run(g);
  });
  put(kernel_grad_qkv, grad_qkv);
  put(kernel_grad_bias, grad_bias);
  return {grad_qkv, grad_bias};
}

// ---- autograd -------------------------------------------------------------------------------------------------------

class AxialAttentionFunction : public torch::autograd::Function<AxialAttentionFunction> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& qkv, std::string_view axis, const OptionalTensor& pair_bias,
                        bool tied, const OptionalTensor& mask, std::optional<double> scale) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("fovea::axial_attention_forward", "")
                               .typed<decltype(forward_cpu)>();
    auto [out, lse] = op.call(qkv, axis, pair_bias, tied, mask, scale);
    ctx->save_for_backward({qkv, or_undefined(pair_bias), or_undefined(mask), out, lse});
    ctx->saved_data["axis"] = std::string(axis);
    ctx->saved_data["tied"] = tied;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["bias_wanted"] = pair_bias && pair_bias->requires_grad();
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("fovea::axial_attention_backward", "")
                               .typed<decltype(backward_cpu)>();
    const variable_list saved = ctx->get_saved_variables();
    const std::string axis = ctx->saved_data["axis"].toStringRef();
    const bool bias_wanted = ctx->saved_data["bias_wanted"].toBool();
    auto [grad_qkv, grad_bias] =
        op.call(grads[0], saved[0], saved[3], saved[4], axis, or_none(saved[1]), ctx->saved_data["tied"].toBool(),
                or_none(saved[2]), ctx->saved_data["scale"].toOptional<double>(), bias_wanted);
    return {grad_qkv, Tensor(), bias_wanted ? grad_bias : Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

Tensor autograd(const Tensor& qkv, std::string_view axis, const OptionalTensor& pair_bias, bool tied,
                const OptionalTensor& mask, std::optional<double> scale) {
  return AxialAttentionFunction::apply(qkv, axis, pair_bias, tied, mask, scale);
}

// ---- autocast -------------------------------------------------------------------------------------------------------

Tensor autocast(const Tensor& qkv, std::string_view axis, const OptionalTensor& pair_bias, bool tied,
                const OptionalTensor& mask, std::optional<double> scale) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  return axial_attention(to_autocast_dtype(qkv), axis, pair_bias, tied, mask, scale);
}

// ---- registration ---------------------------------------------------------------------------------------------------

TORCH_LIBRARY_IMPL(fovea, Meta, m) {
  m.impl("axial_attention", meta);
  m.impl("axial_attention_forward", forward_meta);
  m.impl("axial_attention_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(fovea, CPU, m) {
  m.impl("axial_attention", cpu);
  m.impl("axial_attention_forward", forward_cpu);
  m.impl("axial_attention_backward", backward_cpu);
}

TORCH_LIBRARY_IMPL(fovea, Autograd, m) {
  m.impl("axial_attention", autograd);
  m.impl("axial_attention_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("axial_attention_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(fovea, AutocastCPU, m) { m.impl("axial_attention", autocast); }

}  // namespace

Tensor axial_attention(const Tensor& qkv, std::string_view axis, const OptionalTensor& pair_bias, bool tied,
                       const OptionalTensor& mask, std::optional<double> scale) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("fovea::axial_attention", "").typed<decltype(axial_attention)>();
  return op.call(qkv, axis, pair_bias, tied, mask, scale);
}

}  // namespace fovea::ops
