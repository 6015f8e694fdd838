#include "fovea/kernels/conv3d.h"

namespace fovea::kernels::reference {
namespace {

// f(b, z, y, x) for every voxel of samples [first, last).
template <class F>
void for_voxels(const std::array<int64_t, 5>& shape, int64_t first, int64_t last, const F& f) {
  for (int64_t b = first; b < last; ++b)
    for (int64_t z = 0; z < shape[1]; ++z)
      for (int64_t y = 0; y < shape[2]; ++y)
        for (int64_t x = 0; x < shape[3]; ++x) f(b, z, y, x);
}

// f(i, j, k, z + i - 1, y + j - 1, x + k - 1) for the taps that lie in the volume.
template <class F>
void for_taps(const std::array<int64_t, 5>& shape, int64_t z, int64_t y, int64_t x, const F& f) {
  const auto inside = [](int64_t at, int64_t edge) { return at >= 0 && at < edge; };
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t j = 0; j < 3; ++j)
      for (int64_t k = 0; k < 3; ++k)
        if (inside(z + i - 1, shape[1]) && inside(y + j - 1, shape[2]) && inside(x + k - 1, shape[3]))
          f(i, j, k, z + i - 1, y + j - 1, x + k - 1);
}

}  // namespace

template <class T>
void conv3d_forward(const Conv3dParams<T>& p, const ParallelFor& parallel) {
  const int64_t B = p.x.shape[0], Ci = p.x.shape[4], Co = p.out.shape[4];
  parallel(Co, 1, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      for_voxels(p.out.shape, 0, B, [&](int64_t b, int64_t z, int64_t y, int64_t x) {
        double sum = p.bias.data ? p.bias(o) : 0;
        for_taps(p.x.shape, z, y, x, [&](int64_t i, int64_t j, int64_t k, int64_t zz, int64_t yy, int64_t xx) {
          for (int64_t c = 0; c < Ci; ++c) sum += double{p.weight(o, i, j, k, c)} * p.x(b, zz, yy, xx, c);
        });
        p.out(b, z, y, x, o) = static_cast<T>(sum);
      });
      if (!p.moments.data) continue;
      const double count = static_cast<double>(p.out.shape[1] * p.out.shape[2] * p.out.shape[3]);
      for (int64_t b = 0; b < B; ++b) {
        double sum = 0, squares = 0;
        for_voxels(p.out.shape, b, b + 1,
                   [&](int64_t, int64_t z, int64_t y, int64_t x) { sum += p.out(b, z, y, x, o); });
        for_voxels(p.out.shape, b, b + 1, [&](int64_t, int64_t z, int64_t y, int64_t x) {
          const double deviation = p.out(b, z, y, x, o) - sum / count;
          squares += deviation * deviation;
        });
        p.moments(b, o, 0) = sum / count;
        p.moments(b, o, 1) = squares;
      }
    }
  });
}

template <class T>
void conv3d_backward(const Conv3dBackwardParams<T>& g, const ParallelFor& parallel) {
  const auto& p = g.forward;
  const int64_t B = g.grad_out.shape[0], Ci = p.x.shape[4], Co = g.grad_out.shape[4];
  if (g.grad_x.data) {
    parallel(Ci, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c)
        for_voxels(g.grad_x.shape, 0, B, [&](int64_t b, int64_t z, int64_t y, int64_t x) {
          // out(v) reads x(v + t), so x(v) is read by out(v - t).
          double sum = 0;
          for_taps(g.grad_out.shape, z, y, x, [&](int64_t i, int64_t j, int64_t k, int64_t zz, int64_t yy, int64_t xx) {
            for (int64_t o = 0; o < Co; ++o)
              sum += double{p.weight(o, 2 - i, 2 - j, 2 - k, c)} * g.grad_out(b, zz, yy, xx, o);
          });
          g.grad_x(b, z, y, x, c) = static_cast<T>(sum);
        });
    });
  }
  if (g.grad_weight.data) {
    parallel(Co * Ci, 1, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t o = item / Ci, c = item % Ci;
        double sum[3][3][3] = {};
        for_voxels(g.grad_out.shape, 0, B, [&](int64_t b, int64_t z, int64_t y, int64_t x) {
          for_taps(p.x.shape, z, y, x, [&](int64_t i, int64_t j, int64_t k, int64_t zz, int64_t yy, int64_t xx) {
            sum[i][j][k] += double{g.grad_out(b, z, y, x, o)} * p.x(b, zz, yy, xx, c);
          });
        });
        for (int64_t t = 0; t < 27; ++t)
          g.grad_weight(o, t / 9, t / 3 % 3, t % 3, c) = static_cast<T>(sum[t / 9][t / 3 % 3][t % 3]);
      }
    });
  }
  if (g.grad_bias.data) {
    for (int64_t o = 0; o < Co; ++o) {
      double sum = 0;
      for_voxels(g.grad_out.shape, 0, B,
                 [&](int64_t b, int64_t z, int64_t y, int64_t x) { sum += g.grad_out(b, z, y, x, o); });
      g.grad_bias(o) = static_cast<T>(sum);
    }
  }
}

template void conv3d_forward(const Conv3dParams<float>&, const ParallelFor&);
template void conv3d_forward(const Conv3dParams<double>&, const ParallelFor&);
template void conv3d_backward(const Conv3dBackwardParams<float>&, const ParallelFor&);
template void conv3d_backward(const Conv3dBackwardParams<double>&, const ParallelFor&);

}  // namespace fovea::kernels::reference
