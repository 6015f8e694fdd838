#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/infer/model_folder.h"
#include "fovea/io/json_file.h"
#include "fovea/nn/convolution.h"
#include "fovea/recipes/contact_map.h"
#include "fovea/recipes/patient_model.h"
#include "fovea/recipes/segment_predict.h"
#include "fovea/recipes/slide_model.h"
#include "fovea/recipes/station_model.h"
#include "fovea/report/text.h"

namespace fovea::cli {

namespace {
namespace fs = std::filesystem;

struct PredictArguments {
  CommonOptions common;
  fs::path model, output, features, outlines, distances;
  std::vector<fs::path> inputs;
  std::string preset, max_ram;
  double overlap = -1;
  std::vector<int> mirror_axes;
  bool mirror_left_right = false, save_probabilities = false, continue_prediction = false;
};

bool is_image_name(const std::string& name) {
  return name.ends_with(".nii.gz") || name.ends_with(".nii") || name.ends_with(".nrrd");
}

// Made at the start; gone again when no scan could be predicted.
class OutputFolder {
 public:
  explicit OutputFolder(const fs::path& path) : path_(path), made_(!path.empty() && fs::create_directories(path)) {}
  ~OutputFolder() {
    std::error_code ignored;
    if (made_ && fs::is_empty(path_, ignored)) fs::remove(path_, ignored);
  }
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

