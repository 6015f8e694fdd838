#include "fovea/recipes/bag_fit.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "fovea/models/clam.h"
#include "fovea/train/tensor_map.h"
#include "fovea/train/weight_average.h"

namespace fovea::recipes {

namespace {
torch::Tensor loss_of(const torch::Tensor& logits, const torch::Tensor& label) {
  if (logits.size(1) == 1) return torch::binary_cross_entropy_with_logits(logits.squeeze(1), label.to(logits.dtype()));
  return torch::nn::functional::cross_entropy(logits, label);
}

void shuffle(std::vector<int64_t>& order, Rng& rng) {
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
}
}  // namespace

torch::Tensor one_bag(int64_t n) { return torch::tensor({int64_t{0}, n}); }

BagFit fit_bags(models::BagNetworkImpl& network, const BagTask& task, const std::vector<int64_t>& train, const std::vector<int64_t>& validation,
                const BagFitOptions& options, const std::function<void(const BagFit&)>& epoch_done) {
  torch::optim::Adam optimizer(network.parameters(), torch::optim::AdamOptions(options.learning_rate).weight_decay(options.weight_decay));
  std::vector<train::NamedParameter> parameters;
  for (const auto& item : network.named_parameters()) parameters.push_back({item.key(), item.value()});
  train::WeightAverage average(parameters, options.average);
  int64_t updates = 0;
  BagFit fit;
  fit.validation_loss = std::numeric_limits<double>::infinity();
  io::TensorMap best;
  for (int64_t epoch = 0; epoch < options.epochs; ++epoch) {
    Rng rng(options.seed, uint32_t(epoch), 0);
    auto order = train;
    shuffle(order, rng);
    network.train();
    double sum = 0;
    for (const int64_t b : order) {
      const auto rows = task.rows(b), label = task.labels.slice(0, b, b + 1), offsets = one_bag(rows.size(0));
      const auto answer = network.forward(rows, offsets);
      auto loss = loss_of(answer.logits, label);
      if (answer.instance_logits.defined() && options.instance_weight > 0)
        loss = (1 - options.instance_weight) * loss +
               options.instance_weight * train::clam_instance_loss(answer.scores, answer.instance_logits, offsets, label, options.instances);
      const double value = loss.item<double>();
      if (!std::isfinite(value)) throw ArgumentError("bag " + std::to_string(b) + ": the loss is not finite in epoch " + std::to_string(epoch) + "; lower the learning rate or look at its rows");
      sum += value;
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
      average.update(++updates);
    }
    fit.train_losses.push_back(sum / double(std::max<size_t>(order.size(), 1)));
    fit.epochs = epoch + 1;
    if (!validation.empty()) {
      const torch::NoGradGuard no_grad;
      const train::AveragedWeights averaged(average);
      network.eval();
      double loss = 0;
      for (const int64_t b : validation) {
        const auto rows = task.rows(b);
        loss += loss_of(network.forward(rows, one_bag(rows.size(0))).logits, task.labels.slice(0, b, b + 1)).item<double>() / double(validation.size());
      }
      fit.validation_losses.push_back(loss);
      if (loss < fit.validation_loss) fit.validation_loss = loss, fit.best_epoch = epoch, best = train::module_state(network);
    } else {
      fit.best_epoch = epoch;
    }
    if (epoch_done) epoch_done(fit);
    if (options.patience > 0 && !validation.empty() && epoch - fit.best_epoch >= options.patience) break;
  }
  if (best.empty())
    average.swap();
  else
    train::load_module_state(network, best, "best epoch");
  network.eval();
  return fit;
}

torch::Tensor bag_probabilities(models::BagNetworkImpl& network, const torch::Tensor& rows) {
  const torch::NoGradGuard no_grad;
  const auto logits = network.forward(rows, one_bag(rows.size(0))).logits[0];
  if (logits.size(0) > 1) return logits.softmax(0);
  const auto p = logits.sigmoid();
  return torch::cat({1 - p, p});
}

std::vector<std::vector<int64_t>> stratified_folds(const torch::Tensor& labels, int64_t folds, uint64_t seed) {
  std::vector<int64_t> order(size_t(labels.size(0)));
  std::iota(order.begin(), order.end(), 0);
  Rng rng(seed, 0, 1);
  shuffle(order, rng);
  const auto label = labels.accessor<int64_t, 1>();
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return label[a] < label[b]; });
  std::vector<std::vector<int64_t>> parts(static_cast<size_t>(folds));
  for (size_t i = 0; i < order.size(); ++i) parts[i % parts.size()].push_back(order[i]);
  for (auto& part : parts) std::sort(part.begin(), part.end());
  return parts;
}

}  // namespace fovea::recipes
