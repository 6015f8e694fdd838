// Backward tiles: all gradients of one head, one block of up to 3 vectors of keys after the other.
//   Lanes are keys, the other way round from the forward, because then four of the five products are the forward's
//   broadcast tile and nothing but K and V is transposed. Per block of keys, for 32 query rows at a time:
//     ScoreTile   S = Q K^T from bias - lse, P = 2^S;   dP = dO V^T, dS = P * (dP - delta)       8 rows x 3 vectors
//     ColumnTile  dV^T += dO^T P,   dK^T += Q^T dS                                              8 channels x 3 vectors
//     QueryTile   dQ += dS K                                                                    16 rows x 1 vector of
//     channels
//   Tiles with kSelect: a bias of -1e30 or less closes a key for a row, weights and gradients that are 0 never enter a
//   product, and the soft cap and dropout of the forward pass are done again.
//   P and dS of 32 rows (6 KiB each) live in L1. delta_i = <dO_i, O_i>. Rows are padded to a multiple of 8 by rows of
//   weight 0 (lse = 1e30), lanes behind the last key by bias -1e30. Every sum runs in an order fixed by the shapes.
//   Source: Dao et al. 2022 (FlashAttention), algorithm 4.
#if defined(FOVEA_KERNELS_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOVEA_KERNELS_BACKWARD_INL_H_
#undef FOVEA_KERNELS_BACKWARD_INL_H_
#else
#define FOVEA_KERNELS_BACKWARD_INL_H_
#endif

#include "fovea/kernels/cpu/forward-inl.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {

constexpr int kRowChunk = 32;
constexpr int kGradientBlock = 64;  // channels of <dO, v> summed at a time: dP - delta cancels, so its roundings count
constexpr float kNoWeight = 1e30f;  // as lse of a row, or minus it as bias of a key: weight exactly 0
// Floats of this size have steps of 1/16: s - lse, at most 0, may round to anything above.
constexpr float kFarScore = 1e6f;

// All query rows of a head, packed: `rows` rounded up to 8, `step` C rounded up to a vector, zero-filled.
struct QueryRows {
  const float *q, *grad_out;  // [rows][step], [rows][v_step]
  const float *lse, *delta;   // [rows]; lse in log2 units; delta null if one block holds all keys
  float* grad_q;              // [rows][step], summed over the key blocks, without the softmax scale
  int64_t rows, step, v_step;
  bool far = false;  // some |lse| is above kFarScore
};

// lse of a row in log2 units, as the tiles want it. Notes whether it is far.
HWY_INLINE float PackedLse(float lse, bool& far) {
  if (lse == -kInfinity) return kNoWeight;
  far |= std::abs(lse) > kFarScore;
  return lse * kLog2e;
}

// One block of keys: V * L lanes, n of them real.
struct KeyLanes {
  const float* k;            // dense rows [n][step]
  const float *kt, *vt;      // [C][V * L] times scale * log2(e), [Cv][V * L]
  float *grad_kt, *grad_vt;  // [C rounded up to 4][V * L], summed over the query rows
  float *p, *ds;             // [kRowChunk][V * L]
  int n, C, Cv;
  // Of kSelect tiles: the soft cap in log2 units, 0 for none, its slopes [kRowChunk][V * L], and what weights were
  // multiplied with, the same, or null.
  float cap = 0;
  float* cap_slope = nullptr;
  const float* keep = nullptr;
};

// Bias of a tile of rows (log2 units) and where its gradient goes. Row r at + r * step; step 0 repeats one row.
struct BiasRows {
  const float* bias;
  int64_t step;
  float* grad;  // null: not wanted here
  int64_t grad_step;
};

