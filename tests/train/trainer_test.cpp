#include "fovea/train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <torch/torch.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>
#include <thread>

#include "fovea/core/error.h"
#include "fovea/io/config.h"
#include "fovea/io/sha256.h"
#include "fovea/train/stop_signal.h"
#include "fovea/train/tensor_map.h"
#include "tests/train/probe/tiny_task.h"

namespace fovea::train {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// A folder in memory where there is one: tests flush many small files.
fs::path scratch_root() {
  return ::access("/dev/shm", W_OK) == 0 ? fs::path("/dev/shm") : fs::path(testing::TempDir());
}

std::string content_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A training of the tiny network in a folder of its own, with a hook into its loss.
struct TrainerTest : testing::Test {
  fs::path root = scratch_root() / ("fovea_trainer_" + std::to_string(::getpid()));
  int threads = torch::get_num_threads();
  TrainConfig config = tiny_config();
  std::function<torch::Tensor(TinyNet&, const Batch&)> loss = tiny_loss;
  BatchSource source = [this](int64_t epoch, int64_t index) {
    return tiny_batch(config.seed, epoch, index, config.batch_size);
  };
  std::function<Metrics(TinyNet&)> validation = [this](TinyNet& net) { return tiny_validation(net, config.seed); };
  TinyNet net = nullptr;

  TrainerTest() {
    fs::remove_all(root);
    torch::set_num_threads(1);
    config.steps = 12, config.steps_per_epoch = 4, config.checkpoint_every = 0;
  }
  ~TrainerTest() override {
    fs::remove_all(root);
    torch::set_num_threads(threads);
  }
  TrainResult train(const std::string& name, bool resume = false) {
    RunFolder folder(root / name);
    net = make_tiny_net();
    Trainer trainer(*net, config, folder, "fovea train --resume");
    if (resume) trainer.resume();
    return trainer.run(
        source, [&](const Batch& b) { return loss(net, b); }, [&] { return validation(net); });
  }
  std::string weights_of(const std::string& name, int64_t step) {
    return io::sha256_file(CheckpointFolder(root / name / "checkpoints").path_of(step) / "weights.safetensors");
  }
};

template <class F>
std::string message_of(const F& f, ExitCode code) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  return "no error";
}

TEST_F(TrainerTest, OverfitsTwoSamples) {
  config.steps = 150, config.optimizer.learning_rate = 0.03, config.average_decay = 0, config.validate_every = 0;
  source = [](int64_t, int64_t) { return tiny_batch(7, 0, 0, 2); };
  double first = NAN;
  loss = [&](TinyNet& n, const Batch& b) {
    n->dropout->eval();
    torch::Tensor value = tiny_loss(n, b);
    if (std::isnan(first)) first = value.item<double>();
    return value;
  };
  const TrainResult result = train("a");
  EXPECT_GT(first, 1.0);
  EXPECT_LT(result.last_loss, 0.2);
}

TEST_F(TrainerTest, SameSeedGivesTheSameBitsAndAnotherOneDoesNot) {
  train("a"), train("b");
  EXPECT_EQ(weights_of("a", 12), weights_of("b", 12));
  EXPECT_EQ(content_of(root / "a/log.csv"), content_of(root / "b/log.csv"));
  config.seed = 2;
  train("c");
  EXPECT_NE(weights_of("a", 12), weights_of("c", 12));
}

TEST_F(TrainerTest, AverageOfTwoHalfBatchesIsTheGradientOfTheWholeBatch) {
  config.steps = 1, config.steps_per_epoch = 1, config.schedule.warmup = 0, config.average_decay = 0;
  loss = [](TinyNet& n, const Batch& b) {
    n->eval();  // no dropout, fixed statistics: batches do not interact
    return torch::nn::functional::cross_entropy(n->forward(b.image), b.label);
  };
  config.batch_size = 2, config.accumulate = 2;
  train("halves");
  const TinyNet halves = net;
  config.batch_size = 4, config.accumulate = 1;
  train("whole");
  const torch::Tensor a = halves->conv->weight, b = net->conv->weight;
  EXPECT_LT((a - b).abs().max().item<double>(), 1e-5);
  EXPECT_GT((a - make_tiny_net()->conv->weight).abs().max().item<double>(), 1e-3);
}

