// Deformable attention on vectors.
//   Vectors run along the channels; a location's 2 or 4 (3-D: 8) corners are rows of value somewhere in memory.
//     forward   a query and head: its corners of all levels and points are listed with their weights, then summed as
//               weighted rows while the sums stay in registers. Queries in parallel.
//     backward  1. weights and locations: the same list, <dO, row> of each entry, combined point by point. Queries in
//                  parallel.
//               2. value: dV[row] += weight dO. Whoever has a (sample, head) adds all its queries in order; where there
//                  are few of them, 16 channels each go to different threads, which changes no sum.
//   Corners are computed in double: in float, location * size - 1/2 would be off by up to size * 6e-8 of a pixel.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fovea/kernels/cpu/deformable_attention.cpp"
#include "fovea/kernels/cpu/targets.h"

#include "hwy/foreach_target.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "fovea/kernels/cpu/weighted_rows-inl.h"
#include "fovea/kernels/deformable_attention.h"

#ifndef FOVEA_DEFORMABLE_ATTENTION_ONCE
#define FOVEA_DEFORMABLE_ATTENTION_ONCE
namespace fovea::kernels::cpu::deformable {

constexpr int64_t kWorkPerTask = 1 << 16;  // multiplications

/// A level's first row and its sizes along x, y, z (1 in 2-D).
struct Level {
  int64_t start, size[3];
};

struct Call {
  int64_t B, S, H, C, Q, K, D;
  std::vector<Level> levels;

