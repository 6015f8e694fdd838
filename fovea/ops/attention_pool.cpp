#include "fovea/ops/attention_pool.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <limits>

#include "fovea/kernels/attention_pool.h"
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
  m.def("attention_pool(Tensor scores, Tensor values, Tensor? offsets=None) -> (Tensor out, Tensor lse)",
        {at::Tag::pt2_compliant_tag});
  // A gradient that is not wanted is empty.
  m.def(
      "attention_pool_backward(Tensor grad_out, Tensor scores, Tensor values, Tensor out, Tensor lse, "
      "Tensor? offsets=None, bool scores_wanted=True, bool values_wanted=True) "
      "-> (Tensor grad_scores, Tensor grad_values)",
      {at::Tag::pt2_compliant_tag});
}

// ---- checks ---------------------------------------------------------------------------------------------------------

/// Rank, sizes, dtypes and devices of one call; metadata only.
void check_attention_pool(const char* op, const Tensor& scores_tensor, const Tensor& values_tensor,
                          const Tensor& offsets_tensor) {
  const Argument scores{"scores", scores_tensor}, values{"values", values_tensor}, offsets{"offsets", offsets_tensor};
  const ArgumentCheck check(op, {scores, values, offsets});
  check.one_device();
  check.rank(scores, 2, "[N,H]");
  check.rank(values, 2, "[N,E]");
  check.rank(offsets, 1, "[bags+1]");
  check.dtype(values, {at::kFloat, at::kDouble, at::kBFloat16}, "");
  check.dtype_of_scores(scores, values);
  check.dtype(offsets, {at::kLong}, "");
  check.size(scores, 0, "rows", values_tensor.sym_size(0), "the rows of values");
  if (offsets_tensor.defined()) check.at_least_one(offsets, 0, "entries");
}

/// The values of `offsets` ascend from 0 to `rows`.
void check_offsets(const char* op, const Tensor& offsets, int64_t rows) {
  const auto offset = offsets.accessor<int64_t, 1>();
  const int64_t last = offset.size(0) - 1;
  TORCH_CHECK_INDEX(offset[0] == 0, op, ": offsets[0] is ", offset[0], ", expected 0");
  for (int64_t b = 0; b < last; ++b) {
    TORCH_CHECK_INDEX(offset[b] <= offset[b + 1], op, ": offsets[", b + 1, "] is ", offset[b + 1],
                      ", expected at least ", offset[b], " (offsets[", b, "])");
  }
  TORCH_CHECK_INDEX(offset[last] == rows, op, ": offsets[", last, "] is ", offset[last], ", expected ", rows,
                    " (the rows of values)");
}

// ---- meta -----------------------------------------------------------------------------------------------------------

c10::SymInt bags_of(const OptionalTensor& offsets) {
  return offsets && offsets->defined() ? offsets->sym_size(0) - 1 : c10::SymInt(1);
}

Pair outputs_of(const Tensor& scores, const Tensor& values, const OptionalTensor& offsets) {
  check_attention_pool("attention_pool", scores, values, or_undefined(offsets));
  const c10::SymInt bags = bags_of(offsets), heads = scores.sym_size(1);
  return {at::empty_symint({bags, heads, values.sym_size(1)}, values.options()),
          at::empty_symint({bags, heads}, values.options().dtype(kernel_dtype(values.scalar_type())))};
}

Pair gradients_of(const Tensor& grad_out, const Tensor& scores, const Tensor& values, const Tensor& out,
                  const Tensor& lse, const OptionalTensor& offsets, bool scores_wanted, bool values_wanted) {
  const char* op = "attention_pool_backward";
  check_attention_pool(op, scores, values, or_undefined(offsets));
  const Argument v{"values", values}, o{"out", out}, l{"lse", lse}, g{"grad_out", grad_out};
  const ArgumentCheck check(op, {v, o, l, g});
  check.one_device();
  check.rank(l, 2, "[bags,H]");
  check.dtype(l, {kernel_dtype(values.scalar_type())}, "what attention_pool returned");
  for (const Argument& a : {o, g}) {
    check.rank(a, 3, "[bags,H,E]");
    check.dtype(a, {values.scalar_type()}, "the dtype of values");
    check.size(a, 2, "channels", values.sym_size(1), "the channels of values");
  }
  for (const Argument& a : {o, g, l}) {
    check.size(a, 0, "bags", bags_of(offsets), "the bags of offsets");
    check.size(a, 1, "heads", scores.sym_size(1), "the heads of scores");
  }
  const auto gradient = [](const Tensor& t, bool wanted) {
    return wanted ? at::empty_symint(t.sym_sizes(), t.options()) : at::empty({0}, t.options());
  };
  return {gradient(scores, scores_wanted), gradient(values, values_wanted)};
}

// ---- CPU ------------------------------------------------------------------------------------------------------------

void run(const kernels::AttentionPoolParams<float>& p) { kernels::cpu::attention_pool_forward(p, torch_parallel_for); }
void run(const kernels::AttentionPoolParams<double>& p) {
  kernels::reference::attention_pool_forward(p, torch_parallel_for);
}
void run(const kernels::AttentionPoolBackwardParams<float>& g) {
  kernels::cpu::attention_pool_backward(g, torch_parallel_for);
}
void run(const kernels::AttentionPoolBackwardParams<double>& g) {
  kernels::reference::attention_pool_backward(g, torch_parallel_for);
}

