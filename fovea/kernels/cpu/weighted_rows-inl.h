// Sums of weighted rows and products with rows, for operators whose rows lie anywhere in memory. Included once per
// Highway target.
//   SumRows   out[o] (+)= sum_r weight[o][r] * row[r]    rows are read once for up to 4 (AVX2: 2) outputs; the sums of
//             a few vectors of channels stay in registers while the rows go by, and are added to what is in memory last
//   AddRow    out += weight * row
//   DotRows   dot[o][r] = <row[r], x[o]>                 4 rows at a time against as many x
//   Rows are read to their last channel and no further.
#if defined(FOVEA_KERNELS_WEIGHTED_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOVEA_KERNELS_WEIGHTED_ROWS_INL_H_
#undef FOVEA_KERNELS_WEIGHTED_ROWS_INL_H_
#else
#define FOVEA_KERNELS_WEIGHTED_ROWS_INL_H_
#endif

#include "fovea/kernels/cpu/vector-inl.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {

// to[c] += factor * from[c]
HWY_INLINE void AddRow(const float* HWY_RESTRICT from, float factor, int channels, float* HWY_RESTRICT to) {
  const Floats d;
  const Vector f = hn::Set(d, factor);
  int c = 0;
  for (; c + L <= channels; c += L) hn::StoreU(hn::MulAdd(f, hn::LoadU(d, from + c), hn::LoadU(d, to + c)), d, to + c);
  if (const int part = channels - c)
    StorePart(hn::MulAdd(f, LoadPart(from + c, part), LoadPart(to + c, part)), to + c, part);
}

constexpr int kSharedOutputs = kRegisters == 32 ? 4 : 2;  // outputs that one reading of the rows serves

// What is summed: n rows under `weights`, output o taking weights[o * weight_step + r].
struct WeightedRows {
  const float* const* rows;
  int n;
  const float* weights;
  int64_t weight_step;
};

// Channels [c, c + V * L) of O outputs; with kPart only the first `part` lanes of the single vector. U rows go to sums
// of their own, so that few channels still keep the multipliers busy; U hangs on the channels alone, or the bits of an
// output would tell what it shared its tile with.
template <int O, int V, bool kAdd, bool kPart>
HWY_INLINE void SumRowsTile(const WeightedRows& w, float* out, int64_t out_step, int c, int part) {
  static_assert(!kPart || V == 1);
  constexpr int U = V >= 4 ? 1 : 4 / V;
  const Floats d;
  const auto load = [&](const float* from) { return kPart ? LoadPart(from, part) : hn::LoadU(d, from); };
  Vector a[U][O][V];
  FOVEA_EACH (u, U)
    FOVEA_EACH (o, O)
      FOVEA_EACH (v, V) a[u][o][v] = hn::Zero(d);
  int r = 0;
  for (; r + U <= w.n; r += U)
    FOVEA_EACH (u, U)
      FOVEA_EACH (v, V) {
        const Vector x = load(w.rows[r + u] + c + v * L);
        FOVEA_EACH (o, O) a[u][o][v] = hn::MulAdd(hn::Set(d, w.weights[o * w.weight_step + r + u]), x, a[u][o][v]);
      }
  for (; r < w.n; ++r)
    FOVEA_EACH (v, V) {
      const Vector x = load(w.rows[r] + c + v * L);
      FOVEA_EACH (o, O) a[0][o][v] = hn::MulAdd(hn::Set(d, w.weights[o * w.weight_step + r]), x, a[0][o][v]);
    }
  FOVEA_EACH (o, O)
    FOVEA_EACH (v, V) {
      Vector sum = a[0][o][v];
      FOVEA_UNROLL(4)
      for (int u = 1; u < U; ++u) sum = hn::Add(sum, a[u][o][v]);
      float* to = out + o * out_step + c + v * L;
      if (kAdd) sum = hn::Add(load(to), sum);
      if (kPart)
        StorePart(sum, to, part);
      else
        hn::StoreU(sum, d, to);
    }
}

