#include <charconv>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/infer/memory_plan.h"
#include "fovea/io/config.h"
#include "fovea/recipes/patient_train.h"
#include "fovea/recipes/segment_train.h"
#include "fovea/recipes/slide_train.h"
#include "fovea/recipes/station_train.h"

namespace fovea::cli {

namespace {
namespace fs = std::filesystem;

struct TrainArguments {
  CommonOptions common;
  fs::path dataset, config, output, start;
  std::vector<std::string> overrides;
  std::string recipe = "auto", fold = "all", max_ram = "4G", max_time, augment, command_line;
  int64_t steps = 0;
  bool resume = false, print_config = false, pretrain = false;
  std::vector<std::string> argv;
};

// What --steps, --max-time, --seed and --set say of any recipe's config.
std::vector<std::string> overrides_of(const TrainArguments& a, const CLI::App& command) {
  std::vector<std::string> overrides;
  if (a.steps > 0) overrides.push_back("train.steps=" + std::to_string(a.steps));
  if (!a.max_time.empty()) overrides.push_back("train.max_time_s=" + std::to_string(parse_duration_s(a.max_time, "--max-time")));
  if (command.count("--seed")) overrides.push_back("train.seed=" + std::to_string(a.common.seed));
  if (a.pretrain) overrides.push_back("pretrain.ratio=0.75");
  if (!a.augment.empty()) overrides.push_back("augment=" + io::to_json(data::augment_preset(a.augment)).dump());
  overrides.insert(overrides.end(), a.overrides.begin(), a.overrides.end());
  return overrides;
}

std::optional<int64_t> fold_of(const TrainArguments& a) {
  if (a.fold == "all") return {};
  int64_t fold = 0;
  const auto [end, error] = std::from_chars(a.fold.data(), a.fold.data() + a.fold.size(), fold);
  if (error != std::errc() || end != a.fold.data() + a.fold.size()) throw ArgumentError("train: --fold " + a.fold + ", expected a number or all");
  return fold;
}

// Says what a run left; `metrics` are the ones that matter.
void print_result(const TrainArguments& a, const train::TrainResult& training, const fs::path& model, const fs::path& report, const nlohmann::ordered_json& metrics) {
  if (a.common.json) {
    std::printf("%s\n", nlohmann::ordered_json({{"run", a.output.string()}, {"model", model.string()}, {"report", report.string()},
                {"step", training.step}, {"skipped_steps", training.skipped_steps}, {"seconds", training.seconds},
                {"finished", !model.empty()}, {"metrics", metrics}}).dump(2).c_str());
  } else if (!model.empty()) {
    std::printf("%s\n", model.c_str());
  }
  // Unfinished is not done, or a script would go on; the trainer has said how to resume.
  if (model.empty()) throw CLI::RuntimeError(static_cast<int>(ExitCode::kOutOfResource));
}

// The same of a recipe whose scores have intervals.
void print_scored(const TrainArguments& a, const auto& result) {
  nlohmann::ordered_json metrics = nlohmann::ordered_json::object();
  for (const auto& score : result.scores) metrics[score.name] = {{"value", score.value}, {"low", score.interval.low}, {"high", score.interval.high}};
  print_result(a, result.training, result.model, result.report, metrics);
}

void refuse_flags_of_segmentation(const CLI::App& command, const std::string& rows) {
  refuse_flags(command, {"--augment", "--max-ram", "--pretrain", "--start"}, "is for segmentation; this is a table of " + rows);
}

void train_segment(const TrainArguments& a, const CLI::App& command) {
  const auto dataset = data::open_dataset(a.dataset);
  if (!dataset.note.empty()) print_line(dataset.note);
  const auto config = recipes::resolve_segment_config(dataset, a.config, overrides_of(a, command), infer::parse_bytes(a.max_ram), a.start);
  if (a.print_config) return void(std::printf("%s", io::print_with_comments(config).c_str()));
  config.train.validate();
  const auto result = recipes::train_segmentation(dataset, config, {a.output, fold_of(a), a.start, a.resume, a.argv});
  nlohmann::ordered_json metrics = nlohmann::ordered_json::object();
  for (const auto& [name, value] : result.training.best_step ? result.training.best_metrics : result.training.last_metrics) metrics[name] = value;
  print_result(a, result.training, result.model, result.report, metrics);
}

void train_patient(const TrainArguments& a, const CLI::App& command) {
  refuse_flags_of_segmentation(command, "patients");
  const auto table = data::open_patients(a.dataset);
  const auto config = recipes::resolve_patient_config(table, a.config, overrides_of(a, command));
  if (a.print_config) return void(std::printf("%s", io::print_with_comments(config).c_str()));
  const auto result = recipes::train_patients(table, config, {a.output, fold_of(a), a.resume, a.argv});
  print_scored(a, result);
}

void train_slide(const TrainArguments& a, const CLI::App& command) {
  refuse_flags_of_segmentation(command, "slides");
  const auto table = data::open_slides(a.dataset);
  const auto config = recipes::resolve_slide_config(table, a.config, overrides_of(a, command));
  if (a.print_config) return void(std::printf("%s", io::print_with_comments(config).c_str()));
  const auto result = recipes::train_slides(table, config, {a.output, fold_of(a), a.resume, a.argv});
  print_scored(a, result);
}

void train_station(const TrainArguments& a, const CLI::App& command) {
  refuse_flags_of_segmentation(command, "stations");
  const auto config = recipes::resolve_station_config(a.config, overrides_of(a, command));
  if (a.print_config) return void(std::printf("%s", io::print_with_comments(config).c_str()));
  const auto result = recipes::train_stations(a.dataset, config, {a.output, fold_of(a), a.resume, a.argv});
  nlohmann::ordered_json metrics = {{"rmse", result.scores.fusion}, {"rmse_kriging", std::min(result.scores.kriging, result.scores.log_kriging)}, {"covered_percent", result.scores.covered}};
  print_result(a, result.training, result.model, result.report, metrics);
}

void run(const TrainArguments& a, const CLI::App& command) {
  a.common.apply();
  if (a.recipe == "station" || (a.recipe == "auto" && data::is_station_table(a.dataset))) return train_station(a, command);
  if (a.recipe == "slide" || (a.recipe == "auto" && data::is_slide_table(a.dataset))) return train_slide(a, command);
  const bool patient = a.recipe == "patient" || (a.recipe == "auto" && data::is_patient_table(a.dataset));
  return patient ? train_patient(a, command) : train_segment(a, command);
}
}  // namespace

void add_train(CLI::App& program) {
  auto a = std::make_shared<TrainArguments>();
  CLI::App* command = program.add_subcommand("train",
      "Example: fovea train -d Dataset004_Hippocampus --fold 0 --max-time 1h -o runs/hippocampus-0\n\n"
      "Trains a segmentation network on an nnU-Net folder or a Decathlon datalist, or a network of patients on a folder with\n"
      "patients.csv (scans, tables, texts; a class or survival), or attention over the tiles of whole slides on a folder with\n"
      "slides.csv and features (CLAM, TRIDENT or fovea import), or attention over stations on a .csv of measurements; writes a run\n"
      "folder with model/ and report.html.");
  command->add_option("-d,--dataset", a->dataset, "nnU-Net folder, Decathlon datalist, folder with imagesTr and labelsTr, with patients.csv or slides.csv, or measurements of stations (.csv)")->required();
  command->add_option("--recipe", a->recipe, "segment, patient, slide, station, or auto: what the dataset is for")->check(CLI::IsMember({"auto", "segment", "patient", "slide", "station"}))->capture_default_str();
  command->add_option("-o,--output", a->output, "run folder")->capture_default_str();
  command->add_option("-c,--config", a->config, "JSON config (comments allowed); see --print-config");
  command->add_option("--set", a->overrides, "change one key: --set train.optimizer.learning_rate=1e-3")->take_all();
  command->add_flag("--pretrain", a->pretrain, "learn without labels: hide three of four patches and rebuild them; --set pretrain.ratio=0.9 hides more");
  command->add_option("--start", a->start, "begin from a model folder or weights file; layers of another shape begin at random")->check(CLI::ExistingPath);
  command->add_option("--fold", a->fold, "validate on this fold of five, or all: train on every case")->capture_default_str();
  command->add_option("--steps", a->steps, "optimizer steps")->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  command->add_option("--max-time", a->max_time, "stop after this time, e.g. 10m; the schedule follows the clock");
  command->add_option("--augment", a->augment, "augmentation preset: none, nnunet, strong");
  command->add_option("--max-ram", a->max_ram, "memory that the plan may count on")->capture_default_str();
  command->add_flag("--resume", a->resume, "go on with the run in --output");
  command->add_flag("--print-config", a->print_config, "print the resolved config with comments and stop");
  a->output = "runs/run";
  a->common.add_to(*command);
  command->callback([a, command] {
    a->argv = {"fovea"};
    for (const std::string& word : command_line()) a->argv.push_back(word);
    run(*a, *command);
  });
}

}  // namespace fovea::cli
