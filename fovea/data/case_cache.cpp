#include "fovea/data/case_cache.h"

#include <cstring>

#include "fovea/core/error.h"
#include "fovea/core/version.h"
#include "fovea/data/label_values.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/io/config.h"
#include "fovea/io/safetensors.h"
#include "fovea/io/sha256.h"

namespace fovea::data {

namespace {

namespace fs = std::filesystem;

std::string digest(const std::string& text) {
  return io::sha256_hex(std::as_bytes(std::span(text.data(), text.size())));
}

void index_foreground(TrainingCase& one, int64_t classes) {
  for (int a = 0; a < 3; ++a) one.shape[a] = one.image.size(a + 1);
  if (!one.label.defined()) return;
  if (one.label.scalar_type() == torch::kByte)
    one.foreground =
        ForegroundIndex::of(View<const uint8_t, 3>::contiguous(one.label.data_ptr<uint8_t>(), one.shape), classes);
  else
    one.foreground =
        ForegroundIndex::of(View<const int16_t, 3>::contiguous(one.label.data_ptr<int16_t>(), one.shape), classes);
}

}  // namespace

int64_t TrainingCase::bytes() const {
  int64_t total = static_cast<int64_t>(image.nbytes());
  if (label.defined()) total += static_cast<int64_t>(label.nbytes());
  for (const auto& voxels : foreground.voxels) total += static_cast<int64_t>(voxels.size() * sizeof(int64_t));
  return total;
}

CaseCache::CaseCache(std::vector<Case> cases, Plan plan, int64_t max_bytes, fs::path folder)
    : cases_(std::move(cases)),
      plan_(std::move(plan)),
      max_bytes_(max_bytes),
      folder_(std::move(folder)),
      kept_(cases_.size()),
      busy_(cases_.size()) {
  plan_.validate();
  if (folder_.empty()) return;
  fs::create_directories(folder_);
  // Only what preprocessing depends on: another batch size must not throw the cache away.
  const auto json = io::to_json(plan_);
  io::Json relevant;
  for (const char* name : {"orientation", "spacing_mm", "crop_to_nonzero", "image_resampling", "label_resampling",
                           "normalisation", "labels"})
    relevant[name] = json.at(name);
  plan_key_ = digest(std::string(kVersion) + relevant.dump());
}

std::string CaseCache::key(const Case& one) const {
  std::string facts = plan_key_;
  const auto add = [&](const fs::path& path) {
    std::error_code failed;
    facts += "|" + fs::absolute(path).string() + "|" + std::to_string(fs::file_size(path, failed)) + "|" +
             std::to_string(fs::last_write_time(path, failed).time_since_epoch().count());
  };
  for (const auto& path : one.images) add(path);
  if (!one.label.empty()) add(one.label);
  return digest(facts).substr(0, 16);
}

std::shared_ptr<const TrainingCase> CaseCache::load(int64_t i) {
  const Case& one = cases_[i];
  auto made = std::make_shared<TrainingCase>();
  made->id = one.id;
  fs::path file;
  if (!folder_.empty()) {
    file = folder_ / (one.id + "-" + key(one) + ".safetensors");
    if (fs::exists(file)) {
      const auto tensors = io::read_safetensors(file);
      const auto find = [&](const char* name, DType dtype, size_t rank) {
        const auto found = tensors.find(name);
        if (found == tensors.end() || found->second.dtype != dtype || found->second.shape.size() != rank)
          throw IoError(file, std::string("holds no ") + name + " as expected of a preprocessed case; delete it");
        return found->second;
      };
      made->image = to_torch(find("image", DType::kF32, 4));
      if (!one.label.empty()) {
        made->label = to_torch(find("label", class_dtype(plan_.classes()), 3));
        if (made->label.sizes() != made->image[0].sizes())
          throw IoError(file, "label and image differ in shape; delete it");
      }
      const auto spacing = find("spacing_mm", DType::kF64, 1);
      if (spacing.size() != 3) throw IoError(file, "spacing_mm is not three numbers; delete it");
      std::memcpy(made->spacing_mm.data(), spacing.data.data(), sizeof made->spacing_mm);
      try {
        index_foreground(*made, plan_.classes());
      } catch (const ArgumentError& error) {
        throw IoError(file, std::string(error.what()) + "; delete it");
      }
      return made;
    }
  }
  Preprocessed p = preprocess(one, plan_);
  ++preprocessed_;
  made->image = p.image, made->label = p.label, made->spacing_mm = p.grid.spacing_mm();
  index_foreground(*made, plan_.classes());
  if (!file.empty()) {
    io::TensorMap tensors{{"image", from_torch(made->image)}};
    if (made->label.defined()) tensors["label"] = from_torch(made->label);
    tensors["spacing_mm"] = {DType::kF64, {3}, std::vector<std::byte>(sizeof made->spacing_mm)};
    std::memcpy(tensors["spacing_mm"].data.data(), made->spacing_mm.data(), sizeof made->spacing_mm);
    io::write_safetensors(file, tensors);
  }
  return made;
}

std::shared_ptr<const TrainingCase> CaseCache::get(int64_t i) {
  const std::lock_guard lock(busy_[i]);
  if (kept_[i]) return kept_[i];
  auto made = load(i);
  const int64_t bytes = made->bytes();
  if (bytes_.fetch_add(bytes) + bytes <= max_bytes_)
    kept_[i] = made;
  else
    bytes_.fetch_sub(bytes);
  return made;
}

}  // namespace fovea::data
