#include <cstdio>
#include <filesystem>
#include <memory>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/data/plan.h"
#include "fovea/infer/import_weights.h"
#include "fovea/infer/model_folder.h"
#include "fovea/infer/weights.h"
#include "fovea/io/config.h"
#include "fovea/io/image.h"

namespace fovea::cli {

namespace {
namespace fs = std::filesystem;

struct ImportArguments {
  CommonOptions common;
  fs::path source, output, plan;
  std::string network;
  std::vector<std::string> overrides;
  io::ReadOptions scan;
};

bool holds_weights(const fs::path& path) { return path.extension() == ".pt" || path.extension() == ".pth" || path.extension() == ".safetensors"; }

void import_scan(const ImportArguments& a) {
  if (!a.network.empty() || !a.plan.empty() || !a.overrides.empty())
    throw ArgumentError("import: --network, --set and --plan are of weights, but " + a.source.string() + " is a scan");
  require_folder_of(a.output);
  const Volume volume = io::read_image(a.source, a.scan);
  io::write_image(a.output, volume);
  std::printf("%s\n", a.common.json ? io::Json{{"scan", a.output.string()}, {"grid", to_string(volume.geometry)}, {"units", io::inspect(a.source, a.scan).units}}.dump(2).c_str() : a.output.c_str());
}

void import_weights(const ImportArguments& a) {
  if (a.scan.suv || a.scan.dicom_series >= 0) throw ArgumentError("import: --suv and --series are of DICOM scans, but " + a.source.string() + " holds weights");
  const auto tensors = infer::with_network_names(infer::read_weights(a.source), a.source.string());
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
  else
    import_scan(a);
}
}  // namespace

void add_import(CLI::App& program) {
  auto a = std::make_shared<ImportArguments>();
  CLI::App* command = program.add_subcommand("import",
      "Example: fovea import swin_unetr.pt -o MODEL\n"
      "         fovea import DICOM_FOLDER -o scan.nii.gz\n\n"
      "Makes a model folder of MONAI weights (.pt state dict, read without an unpickler, or .safetensors); the network is told from names\n"
      "and shapes. Or makes a NIfTI or NRRD file of a DICOM series (or of any scan), without the patient's name.");
  command->add_option("source", a->source, ".pt, .pth, .safetensors; or a DICOM folder or scan")->required();
  command->add_option("-o,--output", a->output, "model folder; or .nii.gz, .nii, .nrrd")->required();
  command->add_option("--series", a->scan.dicom_series, "SeriesNumber, where a folder holds several series");
  command->add_flag("--suv", a->scan.suv, "PET as standardised uptake values by body weight (g/ml)");
  command->add_option("--network", a->network, "network or preset, instead of telling it from the weights");
  command->add_option("--set", a->overrides, "change a field of the network's config: --set downsample=merging_repeated")->take_all();
  command->add_option("--plan", a->plan, "plan.json: how scans are prepared, so that predict can use the model");
  a->common.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace fovea::cli
