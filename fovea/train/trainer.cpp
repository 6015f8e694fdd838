#include "fovea/train/trainer.h"

#include <ATen/autocast_mode.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <new>

#include "fovea/core/progress.h"
#include "fovea/core/rng.h"
#include "fovea/io/config.h"
#include "fovea/train/bad_layer.h"
#include "fovea/train/csv_log.h"
#include "fovea/train/event_file.h"
#include "fovea/train/stop_signal.h"
#include "fovea/train/tensor_map.h"

namespace fovea::train {
namespace {

constexpr uint32_t kTorchStream = 0x70726368;  // separates dropout from the random numbers of the data

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// bf16 autocast on the CPU while it lives.
class Autocast {
 public:
  explicit Autocast(bool enabled)
      : was_enabled_(at::autocast::is_autocast_enabled(at::kCPU)),
        was_type_(at::autocast::get_autocast_dtype(at::kCPU)) {
    at::autocast::set_autocast_enabled(at::kCPU, enabled);
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    at::autocast::increment_nesting();
  }
  ~Autocast() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, was_enabled_);
    at::autocast::set_autocast_dtype(at::kCPU, was_type_);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  bool was_enabled_;
  at::ScalarType was_type_;
};

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& w : words) text += (text.empty() ? "" : ", ") + w;
  return text;
}

/// " (batch case-1, case-2)", or nothing when the batch has no names.
std::string in_batch(const std::vector<std::string>& ids) { return ids.empty() ? "" : " (batch " + join(ids) + ")"; }

std::vector<NamedParameter> trainable_parameters(const torch::nn::Module& network) {
  std::vector<NamedParameter> list;
  for (const auto& item : network.named_parameters()) {
    if (item.value().requires_grad()) list.push_back({item.key(), item.value()});
  }
  if (list.empty()) throw ArgumentError("train: the network has no parameter that requires a gradient");
  return list;
}

/// Buffers that a forward pass may change (running statistics, counters), kept so that a bad step leaves no trace.
class BufferGuard {
 public:
  explicit BufferGuard(const torch::nn::Module& network) {
    for (const auto& item : network.named_buffers()) {
      if (item.value().is_floating_point() || item.value().numel() == 1) buffers_.push_back(item.value());
    }
    for (const torch::Tensor& b : buffers_) copies_.push_back(b.clone());
  }
  void keep() {
    for (size_t i = 0; i < buffers_.size(); ++i) copies_[i].copy_(buffers_[i]);
  }
  void restore() {
    const torch::NoGradGuard no_grad;
    for (size_t i = 0; i < buffers_.size(); ++i) buffers_[i].copy_(copies_[i]);
  }

 private:
  std::vector<torch::Tensor> buffers_, copies_;
};

io::Json metrics_json(const Metrics& metrics) {
  io::Json json = io::Json::object();
  for (const auto& [name, value] : metrics)
    json[name] = std::isfinite(value) ? io::Json(value) : io::Json(number_text(value));
  return json;
}

Metrics metrics_from(const io::Json& json) {
  Metrics metrics;
  for (const auto& [name, value] : json.items()) metrics[name] = value.is_number() ? value.get<double>() : NAN;
  return metrics;
}

/// "steps: 100 -> 200" for every value that differs.
void add_differences(const io::Json& was, const io::Json& is, const std::string& where, std::vector<std::string>& out) {
  for (const auto& [key, value] : is.items()) {
    const auto old = was.find(key);
    if (old != was.end() && *old == value) continue;
    if (old != was.end() && value.is_object() && old->is_object()) {
      add_differences(*old, value, where + key + ".", out);
    } else {
      out.push_back(where + key + ": " + (old == was.end() ? "absent" : old->dump()) + " -> " + value.dump());
    }
  }
}

}  // namespace

