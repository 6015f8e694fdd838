#include "fovea/kernels/window_attention.h"

namespace fovea::kernels {

void window_tokens(const Triple& grid, const Triple& window, const Triple& shift, const Triple& index, int32_t* token,
                   int32_t* region) {
  const Triple counts = window_counts(grid, window);
  // Where position `local` of the window lies on one axis: grid coordinate (-1: padding) and region 0, 1 or 2. An axis
  // without shift is all region 2, so that ids equal those of MONAI's compute_mask number for number.
  const auto place = [&](int axis, int64_t local, int64_t& coordinate, int32_t& part) {
    const int64_t padded = counts[axis] * window[axis], rolled = index[axis] * window[axis] + local;
    coordinate = rolled + shift[axis] - (rolled + shift[axis] >= padded ? padded : 0);
    if (coordinate >= grid[axis]) coordinate = -1;
    part = shift[axis] == 0 || rolled >= padded - shift[axis] ? 2 : rolled >= padded - window[axis] ? 1 : 0;
  };
  int64_t z, y, x;
  int32_t rz, ry, rx;
  for (int64_t lz = 0, n = 0; lz < window[0]; ++lz) {
    place(0, lz, z, rz);
    for (int64_t ly = 0; ly < window[1]; ++ly) {
      place(1, ly, y, ry);
      for (int64_t lx = 0; lx < window[2]; ++lx, ++n) {
        place(2, lx, x, rx);
        token[n] = z < 0 || y < 0 || x < 0 ? -1 : static_cast<int32_t>((z * grid[1] + y) * grid[2] + x);
        region[n] = (rz * 3 + ry) * 3 + rx;
      }
    }
  }
}

void relative_position_index(const Triple& window, int32_t* out) {
  const int64_t wz = window[0], wy = window[1], wx = window[2], n = wz * wy * wx;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) {
      const int64_t dz = i / (wy * wx) - j / (wy * wx), dy = i / wx % wy - j / wx % wy, dx = i % wx - j % wx;
      out[i * n + j] = static_cast<int32_t>(((dz + wz - 1) * (2 * wy - 1) + dy + wy - 1) * (2 * wx - 1) + dx + wx - 1);
    }
}

}  // namespace fovea::kernels