TEST_F(TrainerTest, ClippingShortensTheGradientThatIsUsedAndLogsTheWholeNorm) {
  // With one step of AdamW the first moment is (1 - beta1) times the gradient used.
  config.steps = 1, config.steps_per_epoch = 1, config.clip_norm = 1e-3;
  train("a");
  const Checkpoint c = CheckpointFolder(root / "a/checkpoints").load(1);
  double squares = 0;
  for (const auto& [name, tensor] : c.optimizer) {
    if (!name.starts_with("m.")) continue;
    const float* m = reinterpret_cast<const float*>(tensor.data.data());
    for (int64_t i = 0; i < tensor.size(); ++i) squares += std::pow(m[i] / (1 - config.optimizer.beta1), 2);
  }
  EXPECT_NEAR(std::sqrt(squares), 1e-3, 1e-8);
  EXPECT_THAT(content_of(root / "a/log.csv"), HasSubstr("step,epoch,loss,learning_rate,gradient_norm,skipped\n1,0,"));
}

TEST_F(TrainerTest, StoppedMidEpochAndResumedItEndsWithTheSameBytesAsUndisturbed) {
  for (const auto& [name, precision, accumulate] :
       {std::tuple{"f32", Precision::kF32, 1}, {"bf16", Precision::kBF16, 1}, {"acc", Precision::kF32, 3}}) {
    config.precision = precision, config.accumulate = accumulate;
    train(std::string(name) + "-whole");
    const std::string parts = std::string(name) + "-parts";
    for (int64_t until = 5; until <= 12; until += 7) {
      // A stop by signal, as Ctrl-C does it.
      loss = [&, calls = 0](TinyNet& n, const Batch& b) mutable {
        if (until < 12 && ++calls == until * accumulate) ::raise(SIGTERM);
        return tiny_loss(n, b);
      };
      const TrainResult r = train(parts, /*resume=*/true);
      EXPECT_EQ(r.reason, until < 12 ? StopReason::kInterrupted : StopReason::kFinished);
      EXPECT_EQ(r.step, until < 12 ? 4 : 12) << "the batch at hand is dropped";
    }
    loss = tiny_loss;
    for (const char* file : {"log.csv", "validation.csv", "checkpoints/step-12/weights.safetensors",
                             "checkpoints/step-12/optimizer.safetensors", "checkpoints/step-12/average.safetensors",
                             "checkpoints/step-12/state.json"}) {
      EXPECT_EQ(content_of(root / (std::string(name) + "-whole") / file), content_of(root / parts / file))
          << name << " " << file;
    }
  }
}

TEST_F(TrainerTest, ASignalDuringValidationDropsItAndResumeValidatesAgain) {
  train("whole");
  validation = [&](TinyNet& n) {
    ::raise(SIGINT);
    EXPECT_TRUE(stop_requested());
    return tiny_validation(n, 99);
  };
  EXPECT_EQ(train("parts").reason, StopReason::kInterrupted);
  validation = [&](TinyNet& n) { return tiny_validation(n, config.seed); };
  EXPECT_EQ(train("parts", true).reason, StopReason::kFinished);
  EXPECT_EQ(content_of(root / "whole/validation.csv"), content_of(root / "parts/validation.csv"));
  EXPECT_EQ(weights_of("whole", 12), weights_of("parts", 12));
}

TEST_F(TrainerTest, Bf16StaysCloseToF32AndKeepsWeightsInF32) {
  config.steps = 40, config.steps_per_epoch = 40;
  const double full = train("f32").last_metrics.at("loss");
  config.precision = Precision::kBF16;
  const double half = train("bf16").last_metrics.at("loss");
  EXPECT_EQ(net->conv->weight.scalar_type(), torch::kFloat);
  EXPECT_NE(full, half) << "bf16 was not in effect";
  EXPECT_NEAR(full, half, 0.05 * full);
}

