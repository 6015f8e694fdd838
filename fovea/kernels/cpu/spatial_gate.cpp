// Spatial gate on channels-last volumes.
//   Planes of voxels in rising z; the pooled planes that the taps of one reach lie in a ring of kz and the next, padded
//   with zeros, so that the convolution never asks where it is. Eight output rows at a time:
//     taps     vectors along x: the taps of a column stay in registers, and a row of the pool, once loaded, serves all
//              outputs that it reaches
//     gate     sigmoid, then the rows' features, read for the second time, times it
//     pool     the same rows of the plane that the next output plane will need: four voxels at a time, vectors along the
//              channels, joined across their lanes by 3 steps for all four
//   Bound by memory: while the gate writes its rows past the caches, it asks for those to be pooled next, so reading and
//   writing overlap (`fovea check A4` prints the time beside that of a copy).
//   Whoever begins in the middle of a volume pools the planes before its own again.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fovea/kernels/cpu/spatial_gate.cpp"
#include "fovea/kernels/cpu/targets.h"

#include "hwy/foreach_target.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "fovea/kernels/cpu/aligned_memory.h"
#include "fovea/kernels/cpu/vector-inl.h"
#include "fovea/kernels/spatial_gate.h"

#ifndef FOVEA_SPATIAL_GATE_ONCE
#define FOVEA_SPATIAL_GATE_ONCE
namespace fovea::kernels::cpu::gate {

constexpr int kVoxels = 4;          // pooled at a time
constexpr int kRows = 8;            // output rows of a tile: as many sums as two multiply-adds a cycle need
constexpr int64_t kCacheLine = 16;  // floats
constexpr int64_t kElementsPerTask = 1 << 16;
constexpr int64_t kStreamedElements = 1 << 22;  // results that no cache holds go past it

/// The pooled planes that one output plane needs, of both kinds.
struct Ring {
  int64_t planes, rows, width;  // kz and the next; Y and its padding; X and its padding, up to whole vectors
  int64_t before_y, before_x;   // padding in front
  AlignedMemory<float> memory;

