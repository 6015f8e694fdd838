// Vector pieces shared by the kernels: exp2, log2, transposes, row copies, the broadcast tile. Included once per
// Highway target.
//   Rows of channels lie somewhere in memory (Rows); tiles work on packed copies: "dense" rows [n][step], zero-filled
//   behind the last channel, or "transposed" blocks [channel][lane] where each vector lane is one query or one key.
//   Packing reads exactly the channels of each row, never a byte beside them: an input may end at a protected page.
#if defined(FOVEA_KERNELS_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOVEA_KERNELS_VECTOR_INL_H_
#undef FOVEA_KERNELS_VECTOR_INL_H_
#else
#define FOVEA_KERNELS_VECTOR_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "fovea/core/dtype.h"
#include "fovea/core/isa.h"
#include "fovea/kernels/cpu/aligned_memory.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

#ifdef __clang__
#define FOVEA_UNROLL(n) _Pragma(HWY_STR(unroll n))
#else
#define FOVEA_UNROLL(n) _Pragma(HWY_STR(GCC unroll n))
#endif

// A loop over the elements of a register tile: unrolled, or the tile would live in memory.
#define FOVEA_EACH(i, n) \
  FOVEA_UNROLL(16)       \
  for (int i = 0; i < (n); ++i)

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Vector = hn::Vec<Floats>;
constexpr Isa kIsa = HWY_TARGET == HWY_AVX3 ? Isa::kAvx512 : HWY_TARGET == HWY_AVX2 ? Isa::kAvx2 : Isa::kNeon;
constexpr int L = HWY_MAX_BYTES / 4;                          // lanes
constexpr int kRegisters = HWY_TARGET == HWY_AVX2 ? 16 : 32;  // 8 x 3 accumulators fit 32, 4 x 3 fit 16
constexpr double kLog2eExact = 1.4426950408889634;
constexpr float kLog2e = static_cast<float>(kLog2eExact), kLn2 = 0.693147181f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The first n values and zeros behind them; the first n lanes. No byte beside them is touched. n >= L: all.
HWY_INLINE Vector LoadSome(const float* from, int64_t n) {
  const Floats d;
#if HWY_TARGET == HWY_NEON  // has no masked loads
  HWY_ALIGN float lanes[L] = {};
  for (int64_t i = 0; i < std::min<int64_t>(n, L); ++i) lanes[i] = from[i];
  return hn::Load(d, lanes);
#else
  return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(n)), d, from);
#endif
}
HWY_INLINE void StoreSome(Vector x, float* to, int64_t n) {
  const Floats d;
#if HWY_TARGET == HWY_NEON
  HWY_ALIGN float lanes[L];
  hn::Store(x, d, lanes);
  for (int64_t i = 0; i < std::min<int64_t>(n, L); ++i) to[i] = lanes[i];
#else
  hn::BlendedStore(x, hn::FirstN(d, static_cast<size_t>(n)), d, to);
#endif
}

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Row i of a matrix: base + offset[i], or base + i * step without an offset list. Counts floats.
template <class T>
struct Rows {
  T* base;
  const int64_t* offset;
  int64_t step;
  T* operator()(int64_t i) const { return base + (offset ? offset[i] : i * step); }
};

// Elements of tensors, which may be float or BFloat16, as floats. Stores round to the nearest, ties to even.
template <class D>
HWY_INLINE hn::Vec<D> LoadFloats(D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> LoadFloats(D d, const BFloat16* from) {
  const hn::RebindToUnsigned<D> wide;
  const hn::Rebind<uint16_t, D> narrow;
  return hn::BitCast(
      d, hn::ShiftLeft<16>(hn::PromoteTo(wide, hn::LoadU(narrow, reinterpret_cast<const uint16_t*>(from)))));
}
template <class D>
HWY_INLINE void StoreFloats(hn::Vec<D> x, D d, float* to) {
  hn::StoreU(x, d, to);
}
template <class D>
HWY_INLINE void StoreFloats(hn::Vec<D> x, D, BFloat16* to) {
  const hn::RebindToUnsigned<D> wide;
  const hn::Rebind<uint16_t, D> narrow;
  const auto bits = hn::BitCast(wide, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(wide, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(hn::Set(wide, 0x7fff), odd)));
  const auto number = hn::IfThenElse(hn::RebindMask(wide, hn::Eq(x, x)), rounded, hn::Set(wide, 0x7fc0));
  hn::StoreU(hn::TruncateTo(narrow, number), narrow, reinterpret_cast<uint16_t*>(to));
}

// The first n < L lanes of a vector. NEON has no masked access; Highway's would read all lanes.
HWY_INLINE Vector LoadPart(const float* from, int n) {
  const Floats d;
#if HWY_TARGET == HWY_NEON
  HWY_ALIGN float lanes[L] = {};
  for (int i = 0; i < n; ++i) lanes[i] = from[i];
  return hn::Load(d, lanes);
#else
  return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(n)), d, from);