TEST_F(TrainerTest, LastTwoAndTheBestCheckpointAreKeptAndTheBestIsPutBack) {
  config.steps = 20, config.average_decay = 0;
  int64_t round = 0;
  std::vector<torch::Tensor> weights;
  validation = [&](TinyNet& n) {
    weights.push_back(n->conv->weight.detach().clone());
    return Metrics{{"accuracy", ++round == 2 ? 0.9 : 0.5}};
  };
  RunFolder folder(root / "a");
  net = make_tiny_net();
  Trainer trainer(*net, config, folder);
  const TrainResult r = trainer.run(
      source, [&](const Batch& b) { return loss(net, b); }, [&] { return validation(net); });
  EXPECT_EQ(r.best_step, 8);
  EXPECT_EQ(CheckpointFolder(folder.checkpoints()).steps(), (std::vector<int64_t>{8, 16, 20}));
  trainer.use_best_weights();
  EXPECT_TRUE(torch::equal(net->conv->weight, weights[1]));
}

TEST_F(TrainerTest, ValidationAndTheResultUseTheAveragedWeights) {
  config.average_decay = 0.5;
  std::vector<torch::Tensor> seen;
  validation = [&](TinyNet& n) {
    EXPECT_FALSE(n->is_training());
    seen.push_back(n->conv->weight.detach().clone());
    return Metrics{{"accuracy", double(seen.size())}};
  };
  RunFolder folder(root / "a");
  net = make_tiny_net();
  Trainer trainer(*net, config, folder);
  trainer.run(
      source, [&](const Batch& b) { return loss(net, b); }, [&] { return validation(net); });
  EXPECT_TRUE(net->is_training());
  EXPECT_FALSE(torch::equal(net->conv->weight, seen.back()));
  trainer.use_best_weights();
  EXPECT_TRUE(torch::equal(net->conv->weight, seen.back()));
}

TEST_F(TrainerTest, NotFiniteLossInputOrGradientSkipsTheStepWithoutATraceAndLearningResumes) {
  config.steps = 24;
  for (const std::string what : {"loss", "input", "gradient", "infinite"}) {
    std::set<int64_t> bad{2, 3, 9, 17};
    int64_t call = -1;
    loss = [&](TinyNet& n, const Batch& b) {
      const bool now = bad.count(++call) > 0;
      Batch batch = b;
      if (now && what == "input") batch.image = b.image.clone(), batch.image[0][0][3][3][3] = NAN;
      torch::Tensor value = tiny_loss(n, batch);
      if (now && what == "loss") value = value * NAN;
      if (now && what == "infinite") value = value / 0.0;
      if (now && what == "gradient") value.register_hook([](torch::Tensor g) { return g * NAN; });
      return value;
    };
    const TrainResult r = train(what);
    EXPECT_EQ(r.skipped_steps, 4) << what;
    EXPECT_EQ(r.step, 24) << what;
    EXPECT_TRUE(std::isfinite(r.last_loss) && std::isfinite(r.last_metrics.at("loss"))) << what;
    EXPECT_TRUE(torch::isfinite(net->norm->running_mean).all().item<bool>())
        << what << ": running statistics were poisoned";
    const std::string log = content_of(root / what / "log.csv");
    EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 25) << what;
    // The same steps left out change nothing else: all four kinds end with the same bits.
    EXPECT_EQ(weights_of(what, 24), weights_of("loss", 24)) << what;
  }
}

/// The first tensor of a checkpoint on disk that holds NaN or infinity, or "".
std::string bad_tensor_of(const Checkpoint& c) {
  for (const io::TensorMap* part : {&c.weights, &c.optimizer, &c.average})
    for (const auto& [name, tensor] : *part)
      if (!torch::isfinite(to_tensor(tensor)).all().item<bool>()) return name;
  return "";
}

