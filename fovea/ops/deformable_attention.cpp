#include "fovea/ops/deformable_attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <tuple>

#include "fovea/kernels/deformable_attention.h"
#include "fovea/ops/argument_check.h"
#include "fovea/ops/kernel_tensors.h"
#include "fovea/ops/parallel.h"

namespace fovea::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Gradients = std::tuple<Tensor, Tensor, Tensor>;  // value, locations, weights

// ---- schema ---------------------------------------------------------------------------------------------------------

TORCH_LIBRARY_FRAGMENT(fovea, m) {
  m.def("deformable_attention(Tensor value, Tensor spatial_shapes, Tensor locations, Tensor weights) -> Tensor",
        {at::Tag::pt2_compliant_tag});
  // Gradients that are not wanted are empty; points are locations and weights.
  m.def(
      "deformable_attention_backward(Tensor grad_out, Tensor value, Tensor spatial_shapes, Tensor locations, "
      "Tensor weights, bool value_wanted=True, bool points_wanted=True) "
      "-> (Tensor grad_value, Tensor grad_locations, Tensor grad_weights)",
      {at::Tag::pt2_compliant_tag});
}

// ---- checks ---------------------------------------------------------------------------------------------------------

/// Rank, sizes, dtypes and devices of one call; metadata only.
void check_deformable_attention(const char* op, const Tensor& value_tensor, const Tensor& shapes_tensor,
                                const Tensor& locations_tensor, const Tensor& weights_tensor) {
  const Argument value{"value", value_tensor}, shapes{"spatial_shapes", shapes_tensor},
      locations{"locations", locations_tensor}, weights{"weights", weights_tensor};
  const ArgumentCheck check(op, {value, shapes, locations, weights});
  check.one_device();
  check.rank(value, 4, "[B,S,H,C]");
  check.rank(shapes, 2, "[Lv,D]");
  check.rank(locations, 6, "[B,Q,H,Lv,K,D]");
  check.rank(weights, 5, "[B,Q,H,Lv,K]");
  check.dtype(value, {at::kFloat, at::kDouble, at::kBFloat16}, "");
  check.dtype(shapes, {at::kLong}, "");
  for (const Argument& a : {locations, weights}) check.dtype_of_scores(a, value);

  const c10::SymInt axes = shapes_tensor.sym_size(1);
  if (axes != 2 && axes != 3) check.fail(c10::str("spatial_shapes has ", axes, " axes a level"), "2 or 3");
  for (const Argument& a : {locations, weights}) {
    check.size(a, 0, "samples", value_tensor.sym_size(0), "the samples of value");
    check.size(a, 2, "heads", value_tensor.sym_size(2), "the heads of value");
    check.size(a, 3, "levels", shapes_tensor.sym_size(0), "the levels of spatial_shapes");
  }
  check.size(locations, 5, "coordinates", axes, "the axes of spatial_shapes");
  check.size(weights, 1, "queries", locations_tensor.sym_size(1), "the queries of locations");
  check.size(weights, 4, "points", locations_tensor.sym_size(4), "the points of locations");
}

/// Levels have no negative size and fill `rows`.
void check_levels(const char* op, const Tensor& spatial_shapes, int64_t rows) {
  const auto sizes = spatial_shapes.accessor<int64_t, 2>();
  int64_t sum = 0;
  for (int64_t l = 0; l < sizes.size(0); ++l) {
    int64_t level = 1;
    for (int64_t axis = 0; axis < sizes.size(1); ++axis) {
      TORCH_CHECK(sizes[l][axis] >= 0, op, ": spatial_shapes[", l, ",", axis, "] is ", sizes[l][axis],
                  ", expected at least 0");
      // A level larger than all rows is wrong already; its product must not overflow.
      TORCH_CHECK(level == 0 || sizes[l][axis] <= rows / level || sizes[l][axis] == 0, op, ": level ", l,
                  " of spatial_shapes is larger than the ", rows, " rows of value");
      level *= sizes[l][axis];
    }
    sum += level;
  }
  TORCH_CHECK(sum == rows, op, ": spatial_shapes hold ", sum, " rows, expected ", rows, " (the rows of value)");
}

