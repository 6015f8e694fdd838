#include <cstdio>
#include <filesystem>
#include <memory>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/data/patient_table.h"
#include "fovea/infer/model_folder.h"
#include "fovea/recipes/patient_page.h"
#include "fovea/recipes/segment_explain.h"
#include "fovea/recipes/slide_explain.h"
#include "fovea/recipes/station_explain.h"
#include "fovea/report/text.h"

namespace fovea::cli {

namespace {
namespace fs = std::filesystem;

struct ExplainArguments {
  CommonOptions common;
  fs::path model, output;
  std::vector<fs::path> inputs;
  std::string mm, voxel, patient, station, time;
  bool mirror_left_right = false;
  recipes::SlideExplainOptions slide;
};

// One page on one patient.
void run_patient(const ExplainArguments& a) {
  if (a.patient.empty()) throw ArgumentError("explain: " + a.model.string() + " is a model of patients; say which with --patient");
  if (!a.mm.empty() || !a.voxel.empty() || a.mirror_left_right) throw ArgumentError("explain: --mm, --voxel and --mirror-left-right are for segmentation; " + a.model.string() + " is a model of patients");
  require_folder_of(a.output);
  const auto model = recipes::PatientModel::load(a.model);
  const auto table = data::open_patients(a.inputs.front(), model.inputs.columns, {.need_outcome = false});
  recipes::write_patient_page(a.output, model, table, a.patient);
  std::printf("%s\n", a.output.c_str());
}

// A heat map of one slide.
void run_slide(const ExplainArguments& a) {
  if (!a.patient.empty() || !a.mm.empty() || !a.voxel.empty() || a.mirror_left_right)
    throw ArgumentError("explain: --patient, --mm, --voxel and --mirror-left-right are not for slides; " + a.model.string() + " is a model of slides");
  if (a.inputs.size() != 1) throw ArgumentError("explain: several --input; give one slide");
  const auto explained = recipes::explain_slide(recipes::SlideModel::load(a.model), a.inputs.front(), a.slide, a.output);
  std::string stages;
  for (const auto& [name, seconds] : explained.stages.seconds()) stages += (stages.empty() ? "" : ", ") + name + " " + report::fixed(seconds, 2) + " s";
  print_line(std::to_string(explained.attention.weight.size()) + " tiles; " + stages);
  std::printf("%s\n", a.output.c_str());
}

// Who tells one place at one time.
void run_station(const ExplainArguments& a) {
  if (a.station.empty() || a.time.empty()) throw ArgumentError("explain: " + a.model.string() + " is a model of stations; say which with --station and --time");
  if (!a.patient.empty() || !a.mm.empty() || !a.voxel.empty() || a.mirror_left_right)
    throw ArgumentError("explain: --patient, --mm, --voxel and --mirror-left-right are not for stations; " + a.model.string() + " is a model of stations");
  auto model = recipes::StationModel::load(a.model);
  const auto table = model.read(a.inputs);
  const auto told = recipes::explain_station(model, table, a.time, a.station, a.output);
  print_line(told.station + " at " + told.time + ": " + report::fixed(told.mean, 3) + " (95 %: " + report::fixed(told.low, 3) + " to " + report::fixed(told.high, 3) + "), told by " +
             std::to_string(told.others.size()) + " stations");
  std::printf("%s\n", a.output.c_str());
}

void run(const ExplainArguments& a, const CLI::App& command) {
  a.common.apply();
  const std::string recipe = infer::recipe_of(a.model);
  if (recipe == "slide") return run_slide(a);
  const std::string another = a.model.string() + " is a model of another recipe";
  refuse_flags(command, {"--features", "--um-per-pixel", "--deep-zoom-um", "--picture-px"}, "is for slides; " + another);
  if (recipe == "station") return run_station(a);
  refuse_flags(command, {"--station", "--time"}, "is for stations; " + another);
  if (recipe == "patient") return run_patient(a);
  if (!a.patient.empty()) throw ArgumentError("explain: --patient is for models of patients; " + a.model.string() + " labels voxels");
  const auto segmenter = recipes::Segmenter::load(a.model);
  auto cases = recipes::find_inputs(a.inputs.front(), segmenter.plan.channels());
  if (cases.size() != 1) throw ArgumentError("explain: --input " + a.inputs.front().string() + " holds " + std::to_string(cases.size()) + " cases, expected one scan");
  if (a.inputs.size() > 1) cases.front().images = a.inputs;
  recipes::ExplainOptions options;
  options.mirror_left_right = a.mirror_left_right;
  if (!a.mm.empty()) options.at_mm = parse_triple(a.mm, "--mm");
  if (!a.voxel.empty()) options.at_xyz = parse_whole_triple(a.voxel, "--voxel");
  recipes::explain_voxel(segmenter, cases.front(), options, a.output);
  std::printf("%s\n", a.output.c_str());
}
}  // namespace

void add_explain(CLI::App& program) {
  auto a = std::make_shared<ExplainArguments>();
  CLI::App* command = program.add_subcommand("explain",
      "Example: fovea explain -m runs/demo/model -i scan.nii.gz --mm 28,-20,-14 -o attention\n\n"
      "For one voxel: which voxels each head of each block attends to, exact, as NIfTI on the scan's grid; entropy and distance of each head.\n"
      "For one patient: fovea explain -m runs/p/model -i FOLDER --patient ID -o page.html, FOLDER with patients.csv.\n"
      "For one slide: fovea explain -m runs/s/model -i slide.svs -o FOLDER: a heat map as PNG, GeoJSON for QuPath and deep-zoom tiles.\n"
      "For one station: fovea explain -m runs/air/model -i air.csv --station DEBE034 --time 2005-01-03 -o FOLDER: who told it.");
  command->add_option("-m,--model", a->model, "model folder")->required();
  command->add_option("-i,--input", a->inputs, "scan, repeated for its channel files; or folder with patients.csv; or a slide; or measurements of stations")->required();
  command->add_option("-o,--output", a->output, "folder for the maps and explain.json; for a patient an .html file")->required();
  command->add_option("--mm", a->mm, "the voxel at this point: R,A,S in millimetres");
  command->add_option("--voxel", a->voxel, "or with this index: x,y,z as viewers show it");
  command->add_option("--patient", a->patient, "the patient of this id");
  command->add_option("--station", a->station, "the station of this name, told by the others")->group("Stations");
  command->add_option("--time", a->time, "at this time")->group("Stations");
  command->add_flag("--mirror-left-right", a->mirror_left_right, "as in predict");
  command->add_option("--features", a->slide.features, "of the slide: file or folder; default: made anew")->group("Slides");
  command->add_option("--um-per-pixel", a->slide.um_per_pixel, "of a slide that does not say it")->group("Slides");
  command->add_option("--deep-zoom-um", a->slide.deep_zoom_um, "micrometres of a pixel of the deep-zoom picture")->capture_default_str()->group("Slides");
  command->add_option("--picture-px", a->slide.picture_px, "longer side of the pictures")->capture_default_str()->check(CLI::Range(16, 30000))->group("Slides");
  a->common.add_to(*command);
  command->callback([a, command] { run(*a, *command); });
}

}  // namespace fovea::cli
