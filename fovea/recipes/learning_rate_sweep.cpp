#include "fovea/recipes/learning_rate_sweep.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>

#include "fovea/nn/mlp.h"
#include "fovea/nn/multi_head_attention.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/recipes/two_at_a_time.h"
#include "fovea/report/text.h"
#include "fovea/train/adamw.h"
#include "fovea/train/schedule.h"

namespace fovea::recipes {

namespace {

constexpr int64_t kPixels = 28, kClasses = 10, kTestImages = 2000;

/// Patches of an image, a learned position, pre-norm blocks, the mean of the tokens, a linear classifier.
struct Classifier : torch::nn::Module {
  struct Block {
    torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr};
    nn::MultiHeadAttention attention{nullptr};
    nn::Mlp mlp{nullptr};
  };

  Classifier(const SweepConfig& c, bool qk_norm) : patch(c.patch) {
    const int64_t tokens = (kPixels / patch) * (kPixels / patch);
    embed = register_module("embed", torch::nn::Linear(patch * patch, c.width));
    position = register_parameter("position", torch::randn({tokens, c.width}) * 0.02);
    for (int64_t i = 0; i < c.layers; ++i) {
      const std::string name = "block" + std::to_string(i) + "_";
      const auto norm = [&] { return torch::nn::LayerNorm(torch::nn::LayerNormOptions({c.width})); };
      Block block;
      block.norm1 = register_module(name + "norm1", norm());
      block.attention = register_module(name + "attention", nn::MultiHeadAttention(attention_options(c, qk_norm)));
      block.norm2 = register_module(name + "norm2", norm());
      block.mlp = register_module(name + "mlp", nn::Mlp(nn::MlpOptions(c.width, 4 * c.width)));
      blocks.push_back(block);
    }
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({c.width})));
    head = register_module("head", torch::nn::Linear(c.width, kClasses));
  }

  static nn::MultiHeadAttentionOptions attention_options(const SweepConfig& c, bool qk_norm) {
    auto options = nn::MultiHeadAttentionOptions(c.width, c.heads).bias(false);
    if (qk_norm) options.qk_norm(nn::QkNormKind::kLayerNorm).qk_norm_affine(false);
    return options;
  }

  /// images [B,28,28] -> logits [B,10]
  torch::Tensor forward(const torch::Tensor& images) {
    const int64_t n = kPixels / patch;
    // b (y p) (x q) -> b (y x) (p q)
    const auto patches = images.view({-1, n, patch, n, patch}).permute({0, 1, 3, 2, 4}).reshape({-1, n * n, patch * patch});
    auto x = embed(patches) + position;
    for (Block& block : blocks) {
      x = x + block.attention->forward(block.norm1(x));
      x = block.mlp->add_to(x, block.norm2);
    }
    return head(norm(x).mean(1));
  }

  void set_capture(bool on) {
    for (Block& block : blocks) block.attention->set_capture(on);
  }
  /// Of the last captured forward.
  double largest_score() const {
    double largest = 0;
    for (const Block& block : blocks) {
      const auto [q, k] = block.attention->queries_and_keys();
      largest = std::max(largest, block.attention->scale() * torch::matmul(q, k.transpose(-1, -2)).abs().max().item<double>());
    }
    return largest;
  }

  int64_t patch;
  torch::nn::Linear embed{nullptr}, head{nullptr};
  torch::Tensor position;
  std::vector<Block> blocks;
  torch::nn::LayerNorm norm{nullptr};
};

void train_classifier(Classifier& network, const SweepConfig& config, const data::LabelledImages& images, SweepRun& run) {
  constexpr double kClip = 1, kZLoss = 1e-4, kDecay = 3;
  std::vector<train::NamedParameter> parameters;
  for (const auto& p : network.named_parameters()) parameters.push_back({p.key(), p.value()});
  train::AdamWConfig adamw;
  adamw.beta2 = 0.95;
  adamw.weight_decay = run.learning_rate > 0 ? kDecay / double(config.steps) / run.learning_rate : 0;
  train::AdamW optimizer(std::move(parameters), adamw);
  train::ScheduleConfig schedule;
  schedule.warmup = config.warmup;
  auto generator = at::detail::createCPUGenerator(run.seed);
  for (int64_t step = 0; step < config.steps; ++step) {
    const auto chosen = torch::randint(images.labels.size(0), {config.batch}, generator, torch::TensorOptions(torch::kInt64));
    const bool logged = step % 5 == 0 || step + 1 == config.steps;
    network.set_capture(logged);
    optimizer.zero_grad();
    const auto logits = network.forward(images.images.index_select(0, chosen));
    const auto loss = torch::nn::functional::cross_entropy(logits, images.labels.index_select(0, chosen)) +
                      kZLoss * logits.logsumexp(-1).square().mean();
    loss.backward();
    if (logged) run.largest_score.emplace_back(step, network.largest_score());
    const double norm = optimizer.gradient_norm();
    if (!std::isfinite(norm)) break;  // diverged: nothing can come of it
    optimizer.step(run.learning_rate * train::schedule_factor_at_step(schedule, step, config.steps), std::min(1.0, kClip / norm));
  }
  network.set_capture(false);
}

void test_classifier(Classifier& network, const data::LabelledImages& images, SweepRun& run) {
  torch::NoGradGuard no_grad;
  const auto logits = network.forward(images.images.slice(0, 0, kTestImages)).to(torch::kFloat64);
  const auto labels = images.labels.slice(0, 0, kTestImages);
  run.loss = torch::nn::functional::cross_entropy(logits, labels).item<double>();
  if (!std::isfinite(run.loss)) run.loss = std::numeric_limits<double>::infinity();
  run.accuracy = (logits.argmax(-1) == labels).to(torch::kFloat64).mean().item<double>();
}

