#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/data/radiomics.h"
#include "fovea/infer/model_folder.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/csv.h"
#include "fovea/io/image.h"
#include "fovea/io/slide.h"
#include "fovea/io/safetensors.h"
#include "fovea/io/config.h"
#include "fovea/models/registry.h"
#include "fovea/recipes/patient_model.h"
#include "fovea/recipes/slide_model.h"
#include "fovea/recipes/station_model.h"

namespace fovea::cli {

namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

Json of_image(const fs::path& path) {
  const io::ImageInfo info = io::inspect(path);
  const auto& g = info.geometry;
  Json labels = Json::object(), extensions = Json::object();
  for (const auto& [value, name] : info.label_names) labels[std::to_string(value)] = name;
  for (const auto& [code, bytes] : info.extensions) extensions[std::to_string(code)] = bytes;
  return {{"file", path.string()}, {"format", info.format}, {"shape_zyx", g.shape}, {"channels", info.channels},
          {"spacing_mm_zyx", g.spacing_mm()}, {"axes", g.axis_codes()}, {"affine", g.affine}, {"affine_source", info.affine_source},
          {"stored", name_of(info.stored)}, {"read_as", name_of(info.dtype)}, {"slope", info.slope}, {"intercept", info.inter},
          {"big_endian", info.big_endian}, {"compressed", info.compressed}, {"bytes", info.file_bytes},
          {"labels", labels}, {"extensions", extensions}, {"modality", info.modality}, {"units", info.units},
          {"suv_per_unit", info.suv_per_unit ? Json(*info.suv_per_unit) : Json()}, {"notes", info.notes}};
}

Json of_slide(const fs::path& path, std::optional<double> um_per_pixel) {
  const io::Slide slide(path, um_per_pixel);
  const auto& info = slide.info();
  const auto or_null = [](const std::optional<double>& value) { return value ? Json(*value) : Json(); };
  Json levels = Json::array();
  for (const auto& level : info.levels) levels.push_back({{"shape_yx", {level.height, level.width}}, {"downsample", level.downsample}});
  return {{"file", path.string()}, {"format", "slide"}, {"vendor", info.vendor}, {"levels", levels}, {"um_per_pixel", or_null(info.um_per_pixel)},
          {"objective_power", or_null(info.objective_power)}, {"bytes", info.file_bytes}, {"notes", info.notes}};
}

int64_t parameters_of(const torch::nn::Module& network) {
  int64_t parameters = 0;
  for (const auto& p : network.parameters()) parameters += p.numel();
  return parameters;
}

Json of_model(const fs::path& path) {
  if (infer::recipe_of(path) == "patient") {
    const auto model = recipes::PatientModel::load(path);
    return {{"model", path.string()}, {"recipe", "patient"}, {"trained_on", model.inputs.columns.name}, {"simulated", model.simulated()}, {"parameters", parameters_of(*model.network)},
            {"modalities", model.inputs.modality_names()}, {"outcome", io::to_json(model.head)}};
  }
  if (infer::recipe_of(path) == "slide") {
    const auto model = recipes::SlideModel::load(path);
    return {{"model", path.string()}, {"recipe", "slide"}, {"network", models::family_of(model.config)}, {"trained_on", model.inputs.name}, {"simulated", model.inputs.simulated},
            {"parameters", parameters_of(*model.network)}, {"classes", model.inputs.classes}, {"features", model.network->features()}, {"encoder", model.inputs.encoder}};
  }
  if (infer::recipe_of(path) == "station") {
    const auto model = recipes::StationModel::load(path);
    return {{"model", path.string()}, {"recipe", "station"}, {"tells", model.inputs.told()}, {"parameters", parameters_of(*model.network)}, {"columns", io::to_json(model.inputs.columns)},
            {"scaling", io::to_json(model.inputs.scaling)}};
  }
  const auto model = infer::load_model(path);
  Json labels = Json::array();
  const std::string recipe = model.recipe.value("recipe", "segment");
  if (recipe != "pretrain" && model.recipe.contains("plan") && model.recipe["plan"].contains("labels"))
    for (const auto& label : model.recipe["plan"]["labels"]) labels.push_back(label.value("name", "?"));
  return {{"model", path.string()}, {"recipe", recipe}, {"network", models::family_of(model.config)}, {"parameters", model.network->parameter_count()},
          {"in_channels", model.network->in_channels()}, {"out_channels", model.network->out_channels()}, {"labels", labels}};
}

Json of_tensors(const fs::path& path) {
  std::map<std::string, std::string> metadata;
  const auto tensors = io::read_safetensors(path, &metadata);
  Json list = Json::object();
  int64_t elements = 0;
  for (const auto& [name, t] : tensors) {
    list[name] = {{"dtype", name_of(t.dtype)}, {"shape", t.shape}};
    elements += int64_t(t.data.size() / size_of(t.dtype));
  }
  return {{"file", path.string()}, {"tensors", list}, {"elements", elements}, {"metadata", metadata}};
}

struct Masked {
  fs::path mask, table;
  data::RadiomicsOptions options;
};

// The 107 radiomic features of the voxels under a mask; NaN, a feature that is not defined, becomes null.
Json of_masked(const fs::path& scan, const Masked& masked) {
  const Volume image = io::read_image(scan), mask = io::read_image(masked.mask);
  Json features = Json::object();
  try {
    for (const auto& [name, value] : data::radiomics(image, mask, masked.options)) features[name] = value;
  } catch (const ArgumentError& error) {
    throw IoError(scan, "with mask " + masked.mask.string() + ": " + error.what());
  }
  return features;
}

// One row a scan, columns as pyradiomics' batch output has them.
void write_table(const fs::path& path, const Json& all, const fs::path& mask) {
  std::string text = "Image,Mask";
  for (const std::string& name : data::radiomics_names()) text += "," + name;
  for (const Json& one : all) {
    text += "\n" + io::csv_cell(one["file"].get<std::string>()) + "," + io::csv_cell(mask.string());
    for (const auto& [name, value] : one["radiomics"].items()) {
      char number[32];
      std::snprintf(number, sizeof number, "%.17g", value.get<double>());
      text += std::string(",") + number;
    }
  }
  io::AtomicFile file(path);
  file.write(text + "\n");
  file.commit();
}

void run(const CommonOptions& common, const std::vector<fs::path>& paths, const Masked& masked, std::optional<double> um_per_pixel) {
  if (!masked.table.empty() && masked.mask.empty())
    throw ArgumentError("info: -o writes the features under a mask, give --mask FILE as well");
  if (!masked.table.empty()) require_folder_of(masked.table);
  Json all = Json::array();
  for (const fs::path& path : paths) {
    if (!fs::exists(path)) throw IoError(path, "no such file or folder");
    all.push_back(fs::is_directory(path) && !io::is_dicom(path) ? of_model(path) : path.extension() == ".safetensors" ? of_tensors(path) : io::is_slide_name(path) ? of_slide(path, um_per_pixel) : of_image(path));
    if (masked.mask.empty()) continue;
    if (!all.back().contains("shape_zyx")) throw IoError(path, "expected a scan beside --mask");
    all.back()["radiomics"] = of_masked(path, masked);
  }
  if (!masked.table.empty()) write_table(masked.table, all, masked.mask);
  if (common.json) return void(std::printf("%s\n", all.dump(2).c_str()));
  for (const Json& one : all)
    for (const auto& [key, value] : one.items()) {
      if (value.is_null() || value == "" || ((value.is_array() || value.is_object()) && value.empty())) continue;
      if (key == "radiomics") {
        for (const auto& [name, number] : value.items()) std::printf("  %-56s %.10g\n", name.c_str(), number.get<double>());
        continue;
      }
      if (key == "tensors") {
        for (const auto& [name, t] : value.items())
          std::printf("  %-72s %-5s %s\n", name.c_str(), t["dtype"].get<std::string>().c_str(), t["shape"].dump().c_str());
        continue;
      }
      std::printf("%-16s %s\n", key.c_str(), value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
    }
}
}  // namespace

void add_info(CLI::App& program) {
  auto common = std::make_shared<CommonOptions>();
  auto paths = std::make_shared<std::vector<fs::path>>();
  CLI::App* command = program.add_subcommand("info", "Example: fovea info scan.nii.gz --mask tumour.nii.gz -o features.csv\n\nWhat a scan (DICOM folders included), a whole slide, a model folder or a .safetensors file is: grid, levels, type, orientation, classes; with a mask its 107 radiomic features.");
  auto masked = std::make_shared<Masked>();
  command->add_option("path", *paths, "scans, slides, model folders, .safetensors files")->required();
  command->add_option("-m,--mask", masked->mask, "features of the scan's voxels under this mask, under pyradiomics' names");
  command->add_option("--label", masked->options.label, "the mask's value")->capture_default_str();
  command->add_option("--bin-width", masked->options.bin_width, "grey levels are multiples of it")->capture_default_str();
  command->add_option("-o,--output", masked->table, "also write the features as CSV, one row a scan");
  auto um_per_pixel = std::make_shared<std::optional<double>>();
  command->add_option("--um-per-pixel", *um_per_pixel, "of a slide that does not say it");
  common->add_to(*command);
  command->callback([common, paths, masked, um_per_pixel] { run(*common, *paths, *masked, *um_per_pixel); });
}

}  // namespace fovea::cli
