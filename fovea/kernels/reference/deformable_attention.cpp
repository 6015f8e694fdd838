// Definition of deformable attention: one location at a time, one of its 2^D corners after the other.
#include "fovea/kernels/deformable_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace fovea::kernels::reference {

namespace {

// One corner of the cell that a location lies in: a row of value, its interpolation weight, and the derivative of that
// weight by each coordinate of the location.
struct Corner {
  int64_t row;
  double weight;
  double slope[3];
};

// The corners of one location that lie inside the level whose first row is `start`. None, and a NaN in `spoilt`, if a
// coordinate is NaN.
template <class T>
std::vector<Corner> corners(const DeformableAttentionParams<T>& p, int64_t level, int64_t start,
                            const View<const T, 1>& location, double& spoilt) {
  const int64_t D = location.shape[0];
  double low[3], fraction[3], size[3];
  bool near = true;
  for (int64_t axis = 0; axis < D; ++axis) {  // 0: x, the last axis of the level
    size[axis] = static_cast<double>(p.spatial_shapes(level, D - 1 - axis));
    const double coordinate = double(location(axis)) * size[axis] - 0.5;
    if (std::isnan(coordinate)) spoilt = std::numeric_limits<double>::quiet_NaN();
    near = near && coordinate > -1 && coordinate < size[axis];
    low[axis] = std::floor(coordinate), fraction[axis] = coordinate - low[axis];
  }
  if (!near) return {};
  std::vector<Corner> all;
  for (int corner = 0; corner < 1 << D; ++corner) {
    Corner c{0, 1, {1, 1, 1}};
    bool inside = true;
    for (int64_t axis = D - 1; axis >= 0; --axis) {
      const bool high = corner >> axis & 1;
      const double at = low[axis] + high;
      inside = inside && at >= 0 && at < size[axis];
      c.row = c.row * static_cast<int64_t>(size[axis]) + static_cast<int64_t>(at);
      const double share = high ? fraction[axis] : 1 - fraction[axis];
      c.weight *= share;
      for (int64_t other = 0; other < D; ++other)
        c.slope[other] *= other == axis ? (high ? size[axis] : -size[axis]) : share;
    }
    c.row += start;
    if (inside) all.push_back(c);
  }
  return all;
}

// Calls body(l, k, start of level l) for every level and point.
template <class T, class Body>
void for_points(const DeformableAttentionParams<T>& p, const Body& body) {
  const int64_t levels = p.spatial_shapes.shape[0], D = p.spatial_shapes.shape[1], K = p.weights.shape[4];
  for (int64_t l = 0, start = 0; l < levels; ++l) {
    for (int64_t k = 0; k < K; ++k) body(l, k, start);
    int64_t size = 1;
    for (int64_t axis = 0; axis < D; ++axis) size *= p.spatial_shapes(l, axis);
    start += size;
  }
}

}  // namespace

template <class T>
void deformable_attention_forward(const DeformableAttentionParams<T>& p, const ParallelFor& parallel) {
  const int64_t Q = p.weights.shape[1], H = p.weights.shape[2], C = p.value.shape[3];
  parallel(p.value.shape[0] * Q * H, 1, [&](int64_t first, int64_t last) {
    std::vector<double> sum(C);
    for (int64_t item = first; item < last; ++item) {
      const int64_t b = item / H / Q, q = item / H % Q, h = item % H;
      std::fill(sum.begin(), sum.end(), 0.0);
      for_points(p, [&](int64_t l, int64_t k, int64_t start) {
        double spoilt = 0;
        const auto cell = corners(p, l, start, p.locations[b][q][h][l][k], spoilt);
        for (int64_t c = 0; c < C; ++c) {
          double sample = spoilt;
          for (const Corner& at : cell) sample += at.weight * double(p.value(b, at.row, h, c));
          sum[c] += double(p.weights(b, q, h, l, k)) * sample;
        }
      });
      for (int64_t c = 0; c < C; ++c) p.out(b, q, h, c) = static_cast<T>(sum[c]);
    }
  });
}

template <class T>
void deformable_attention_backward(const DeformableAttentionBackwardParams<T>& g, const ParallelFor& parallel) {
  const auto& p = g.forward;
  const auto [B, S, H, C] = p.value.shape;
  const int64_t Q = p.weights.shape[1], D = p.spatial_shapes.shape[1];
  parallel(B * H, 1, [&, S = S, H = H, C = C](int64_t first, int64_t last) {
    std::vector<double> grad_value;
    for (int64_t item = first; item < last; ++item) {
      const int64_t b = item / H, h = item % H;
      grad_value.assign(S * C, 0);
      for (int64_t q = 0; q < Q; ++q)
        for_points(p, [&](int64_t l, int64_t k, int64_t start) {
          // out_c += w sum_i s_i v_ic   =>   dw = sum_i s_i <g, v_i>,   dx = w sum_i ds_i/dx <g, v_i>,
          //                                  dv_ic += w s_i g_c
          const double weight = p.weights(b, q, h, l, k);
          double spoilt = 0;
          const auto cell = corners(p, l, start, p.locations[b][q][h][l][k], spoilt);
          double grad_weight = spoilt, slope[3] = {spoilt, spoilt, spoilt};
          for (const Corner& at : cell) {
            double product = 0;  // <g, v_i>
            for (int64_t c = 0; c < C; ++c) {
              const double upstream = g.grad_out(b, q, h, c);
              product += upstream * double(p.value(b, at.row, h, c));
              grad_value[at.row * C + c] += weight * at.weight * upstream;
            }
            grad_weight += at.weight * product;
            for (int64_t axis = 0; axis < D; ++axis) slope[axis] += at.slope[axis] * product;
          }
          if (!g.grad_weights.data) return;
          g.grad_weights(b, q, h, l, k) = static_cast<T>(grad_weight);
          for (int64_t axis = 0; axis < D; ++axis)
            g.grad_locations(b, q, h, l, k, axis) = static_cast<T>(weight * slope[axis]);
        });
      for (int64_t s = 0; s < S && g.grad_value.data; ++s)
        for (int64_t c = 0; c < C; ++c) g.grad_value(b, s, h, c) = static_cast<T>(grad_value[s * C + c]);
    }
  });
}

template void deformable_attention_forward(const DeformableAttentionParams<float>&, const ParallelFor&);
template void deformable_attention_forward(const DeformableAttentionParams<double>&, const ParallelFor&);
template void deformable_attention_backward(const DeformableAttentionBackwardParams<float>&, const ParallelFor&);
template void deformable_attention_backward(const DeformableAttentionBackwardParams<double>&, const ParallelFor&);

}  // namespace fovea::kernels::reference