 private:
  fs::path path_;
  bool made_;
};

infer::SlidingWindowConfig windows_of(const PredictArguments& a, const recipes::Segmenter& segmenter) {
  auto windows = segmenter.windows;
  if (a.preset == "nnunet") windows = infer::nnunet_windows(windows.patch_size, windows.mirror_axes);
  else if (a.preset == "monai") windows = infer::monai_windows(windows.patch_size);
  else if (!a.preset.empty()) throw ArgumentError("predict: --preset " + a.preset + ", expected nnunet or monai");
  if (a.overlap >= 0) windows.overlap = a.overlap;
  if (!a.mirror_axes.empty()) windows.mirror_axes = a.mirror_axes;
  windows.validate();
  return windows;
}

nlohmann::ordered_json to_json(const recipes::PredictResult& r) {
  nlohmann::ordered_json stages = nlohmann::ordered_json::object();
  for (const auto& [name, seconds] : r.stages.seconds()) stages[name] = seconds;
  return {{"id", r.id}, {"output", r.output.string()}, {"seconds", r.stages.total()}, {"stages_s", stages},
          {"windows", r.memory.windows}, {"stripes", {r.memory.stripes.y, r.memory.stripes.x}},
          {"predicted_peak_bytes", r.memory.peak_bytes}, {"peak_bytes", r.peak_bytes},
          {"dense_score_bytes", r.memory.dense_score_bytes}, {"label_resampling", r.label_resampling}};
}

constexpr std::initializer_list<const char*> kOfSegmentation = {"--preset", "--overlap", "--mirror-axes", "--mirror-left-right", "--max-ram", "--save-probabilities", "--continue"};

// A table takes none of the flags of segmentation.
void check_table(const PredictArguments& a, const CLI::App& command, const std::string& rows) {
  refuse_flags(command, kOfSegmentation, "is for segmentation; " + a.model.string() + " is a model of " + rows);
  require_folder_of(a.output);
}

void check_one_folder(const PredictArguments& a, const std::string& rows) {
  if (a.inputs.size() != 1) throw ArgumentError("predict: several --input; give one folder with " + rows + ".csv");
}

// Says what a table of answers holds.
void print_table(const PredictArguments& a, const char* rows, int64_t count) {
  if (a.common.json) std::printf("%s\n", nlohmann::ordered_json({{"output", a.output.string()}, {rows, count}}).dump(2).c_str());
  else std::printf("%s\n", a.output.c_str());
}

// Measurements of stations: one line for each that asks for a value.
void run_stations(const PredictArguments& a, const CLI::App& command) {
  check_table(a, command, "stations");
  auto model = recipes::StationModel::load(a.model);
  const auto table = model.read(a.inputs);
  const auto told = recipes::predict_stations(model, table);
  recipes::write_station_predictions(a.output, model.inputs, table, told);
  print_table(a, "values", int64_t(told.size()));
}

// A table of slides: one line each.
void run_slides(const PredictArguments& a, const CLI::App& command) {
  check_table(a, command, "slides");
  check_one_folder(a, "slides");
  const auto model = recipes::SlideModel::load(a.model);
  const auto table = data::open_slides(a.inputs.front(), {.need_label = false, .classes = model.inputs.classes});
  std::vector<int64_t> rows;
  for (size_t r = 0; r < table.slides.size(); ++r) rows.push_back(int64_t(r));
  recipes::write_slide_predictions(a.output, recipes::predict_slides(model, table, rows, a.features.empty() ? table.file.parent_path() : a.features), model.inputs.classes);
  print_table(a, "slides", int64_t(rows.size()));
}

// A table of patients: one line each.
void run_patients(const PredictArguments& a, const CLI::App& command) {
  check_table(a, command, "patients");
  check_one_folder(a, "patients");
  const int64_t patients = recipes::predict_patients(recipes::PatientModel::load(a.model), a.inputs.front(), a.output, a.outlines);
  print_table(a, "patients", patients);
}

// The family of an alignment is its own training set: -m names a method, not a folder.
void run_contacts(const PredictArguments& a, const CLI::App& command, recipes::ContactMethod method) {
  const std::string why = "is of scans and slides; -m " + a.model.string() + " is for alignments";
  refuse_flags(command, kOfSegmentation, why);
  refuse_flags(command, {"--features", "--outlines"}, why);
  if (a.inputs.size() != 1) throw ArgumentError("predict: several --input; give one alignment");
  if (a.output.extension() != ".csv") throw ArgumentError("predict: --output " + a.output.string() + ", expected a .csv file for contacts (the picture goes beside it)");
  require_folder_of(a.output);
  const auto result = recipes::predict_contacts(a.inputs.front(), a.distances, method, a.common.seed, a.output);
  for (const std::string& note : result.notes) print_line("fovea: " + note);
  if (!a.common.json) {
    for (const auto& p : result.precision) print_line(report::printed("%s: precision of the best L, L/2, L/5 pairs %.3f, %.3f, %.3f", p.method.c_str(), p.at_l, p.at_half, p.at_fifth));
    return void(std::printf("%s\n%s\n", result.table.c_str(), result.picture.c_str()));
  }
  nlohmann::ordered_json precision = nlohmann::ordered_json::object();
  for (const auto& p : result.precision) precision[p.method] = {{"L", p.at_l}, {"L/2", p.at_half}, {"L/5", p.at_fifth}};
  std::printf("%s\n", nlohmann::ordered_json({{"output", a.output.string()}, {"picture", result.picture.string()}, {"method", a.model.string()}, {"seed", a.common.seed}, {"sequences", result.sequences},
              {"effective_sequences", result.effective_sequences}, {"columns", result.columns}, {"precision", precision}, {"notes", result.notes}}).dump(2).c_str());
}

void run(const PredictArguments& a, const CLI::App& command) {
  a.common.apply();
  const auto method = recipes::contact_method(a.model.string());
  if (method && !fs::exists(a.model)) return run_contacts(a, command, *method);
  refuse_flags(command, {"--distances"}, "is for alignments, with -m factored, tied, potts, covariance or mi");
  const std::string recipe = infer::recipe_of(a.model);
  if (recipe == "slide") return run_slides(a, command);
  const std::string another = a.model.string() + " is a model of another recipe";
  refuse_flags(command, {"--features"}, "is for slides; " + another);
  if (recipe == "patient") return run_patients(a, command);
  refuse_flags(command, {"--outlines"}, "is for patients; " + another);
  if (recipe == "station") return run_stations(a, command);
  auto segmenter = recipes::Segmenter::load(a.model);
  segmenter.windows = windows_of(a, segmenter);
  recipes::PredictOptions options;
  if (!a.max_ram.empty()) options.max_ram_bytes = infer::parse_bytes(a.max_ram);
  options.mirror_left_right = a.mirror_left_right, options.save_probabilities = a.save_probabilities;

  std::vector<recipes::PredictInput> cases;
  if (a.inputs.size() == 1) {
    cases = recipes::find_inputs(a.inputs.front(), segmenter.plan.channels());
  } else {  // several files: the channels of one scan
    cases = recipes::find_inputs(a.inputs.front(), segmenter.plan.channels());
    if (cases.size() != 1 || fs::is_directory(a.inputs.front()))
      throw ArgumentError("predict: several --input must be the channel files of one scan; give one folder for many scans");
    cases.front().images = a.inputs;
  }
  const bool one_file = is_image_name(a.output.filename());
  if (one_file && cases.size() > 1)
    throw ArgumentError("predict: --output " + a.output.string() + " is one file, but there are " + std::to_string(cases.size()) + " cases; give a folder");
  if (one_file) require_folder_of(a.output);
  const OutputFolder folder(one_file ? fs::path() : a.output);

  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (size_t i = 0; i < cases.size(); ++i) {
    const fs::path output = one_file ? a.output : a.output / (cases[i].id + ".nii.gz");
    if (a.continue_prediction && fs::exists(output)) {
      print_line(output.string() + ": exists, kept");
      continue;
    }
    Progress bar(cases.size() > 1 ? cases[i].id + " (" + std::to_string(i + 1) + "/" + std::to_string(cases.size()) + ")" : cases[i].id, 0);
    const auto result = recipes::predict_case(segmenter, cases[i], output, options, [&](int64_t done, int64_t total) {
      bar.set_fraction(double(done) / double(total));
      bar.advance();
    });
    bar.finish();
    if (i == 0 && !a.common.json) print_line(result.memory.to_string());
    results.push_back(to_json(result));
    if (!a.common.json) std::printf("%s\n", output.c_str());
  }
  nlohmann::ordered_json convolutions = nlohmann::ordered_json::object();
  for (const auto& [layer, form] : nn::convolution_forms(*segmenter.network)) convolutions[layer] = form;
  if (!one_file)
    io::write_json(a.output / "prediction.json", {{"model", a.model.string()}, {"convolutions", convolutions}, {"cases", results}});
  if (a.common.json) std::printf("%s\n", results.dump(2).c_str());
}
}  // namespace

void add_predict(CLI::App& program) {
  auto a = std::make_shared<PredictArguments>();
  CLI::App* command = program.add_subcommand("predict",
      "Example: fovea predict -m runs/demo/model -i scan.nii.gz -o labels.nii.gz --max-ram 4G\n\n"
      "Segments a scan, or every scan of a folder with the model kept in memory. The result lies on the scan's own grid.\n"
      "With a model of patients: fovea predict -m runs/p/model -i FOLDER -o predictions.csv, FOLDER with patients.csv;\n"
      "of slides the same with slides.csv. With a model of stations: -i measured.csv -i asked.csv -o told.csv.\n"
      "Which columns of an alignment touch: fovea predict -m factored -i family.a3m -o contacts.csv, and contacts.svg beside it.");
  command->add_option("-m,--model", a->model, "model folder; for an alignment the method: factored, tied, potts, covariance, mi")->required();
  command->add_option("-i,--input", a->inputs, "scan, DICOM series, folder of scans, folder with patients.csv or slides.csv, measurements of stations, or an alignment (A3M, Stockholm, Clustal, FASTA); repeat it for the channel files of one scan, or for places that ask")->required();
  command->add_option("-o,--output", a->output, "label file (.nii.gz, .nii, .nrrd), folder, or .csv for patients, slides, stations and contacts")->required();
  command->add_option("--distances", a->distances, "alignment: lines 'i j score angstrom', to draw and count contacts below 8");
  command->add_option("--features", a->features, "slides: folder of their feature files; default: beside slides.csv");
  command->add_option("--outlines", a->outlines, "patients: folder for the outline of each first scan, on its own grid; of a model trained with segmentation_weight");
  command->add_option("--preset", a->preset, "windows and blending as in nnunet or monai (default: the model's)");
  command->add_option("--overlap", a->overlap, "share of a window that its neighbour covers")->check(CLI::Range(0.0, 0.95));
  command->add_option("--mirror-axes", a->mirror_axes, "average over mirrored windows: 0 = Z, 1 = Y, 2 = X")->delimiter(',');
  command->add_flag("--mirror-left-right", a->mirror_left_right, "show the scan mirrored: for a network trained on one side");
  command->add_option("--max-ram", a->max_ram, "memory that may be used, e.g. 4G; planned before the start");
  command->add_flag("--save-probabilities", a->save_probabilities, "also write ID_probabilities.nii.gz (0..255)");
  command->add_flag("--continue", a->continue_prediction, "keep results that exist");
  a->common.add_to(*command);
  command->callback([a, command] { run(*a, *command); });
}

}  // namespace fovea::cli