#endif
}
HWY_INLINE void StorePart(Vector x, float* to, int n) {
  const Floats d;
#if HWY_TARGET == HWY_NEON
  HWY_ALIGN float lanes[L];
  hn::Store(x, d, lanes);
  for (int i = 0; i < n; ++i) to[i] = lanes[i];
#else
  hn::BlendedStore(x, hn::FirstN(d, static_cast<size_t>(n)), d, to);
#endif
}

// 2^t, relative error 1e-7 (AVX-512 6e-8). Exactly 1 for t = 0; exactly 0 for t <= -127, hence for -inf.
HWY_INLINE Vector Exp2(Vector t) {
  const Floats d;
#if HWY_TARGET == HWY_AVX3
  // 8 port slots: vreduceps gives t - floor(t), vscalefps multiplies by 2^floor(t). Degree 5 would save one and
  // err 1.5e-7.
  const Vector f{_mm512_reduce_ps(t.raw, 1)};
  Vector p = hn::MulAdd(f, hn::Set(d, 2.10290284e-4f), hn::Set(d, 1.26319833e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 9.65861976e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.5492904e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.40227863e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.93147123e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.f));
  return Vector{_mm512_scalef_ps(p.raw, t.raw)};
#else
  // Nearest integer by the magic addend, its bits added to the exponent; at t = -127 that is the bit pattern 0. A NaN
  // must stay one, so it is put back at the end.
  const hn::RebindToSigned<Floats> di;
  const Vector clamped = hn::Min(hn::Max(t, hn::Set(d, -127.f)), hn::Set(d, 128.f));
  const Vector magic = hn::Set(d, 12582912.f);
  const Vector z = hn::Add(clamped, magic);
  const Vector f = hn::Sub(clamped, hn::Sub(z, magic));
  Vector p = hn::MulAdd(f, hn::Set(d, 1.326472725e-3f), hn::Set(d, 9.671512786e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.550733744e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.402224208e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.931469776e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.f));
  const Vector power = hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(hn::BitCast(di, z))));
  return hn::IfThenElse(hn::Eq(t, t), power, t);
#endif
}

// log2 of positive normal numbers, error 1e-7 relative to max(1, |log2|).
HWY_INLINE Vector Log2(Vector s) {
  const Floats d;
  const hn::RebindToSigned<Floats> di;
  const auto bits = hn::BitCast(di, s);
  const auto exponent =
      hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, 0x3f3504f3)));  // mantissa into [sqrt(1/2), sqrt(2))
  const Vector m = hn::BitCast(d, hn::Sub(bits, hn::ShiftLeft<23>(exponent)));
  const Vector one = hn::Set(d, 1.f);
  const Vector z = hn::Div(hn::Sub(m, one), hn::Add(m, one)), y = hn::Mul(z, z);
  Vector p = hn::MulAdd(y, hn::Set(d, 0.3205989f), hn::Set(d, 0.4121986f));
  p = hn::MulAdd(p, y, hn::Set(d, 0.5770780f));
  p = hn::MulAdd(p, y, hn::Set(d, 0.9617967f));
  p = hn::MulAdd(p, y, hn::Set(d, 2.8853901f));
  return hn::MulAdd(p, z, hn::ConvertTo(d, exponent));
}

#if HWY_TARGET == HWY_AVX3
// 16 x 16 transpose in registers, 64 shuffles: half the cost of the 4 x 4 blocks below.
HWY_INLINE void Transpose16(__m512 r[16]) {
  __m512 t[16];
  FOVEA_EACH (i, 8) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  FOVEA_EACH (i, 4) {
    const __m512d a0 = _mm512_castps_pd(t[4 * i]), a1 = _mm512_castps_pd(t[4 * i + 1]);
    const __m512d a2 = _mm512_castps_pd(t[4 * i + 2]), a3 = _mm512_castps_pd(t[4 * i + 3]);
    r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a0, a2)),
          r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a0, a2));
    r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(a1, a3)),
              r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(a1, a3));
  }
  FOVEA_EACH (i, 4) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88), t[4 + i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88),
          t[12 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
  }
  FOVEA_EACH (i, 4) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88), r[8 + i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd);
    r[4 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88),
          r[12 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xdd);
  }
}
#endif

