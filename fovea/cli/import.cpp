#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/data/onto_grid.h"
#include "fovea/data/plan.h"
#include "fovea/infer/import_bag_network.h"
#include "fovea/infer/import_weights.h"
#include "fovea/infer/model_folder.h"
#include "fovea/infer/weights.h"
#include "fovea/io/config.h"
#include "fovea/core/progress.h"
#include "fovea/io/image.h"
#include "fovea/ops/parallel.h"
#include "fovea/recipes/slide_import.h"
#include "fovea/recipes/slide_model.h"
#include "fovea/report/text.h"

namespace fovea::cli {

namespace {
namespace fs = std::filesystem;

struct ImportArguments {
  CommonOptions common;
  fs::path source, output, plan, onto;
  bool labels = false;
  std::string network;
  std::vector<std::string> overrides, classes;
  io::ReadOptions scan;
  recipes::SlideImportOptions slide;
};

bool holds_weights(const fs::path& path) { return path.extension() == ".pt" || path.extension() == ".pth" || path.extension() == ".safetensors"; }

bool holds_slides(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) return io::is_slide_name(path);
  return std::any_of(fs::directory_iterator(path, ignored), fs::directory_iterator(), [](const auto& entry) { return io::is_slide_name(entry.path()); });
}

// One slide, or every slide of a folder: one that cannot be read costs a line, not the others.
void import_slides(const ImportArguments& a) {
  a.slide.tiles.validate(), a.slide.tissue.validate();
  const bool many = fs::is_directory(a.source);
  io::Json all = io::Json::array();
  int64_t failed = 0;
  for (const fs::path& path : many ? recipes::slides_of(a.source) : std::vector<fs::path>{a.source}) {
    try {
      const auto one = recipes::import_slide(path, a.output, a.slide);
      all.push_back({{"slide", path.string()}, {"features", one.features.string()}, {"preview", one.preview.string()}, {"tiles", one.tiles}, {"tissue_share", one.tissue_share}, {"seconds", one.seconds}});
      if (!a.common.json) std::printf("%s\n", one.features.c_str());
    } catch (const Error& error) {
      if (!many || error.code() != ExitCode::kBadInput) throw;
      print_line(std::string("fovea: ") + error.what());
      ++failed;
    }
  }
  if (a.common.json) std::printf("%s\n", all.dump(2).c_str());
  if (failed > 0) throw IoError(a.source, std::to_string(failed) + " of its " + std::to_string(failed + int64_t(all.size())) + " slides could not be imported, see above");
}

void import_scan(const ImportArguments& a) {
  if (!a.network.empty() || !a.plan.empty() || !a.overrides.empty())
    throw ArgumentError("import: --network, --set and --plan are of weights, but " + a.source.string() + " is a scan");
  require_folder_of(a.output);
  if (a.labels && a.onto.empty()) throw ArgumentError("import: --labels says how --onto reads a file; give --onto SCAN as well");
  Volume volume = io::read_image(a.source, a.scan);
  double outside_share = 0;
  if (!a.onto.empty()) {
    try {
      auto moved = data::onto_grid(volume, io::inspect(a.onto).geometry, a.labels ? data::Interpolation::kNearest : data::Interpolation::kLinear, ops::torch_parallel_for);
      volume = std::move(moved.volume), outside_share = moved.outside_share;
    } catch (const ArgumentError& error) {
      throw IoError(a.source, "onto " + a.onto.string() + ": " + error.what());
    }
    if (outside_share > 0) print_line(a.source.string() + " does not cover " + report::fixed(100 * outside_share, 1) + " % of " + a.onto.string() + (a.labels ? ": 0 there" : ": its smallest value there"));
  }
  io::write_image(a.output, volume);
  std::printf("%s\n", a.common.json ? io::Json{{"scan", a.output.string()}, {"grid", to_string(volume.geometry)}, {"units", io::inspect(a.source, a.scan).units}, {"outside_share", outside_share}}.dump(2).c_str() : a.output.c_str());
}

// Of AttentionDeepMIL, CLAM or TransMIL: names that no network of scans has.
bool is_bag_network(const io::TensorMap& tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const auto& item) {
    const std::string& name = item.first;
    return name.find("attention_net.") != name.npos || name.find("_fc1.0.") != name.npos || name.starts_with("attention_V.") || name.starts_with("feature_extractor_part2.");
  });
}

void import_bag_network(const ImportArguments& a, const io::TensorMap& tensors) {
  if (!a.network.empty() || !a.plan.empty() || !a.overrides.empty()) throw ArgumentError("import: --network, --set and --plan are not for networks of slides");
  auto found = infer::import_bag_network(tensors, a.source.string());
  recipes::SlideModel model;
  model.config = found.config;
  model.network = models::make_bag_network(found.config);
  infer::load_weights(*model.network, found.tensors, a.source.string());
  if (model.network->features() == 0) throw ArgumentError("import: " + a.source.string() + " is a network of digits of 28 x 28 pixels, expected one of the features of tiles");
  model.inputs.name = a.source.filename().string();
  model.inputs.classes = a.classes;
  const auto classes = size_t(std::max<int64_t>(2, model.network->outputs()));
  while (a.classes.empty() && model.inputs.classes.size() < classes) model.inputs.classes.push_back(std::to_string(model.inputs.classes.size()));
  if (model.inputs.classes.size() != classes) throw ArgumentError("import: --classes names " + std::to_string(a.classes.size()) + " classes, the network has " + std::to_string(classes));
  model.save(a.output, "# Imported network of slides\n\nWeights of " + a.source.filename().string() + ".\n");
  std::printf("%s\n", a.common.json ? infer::bag_network_to_json(found.config).dump(2).c_str() : a.output.c_str());
}