  Ring(int64_t Y, int64_t X, int64_t kz, int64_t ky, int64_t kx, int64_t lanes)
      : planes(kz + 1),
        rows((Y + kRows - 1) / kRows * kRows + ky - 1),
        width((X + lanes - 1) / lanes * lanes + (kx - 1 + lanes - 1) / lanes * lanes),
        before_y(ky / 2),
        before_x(kx / 2),
        memory(aligned_memory<float>(planes * 2 * rows * width)) {
    std::fill_n(memory.get(), planes * 2 * rows * width, 0.f);
  }
  /// Plane z of the largest (0) or the mean (1), padding included.
  float* plane(int64_t z, int64_t kind) const { return memory.get() + ((z % planes) * 2 + kind) * rows * width; }
};

}  // namespace fovea::kernels::cpu::gate
#endif  // FOVEA_SPATIAL_GATE_ONCE

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace gated {
using gate::kRows;
using gate::kVoxels;
using gate::Ring;

struct Larger {
  template <class V>
  HWY_INLINE V operator()(V a, V b) const {
    // x86's max drops a NaN on its left; a NaN must reach the map.
    return hn::IfThenElse(hn::Or(hn::Gt(a, b), hn::IsNaN(a)), a, b);
  }
};
struct Max {
  template <class V>
  HWY_INLINE V operator()(V a, V b) const {
    return hn::Max(a, b);
  }
};
struct Sum {
  template <class V>
  HWY_INLINE V operator()(V a, V b) const {
    return hn::Add(a, b);
  }
};

// Blocks of four lanes joined to one.
template <class Op>
HWY_INLINE hn::Vec<Four> Fold(const Op&, Four, hn::Vec<Four> v) {
  return v;
}
template <class Op, class D>
HWY_INLINE hn::Vec<Four> Fold(const Op& op, D, hn::Vec<D> v) {
  const hn::Half<D> half;
  return Fold(op, half, op(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
}

// The lanes of each of four vectors joined: four numbers.
template <class Op>
HWY_INLINE hn::Vec<Four> Join(const Op& op, Vector a, Vector b, Vector c, Vector d) {
  const Floats f;
  const hn::Repartition<double, Floats> pairs;
  // In each block of four lanes: a0+a2 b0+b2 a1+a3 b1+b3
  const Vector ab = op(hn::InterleaveLower(f, a, b), hn::InterleaveUpper(f, a, b));
  const Vector cd = op(hn::InterleaveLower(f, c, d), hn::InterleaveUpper(f, c, d));
  const auto abd = hn::BitCast(pairs, ab), cdd = hn::BitCast(pairs, cd);
  const Vector all = op(hn::BitCast(f, hn::InterleaveLower(pairs, abd, cdd)),
                        hn::BitCast(f, hn::InterleaveUpper(pairs, abd, cdd)));  // a b c d
  return Fold(op, f, all);
}

// Largest and mean of C channels of kVoxels rows. Op: Larger, or Max, which may lose a NaN.
template <class Op>
HWY_INLINE void PoolVoxels(const Op& larger, const float* const (&row)[kVoxels], int64_t C, float share,
                           float* HWY_RESTRICT largest, float* HWY_RESTRICT mean) {
  const Floats d;
  const int64_t whole = C / L * L, rest = C - whole;
  const Vector least = hn::Set(d, -kInfinity);
  Vector high[kVoxels], sum[kVoxels];
  FOVEA_EACH (i, kVoxels) high[i] = least, sum[i] = hn::Zero(d);
  for (int64_t c = 0; c < whole; c += L) {
    FOVEA_EACH (i, kVoxels) {
      const Vector value = hn::LoadU(d, row[i] + c);
      high[i] = larger(value, high[i]), sum[i] = hn::Add(sum[i], value);
    }
  }
  if (rest) {
    const auto inside = hn::FirstN(d, static_cast<size_t>(rest));
    FOVEA_EACH (i, kVoxels) {
      const Vector value = LoadSome(row[i] + whole, rest);
      high[i] = larger(hn::IfThenElse(inside, value, least), high[i]), sum[i] = hn::Add(sum[i], value);
    }
  }
  hn::StoreU(Join(larger, high[0], high[1], high[2], high[3]), Four(), largest);
  hn::StoreU(hn::Mul(Join(Sum(), sum[0], sum[1], sum[2], sum[3]), hn::Set(Four(), share)), Four(), mean);
}

// Largest and mean of C channels of `voxels` rows that lie one behind the other.
void PoolRow(const float* x, int64_t voxels, int64_t C, float* HWY_RESTRICT largest, float* HWY_RESTRICT mean) {
  const float share = static_cast<float>(1.0 / static_cast<double>(C));
  for (int64_t v = 0; v < voxels; v += kVoxels) {
    const int64_t n = std::min<int64_t>(kVoxels, voxels - v);
    const float* row[kVoxels];
    for (int i = 0; i < kVoxels; ++i) row[i] = x + (v + std::min<int64_t>(i, n - 1)) * C;
    float values[2][kVoxels];
    PoolVoxels(Max(), row, C, share, values[0], values[1]);
    // The mean keeps every NaN; where it is one, the largest is taken again by the rule that keeps it too.
    for (const float m : values[1])
      if (m != m) {
        PoolVoxels(Larger(), row, C, share, values[0], values[1]);
        break;
      }
    std::copy_n(values[0], n, largest + v), std::copy_n(values[1], n, mean + v);
  }
}

void Pool(const ChannelPoolParams<float>& p, const ParallelFor& parallel) {
  const int64_t V = p.x.shape[1], C = p.x.shape[2];
  const int64_t grain = std::max<int64_t>(1, gate::kElementsPerTask / std::max<int64_t>(1, C));
  parallel(p.x.shape[0] * V, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t b = i / V, v = i % V, n = std::min(end - i, V - v);
      PoolRow(p.x.data + i * C, n, C, p.out.data + 2 * b * V + v, p.out.data + (2 * b + 1) * V + v);
      i += n;
    }
  });
}

void PoolBackward(const ChannelPoolBackwardParams<float>& p, const ParallelFor& parallel) {
  const int64_t V = p.forward.x.shape[1], C = p.forward.x.shape[2], whole = C / L * L, rest = C - whole;
  const int64_t grain = std::max<int64_t>(1, gate::kElementsPerTask / std::max<int64_t>(1, C));
  const float share = static_cast<float>(1.0 / static_cast<double>(C));
  parallel(p.forward.x.shape[0] * V, grain, [&](int64_t begin, int64_t end) {
    const Floats d;
    const auto inside = hn::FirstN(d, static_cast<size_t>(rest));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / V, v = i % V;
      const float* x = p.forward.x.data + i * C;
      float* grad = p.grad_x.data + i * C;
      const Vector largest = hn::Set(d, p.forward.out(b, 0, v));
      size_t alike = 0;
      for (int64_t c = 0; c < whole; c += L) alike += hn::CountTrue(d, hn::Eq(hn::LoadU(d, x + c), largest));
      if (rest) alike += hn::CountTrue(d, hn::And(inside, hn::Eq(LoadSome(x + whole, rest), largest)));
      const Vector mean = hn::Set(d, p.grad_out(b, 1, v) * share);
      const Vector tied =
          hn::Set(d, p.grad_out(b, 1, v) * share + p.grad_out(b, 0, v) / static_cast<float>(std::max<size_t>(1, alike)));
      for (int64_t c = 0; c < whole; c += L)
        hn::StoreU(hn::IfThenElse(hn::Eq(hn::LoadU(d, x + c), largest), tied, mean), d, grad + c);
      if (rest)
        StoreSome(hn::IfThenElse(hn::Eq(LoadSome(x + whole, rest), largest), tied, mean), grad + whole, rest);
    }
  });
}

