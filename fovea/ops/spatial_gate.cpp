#include "fovea/ops/spatial_gate.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "fovea/kernels/spatial_gate.h"
#include "fovea/ops/argument_check.h"
#include "fovea/ops/kernel_tensors.h"
#include "fovea/ops/parallel.h"

namespace fovea::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Pair = std::tuple<Tensor, Tensor>;  // out, map

// ---- schema ---------------------------------------------------------------------------------------------------------

TORCH_LIBRARY_FRAGMENT(fovea, m) {
  m.def("channel_pool(Tensor x) -> Tensor", {at::Tag::pt2_compliant_tag});
  m.def("channel_pool_backward(Tensor grad_out, Tensor x, Tensor out) -> Tensor", {at::Tag::pt2_compliant_tag});
  m.def("spatial_gate(Tensor x, Tensor weight, float scale=1., float shift=0.) -> (Tensor out, Tensor map)",
        {at::Tag::pt2_compliant_tag});
}

// ---- checks ---------------------------------------------------------------------------------------------------------

void check_features(const ArgumentCheck& check, const Argument& x) {
  check.one_device();
  check.rank(x, 5, "[B,C,Z,Y,X]");
  check.dtype(x, {at::kFloat, at::kDouble, at::kBFloat16}, "");
  check.at_least_one(x, 1, "channels");
}

void check_spatial_gate(const Tensor& x_tensor, const Tensor& weight_tensor) {
  const Argument x{"x", x_tensor}, weight{"weight", weight_tensor};
  const ArgumentCheck check("spatial_gate", {x, weight});
  check_features(check, x);
  check.rank(weight, 5, "[1,2,kz,ky,kx]");
  check.dtype(weight, {x_tensor.scalar_type()}, "the dtype of x");
  check.size(weight, 0, "maps", 1, "one map");
  check.size(weight, 1, "channels", 2, "the largest and the mean");
  for (int axis = 2; axis < 5; ++axis)
    if (weight_tensor.size(axis) % 2 == 0)
      check.fail(c10::str("weight has ", weight_tensor.size(axis), " taps along axis ", axis), "an odd number");
}

// ---- meta -----------------------------------------------------------------------------------------------------------

/// [B,channels,Z,Y,X] for x [B,C,Z,Y,X].
Tensor empty_maps(const Tensor& x, int64_t channels) {
  return at::empty_symint({x.sym_size(0), channels, x.sym_size(2), x.sym_size(3), x.sym_size(4)}, x.options());
}

Tensor empty_channels_last(const Tensor& like) { return at::empty_like(like, at::MemoryFormat::ChannelsLast3d); }

Tensor pool_of(const Tensor& x) {
  const Argument argument{"x", x};
  check_features(ArgumentCheck("channel_pool", {argument}), argument);
  return empty_maps(x, 2);
}

Tensor pool_gradient_of(const Tensor&, const Tensor& x, const Tensor&) { return empty_channels_last(x); }

Pair gate_of(const Tensor& x, const Tensor& weight, double, double) {
  check_spatial_gate(x, weight);
  return {empty_channels_last(x), empty_maps(x, 1)};
}

// ---- CPU ------------------------------------------------------------------------------------------------------------

void run(const kernels::ChannelPoolParams<float>& p) { kernels::cpu::channel_pool_forward(p, torch_parallel_for); }
void run(const kernels::ChannelPoolParams<double>& p) { kernels::reference::channel_pool_forward(p, torch_parallel_for); }
void run(const kernels::ChannelPoolBackwardParams<float>& p) { kernels::cpu::channel_pool_backward(p, torch_parallel_for); }
void run(const kernels::ChannelPoolBackwardParams<double>& p) {
  kernels::reference::channel_pool_backward(p, torch_parallel_for);
}
void run(const kernels::SpatialGateParams<float>& p) { kernels::cpu::spatial_gate_forward(p, torch_parallel_for); }
void run(const kernels::SpatialGateParams<double>& p) { kernels::reference::spatial_gate_forward(p, torch_parallel_for); }

/// [B,C,Z,Y,X] of any layout -> [B,Z,Y,X,C] contiguous in the kernel's dtype.
Tensor channels_last(const Tensor& t, at::ScalarType dtype) { return t.to(dtype).permute({0, 2, 3, 4, 1}).contiguous(); }

