#include "fovea/nn/recompute.h"

#include <ATen/CPUGeneratorImpl.h>

namespace fovea::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Step = std::function<torch::Tensor(torch::Tensor)>;

/// What backward needs to run the step again.
struct Recipe : torch::CustomClassHolder {
  Step step;
  torch::Tensor generator_state;
};

struct Recomputed : torch::autograd::Function<Recomputed> {
  // The second argument makes autograd call backward even if x wants none.
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& x, const torch::Tensor& /*wants_gradients*/, const Step& step) {
    auto recipe = c10::make_intrusive<Recipe>();
    recipe->step = step;
    recipe->generator_state = at::detail::getDefaultCPUGenerator().get_state();
    ctx->saved_data["recipe"] = c10::IValue::make_capsule(recipe);
    ctx->save_for_backward({x});
    return step(x);  // gradients are off inside forward()
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto recipe = c10::static_intrusive_pointer_cast<Recipe>(ctx->saved_data["recipe"].toCapsule());
    auto generator = at::detail::getDefaultCPUGenerator();
    const auto state = generator.get_state();
    generator.set_state(recipe->generator_state);
    const auto x = ctx->get_saved_variables()[0].detach().requires_grad_(ctx->needs_input_grad(0));
    torch::Tensor y;
    {
      torch::AutoGradMode with_gradients(true);
      y = recipe->step(x);
    }
    generator.set_state(state);
    y.backward(grads[0]);
    return {x.grad(), torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

torch::Tensor recomputed(const Step& f, const torch::Tensor& x) {
  if (!torch::GradMode::is_enabled()) return f(x);
  return Recomputed::apply(x, torch::zeros({}, torch::requires_grad()), f);
}

}  // namespace fovea::nn
