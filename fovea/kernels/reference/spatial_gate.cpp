#include "fovea/kernels/spatial_gate.h"

#include <cmath>
#include <vector>

namespace fovea::kernels::reference {

template <class T>
void channel_pool_forward(const ChannelPoolParams<T>& p, const ParallelFor& parallel) {
  const int64_t V = p.x.shape[1], C = p.x.shape[2];
  parallel(p.x.shape[0] * V, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / V, v = item % V;
      T largest = p.x(b, v, 0);
      double sum = 0;
      for (int64_t c = 0; c < C; ++c) {
        const T x = p.x(b, v, c);
        if (x > largest || x != x) largest = x;
        sum += x;
      }
      p.out(b, 0, v) = largest;
      p.out(b, 1, v) = static_cast<T>(sum / static_cast<double>(C));
    }
  });
}

template <class T>
void channel_pool_backward(const ChannelPoolBackwardParams<T>& p, const ParallelFor& parallel) {
  const auto& x = p.forward.x;
  const int64_t V = x.shape[1], C = x.shape[2];
  parallel(x.shape[0] * V, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / V, v = item % V;
      const T largest = p.forward.out(b, 0, v);
      double alike = 0;
      for (int64_t c = 0; c < C; ++c) alike += x(b, v, c) == largest;
      const double of_mean = p.grad_out(b, 1, v) / static_cast<double>(C);
      for (int64_t c = 0; c < C; ++c)
        p.grad_x(b, v, c) = static_cast<T>(of_mean + (x(b, v, c) == largest ? p.grad_out(b, 0, v) / alike : 0));
    }
  });
}

template <class T>
void spatial_gate_forward(const SpatialGateParams<T>& p, const ParallelFor& parallel) {
  const auto [B, Z, Y, X, C] = p.x.shape;
  const int64_t V = Z * Y * X, kz = p.weight.shape[1], ky = p.weight.shape[2], kx = p.weight.shape[3];
  std::vector<T> pooled(static_cast<size_t>(2 * B * V));
  const auto pool = View<T, 5>::contiguous(pooled.data(), {B, 2, Z, Y, X});
  channel_pool_forward<T>({View<const T, 3>::contiguous(p.x.data, {B, V, C}),
                           View<T, 3>::contiguous(pooled.data(), {B, 2, V})},
                          parallel);
  parallel(B * V, 1, [&, Z = Z, Y = Y, X = X, C = C](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / V, z = item / (Y * X) % Z, y = item / X % Y, x = item % X;
      double sum = 0;
      for (int64_t i = 0; i < 2; ++i)
        for (int64_t tz = 0; tz < kz; ++tz)
          for (int64_t ty = 0; ty < ky; ++ty)
            for (int64_t tx = 0; tx < kx; ++tx) {
              const int64_t uz = z + tz - kz / 2, uy = y + ty - ky / 2, ux = x + tx - kx / 2;
              if (uz < 0 || uz >= Z || uy < 0 || uy >= Y || ux < 0 || ux >= X) continue;
              sum += double{p.weight(i, tz, ty, tx)} * pool(b, i, uz, uy, ux);
            }
      const double map = 1 / (1 + std::exp(-(p.scale * sum + p.shift)));
      p.map(b, z, y, x) = static_cast<T>(map);
      for (int64_t c = 0; c < C; ++c) p.out(b, z, y, x, c) = static_cast<T>(map * p.x(b, z, y, x, c));
    }
  });
}

template void channel_pool_forward(const ChannelPoolParams<float>&, const ParallelFor&);
template void channel_pool_forward(const ChannelPoolParams<double>&, const ParallelFor&);
template void channel_pool_backward(const ChannelPoolBackwardParams<float>&, const ParallelFor&);
template void channel_pool_backward(const ChannelPoolBackwardParams<double>&, const ParallelFor&);
template void spatial_gate_forward(const SpatialGateParams<float>&, const ParallelFor&);
template void spatial_gate_forward(const SpatialGateParams<double>&, const ParallelFor&);

}  // namespace fovea::kernels::reference