void TrainConfig::validate() const {
  const auto require = [](bool ok, const char* name, auto value, const char* rule) {
    if (!ok) throw ArgumentError(std::string("train: ") + name + " is " + std::to_string(value) + ", expected " + rule);
  };
  if (steps == 0 && max_time_s == 0)
    throw ArgumentError(
        "train: steps and max_time_s are both 0, expected one of them; set train.steps or train.max_time_s");
  require(steps >= 0, "steps", steps, ">= 0");
  require(max_time_s >= 0, "max_time_s", max_time_s, ">= 0");
  require(steps_per_epoch > 0, "steps_per_epoch", steps_per_epoch, "> 0");
  require(batch_size > 0, "batch_size", batch_size, "> 0");
  require(accumulate > 0, "accumulate", accumulate, "> 0");
  require(clip_norm >= 0, "clip_norm", clip_norm, ">= 0");
  require(average_decay >= 0 && average_decay < 1, "average_decay", average_decay, "in [0, 1)");
  require(validate_every >= 0, "validate_every", validate_every, ">= 0");
  require(patience >= 0, "patience", patience, ">= 0");
  require(checkpoint_every >= 0, "checkpoint_every", checkpoint_every, ">= 0");
  require(max_bad_steps > 0, "max_bad_steps", max_bad_steps, "> 0");
  optimizer.validate();
  schedule.validate();
}

struct Trainer::State {
  torch::nn::Module& network;
  TrainConfig config;
  RunFolder& folder;
  std::string resume_command;
  CheckpointFolder checkpoints;
  AdamW optimizer;
  WeightAverage average;

  // What a checkpoint holds besides tensors.
  int64_t step = 0, skipped = 0, bad_in_a_row = 0, validated_step = -1, without_improvement = 0;
  std::optional<int64_t> best_step;
  double best_value = NAN, last_loss = NAN;
  Metrics best_metrics, last_metrics;
  uint64_t log_bytes = 0, validation_bytes = 0, timing_bytes = 0;
  double seconds_before = 0;

  // Of this run.
  bool resumed = false;
  int64_t saved_step = -1;
  double start_s = 0;
  std::vector<std::string> bad_ids;
  std::unique_ptr<CsvLog> log, timing, validation_log;
  std::unique_ptr<EventFile> events;

  State(torch::nn::Module& n, const TrainConfig& c, RunFolder& f, std::string command)
      : network(n),
        config(c),
        folder(f),
        resume_command(std::move(command)),
        checkpoints(f.checkpoints()),
        optimizer(trainable_parameters(n), c.optimizer),
        average(optimizer.parameters(), c.average_decay) {
    config.validate();
  }

  double seconds() const { return seconds_before + (now_s() - start_s); }

  /// Share of the training that is done, in [0, 1].
  double fraction() const {
    const double by_steps = config.steps > 0 ? double(step) / double(config.steps) : 0;
    const double by_time = config.max_time_s > 0 ? seconds() / config.max_time_s : 0;
    return std::min(1.0, std::max(by_steps, by_time));
  }

  double learning_rate() const {
    const double factor = config.max_time_s > 0 ? schedule_factor_at_fraction(config.schedule, fraction())
                                                : schedule_factor_at_step(config.schedule, step, config.steps);
    return config.optimizer.learning_rate * factor;
  }

  bool epoch_is_over() const { return step > 0 && step % config.steps_per_epoch == 0; }
  bool validation_is_due() const {
    return epoch_is_over() && config.validate_every > 0 && step / config.steps_per_epoch % config.validate_every == 0;
  }
  bool checkpoint_is_due() const {
    return validated_step == step ||
           (config.checkpoint_every > 0 ? step % config.checkpoint_every == 0 : epoch_is_over());
  }

  // ---- checkpoints

  io::Json state_json() const {
    return {{"step", step},
            {"epoch", step / config.steps_per_epoch},
            {"index", step % config.steps_per_epoch * config.accumulate},
            {"optimizer_updates", optimizer.updates()},
            {"skipped_steps", skipped},
            {"bad_in_a_row", bad_in_a_row},
            {"last_loss", number_text(last_loss)},
            {"validated_step", validated_step},
            {"without_improvement", without_improvement},
            {"best_step", best_step ? io::Json(*best_step) : io::Json(nullptr)},
            {"best_value", number_text(best_value)},
            {"best_metrics", metrics_json(best_metrics)},
            {"last_metrics", metrics_json(last_metrics)},
            {"log_bytes", log->bytes()},
            {"validation_bytes", validation_log ? validation_log->bytes() : 0},
            {"config", io::to_json(config)}};
  }

  /// The first tensor of a checkpoint that holds NaN or infinity, or "".
  std::string first_bad_tensor() {
    std::vector<NamedParameter> all = optimizer.parameters();
    const size_t n = all.size();
    for (const auto& item : network.named_buffers()) {
      if (item.value().is_floating_point()) all.push_back({item.key(), item.value()});
    }
    for (size_t i = 0; i < n; ++i) {
      all.push_back({"first moment of " + all[i].name, optimizer.first_moments()[i]});
      all.push_back({"second moment of " + all[i].name, optimizer.second_moments()[i]});
      if (average.enabled()) all.push_back({"average of " + all[i].name, average.values()[i]});
    }
    return first_bad_parameter(all);
  }

