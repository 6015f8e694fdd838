// Lets the Python oracles ask for our survival losses, metrics and Cox fits. A line of stdin is a JSON object with "ask",
// its arguments as arrays; a line of stdout is the JSON answer.
#include <torch/torch.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "fovea/train/cox_regression.h"
#include "fovea/train/survival_loss.h"
#include "fovea/train/survival_metrics.h"

namespace {
using nlohmann::json;
using torch::Tensor;
namespace train = fovea::train;

Tensor vector_of(const json& values) { return torch::tensor(values.get<std::vector<double>>(), torch::kDouble); }

Tensor matrix_of(const json& rows) {
  std::vector<Tensor> tensors;
  for (const json& row : rows) tensors.push_back(vector_of(row));
  return torch::stack(tensors);
}

json list_of(const Tensor& t) {
  if (t.dim() == 0) return t.item<double>();
  json list = json::array();
  for (int64_t i = 0; i < t.size(0); ++i) list.push_back(list_of(t[i]));
  return list;
}

train::SurvivalTensors tensors_of(const json& q) { return {vector_of(q["time"]), vector_of(q["event"]) > 0.5}; }

train::SurvivalData data_of(const json& q) {
  train::SurvivalData data{q["time"].get<std::vector<double>>(), {}};
  for (const json& e : q["event"]) data.event.push_back(e.get<double>() > 0.5);
  return data;
}

/// Value and gradient of a loss of `x`.
template <class Loss>
json with_gradient(Tensor x, const Loss& loss) {
  x.requires_grad_();
  const Tensor value = loss(x);
  value.backward();
  return {{"loss", value.item<double>()}, {"gradient", list_of(x.grad())}};
}

json answer(const json& q) {
  const std::string ask = q["ask"];
  const auto ties = q.value("ties", "efron") == "breslow" ? train::CoxTies::kBreslow : train::CoxTies::kEfron;
  if (ask == "cox_loss") return with_gradient(vector_of(q["risk"]), [&](const Tensor& r) { return train::cox_loss(r, tensors_of(q), ties); });
  if (ask == "cox_fit") {
    const auto fit = train::fit_cox(matrix_of(q["x"]), tensors_of(q), ties, q.value("penalty", 0.0));
    return {{"coefficients", list_of(fit.coefficients)}, {"standard_errors", list_of(fit.standard_errors)}, {"log_likelihood", fit.log_likelihood},
            {"null_log_likelihood", fit.null_log_likelihood}};
  }
  if (ask == "interval_loss") {
    const Tensor interval = vector_of(q["interval"]).to(torch::kLong), event = vector_of(q["event"]) > 0.5;
    const std::string name = q["loss"];
    json result = with_gradient(matrix_of(q["logits"]), [&](const Tensor& x) {
      if (name == "logistic_hazard") return train::logistic_hazard_loss(x, interval, event);
      if (name == "mtlr") return train::mtlr_loss(x, interval, event);
      return train::deephit_loss(x, interval, event, {q["likelihood_weight"], q["sigma"]});
    });
    const Tensor logits = matrix_of(q["logits"]);
    result["survival"] = list_of(name == "logistic_hazard" ? train::logistic_hazard_survival(logits)
                                 : name == "mtlr"          ? train::mtlr_survival(logits)
                                                           : train::deephit_survival(logits));
    return result;
  }
  const auto risks = [&] { return q["risk"].get<std::vector<double>>(); };
  const auto times = [&] { return q["times"].get<std::vector<double>>(); };
  if (ask == "harrell") {
    const auto c = train::harrell_concordance(data_of(q), risks());
    return {{"index", c.index}, {"concordant", c.concordant}, {"discordant", c.discordant}, {"tied", c.tied}};
  }
  if (ask == "uno") return {{"index", train::uno_concordance(data_of(q["train"]), data_of(q["test"]), risks(), q["until"]).index}};
  if (ask == "auc") {
    const auto a = train::dynamic_auc(data_of(q["train"]), data_of(q["test"]), risks(), times());
    return {{"auc", a.auc}, {"mean", a.mean}};
  }
  if (ask == "brier") {
    const auto b = train::brier_score(data_of(q["train"]), data_of(q["test"]), q["survival"].get<std::vector<std::vector<double>>>(), times());
    return {{"score", b.score}, {"integrated", b.integrated}};
  }
  const train::KaplanMeier curve(data_of(q), ask == "censoring_curve");
  return {{"times", curve.times()}, {"probabilities", curve.probabilities()}};
}
}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) std::cout << answer(json::parse(line)).dump() << "\n" << std::flush;
}
