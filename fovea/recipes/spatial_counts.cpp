#include "fovea/recipes/spatial_counts.h"

#include <array>

#include "fovea/nn/cbam.h"

namespace fovea::recipes {

namespace {
int64_t count(const torch::nn::Module& module) {
  int64_t n = 0;
  for (const auto& p : module.parameters()) n += p.numel();
  return n;
}
}  // namespace

int64_t gate_weights(int64_t kernel, int64_t axes) {
  return nn::SpatialGate(nn::SpatialGateOptions().kernel(kernel).axes(axes))->weight.numel();
}

CbamCounts cbam_of_resnet50() {
  constexpr std::array<std::array<int64_t, 2>, 4> kStages = {{{256, 3}, {512, 4}, {1024, 6}, {2048, 3}}};
  CbamCounts counts;
  for (const auto& [channels, blocks] : kStages) {
    const nn::Cbam cbam(nn::CbamOptions(channels).gate(nn::SpatialGateOptions().axes(2)));
    counts.all += blocks * count(*cbam), counts.spatial += blocks * count(*cbam->spatial_gate);
  }
  return counts;
}

}  // namespace fovea::recipes