  void save() {
    if (const std::string name = first_bad_tensor(); !name.empty()) {
      throw TrainingDiverged("training: " + name + " is not finite at step " + std::to_string(step) +
                             "; nothing was saved, the last checkpoint is good");
    }
    log->sync(), timing->sync();
    if (validation_log) validation_log->sync();
    events->flush();
    Checkpoint c;
    c.step = step;
    c.weights = module_state(network);
    const auto& parameters = optimizer.parameters();
    for (size_t i = 0; i < parameters.size(); ++i) {
      c.optimizer["m." + parameters[i].name] = to_tensor_data(optimizer.first_moments()[i]);
      c.optimizer["v." + parameters[i].name] = to_tensor_data(optimizer.second_moments()[i]);
      if (average.enabled()) c.average[parameters[i].name] = to_tensor_data(average.values()[i]);
    }
    c.state = state_json();
    c.timing = {{"seconds", seconds()}, {"timing_bytes", timing->bytes()}};
    checkpoints.save(c, best_step);
    saved_step = step;
  }

  /// Weights, moments and average of a checkpoint; the position stays.
  void take_tensors(const Checkpoint& c) {
    const std::string where = checkpoints.path_of(c.step).string();
    load_module_state(network, c.weights, where + "/weights.safetensors");
    const torch::NoGradGuard no_grad;
    const auto copy = [&](const io::TensorMap& from, const std::string& name, torch::Tensor& to, const char* file) {
      const auto found = from.find(name);
      if (found == from.end() || torch::IntArrayRef(found->second.shape) != to.sizes()) {
        throw ArgumentError(where + "/" + file + ": tensor " + name +
                            " is missing or of another shape; is it of another network?");
      }
      to.copy_(to_tensor(found->second));
    };
    const auto& parameters = optimizer.parameters();
    for (size_t i = 0; i < parameters.size(); ++i) {
      copy(c.optimizer, "m." + parameters[i].name, optimizer.first_moments()[i], "optimizer.safetensors");
      copy(c.optimizer, "v." + parameters[i].name, optimizer.second_moments()[i], "optimizer.safetensors");
      // A run without an average may be resumed with one: it then starts from the weights.
      if (!average.enabled()) continue;
      if (c.average.empty()) {
        average.values()[i].copy_(parameters[i].value);
      } else {
        copy(c.average, parameters[i].name, average.values()[i], "average.safetensors");
      }
    }
    optimizer.set_updates(c.state.at("optimizer_updates").get<int64_t>());
  }

  bool resume() {
    const std::optional<Checkpoint> c = checkpoints.load_latest();
    if (!c) return false;
    take_tensors(*c);
    const auto number = [&](const char* key) { return c->state.at(key).get<int64_t>(); };
    const auto real = [&](const char* key) {
      const std::string text = c->state.at(key).get<std::string>();
      return text == "nan" ? NAN : std::stod(text);
    };
    step = saved_step = number("step");
    skipped = number("skipped_steps"), bad_in_a_row = number("bad_in_a_row");
    validated_step = number("validated_step"), without_improvement = number("without_improvement");
    best_step = c->state.at("best_step").is_null() ? std::nullopt : std::optional(number("best_step"));
    best_value = real("best_value"), last_loss = real("last_loss");
    best_metrics = metrics_from(c->state.at("best_metrics")), last_metrics = metrics_from(c->state.at("last_metrics"));
    log_bytes = uint64_t(number("log_bytes")), validation_bytes = uint64_t(number("validation_bytes"));
    timing_bytes = c->timing.at("timing_bytes").get<uint64_t>(), seconds_before = c->timing.at("seconds").get<double>();
    std::vector<std::string> differences;
    add_differences(c->state.at("config"), io::to_json(config), "", differences);
    if (!differences.empty()) print_line("note: resumed with another config: " + join(differences));
    return resumed = true;
  }

  // ---- one step

  struct StepOutcome {
    bool interrupted = false;
    double loss = 0, gradient_norm = 0, learning_rate = 0;
    std::string problem;  // why the step was skipped, or ""
    std::vector<std::string> ids;
  };

