#include "fovea/ops/linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "fovea/kernels/linear.h"
#include "fovea/kernels/mlp.h"
#include "fovea/ops/argument_check.h"
#include "fovea/ops/parallel.h"

namespace fovea::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Seven = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;  // x, weight1, bias1, weight2, bias2, norm

// ---- schema ---------------------------------------------------------------------------------------------------------

TORCH_LIBRARY_FRAGMENT(fovea, m) {
  m.def("linear(Tensor x, Tensor weight, Tensor? bias=None, Tensor? norm_weight=None, Tensor? norm_bias=None, "
        "float epsilon=1e-05, Tensor? residual=None) -> Tensor", {at::Tag::pt2_compliant_tag});
  // Gradients that are not wanted are empty; wanted counts them in the order of the outputs.
  m.def("linear_backward(Tensor grad_out, Tensor x, Tensor weight, Tensor? norm_weight, Tensor? norm_bias, float epsilon, "
        "bool[5] wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor)", {at::Tag::pt2_compliant_tag});
  m.def("mlp(Tensor x, Tensor weight1, Tensor? bias1, Tensor weight2, Tensor? bias2, Tensor? norm_weight=None, "
        "Tensor? norm_bias=None, float epsilon=1e-05, bool add_input=False) -> Tensor", {at::Tag::pt2_compliant_tag});
  m.def("mlp_backward(Tensor grad_out, Tensor x, Tensor weight1, Tensor? bias1, Tensor weight2, Tensor? norm_weight, "
        "Tensor? norm_bias, float epsilon, bool add_input, bool[7] wanted) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)", {at::Tag::pt2_compliant_tag});
}

// ---- checks ---------------------------------------------------------------------------------------------------------

void check_rows(const ArgumentCheck& check, const Argument& x) {
  check.one_device();
  if (x.tensor.dim() == 0) check.fail("x has no axis", "[...,channels]");
  check.dtype(x, {at::kFloat, at::kDouble, at::kBFloat16}, "");
}

void check_weight(const ArgumentCheck& check, const Argument& weight, const Argument& bias, const c10::SymInt& in,
                  const char* in_is, at::ScalarType dtype) {
  check.rank(weight, 2, "[out,in]");
  check.at_least_one(weight, 1, "channels");
  check.size(weight, 1, "channels", in, in_is);
  check.dtype(weight, {dtype}, "the dtype of x");
  check.rank(bias, 1, "[out]");
  check.dtype(bias, {dtype}, "the dtype of x");
  if (bias.tensor.defined()) check.size(bias, 0, "channels", weight.tensor.sym_size(0), "the rows of its weight");
}

void check_norm(const ArgumentCheck& check, const Argument& x, const Argument& weight, const Argument& bias) {
  if (bias.tensor.defined() && !weight.tensor.defined()) check.fail("norm_bias without norm_weight", "both or none");
  for (const Argument& a : {weight, bias}) {
    check.rank(a, 1, "[channels]");
    check.dtype(a, {x.tensor.scalar_type()}, "the dtype of x");
    check.size(a, 0, "channels", x.tensor.sym_size(-1), "the channels of x");
  }
}

// ---- meta -----------------------------------------------------------------------------------------------------------

Tensor rows_like(const Tensor& x, const c10::SymInt& channels) {
  auto sizes = x.sym_sizes().vec();
  sizes.back() = channels;
  return at::empty_symint(sizes, x.options());
}

