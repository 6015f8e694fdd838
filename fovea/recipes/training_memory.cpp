#include "fovea/recipes/training_memory.h"

#include <algorithm>
#include <memory>

#include "fovea/infer/network_json.h"
#include "fovea/models/registry.h"

namespace fovea::recipes {

namespace {
constexpr double kMiB = 1 << 20;
constexpr double kProgramBytes = 165 * kMiB;
constexpr double kMostCaseBytes = double(int64_t{1} << 30);  // LoaderOptions::cache_bytes
constexpr double kBatchesAhead = 5;                          // LoaderOptions::queue, and the one in work

// What forward keeps of a voxel: feature maps at full resolution (maps of half the edge and twice the channels add a
// quarter, and so on down), or, with many classes, the scores and what the loss makes of them.
double decoder_bytes(double features, double classes) {
  return std::max(52 * features + 60, 36 * features + 10 * classes);
}

// What a transformer block keeps of a token and channel: 16 numbers.
double token_bytes(double tokens, double channels, double blocks) { return 16 * 4 * tokens * channels * blocks; }

double step_bytes(const models::SwinUnetrConfig& c, const data::TrainingSize& size) {
  return size.step_voxels() * decoder_bytes(double(c.feature_size), double(size.classes));
}

double step_bytes(const models::UnetrConfig& c, const data::TrainingSize& size) {
  constexpr double kPatchVoxels = 16 * 16 * 16, kBlocks = 12;
  return size.step_voxels() * decoder_bytes(double(c.feature_size), double(size.classes)) +
         token_bytes(size.step_voxels() / kPatchVoxels, double(c.hidden_size), kBlocks);
}

double step_bytes(const models::MaskedAutoencoderConfig& c, const data::TrainingSize& size) {
  double patch_voxels = 1;
  for (const int64_t edge : c.patch_size) patch_voxels *= double(edge);
  const double tokens = size.step_voxels() / patch_voxels;
  return size.step_voxels() * 8 * double(size.channels) + token_bytes(tokens, double(c.hidden_size), double(c.num_layers)) +
         token_bytes(tokens, double(c.decoder_hidden_size), double(c.decoder_num_layers));
}

int64_t peak_bytes(const models::NetworkConfig& network, int64_t parameters, const data::TrainingSize& size,
                   const TrainingMemoryOptions& options) {
  const double weights = 4 * double(parameters), channels = double(size.channels), states = options.averaged ? 4 : 3;
  const double cases = std::min(kMostCaseBytes, size.all_scan_voxels * (4 * channels + 1)) +
                       kBatchesAhead * size.step_voxels() * (4 * channels + 8);
  const double step = std::visit([&](const auto& config) { return step_bytes(config, size); }, network);
  const double checkpoint = (1 + states) * weights;  // gradients, and the copy that is written, when no step is in work
  return int64_t(kProgramBytes + cases + states * weights + std::max(step * (options.bf16 ? 1.3 : 1), checkpoint));
}
}  // namespace

data::MemoryEstimate training_memory_estimate(const std::string& network, const nlohmann::ordered_json& config,
                                              const TrainingMemoryOptions& options) {
  const auto given = infer::network_from_json({{"network", network}, {"config", config}}, "plan");
  const auto parameters = std::make_shared<int64_t>(0);
  return [given, parameters, options](const data::TrainingSize& size) {
    auto whole = given;
    models::set_channels(whole, size.channels, std::max<int64_t>(size.classes, 1));  // scans without labels have none
    models::set_image_size(whole, {size.patch.begin(), size.patch.end()});
    if (*parameters == 0) *parameters = models::make_network(whole)->parameter_count();
    return peak_bytes(whole, *parameters, size, options);
  };
}

}  // namespace fovea::recipes