template <int O, bool kAdd>
HWY_INLINE void SumRowsOf(const WeightedRows& w, float* out, int64_t out_step, int channels) {
  int c = 0;
  if (O == 1)
    for (; c + 8 * L <= channels; c += 8 * L) SumRowsTile<1, 8, kAdd, false>(w, out, out_step, c, L);
  for (; c + 4 * L <= channels; c += 4 * L) SumRowsTile<O, 4, kAdd, false>(w, out, out_step, c, L);
  if (c + 2 * L <= channels) SumRowsTile<O, 2, kAdd, false>(w, out, out_step, c, L), c += 2 * L;
  if (c + L <= channels) SumRowsTile<O, 1, kAdd, false>(w, out, out_step, c, L), c += L;
  if (c < channels) SumRowsTile<O, 1, kAdd, true>(w, out, out_step, c, channels - c);
}

// out[o] = sum over the rows (kAdd: is increased by it), o < outputs, at out + o * out_step.
template <bool kAdd>
void SumRows(WeightedRows w, int64_t outputs, float* out, int64_t out_step, int channels) {
  int64_t o = 0;
  for (; o + kSharedOutputs <= outputs; o += kSharedOutputs) {
    SumRowsOf<kSharedOutputs, kAdd>(w, out + o * out_step, out_step, channels);
    w.weights += kSharedOutputs * w.weight_step;
  }
  for (; o < outputs; ++o, w.weights += w.weight_step) SumRowsOf<1, kAdd>(w, out + o * out_step, out_step, channels);
}

template <int R, int O>
HWY_INLINE void DotTileOf(const float* const* rows, const float* x, int64_t x_step, int channels, float* dot,
                          int64_t dot_step) {
  const Floats d;
  Vector a[R][O];
  FOVEA_EACH (r, R)
    FOVEA_EACH (o, O) a[r][o] = hn::Zero(d);
  const auto add = [&](int c, auto load) {
    Vector t[O];
    FOVEA_EACH (o, O) t[o] = load(x + o * x_step + c);
    FOVEA_EACH (r, R) {
      const Vector row = load(rows[r] + c);
      FOVEA_EACH (o, O) a[r][o] = hn::MulAdd(row, t[o], a[r][o]);
    }
  };
  int c = 0;
  for (; c + L <= channels; c += L) add(c, [&](const float* from) { return hn::LoadU(d, from); });
  const int part = channels - c;
  if (part) add(c, [&](const float* from) { return LoadPart(from, part); });
  FOVEA_EACH (r, R)
    FOVEA_EACH (o, O) dot[o * dot_step + r] = hn::GetLane(hn::SumOfLanes(d, a[r][o]));
}

template <int O>
HWY_INLINE void DotRowsOf(const float* const* rows, int n, const float* x, int64_t x_step, int channels, float* dot,
                          int64_t dot_step) {
  int r = 0;
  for (; r + 4 <= n; r += 4) DotTileOf<4, O>(rows + r, x, x_step, channels, dot + r, dot_step);
  for (; r < n; ++r) DotTileOf<1, O>(rows + r, x, x_step, channels, dot + r, dot_step);
}

// dot[o * dot_step + r] = <row r, x + o * x_step>, r < n, o < count. A product does not depend on what shares its tile.
inline void DotRows(const float* const* rows, int n, const float* x, int64_t x_step, int64_t count, int channels,
                    float* dot, int64_t dot_step) {
  int64_t o = 0;
  for (; o + kSharedOutputs <= count; o += kSharedOutputs)
    DotRowsOf<kSharedOutputs>(rows, n, x + o * x_step, x_step, channels, dot + o * dot_step, dot_step);
  for (; o < count; ++o) DotRowsOf<1>(rows, n, x + o * x_step, x_step, channels, dot + o * dot_step, dot_step);
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS
#endif  // toggle