Tensor linear_meta(const Tensor& x_tensor, const Tensor& weight_tensor, const OptionalTensor& bias_in,
                   const OptionalTensor& norm_weight_in, const OptionalTensor& norm_bias_in, double,
                   const OptionalTensor& residual_in) {
  const Tensor bias_t = or_undefined(bias_in), norm_weight_t = or_undefined(norm_weight_in),
               norm_bias_t = or_undefined(norm_bias_in), residual_t = or_undefined(residual_in);
  const Argument x{"x", x_tensor}, weight{"weight", weight_tensor}, bias{"bias", bias_t},
      norm_weight{"norm_weight", norm_weight_t}, norm_bias{"norm_bias", norm_bias_t}, residual{"residual", residual_t};
  const ArgumentCheck check("linear", {x, weight, bias, norm_weight, norm_bias, residual});
  check_rows(check, x);
  check_weight(check, weight, bias, x_tensor.sym_size(-1), "the channels of x", x_tensor.scalar_type());
  check_norm(check, x, norm_weight, norm_bias);
  const Tensor out = rows_like(x_tensor, weight_tensor.sym_size(0));
  check.dtype(residual, {x_tensor.scalar_type()}, "the dtype of x");
  if (residual_t.defined() && residual_t.sym_sizes() != out.sym_sizes())
    check.fail("residual has shape " + shape_text(residual_t.sym_sizes()), "the shape of the output, " + shape_text(out.sym_sizes()));
  return out;
}

Tensor mlp_meta(const Tensor& x_tensor, const Tensor& weight1_tensor, const OptionalTensor& bias1_in, const Tensor& weight2_tensor,
                const OptionalTensor& bias2_in, const OptionalTensor& norm_weight_in, const OptionalTensor& norm_bias_in, double,
                bool add_input) {
  const Tensor bias1_t = or_undefined(bias1_in), bias2_t = or_undefined(bias2_in), norm_weight_t = or_undefined(norm_weight_in),
               norm_bias_t = or_undefined(norm_bias_in);
  const Argument x{"x", x_tensor}, weight1{"weight1", weight1_tensor}, bias1{"bias1", bias1_t}, weight2{"weight2", weight2_tensor},
      bias2{"bias2", bias2_t}, norm_weight{"norm_weight", norm_weight_t}, norm_bias{"norm_bias", norm_bias_t};
  const ArgumentCheck check("mlp", {x, weight1, bias1, weight2, bias2, norm_weight, norm_bias});
  check_rows(check, x);
  check_weight(check, weight1, bias1, x_tensor.sym_size(-1), "the channels of x", x_tensor.scalar_type());
  check_weight(check, weight2, bias2, weight1_tensor.sym_size(0), "the rows of weight1", x_tensor.scalar_type());
  check_norm(check, x, norm_weight, norm_bias);
  if (add_input) check.size(weight2, 0, "rows", x_tensor.sym_size(-1), "the channels of x, with add_input");
  return rows_like(x_tensor, weight2_tensor.sym_size(0));
}

Tensor gradient_of(const Tensor& t, bool wanted) {
  return wanted ? at::empty_symint(t.sym_sizes(), t.options()) : at::empty({0}, t.options());
}
Tensor vector_of(const Tensor& weight, int axis, bool wanted) {
  return wanted ? at::empty_symint({weight.sym_size(axis)}, weight.options()) : at::empty({0}, weight.options());
}

LinearGradients linear_gradients_of(const Tensor&, const Tensor& x, const Tensor& weight, const OptionalTensor&, const OptionalTensor&, double,
                         std::array<bool, 5> wanted) {
  return {gradient_of(x, wanted[0]), gradient_of(weight, wanted[1]), vector_of(weight, 0, wanted[2]), vector_of(weight, 1, wanted[3]),
          vector_of(weight, 1, wanted[4])};
}

Seven mlp_gradients_of(const Tensor&, const Tensor& x, const Tensor& weight1, const OptionalTensor&, const Tensor& weight2,
                       const OptionalTensor&, const OptionalTensor&, double, bool, std::array<bool, 7> wanted) {
  return {gradient_of(x, wanted[0]),       gradient_of(weight1, wanted[1]),  vector_of(weight1, 0, wanted[2]), gradient_of(weight2, wanted[3]),
          vector_of(weight2, 0, wanted[4]), vector_of(weight1, 1, wanted[5]), vector_of(weight1, 1, wanted[6])};
}

// ---- CPU ------------------------------------------------------------------------------------------------------------