// Softmax gradient of one row whose keys are all here: dS = P' (dP - sum P' dP), P' = P / sum P. Delta comes from the
// very numbers that it is subtracted from, and what lse was rounded by cancels. With few keys a weight may be near 1
// and dP - delta near 0; <dO, O> would leave its own roundings there, the size of the gradient.
template <int V>
HWY_INLINE void CentreRow(Vector (&dp)[V], const float* p) {
  const Floats d;
  Vector total = hn::Zero(d), sum = total;
  FOVEA_EACH (v, V) {
    const Vector w = hn::Load(d, p + v * L);
    total = hn::Add(total, w);
    sum = hn::Add(sum, hn::IfThenZeroElse(hn::Eq(w, hn::Zero(d)), hn::Mul(w, dp[v])));  // NaN of weight 0 stays out
  }
  total = hn::SumOfLanes(d, total);
  const Vector inverse = hn::IfThenZeroElse(hn::Eq(total, hn::Zero(d)), hn::Div(hn::Set(d, 1.f), total));
  const Vector delta = hn::Mul(hn::SumOfLanes(d, sum), inverse);
  FOVEA_EACH (v, V) dp[v] = hn::Mul(hn::Sub(dp[v], delta), inverse);
}

// P and dS of J query rows from row i on (rows of the chunk from r on); dS is also added to the bias gradient.
template <int J, int V, bool kSelect, int kC>
HWY_INLINE void ScoreTile(const QueryRows& R, const KeyLanes& K, const BiasRows& B, int64_t i, int r) {
  const Floats d;
  float *HWY_RESTRICT p = K.p + r * V * L, *HWY_RESTRICT ds = K.ds + r * V * L;
  const float* bias = B.bias + r * B.step;
  float* grad = B.grad ? B.grad + r * B.grad_step : nullptr;
  {
    // s_ij = scale <q_i, k_j> + bias_ij;   P_ij = exp(s_ij - lse_i)
    Vector a[J][V];
    FOVEA_EACH (j, J) {
      const Vector lse = hn::Set(d, R.lse[i + j]);
      FOVEA_EACH (v, V) a[j][v] = kSelect ? hn::Zero(d) : hn::Sub(hn::LoadU(d, bias + j * B.step + v * L), lse);
    }
    const int64_t step = kC ? kC : R.step;
    DotTile<J, V, kScoreBlock, kC>(R.q + i * step, step, K.C, K.kt, grad ? grad : bias, grad ? B.grad_step : B.step, p,
                                   a);
    if (kSelect) {
      if (K.cap > 0) {
        FOVEA_EACH (j, J)
          FOVEA_EACH (v, V) hn::Store(a[j][v], d, p + (j * V + v) * L);
        CapScores(p, J * V * L, K.cap, K.cap_slope + r * V * L);
        FOVEA_EACH (j, J)
          FOVEA_EACH (v, V) a[j][v] = hn::Load(d, p + (j * V + v) * L);
      }
      FOVEA_EACH (j, J) {
        const Vector lse = hn::Set(d, R.lse[i + j]);
        FOVEA_EACH (v, V) a[j][v] = hn::Add(a[j][v], hn::Sub(hn::LoadU(d, bias + j * B.step + v * L), lse));
      }
    }
    if (R.far) {  // in this order NaN stays
      FOVEA_EACH (j, J)
        FOVEA_EACH (v, V) a[j][v] = hn::Min(hn::Zero(d), a[j][v]);
    }
    FOVEA_EACH (j, J)
      FOVEA_EACH (v, V) {
        Vector e = Exp2(a[j][v]);
        if (kSelect) {
          const Vector b = hn::LoadU(d, bias + j * B.step + v * L);
          e = hn::IfThenZeroElse(hn::Le(b, hn::Set(d, -kNoWeight)), e);
        }
        hn::Store(e, d, p + (j * V + v) * L);
      }
  }
  // out_i = sum_j P_ij v_j   =>   dP_ij = <dO_i, v_j>,   dS_ij = P_ij (dP_ij - delta_i)
  Vector a[J][V];
  FOVEA_EACH (j, J)
    FOVEA_EACH (v, V) a[j][v] = hn::Zero(d);
  const int64_t v_step = kC ? kC : R.v_step;
  DotTile<J, V, kGradientBlock, kC>(R.grad_out + i * v_step, v_step, K.Cv, K.vt, bias + J * B.step, B.step, ds, a);
  const float* keep = kSelect && K.keep ? K.keep + r * V * L : nullptr;
  if (keep) {  // out_i = sum_j P_ij f_ij v_j   =>   dP_ij = f_ij <dO_i, v_j>
    FOVEA_EACH (j, J)
      FOVEA_EACH (v, V) {
        const Vector f = hn::Load(d, keep + (j * V + v) * L);
        a[j][v] = hn::IfThenZeroElse(hn::Eq(f, hn::Zero(d)), hn::Mul(f, a[j][v]));
      }
  }
  FOVEA_EACH (j, J) {
    if (R.delta) {
      const Vector delta = hn::Set(d, R.delta[i + j]);
      FOVEA_EACH (v, V) a[j][v] = hn::Sub(a[j][v], delta);
    } else {
      CentreRow<V>(a[j], p + j * V * L);
    }
    FOVEA_EACH (v, V) {
      const Vector weight = hn::Load(d, p + (j * V + v) * L);
      Vector s = hn::Mul(a[j][v], weight);
      const auto none = hn::Eq(weight, hn::Zero(d));
      if (kSelect) s = hn::IfThenZeroElse(none, s);
      if (grad) {
        float* g = grad + j * B.grad_step + v * L;
        hn::StoreU(hn::Add(hn::LoadU(d, g), s), d, g);
      }
      if (kSelect && K.cap > 0)
        s = hn::IfThenZeroElse(none, hn::Mul(s, hn::Load(d, K.cap_slope + (r + j) * V * L + v * L)));
      if (keep) hn::Store(hn::Mul(weight, hn::Load(d, keep + (j * V + v) * L)), d, p + (j * V + v) * L);
      hn::Store(s, d, ds + (j * V + v) * L);
    }
  }
}