std::shared_ptr<Classifier> new_classifier(const SweepConfig& config, bool qk_norm, uint64_t seed) {
  torch::manual_seed(seed);
  return std::make_shared<Classifier>(config, qk_norm);
}

double mean_by_seed(const std::vector<SweepRun>& runs, bool qk_norm,
                    const std::function<double(const std::vector<const SweepRun*>&)>& of_sweep) {
  std::map<uint64_t, std::vector<const SweepRun*>> by_seed;
  for (const SweepRun& run : runs)
    if (run.qk_norm == qk_norm) by_seed[run.seed].push_back(&run);
  double sum = 0;
  for (const auto& [seed, sweep] : by_seed) sum += of_sweep(sweep);
  return sum / double(by_seed.size());
}

}  // namespace

SweepConfig quick_sweep(uint64_t first_seed) {
  SweepConfig config;
  config.first_seed = first_seed, config.seeds = 2;
  return config;
}

SweepConfig full_sweep(uint64_t first_seed) {
  SweepConfig config;
  config.first_seed = first_seed, config.seeds = 5;
  config.steps = 2000, config.batch = 32;
  config.learning_rates = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1};
  return config;
}

std::string sweep_text(const SweepConfig& c) {
  return report::printed("%lld layers of width %lld with %lld heads, patches of %lld, %lld steps of %lld images, ",
                         static_cast<long long>(c.layers), static_cast<long long>(c.width), static_cast<long long>(c.heads),
                         static_cast<long long>(c.patch), static_cast<long long>(c.steps), static_cast<long long>(c.batch)) +
         report::printed("%zu learning rates from %g to %g, %lld seeds from %llu", c.learning_rates.size(), c.learning_rates.front(),
                         c.learning_rates.back(), static_cast<long long>(c.seeds), static_cast<unsigned long long>(c.first_seed));
}

double LearningRateSweep::sensitivity(bool qk_norm) const {
  return mean_by_seed(runs, qk_norm, [&](const std::vector<const SweepRun*>& sweep) {
    double sum = 0, best = first_loss;
    for (const SweepRun* run : sweep)
      sum += std::min(run->loss, first_loss), best = std::min(best, run->loss);
    return sum / double(sweep.size()) - best;
  });
}

double LearningRateSweep::best_accuracy(bool qk_norm) const {
  return mean_by_seed(runs, qk_norm, [](const std::vector<const SweepRun*>& sweep) {
    double best = 0;
    for (const SweepRun* run : sweep) best = std::max(best, run->accuracy);
    return best;
  });
}

double LearningRateSweep::largest_score(bool qk_norm) const {
  double largest = 0;
  for (const SweepRun& run : runs)
    for (const auto& [step, score] : run.largest_score)
      if (run.qk_norm == qk_norm && !(score <= largest)) largest = score;
  return largest;
}

LearningRateSweep sweep_learning_rates(const SweepConfig& config, const data::FashionMnist& images,
                                       const std::function<void(const SweepRun&)>& done) {
  LearningRateSweep sweep;
  sweep.first_loss = std::log(double(kClasses));
  std::vector<std::shared_ptr<Classifier>> networks;
  for (int64_t s = 0; s < config.seeds; ++s)
    for (const double rate : config.learning_rates)
      for (const bool qk_norm : {false, true}) {
        SweepRun run;
        run.qk_norm = qk_norm, run.learning_rate = rate, run.seed = config.first_seed + s;
        sweep.runs.push_back(run);
        networks.push_back(new_classifier(config, qk_norm, run.seed));
      }
  std::mutex mutex;
  two_at_a_time(sweep.runs.size(), [&](size_t mine) {
    train_classifier(*networks[mine], config, images.train, sweep.runs[mine]);
    test_classifier(*networks[mine], images.test, sweep.runs[mine]);
    networks[mine].reset();
    const std::lock_guard lock(mutex);
    if (done) done(sweep.runs[mine]);
  });
  return sweep;
}

ActivationTemperature temperature_of_activations(const SweepConfig& config, const data::FashionMnist& images) {
  const auto network = new_classifier(config, /*qk_norm=*/false, config.first_seed);
  SweepRun run;
  run.learning_rate = config.learning_rates.front(), run.seed = config.first_seed;
  {
    const OneThread one_thread;
    train_classifier(*network, config, images.train, run);
  }
  torch::NoGradGuard no_grad;
  network->set_capture(true);
  network->forward(images.test.images.slice(0, 0, 32));
  nn::QkNorm norm(nn::QkNormOptions(config.width / config.heads).affine(false).epsilon(0));
  ActivationTemperature t;
  for (const auto& block : network->blocks) {
    const auto [q, k] = block.attention->queries_and_keys();  // [B,H,N,C]
    const auto [nq, nk] = norm(q, k);
    const auto scores = norm->scale() * torch::matmul(nq, nk.transpose(-1, -2));
    const auto centred = torch::matmul(q - q.mean(-1, true), (k - k.mean(-1, true)).transpose(-1, -2));
    const auto temperature = norm->implicit_temperature(q, k);
    const auto difference = (scores - norm->scale() * centred / temperature).abs().max() * norm->scale();
    t.identity = std::max(t.identity, difference.item<double>());
    const auto mean = temperature.mean({0, 2, 3});
    for (int64_t h = 0; h < mean.size(0); ++h) t.temperatures.push_back(mean[h].item<double>());
  }
  return t;
}

}  // namespace fovea::recipes