  explicit Call(const DeformableAttentionParams<float>& p)
      : B(p.value.shape[0]),
        S(p.value.shape[1]),
        H(p.value.shape[2]),
        C(p.value.shape[3]),
        Q(p.weights.shape[1]),
        K(p.weights.shape[4]),
        D(p.spatial_shapes.shape[1]) {
    for (int64_t l = 0, start = 0; l < p.spatial_shapes.shape[0]; ++l) {
      Level level{start, {1, 1, 1}};
      for (int64_t axis = 0; axis < D; ++axis) level.size[axis] = p.spatial_shapes(l, D - 1 - axis);
      start += level.size[0] * level.size[1] * level.size[2];
      levels.push_back(level);
    }
  }
  int64_t points() const { return static_cast<int64_t>(levels.size()) * K; }
  int64_t most_corners() const { return points() << D; }
  int64_t grain() const { return std::max<int64_t>(1, kWorkPerTask / std::max<int64_t>(1, H * most_corners() * C)); }
};

}  // namespace fovea::kernels::cpu::deformable
#endif  // FOVEA_DEFORMABLE_ATTENTION_ONCE

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace deformed {
using cpu::deformable::Call;
using cpu::deformable::Level;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A row of value, its interpolation weight and that weight's derivative by x, y, z of the location.
struct Corner {
  int64_t row;
  float weight, slope[3];
};

// The corners of a location that lie inside the level; returns how many, or -1 if a coordinate is NaN.
HWY_INLINE int corners_of(const Level& level, int64_t D, const float* location, int64_t step, Corner* corner) {
  double share[3][2] = {{1, 0}, {1, 0}, {1, 0}};
  int64_t low[3] = {0, 0, 0};
  bool near = true, spoilt = false;
  for (int64_t axis = 0; axis < D; ++axis) {
    const double size = static_cast<double>(level.size[axis]), x = double{location[axis * step]} * size - 0.5;
    spoilt |= x != x;
    if (!(x > -1 && x < size)) {
      near = false;
      continue;
    }
    low[axis] = static_cast<int64_t>(x + 1) - 1;  // floor: x + 1 > 0
    share[axis][1] = x - static_cast<double>(low[axis]), share[axis][0] = 1 - share[axis][1];
  }
  if (spoilt) return -1;
  if (!near) return 0;
  int n = 0;
  for (int z = 0; z < (D == 3 ? 2 : 1); ++z) {
    const int64_t at_z = low[2] + z;
    if (at_z < 0 || at_z >= level.size[2]) continue;
    for (int y = 0; y < 2; ++y) {
      const int64_t at_y = low[1] + y;
      if (at_y < 0 || at_y >= level.size[1]) continue;
      const double yz = share[1][y] * share[2][z];
      for (int x = 0; x < 2; ++x) {
        const int64_t at_x = low[0] + x;
        if (at_x < 0 || at_x >= level.size[0]) continue;
        const double along_x = share[0][x];
        corner[n++] = {
            level.start + (at_z * level.size[1] + at_y) * level.size[0] + at_x,
            static_cast<float>(along_x * yz),
            {static_cast<float>(static_cast<double>(x ? level.size[0] : -level.size[0]) * yz),
             static_cast<float>(static_cast<double>(y ? level.size[1] : -level.size[1]) * along_x * share[2][z]),
             static_cast<float>(static_cast<double>(z ? level.size[2] : -level.size[2]) * along_x * share[1][y])}};
      }
    }
  }
  return n;
}

// Calls body(l, k, corners, count) for every point of (b, q, h); count as corners_of() returns it.
template <class Body>
HWY_INLINE void for_points(const Call& call, const DeformableAttentionParams<float>& p, int64_t b, int64_t q, int64_t h,
                           const Body& body) {
  const auto& stride = p.locations.stride;
  Corner corner[8];
  for (int64_t l = 0; l < static_cast<int64_t>(call.levels.size()); ++l)
    for (int64_t k = 0; k < call.K; ++k) {
      const float* location =
          p.locations.data + b * stride[0] + q * stride[1] + h * stride[2] + l * stride[3] + k * stride[4];
      body(l, k, corner, corners_of(call.levels[l], call.D, location, stride[5], corner));
    }
}

void Forward(const DeformableAttentionParams<float>& p, const ParallelFor& parallel) {
  const Call call(p);
  const int channels = static_cast<int>(call.C);
  parallel(call.B * call.Q, call.grain(), [&](int64_t first, int64_t last) {
    const FlushDenormals flush;
    std::vector<const float*> rows(call.most_corners());
    std::vector<float> weights(rows.size());
    for (int64_t item = first; item < last; ++item) {
      const int64_t b = item / call.Q, q = item % call.Q;
      for (int64_t h = 0; h < call.H; ++h) {
        const float* value = p.value.data + b * p.value.stride[0] + h * p.value.stride[2];
        int n = 0;
        bool spoilt = false;
        for_points(call, p, b, q, h, [&](int64_t l, int64_t k, const Corner* corner, int count) {
          spoilt |= count < 0;
          const float weight = p.weights(b, q, h, l, k);
          for (int i = 0; i < count; ++i, ++n)
            rows[n] = value + corner[i].row * p.value.stride[1], weights[n] = weight * corner[i].weight;
        });
        float* out = p.out.data + b * p.out.stride[0] + q * p.out.stride[1] + h * p.out.stride[2];
        if (spoilt)
          Fill(out, call.C, kNaN);
        else
          SumRows<false>({rows.data(), n, weights.data(), 0}, 1, out, 0, channels);
      }
    }
  });
}

// grad_weights and grad_locations.
void backward_points(const Call& call, const DeformableAttentionBackwardParams<float>& g, const ParallelFor& parallel) {
  const auto& p = g.forward;
  const int channels = static_cast<int>(call.C);
  struct Point {
    int first, count;
  };
  parallel(call.B * call.Q, call.grain(), [&](int64_t first, int64_t last) {
    const FlushDenormals flush;
    std::vector<Corner> corners(call.most_corners());
    std::vector<const float*> rows(corners.size());
    std::vector<float> product(corners.size());
    std::vector<Point> points(call.points());
    for (int64_t item = first; item < last; ++item) {
      const int64_t b = item / call.Q, q = item % call.Q;
      for (int64_t h = 0; h < call.H; ++h) {
        const float* value = p.value.data + b * p.value.stride[0] + h * p.value.stride[2];
        int n = 0;
        for_points(call, p, b, q, h, [&](int64_t l, int64_t k, const Corner* corner, int count) {
          points[l * call.K + k] = {n, count};
          for (int i = 0; i < count; ++i, ++n)
            corners[n] = corner[i], rows[n] = value + corner[i].row * p.value.stride[1];
        });
        const float* grad_out =
            g.grad_out.data + b * g.grad_out.stride[0] + q * g.grad_out.stride[1] + h * g.grad_out.stride[2];
        DotRows(rows.data(), n, grad_out, 0, 1, channels, product.data(), 0);
        // out = w sum_i s_i v_i   =>   dw = sum_i s_i <dO, v_i>,   dx = w sum_i ds_i/dx <dO, v_i>
        for (int64_t l = 0; l < static_cast<int64_t>(call.levels.size()); ++l)
          for (int64_t k = 0; k < call.K; ++k) {
            const Point& point = points[l * call.K + k];
            double grad_weight = point.count < 0 ? kNaN : 0, slope[3] = {grad_weight, grad_weight, grad_weight};
            for (int i = point.first; i < point.first + point.count; ++i) {
              grad_weight += double{corners[i].weight} * product[i];
              for (int axis = 0; axis < 3; ++axis) slope[axis] += double{corners[i].slope[axis]} * product[i];
            }
            g.grad_weights(b, q, h, l, k) = static_cast<float>(grad_weight);
            const double weight = p.weights(b, q, h, l, k);
            for (int64_t axis = 0; axis < call.D; ++axis)
              g.grad_locations(b, q, h, l, k, axis) = static_cast<float>(weight * slope[axis]);
          }
      }
    }
  });
}

void backward_value(const Call& call, const DeformableAttentionBackwardParams<float>& g, const ParallelFor& parallel) {
  constexpr int64_t kItemsWanted = 16, kChannelBlock = 16;
  const int64_t block = call.B * call.H < kItemsWanted ? kChannelBlock : std::max<int64_t>(1, call.C);
  const int64_t blocks = (call.C + block - 1) / block;
  parallel(call.B * call.H * blocks, 1, [&](int64_t first, int64_t last) {
    const FlushDenormals flush;
    for (int64_t item = first; item < last; ++item) {
      const int64_t b = item / blocks / call.H, h = item / blocks % call.H, c = item % blocks * block;
      const int channels = static_cast<int>(std::min(block, call.C - c));
      float* grad_value = g.grad_value.data + b * g.grad_value.stride[0] + h * g.grad_value.stride[2] + c;
      const float* grad_out = g.grad_out.data + b * g.grad_out.stride[0] + h * g.grad_out.stride[2] + c;
      for (int64_t s = 0; s < call.S; ++s) Fill(grad_value + s * g.grad_value.stride[1], channels, 0);
      for (int64_t q = 0; q < call.Q; ++q)
        for_points(call, g.forward, b, q, h, [&](int64_t l, int64_t k, const Corner* corner, int count) {
          const float weight = g.forward.weights(b, q, h, l, k);
          for (int i = 0; i < count; ++i)
            AddRow(grad_out + q * g.grad_out.stride[1], weight * corner[i].weight, channels,
                   grad_value + corner[i].row * g.grad_value.stride[1]);
        });
    }
  });
}

void Backward(const DeformableAttentionBackwardParams<float>& g, const ParallelFor& parallel) {
  const Call call(g.forward);
  if (g.grad_weights.data) backward_points(call, g, parallel);
  if (g.grad_value.data) backward_value(call, g, parallel);
}

}  // namespace deformed
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS

#if HWY_ONCE
namespace fovea::kernels::cpu {

void deformable_attention_forward(const DeformableAttentionParams<float>& p, const ParallelFor& parallel, Isa isa) {
  FOVEA_RETURN_BEST(isa, deformed::Forward, p, parallel)
  reference::deformable_attention_forward(p, parallel);
}

void deformable_attention_backward(const DeformableAttentionBackwardParams<float>& g, const ParallelFor& parallel,
                                   Isa isa) {
  FOVEA_RETURN_BEST(isa, deformed::Backward, g, parallel)
  reference::deformable_attention_backward(g, parallel);
}

}  // namespace fovea::kernels::cpu
#endif  // HWY_ONCE