// Input, weight, gradient and loss, each NaN or infinite, at a random step of a training of its own.
TEST_F(TrainerTest, NaNOrInfinityAtARandomStepNeverReachesACheckpointOrTheBest) {
  const int injections = std::getenv("FOVEA_FULL") ? 100 : 16;
  config.steps = 16;
  int promoted = 0, learned_on = 0;
  for (int i = 0; i < injections; ++i) {
    const std::string place = std::array{"input", "weight", "gradient", "loss"}[size_t(i % 4)], name = "run-" + std::to_string(i);
    SCOPED_TRACE(place + ", run " + std::to_string(i));
    Rng rng(20, 0, uint32_t(i));
    const float bad = i / 4 % 3 == 0 ? INFINITY : i / 4 % 3 == 1 ? -INFINITY : NAN;
    // A weight that breaks before there is a checkpoint to go back to stops the training: another test.
    const int64_t at = place == "weight" ? 4 + int64_t(rng.below(12)) : int64_t(rng.below(16));
    int64_t call = 0;
    loss = [&](TinyNet& n, const Batch& b) {
      if (call++ != at) return tiny_loss(n, b);
      Batch batch = b;
      if (place == "input") batch.image = b.image.clone(), batch.image.view({-1})[int64_t(rng.below(uint64_t(batch.image.numel())))] = bad;
      if (place == "weight") {
        const torch::NoGradGuard no_grad;
        const std::vector<torch::Tensor> all = n->parameters();
        const torch::Tensor& chosen = all[rng.below(all.size())];
        chosen.view({-1})[int64_t(rng.below(uint64_t(chosen.numel())))] = bad;
      }
      torch::Tensor value = tiny_loss(n, batch);
      if (place == "gradient") value.register_hook([bad](torch::Tensor g) { return g * bad; });
      return place == "loss" ? value + bad : value;
    };
    const TrainResult r = train(name);
    EXPECT_EQ(r.skipped_steps, 1);
    EXPECT_EQ(r.step, 16);
    learned_on += std::isfinite(r.last_loss) && std::isfinite(r.last_metrics.at("loss"));
    const CheckpointFolder folder(root / name / "checkpoints");
    bool found = false;
    for (const int64_t step : folder.steps()) {
      const std::string tensor = bad_tensor_of(folder.load(step));
      EXPECT_EQ(tensor, "") << "in the checkpoint of step " << step;
      found |= !tensor.empty();
    }
    for (const auto& [metric, value] : r.best_metrics) found |= !std::isfinite(value);
    EXPECT_TRUE(r.best_step.has_value());
    promoted += found;
    fs::remove_all(root / name);
  }
  EXPECT_EQ(promoted, 0);
  EXPECT_EQ(learned_on, injections);
  std::printf("%d of %d injections promoted, learning went on in %d\n", promoted, injections, learned_on);
}

// What goes wrong between the last gradient and the save, be it a fault of memory, is not saved either.
TEST_F(TrainerTest, AWeightThatBreaksDuringValidationIsNotSaved) {
  validation = [](TinyNet& n) {
    const torch::NoGradGuard no_grad;
    n->head->bias[0] = NAN;
    return Metrics{{"accuracy", 1}};
  };
  config.average_decay = 0;
  EXPECT_THAT(message_of([&] { train("a"); }, ExitCode::kBug), HasSubstr("head.bias is not finite at step 4; nothing was saved"));
  EXPECT_TRUE(CheckpointFolder(root / "a/checkpoints").steps().empty());
}

TEST_F(TrainerTest, TenBadStepsInARowStopWithTheFirstBadLayerAndTheBatches) {
  loss = [](TinyNet& n, const Batch& b) {
    torch::Tensor x = torch::relu(n->norm(n->conv(b.image)));
    x = torch::log(n->head(x) - 1e6);  // NaN behind the head
    return x.sum();
  };
  const std::string line = message_of([&] { train("a"); }, ExitCode::kBug);
  EXPECT_THAT(line, HasSubstr("training stopped at step 10 after 10 bad steps in a row: the loss is not finite; first "
                              "bad: output of aten::log in layer head"));
  EXPECT_THAT(line, HasSubstr("case-0-0, case-0-1"));
  EXPECT_THAT(line, HasSubstr("case-2-3"));
  EXPECT_TRUE(CheckpointFolder(root / "a/checkpoints").steps().size() <= 2);
  for (const int64_t step : CheckpointFolder(root / "a/checkpoints").steps()) {
    EXPECT_EQ(step % 4, 0);
  }
}

TEST_F(TrainerTest, BadGradientNamesTheLayerWhereItBegan) {
  loss = [](TinyNet& n, const Batch& b) {
    torch::Tensor x = n->norm(n->conv(b.image));
    x = x + torch::sqrt(x.detach() * 0 + 0 * x);  // finite forward, gradient 0 * infinity
    return n->head(x).square().mean();
  };
  EXPECT_THAT(message_of([&] { train("a"); }, ExitCode::kBug),
              HasSubstr("a gradient is not finite; first bad: gradient of norm."));
}