  /// Gradients of all batches of a step. Says in `outcome` why it gave up, if so.
  void accumulate_gradients(const BatchSource& source, const LossFunction& loss_of, StepOutcome& outcome,
                            Batch& batch) {
    const int64_t epoch = step / config.steps_per_epoch, first = step % config.steps_per_epoch * config.accumulate;
    for (int64_t a = 0; a < config.accumulate; ++a) {
      try {
        batch = source(epoch, first + a);
      } catch (const Error& error) {
        if (config.on_bad_batch == OnBadBatch::kStop || error.code() != ExitCode::kBadInput) throw;
        outcome.problem = std::string("the batch cannot be read: ") + error.what();
        outcome.loss = NAN;
        return;
      }
      outcome.ids.insert(outcome.ids.end(), batch.ids.begin(), batch.ids.end());
      seed_torch(a);
      const torch::Tensor loss = forward(loss_of, batch);
      const double value = loss.item<double>();
      outcome.loss += value / double(config.accumulate);
      if (stop_requested()) return void(outcome.interrupted = true);
      if (!std::isfinite(value)) return void(outcome.problem = "the loss is not finite");
      loss.backward();
      if (stop_requested()) return void(outcome.interrupted = true);
    }
    outcome.gradient_norm = optimizer.gradient_norm() / double(config.accumulate);
    if (!std::isfinite(outcome.gradient_norm)) {
      outcome.problem = "a gradient is not finite";
    } else if (!first_bad_parameter(optimizer.parameters()).empty()) {
      outcome.problem = "a weight is not finite";  // and the loss does not show it, as behind a relu
    }
  }

  void seed_torch(int64_t batch_of_step) const {
    torch::manual_seed(Rng(config.seed, uint32_t(step), uint32_t(batch_of_step), kTorchStream).next_u64());
  }

  torch::Tensor forward(const LossFunction& loss_of, const Batch& batch) const {
    const Autocast autocast(config.precision == Precision::kBF16);
    torch::Tensor loss = loss_of(batch);
    if (loss.numel() != 1)
      throw ArgumentError("train: the loss has " + std::to_string(loss.numel()) + " values, expected one");
    return loss;
  }

  StepOutcome take_step(const BatchSource& source, const LossFunction& loss_of, BufferGuard& buffers) {
    StepOutcome outcome;
    Batch batch;
    outcome.learning_rate = learning_rate();
    buffers.keep();
    try {
      accumulate_gradients(source, loss_of, outcome, batch);
    } catch (const std::bad_alloc&) {
      throw out_of_memory(outcome);
    } catch (const c10::Error& error) {
      if (std::string_view(error.what_without_backtrace()).find("DefaultCPUAllocator") == std::string_view::npos) throw;
      throw out_of_memory(outcome);
    }
    if (outcome.interrupted || !outcome.problem.empty()) {
      optimizer.zero_grad();
      buffers.restore();
      if (outcome.interrupted) return outcome;
      handle_bad_step(outcome, batch, loss_of, buffers);
    } else {
      const double clip = config.clip_norm > 0 && outcome.gradient_norm > config.clip_norm
                              ? config.clip_norm / outcome.gradient_norm
                              : 1;
      optimizer.step(outcome.learning_rate, clip / double(config.accumulate));
      optimizer.zero_grad();
      average.update(optimizer.updates());
      bad_in_a_row = 0;
      bad_ids.clear();
      last_loss = outcome.loss;
    }
    ++step;
    return outcome;
  }

  std::string what_is_saved() const {
    return saved_step >= 0 ? "the checkpoint of step " + std::to_string(saved_step) + " is good"
                           : "there is no checkpoint yet";
  }

  ResourceError out_of_memory(const StepOutcome& outcome) const {
    return ResourceError("training: step " + std::to_string(step + 1) + " needs more memory than there is" +
                         in_batch(outcome.ids) + "; try a smaller patch or batch_size; " + what_is_saved());
  }

