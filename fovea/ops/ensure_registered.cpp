#include "fovea/ops/ensure_registered.h"

namespace fovea::ops {

void ensure_registered() {}

}  // namespace fovea::ops
