#include "fovea/ops/instance_norm_act.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "fovea/kernels/instance_norm.h"
#include "fovea/ops/argument_check.h"
#include "fovea/ops/kernel_tensors.h"
#include "fovea/ops/parallel.h"

namespace fovea::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Outputs = std::tuple<Tensor, Tensor, Tensor>;            // out, mean, rstd
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // x, weight, bias, residual

// ---- schema ---------------------------------------------------------------------------------------------------------

TORCH_LIBRARY_FRAGMENT(fovea, m) {
  m.def("instance_norm_act(Tensor x, Tensor? weight=None, Tensor? bias=None, float slope=1., Tensor? residual=None, float epsilon=1e-05, "
        "Tensor? moments=None) -> Tensor",
        {at::Tag::pt2_compliant_tag});
  m.def("instance_norm_act_forward(Tensor x, Tensor? weight, Tensor? bias, float slope, Tensor? residual, float epsilon, "
        "Tensor? moments) -> (Tensor out, Tensor mean, Tensor rstd)", {at::Tag::pt2_compliant_tag});
  // Gradients that are not wanted are empty. Without x, z comes from out and the residual: kernels/instance_norm.h.
  m.def("instance_norm_act_backward(Tensor grad_out, Tensor? x, Tensor? weight, Tensor out, Tensor mean, Tensor rstd, float slope, "
        "bool affine_wanted, bool residual_wanted, Tensor? residual=None) -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias, Tensor grad_residual)",
        {at::Tag::pt2_compliant_tag});
}

// ---- checks ---------------------------------------------------------------------------------------------------------

void check_instance_norm_act(const Tensor& x_tensor, const Tensor& weight_tensor, const Tensor& bias_tensor, double slope, const Tensor& residual_tensor,
                             const Tensor& moments_tensor) {
  const Argument x{"x", x_tensor}, weight{"weight", weight_tensor}, bias{"bias", bias_tensor}, residual{"residual", residual_tensor},
      moments{"moments", moments_tensor};
  const ArgumentCheck check("instance_norm_act", {x, weight, bias, residual, moments});
  check.one_device();
  check.rank(x, 5, "[B,C,Z,Y,X]");
  check.rank(residual, 5, "[B,C,Z,Y,X]");
  check.rank(moments, 3, "[B,C,2]");
  check.dtype(x, {at::kFloat, at::kDouble, at::kBFloat16}, "");
  check.dtype(residual, {x_tensor.scalar_type()}, "the dtype of x");
  for (const Argument& a : {weight, bias}) {
    check.rank(a, 1, "[C]");
    check.dtype(a, {x_tensor.scalar_type()}, "the dtype of x");
    check.size(a, 0, "channels", x_tensor.sym_size(1), "the channels of x");
  }
  constexpr const char* kAxes[] = {"samples", "channels", "voxels along Z", "voxels along Y", "voxels along X"};
  for (int axis = 0; axis < 5; ++axis) check.size(residual, axis, kAxes[axis], x_tensor.sym_size(axis), "as x");
  check.dtype(moments, {at::kDouble}, "");
  for (int axis = 0; axis < 2; ++axis) check.size(moments, axis, kAxes[axis], x_tensor.sym_size(axis), "as x");
  check.size(moments, 2, "values", 2, "mean and sum of squared deviations");
  if (!(slope >= 0 && slope <= 1)) check.fail(c10::str("slope is ", slope), "0 <= slope <= 1");
  if (x_tensor.sym_size(2) * x_tensor.sym_size(3) * x_tensor.sym_size(4) == 1) {
    check.fail("x has one voxel", "more: the instance norm of a single value is not defined; use a larger input");
  }
}

// ---- meta -----------------------------------------------------------------------------------------------------------

Tensor empty_channels_last(const Tensor& like) { return at::empty_like(like, at::MemoryFormat::ChannelsLast3d); }

Outputs outputs_of(const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, double slope, const OptionalTensor& residual, double,
                   const OptionalTensor& moments) {
  check_instance_norm_act(x, or_undefined(weight), or_undefined(bias), slope, or_undefined(residual), or_undefined(moments));
  const auto channels = [&] { return at::empty_symint({x.sym_size(0), x.sym_size(1)}, x.options().dtype(kernel_dtype(x.scalar_type()))); };
  return {empty_channels_last(x), channels(), channels()};
}

Tensor meta(const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, double slope, const OptionalTensor& residual, double epsilon,
            const OptionalTensor& moments) {
  return std::get<0>(outputs_of(x, weight, bias, slope, residual, epsilon, moments));
}

Gradients gradients_of(const Tensor&, const OptionalTensor&, const OptionalTensor&, const Tensor& out, const Tensor&, const Tensor&, double,
                       bool affine_wanted, bool residual_wanted, const OptionalTensor&) {
  const auto channels = [&] { return affine_wanted ? at::empty_symint({out.sym_size(1)}, out.options()) : at::empty({0}, out.options()); };
  return {empty_channels_last(out), channels(), channels(), residual_wanted ? empty_channels_last(out) : at::empty({0}, out.options())};
}

