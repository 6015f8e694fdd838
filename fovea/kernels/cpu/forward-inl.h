// Forward tiles: a block of up to 3 vectors of queries against any number of keys.
//   Lanes are queries (S^T = K Q^T): K and V are only broadcast as scalars, so neither is transposed; softmax sums and
//   the running maximum stay in their lanes; both products use the same register tile of 8 x 3 accumulators (4 x 3 with
//   16 registers), which alone reaches the FMA peak.
//     queries  V x L lanes    Q^T packed once [channel][lane], scale * log2(e) folded in
//     keys     chunks of 32   QkTile: J keys at a time, accumulators start from the bias row, exp2, P^T to L1 (6 KiB)
//                             PvTile: O^T[8 channels][lanes] += V^T P^T over the chunk
//   Scores are in log2 units. Two versions: plain, if a bound on the scores says that nothing can overflow or vanish,
//   and online, with a running maximum a lane that moves only when it would grow by more than 2^16. Each lane's
//   arithmetic is its own: what other queries of the block hold never changes a bit of it.
//   Tiles with kSelect serve what the plain ones cannot: a bias of -inf closes a key for a lane, whatever its row
//   holds; scores may be capped before the bias is added, weights dropped after they were summed.
#if defined(FOVEA_KERNELS_FORWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOVEA_KERNELS_FORWARD_INL_H_
#undef FOVEA_KERNELS_FORWARD_INL_H_
#else
#define FOVEA_KERNELS_FORWARD_INL_H_
#endif

#include "fovea/kernels/cpu/vector-inl.h"
#include "hwy/contrib/math/math-inl.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {

// Keys between two PV passes. Each pass sums from 0, so that roundings grow with passes, not with keys.
constexpr int kChunk = 32;
constexpr float kSafeScore = 100;  // |score| below this, in log2 units, needs no maximum: 2^100 * 2^24 keys < FLT_MAX
constexpr float kLazyGrowth = 16;  // the running maximum may be exceeded by 2^16 before sums are rescaled

// n keys as the tiles want them. Row j of bias_t holds the bias (log2 units) of all lanes; step 0 repeats one row.
struct KeyChunk {
  const float *k, *v, *bias_t;
  int64_t k_step, v_step, bias_step;
  int n;
  // Of kSelect tiles: the soft cap in log2 units, 0 for none, and what weights are multiplied with, [n][V * L] or null.
  float cap = 0;
  const float* keep = nullptr;
};

// What a query block carries from chunk to chunk.
template <int V>
struct BlockState {
  Vector total[V], chunk[V], maximum[V];  // softmax sums of finished chunks; of this one, while it is rescaled
  const float* qt;                        // [C][V * L], packed
  float *out_t, *p;                       // [Cv rounded up to 4][V * L], [kChunk][V * L]
  int C, Cv;

  BlockState(const float* packed_q, int channels, int value_channels, float* out_memory, float* p_memory)
      : qt(packed_q), out_t(out_memory), p(p_memory), C(channels), Cv(value_channels) {
    const Floats d;
    for (int v = 0; v < V; ++v) {
      total[v] = chunk[v] = hn::Zero(d);
      maximum[v] = hn::Set(d, std::numeric_limits<float>::lowest());
    }
    for (int i = 0; i < round_up(Cv, 4) * V; ++i) hn::Store(hn::Zero(d), d, out_t + i * L);
  }
};

// x = cap tanh(x / cap) and, if wanted, slope = 1 - tanh(x / cap)^2, for n (a multiple of L) scores.
HWY_NOINLINE inline void CapScores(float* x, int64_t n, float cap, float* slope = nullptr) {
  const Floats d;
  const Vector factor = hn::Set(d, cap), inverse = hn::Set(d, 1 / cap);
  for (int64_t i = 0; i < n; i += L) {
    const Vector t = hn::Tanh(d, hn::Mul(hn::Load(d, x + i), inverse));
    hn::Store(hn::Mul(factor, t), d, x + i);
    if (slope) hn::Store(hn::NegMulAdd(t, t, hn::Set(d, 1.f)), d, slope + i);
  }
}

// Scales what lanes with a grown maximum have summed so far.
template <int V>
void Rescale(BlockState<V>& s, const Vector* tile_maximum, float* p_end) {
  const Floats d;
  for (int v = 0; v < V; ++v) {
    const auto grown = hn::Gt(tile_maximum[v], hn::Add(s.maximum[v], hn::Set(d, kLazyGrowth)));
    const Vector maximum = hn::IfThenElse(grown, tile_maximum[v], s.maximum[v]);
    const Vector factor = hn::IfThenElse(grown, Exp2(hn::Sub(s.maximum[v], maximum)), hn::Set(d, 1.f));
    s.maximum[v] = maximum;
    s.total[v] = hn::Mul(s.total[v], factor), s.chunk[v] = hn::Mul(s.chunk[v], factor);
    for (int c = 0; c < round_up(s.Cv, 4); ++c)
      hn::Store(hn::Mul(factor, hn::Load(d, s.out_t + (c * V + v) * L)), d, s.out_t + (c * V + v) * L);
    for (float* p = s.p + v * L; p < p_end; p += V * L) hn::Store(hn::Mul(factor, hn::Load(d, p)), d, p);
  }
}

