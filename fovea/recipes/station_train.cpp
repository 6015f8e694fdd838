#include "fovea/recipes/station_train.h"

#include <algorithm>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/config.h"
#include "fovea/io/csv.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

namespace {
constexpr int64_t kFolds = 5, kLeastTestTimes = 2;
constexpr size_t kMostValidationTimes = 20;
constexpr uint32_t kBatchStream = 97;

void split_times(data::StationTable& table, const StationConfig& config, const fs::path& file) {
  const auto& times = table.times;
  if (config.test_from.empty())
    table.first_test = int64_t(times.size()) - std::max<int64_t>(kLeastTestTimes, int64_t(times.size()) / 5);
  else
    table.first_test = std::lower_bound(times.begin(), times.end(), config.test_from) - times.begin();
  if (table.first_test < 1 || table.first_test >= int64_t(times.size()))
    throw ArgumentError(file.string() + ": its times run from " + times.front() + " to " + times.back() +
                        ", so test_from=" + config.test_from + " leaves nothing to learn from or to test");
}

StationInputs inputs_of(const data::StationTable& table, const StationConfig& config) {
  StationInputs in;
  in.columns = config.columns, in.quantity = config.quantity, in.unit = config.unit, in.sources = table.sources;
  const auto known = table.values.slice(0, 0, table.first_test).isnan().logical_not();
  for (int64_t k = 0; k < table.covariates.size(2); ++k) {
    const auto x = table.covariates.slice(0, 0, table.first_test).select(2, k).masked_select(known).to(torch::kFloat64);
    in.mean.push_back(x.numel() ? x.mean().item<double>() : 0);
    in.deviation.push_back(x.numel() ? std::max(x.std(/*unbiased=*/false).item<double>(), 1e-9) : 1);
  }
  return in;
}

std::string model_card(const StationInputs& in, const StationReport& report, const train::TrainResult& training) {
  const LeftOutStations& s = report.scores;
  std::string card = "# " + in.told() + "\n\nAttention over stations, trained by Fovea: tells " + in.told() +
                     " where nobody measured, from the stations that did.\n\n";
  card += "- Learnt from " + std::to_string(report.training_stations) + " stations at " +
          std::to_string(report.training_times) + " times; " + std::to_string(training.step) + " steps\n";
  if (s.values > 0)
    card += "- RMSE of " + std::to_string(s.values) + " values left out at later times: " + std::to_string(s.fusion) +
            " (kriging " + std::to_string(s.kriging) + ")\n";
  return card + "\nIt knows the region and the season that it has learnt from, no other.\n";
}

io::Json metrics_json(const LeftOutStations& s) {
  const auto ratio = [](const LeftOutStations::Ratio& r) {
    return io::Json{{"value", r.value}, {"low", r.low}, {"high", r.high}};
  };
  return {
      {"times", s.times},
      {"values", s.values},
      {"rmse",
       {{"network", s.fusion},
        {"kriging", s.kriging},
        {"kriging_of_logarithms", s.log_kriging},
        {"kernel", s.kernel},
        {"inverse_distance", s.inverse_distance},
        {"mean_of_others", s.mean}}},
      {"nll", {{"network", s.fusion_nll}, {"kriging", s.kriging_nll}, {"kriging_of_logarithms", s.log_kriging_nll}}},
      {"covered_percent", s.covered},
      {"rmse_over_kriging", ratio(s.over_kriging)},
      {"nll_gain", ratio(s.nll_gain)}};
}

void write_left_out(const fs::path& file, const data::StationTable& table, const std::vector<LeftOutValue>& each) {
  std::string text = "time,station,value,mean,low,high,kriging\n";
  for (const LeftOutValue& v : each) {
    text += io::csv_cell(table.times[size_t(v.time)]) + "," + io::csv_cell(table.names[size_t(v.station)]);
    for (const double value : {v.value, v.mean, v.low, v.high, v.kriging}) text += "," + io::csv_number(value);
    text += "\n";
  }
  io::write_file(file, text);
}
}  // namespace