  void handle_bad_step(const StepOutcome& outcome, const Batch& batch, const LossFunction& loss_of,
                       BufferGuard& buffers) {
    ++skipped, ++bad_in_a_row;
    bad_ids.insert(bad_ids.end(), outcome.ids.begin(), outcome.ids.end());
    print_line("warning: step " + std::to_string(step + 1) + " skipped: " + outcome.problem + in_batch(outcome.ids));
    const std::string bad_weight = first_bad_parameter(optimizer.parameters());
    if (bad_in_a_row >= config.max_bad_steps || (!bad_weight.empty() && checkpoints.steps().empty())) {
      std::string cause = outcome.problem;
      if (batch.image.defined()) {
        seed_torch(0);
        cause += "; first bad: " + first_bad_layer(optimizer.parameters(), [&] { return forward(loss_of, batch); });
        buffers.restore();
      }
      throw TrainingDiverged("training stopped at step " + std::to_string(step + 1) + " after " +
                             std::to_string(bad_in_a_row) + " bad steps in a row: " + cause + "; batches " +
                             join(bad_ids) + "; " + what_is_saved());
    }
    if (bad_weight.empty()) return;
    const std::optional<Checkpoint> c = checkpoints.load_latest();
    take_tensors(*c);
    buffers.keep();
    print_line("warning: weight " + bad_weight + " is not finite; weights and optimizer of step " +
               std::to_string(c->step) + " taken back");
  }

  // ---- the run

  void open_logs() {
    log = std::make_unique<CsvLog>(
        folder.path() / "log.csv",
        std::vector<std::string>{"step", "epoch", "loss", "learning_rate", "gradient_norm", "skipped"}, log_bytes);
    timing = std::make_unique<CsvLog>(folder.path() / "timing.csv", std::vector<std::string>{"step", "seconds"},
                                      timing_bytes);
    // A killed run may have left events that this one writes again.
    events = std::make_unique<EventFile>(folder.path(), step + 1);
    if (!resumed) std::filesystem::remove(folder.path() / "validation.csv");
  }

  void log_step(const StepOutcome& o) {
    const double bad = o.problem.empty() ? 0 : 1, s = double(step);
    log->add_row({s, double((step - 1) / config.steps_per_epoch), o.loss, o.learning_rate, o.gradient_norm, bad});
    timing->add_row({s, seconds()});
    events->add_scalar("train/loss", step, o.loss);
    events->add_scalar("train/learning_rate", step, o.learning_rate);
    events->add_scalar("train/gradient_norm", step, o.gradient_norm);
    events->flush();
  }

  bool is_better(double value) const {
    if (!std::isfinite(value)) return false;
    if (!best_step) return true;
    return config.best_is == BestIs::kHighest ? value > best_value : value < best_value;
  }

  /// False if it was interrupted: then it counts as not done.
  bool validate(const Validation& validation) {
    Metrics metrics;
    {
      const AveragedWeights averaged(average);
      const torch::NoGradGuard no_grad;
      network.eval();
      seed_torch(-1);
      metrics = validation();
      network.train();
    }
    if (stop_requested()) return false;
    const auto deciding = metrics.find(config.best_metric);
    if (deciding == metrics.end()) {
      std::vector<std::string> names;
      for (const auto& item : metrics) names.push_back(item.first);
      throw ArgumentError("train: best_metric is " + config.best_metric + ", but validation gives " + join(names));
    }
    validated_step = step;
    last_metrics = metrics;
    if (is_better(deciding->second)) {
      best_value = deciding->second, best_step = step, best_metrics = metrics, without_improvement = 0;
    } else {
      ++without_improvement;
    }
    std::vector<std::string> columns{"step", "epoch", "best"};
    std::vector<double> row{double(step), double(step / config.steps_per_epoch), best_step == step ? 1.0 : 0.0};
    for (const auto& [name, value] : metrics) {
      columns.push_back(name), row.push_back(value);
      events->add_scalar("validation/" + name, step, value);
    }
    if (!validation_log)
      validation_log = std::make_unique<CsvLog>(folder.path() / "validation.csv", columns, validation_bytes);
    validation_log->add_row(row);
    return true;
  }

  std::optional<StopReason> reason_to_stop(double last_step_s) const {
    if (config.steps > 0 && step >= config.steps) return StopReason::kFinished;
    // A step that would end more than half of it behind the limit is not begun.
    if (config.max_time_s > 0 && seconds() + 0.5 * last_step_s >= config.max_time_s) return StopReason::kTimeUsed;
    if (config.patience > 0 && without_improvement >= config.patience) return StopReason::kNoImprovement;
    return std::nullopt;
  }

  TrainResult result(StopReason reason) const {
    TrainResult r;
    r.reason = reason, r.step = step, r.skipped_steps = skipped, r.seconds = seconds(), r.last_loss = last_loss;
    r.last_metrics = last_metrics, r.best_step = best_step, r.best_metrics = best_metrics;
    return r;
  }

