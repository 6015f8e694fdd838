#include "fovea/models/network.h"

#include <sstream>

#include "fovea/core/error.h"

namespace fovea::models {

void NetworkImpl::check_input(const torch::Tensor& x) const {
  const Triple multiple = size_multiple();
  bool fits = x.dim() == 5 && x.size(1) == in_channels();
  for (int axis = 0; fits && axis < 3; ++axis) fits = x.size(axis + 2) > 0 && x.size(axis + 2) % multiple[axis] == 0;
  if (fits) return;
  std::ostringstream line;
  line << "network input is " << x.sizes() << ", expected [B," << in_channels() << ",Z,Y,X] with Z, Y, X multiples of " << multiple[0] << ", "
       << multiple[1] << ", " << multiple[2] << "; pad or crop the volume";
  throw ArgumentError(line.str());
}

int64_t NetworkImpl::parameter_count() const {
  int64_t count = 0;
  for (const auto& parameter : parameters()) count += parameter.numel();
  return count;
}

}  // namespace fovea::models