// out[CB channels][lanes] += x^T w over n rows.
template <int CB, int V, bool kSelect>
HWY_INLINE void ColumnTile(const float* HWY_RESTRICT x, int64_t step, const float* HWY_RESTRICT w, int n,
                           float* HWY_RESTRICT out) {
  const Floats d;
  Vector a[CB][V];
  FOVEA_EACH (c, CB)
    FOVEA_EACH (v, V) a[c][v] = hn::Load(d, out + (c * V + v) * L);
  FOVEA_UNROLL(2)
  for (int i = 0; i < n; ++i) {
    Vector p[V];
    FOVEA_EACH (v, V) p[v] = hn::Load(d, w + v * L);
    FOVEA_EACH (c, CB) {
      const Vector b = hn::Set(d, x[c]);
      FOVEA_EACH (v, V) {
        const Vector sum = hn::MulAdd(b, p[v], a[c][v]);
        a[c][v] = kSelect ? hn::IfThenElse(hn::Eq(p[v], hn::Zero(d)), a[c][v], sum) : sum;
      }
    }
    x += step, w += V * L;
  }
  FOVEA_EACH (c, CB)
    FOVEA_EACH (v, V) hn::Store(a[c][v], d, out + (c * V + v) * L);
}

template <int V, bool kSelect>
HWY_INLINE void Columns(const float* x, int64_t step, int channels, const float* w, int n, float* out) {
  constexpr int CB = kRegisters == 32 ? 8 : 4;
  int c = 0;
  for (; c + CB <= channels; c += CB) ColumnTile<CB, V, kSelect>(x + c, step, w, n, out + c * V * L);
  for (; c < channels; c += 4) ColumnTile<4, V, kSelect>(x + c, step, w, n, out + c * V * L);
}

