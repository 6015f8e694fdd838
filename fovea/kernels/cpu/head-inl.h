// One head of rows that attend to each other, forward and backward: a window, a region of one, or a short sequence.
//   Packs what the tiles of forward-inl.h and backward-inl.h want and walks over blocks of 3 vectors of queries
//   (backward: of keys); a rest of 4 vectors goes as 2 + 2. Rows lie anywhere in memory (Rows) and are float or
//   BFloat16; all arithmetic is float. K and V of the head stay in L1, its bias tile in L2, and while it is computed
//   the rows of the next head are fetched.
#if defined(FOVEA_KERNELS_HEAD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOVEA_KERNELS_HEAD_INL_H_
#undef FOVEA_KERNELS_HEAD_INL_H_
#else
#define FOVEA_KERNELS_HEAD_INL_H_
#endif

#include "fovea/kernels/cpu/backward-inl.h"
#include "fovea/kernels/cpu/forward-inl.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {

// Where the rows of a head lie. Keys from `own_keys` on are copies of one padding token.
template <class T>
struct HeadRows {
  Rows<const T> q, k, v;
  int64_t queries, keys, own_keys;
  const T *pad_k, *pad_v;
  int C, Cv;
  double scale;
};

template <class T>
void PackKeys(const Rows<const T>& rows, const T* pad, int64_t own, int64_t n, int channels, int step, float* to) {
  for (int64_t j = 0; j < n; ++j) CopyRow(j < own ? rows(j) : pad, channels, step, to + j * step);
}

// Vectors of the next block when `left` rows are left.
inline int64_t block_vectors(int64_t left) {
  const int64_t vectors = (left + L - 1) / L;
  return vectors == 2 || vectors == 4 ? 2 : std::min<int64_t>(vectors, 3);
}

// ------------------------------------------------------------------------------------------------------------- forward

struct ForwardScratch {
  float *k, *v, *key_maximum, *qt, *out_t, *p, *lse;
  ForwardScratch(Arena& arena, int64_t queries, int64_t keys, int64_t C, int64_t Cv) {
    const int64_t step = round_up(C, 4), v_step = round_up(Cv, 4);
    k = arena.take(keys * step), v = arena.take(keys * v_step), key_maximum = arena.take(step);
    qt = arena.take(C * 3 * L), out_t = arena.take(v_step * 3 * L), p = arena.take(kChunk * 3 * L);
    lse = arena.take(queries + 3 * L);
  }
};

// Bias of a head in log2 units: row j holds key j against all queries, a vector's multiple; step 0 repeats one row. No
// score is raised by more than `bound`.
struct BiasTile {
  const float* rows;
  int64_t step;
  float bound;
};

template <int V, class T>
void ForwardBlock(const ForwardScratch& m, const HeadRows<T>& r, const BiasTile& bias, const Rows<T>& out, int64_t i0,
                  NextRows* next) {
  const int n = static_cast<int>(std::min<int64_t>(V * L, r.queries - i0));
  const int64_t step = round_up(r.C, 4), v_step = round_up(r.Cv, 4);
  PackTransposed(r.q, i0, n, V * L, r.C, Factor(r.scale * kLog2eExact), m.qt);
  const bool online = !(ScoreBound(m.qt, r.C, V * L, m.key_maximum) + bias.bound <= kSafeScore);
  BlockState<V> s(m.qt, r.C, r.Cv, m.out_t, m.p);
  for (int64_t j = 0; j < r.keys; j += kChunk) {
    const KeyChunk chunk{m.k + j * step,
                         m.v + j * v_step,
                         bias.rows + j * bias.step + i0,
                         step,
                         v_step,
                         bias.step,
                         static_cast<int>(std::min<int64_t>(kChunk, r.keys - j))};
    online ? AddKeys<V, true, false>(s, chunk, next) : AddKeys<V, false, false>(s, chunk, next);
  }
  EndBlock(s, online, out, i0, n, m.lse + i0);
}

// Writes the head's rows of out and leaves its lse in m.lse.
template <class T>
void ForwardHead(const ForwardScratch& m, const HeadRows<T>& r, const BiasTile& bias, const Rows<T>& out,
                 NextRows* next) {
  const int step = static_cast<int>(round_up(r.C, 4)), v_step = static_cast<int>(round_up(r.Cv, 4));
  PackKeys(r.k, r.pad_k, r.own_keys, r.keys, r.C, step, m.k);
  PackKeys(r.v, r.pad_v, r.own_keys, r.keys, r.Cv, v_step, m.v);
  ColumnMaximum(m.k, r.keys, step, m.key_maximum);
  for (int64_t i = 0; i < r.queries;) {
    const int64_t vectors = block_vectors(r.queries - i);
    vectors == 1   ? ForwardBlock<1>(m, r, bias, out, i, next)
    : vectors == 2 ? ForwardBlock<2>(m, r, bias, out, i, next)
                   : ForwardBlock<3>(m, r, bias, out, i, next);
    i += vectors * L;
  }
}

// ------------------------------------------------------------------------------------------------------------ backward

