#include "fovea/ops/conv3d.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <mutex>
#include <string_view>

#include "fovea/core/isa.h"
#include "fovea/kernels/conv3d.h"
#include "fovea/kernels/instance_norm.h"
#include "fovea/ops/argument_check.h"
#include "fovea/ops/kernel_tensors.h"
#include "fovea/ops/parallel.h"

namespace fovea::ops {
namespace {

using at::Tensor;
using kernels::Conv3dForm;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Gradients = std::tuple<Tensor, Tensor, Tensor>;  // x, weight, bias
using OutMoments = std::tuple<Tensor, Tensor>;
using Wanted = std::array<bool, 3>;

// ---- schema ---------------------------------------------------------------------------------------------------------

TORCH_LIBRARY_FRAGMENT(fovea, m) {
  m.def("conv3d(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor", {at::Tag::pt2_compliant_tag});
  m.def("conv3d_moments(Tensor x, Tensor weight, Tensor? bias=None) -> (Tensor out, Tensor moments)", {at::Tag::pt2_compliant_tag});
  // Gradients that are not wanted are empty.
  m.def(
      "conv3d_backward(Tensor grad_out, Tensor x, Tensor weight, bool[3] wanted) -> (Tensor grad_x, Tensor "
      "grad_weight, Tensor grad_bias)",
      {at::Tag::pt2_compliant_tag});
}

// ---- checks ---------------------------------------------------------------------------------------------------------

void check_conv3d(const Tensor& x_tensor, const Tensor& weight_tensor, const Tensor& bias_tensor) {
  const Argument x{"x", x_tensor}, weight{"weight", weight_tensor}, bias{"bias", bias_tensor};
  const ArgumentCheck check("conv3d", {x, weight, bias});
  check.one_device();
  check.rank(x, 5, "[B,C,Z,Y,X]");
  check.rank(weight, 5, "[O,C,kz,ky,kx]");
  check.rank(bias, 1, "[O]");
  check.dtype(x, {at::kFloat, at::kDouble, at::kBFloat16}, "");
  check.dtype(weight, {x_tensor.scalar_type()}, "the dtype of x");
  check.dtype(bias, {x_tensor.scalar_type()}, "the dtype of x");
  check.at_least_one(weight, 0, "output channels");
  check.at_least_one(x, 1, "channels");
  check.size(weight, 1, "input channels", x_tensor.sym_size(1), "the channels of x");
  check.size(bias, 0, "channels", weight_tensor.sym_size(0), "the output channels of weight");
  for (int axis = 2; axis < 5; ++axis)
    if (weight_tensor.sym_size(axis) % 2 != 1)
      check.fail(c10::str("weight has kernel edge ", weight_tensor.sym_size(axis)), "an odd number");
}

// ---- meta -----------------------------------------------------------------------------------------------------------

Tensor out_of(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  check_conv3d(x, weight, or_undefined(bias));
  return at::empty_symint({x.sym_size(0), weight.sym_size(0), x.sym_size(2), x.sym_size(3), x.sym_size(4)}, x.options(),
                          at::MemoryFormat::ChannelsLast3d);
}

Tensor moments_of(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  if (x.scalar_type() == at::kBFloat16) ArgumentCheck("conv3d_moments", {}).fail("x is bfloat16", "float32 or float64");
  check_conv3d(x, weight, or_undefined(bias));
  return at::empty_symint({x.sym_size(0), weight.sym_size(0), 2}, x.options().dtype(at::kDouble));
}

OutMoments out_and_moments_of(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  const auto moments = moments_of(x, weight, bias);
  return {out_of(x, weight, bias), moments};
}

Gradients gradients_of(const Tensor&, const Tensor& x, const Tensor& weight, Wanted wanted) {
  const auto none = [&] { return at::empty({0}, x.options()); };
  return {wanted[0] ? at::empty_like(x, at::MemoryFormat::ChannelsLast3d) : none(),
          wanted[1] ? at::empty_like(weight, at::MemoryFormat::Contiguous) : none(),
          wanted[2] ? at::empty_symint({weight.sym_size(0)}, x.options()) : none()};
}

// ---- choice ---------------------------------------------------------------------------------------------------------

bool direct_only() {
  static const bool wanted = [] {
    const char* value = std::getenv("FOVEA_CONV");
    TORCH_CHECK(!value || std::string_view(value) == "direct", "FOVEA_CONV is '", value, "', expected direct");
    return value != nullptr;
  }();
  return wanted;
}

kernels::Conv3dPrecision precision() {
  return at::globalContext().float32MatmulPrecision() == at::Float32MatmulPrecision::HIGHEST
             ? kernels::Conv3dPrecision::kHighest
             : kernels::Conv3dPrecision::kHigh;
}

bool is_3x3x3(const Tensor& weight) { return weight.size(2) == 3 && weight.size(3) == 3 && weight.size(4) == 3; }

/// The form of a convolution from `in` to `out` channels on the voxels of x.
Conv3dForm form_of(const Tensor& x, const Tensor& weight, int64_t in, int64_t out) {
  const bool bf16_tiles = x.scalar_type() == at::kBFloat16 && chosen_isa() == Isa::kAmx;
  if (!is_3x3x3(weight) || direct_only() || bf16_tiles || chosen_isa() == Isa::kBaseline) return Conv3dForm::kDirect;
  return kernels::choose_conv3d_form({x.size(0), x.size(2), x.size(3), x.size(4), in, out}, precision());
}

Conv3dForm forward_form(const Tensor& x, const Tensor& weight) {
  return form_of(x, weight, weight.size(1), weight.size(0));
}

// ---- CPU, oneDNN ----------------------------------------------------------------------------------------------------

std::vector<int64_t> padding_of(const Tensor& weight) {
  return {weight.size(2) / 2, weight.size(3) / 2, weight.size(4) / 2};
}

const std::vector<int64_t> kOnes(3, 1);

Tensor direct_forward(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  const auto last = x.contiguous(at::MemoryFormat::ChannelsLast3d);
  // at::conv3d would hand small maps of one sample to a slow kernel.
  const auto out = x.scalar_type() == at::kDouble
                       ? at::conv3d(last, weight, bias, kOnes, padding_of(weight), kOnes)
                       : at::mkldnn_convolution(last, weight, bias, padding_of(weight), kOnes, kOnes, /*groups=*/1);
  return out.contiguous(at::MemoryFormat::ChannelsLast3d);
}

// torch sends a map of one sample to its own kernel unless B*C*Z*Y exceeds this (use_mkldnn in its Convolution.cpp).
bool torch_would_choose_onednn(const Tensor& x) {
  constexpr int64_t kTorchUsesOneDnnFrom = 20480;
  return x.size(0) > 1 || x.size(0) * x.size(1) * x.size(2) * x.size(3) > kTorchUsesOneDnnFrom;
}

Gradients direct_backward(const Tensor& grad_out, const Tensor& x, const Tensor& weight, Wanted wanted) {
  const auto grad = grad_out.contiguous(at::MemoryFormat::ChannelsLast3d);
  auto last = x.contiguous(at::MemoryFormat::ChannelsLast3d);
  // An oneDNN tensor as input leaves torch no choice of backend.
  if (x.scalar_type() != at::kDouble && !torch_would_choose_onednn(last)) last = last.to_mkldnn();
  return at::convolution_backward(grad, last, weight, at::OptionalIntArrayRef(), kOnes, padding_of(weight), kOnes,
                                  /*transposed=*/false, {0, 0, 0}, /*groups=*/1, wanted);
}

bool has_few_channels(const Tensor& x, const Tensor& weight) {
  constexpr int64_t kFew = 8, kMostWeights = 1 << 20;
  return x.scalar_type() == at::kFloat && x.size(1) <= kFew && weight.numel() <= kMostWeights && x.size(0) * x.size(2) > 1;
}

/// The weight's gradient where few channels come in, as at a network's entrance. oneDNN shares the sum over voxels among
/// its threads, so that its bits hang on their number; here each slab of planes is summed on one thread, in double, and
/// then the slabs in their order.
///   grad_weight[(c,t),o] = sum over planes of columns[(c,t),yx] grad_out[yx,o]
Tensor weight_gradient_by_slabs(const Tensor& grad_out, const Tensor& x, const Tensor& weight) {
  const int64_t B = x.size(0), C = x.size(1), Z = x.size(2), Y = x.size(3), X = x.size(4), O = weight.size(0);
  const auto pad = padding_of(weight);
  const at::NoGradGuard no_grad;
  const auto padded = at::constant_pad_nd(x.contiguous(), {pad[2], pad[2], pad[1], pad[1], pad[0], pad[0]}).contiguous();
  const auto grad = grad_out.permute({0, 2, 3, 4, 1}).contiguous();  // [B,Z,Y,X,O]
  const int64_t planes = std::clamp<int64_t>(Z / 2, 1, 8), per_sample = (Z + planes - 1) / planes;
  const auto partial = at::zeros({B * per_sample, weight.numel() / O, O}, x.options().dtype(at::kDouble));
  torch_parallel_for(B * per_sample, 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad_here;
    for (int64_t slab = begin; slab < end; ++slab) {
      const int64_t b = slab / per_sample, first = slab % per_sample * planes;
      const auto sample = padded[b];
      auto sum = partial[slab];
      for (int64_t z = first; z < std::min(first + planes, Z); ++z) {
        const auto columns = sample.narrow(1, z, weight.size(2)).unfold(2, Y, 1).unfold(3, X, 1)  // [C,kz,ky,kx,Y,X]
                                 .reshape({weight.numel() / O, Y * X}).to(at::kDouble);
        sum.addmm_(columns, grad[b][z].view({Y * X, O}).to(at::kDouble));
      }
    }
  });
  auto total = partial[0];
  for (int64_t slab = 1; slab < B * per_sample; ++slab) total.add_(partial[slab]);
  return total.t().to(at::kFloat).reshape({O, C, weight.size(2), weight.size(3), weight.size(4)}).contiguous();
}

// ---- CPU, kernels ---------------------------------------------------------------------------------------------------

void run(const kernels::Conv3dParams<float>& p, Conv3dForm form, const kernels::cpu::Conv3dWeights* kept) {
  kernels::cpu::conv3d_forward(p, form, torch_parallel_for, chosen_isa(), kept);
}
void run(const kernels::Conv3dParams<double>& p, Conv3dForm, const kernels::cpu::Conv3dWeights*) {
  kernels::reference::conv3d_forward(p, torch_parallel_for);
}
void run(const kernels::Conv3dBackwardParams<float>& g, Conv3dForm form) {
  kernels::cpu::conv3d_backward(g, form, torch_parallel_for);
}
void run(const kernels::Conv3dBackwardParams<double>& g, Conv3dForm) {
  kernels::reference::conv3d_backward(g, torch_parallel_for);
}

/// [B,C,Z,Y,X] of any layout in the kernel's dtype, as [B,Z,Y,X,C] with adjacent channels; a copy only where needed.
Tensor voxels_of(const Tensor& t, at::ScalarType dtype) {
  const auto last = t.to(dtype).permute({0, 2, 3, 4, 1});
  return last.stride(4) == 1 || last.size(4) == 1 ? last : last.contiguous();
}

/// [O,C,3,3,3] -> [O,3,3,3,C]
Tensor taps_of(const Tensor& weight) { return weight.permute({0, 2, 3, 4, 1}); }

bool by_kernel(const Tensor& x, const Tensor& weight, Conv3dForm form) {
  return form != Conv3dForm::kDirect || (x.scalar_type() == at::kDouble && is_3x3x3(weight));
}

/// Of a convolution that was not ours.
void take_moments(const Tensor& out, const Tensor& moments) {
  const auto rows = out.permute({0, 2, 3, 4, 1}).flatten(1, 3);
  const auto written = view_of<double, 3>(moments);
  if (rows.scalar_type() == at::kFloat)
    kernels::cpu::instance_moments(view_of<const float, 3>(rows), written, torch_parallel_for);
  else
    kernels::reference::instance_moments(view_of<const double, 3>(rows), written, torch_parallel_for);
}

/// kept: of the form that the forward pass takes, or null. moments: undefined, or written
Tensor forward_with(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                    const kernels::cpu::Conv3dWeights* kept, const Tensor& moments = {}) {
  const auto out = out_of(x, weight, bias);
  if (out.numel() == 0) {
    if (moments.defined()) moments.zero_();
    return out;
  }
  const auto form = forward_form(x, weight);
  if (!by_kernel(x, weight, form)) {
    const auto result = direct_forward(x, weight, bias);
    if (moments.defined()) take_moments(result, moments);
    return result;
  }
  const auto dtype = kernel_dtype(x.scalar_type());
  const auto result = out.to(dtype);
  const auto voxels = voxels_of(x, dtype), taps = taps_of(weight.to(dtype)), b = for_kernel(or_undefined(bias), dtype);
  const auto written = result.permute({0, 2, 3, 4, 1});
  with_kernel_type(dtype, [&](auto element) {
    using T = decltype(element);
    kernels::Conv3dParams<T> p;
    p.x = view_of<const T, 5>(voxels);
    p.weight = view_of<const T, 5>(taps);
    p.bias = view_of<const T, 1>(b);
    p.out = view_of<T, 5>(written);
    p.moments = view_of<double, 3>(moments);
    run(p, form, kept);
  });
  return result.to(x.scalar_type());
}

Tensor forward_cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  return forward_with(x, weight, bias, nullptr);
}