// dq[R rows][CV vectors of channels] += dS[R][n keys] K[n]
template <int R, int CV, bool kSelect>
HWY_INLINE void QueryTile(const float* HWY_RESTRICT ds, int lanes, const float* HWY_RESTRICT k, int64_t step, int n,
                          float* HWY_RESTRICT dq) {
  const Floats d;
  Vector a[R][CV];
  FOVEA_EACH (r, R)
    FOVEA_EACH (c, CV) a[r][c] = hn::LoadU(d, dq + r * step + c * L);
  FOVEA_UNROLL(2)
  for (int j = 0; j < n; ++j) {
    Vector key[CV];
    FOVEA_EACH (c, CV) key[c] = hn::LoadU(d, k + j * step + c * L);
    FOVEA_EACH (r, R) {
      const Vector b = hn::Set(d, ds[r * lanes + j]);
      FOVEA_EACH (c, CV) {
        const Vector sum = hn::MulAdd(b, key[c], a[r][c]);
        a[r][c] = kSelect ? hn::IfThenElse(hn::Eq(b, hn::Zero(d)), a[r][c], sum) : sum;
      }
    }
  }
  FOVEA_EACH (r, R)
    FOVEA_EACH (c, CV) hn::StoreU(a[r][c], d, dq + r * step + c * L);
}

template <int CV, bool kSelect>
HWY_INLINE void QueryColumns(const float* ds, int lanes, const float* k, int64_t step, int n, float* dq, int rows) {
  constexpr int R = kRegisters == 32 ? 16 / CV : 8 / CV;
  int r = 0;
  for (; r + R <= rows; r += R) QueryTile<R, CV, kSelect>(ds + r * lanes, lanes, k, step, n, dq + r * step);
  if (R > 8 && r < rows) QueryTile<8, CV, kSelect>(ds + r * lanes, lanes, k, step, n, dq + r * step);
}

template <int V, bool kSelect, int kC>
void AddRowsOfWidth(const QueryRows& R, const KeyLanes& K, const BiasRows& B, int64_t i, int rows, NextRows* next) {
  constexpr int J = kRegisters == 32 ? 8 : 4;
  const int64_t step = kC ? kC : R.step, v_step = kC ? kC : R.v_step;
  for (int r = 0; r < rows; r += J) {
    if (next) next->Fetch();
    ScoreTile<J, V, kSelect, kC>(R, K, B, i + r, r);
  }
  Columns<V, kSelect>(R.grad_out + i * v_step, v_step, kC ? kC : K.Cv, K.p, rows, K.grad_vt);
  Columns<V, kSelect>(R.q + i * step, step, kC ? kC : K.C, K.ds, rows, K.grad_kt);
  float* dq = R.grad_q + i * step;
  int64_t c = 0;
  if (kRegisters == 32)
    for (; c + 4 * L <= step; c += 4 * L) QueryColumns<4, kSelect>(K.ds, V * L, K.k + c, step, K.n, dq + c, rows);
  for (; c + 2 * L <= step; c += 2 * L) QueryColumns<2, kSelect>(K.ds, V * L, K.k + c, step, K.n, dq + c, rows);
  for (; c < step; c += L) QueryColumns<1, kSelect>(K.ds, V * L, K.k + c, step, K.n, dq + c, rows);
}

// Takes query rows [i, i + rows) into the gradients of the block and adds the block's share to their dq.
template <int V, bool kSelect>
void AddRows(const QueryRows& R, const KeyLanes& K, const BiasRows& B, int64_t i, int rows, NextRows* next = nullptr) {
  if constexpr (!kSelect) {
    if (K.C == K.Cv) {
      if (K.C == 16) return AddRowsOfWidth<V, kSelect, 16>(R, K, B, i, rows, next);
      if (K.C == 32) return AddRowsOfWidth<V, kSelect, 32>(R, K, B, i, rows, next);
      if (K.C == 64) return AddRowsOfWidth<V, kSelect, 64>(R, K, B, i, rows, next);
    }
  }
  AddRowsOfWidth<V, kSelect, 0>(R, K, B, i, rows, next);
}

// delta = <dO, O> of a row.
template <class T>
HWY_INLINE float Delta(const float* grad_out, const T* out, int channels) {
  const Floats d;
  Vector sum = hn::Zero(d);
  int c = 0;
  for (; c + L <= channels; c += L) sum = hn::MulAdd(hn::LoadU(d, grad_out + c), LoadFloats(d, out + c), sum);
  float rest = 0;
  for (; c < channels; ++c) rest += grad_out[c] * static_cast<float>(out[c]);
  return hn::GetLane(hn::SumOfLanes(d, sum)) + rest;
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS
#endif  // toggle
