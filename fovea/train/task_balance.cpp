#include "fovea/train/task_balance.h"

#include "fovea/core/error.h"

namespace fovea::train {

namespace {
// The gradient of one loss as one long vector; weights that it does not reach have 0.
torch::Tensor flat_gradient(const torch::Tensor& loss, const std::vector<torch::Tensor>& parameters) {
  const auto gradients = torch::autograd::grad({loss}, parameters, {}, /*retain_graph=*/true, /*create_graph=*/false, /*allow_unused=*/true);
  std::vector<torch::Tensor> flat;
  for (size_t i = 0; i < parameters.size(); ++i)
    flat.push_back(gradients[i].defined() ? gradients[i].reshape(-1) : torch::zeros({parameters[i].numel()}, parameters[i].options()));
  return torch::cat(flat);
}
}  // namespace

UncertaintyWeightsImpl::UncertaintyWeightsImpl(int64_t tasks) { log_variance = register_parameter("log_variance", torch::zeros({tasks})); }

torch::Tensor UncertaintyWeightsImpl::forward(const std::vector<torch::Tensor>& losses) {
  if (int64_t(losses.size()) != log_variance.size(0))
    throw ArgumentError("task balance: " + std::to_string(losses.size()) + " losses, expected " + std::to_string(log_variance.size(0)));
  auto sum = torch::zeros({}, log_variance.options());
  for (size_t i = 0; i < losses.size(); ++i) {
    if (!losses[i].defined()) continue;
    const auto s = log_variance[int64_t(i)];
    sum = sum + (torch::exp(-s) * losses[i] + s) / 2;
  }
  return sum;
}

torch::Tensor projected_loss(const std::vector<torch::Tensor>& losses, const std::vector<torch::Tensor>& parameters) {
  if (parameters.empty()) throw ArgumentError("task balance: no parameters to project gradients of");
  std::vector<torch::Tensor> present;
  for (const auto& loss : losses)
    if (loss.defined()) present.push_back(loss);
  std::vector<torch::Tensor> gradients;
  for (const auto& loss : present) gradients.push_back(flat_gradient(loss, parameters));
  if (gradients.empty()) return torch::zeros({}, parameters[0].options());
  auto sum = torch::zeros_like(gradients[0]);
  for (size_t i = 0; i < gradients.size(); ++i) {
    auto own = gradients[i];
    for (size_t j = 0; j < gradients.size(); ++j) {
      if (i == j) continue;
      const double along = own.dot(gradients[j]).item<double>();
      if (along < 0) own = own - along / gradients[j].dot(gradients[j]).item<double>() * gradients[j];
    }
    sum = sum + own;
  }
  // A linear function of the weights with this gradient, moved to the value of the losses.
  torch::Tensor value = torch::zeros({}, sum.options());
  for (const auto& loss : present) value = value + loss.detach();
  torch::Tensor linear = torch::zeros({}, sum.options());
  int64_t at = 0;
  for (const auto& p : parameters) {
    linear = linear + (p.reshape(-1) * sum.narrow(0, at, p.numel())).sum();
    at += p.numel();
  }
  return value + linear - linear.detach();
}

GradientAgreement gradient_agreement(const torch::Tensor& first, const torch::Tensor& second, const std::vector<torch::Tensor>& parameters) {
  const auto a = flat_gradient(first, parameters).to(torch::kDouble), b = flat_gradient(second, parameters).to(torch::kDouble);
  GradientAgreement out;
  out.first_norm = a.norm().item<double>(), out.second_norm = b.norm().item<double>();
  out.cosine = a.dot(b).item<double>() / (out.first_norm * out.second_norm);
  return out;
}

}  // namespace fovea::train