using Four = hn::Full128<float>;

HWY_INLINE void Transpose4(hn::Vec<Four>& r0, hn::Vec<Four>& r1, hn::Vec<Four>& r2, hn::Vec<Four>& r3) {
  const Four d;
  const hn::Repartition<double, Four> pairs;
  const auto x0 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1)),
             x1 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
  const auto x2 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3)),
             x3 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
  r0 = hn::BitCast(d, hn::InterleaveLower(pairs, x0, x2)), r1 = hn::BitCast(d, hn::InterleaveUpper(pairs, x0, x2));
  r2 = hn::BitCast(d, hn::InterleaveLower(pairs, x1, x3)), r3 = hn::BitCast(d, hn::InterleaveUpper(pairs, x1, x3));
}

// A factor in two floats. Rounded to one, scale * log2(e) would shift all scores alike by up to 6e-8 of their size.
struct Factor {
  float high, low;
  explicit Factor(double value) : high(static_cast<float>(value)), low(static_cast<float>(value - high)) {}
};

// x * factor. An exact factor has no low part to multiply with: infinity times 0 would be NaN.
template <bool kExact, class D, class V>
HWY_INLINE V Scaled(D d, V x, const Factor& factor) {
  const V high = hn::Set(d, factor.high);
  return kExact ? hn::Mul(x, high) : hn::MulAdd(x, high, hn::Mul(x, hn::Set(d, factor.low)));
}

template <bool kExact, class T>
HWY_INLINE void PackTransposedBy(const Factor& factor, const Rows<const T>& source, int64_t i0, int n, int lanes,
                                 int channels, float* dst) {
  int c0 = 0;
#if HWY_TARGET == HWY_AVX3
  const Floats wide;
  for (; c0 + 16 <= channels; c0 += 16)
    for (int u = 0; u < lanes; u += 16) {
      __m512 x[16];
      FOVEA_EACH (i, 16) {
        const Vector row = u + i < n ? LoadFloats(wide, source(i0 + u + i) + c0) : hn::Zero(wide);
        x[i] = Scaled<kExact>(wide, row, factor).raw;
      }
      Transpose16(x);
      FOVEA_EACH (i, 16) _mm512_storeu_ps(dst + (c0 + i) * lanes + u, x[i]);
    }
#endif
  const Four d;
  for (int u = 0; c0 < channels && u < lanes; u += 4) {
    const T* row[4];
    for (int i = 0; i < 4; ++i) row[i] = u + i < n ? source(i0 + u + i) : nullptr;
    int c = c0;
    for (; c + 4 <= channels; c += 4) {
      hn::Vec<Four> x0 = hn::Zero(d), x1 = x0, x2 = x0, x3 = x0;
      if (row[0]) x0 = Scaled<kExact>(d, LoadFloats(d, row[0] + c), factor);
      if (row[1]) x1 = Scaled<kExact>(d, LoadFloats(d, row[1] + c), factor);
      if (row[2]) x2 = Scaled<kExact>(d, LoadFloats(d, row[2] + c), factor);
      if (row[3]) x3 = Scaled<kExact>(d, LoadFloats(d, row[3] + c), factor);
      Transpose4(x0, x1, x2, x3);
      float* out = dst + c * lanes + u;
      hn::StoreU(x0, d, out), hn::StoreU(x1, d, out + lanes), hn::StoreU(x2, d, out + 2 * lanes),
          hn::StoreU(x3, d, out + 3 * lanes);
    }
    for (; c < channels; ++c)
      for (int i = 0; i < 4; ++i) {
        const float x = row[i] ? static_cast<float>(row[i][c]) : 0.f;
        dst[c * lanes + u + i] = kExact ? x * factor.high : std::fma(x, factor.high, x * factor.low);
      }
  }
}

