#include "fovea/data/onto_grid.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/data/voxels.h"

namespace fovea::data {

namespace {
using Index = std::array<double, 3>;  // x, y, z

// The source index of a voxel of the grid: both maps to millimetres are affine, so this is, too.
struct Composed {
  Index origin, step_x, step_y, step_z;

  Composed(const Geometry& grid, const Geometry& source) {
    const auto at = [&](double x, double y, double z) { return source.to_index(grid.to_mm({x, y, z})); };
    origin = at(0, 0, 0);
    const auto minus = [&](const Point& p) { return Index{p[0] - origin[0], p[1] - origin[1], p[2] - origin[2]}; };
    step_x = minus(at(1, 0, 0)), step_y = minus(at(0, 1, 0)), step_z = minus(at(0, 0, 1));
  }
  Index operator()(int64_t z, int64_t y, int64_t x) const {
    Index p;
    for (size_t a = 0; a < 3; ++a)
      p[a] = origin[a] + double(x) * step_x[a] + double(y) * step_y[a] + double(z) * step_z[a];
    return p;
  }
};

template <class T>
double linear_at(const View<const T, 3>& v, const Index& p) {
  std::array<int64_t, 3> low, high;
  std::array<double, 3> share;
  for (size_t a = 0; a < 3; ++a) {
    const int64_t last = v.shape[2 - a] - 1;
    const double inside = std::clamp(p[a], 0.0, double(last));
    low[a] = int64_t(inside), high[a] = std::min(low[a] + 1, last), share[a] = inside - double(low[a]);
  }
  double sum = 0;
  for (int corner = 0; corner < 8; ++corner) {
    double weight = 1;
    std::array<int64_t, 3> i;
    for (size_t a = 0; a < 3; ++a) {
      const bool upper = corner >> a & 1;
      weight *= upper ? share[a] : 1 - share[a], i[a] = upper ? high[a] : low[a];
    }
    if (weight > 0) sum += weight * double(v(i[2], i[1], i[0]));
  }
  return sum;
}

template <class T>
T nearest_at(const View<const T, 3>& v, const Index& p) {
  std::array<int64_t, 3> i;
  for (size_t a = 0; a < 3; ++a) i[a] = std::clamp<int64_t>(int64_t(std::floor(p[a] + 0.5)), 0, v.shape[2 - a] - 1);
  return v(i[2], i[1], i[0]);
}

// Calls f(place in the output, source index) for every voxel that the source covers; returns how many it does not.
template <class F>
int64_t each_covered(const Geometry& grid, const Geometry& source, const ParallelFor& parallel, const F& f) {
  constexpr double kRounding = 1e-6;  // voxels: equal borders of two grids are equal
  const Composed index(grid, source);
  std::atomic<int64_t> outside{0};
  parallel(grid.shape[0], 1, [&](int64_t begin, int64_t end) {
    int64_t missed = 0;
    for (int64_t z = begin; z < end; ++z)
      for (int64_t y = 0; y < grid.shape[1]; ++y)
        for (int64_t x = 0; x < grid.shape[2]; ++x) {
          const Index p = index(z, y, x);
          bool covered = true;
          for (size_t a = 0; a < 3; ++a)
            covered = covered && p[a] >= -0.5 - kRounding && p[a] <= double(source.shape[2 - a]) - 0.5 + kRounding;
          if (covered)
            f((z * grid.shape[1] + y) * grid.shape[2] + x, p);
          else
            ++missed;
        }
    outside += missed;
  });
  return outside;
}
}  // namespace

OntoGrid onto_grid(const Volume& source, const Geometry& grid, Interpolation interpolation,
                   const ParallelFor& parallel) {
  if (source.geometry.is_singular() || grid.is_singular())
    throw ArgumentError("the affine is singular; " + to_string(source.geometry.is_singular() ? source.geometry : grid));
  OntoGrid out;
  out.volume =
      Volume::zeros(grid, interpolation == Interpolation::kLinear ? DType::kF32 : source.dtype, source.channels);
  int64_t outside = 0;
  for (int64_t c = 0; c < source.channels; ++c)
    visit_channel(source, c, [&](auto view) {
      using T = std::remove_cv_t<std::remove_pointer_t<decltype(view.data)>>;
      if (interpolation == Interpolation::kNearest) {
        T* to = out.volume.as<T>().data() + c * grid.voxels();
        outside = each_covered(grid, source.geometry, parallel,
                               [&](int64_t at, const Index& p) { to[at] = nearest_at(view, p); });
        return;
      }
      float* to = out.volume.as<float>().data() + c * grid.voxels();
      std::fill(to, to + grid.voxels(), float(*std::min_element(view.data, view.data + view.size())));
      outside = each_covered(grid, source.geometry, parallel,
                             [&](int64_t at, const Index& p) { to[at] = float(linear_at(view, p)); });
    });
  if (outside == grid.voxels())
    throw ArgumentError("the two grids do not overlap: " + to_string(source.geometry) + "; and " + to_string(grid));
  out.outside_share = double(outside) / double(grid.voxels());
  return out;
}

}  // namespace fovea::data