TEST_F(TrainerTest, ANotFiniteWeightIsTakenBackFromTheLastCheckpoint) {
  int64_t call = 0;
  loss = [&](TinyNet& n, const Batch& b) {
    if (++call == 7) {
      const torch::NoGradGuard no_grad;
      n->qkv->bias[0] = NAN;
    }
    return tiny_loss(n, b);
  };
  const TrainResult r = train("a");
  EXPECT_EQ(r.step, 12);
  EXPECT_EQ(r.skipped_steps, 1);
  EXPECT_TRUE(torch::isfinite(net->qkv->bias).all().item<bool>());
}

TEST_F(TrainerTest, ANotFiniteWeightThatTheLossDoesNotShowIsTakenBackToo) {
  int64_t call = 0;
  loss = [&](TinyNet& n, const Batch& b) {
    if (++call == 7) {
      const torch::NoGradGuard no_grad;
      n->norm->bias[0] = -INFINITY;  // nothing of it behind the relu
    }
    return tiny_loss(n, b);
  };
  const TrainResult r = train("a");
  EXPECT_EQ(r.step, 12);
  EXPECT_EQ(r.skipped_steps, 1);
  EXPECT_TRUE(torch::isfinite(net->norm->bias).all().item<bool>());
}

TEST_F(TrainerTest, ANotFiniteWeightBeforeTheFirstCheckpointStopsAtOnceAndIsNamed) {
  loss = [](TinyNet& n, const Batch& b) {
    const torch::NoGradGuard no_grad;
    n->qkv->bias[0] = INFINITY;
    const torch::AutoGradMode grad(true);
    return tiny_loss(n, b);
  };
  EXPECT_THAT(message_of([&] { train("a"); }, ExitCode::kBug),
              HasSubstr("after 1 bad steps in a row: the loss is not finite; first bad: weight qkv.bias"));
}

TEST_F(TrainerTest, NotANumberIsNeverBest) {
  std::vector<double> values{NAN, 0.3, NAN};
  size_t round = 0;
  validation = [&](TinyNet&) { return Metrics{{"accuracy", values[round++]}}; };
  const TrainResult r = train("a");
  EXPECT_EQ(r.best_step, 8);
  EXPECT_EQ(r.best_metrics.at("accuracy"), 0.3);
  EXPECT_TRUE(std::isnan(r.last_metrics.at("accuracy")));
}

TEST_F(TrainerTest, LowestIsBestWhenTheConfigSaysSo) {
  config.best_is = BestIs::kLowest, config.best_metric = "loss";
  std::vector<double> values{0.5, 0.4, 0.6};
  size_t round = 0;
  validation = [&](TinyNet&) { return Metrics{{"loss", values[round++]}}; };
  EXPECT_EQ(train("a").best_step, 8);
}

TEST_F(TrainerTest, StopsWhenValidationNoLongerImproves) {
  config.steps = 100, config.patience = 2;
  std::vector<double> values{0.5, 0.6, 0.55, 0.6};
  size_t round = 0;
  validation = [&](TinyNet&) { return Metrics{{"accuracy", values.at(round++)}}; };
  const TrainResult r = train("a");
  EXPECT_EQ(r.reason, StopReason::kNoImprovement);
  EXPECT_EQ(r.step, 16);
}

TEST_F(TrainerTest, ATimeBudgetEndsTheRunAndCarriesTheLearningRateToItsEnd) {
  config.steps = 0, config.max_time_s = 0.5, config.validate_every = 0, config.schedule.warmup = 0;
  loss = [](TinyNet& n, const Batch& b) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return tiny_loss(n, b);
  };
  const TrainResult r = train("a");
  EXPECT_EQ(r.reason, StopReason::kTimeUsed);
  EXPECT_GT(r.step, 1);
  EXPECT_TRUE(fs::exists(root / "a/checkpoints" / ("step-" + std::to_string(r.step)) / "manifest.json"));
  const std::string log = content_of(root / "a/log.csv");
  const size_t last_row = log.rfind('\n', log.size() - 2) + 1;
  double step = 0, epoch = 0, value = 0, rate = 1;
  std::sscanf(log.c_str() + last_row, "%lf,%lf,%lf,%lf", &step, &epoch, &value, &rate);
  EXPECT_LT(rate, 0.3 * config.optimizer.learning_rate) << "the cosine follows the clock";
  EXPECT_LE(train("a", true).step, r.step + 1) << "the time of both runs counts together";
}

