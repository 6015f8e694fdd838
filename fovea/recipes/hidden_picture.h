#pragma once
#include <torch/torch.h>

#include "fovea/report/image.h"

namespace fovea::recipes {

/// A slice [Y,X] in grey from `low` to `high`, Y upwards, each voxel `zoom` pixels wide; patches that are not `shown` [y,x]
/// bool in one colour. shown undefined: all of them are.
report::Image grey_slice(const torch::Tensor& slice, double low, double high, int64_t zoom, const torch::Tensor& shown = {});

/// Three slices through the middle of a volume [Z,Y,X]: what it is, what of it was visible, and what was made of the rest.
/// shown [z,y,x] bool of patches; rebuilt [Z,Y,X], where visible patches are taken from the volume.
report::Image hidden_and_rebuilt(const torch::Tensor& volume, const torch::Tensor& shown, const torch::Tensor& rebuilt);

}  // namespace fovea::recipes