void run(const kernels::LinearParams<float>& p) { kernels::cpu::linear_forward(p, torch_parallel_for); }
void run(const kernels::LinearParams<double>& p) { kernels::reference::linear_forward(p, torch_parallel_for); }
void run(const kernels::LinearBackwardParams<float>& g) { kernels::cpu::linear_backward(g, torch_parallel_for); }
void run(const kernels::LinearBackwardParams<double>& g) { kernels::reference::linear_backward(g, torch_parallel_for); }
void run(const kernels::MlpParams<float>& p) { kernels::cpu::mlp_forward(p, torch_parallel_for); }
void run(const kernels::MlpParams<double>& p) { kernels::reference::mlp_forward(p, torch_parallel_for); }
void run(const kernels::MlpBackwardParams<float>& g) { kernels::cpu::mlp_backward(g, torch_parallel_for); }
void run(const kernels::MlpBackwardParams<double>& g) { kernels::reference::mlp_backward(g, torch_parallel_for); }

/// [...,C] as [N,C] with adjacent channels, in the kernel's dtype.
Tensor as_rows(const Tensor& t, at::ScalarType dtype) {
  if (!t.defined()) return t;
  const Tensor rows = for_kernel(t, dtype);
  return rows.dim() == 1 ? rows.unsqueeze(0) : rows.flatten(0, -2);
}

/// The norm's vectors in the kernel's dtype.
struct Norm {
  Tensor weight, bias;
  double epsilon;

  Norm(const OptionalTensor& w, const OptionalTensor& b, double e, at::ScalarType dtype)
      : weight(for_kernel(or_undefined(w), dtype)), bias(for_kernel(or_undefined(b), dtype)), epsilon(e) {}
  template <class T>
  kernels::LayerNorm<T> view() const { return {view_of<const T, 1>(weight), view_of<const T, 1>(bias), epsilon}; }
};

/// Gradients to be written, in the kernel's dtype; those not wanted stay undefined.
template <size_t n>
struct KernelGradients {
  std::array<Tensor, n> into, computed;

  KernelGradients(std::array<Tensor, n> gradients, const std::array<bool, n>& wanted, at::ScalarType dtype) : into(std::move(gradients)) {
    for (size_t i = 0; i < n; ++i)
      if (wanted[i]) computed[i] = kernel_output(into[i], dtype);
  }
  template <class T>
  View<T, 2> rows(size_t i) const {
    const Tensor& t = computed[i];
    return view_of<T, 2>(t.defined() ? t.view({-1, t.size(-1)}) : t);
  }
  template <class T>
  View<T, 1> row(size_t i) const { return view_of<T, 1>(computed[i]); }
  void finish() const {
    for (size_t i = 0; i < n; ++i)
      if (computed[i].defined()) put(computed[i], into[i]);
  }
};

template <class T>
kernels::LinearParams<T> linear_params(const Tensor& x, const Tensor& weight, const Norm& norm) {
  kernels::LinearParams<T> p;
  p.x = view_of<const T, 2>(x);
  p.weight = view_of<const T, 2>(weight);
  p.norm = norm.view<T>();
  return p;
}

Tensor linear_cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const OptionalTensor& norm_weight,
                  const OptionalTensor& norm_bias, double epsilon, const OptionalTensor& residual) {
  const Tensor out = linear_meta(x, weight, bias, norm_weight, norm_bias, epsilon, residual);
  if (out.numel() == 0) return out;
  const at::ScalarType dtype = kernel_dtype(x.scalar_type());
  const Tensor x_rows = as_rows(x, dtype), w = for_kernel(weight, dtype), b = for_kernel(or_undefined(bias), dtype),
               added = as_rows(or_undefined(residual), dtype), computed = kernel_output(out, dtype), out_rows = computed.view({-1, out.size(-1)});
  const Norm norm(norm_weight, norm_bias, epsilon, dtype);
  with_kernel_type(dtype, [&](auto element) {
    using T = decltype(element);
    auto p = linear_params<T>(x_rows, w, norm);
    p.bias = view_of<const T, 1>(b);
    p.residual = view_of<const T, 2>(added);
    p.out = view_of<T, 2>(out_rows);
    run(p);
  });
  put(computed, out);
  return out;
}