// dst[c * lanes + u] = source row (i0 + u)[c] * factor for c < channels, u < n; 0 for n <= u < lanes (a multiple of L).
template <class T>
void PackTransposed(const Rows<const T>& source, int64_t i0, int n, int lanes, int channels, const Factor& factor,
                    float* dst) {
  factor.low == 0 ? PackTransposedBy<true>(factor, source, i0, n, lanes, channels, dst)
                  : PackTransposedBy<false>(factor, source, i0, n, lanes, channels, dst);
}

// The inverse: target row (i0 + u)[c] = source[c * lanes + u] * factor[u], u < n. factor: one a lane, up to `lanes`.
template <class T>
HWY_INLINE void UnpackTransposed(const float* source, int lanes, const float* factor, const Rows<T>& target, int64_t i0,
                                 int n, int channels) {
  int c0 = 0;
#if HWY_TARGET == HWY_AVX3
  const Floats wide;
  for (; c0 + 16 <= channels; c0 += 16)
    for (int u = 0; u < n; u += 16) {
      const __m512 factors = _mm512_loadu_ps(factor + u);
      __m512 x[16];
      FOVEA_EACH (i, 16) x[i] = _mm512_mul_ps(factors, _mm512_loadu_ps(source + (c0 + i) * lanes + u));
      Transpose16(x);
      FOVEA_EACH (i, 16)
        if (u + i < n) StoreFloats(Vector{x[i]}, wide, target(i0 + u + i) + c0);
    }
#endif
  const Four d;
  for (int u = 0; c0 < channels && u < n; u += 4) {
    const auto factors = hn::LoadU(d, factor + u);
    const int rows = std::min(4, n - u);
    int c = c0;
    for (; c + 4 <= channels; c += 4) {
      const float* s = source + c * lanes + u;
      hn::Vec<Four> x0 = hn::Mul(factors, hn::LoadU(d, s)), x1 = hn::Mul(factors, hn::LoadU(d, s + lanes));
      hn::Vec<Four> x2 = hn::Mul(factors, hn::LoadU(d, s + 2 * lanes)),
                    x3 = hn::Mul(factors, hn::LoadU(d, s + 3 * lanes));
      Transpose4(x0, x1, x2, x3);
      StoreFloats(x0, d, target(i0 + u) + c);
      if (rows > 1) StoreFloats(x1, d, target(i0 + u + 1) + c);
      if (rows > 2) StoreFloats(x2, d, target(i0 + u + 2) + c);
      if (rows > 3) StoreFloats(x3, d, target(i0 + u + 3) + c);
    }
    for (; c < channels; ++c)
      for (int i = 0; i < rows; ++i) target(i0 + u + i)[c] = static_cast<T>(source[c * lanes + u + i] * factor[u + i]);
  }
}

// to[c] = from[c] * factor, c < channels; 0 up to `step`. One of the two sides is float.
template <class From, class To>
HWY_INLINE void CopyRow(const From* from, int channels, int step, To* to, float factor = 1) {
  const Floats d;
  const Four four;
  int c = 0;
  for (; c + L <= channels; c += L) StoreFloats(hn::Mul(LoadFloats(d, from + c), hn::Set(d, factor)), d, to + c);
  for (; c + 4 <= channels; c += 4)
    StoreFloats(hn::Mul(LoadFloats(four, from + c), hn::Set(four, factor)), four, to + c);
  for (; c < channels; ++c) to[c] = static_cast<To>(static_cast<float>(from[c]) * factor);
  for (; c < step; ++c) to[c] = To(0.f);
}

constexpr int kScoreBlock = 32;  // channels of <q, k> summed at a time

// a[j] += sum_c x[j][c] * t[c] for J rows x against V vectors of lanes. Prefetches the next J rows of x and J rows at
// `fetch`. kC: C if it is known, else 0; tiles of known width run 5 to 10 % faster.
template <int J, int V, int kC>
HWY_INLINE void RowTile(const float* HWY_RESTRICT x, int64_t step, int C, const float* HWY_RESTRICT t,
                        const float* fetch, int64_t fetch_step, Vector (&a)[J][V]) {
  const Floats d;
  if (kC) C = kC;
  const float* next = x + J * step;
  const int fetched = std::min(J, C);
  int c = 0;
  FOVEA_UNROLL(1)
  for (; c < fetched; ++c) {
    hwy::Prefetch(next);
    FOVEA_UNROLL(4)
    for (int v = 0; v < V * L; v += 16) hwy::Prefetch(fetch + v);
    next += step, fetch += fetch_step;
    Vector q[V];
    FOVEA_EACH (v, V) q[v] = hn::Load(d, t + v * L);
    FOVEA_EACH (j, J) {
      const Vector b = hn::Set(d, x[j * step]);
      FOVEA_EACH (v, V) a[j][v] = hn::MulAdd(b, q[v], a[j][v]);
    }
    ++x, t += V * L;
  }
  FOVEA_UNROLL(2)
  for (; c < C; ++c) {
    Vector q[V];
    FOVEA_EACH (v, V) q[v] = hn::Load(d, t + v * L);
    FOVEA_EACH (j, J) {
      const Vector b = hn::Set(d, x[j * step]);
      FOVEA_EACH (v, V) a[j][v] = hn::MulAdd(b, q[v], a[j][v]);
    }
    ++x, t += V * L;
  }
}