/// The inputs in the kernel's dtype and layout; offsets checked, and made where absent.
struct Inputs {
  Tensor scores, values, offsets;

  Inputs(const char* op, const Tensor& s, const Tensor& v, const OptionalTensor& o)
      : scores(s.to(kernel_dtype(v.scalar_type()))), values(for_kernel(v, kernel_dtype(v.scalar_type()))) {
    offsets = o && o->defined() ? *o : at::tensor({int64_t{0}, v.size(0)}, at::kLong);
    check_offsets(op, offsets, v.size(0));
  }
  template <class T>
  kernels::AttentionPoolParams<T> params(const Tensor& out, const Tensor& lse) const {
    kernels::AttentionPoolParams<T> p;
    p.scores = view_of<const T, 2>(scores);
    p.values = view_of<const T, 2>(values);
    p.offsets = view_of<const int64_t, 1>(offsets);
    p.out = view_of<T, 3>(out);
    p.lse = view_of<T, 2>(lse);
    return p;
  }
};

Pair forward_cpu(const Tensor& scores, const Tensor& values, const OptionalTensor& offsets) {
  auto [out, lse] = outputs_of(scores, values, offsets);
  const Inputs in("attention_pool", scores, values, offsets);
  const Tensor kernel_out = kernel_output(out, lse.scalar_type());
  with_kernel_type(lse.scalar_type(),
                   [&, &lse = lse](auto element) { run(in.params<decltype(element)>(kernel_out, lse)); });
  put(kernel_out, out);
  return {out, lse};
}

Pair backward_cpu(const Tensor& grad_out, const Tensor& scores, const Tensor& values, const Tensor& out,
                  const Tensor& lse, const OptionalTensor& offsets, bool scores_wanted, bool values_wanted) {
  auto [grad_scores, grad_values] =
      gradients_of(grad_out, scores, values, out, lse, offsets, scores_wanted, values_wanted);
  const at::ScalarType dtype = lse.scalar_type();
  const Inputs in("attention_pool_backward", scores, values, offsets);
  const Tensor kernel_out = for_kernel(out, dtype), kernel_grad_out = for_kernel(grad_out, dtype);
  const Tensor kernel_grad_scores = kernel_output(grad_scores, dtype), kernel_grad_values = kernel_output(grad_values, dtype);
  with_kernel_type(dtype, [&, &lse = lse](auto element) {
    using T = decltype(element);
    kernels::AttentionPoolBackwardParams<T> g;
    g.forward = in.params<T>(kernel_out, lse);
    g.grad_out = view_of<const T, 3>(kernel_grad_out);
    if (scores_wanted) g.grad_scores = view_of<T, 2>(kernel_grad_scores);
    if (values_wanted) g.grad_values = view_of<T, 2>(kernel_grad_values);
    run(g);
  });
  put(kernel_grad_scores, grad_scores);
  put(kernel_grad_values, grad_values);
  return {grad_scores, grad_values};
}

// ---- autograd -------------------------------------------------------------------------------------------------------

class AttentionPoolFunction : public torch::autograd::Function<AttentionPoolFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& scores, const Tensor& values,
                               const OptionalTensor& offsets) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [out, lse] = attention_pool(scores, values, offsets);
    ctx->save_for_backward({scores, values, or_undefined(offsets), out, lse});
    ctx->mark_non_differentiable({lse});
    return {out, lse};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("fovea::attention_pool_backward", "")
                               .typed<decltype(backward_cpu)>();
    const variable_list saved = ctx->get_saved_variables();
    const bool scores_wanted = ctx->needs_input_grad(0), values_wanted = ctx->needs_input_grad(1);
    auto [grad_scores, grad_values] =
        op.call(grads[0], saved[0], saved[1], saved[3], saved[4], or_none(saved[2]), scores_wanted, values_wanted);
    return {scores_wanted ? grad_scores : Tensor(), values_wanted ? grad_values : Tensor(), Tensor()};
  }
};

Pair autograd(const Tensor& scores, const Tensor& values, const OptionalTensor& offsets) {
  const variable_list outputs = AttentionPoolFunction::apply(scores, values, offsets);
  return {outputs[0], outputs[1]};
}

// ---- autocast -------------------------------------------------------------------------------------------------------

Pair autocast(const Tensor& scores, const Tensor& values, const OptionalTensor& offsets) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  return attention_pool(scores, to_autocast_dtype(values), offsets);
}

// ---- registration ---------------------------------------------------------------------------------------------------

TORCH_LIBRARY_IMPL(fovea, Meta, m) {
  m.impl("attention_pool", outputs_of);
  m.impl("attention_pool_backward", gradients_of);
}

TORCH_LIBRARY_IMPL(fovea, CPU, m) {
  m.impl("attention_pool", forward_cpu);
  m.impl("attention_pool_backward", backward_cpu);
}

TORCH_LIBRARY_IMPL(fovea, Autograd, m) {
  m.impl("attention_pool", autograd);
  m.impl("attention_pool_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(fovea, AutocastCPU, m) { m.impl("attention_pool", autocast); }

}  // namespace

Pair attention_pool(const Tensor& scores, const Tensor& values, const OptionalTensor& offsets) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("fovea::attention_pool", "").typed<decltype(attention_pool)>();
  return op.call(scores, values, offsets);
}

}  // namespace fovea::ops