TEST_F(TrainerTest, AnUnreadableBatchStopsOrIsSkippedAndCounted) {
  const BatchSource good = source;
  source = [&](int64_t epoch, int64_t index) {
    if (epoch == 1 && index == 2) throw IoError("scan.nii.gz", "has 10 bytes, expected 100");
    return good(epoch, index);
  };
  EXPECT_EQ(message_of([&] { train("a"); }, ExitCode::kBadInput), "scan.nii.gz: has 10 bytes, expected 100");
  config.on_bad_batch = OnBadBatch::kSkip;
  EXPECT_EQ(train("b").skipped_steps, 1);
}

TEST_F(TrainerTest, AFolderWithCheckpointsIsNotOverwritten) {
  train("a");
  EXPECT_THAT(message_of([&] { train("a"); }, ExitCode::kBadInput),
              HasSubstr("holds checkpoints of an earlier training; resume it"));
}

TEST_F(TrainerTest, AFinishedRunCanBeExtended) {
  train("a");
  config.steps = 20;
  EXPECT_EQ(train("a", true).step, 20);
}

TEST_F(TrainerTest, CheckpointOfAnotherNetworkIsRefusedByName) {
  train("a");
  struct OtherImpl : torch::nn::Module {
    OtherImpl() { register_module("conv", torch::nn::Conv3d(torch::nn::Conv3dOptions(1, 5, 3))); }
  };
  OtherImpl other;
  RunFolder folder(root / "a");
  Trainer trainer(other, config, folder);
  EXPECT_THAT(message_of([&] { trainer.resume(); }, ExitCode::kBadInput),
              HasSubstr("tensor conv.weight has shape [6,1,3,3,3], expected [5,1,3,3,3]; is it of another network?"));
}

TEST_F(TrainerTest, AMissingBestMetricIsNamedWithThoseThereAre) {
  config.best_metric = "dice";
  EXPECT_EQ(message_of([&] { train("a"); }, ExitCode::kBadInput),
            "train: best_metric is dice, but validation gives accuracy, loss");
}

TEST_F(TrainerTest, RunningOutOfMemoryIsAResourceErrorThatSaysWhatToDo) {
  loss = [](TinyNet&, const Batch&) { return torch::empty({int64_t(1) << 50}).sum(); };
  EXPECT_THAT(message_of([&] { train("a"); }, ExitCode::kOutOfResource),
              HasSubstr("needs more memory than there is (batch case-0-0, case-0-1); try a smaller patch"));
}

TEST_F(TrainerTest, ConfigGoesThroughJsonAndMistakesAreNamed) {
  config.best_is = BestIs::kLowest, config.precision = Precision::kBF16;
  const auto back = io::from_json<TrainConfig>(io::to_json(config), "x");
  EXPECT_EQ(io::to_json(back), io::to_json(config));
  EXPECT_THAT(message_of([&] { TrainConfig{}.validate(); }, ExitCode::kBadInput),
              HasSubstr("steps and max_time_s are both 0"));
}

TEST_F(TrainerTest, TwoTrainingsCannotShareAFolder) {
  const RunFolder first(root / "a");
  EXPECT_THAT(message_of([&] { RunFolder second(root / "a"); }, ExitCode::kBadInput),
              HasSubstr("is in use by another training, process " + std::to_string(::getpid())));
}

TEST_F(TrainerTest, ManifestSaysWhatWasUsed) {
  const RunFolder folder(root / "a");
  std::ofstream(root / "scan.nii") << "abc";
  folder.write_manifest({7, {"fovea", "train", "it's here"}, {root / "scan.nii"}, {}});
  const io::Json manifest = io::read_json(root / "a/manifest.json");
  EXPECT_EQ(manifest["seed"], 7);
  EXPECT_EQ(manifest["command"], "fovea train 'it'\\''s here'");
  EXPECT_EQ(manifest["data"][0]["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(manifest["binary"][0]["sha256"].get<std::string>().size(), 64u);
}

}  // namespace
}  // namespace fovea::train