/// Memory [B,Z,Y,X,C] to be written: that of `into`, if it is of the kernel's dtype and really lies so.
Tensor channels_last_for(const Tensor& into, at::ScalarType dtype) {
  const Tensor last = into.permute({0, 2, 3, 4, 1});
  return into.scalar_type() == dtype && last.is_contiguous() ? last : at::empty(last.sizes(), into.options().dtype(dtype));
}
void put_channels_last(const Tensor& computed, const Tensor& into) {
  if (computed.data_ptr() != into.data_ptr()) into.permute({0, 2, 3, 4, 1}).copy_(computed);
}

Tensor pool_cpu(const Tensor& x) {
  const Tensor out = pool_of(x);
  if (out.numel() == 0) return out;
  const auto dtype = kernel_dtype(x.scalar_type());
  const Tensor rows = channels_last(x, dtype).flatten(1, 3), kernel_out = kernel_output(out, dtype);
  with_kernel_type(dtype, [&](auto element) {
    using T = decltype(element);
    run(kernels::ChannelPoolParams<T>{view_of<const T, 3>(rows), view_of<T, 3>(kernel_out.flatten(2))});
  });
  put(kernel_out, out);
  return out;
}

Tensor pool_backward_cpu(const Tensor& grad_out, const Tensor& x, const Tensor& out) {
  const Tensor grad_x = pool_gradient_of(grad_out, x, out);
  if (x.numel() == 0) return grad_x;
  const auto dtype = kernel_dtype(x.scalar_type());
  const Tensor rows = channels_last(x, dtype).flatten(1, 3), kernel_grad = channels_last_for(grad_x, dtype);
  const Tensor pooled = out.to(dtype).contiguous().flatten(2), grads = grad_out.to(dtype).contiguous().flatten(2);
  with_kernel_type(dtype, [&](auto element) {
    using T = decltype(element);
    kernels::ChannelPoolBackwardParams<T> p;
    p.forward.x = view_of<const T, 3>(rows);
    p.forward.out = view_of<T, 3>(pooled);
    p.grad_out = view_of<const T, 3>(grads);
    p.grad_x = view_of<T, 3>(kernel_grad.flatten(1, 3));
    run(p);
  });
  put_channels_last(kernel_grad, grad_x);
  return grad_x;
}

Pair gate_cpu(const Tensor& x, const Tensor& weight, double scale, double shift) {
  const auto [out, map] = gate_of(x, weight, scale, shift);
  if (x.numel() == 0) return {out, map};
  const auto dtype = kernel_dtype(x.scalar_type());
  const Tensor features = channels_last(x, dtype), taps = weight.to(dtype).contiguous().squeeze(0);
  const Tensor kernel_out = channels_last_for(out, dtype), kernel_map = kernel_output(map, dtype);
  with_kernel_type(dtype, [&](auto element) {
    using T = decltype(element);
    run(kernels::SpatialGateParams<T>{view_of<const T, 5>(features), view_of<const T, 4>(taps), scale, shift,
                                      view_of<T, 5>(kernel_out), view_of<T, 4>(kernel_map.squeeze(1))});
  });
  put_channels_last(kernel_out, out);
  put(kernel_map, map);
  return {out, map};
}

// ---- autograd -------------------------------------------------------------------------------------------------------

class ChannelPoolFunction : public torch::autograd::Function<ChannelPoolFunction> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const Tensor out = channel_pool(x);
    ctx->save_for_backward({x, out});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("fovea::channel_pool_backward", "")
                               .typed<decltype(pool_backward_cpu)>();
    const variable_list saved = ctx->get_saved_variables();
    return {op.call(grads[0], saved[0], saved[1])};
  }
};

Tensor pool_autograd(const Tensor& x) { return ChannelPoolFunction::apply(x); }

// ---- registration ---------------------------------------------------------------------------------------------------

TORCH_LIBRARY_IMPL(fovea, Meta, m) {
  m.impl("channel_pool", pool_of);
  m.impl("channel_pool_backward", pool_gradient_of);
  m.impl("spatial_gate", gate_of);
}

TORCH_LIBRARY_IMPL(fovea, CPU, m) {
  m.impl("channel_pool", pool_cpu);
  m.impl("channel_pool_backward", pool_backward_cpu);
  m.impl("spatial_gate", gate_cpu);
}

TORCH_LIBRARY_IMPL(fovea, Autograd, m) {
  m.impl("channel_pool", pool_autograd);
  m.impl("channel_pool_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("spatial_gate", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace

Tensor channel_pool(const Tensor& x) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("fovea::channel_pool", "").typed<decltype(channel_pool)>();
  return op.call(x);
}

Pair spatial_gate(const Tensor& x, const Tensor& weight, double scale, double shift) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("fovea::spatial_gate", "").typed<decltype(spatial_gate)>();
  return op.call(x, weight, scale, shift);
}

}  // namespace fovea::ops
