#pragma once
#include <torch/nn/module.h>
#include <torch/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fovea/core/error.h"
#include "fovea/train/adamw.h"
#include "fovea/train/checkpoint.h"
#include "fovea/train/run_folder.h"
#include "fovea/train/schedule.h"
#include "fovea/train/weight_average.h"

namespace fovea::train {

enum class Precision { kF32, kBF16 };
inline auto config_names(Precision) {
  return std::array{std::pair{Precision::kF32, "f32"}, std::pair{Precision::kBF16, "bf16"}};
}

enum class BestIs { kHighest, kLowest };
inline auto config_names(BestIs) {
  return std::array{std::pair{BestIs::kHighest, "highest"}, std::pair{BestIs::kLowest, "lowest"}};
}

enum class OnBadBatch { kStop, kSkip };
inline auto config_names(OnBadBatch) {
  return std::array{std::pair{OnBadBatch::kStop, "stop"}, std::pair{OnBadBatch::kSkip, "skip"}};
}

struct TrainConfig {
  uint64_t seed = 1;
  int64_t steps = 0;
  double max_time_s = 0;
  int64_t steps_per_epoch = 100;
  int64_t batch_size = 2;
  int64_t accumulate = 1;
  AdamWConfig optimizer;
  ScheduleConfig schedule;
  double clip_norm = 12;
  Precision precision = Precision::kF32;
  double average_decay = 0;
  int64_t validate_every = 1;
  std::string best_metric = "dice";
  BestIs best_is = BestIs::kHighest;
  int64_t patience = 0;
  int64_t checkpoint_every = 0;
  OnBadBatch on_bad_batch = OnBadBatch::kStop;
  int64_t max_bad_steps = 10;

  template <class V>
  void visit(V& v) {
    v("seed", seed, "of data order, augmentation and dropout");
    v("steps", steps, "optimizer steps; 0 = until max_time_s");
    v("max_time_s", max_time_s,
      "seconds of training, validation within it included; 0 = no limit. The schedule then follows the clock, "
      "and two runs no longer take the same steps");
    v("steps_per_epoch", steps_per_epoch, "optimizer steps between visits of validation and checkpoint");
    v("batch_size", batch_size, "samples of a batch");
    v("accumulate", accumulate, "batches whose gradients are averaged for one step");
    v("optimizer", optimizer, "AdamW");
    v("schedule", schedule, "learning rate over the training");
    v("clip_norm", clip_norm, "gradients are shortened to this global norm; 0 = never");
    v("precision", precision, "f32, or bf16: matrix products and convolutions in bf16, weights and sums in f32");
    v("average_decay", average_decay,
      "running average of the weights, used for validation and as the result, e.g. 0.999; 0 = none");
    v("validate_every", validate_every, "epochs; 0 = only at the end");
    v("best_metric", best_metric, "validation metric that decides which checkpoint is best");
    v("best_is", best_is, "highest or lowest");
    v("patience", patience, "stop after so many validations without a better one; 0 = never");
    v("checkpoint_every", checkpoint_every, "steps; 0 = each epoch");
    v("on_bad_batch", on_bad_batch, "a batch that cannot be read: stop, or skip it with a warning and count it");
    v("max_bad_steps", max_bad_steps, "stop after so many not-finite steps in a row");
  }
  /// Errors  ArgumentError: neither steps nor max_time_s, or a value out of range.
  void validate() const;
};

/// One batch. `ids` names the samples in messages about them.
struct Batch {
  torch::Tensor image, label;
  std::vector<std::string> ids;
};

/// Batch number `index` of an epoch; index runs over steps_per_epoch * accumulate. The same (epoch, index) must give
/// the same batch for a resumed run to equal the undisturbed one. Called in order, from one thread.
using BatchSource = std::function<Batch(int64_t epoch, int64_t index)>;
/// The scalar loss of a batch; runs the network. Under bf16 it is called with autocast on.
using LossFunction = std::function<torch::Tensor(const Batch& batch)>;
using Metrics = std::map<std::string, double>;
/// Metrics on held-out data; called with the network in evaluation mode, the averaged weights in place, without
/// gradients. May return early (anything) when stop_requested().
using Validation = std::function<Metrics()>;

enum class StopReason { kFinished, kTimeUsed, kNoImprovement, kInterrupted };

struct TrainResult {
  StopReason reason = StopReason::kFinished;
  int64_t step = 0;
  int64_t skipped_steps = 0;
  double seconds = 0;    // of all runs together
  double last_loss = 0;  // of the last step that was not skipped
  Metrics last_metrics;
  std::optional<int64_t> best_step;
  Metrics best_metrics;
};

/// The network or its gradients stay not finite. Ends the program with exit code 1.
class TrainingDiverged : public Error {
 public:
  explicit TrainingDiverged(const std::string& line) : Error(ExitCode::kBug, line) {}
};

/// The training loop that all recipes share.
///   for each step: learning rate from the schedule · gradients of `accumulate` batches · not finite? skip and count ·
///   clip · AdamW · running average · log.csv, TensorBoard; each epoch: validation, checkpoint
/// A run that is killed at any moment and resumed ends with the same bits in weights, optimizer state, log.csv and
/// validation.csv as one that was not (without max_time_s); wall-clock figures go to timing.csv and timing.json alone.
/// torch's generator (dropout, drop path) is seeded anew for each batch from (seed, step, batch), so it has no state to
/// save. SIGINT and SIGTERM: the batch at hand is finished or dropped, a checkpoint is written, run() returns
/// kInterrupted.
class Trainer {
 public:
  /// `network` and `folder` must outlive the trainer. `resume_command` is what the line after an interruption says.
  Trainer(torch::nn::Module& network, const TrainConfig& config, RunFolder& folder, std::string resume_command = "");
  ~Trainer();

  /// Takes up the newest whole checkpoint of the folder; false if there is none. Call before run().
  /// Errors   ArgumentError when it is of another network; IoError when all checkpoints are damaged.
  bool resume();

  /// Trains to the end.
  /// Errors   ArgumentError: the folder holds checkpoints and resume() was not called, or validation lacks best_metric.
  ///          TrainingDiverged, ResourceError (disk, memory), and what source, loss and validation throw.
  TrainResult run(const BatchSource& source, const LossFunction& loss, const Validation& validation = {});

  /// Puts the best checkpoint's weights (averaged ones if there are) into the network; the last ones if no validation
  /// ran.
  void use_best_weights();

  int64_t step() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fovea::train
