#include "fovea/infer/model_folder.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fovea/core/error.h"
#include "fovea/core/version.h"
#include "fovea/infer/weights.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/sha256.h"

namespace fovea::infer {
namespace {

namespace fs = std::filesystem;

constexpr int kFormat = 1;
constexpr const char* kConfigFile = "config.json";
constexpr const char* kWeightsFile = "weights.safetensors";
constexpr const char* kCardFile = "model_card.md";

void sync_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw IoError(folder, std::string("cannot be opened: ") + std::strerror(errno));
  const int result = ::fsync(descriptor);
  ::close(descriptor);
  if (result != 0) throw ResourceError(folder.string() + ": cannot be written to disk: " + std::strerror(errno));
}

/// A folder beside the target that takes its place on commit(), and is gone otherwise.
class AtomicFolder {
 public:
  explicit AtomicFolder(const fs::path& target) : target_(fs::absolute(target).lexically_normal()) {
    if (!target_.has_filename()) target_ = target_.parent_path();
    fs::create_directories(target_.parent_path());
    std::string pattern = (target_.parent_path() / ("." + target_.filename().string() + ".XXXXXX")).string();
    if (::mkdtemp(pattern.data()) == nullptr) throw IoError(target_, std::string("cannot be made: ") + std::strerror(errno));
    temporary_ = pattern;
  }
  ~AtomicFolder() {
    std::error_code ignored;
    fs::remove_all(temporary_, ignored);
  }
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const fs::path& path() const { return temporary_; }

  void commit() {
    sync_folder(temporary_);
    // Over an older folder: both change places in one step, then the destructor removes the old one.
    const bool replace = fs::exists(target_);
    if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), replace ? RENAME_EXCHANGE : RENAME_NOREPLACE) != 0) {
      throw ResourceError(target_.string() + ": cannot be put in place: " + std::strerror(errno));
    }
    sync_folder(target_.parent_path());
  }

 private:
  fs::path target_, temporary_;
};

}  // namespace

void save_model(const fs::path& path, const torch::nn::Module& network, const ModelDescription& model, const std::string& model_card) {
  if (fs::exists(path) && !fs::exists(path / kConfigFile) && !(fs::is_directory(path) && fs::is_empty(path))) {
    throw ArgumentError(path.string() + ": exists and is no model folder; choose another name or remove it");
  }
  AtomicFolder folder(path);
  const auto weights = folder.path() / kWeightsFile;
  io::write_safetensors(weights, network_weights(network));

  io::Json json = io::Json::object();
  json["format"] = kFormat;
  json["fovea"] = kVersion;
  json.update(model.network);
  json["recipe"] = model.recipe;
  json["weights_sha256"] = io::sha256_file(weights);
  io::write_json(folder.path() / kConfigFile, json);
  io::write_file(folder.path() / kCardFile, model_card);
  folder.commit();
}

namespace {
io::Json read_description(const fs::path& path) {
  const auto file = path / kConfigFile;
  if (!fs::is_directory(path) || !fs::exists(file)) {
    throw IoError(path, "is no model folder, expected one with config.json and weights.safetensors, as `fovea train` and `fovea import` leave it");
  }
  auto json = io::read_json(file);
  if (!json.is_object() || !json.contains("format") || !json["format"].is_number_integer()) {
    throw IoError(file, "is no model configuration: \"format\" is missing");
  }
  if (json["format"] != kFormat) {
    throw IoError(file, "format is " + json["format"].dump() + ", expected " + std::to_string(kFormat) + "; it was made by another version of Fovea");
  }
  return json;
}

std::string recipe_name(const io::Json& recipe) {
  return recipe.is_object() && recipe.contains("recipe") && recipe["recipe"].is_string() ? recipe["recipe"].get<std::string>() : "segment";
}
}  // namespace

OpenedModel open_model(const fs::path& path) {
  auto json = read_description(path);
  OpenedModel model;
  model.weights_path = path / kWeightsFile;
  model.recipe = json.value("recipe", io::Json::object());
  const std::string expected = json.contains("weights_sha256") && json["weights_sha256"].is_string() ? json["weights_sha256"].get<std::string>() : "";
  model.sha256 = io::sha256_file(model.weights_path);
  if (model.sha256 != expected) {
    throw IoError(model.weights_path, "SHA-256 is " + model.sha256 + ", expected " + (expected.empty() ? "a digest in config.json" : expected) +
                                          "; the file was changed or damaged after the model was saved");
  }
  model.weights = io::read_safetensors(model.weights_path);
  for (const char* key : {"network", "config"})
    if (json.contains(key)) model.network[key] = json[key];
  return model;
}

std::string recipe_of(const fs::path& path) {
  const auto json = read_description(path);
  return recipe_name(json.value("recipe", io::Json::object()));
}

LoadedModel load_model(const fs::path& path) {
  auto opened = open_model(path);
  if (const auto recipe = recipe_name(opened.recipe); recipe != "segment" && recipe != "import" && recipe != "pretrain")
    throw ArgumentError(path.string() + ": a model of the recipe '" + recipe + "', expected a network of voxels");
  LoadedModel model;
  model.config = network_from_json(opened.network, (path / kConfigFile).string());
  model.recipe = std::move(opened.recipe);
  model.sha256 = std::move(opened.sha256);
  model.network = models::make_network(model.config);
  load_weights(*model.network, opened.weights, opened.weights_path.string());
  model.network->eval();
  return model;
}

}  // namespace fovea::infer
