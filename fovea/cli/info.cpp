#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/infer/model_folder.h"
#include "fovea/io/image.h"
#include "fovea/io/safetensors.h"
#include "fovea/io/config.h"
#include "fovea/models/registry.h"
#include "fovea/recipes/patient_model.h"

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
          {"labels", labels}, {"extensions", extensions}, {"notes", info.notes}};
}

Json of_model(const fs::path& path) {
  if (infer::recipe_of(path) == "patient") {
    const auto model = recipes::PatientModel::load(path);
    int64_t parameters = 0;
    for (const auto& p : model.network->parameters()) parameters += p.numel();
    return {{"model", path.string()}, {"recipe", "patient"}, {"trained_on", model.inputs.columns.name}, {"simulated", model.simulated}, {"parameters", parameters},
            {"modalities", model.inputs.modality_names()}, {"outcome", io::to_json(model.head)}};
  }
  const auto model = infer::load_model(path);
  Json labels = Json::array();
  if (model.recipe.contains("plan") && model.recipe["plan"].contains("labels"))
    for (const auto& label : model.recipe["plan"]["labels"]) labels.push_back(label.value("name", "?"));
  return {{"model", path.string()}, {"network", models::family_of(model.config)}, {"parameters", model.network->parameter_count()},
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

void run(const CommonOptions& common, const std::vector<fs::path>& paths) {
  Json all = Json::array();
  for (const fs::path& path : paths) {
    if (!fs::exists(path)) throw IoError(path, "no such file or folder");
    all.push_back(fs::is_directory(path) ? of_model(path) : path.extension() == ".safetensors" ? of_tensors(path) : of_image(path));
  }
  if (common.json) return void(std::printf("%s\n", all.dump(2).c_str()));
  for (const Json& one : all)
    for (const auto& [key, value] : one.items()) {
      if ((value.is_array() || value.is_object()) && value.empty()) continue;
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
  CLI::App* command = program.add_subcommand("info", "Example: fovea info scan.nii.gz\n\nWhat a scan, a model folder or a .safetensors file is: grid, type, orientation, classes.");
  command->add_option("path", *paths, "scans, model folders, .safetensors files")->required();
  common->add_to(*command);
  command->callback([common, paths] { run(*common, *paths); });
}

}  // namespace fovea::cli