// The same in blocks of kBlock channels that are summed on their own: roundings grow with a block, not with all of C.
// spill: J * V * L floats.
template <int J, int V, int kBlock, int kC>
HWY_INLINE void DotTile(const float* x, int64_t step, int C, const float* t, const float* fetch, int64_t fetch_step,
                        float* HWY_RESTRICT spill, Vector (&a)[J][V]) {
  const Floats d;
  if (kC) C = kC;
  constexpr int kFirst = kC ? std::min(kBlock, kC) : 0, kRest = kC % kBlock ? 0 : kFirst;
  RowTile<J, V, kFirst>(x, step, std::min(kBlock, C), t, fetch, fetch_step, a);
  for (int c = kBlock; c < C; c += kBlock) {
    FOVEA_EACH (j, J)
      FOVEA_EACH (v, V) hn::Store(a[j][v], d, spill + (j * V + v) * L), a[j][v] = hn::Zero(d);
    RowTile<J, V, kRest>(x + c, step, std::min(kBlock, C - c), t + c * V * L, fetch, fetch_step, a);
    FOVEA_EACH (j, J)
      FOVEA_EACH (v, V) a[j][v] = hn::Add(hn::Load(d, spill + (j * V + v) * L), a[j][v]);
  }
}

// Rows that the next piece of work reads or writes, fetched a few at a time while this one is computed.
class NextRows {
 public:
  template <class T>
  void Add(const Rows<T>& rows, int64_t n, int64_t channels) {
    const int64_t inside = static_cast<int64_t>(reinterpret_cast<uintptr_t>(rows.base) % kLine);  // of its cache line
    streams_[count_++] = {reinterpret_cast<const char*>(rows.base) - inside,   rows.offset, rows.step, n,
                          static_cast<int64_t>(inside + channels * sizeof(T)), sizeof(T)};
    longest_ = std::max(longest_, n);
  }

  // One row of each stream.
  HWY_INLINE void Fetch() {
    if (at_ >= longest_) return;
    for (int s = 0; s < count_; ++s) {
      const Stream& stream = streams_[s];
      if (at_ >= stream.n) continue;
      const char* row = stream.base + (stream.offset ? stream.offset[at_] : at_ * stream.step) * stream.element;
      for (int64_t byte = 0; byte < stream.bytes; byte += kLine) hwy::Prefetch(row + byte);
    }
    ++at_;
  }

 private:
  static constexpr int64_t kLine = 64;
  struct Stream {
    const char* base;
    const int64_t* offset;
    int64_t step, n, bytes, element;
  };
  Stream streams_[8];
  int count_ = 0;
  int64_t at_ = 0, longest_ = 0;
};

HWY_INLINE void Fill(float* to, int64_t n, float value) {
  const Floats d;
  const int64_t whole = n / L * L;
  for (int64_t i = 0; i < whole; i += L) hn::StoreU(hn::Set(d, value), d, to + i);
  for (int64_t i = whole; i < n; ++i) to[i] = value;
}

// Hands out pieces of one aligned allocation: an instance without memory counts, one with memory gives.
class Arena {
 public:
  explicit Arena(float* memory = nullptr) : memory_(memory) {}
  float* take(int64_t floats) {
    float* piece = memory_ ? memory_ + used_ : nullptr;
    used_ += round_up(floats, 16);
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  float* memory_;
  int64_t used_ = 0;
};

// Memory for everything that `lay_out` takes from an arena.
template <class LayOut>
AlignedMemory<float> arena_memory(const LayOut& lay_out) {
  Arena counter;
  lay_out(counter);
  return aligned_memory<float>(counter.used());
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS
#endif  // toggle