struct BackwardScratch {
  float *q, *grad_out, *grad_q, *k, *v, *grad_k, *grad_v, *lse, *delta;  // grad_q without the softmax scale
  float *kt, *vt, *grad_kt, *grad_vt, *p, *ds, *scale, *one;
  BackwardScratch(Arena& arena, int64_t queries, int64_t keys, int64_t C, int64_t Cv) {
    const int64_t rows = round_up(queries, 8), step = round_up(C, L), v_step = round_up(Cv, L);
    q = arena.take(rows * step), grad_q = arena.take(rows * step), grad_out = arena.take(rows * v_step);
    k = arena.take(keys * step), grad_k = arena.take(keys * step);
    v = arena.take(keys * v_step), grad_v = arena.take(keys * v_step);
    lse = arena.take(rows), delta = arena.take(rows);
    kt = arena.take(step * 3 * L), grad_kt = arena.take(step * 3 * L);
    vt = arena.take(v_step * 3 * L), grad_vt = arena.take(v_step * 3 * L);
    p = arena.take(kRowChunk * 3 * L), ds = arena.take(kRowChunk * 3 * L), scale = arena.take(3 * L),
    one = arena.take(3 * L);
  }
};

// What the forward pass left and what comes from above.
template <class T>
struct Upstream {
  Rows<const T> grad_out, out;
  Rows<const float> lse;
};

template <int V, class T>
void BackwardBlock(const BackwardScratch& m, const HeadRows<T>& r, const QueryRows& rows, const BiasRows& bias,
                   int64_t j0, NextRows* next) {
  const int n = static_cast<int>(std::min<int64_t>(V * L, r.keys - j0));
  PackTransposed(Rows<const float>{m.k, nullptr, rows.step}, j0, n, V * L, r.C, Factor(r.scale * kLog2eExact), m.kt);
  PackTransposed(Rows<const float>{m.v, nullptr, rows.v_step}, j0, n, V * L, r.Cv, Factor(1), m.vt);
  Fill(m.grad_kt, round_up(r.C, 4) * V * L, 0), Fill(m.grad_vt, round_up(r.Cv, 4) * V * L, 0);
  const KeyLanes lanes{m.k + j0 * rows.step, m.kt, m.vt, m.grad_kt, m.grad_vt, m.p, m.ds, n, r.C, r.Cv};
  for (int64_t i = 0; i < rows.rows; i += kRowChunk) {
    const BiasRows here{bias.bias + i * bias.step + j0, bias.step,
                        bias.grad ? bias.grad + i * bias.grad_step + j0 : nullptr, bias.grad_step};
    AddRows<V, false>(rows, lanes, here, i, static_cast<int>(std::min<int64_t>(kRowChunk, rows.rows - i)), next);
  }
  UnpackTransposed(m.grad_kt, V * L, m.scale, Rows<float>{m.grad_k, nullptr, rows.step}, j0, n, r.C);
  UnpackTransposed(m.grad_vt, V * L, m.one, Rows<float>{m.grad_v, nullptr, rows.v_step}, j0, n, r.Cv);
}

// Leaves the head's gradients in m.grad_q (without the softmax scale), m.grad_k and m.grad_v, rows of C and Cv rounded
// up to a vector, and adds that of the bias to bias.grad, whose rows and lanes are padded as those of bias.bias.
template <class T>
void BackwardHead(const BackwardScratch& m, const HeadRows<T>& r, const Upstream<T>& up, const BiasRows& bias,
                  NextRows* next) {
  const int step = static_cast<int>(round_up(r.C, L)), v_step = static_cast<int>(round_up(r.Cv, L));
  const int64_t rows = round_up(r.queries, 8);
  bool far = false;
  for (int64_t i = 0; i < r.queries; ++i) {
    CopyRow(r.q(i), r.C, step, m.q + i * step);
    CopyRow(up.grad_out(i), r.Cv, v_step, m.grad_out + i * v_step);
    m.delta[i] = Delta(m.grad_out + i * v_step, up.out(i), r.Cv);
    m.lse[i] = PackedLse(*up.lse(i), far);
  }
  for (int64_t i = r.queries; i < rows; ++i) {
    Fill(m.q + i * step, step, 0), Fill(m.grad_out + i * v_step, v_step, 0);
    m.delta[i] = 0, m.lse[i] = kNoWeight;
  }
  PackKeys(r.k, r.pad_k, r.own_keys, r.keys, r.C, step, m.k);
  PackKeys(r.v, r.pad_v, r.own_keys, r.keys, r.Cv, v_step, m.v);
  Fill(m.grad_q, rows * step, 0);
  Fill(m.scale, 3 * L, static_cast<float>(r.scale)), Fill(m.one, 3 * L, 1);
  const QueryRows packed{m.q, m.grad_out, m.lse, r.keys <= 3 * L ? nullptr : m.delta, m.grad_q, rows, step, v_step, far};
  for (int64_t j = 0; j < r.keys;) {
    const int64_t vectors = block_vectors(r.keys - j);
    vectors == 1   ? BackwardBlock<1>(m, r, packed, bias, j, next)
    : vectors == 2 ? BackwardBlock<2>(m, r, packed, bias, j, next)
                   : BackwardBlock<3>(m, r, packed, bias, j, next);
    j += vectors * L;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS
#endif  // toggle