OutMoments forward_moments_cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  const auto moments = moments_of(x, weight, bias);
  return {forward_with(x, weight, bias, nullptr, moments), moments};
}

Gradients backward_cpu(const Tensor& grad_out, const Tensor& x, const Tensor& weight, Wanted wanted) {
  auto gradients = gradients_of(grad_out, x, weight, wanted);
  auto& [grad_x, grad_weight, grad_bias] = gradients;
  if (grad_out.numel() == 0) {
    for (Tensor* t : {&grad_x, &grad_weight, &grad_bias}) t->zero_();
    return gradients;
  }
  const auto dtype = kernel_dtype(x.scalar_type());
  const auto voxels = voxels_of(x, dtype), upstream = voxels_of(grad_out, dtype), taps = taps_of(weight.to(dtype));
  Wanted direct{};
  const auto by_form = [&](Conv3dForm form, const auto& fill) {
    with_kernel_type(dtype, [&](auto element) {
      using T = decltype(element);
      kernels::Conv3dBackwardParams<T> g;
      g.forward.x = view_of<const T, 5>(voxels);
      g.forward.weight = view_of<const T, 5>(taps);
      g.grad_out = view_of<const T, 5>(upstream);
      fill(g, element);
      run(g, form);
    });
  };
  if (wanted[0]) {
    const auto form = form_of(x, weight, weight.size(0), weight.size(1));
    direct[0] = !by_kernel(x, weight, form);
    if (!direct[0]) {
      grad_x = grad_x.to(dtype);
      const auto written = grad_x.permute({0, 2, 3, 4, 1});
      by_form(form, [&](auto& g, auto element) { g.grad_x = view_of<decltype(element), 5>(written); });
      grad_x = grad_x.to(x.scalar_type());
    }
  }
  if (wanted[1]) {
    const auto form = forward_form(x, weight);
    direct[1] = !by_kernel(x, weight, form);
    if (!direct[1]) {
      grad_weight = grad_weight.to(dtype);
      const auto written = taps_of(grad_weight);
      by_form(form, [&](auto& g, auto element) { g.grad_weight = view_of<decltype(element), 5>(written); });
      // Winograd spreads NaN and infinity over the taps of a channel; the direct sum has them where they belong.
      direct[1] = form != Conv3dForm::kDirect && !std::isfinite(grad_weight.sum().item<double>());
      grad_weight = grad_weight.to(x.scalar_type());
    }
  }
  if (wanted[2])
    by_form(Conv3dForm::kDirect, [&](auto& g, auto element) {
      grad_bias = grad_bias.to(dtype);
      g.grad_bias = view_of<decltype(element), 1>(grad_bias);
    });
  grad_bias = grad_bias.to(x.scalar_type());
  if (direct[1] && has_few_channels(x, weight)) {
    grad_weight = weight_gradient_by_slabs(grad_out, x, weight);
    direct[1] = false;
  }
  if (direct[0] || direct[1]) {
    const auto [dx, dweight, no_bias] = direct_backward(grad_out, x, weight, direct);
    if (direct[0]) grad_x = dx.contiguous(at::MemoryFormat::ChannelsLast3d);
    if (direct[1]) grad_weight = dweight.contiguous();
  }
  return gradients;
}