// S^T of J keys: scores, exp2, sums, P^T. Prefetches K and bias rows of the next tile between the multiplications.
template <int J, int V, bool kOnline, bool kSelect, int kC>
HWY_INLINE void QkTile(BlockState<V>& s, const KeyChunk& keys, int j0, Vector (&sum)[V]) {
  const Floats d;
  const float* k = keys.k + j0 * keys.k_step;
  const float* bias = keys.bias_t + j0 * keys.bias_step;
  float* p = s.p + j0 * V * L;
  Vector a[J][V];
  FOVEA_EACH (j, J)
    FOVEA_EACH (v, V) a[j][v] = kSelect ? hn::Zero(d) : hn::LoadU(d, bias + j * keys.bias_step + v * L);
  DotTile<J, V, kScoreBlock, kC>(k, keys.k_step, s.C, s.qt, bias + J * keys.bias_step, keys.bias_step, p, a);
  if (kSelect) {
    if (keys.cap > 0) {
      FOVEA_EACH (j, J)
        FOVEA_EACH (v, V) hn::Store(a[j][v], d, p + (j * V + v) * L);
      CapScores(p, J * V * L, keys.cap);
      FOVEA_EACH (j, J)
        FOVEA_EACH (v, V) a[j][v] = hn::Load(d, p + (j * V + v) * L);
    }
    const Vector closed = hn::Set(d, -kInfinity);
    FOVEA_EACH (j, J)
      FOVEA_EACH (v, V) {
        const Vector b = hn::LoadU(d, bias + j * keys.bias_step + v * L);
        a[j][v] = hn::IfThenElse(hn::Eq(b, closed), closed, hn::Add(a[j][v], b));
      }
  }
  if (kOnline) {
    Vector tile_maximum[V];
    bool grown = false;
    FOVEA_EACH (v, V) {
      tile_maximum[v] = a[0][v];
      FOVEA_UNROLL(16)
      for (int j = 1; j < J; ++j) tile_maximum[v] = hn::Max(tile_maximum[v], a[j][v]);
      grown |= !hn::AllFalse(d, hn::Gt(tile_maximum[v], hn::Add(s.maximum[v], hn::Set(d, kLazyGrowth))));
    }
    if (HWY_UNLIKELY(grown)) {
      FOVEA_EACH (v, V) s.chunk[v] = sum[v];
      Rescale<V>(s, tile_maximum, p);
      FOVEA_EACH (v, V) sum[v] = s.chunk[v];
    }
  }
  FOVEA_EACH (j, J)
    FOVEA_EACH (v, V) {
      const Vector e = Exp2(kOnline ? hn::Sub(a[j][v], s.maximum[v]) : a[j][v]);
      sum[v] = hn::Add(sum[v], e);
      hn::Store(e, d, p + (j * V + v) * L);
    }
}

// O^T[channels c0 .. c0 + CB][lanes] += V^T P^T over the keys of the chunk.
template <int CB, int V, bool kSelect>
HWY_INLINE void PvTile(const BlockState<V>& s, const KeyChunk& keys, int c0) {
  const Floats d;
  float* HWY_RESTRICT out = s.out_t + c0 * V * L;
  const float* HWY_RESTRICT value = keys.v + c0;
  const float* HWY_RESTRICT weight = s.p;
  const int64_t step = keys.v_step;
  Vector a[CB][V];
  FOVEA_EACH (c, CB)
    FOVEA_EACH (v, V) a[c][v] = hn::Zero(d);
  FOVEA_UNROLL(2)
  for (int j = 0; j < keys.n; ++j) {
    hwy::Prefetch(value + 16 * step);
    Vector p[V];
    FOVEA_EACH (v, V) p[v] = hn::Load(d, weight + v * L);
    FOVEA_EACH (c, CB) {
      const Vector b = hn::Set(d, value[c]);
      FOVEA_EACH (v, V) {
        const Vector sum = hn::MulAdd(b, p[v], a[c][v]);
        a[c][v] = kSelect ? hn::IfThenElse(hn::Eq(p[v], hn::Zero(d)), a[c][v], sum) : sum;
      }
    }
    value += step, weight += V * L;
  }
  FOVEA_EACH (c, CB)
    FOVEA_EACH (v, V) {
      float* sum = out + (c * V + v) * L;
      hn::Store(hn::Add(hn::Load(d, sum), a[c][v]), d, sum);
    }
}