LinearGradients linear_backward_cpu(const Tensor& grad_out, const Tensor& x, const Tensor& weight, const OptionalTensor& norm_weight,
                         const OptionalTensor& norm_bias, double epsilon, std::array<bool, 5> wanted) {
  auto gradients = linear_gradients_of(grad_out, x, weight, norm_weight, norm_bias, epsilon, wanted);
  auto& [dx, dweight, dbias, dnorm_weight, dnorm_bias] = gradients;
  if (grad_out.numel() == 0) {
    for (const Tensor& t : {dx, dweight, dbias, dnorm_weight, dnorm_bias}) t.zero_();
    return gradients;
  }
  const at::ScalarType dtype = kernel_dtype(x.scalar_type());
  const Tensor x_rows = as_rows(x, dtype), w = for_kernel(weight, dtype), grad_rows = as_rows(grad_out, dtype);
  const Norm norm(norm_weight, norm_bias, epsilon, dtype);
  const KernelGradients<5> out({dx, dweight, dbias, dnorm_weight, dnorm_bias}, wanted, dtype);
  with_kernel_type(dtype, [&](auto element) {
    using T = decltype(element);
    kernels::LinearBackwardParams<T> g;
    g.forward = linear_params<T>(x_rows, w, norm);
    g.grad_out = view_of<const T, 2>(grad_rows);
    g.grad_x = out.template rows<T>(0);
    g.grad_weight = out.template rows<T>(1);
    g.grad_bias = out.template row<T>(2);
    g.grad_norm = {out.template row<T>(3), out.template row<T>(4)};
    run(g);
  });
  out.finish();
  return gradients;
}

template <class T>
kernels::MlpParams<T> mlp_params(const Tensor& x, const Tensor& weight1, const Tensor& bias1, const Tensor& weight2, const Norm& norm, bool add_input) {
  kernels::MlpParams<T> p;
  p.x = view_of<const T, 2>(x);
  p.weight1 = view_of<const T, 2>(weight1);
  p.bias1 = view_of<const T, 1>(bias1);
  p.weight2 = view_of<const T, 2>(weight2);
  p.norm = norm.view<T>();
  p.add_input = add_input;
  return p;
}

Tensor mlp_cpu(const Tensor& x, const Tensor& weight1, const OptionalTensor& bias1, const Tensor& weight2, const OptionalTensor& bias2,
               const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, double epsilon, bool add_input) {
  const Tensor out = mlp_meta(x, weight1, bias1, weight2, bias2, norm_weight, norm_bias, epsilon, add_input);
  if (out.numel() == 0) return out;
  const at::ScalarType dtype = kernel_dtype(x.scalar_type());
  const Tensor x_rows = as_rows(x, dtype), w1 = for_kernel(weight1, dtype), b1 = for_kernel(or_undefined(bias1), dtype),
               w2 = for_kernel(weight2, dtype), b2 = for_kernel(or_undefined(bias2), dtype), computed = kernel_output(out, dtype),
               out_rows = computed.view({-1, out.size(-1)});
  const Norm norm(norm_weight, norm_bias, epsilon, dtype);
  with_kernel_type(dtype, [&](auto element) {
    using T = decltype(element);
    auto p = mlp_params<T>(x_rows, w1, b1, w2, norm, add_input);
    p.bias2 = view_of<const T, 1>(b2);
    p.out = view_of<T, 2>(out_rows);
    run(p);
  });
  put(computed, out);
  return out;
}

