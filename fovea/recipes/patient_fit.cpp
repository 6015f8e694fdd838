#include <torch/torch.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "fovea/models/seeded_generator.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/recipes/patient_train.h"
#include "fovea/train/loss.h"

namespace fovea::recipes {

namespace {
constexpr uint32_t kSplitStream = 81, kOrderStream = 82, kHideStream = 83, kMirrorStream = 84;

std::vector<int64_t> shuffled(std::vector<int64_t> rows, Rng rng) {
  for (size_t i = rows.size(); i > 1; --i) std::swap(rows[i - 1], rows[size_t(rng.below(i))]);
  return rows;
}

torch::Tensor tensor_of(const std::vector<int64_t>& rows) { return torch::tensor(rows, torch::kLong); }

// Patients in a new order each epoch, so that one batch follows the other through all of them; depends on (seed, epoch,
// index) alone.
torch::Tensor batch_rows(const torch::Tensor& rows, const train::TrainConfig& config, int64_t epoch, int64_t index) {
  const int64_t n = rows.size(0), size = std::min(n, config.batch_size);
  const int64_t first = (epoch * config.steps_per_epoch * config.accumulate + index) * size;
  std::vector<int64_t> all(rows.data_ptr<int64_t>(), rows.data_ptr<int64_t>() + n), batch;
  int64_t drawn = -1;
  std::vector<int64_t> order;
  for (int64_t i = first; i < first + size; ++i) {
    if (i / n != drawn) drawn = i / n, order = shuffled(all, Rng(config.seed, uint32_t(drawn), 0, kOrderStream));
    batch.push_back(order[size_t(i % n)]);
  }
  return tensor_of(batch);
}

// Takes a modality from the patients where `hidden` [B] is true: what they have left is as if it had never been known.
void hide(models::PatientBatch& batch, size_t modality, const torch::Tensor& hidden) {
  const auto column = hidden.unsqueeze(1);
  const size_t images = batch.images.defined() ? size_t(batch.images.size(1)) : 0;
  if (modality < images) {
    batch.images_present = batch.images_present.clone();
    batch.images_present.select(1, int64_t(modality)).masked_fill_(hidden, false);
    return;
  }
  size_t at = images;
  if (batch.numbers.size(1) + batch.codes.size(1) > 0 && modality == at++) {
    batch.numbers = batch.numbers.masked_fill(column, std::numeric_limits<float>::quiet_NaN());
    batch.codes = batch.codes.masked_fill(column, -1);
  } else if (batch.measures.defined() && modality == at++) {
    batch.measures = batch.measures.masked_fill(column, std::numeric_limits<float>::quiet_NaN());
  } else if (batch.text.defined() && modality == at) {
    batch.text = batch.text.masked_fill(column, 0);
  }
}

// Each modality of each patient is hidden with a probability.
models::PatientBatch hide_some(models::PatientBatch batch, size_t modalities, int64_t patients, double probability, Rng rng) {
  if (probability == 0) return batch;
  for (size_t m = 0; m < modalities; ++m) {
    auto hidden = torch::empty({patients}, torch::kBool);
    for (int64_t i = 0; i < patients; ++i) hidden[i] = rng.chance(float(probability));
    hide(batch, m, hidden);
  }
  return batch;
}

// Each patient's images and mask mirrored along the same random axes.
void mirror(models::PatientBatch& batch, torch::Tensor& masks, Rng rng) {
  if (!batch.images.defined()) return;
  batch.images = batch.images.clone();
  if (masks.defined()) masks = masks.clone();
  for (int64_t i = 0; i < batch.images.size(0); ++i) {
    std::vector<int64_t> axes;  // from the end: Z, Y, X
    for (int64_t axis = -3; axis < 0; ++axis)
      if (rng.chance(0.5f)) axes.push_back(axis);
    if (axes.empty()) continue;
    batch.images[i].copy_(batch.images[i].flip(axes));
    if (masks.defined()) masks[i].copy_(masks[i].flip(axes));
  }
}

// Dice and cross-entropy of the outlines; undefined where no patient of the batch has a mask.
torch::Tensor outline_loss(const torch::Tensor& logits, const torch::Tensor& masks) {
  if ((masks < 0).all().item<bool>()) return {};
  const auto has_mask = (masks.flatten(1) >= 0).any(1).nonzero().squeeze(1);
  return train::dice_cross_entropy(logits.index_select(0, has_mask), masks.index_select(0, has_mask), {});
}

// The network and what is learnt beside it.
struct Trained : torch::nn::Module {
  Trained(const models::PatientNetwork& n, bool balances) : network(register_module("network", n)) {
    if (balances) balance = register_module("balance", train::UncertaintyWeights(2));
  }
  models::PatientNetwork network;
  train::UncertaintyWeights balance{nullptr};
};

std::vector<torch::Tensor> trainable(const torch::nn::Module& module) {
  std::vector<torch::Tensor> all;
  for (const auto& p : module.parameters())
    if (p.requires_grad()) all.push_back(p);
  return all;
}
}  // namespace

PatientSplit split_patients(const data::PatientTable& table, std::optional<int64_t> fold, double validation_share, uint64_t seed) {
  std::vector<int64_t> all(table.patients.size()), rest, held_out;
  std::iota(all.begin(), all.end(), int64_t{0});
  constexpr int64_t kFolds = 5;
  if (fold && (*fold < 0 || *fold >= kFolds)) throw ArgumentError("train: --fold " + std::to_string(*fold) + ", expected 0 to 4 or all");
  const auto order = shuffled(all, Rng(seed, 0, 0, kSplitStream));
  for (size_t i = 0; i < order.size(); ++i) {
    const bool out = fold ? int64_t(i) % kFolds == *fold : table.patients[size_t(order[i])].test;
    (out ? held_out : rest).push_back(order[i]);
  }
  const size_t validation = size_t(std::lround(validation_share * double(rest.size())));
  if (rest.size() < validation + 2) throw ArgumentError("train: " + std::to_string(rest.size()) + " patients to learn from, expected at least 2 beside those of validation");
  return {tensor_of({rest.begin() + int64_t(validation), rest.end()}), tensor_of({rest.begin(), rest.begin() + int64_t(validation)}), tensor_of(held_out)};
}

FittedPatients fit_patients(const EncodedPatients& patients, const PatientSplit& split, const PatientConfig& config, train::RunFolder& folder, const FitOptions& options) {
  // Small products gain nothing from threads that wait for each other.
  std::optional<OneThread> one_thread;
  if (config.network.images == 0) one_thread.emplace();
  FittedPatients out;
  out.head = PatientHead::fit(config, patients, split.train);
  auto network_config = config.network;
  network_config.outputs = out.head.outputs();
  network_config.segment = config.segments();
  {
    const models::SeededGenerator seeded(config.train.seed);
    out.network = models::PatientNetwork(network_config);
  }
  Trained trained(out.network, config.segments() && config.balance == train::TaskBalance::kUncertainty);

  auto resume_command = options.command;
  if (!options.resume) resume_command.push_back("--resume");
  train::Trainer trainer(trained, config.train, folder, train::shell_line(resume_command));
  if (options.resume) trainer.resume();
  const train::BatchSource source = [&](int64_t epoch, int64_t index) {
    train::Batch batch;
    // A batch is which patients, and which batch it is: what is drawn at random for it hangs on that.
    batch.label = batch_rows(split.train, config.train, epoch, index);
    batch.image = torch::tensor({epoch, index}, torch::kLong);
    return batch;
  };
  const train::LossFunction loss = [&](const train::Batch& batch) {
    const auto& rows = batch.label;
    const auto random = [&](uint32_t stream) { return Rng(config.train.seed, uint32_t(batch.image[0].item<int64_t>()), uint32_t(batch.image[1].item<int64_t>()), stream); };
    auto inputs = hide_some(patients.rows(rows), out.network->modalities().size(), rows.size(0), config.modality_dropout, random(kHideStream));
    auto masks = config.segments() ? patients.masks.index_select(0, rows) : torch::Tensor();
    if (config.mirror) mirror(inputs, masks, random(kMirrorStream));
    const auto answer = out.network->forward(inputs);
    if (!out.head.is_learnt()) return outline_loss(answer.segmentation, masks);
    const auto outcome = out.head.loss(answer.outcome, patients, rows);
    if (!config.segments()) return outcome.to(torch::kFloat);
    auto outline = outline_loss(answer.segmentation, masks);
    if (outline.defined()) outline = config.segmentation_weight * outline;
    if (config.balance == train::TaskBalance::kUncertainty) return trained.balance->forward({outcome.to(torch::kFloat), outline});
    if (config.balance == train::TaskBalance::kPcGrad) return train::projected_loss({outcome.to(torch::kFloat), outline}, trainable(*out.network));
    return (outline.defined() ? outcome + outline : outcome).to(torch::kFloat);
  };
  const train::Validation validation = [&] {
    const auto answers = answer_patients(*out.network, patients, split.validation);
    train::Metrics metrics{{"score", main_score(out.head, answers.outcome, patients, split.validation)}};
    if (!std::isnan(answers.dice)) metrics["dice"] = answers.dice;
    return metrics;
  };
  out.training = trainer.run(source, loss, split.validation.size(0) > 0 ? validation : train::Validation{});
  trainer.use_best_weights();
  out.network->eval();
  if (out.head.kind == PatientOutcome::kCox) out.head.learn_hazard(answer_patients(*out.network, patients, split.train).outcome, survival_of(patients, split.train));
  return out;
}

PatientAnswers answer_patients(models::PatientNetworkImpl& network, const EncodedPatients& patients, const torch::Tensor& rows) {
  const torch::NoGradGuard no_grad;
  const bool was_training = network.is_training();
  network.eval();
  std::vector<torch::Tensor> outcome, gates;
  double both = 0, sum = 0;
  constexpr int64_t kAtOnce = 64;
  for (int64_t first = 0; first < rows.size(0); first += kAtOnce) {
    const auto some = rows.slice(0, first, std::min(first + kAtOnce, rows.size(0)));
    const auto answer = network.forward(patients.rows(some));
    outcome.push_back(answer.outcome), gates.push_back(answer.gates);
    if (!answer.segmentation.defined() || !patients.masks.defined()) continue;
    const auto truth = patients.masks.index_select(0, some);
    const auto inside = answer.segmentation.argmax(1).logical_and(truth >= 0);
    both += inside.logical_and(truth == 1).sum().item<double>();
    sum += (inside.sum() + (truth == 1).sum()).item<double>();
  }
  network.train(was_training);
  return {torch::cat(outcome), torch::cat(gates), sum > 0 ? 2 * both / sum : std::numeric_limits<double>::quiet_NaN()};
}

EncodedPatients without_modality(const EncodedPatients& patients, size_t modality) {
  EncodedPatients out = patients;
  hide(out.inputs, modality, torch::ones({patients.count()}, torch::kBool));
  return out;
}

}  // namespace fovea::recipes