void import_weights(const ImportArguments& a) {
  if (a.scan.suv || a.scan.dicom_series >= 0 || !a.onto.empty()) throw ArgumentError("import: --suv, --series and --onto are of scans, but " + a.source.string() + " holds weights");
  auto read = infer::read_weights(a.source);
  if (is_bag_network(read)) return import_bag_network(a, read);
  if (!a.classes.empty()) throw ArgumentError("import: --classes is for networks of slides");
  const auto tensors = infer::with_network_names(std::move(read), a.source.string());
  io::Json json = infer::network_to_json(a.network.empty() ? infer::infer_config(tensors, a.source.string()) : models::default_config(a.network));
  for (const std::string& assignment : a.overrides) io::apply_override(json["config"], assignment);
  const auto config = infer::network_from_json(json, "import: --set");
  const auto network = models::make_network(config, /*seed=*/0);
  const auto report = infer::load_weights(*network, tensors, a.source.string());
  infer::ModelDescription model{infer::network_to_json(config), {{"recipe", "import"}, {"source", a.source.filename().string()}}};
  if (!a.plan.empty()) {
    const auto plan = io::from_json<data::Plan>(io::read_json(a.plan), a.plan.string());
    if (plan.classes() != network->out_channels() || plan.channels() != network->in_channels())
      throw ArgumentError("import: " + a.plan.string() + " has " + std::to_string(plan.channels()) + " channels and " + std::to_string(plan.classes()) +
                          " classes, the network " + std::to_string(network->in_channels()) + " and " + std::to_string(network->out_channels()));
    model.recipe["recipe"] = "segment", model.recipe["plan"] = io::to_json(plan);
  }
  infer::save_model(a.output, *network, model, "# Imported network\n\nWeights of " + a.source.filename().string() + ", " + std::to_string(report.loaded) + " tensors.\n");
  std::printf("%s\n", a.common.json ? json.dump(2).c_str() : a.output.c_str());
}

void run(const ImportArguments& a) {
  a.common.apply();
  if (holds_weights(a.source))
    import_weights(a);
  else if (holds_slides(a.source))
    import_slides(a);
  else
    import_scan(a);
}
}  // namespace

void add_import(CLI::App& program) {
  auto a = std::make_shared<ImportArguments>();
  CLI::App* command = program.add_subcommand("import",
      "Example: fovea import swin_unetr.pt -o MODEL\n"
      "         fovea import DICOM_FOLDER -o scan.nii.gz\n"
      "         fovea import PET_FOLDER --suv --onto ct.nii.gz -o suv_on_ct.nii.gz\n"
      "         fovea import slide.svs -o FEATURES\n\n"
      "Makes a model folder of MONAI weights, or of CLAM's, TransMIL's or AttentionDeepMIL's (.pt state dict, read without an unpickler, or .safetensors); the network is told from names\n"
      "and shapes. Or makes a NIfTI or NRRD file of a DICOM series (or of any scan), without the patient's name.\n"
      "Or cuts a whole slide (or each of a folder) into tiles of tissue, and writes features and coordinates as CLAM keeps them.");
  command->add_option("source", a->source, ".pt, .pth, .safetensors; or a DICOM folder or scan; or a slide or a folder of slides")->required();
  command->add_option("-o,--output", a->output, "model folder; or .nii.gz, .nii, .nrrd; or folder for features")->required();
  command->add_option("--series", a->scan.dicom_series, "SeriesNumber, where a folder holds several series");
  command->add_flag("--suv", a->scan.suv, "PET as standardised uptake values by body weight (g/ml)");
  command->add_option("--onto", a->onto, "the scan on whose grid the result lies, by millimetres of the patient: PET onto CT");
  command->add_flag("--labels", a->labels, "with --onto: a label file, whose values are kept (nearest voxel)");
  command->add_option("--network", a->network, "network or preset, instead of telling it from the weights");
  command->add_option("--set", a->overrides, "change a field of the network's config: --set downsample=merging_repeated")->take_all();
  command->add_option("--plan", a->plan, "plan.json: how scans are prepared, so that predict can use the model");
  command->add_option("--classes", a->classes, "names of a CLAM, TransMIL or AttentionDeepMIL network's classes, in order")->delimiter(',')->group("Slides");
  auto& tiles = a->slide.tiles;
  auto& tissue = a->slide.tissue;
  command->add_option("--tile-px", tiles.tile_px, "edge of a tile in pixels")->capture_default_str()->group("Slides");
  command->add_option("--tile-um", tiles.um_per_pixel, "micrometres of a tile's pixel: 0.5 is about 20x")->capture_default_str()->group("Slides");
  command->add_option("--overlap-px", tiles.overlap_px, "of neighbouring tiles")->capture_default_str()->group("Slides");
  command->add_option("--min-tissue", tiles.min_tissue, "share of a tile that is tissue, at least")->capture_default_str()->group("Slides");
  command->add_option("--um-per-pixel", a->slide.um_per_pixel, "of a slide that does not say it")->group("Slides");
  command->add_option("--tissue-threshold", tissue.threshold, "saturation 1 to 255 from which it is tissue; 0 = Otsu's")->capture_default_str()->group("Slides");
  command->add_option("--min-region-mm2", tissue.min_region_mm2, "smaller pieces of tissue are left out")->capture_default_str()->group("Slides");
  a->common.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace fovea::cli