// ---- meta -----------------------------------------------------------------------------------------------------------

Tensor output_of(const Tensor& value, const Tensor& spatial_shapes, const Tensor& locations, const Tensor& weights) {
  check_deformable_attention("deformable_attention", value, spatial_shapes, locations, weights);
  return at::empty_symint({value.sym_size(0), locations.sym_size(1), value.sym_size(2) * value.sym_size(3)},
                          value.options());
}

Gradients gradients_of(const Tensor& grad_out, const Tensor& value, const Tensor& spatial_shapes,
                       const Tensor& locations, const Tensor& weights, bool value_wanted, bool points_wanted) {
  const char* op = "deformable_attention_backward";
  check_deformable_attention(op, value, spatial_shapes, locations, weights);
  const Argument v{"value", value}, g{"grad_out", grad_out};
  const ArgumentCheck check(op, {v, g});
  check.one_device();
  check.rank(g, 3, "[B,Q,H*C]");
  check.dtype(g, {value.scalar_type()}, "the dtype of value");
  check.size(g, 0, "samples", value.sym_size(0), "the samples of value");
  check.size(g, 1, "queries", locations.sym_size(1), "the queries of locations");
  check.size(g, 2, "channels", value.sym_size(2) * value.sym_size(3), "heads times channels of value");
  const auto gradient = [](const Tensor& t, bool wanted) {
    return wanted ? at::empty_symint(t.sym_sizes(), t.options()) : at::empty({0}, t.options());
  };
  return {gradient(value, value_wanted), gradient(locations, points_wanted), gradient(weights, points_wanted)};
}

// ---- CPU ------------------------------------------------------------------------------------------------------------

void run(const kernels::DeformableAttentionParams<float>& p) {
  kernels::cpu::deformable_attention_forward(p, torch_parallel_for);
}
void run(const kernels::DeformableAttentionParams<double>& p) {
  kernels::reference::deformable_attention_forward(p, torch_parallel_for);
}
void run(const kernels::DeformableAttentionBackwardParams<float>& g) {
  kernels::cpu::deformable_attention_backward(g, torch_parallel_for);
}
void run(const kernels::DeformableAttentionBackwardParams<double>& g) {
  kernels::reference::deformable_attention_backward(g, torch_parallel_for);
}

/// The inputs in the kernel's dtype and layout; the levels checked.
struct Inputs {
  at::ScalarType dtype;
  Tensor value, spatial_shapes, locations, weights;

  Inputs(const char* op, const Tensor& v, const Tensor& s, const Tensor& l, const Tensor& w)
      : dtype(kernel_dtype(v.scalar_type())),
        value(for_kernel(v, dtype)),
        spatial_shapes(s),
        locations(l.to(dtype)),
        weights(w.to(dtype)) {
    check_levels(op, s, v.size(1));
  }
  template <class T>
  kernels::DeformableAttentionParams<T> params() const {
    kernels::DeformableAttentionParams<T> p;
    p.value = view_of<const T, 4>(value);
    p.spatial_shapes = view_of<const int64_t, 2>(spatial_shapes);
    p.locations = view_of<const T, 6>(locations);
    p.weights = view_of<const T, 5>(weights);
    return p;
  }
  /// [B,Q,H*C] as [B,Q,H,C].
  Tensor by_head(const Tensor& t) const { return t.unflatten(2, {value.size(2), value.size(3)}); }
};

Tensor forward_cpu(const Tensor& value, const Tensor& spatial_shapes, const Tensor& locations, const Tensor& weights) {
  const Tensor out = output_of(value, spatial_shapes, locations, weights);
  const Inputs in("deformable_attention", value, spatial_shapes, locations, weights);
  const Tensor kernel_out = kernel_output(out, in.dtype);
  with_kernel_type(in.dtype, [&](auto element) {
    using T = decltype(element);
    auto p = in.params<T>();
    p.out = view_of<T, 4>(in.by_head(kernel_out));
    run(p);
  });
  put(kernel_out, out);
  return out;
}