Seven mlp_backward_cpu(const Tensor& grad_out, const Tensor& x, const Tensor& weight1, const OptionalTensor& bias1, const Tensor& weight2,
                       const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, double epsilon, bool add_input,
                       std::array<bool, 7> wanted) {
  auto gradients = mlp_gradients_of(grad_out, x, weight1, bias1, weight2, norm_weight, norm_bias, epsilon, add_input, wanted);
  auto& [dx, dweight1, dbias1, dweight2, dbias2, dnorm_weight, dnorm_bias] = gradients;
  if (grad_out.numel() == 0) {
    for (const Tensor& t : {dx, dweight1, dbias1, dweight2, dbias2, dnorm_weight, dnorm_bias}) t.zero_();
    return gradients;
  }
  const at::ScalarType dtype = kernel_dtype(x.scalar_type());
  const Tensor x_rows = as_rows(x, dtype), w1 = for_kernel(weight1, dtype), b1 = for_kernel(or_undefined(bias1), dtype),
               w2 = for_kernel(weight2, dtype), grad_rows = as_rows(grad_out, dtype);
  const Norm norm(norm_weight, norm_bias, epsilon, dtype);
  const KernelGradients<7> out({dx, dweight1, dbias1, dweight2, dbias2, dnorm_weight, dnorm_bias}, wanted, dtype);
  with_kernel_type(dtype, [&](auto element) {
    using T = decltype(element);
    kernels::MlpBackwardParams<T> g;
    g.forward = mlp_params<T>(x_rows, w1, b1, w2, norm, add_input);
    g.grad_out = view_of<const T, 2>(grad_rows);
    g.grad_x = out.template rows<T>(0);
    g.grad_weight1 = out.template rows<T>(1);
    g.grad_bias1 = out.template row<T>(2);
    g.grad_weight2 = out.template rows<T>(3);
    g.grad_bias2 = out.template row<T>(4);
    g.grad_norm = {out.template row<T>(5), out.template row<T>(6)};
    run(g);
  });
  out.finish();
  return gradients;
}

// ---- autograd -------------------------------------------------------------------------------------------------------

bool wants(const OptionalTensor& t) { return t && t->defined() && t->requires_grad(); }
Tensor if_wanted(const Tensor& t, bool wanted) { return wanted ? t : Tensor(); }

class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                        const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, double epsilon, const OptionalTensor& residual) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({x, weight, or_undefined(norm_weight), or_undefined(norm_bias)});
    ctx->saved_data["epsilon"] = epsilon;
    ctx->saved_data["wanted"] = std::vector<bool>{x.requires_grad(), weight.requires_grad(), wants(bias), wants(norm_weight), wants(norm_bias)};
    ctx->saved_data["residual_wanted"] = wants(residual);
    return linear(x, weight, bias, norm_weight, norm_bias, epsilon, residual);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto wants_list = ctx->saved_data["wanted"].toBoolList();
    std::array<bool, 5> wanted;
    std::copy(wants_list.begin(), wants_list.end(), wanted.begin());
    const auto [x, weight, bias, norm_weight, norm_bias] =
        linear_backward(grads[0], saved[0], saved[1], or_none(saved[2]), or_none(saved[3]), ctx->saved_data["epsilon"].toDouble(), wanted);
    return {if_wanted(x, wanted[0]), if_wanted(weight, wanted[1]), if_wanted(bias, wanted[2]), if_wanted(norm_weight, wanted[3]),
            if_wanted(norm_bias, wanted[4]), Tensor(), if_wanted(grads[0], ctx->saved_data["residual_wanted"].toBool())};
  }
};