// sum[o] += the taps of one plane of one kind for four rows of one vector each. pool: the row and column of the first
// tap. kK: taps along y.
template <int kK>
HWY_INLINE void AddTaps(const float* HWY_RESTRICT pool, int64_t width, const float* HWY_RESTRICT weight, int64_t kx,
                        Vector (&sum)[kRows]) {
  const Floats d;
  for (int64_t tx = 0; tx < kx; ++tx) {
    Vector w[kK];
    FOVEA_EACH (t, kK) w[t] = hn::Set(d, weight[t * kx + tx]);
    FOVEA_UNROLL(16)
    for (int j = 0; j < kRows + kK - 1; ++j) {
      const Vector row = hn::LoadU(d, pool + j * width + tx);
      FOVEA_UNROLL(16)
      for (int o = 0; o < kRows; ++o)
        if (o <= j && j - o < kK) sum[o] = hn::MulAdd(w[j - o], row, sum[o]);
    }
  }
}

void AddAnyTaps(const float* pool, int64_t width, const float* weight, int64_t ky, int64_t kx, Vector (&sum)[kRows]) {
  for (int64_t ty = 0; ty < ky; ++ty) AddTaps<1>(pool + ty * width, width, weight + ty * kx, kx, sum);
}

void Forward(const SpatialGateParams<float>& p, const ParallelFor& parallel) {
  const auto [B, Z, Y, X, C] = p.x.shape;
  const int64_t kz = p.weight.shape[1], ky = p.weight.shape[2], kx = p.weight.shape[3], plane = Y * X;
  const bool stream = B * Z * plane * C >= gate::kStreamedElements && C % L == 0 &&
                      reinterpret_cast<uintptr_t>(p.out.data) % 64 == 0;
  const int64_t grain = std::max<int64_t>(1, gate::kElementsPerTask / std::max<int64_t>(1, plane * C));
  parallel(B * Z, grain, [&, Z = Z, Y = Y, X = X, C = C](int64_t begin, int64_t end) {
    const Floats d;
    const Ring ring(Y, X, kz, ky, kx, L);
    const Vector scale = hn::Set(d, static_cast<float>(-p.scale * kLog2eExact));
    const Vector shift = hn::Set(d, static_cast<float>(-p.shift * kLog2eExact)), one = hn::Set(d, 1.f);
    const int64_t whole = C / L * L, rest = C - whole;
    int64_t pooled = -1;  // the last plane in the ring, of all samples one behind the other
    // Rows [from, to) of plane u, counted over all samples, whose sample begins at plane `first`.
    const auto pool_rows = [&](int64_t u, int64_t first, int64_t from, int64_t to) {
      for (int64_t y = from; y < to; ++y) {
        const int64_t at = (y + ring.before_y) * ring.width + ring.before_x;
        PoolRow(p.x.data + (u * plane + y * X) * C, X, C, ring.plane(u - first, 0) + at, ring.plane(u - first, 1) + at);
      }
    };
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i / Z * Z, z = i - first;
      const int64_t low = std::max<int64_t>(0, z - kz / 2), high = std::min(Z - 1, z + kz / 2);
      for (int64_t u = std::max(pooled + 1, first + low); u <= first + high; ++u) pool_rows(u, first, 0, Y);
      // Does the next output plane reach one that is not pooled yet?
      const bool another = z + 1 + kz / 2 < Z && i + 1 < end;
      pooled = first + high + another;
      for (int64_t y = 0; y < Y; y += kRows) {
        for (int64_t x = 0; x < X; x += L) {
          Vector sum[kRows];
          FOVEA_EACH (o, kRows) sum[o] = hn::Zero(d);
          for (int64_t kind = 0; kind < 2; ++kind)
            for (int64_t u = low; u <= high; ++u) {
              const float* pool = ring.plane(u, kind) + y * ring.width + x;
              const float* weight = p.weight.data + (kind * kz + u - z + kz / 2) * ky * kx;
              switch (ky) {
                case 3: AddTaps<3>(pool, ring.width, weight, kx, sum); break;
                case 5: AddTaps<5>(pool, ring.width, weight, kx, sum); break;
                case 7: AddTaps<7>(pool, ring.width, weight, kx, sum); break;
                default: AddAnyTaps(pool, ring.width, weight, ky, kx, sum);
              }
            }
          FOVEA_EACH (o, kRows) {
            if (y + o < Y) {
              const Vector map = hn::Div(one, hn::Add(one, Exp2(hn::MulAdd(scale, sum[o], shift))));
              StoreSome(map, p.map.data + (i * Y + y + o) * X + x, X - x);
            }
          }
        }
        const int64_t until = std::min(Y, y + kRows);
        for (int64_t v = i * plane + y * X; v < i * plane + until * X; ++v) {
          const float* from = p.x.data + v * C;
          float* to = p.out.data + v * C;
          const Vector map = hn::Set(d, p.map.data[v]);
          if (another)
            for (int64_t c = 0; c < C; c += gate::kCacheLine) hwy::Prefetch(from + (pooled - i) * plane * C + c);
          if (stream) {
            for (int64_t c = 0; c < whole; c += L) hn::Stream(hn::Mul(map, hn::LoadU(d, from + c)), d, to + c);
          } else {
            for (int64_t c = 0; c < whole; c += L) hn::StoreU(hn::Mul(map, hn::LoadU(d, from + c)), d, to + c);
          }
          if (rest) StoreSome(hn::Mul(map, LoadSome(from + whole, rest)), to + whole, rest);
        }
        if (another) pool_rows(pooled, first, y, until);
      }
    }
    if (stream) hwy::FlushStream();
  });
}

}  // namespace gated
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS

#if HWY_ONCE
namespace fovea::kernels::cpu {

void channel_pool_forward(const ChannelPoolParams<float>& p, const ParallelFor& parallel, Isa isa) {
  FOVEA_RETURN_BEST(isa, gated::Pool, p, parallel)
  reference::channel_pool_forward(p, parallel);
}

void channel_pool_backward(const ChannelPoolBackwardParams<float>& p, const ParallelFor& parallel, Isa isa) {
  FOVEA_RETURN_BEST(isa, gated::PoolBackward, p, parallel)
  reference::channel_pool_backward(p, parallel);
}

void spatial_gate_forward(const SpatialGateParams<float>& p, const ParallelFor& parallel, Isa isa) {
  FOVEA_RETURN_BEST(isa, gated::Forward, p, parallel)
  reference::spatial_gate_forward(p, parallel);
}

}  // namespace fovea::kernels::cpu
#endif  // HWY_ONCE