Gradients backward_cpu(const Tensor& grad_out, const Tensor& value, const Tensor& spatial_shapes,
                       const Tensor& locations, const Tensor& weights, bool value_wanted, bool points_wanted) {
  auto [grad_value, grad_locations, grad_weights] =
      gradients_of(grad_out, value, spatial_shapes, locations, weights, value_wanted, points_wanted);
  const Inputs in("deformable_attention_backward", value, spatial_shapes, locations, weights);
  const Tensor grads[] = {grad_value, grad_locations, grad_weights};
  Tensor kernel_grads[3];
  for (int i = 0; i < 3; ++i)
    kernel_grads[i] = kernel_output(grads[i], in.dtype);
  const Tensor kernel_grad_out = for_kernel(grad_out, in.dtype);
  with_kernel_type(in.dtype, [&](auto element) {
    using T = decltype(element);
    kernels::DeformableAttentionBackwardParams<T> g;
    g.forward = in.params<T>();
    g.grad_out = view_of<const T, 4>(in.by_head(kernel_grad_out));
    if (value_wanted) g.grad_value = view_of<T, 4>(kernel_grads[0]);
    if (points_wanted) {
      g.grad_locations = view_of<T, 6>(kernel_grads[1]);
      g.grad_weights = view_of<T, 5>(kernel_grads[2]);
    }
    run(g);
  });
  for (int i = 0; i < 3; ++i) {
    put(kernel_grads[i], grads[i]);
  }
  return {grad_value, grad_locations, grad_weights};
}

// ---- autograd -------------------------------------------------------------------------------------------------------

class DeformableAttentionFunction : public torch::autograd::Function<DeformableAttentionFunction> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& value, const Tensor& spatial_shapes,
                        const Tensor& locations, const Tensor& weights) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({value, spatial_shapes, locations, weights});
    return deformable_attention(value, spatial_shapes, locations, weights);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("fovea::deformable_attention_backward", "")
                               .typed<decltype(backward_cpu)>();
    const variable_list saved = ctx->get_saved_variables();
    const bool value_wanted = ctx->needs_input_grad(0), locations_wanted = ctx->needs_input_grad(2),
               weights_wanted = ctx->needs_input_grad(3);
    auto [grad_value, grad_locations, grad_weights] =
        op.call(grads[0], saved[0], saved[1], saved[2], saved[3], value_wanted, locations_wanted || weights_wanted);
    return {value_wanted ? grad_value : Tensor(), Tensor(), locations_wanted ? grad_locations : Tensor(),
            weights_wanted ? grad_weights : Tensor()};
  }
};

Tensor autograd(const Tensor& value, const Tensor& spatial_shapes, const Tensor& locations, const Tensor& weights) {
  return DeformableAttentionFunction::apply(value, spatial_shapes, locations, weights);
}

// ---- autocast -------------------------------------------------------------------------------------------------------

Tensor autocast(const Tensor& value, const Tensor& spatial_shapes, const Tensor& locations, const Tensor& weights) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  return deformable_attention(to_autocast_dtype(value), spatial_shapes, locations, weights);
}

// ---- registration ---------------------------------------------------------------------------------------------------

TORCH_LIBRARY_IMPL(fovea, Meta, m) {
  m.impl("deformable_attention", output_of);
  m.impl("deformable_attention_backward", gradients_of);
}

TORCH_LIBRARY_IMPL(fovea, CPU, m) {
  m.impl("deformable_attention", forward_cpu);
  m.impl("deformable_attention_backward", backward_cpu);
}

TORCH_LIBRARY_IMPL(fovea, Autograd, m) {
  m.impl("deformable_attention", autograd);
  m.impl("deformable_attention_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(fovea, AutocastCPU, m) { m.impl("deformable_attention", autocast); }

}  // namespace

Tensor deformable_attention(const Tensor& value, const Tensor& spatial_shapes, const Tensor& locations,
                            const Tensor& weights) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("fovea::deformable_attention", "")
                             .typed<decltype(deformable_attention)>();
  return op.call(value, spatial_shapes, locations, weights);
}

}  // namespace fovea::ops