// ---- autograd -------------------------------------------------------------------------------------------------------

class Conv3dFunction : public torch::autograd::Function<Conv3dFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, const OptionalTensor& bias, bool moments_wanted) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({x, weight});
    ctx->saved_data["wanted"] =
        std::vector<bool>{x.requires_grad(), weight.requires_grad(), bias && bias->requires_grad()};
    if (!moments_wanted) return {ops::conv3d(x, weight, bias)};
    auto [out, moments] = ops::conv3d_moments(x, weight, bias);
    ctx->mark_non_differentiable({moments});
    return {out, moments};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("fovea::conv3d_backward", "").typed<decltype(backward_cpu)>();
    const auto saved = ctx->get_saved_variables();
    const auto asked = ctx->saved_data["wanted"].toBoolList();
    const Wanted wanted{asked[0], asked[1], asked[2]};
    auto [grad_x, grad_weight, grad_bias] = op.call(grads[0], saved[0], saved[1], wanted);
    const auto only = [](bool is_wanted, const Tensor& t) { return is_wanted ? t : Tensor(); };
    return {only(wanted[0], grad_x), only(wanted[1], grad_weight), only(wanted[2], grad_bias), Tensor()};
  }
};

Tensor autograd(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  return Conv3dFunction::apply(x, weight, bias, /*moments_wanted=*/false)[0];
}