StationTrainResult train_stations(const fs::path& file, const StationConfig& config,
                                  const StationTrainOptions& options) {
  const io::Json resolved = io::to_json(config);
  train::require_new_or_same_run(options.run, resolved, options.resume);
  auto table = data::read_stations({file}, config.columns);
  split_times(table, config, file);
  StationModel model;
  model.inputs = inputs_of(table, config);
  model.inputs.standardise(table);
  const OneThread one_thread;  // small products gain nothing from threads that wait for each other
  const StationProblem problem = make_station_problem(table, config.scale, config.nearest);
  model.inputs.scaling = problem.scaling;
  auto fold_of = station_folds(int64_t(table.names.size()), kFolds, config.train.seed);
  if (options.fold && (*options.fold < 0 || *options.fold >= kFolds))
    throw ArgumentError("train: --fold " + std::to_string(*options.fold) + ", expected 0 to 4");
  std::vector<bool> kept;
  for (int64_t& fold : fold_of) {
    kept.push_back(!options.fold || fold != *options.fold);
    fold = options.fold && fold != *options.fold ? -1 : 0;
  }
  auto times = problem.train;
  std::vector<int64_t> validation;
  const auto last = size_t(double(times.size()) * config.validation_share);
  for (size_t i = 0, count = std::min(last, kMostValidationTimes); i < count; ++i)
    validation.push_back(times[times.size() - last + i * last / count]);
  times.resize(times.size() - last);
  if (std::none_of(times.begin(), times.end(),
                   [&](int64_t t) { return int64_t(present_stations(table, t, kept).size()) >= kLeastStations; }))
    throw ArgumentError(
        "train: no time has 5 stations to learn from; a smaller validation_share or --fold all leaves more");

  train::RunFolder folder(options.run);
  folder.write_config(resolved);
  folder.write_manifest({config.train.seed, options.command, {file}, {}});
  model.config =
      station_network_config(problem, {.channels = config.channels, .heads = config.heads, .layers = config.layers});
  Progress simulated("simulated fields", config.simulated_steps);
  // A resumed run takes these weights from its checkpoint.
  model.network = learn_simulated_fields(problem, model.config, options.resume ? 0 : config.simulated_steps,
                                         config.train.seed, [&] { simulated.advance(); });
  simulated.finish();
  for (auto& named : model.network->named_parameters())
    named.value().set_requires_grad(learns_from_measurements(named.key()));

  auto resume_command = options.command;
  if (!options.resume) resume_command.push_back("--resume");
  train::Trainer trainer(*model.network, config.train, folder, train::shell_line(resume_command));
  if (options.resume) trainer.resume();
  const train::BatchSource source = [&](int64_t epoch, int64_t index) {
    train::Batch batch;
    batch.label = torch::tensor({epoch, index}, torch::kLong);
    return batch;
  };
  const train::LossFunction loss = [&](const train::Batch& batch) {
    const int64_t epoch = batch.label[0].item<int64_t>(), index = batch.label[1].item<int64_t>();
    Rng rng(config.train.seed, uint32_t(epoch), uint32_t(index), kBatchStream);
    return station_loss(problem, model.network, times, kept, config.train.batch_size, rng).to(torch::kFloat32);
  };
  const train::Validation validate = [&] {
    double nll = 0, squared = 0, count = 0;
    for (const int64_t t : validation) {
      const auto here = present_stations(table, t, kept);
      if (int64_t(here.size()) < kLeastStations) continue;
      const auto batch = ask_stations(table, problem.scaling, t, here, here);
      const auto answer = answer_stations(problem.scaling, batch, model.network(batch.measured, batch.targets));
      nll += station_nll(problem.scaling, batch, answer).sum().item<double>(),
          squared += (answer.mean - batch.truth).square().sum().item<double>(), count += double(here.size());
    }
    return train::Metrics{{"nll", nll / count}, {"rmse", std::sqrt(squared / count)}};
  };
  StationTrainResult result;
  result.training = trainer.run(source, loss, validation.empty() ? train::Validation{} : validate);
  if (result.training.reason == train::StopReason::kInterrupted) return result;
  trainer.use_best_weights();
  model.network->eval();

  StationReport report{&table,
                       &config,
                       &model,
                       options.run,
                       options.fold.has_value(),
                       times.size(),
                       int64_t(std::count(kept.begin(), kept.end(), true)),
                       {},
                       {}};
  std::vector<models::StationFusion> networks{model.network};
  Progress scoring("stations left out", int64_t(problem.test.size()));
  report.scores = result.scores = score_left_out(
      problem, networks, fold_of, {config.kernel_km, 1, config.train.seed, &report.each, [&] { scoring.advance(); }});
  scoring.finish();
  if (report.scores.values > 0) {
    write_left_out(options.run / "predictions.csv", table, report.each);
    folder.write_metrics(metrics_json(report.scores));
  }
  model.save(options.run / "model", model_card(model.inputs, report, result.training));
  result.model = options.run / "model", result.report = options.run / "report.html";
  write_station_report(result.report, report);
  return result;
}

}  // namespace fovea::recipes