  TrainResult interrupted() {
    if (step > 0 && saved_step != step) save();
    print_line("stopped at step " + std::to_string(step) +
               (config.steps > 0 ? " of " + std::to_string(config.steps) : "") +
               (step > 0 ? ", everything is saved" : ", nothing to save yet") +
               (resume_command.empty() ? "" : "; resume with: " + resume_command));
    return result(StopReason::kInterrupted);
  }

  std::string note(const StepOutcome& o) const {
    char text[96];
    std::snprintf(text, sizeof text, "loss %.4f lr %.2g", o.loss, o.learning_rate);
    std::string line = text;
    if (best_step)
      std::snprintf(text, sizeof text, " best %s %.4f", config.best_metric.c_str(), best_value), line += text;
    return line;
  }

  TrainResult run(const BatchSource& source, const LossFunction& loss_of, const Validation& validation) {
    if (!resumed && !checkpoints.steps().empty()) {
      throw ArgumentError(folder.path().string() +
                          ": holds checkpoints of an earlier training; resume it or choose another run name");
    }
    const StopSignal signals;
    start_s = now_s();
    open_logs();
    BufferGuard buffers(network);
    network.train();
    optimizer.zero_grad();
    if (validation && validation_bytes > 0) {
      std::vector<std::string> columns{"step", "epoch", "best"};
      for (const auto& item : last_metrics) columns.push_back(item.first);
      validation_log = std::make_unique<CsvLog>(folder.path() / "validation.csv", columns, validation_bytes);
    }
    ProgressOptions options;
    options.unit = "step";
    Progress progress("train", config.steps, options);
    progress.resume_at(step);
    double last_step_s = 0;
    while (true) {
      const bool last = reason_to_stop(last_step_s).has_value();
      if (validation && step > 0 && validated_step != step && (last || validation_is_due()) && !validate(validation))
        return interrupted();
      const std::optional<StopReason> stop =
          reason_to_stop(last_step_s);  // validation may have used up time or patience
      if (step > 0 && saved_step != step && (stop || checkpoint_is_due())) save();
      if (stop) return finish(*stop);
      if (stop_requested()) return interrupted();
      const double begin_s = now_s();
      const StepOutcome outcome = take_step(source, loss_of, buffers);
      if (outcome.interrupted) return interrupted();
      last_step_s = now_s() - begin_s;
      log_step(outcome);
      if (config.max_time_s > 0) progress.set_fraction(fraction());
      progress.set_note(note(outcome));
      progress.advance();
    }
  }

  TrainResult finish(StopReason reason) {
    const TrainResult r = result(reason);
    static constexpr const char* kReasons[] = {"finished", "time used", "no improvement", "interrupted"};
    folder.write_metrics({{"reason", kReasons[int(reason)]},
                          {"steps", r.step},
                          {"skipped_steps", r.skipped_steps},
                          {"seconds", r.seconds},
                          {"last_loss", number_text(r.last_loss)},
                          {"last", metrics_json(r.last_metrics)},
                          {"best_step", r.best_step ? io::Json(*r.best_step) : io::Json(nullptr)},
                          {"best", metrics_json(r.best_metrics)}});
    if (r.skipped_steps > 0)
      print_line("training: " + std::to_string(r.skipped_steps) + " of " + std::to_string(r.step) +
                 " steps were skipped");
    return r;
  }

  void use_best_weights() {
    const int64_t wanted = best_step ? *best_step : saved_step;
    if (wanted < 0) throw ArgumentError(folder.path().string() + ": there is no checkpoint to take weights from");
    const Checkpoint c = checkpoints.load(wanted);
    io::TensorMap weights = c.weights;
    for (const auto& [name, tensor] : c.average) weights[name] = tensor;
    load_module_state(network, weights, checkpoints.path_of(wanted).string());
  }
};

Trainer::Trainer(torch::nn::Module& network, const TrainConfig& config, RunFolder& folder, std::string resume_command)
    : state_(std::make_unique<State>(network, config, folder, std::move(resume_command))) {}
Trainer::~Trainer() = default;
bool Trainer::resume() { return state_->resume(); }
TrainResult Trainer::run(const BatchSource& source, const LossFunction& loss, const Validation& validation) {
  return state_->run(source, loss, validation);
}
void Trainer::use_best_weights() { state_->use_best_weights(); }
int64_t Trainer::step() const { return state_->step; }

}  // namespace fovea::train
