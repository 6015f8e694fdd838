#include "fovea/ops/up_convolution.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "fovea/kernels/linear.h"
#include "fovea/ops/argument_check.h"
#include "fovea/ops/linear.h"
#include "fovea/ops/parallel.h"

namespace fovea::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Pair = std::tuple<Tensor, Tensor>;  // x, weight

// ---- schema ---------------------------------------------------------------------------------------------------------

TORCH_LIBRARY_FRAGMENT(fovea, m) {
  m.def("up_convolution(Tensor x, Tensor weight, Tensor? skip=None) -> Tensor", {at::Tag::pt2_compliant_tag});
  // grad_out: of the channels that weight made. Gradients that are not wanted are empty.
  m.def("up_convolution_backward(Tensor grad_out, Tensor x, Tensor weight, bool x_wanted, bool weight_wanted) -> (Tensor, Tensor)",
        {at::Tag::pt2_compliant_tag});
}

// ---- meta -----------------------------------------------------------------------------------------------------------

Tensor empty_channels_last(c10::SymIntArrayRef sizes, const at::TensorOptions& options) {
  return at::empty_symint(sizes, options, at::MemoryFormat::ChannelsLast3d);
}

Tensor meta(const Tensor& x_tensor, const Tensor& weight_tensor, const OptionalTensor& skip_in) {
  const Tensor skip_tensor = or_undefined(skip_in);
  const Argument x{"x", x_tensor}, weight{"weight", weight_tensor}, skip{"skip", skip_tensor};
  const ArgumentCheck check("up_convolution", {x, weight, skip});
  check.one_device();
  check.rank(x, 5, "[B,Ci,Z,Y,X]");
  check.rank(weight, 5, "[Ci,Co,f,f,f]");
  check.rank(skip, 5, "[B,Cs,fZ,fY,fX]");
  check.dtype(x, {at::kFloat, at::kDouble, at::kBFloat16}, "");
  for (const Argument& a : {weight, skip}) check.dtype(a, {x_tensor.scalar_type()}, "the dtype of x");
  check.size(weight, 0, "channels", x_tensor.sym_size(1), "the channels of x");
  check.at_least_one(weight, 0, "channels");
  check.at_least_one(weight, 2, "taps");
  const c10::SymInt f = weight_tensor.sym_size(2);
  for (const int axis : {3, 4}) check.size(weight, axis, "taps", f, "a cube");
  auto sizes = x_tensor.sym_sizes().vec();
  for (const int axis : {2, 3, 4}) sizes[axis] = sizes[axis] * f;
  sizes[1] = weight_tensor.sym_size(1);
  if (skip_tensor.defined()) {
    check.size(skip, 0, "samples", sizes[0], "the samples of x");
    for (const int axis : {2, 3, 4}) check.size(skip, axis, "voxels", sizes[axis], "f times those of x");
    sizes[1] = sizes[1] + skip_tensor.sym_size(1);
  }
  return empty_channels_last(sizes, x_tensor.options());
}

Pair gradients_of(const Tensor&, const Tensor& x, const Tensor& weight, bool x_wanted, bool weight_wanted) {
  return {x_wanted ? empty_channels_last(x.sym_sizes(), x.options()) : at::empty({0}, x.options()),
          weight_wanted ? at::empty_symint(weight.sym_sizes(), weight.options()) : at::empty({0}, x.options())};
}

// ---- CPU ------------------------------------------------------------------------------------------------------------

/// [B,C,Z,Y,X] as voxels [B*Z*Y*X,C] with adjacent channels.
Tensor as_voxels(const Tensor& t, at::ScalarType dtype) {
  return t.to(dtype).permute({0, 2, 3, 4, 1}).contiguous().view({-1, t.size(1)});
}

/// [Ci,Co,f,f,f] -> [(f f f Co),Ci].
Tensor as_linear(const Tensor& weight, at::ScalarType dtype) {
  return weight.to(dtype).permute({2, 3, 4, 1, 0}).contiguous().view({-1, weight.size(0)});
}

/// Offsets of the blocks' first voxels and of a block's voxels, in elements of channels-last `out`.
Pair offsets_of(const Tensor& x, const Tensor& out, int64_t f) {
  const auto steps = [](int64_t count, int64_t step) { return at::arange(count, at::kLong) * step; };
  const auto grid = [](const Tensor& z, const Tensor& y, const Tensor& xs) {
    return z.view({-1, 1, 1}) + y.view({-1, 1}) + xs;
  };
  const Tensor block = grid(steps(x.size(2), f * out.stride(2)), steps(x.size(3), f * out.stride(3)), steps(x.size(4), f * out.stride(4)));
  const Tensor sample = steps(x.size(0), out.stride(0)).view({-1, 1, 1, 1});
  return {(sample + block).flatten(), grid(steps(f, out.stride(2)), steps(f, out.stride(3)), steps(f, out.stride(4))).flatten()};
}

