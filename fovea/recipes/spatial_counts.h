#pragma once
#include <cstdint>

namespace fovea::recipes {

/// Weights of a spatial gate's convolution, counted in the layer: 2 k^axes.
int64_t gate_weights(int64_t kernel, int64_t axes);

/// Parameters of the 16 CBAM of ResNet-50 (3, 4, 6, 3 blocks of 256, 512, 1024, 2048 channels), counted in the layers.
struct CbamCounts {
  int64_t all = 0, spatial = 0;
};
CbamCounts cbam_of_resnet50();

}  // namespace fovea::recipes