OutMoments autograd_moments(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  const auto outputs = Conv3dFunction::apply(x, weight, bias, /*moments_wanted=*/true);
  return {outputs[0], outputs[1]};
}

// ---- autocast -------------------------------------------------------------------------------------------------------

Tensor autocast(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  const auto dtype = chosen_isa() == Isa::kAmx ? at::autocast::get_autocast_dtype(at::kCPU) : at::kFloat;
  const auto cast = [&](const Tensor& t) { return at::autocast::cached_cast(dtype, t, at::kCPU); };
  return ops::conv3d(cast(x), cast(weight), bias ? OptionalTensor(cast(*bias)) : bias);
}

// ---- registration ---------------------------------------------------------------------------------------------------

TORCH_LIBRARY_IMPL(fovea, Meta, m) {
  m.impl("conv3d", out_of);
  m.impl("conv3d_moments", out_and_moments_of);
  m.impl("conv3d_backward", gradients_of);
}

TORCH_LIBRARY_IMPL(fovea, CPU, m) {
  m.impl("conv3d", forward_cpu);
  m.impl("conv3d_moments", forward_moments_cpu);
  m.impl("conv3d_backward", backward_cpu);
}

TORCH_LIBRARY_IMPL(fovea, Autograd, m) {
  m.impl("conv3d", autograd);
  m.impl("conv3d_moments", autograd_moments);
  m.impl("conv3d_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(fovea, AutocastCPU, m) { m.impl("conv3d", autocast); }

}  // namespace

Tensor conv3d(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("fovea::conv3d", "").typed<decltype(ops::conv3d)>();
  return op.call(x, weight, bias);
}

std::tuple<Tensor, Tensor> conv3d_moments(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("fovea::conv3d_moments", "").typed<decltype(ops::conv3d_moments)>();
  return op.call(x, weight, bias);
}

struct KeptConv3dWeights::Kept {
  /// The weights in the form that this call takes, where it may use kept ones and is not direct.
  std::optional<kernels::cpu::Conv3dWeights> for_call(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
    const bool plain = x.is_cpu() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat &&
                       x.numel() > 0 && !at::autocast::is_autocast_enabled(at::kCPU);
    // A weight that an optimiser may write to is never kept: writes through raw pointers do not count as changes. Nor is a
    // tensor made in inference mode, which counts none.
    const bool recorded = at::GradMode::is_enabled() && (x.requires_grad() || (bias && bias->requires_grad()));
    if (!plain || recorded || weight.requires_grad() || weight.is_inference()) return {};
    check_conv3d(x, weight, or_undefined(bias));
    const auto form = forward_form(x, weight);
    if (form == Conv3dForm::kDirect) return {};
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return of(weight, form);
  }

 private:
  /// The weights in this form, made anew where needed.
  kernels::cpu::Conv3dWeights of(const Tensor& weight, Conv3dForm form) {
    const std::lock_guard lock(mutex);
    const bool same = data == weight.const_data_ptr() && version == weight._version() && transformed.form == form &&
                      transformed.isa == chosen_isa();
    if (!same) {
      transformed = {};
      transformed =
          kernels::cpu::transform_conv3d_weights(view_of<const float, 5>(taps_of(weight)), form, torch_parallel_for);
      storage = weight.storage();
      data = weight.const_data_ptr(), version = weight._version();
    }
    return transformed;
  }

  std::mutex mutex;
  kernels::cpu::Conv3dWeights transformed;
  // What they were made of; the storage is held, so that its address cannot become another tensor's.
  c10::Storage storage;
  const void* data = nullptr;
  uint32_t version = 0;
};

KeptConv3dWeights::KeptConv3dWeights() : kept_(std::make_unique<Kept>()) {}
KeptConv3dWeights::~KeptConv3dWeights() = default;

Tensor KeptConv3dWeights::conv3d(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  const auto kept = kept_->for_call(x, weight, bias);
  if (!kept) return ops::conv3d(x, weight, bias);
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return forward_with(x, weight, bias, &*kept);
}

std::tuple<Tensor, Tensor> KeptConv3dWeights::conv3d_moments(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  const auto kept = kept_->for_call(x, weight, bias);
  if (!kept) return ops::conv3d_moments(x, weight, bias);
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const auto moments = moments_of(x, weight, bias);
  return {forward_with(x, weight, bias, &*kept, moments), moments};
}

std::string conv3d_form(const Tensor& x, const Tensor& weight) { return kernels::name_of(forward_form(x, weight)); }

}  // namespace fovea::ops