// ---- CPU ------------------------------------------------------------------------------------------------------------

void run(const kernels::InstanceNormParams<float>& p) { kernels::cpu::instance_norm_forward(p, torch_parallel_for); }
void run(const kernels::InstanceNormParams<double>& p) { kernels::reference::instance_norm_forward(p, torch_parallel_for); }
void run(const kernels::InstanceNormBackwardParams<float>& p) { kernels::cpu::instance_norm_backward(p, torch_parallel_for); }
void run(const kernels::InstanceNormBackwardParams<double>& p) { kernels::reference::instance_norm_backward(p, torch_parallel_for); }

/// [B,C,Z,Y,X] of any layout -> [B,V,C] contiguous in the kernel's dtype.
Tensor as_rows(const Tensor& t, at::ScalarType dtype) {
  if (!t.defined()) return t;
  return t.to(dtype).permute({0, 2, 3, 4, 1}).contiguous().view({t.size(0), -1, t.size(1)});
}

/// Writes rows [B,V,C] into a [B,C,Z,Y,X] tensor.
void put_rows(const Tensor& rows, const Tensor& into) {
  const auto target = into.permute({0, 2, 3, 4, 1});
  if (rows.data_ptr() != into.data_ptr()) target.copy_(rows.view(target.sizes()));
}

/// Rows to be written: of `into` itself where dtype and layout allow it.
Tensor rows_for(const Tensor& into, at::ScalarType dtype) {
  const auto last = into.permute({0, 2, 3, 4, 1});
  if (into.scalar_type() == dtype && last.is_contiguous()) return last.view({into.size(0), -1, into.size(1)});
  return at::empty({into.size(0), into.size(2) * into.size(3) * into.size(4), into.size(1)}, into.options().dtype(dtype));
}

Outputs forward_cpu(const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, double slope, const OptionalTensor& residual, double epsilon,
                    const OptionalTensor& moments) {
  auto [out, mean, rstd] = outputs_of(x, weight, bias, slope, residual, epsilon, moments);
  if (x.numel() == 0) return {out, mean.zero_(), rstd.zero_()};
  const auto dtype = mean.scalar_type();
  const auto x_rows = as_rows(x, dtype), residual_rows = as_rows(or_undefined(residual), dtype), out_rows = rows_for(out, dtype);
  const auto w = for_kernel(or_undefined(weight), dtype), b = for_kernel(or_undefined(bias), dtype);
  with_kernel_type(dtype, [&, &mean = mean, &rstd = rstd](auto element) {
    using T = decltype(element);
    kernels::InstanceNormParams<T> p;
    p.x = view_of<const T, 3>(x_rows);
    p.weight = view_of<const T, 1>(w);
    p.bias = view_of<const T, 1>(b);
    p.residual = view_of<const T, 3>(residual_rows);
    p.slope = slope;
    p.epsilon = epsilon;
    p.out = view_of<T, 3>(out_rows);
    p.mean = view_of<T, 2>(mean);
    p.rstd = view_of<T, 2>(rstd);
    p.moments = view_of<const double, 3>(or_undefined(moments));
    run(p);
  });
  put_rows(out_rows, out);
  return {out, mean, rstd};
}

Tensor cpu(const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, double slope, const OptionalTensor& residual, double epsilon,
           const OptionalTensor& moments) {
  return std::get<0>(forward_cpu(x, weight, bias, slope, residual, epsilon, moments));
}