void run(const kernels::LinearParams<float>& p) { kernels::cpu::linear_forward(p, torch_parallel_for); }
void run(const kernels::LinearParams<double>& p) { kernels::reference::linear_forward(p, torch_parallel_for); }

Tensor cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& skip) {
  const Tensor out = meta(x, weight, skip);
  if (out.numel() == 0) return out;
  const at::ScalarType dtype = kernel_dtype(x.scalar_type());
  const Tensor computed = kernel_output(out, dtype);
  const Tensor voxels = as_voxels(x, dtype), rows = as_linear(weight, dtype);
  const auto [row_offset, group_offset] = offsets_of(x, computed, weight.size(2));
  with_kernel_type(dtype, [&, &row_offset = row_offset, &group_offset = group_offset](auto element) {
    using T = decltype(element);
    kernels::LinearParams<T> p;
    p.x = view_of<const T, 2>(voxels);
    p.weight = view_of<const T, 2>(rows);
    p.out.data = computed.mutable_data_ptr<T>();
    p.row_offset = view_of<const int64_t, 1>(row_offset);
    p.group_offset = view_of<const int64_t, 1>(group_offset);
    if (weight.size(1) > 0) run(p);
  });
  if (skip && skip->defined()) computed.narrow(1, weight.size(1), skip->size(1)).copy_(*skip);
  put(computed, out);
  return out;
}

Pair backward_cpu(const Tensor& grad_out, const Tensor& x, const Tensor& weight, bool x_wanted, bool weight_wanted) {
  auto [grad_x, grad_weight] = gradients_of(grad_out, x, weight, x_wanted, weight_wanted);
  const int64_t f = weight.size(2), O = weight.size(1);
  if (x.numel() == 0 || O == 0) return {grad_x.zero_(), grad_weight.zero_()};
  const at::ScalarType dtype = kernel_dtype(x.scalar_type());
  // b o (z f) (y f) (x f) -> (b z y x) (f f f o)
  const Tensor grad_rows = grad_out.to(dtype)
                               .reshape({x.size(0), O, x.size(2), f, x.size(3), f, x.size(4), f})
                               .permute({0, 2, 4, 6, 3, 5, 7, 1})
                               .reshape({-1, f * f * f * O});
  const auto [grad_voxels, grad_linear, bias, norm_weight, norm_bias] =
      linear_backward(grad_rows, as_voxels(x, dtype), as_linear(weight, dtype), {}, {}, 0, {x_wanted, weight_wanted, false, false, false});
  if (x_wanted) grad_x.permute({0, 2, 3, 4, 1}).copy_(grad_voxels.view({x.size(0), x.size(2), x.size(3), x.size(4), x.size(1)}));
  if (weight_wanted) grad_weight.copy_(grad_linear.view({f, f, f, O, x.size(1)}).permute({4, 3, 0, 1, 2}));
  return {grad_x, grad_weight};
}

// ---- autograd -------------------------------------------------------------------------------------------------------

class UpConvolutionFunction : public torch::autograd::Function<UpConvolutionFunction> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, const OptionalTensor& skip) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({x, weight});
    ctx->saved_data["x_wanted"] = x.requires_grad();
    ctx->saved_data["weight_wanted"] = weight.requires_grad();
    ctx->saved_data["skip_wanted"] = skip && skip->defined() && skip->requires_grad();
    return up_convolution(x, weight, skip);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("fovea::up_convolution_backward", "").typed<decltype(backward_cpu)>();
    const variable_list saved = ctx->get_saved_variables();
    const auto wanted = [&](const char* name) { return ctx->saved_data[name].toBool(); };
    const c10::SymInt made = saved[1].sym_size(1), all = grads[0].sym_size(1);
    const auto [x, weight] = op.call(grads[0].narrow_symint(1, 0, made), saved[0], saved[1], wanted("x_wanted"), wanted("weight_wanted"));
    return {wanted("x_wanted") ? x : Tensor(), wanted("weight_wanted") ? weight : Tensor(),
            wanted("skip_wanted") ? grads[0].narrow_symint(1, made, all - made) : Tensor()};
  }
};

Tensor autograd(const Tensor& x, const Tensor& weight, const OptionalTensor& skip) { return UpConvolutionFunction::apply(x, weight, skip); }

// ---- registration ---------------------------------------------------------------------------------------------------

TORCH_LIBRARY_IMPL(fovea, Meta, m) {
  m.impl("up_convolution", meta);
  m.impl("up_convolution_backward", gradients_of);
}

TORCH_LIBRARY_IMPL(fovea, CPU, m) {
  m.impl("up_convolution", cpu);
  m.impl("up_convolution_backward", backward_cpu);
}

TORCH_LIBRARY_IMPL(fovea, Autograd, m) {
  m.impl("up_convolution", autograd);
  m.impl("up_convolution_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace

Tensor up_convolution(const Tensor& x, const Tensor& weight, const OptionalTensor& skip) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fovea::up_convolution", "").typed<decltype(up_convolution)>();
  return op.call(x, weight, skip);
}

}  // namespace fovea::ops