template <int V, bool kOnline, bool kSelect, int kC>
void AddKeysOfWidth(BlockState<V>& s, const KeyChunk& keys, NextRows* next) {
  const Floats d;
  constexpr int J = kRegisters == 32 ? (V == 3 ? 8 : V == 2 ? 12 : 16) : (V == 3 ? 4 : V == 2 ? 6 : 8);
  Vector sum[V];  // not in `s`: it would be read and written in memory for every key
  FOVEA_EACH (v, V) sum[v] = hn::Zero(d);
  int j = 0;
  for (; j + J <= keys.n; j += J) {
    if (next) next->Fetch();
    QkTile<J, V, kOnline, kSelect, kC>(s, keys, j, sum);
  }
  if (J > 4)
    for (; j + 4 <= keys.n; j += 4) QkTile<4, V, kOnline, kSelect, kC>(s, keys, j, sum);
  for (; j < keys.n; ++j) QkTile<1, V, kOnline, kSelect, kC>(s, keys, j, sum);
  FOVEA_EACH (v, V) s.total[v] = hn::Add(s.total[v], sum[v]);
  if (kSelect && keys.keep)
    for (int64_t i = 0; i < keys.n * V * L; i += L)
      hn::Store(hn::Mul(hn::Load(d, s.p + i), hn::Load(d, keys.keep + i)), d, s.p + i);
  constexpr int CB = kRegisters == 32 ? 8 : 4;
  const int Cv = kC ? kC : s.Cv;
  int c = 0;
  for (; c + CB <= Cv; c += CB) PvTile<CB, V, kSelect>(s, keys, c);
  for (; c < Cv; c += 4) PvTile<4, V, kSelect>(s, keys, c);
}

// Takes up to kChunk keys into the block.
template <int V, bool kOnline, bool kSelect>
void AddKeys(BlockState<V>& s, const KeyChunk& keys, NextRows* next = nullptr) {
  if constexpr (!kSelect) {
    if (s.C == s.Cv) {
      if (s.C == 16) return AddKeysOfWidth<V, kOnline, kSelect, 16>(s, keys, next);
      if (s.C == 32) return AddKeysOfWidth<V, kOnline, kSelect, 32>(s, keys, next);
      if (s.C == 64) return AddKeysOfWidth<V, kOnline, kSelect, 64>(s, keys, next);
    }
  }
  AddKeysOfWidth<V, kOnline, kSelect, 0>(s, keys, next);
}

// out rows [i0, i0 + n) and their lse (natural units, one a lane, to lse[V * L]).
template <int V, class T>
void EndBlock(const BlockState<V>& s, bool online, const Rows<T>& out, int64_t i0, int n, float* lse) {
  const Floats d;
  HWY_ALIGN float inverse[V * L];
  for (int v = 0; v < V; ++v) {
    const auto none = hn::Eq(s.total[v], hn::Zero(d));  // no key took part
    const Vector total = hn::IfThenElse(none, hn::Set(d, 1.f), s.total[v]);
    hn::Store(hn::IfThenElse(none, hn::Zero(d), hn::Div(hn::Set(d, 1.f), total)), d, inverse + v * L);
    Vector log = hn::IfThenElse(hn::Eq(total, total), Log2(total), total);
    if (online) log = hn::Add(log, s.maximum[v]);
    hn::StoreU(hn::IfThenElse(none, hn::Set(d, -kInfinity), hn::Mul(log, hn::Set(d, kLn2))), d, lse + v * L);
  }
  UnpackTransposed(s.out_t, V * L, inverse, out, i0, n, s.Cv);
}

// An upper bound of |score| over all lanes: sum_c |qt_c| * largest |k_c| of any key.
HWY_INLINE float ScoreBound(const float* qt, int C, int lanes, const float* key_maximum) {
  const Floats d;
  Vector bound = hn::Zero(d);
  for (int u = 0; u < lanes; u += L) {
    Vector sum = hn::Zero(d);
    for (int c = 0; c < C; ++c)
      sum = hn::MulAdd(hn::Abs(hn::Load(d, qt + c * lanes + u)), hn::Set(d, key_maximum[c]), sum);
    bound = hn::Max(bound, sum);
  }
  return hn::GetLane(hn::MaxOfLanes(d, bound));
}

// maximum[c] = largest |row[c]| of n dense rows, c < step (a multiple of 4).
HWY_INLINE void ColumnMaximum(const float* rows, int64_t n, int64_t step, float* maximum) {
  const Floats d;
  const Four four;
  int64_t c = 0;
  for (; c + L <= step; c += L) {
    Vector m = hn::Zero(d);
    for (int64_t i = 0; i < n; ++i) m = hn::Max(m, hn::Abs(hn::LoadU(d, rows + i * step + c)));
    hn::StoreU(m, d, maximum + c);
  }
  for (; c < step; c += 4) {
    auto m = hn::Zero(four);
    for (int64_t i = 0; i < n; ++i) m = hn::Max(m, hn::Abs(hn::LoadU(four, rows + i * step + c)));
    hn::StoreU(m, four, maximum + c);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS
#endif  // toggle