class MlpFunction : public torch::autograd::Function<MlpFunction> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight1, const OptionalTensor& bias1, const Tensor& weight2,
                        const OptionalTensor& bias2, const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, double epsilon, bool add_input) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({x, weight1, or_undefined(bias1), weight2, or_undefined(norm_weight), or_undefined(norm_bias)});
    ctx->saved_data["epsilon"] = epsilon;
    ctx->saved_data["add_input"] = add_input;
    ctx->saved_data["wanted"] = std::vector<bool>{x.requires_grad(), weight1.requires_grad(), wants(bias1),      weight2.requires_grad(),
                                                  wants(bias2),      wants(norm_weight),      wants(norm_bias)};
    return mlp(x, weight1, bias1, weight2, bias2, norm_weight, norm_bias, epsilon, add_input);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fovea::mlp_backward", "").typed<decltype(mlp_backward_cpu)>();
    const variable_list saved = ctx->get_saved_variables();
    const auto wants_list = ctx->saved_data["wanted"].toBoolList();
    std::array<bool, 7> wanted;
    std::copy(wants_list.begin(), wants_list.end(), wanted.begin());
    const auto [x, weight1, bias1, weight2, bias2, norm_weight, norm_bias] =
        op.call(grads[0], saved[0], saved[1], or_none(saved[2]), saved[3], or_none(saved[4]), or_none(saved[5]),
                ctx->saved_data["epsilon"].toDouble(), ctx->saved_data["add_input"].toBool(), wanted);
    return {if_wanted(x, wanted[0]),       if_wanted(weight1, wanted[1]),     if_wanted(bias1, wanted[2]),     if_wanted(weight2, wanted[3]),
            if_wanted(bias2, wanted[4]),   if_wanted(norm_weight, wanted[5]), if_wanted(norm_bias, wanted[6]), Tensor(), Tensor()};
  }
};

Tensor linear_autograd(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const OptionalTensor& norm_weight,
                       const OptionalTensor& norm_bias, double epsilon, const OptionalTensor& residual) {
  return LinearFunction::apply(x, weight, bias, norm_weight, norm_bias, epsilon, residual);
}

Tensor mlp_autograd(const Tensor& x, const Tensor& weight1, const OptionalTensor& bias1, const Tensor& weight2, const OptionalTensor& bias2,
                    const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, double epsilon, bool add_input) {
  return MlpFunction::apply(x, weight1, bias1, weight2, bias2, norm_weight, norm_bias, epsilon, add_input);
}

// ---- registration ---------------------------------------------------------------------------------------------------

TORCH_LIBRARY_IMPL(fovea, Meta, m) {
  m.impl("linear", linear_meta);
  m.impl("linear_backward", linear_gradients_of);
  m.impl("mlp", mlp_meta);
  m.impl("mlp_backward", mlp_gradients_of);
}

TORCH_LIBRARY_IMPL(fovea, CPU, m) {
  m.impl("linear", linear_cpu);
  m.impl("linear_backward", linear_backward_cpu);
  m.impl("mlp", mlp_cpu);
  m.impl("mlp_backward", mlp_backward_cpu);
}

TORCH_LIBRARY_IMPL(fovea, Autograd, m) {
  m.impl("linear", linear_autograd);
  m.impl("linear_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("mlp", mlp_autograd);
  m.impl("mlp_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const OptionalTensor& norm_weight,
              const OptionalTensor& norm_bias, double epsilon, const OptionalTensor& residual) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fovea::linear", "").typed<decltype(linear)>();
  return op.call(x, weight, bias, norm_weight, norm_bias, epsilon, residual);
}

LinearGradients linear_backward(const Tensor& grad_out, const Tensor& x, const Tensor& weight, const OptionalTensor& norm_weight,
                                const OptionalTensor& norm_bias, double epsilon, std::array<bool, 5> wanted) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fovea::linear_backward", "").typed<decltype(linear_backward)>();
  return op.call(grad_out, x, weight, norm_weight, norm_bias, epsilon, wanted);
}

Tensor mlp(const Tensor& x, const Tensor& weight1, const OptionalTensor& bias1, const Tensor& weight2, const OptionalTensor& bias2,
           const OptionalTensor& norm_weight, const OptionalTensor& norm_bias, double epsilon, bool add_input) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fovea::mlp", "").typed<decltype(mlp)>();
  return op.call(x, weight1, bias1, weight2, bias2, norm_weight, norm_bias, epsilon, add_input);
}

}  // namespace fovea::ops