Gradients backward_cpu(const Tensor& grad_out, const OptionalTensor& x, const OptionalTensor& weight, const Tensor& out, const Tensor& mean,
                       const Tensor& rstd, double slope, bool affine_wanted, bool residual_wanted, const OptionalTensor& residual) {
  auto gradients = gradients_of(grad_out, x, weight, out, mean, rstd, slope, affine_wanted, residual_wanted, residual);
  auto& [grad_x, grad_weight, grad_bias, grad_residual] = gradients;
  if (out.numel() == 0) {
    grad_weight.zero_();
    grad_bias.zero_();
    return gradients;
  }
  const auto dtype = mean.scalar_type();
  const auto x_rows = as_rows(or_undefined(x), dtype), out_rows = as_rows(out, dtype), grad_rows = as_rows(grad_out, dtype), grad_x_rows = rows_for(grad_x, dtype);
  const auto residual_rows = as_rows(or_undefined(residual), dtype);
  const auto grad_residual_rows = residual_wanted ? rows_for(grad_residual, dtype) : Tensor();
  const auto w = for_kernel(or_undefined(weight), dtype);
  const auto weight_sum = affine_wanted ? at::empty_like(grad_weight, dtype) : Tensor(), bias_sum = affine_wanted ? at::empty_like(grad_bias, dtype) : Tensor();
  with_kernel_type(dtype, [&](auto element) {
    using T = decltype(element);
    kernels::InstanceNormBackwardParams<T> p;
    p.forward.x = x_rows.defined() ? view_of<const T, 3>(x_rows) : View<const T, 3>{nullptr, {out_rows.size(0), out_rows.size(1), out_rows.size(2)}, {}};
    p.forward.residual = view_of<const T, 3>(residual_rows);
    p.forward.weight = view_of<const T, 1>(w);
    p.forward.slope = slope;
    p.forward.out = view_of<T, 3>(out_rows);
    p.forward.mean = view_of<T, 2>(mean);
    p.forward.rstd = view_of<T, 2>(rstd);
    p.grad_out = view_of<const T, 3>(grad_rows);
    p.grad_x = view_of<T, 3>(grad_x_rows);
    p.grad_residual = view_of<T, 3>(grad_residual_rows);
    p.grad_weight = view_of<T, 1>(weight_sum);
    p.grad_bias = view_of<T, 1>(bias_sum);
    run(p);
  });
  put_rows(grad_x_rows, grad_x);
  if (residual_wanted) put_rows(grad_residual_rows, grad_residual);
  if (affine_wanted) {
    grad_weight.copy_(weight_sum);
    grad_bias.copy_(bias_sum);
  }
  return gradients;
}

// ---- autograd -------------------------------------------------------------------------------------------------------

constexpr double kInvertibleSlope = 1e-3;

class InstanceNormFunction : public torch::autograd::Function<InstanceNormFunction> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, double slope,
                        const OptionalTensor& residual, double epsilon, const OptionalTensor& moments) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fovea::instance_norm_act_forward", "").typed<decltype(forward_cpu)>();
    auto [out, mean, rstd] = op.call(x, weight, bias, slope, residual, epsilon, moments);
    // The input of a norm is the output of a convolution and of use to nobody else: not keeping it halves what training
    // holds. Not where z is not found again from what was rounded: bfloat16, an affine map, a flat activation.
    const bool from_out = !(weight && weight->defined()) && !(bias && bias->defined()) && slope >= kInvertibleSlope && x.scalar_type() != at::kBFloat16;
    ctx->save_for_backward({from_out ? Tensor() : x, or_undefined(weight), out, mean, rstd, from_out ? or_undefined(residual) : Tensor()});
    ctx->saved_data["slope"] = slope;
    ctx->saved_data["weight_wanted"] = weight && weight->requires_grad();
    ctx->saved_data["bias_wanted"] = bias && bias->requires_grad();
    ctx->saved_data["residual_wanted"] = residual && residual->requires_grad();
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fovea::instance_norm_act_backward", "").typed<decltype(backward_cpu)>();
    const auto saved = ctx->get_saved_variables();
    const auto wanted = [&](const char* name) { return ctx->saved_data[name].toBool(); };
    auto [grad_x, grad_weight, grad_bias, grad_residual] =
        op.call(grads[0], or_none(saved[0]), or_none(saved[1]), saved[2], saved[3], saved[4], ctx->saved_data["slope"].toDouble(),
                wanted("weight_wanted") || wanted("bias_wanted"), wanted("residual_wanted"), or_none(saved[5]));
    return {grad_x, wanted("weight_wanted") ? grad_weight : Tensor(), wanted("bias_wanted") ? grad_bias : Tensor(), Tensor(),
            wanted("residual_wanted") ? grad_residual : Tensor(), Tensor(), Tensor()};
  }
};

Tensor autograd(const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, double slope, const OptionalTensor& residual, double epsilon,
                const OptionalTensor& moments) {
  return InstanceNormFunction::apply(x, weight, bias, slope, residual, epsilon, moments);
}

// ---- registration ---------------------------------------------------------------------------------------------------

TORCH_LIBRARY_IMPL(fovea, Meta, m) {
  m.impl("instance_norm_act", meta);
  m.impl("instance_norm_act_forward", outputs_of);
  m.impl("instance_norm_act_backward", gradients_of);
}

TORCH_LIBRARY_IMPL(fovea, CPU, m) {
  m.impl("instance_norm_act", cpu);
  m.impl("instance_norm_act_forward", forward_cpu);
  m.impl("instance_norm_act_backward", backward_cpu);
}

TORCH_LIBRARY_IMPL(fovea, Autograd, m) {
  m.impl("instance_norm_act", autograd);
  m.impl("instance_norm_act_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("instance_norm_act_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace

Tensor instance_norm_act(const Tensor& x, const OptionalTensor& weight, const OptionalTensor& bias, double slope, const OptionalTensor& residual, double epsilon,
                         const OptionalTensor& moments) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fovea::instance_norm_act", "").typed<decltype(instance_norm_act)>();
  return op.call(x, weight, bias, slope, residual, epsilon, moments);
}

}  // namespace fovea::ops
