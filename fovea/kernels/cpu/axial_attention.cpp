// Axial attention on vectors.
//   Untied: one call of the dense kernel a sample, places of the other axis as its batch, all by strides; the gradient
//   of a bias shared by the places is a broadcast axis there, summed by one owner in order.
//   Tied: one map for all places r, made with the tiles of the dense kernel (forward-inl.h, backward-inl.h), a block of
//   up to 3 vectors of queries (forward) or keys (backward) at a time, the other side of the map in full:
//     forward   S^T += K_r Q_r^T for every r; softmax down the lanes; O_r^T = V_r^T P^T for every r
//     backward  S += Q_r K_r^T, dP += dO_r V_r^T for every r; P, dS; then for every r dV_r^T += dO_r^T P,
//               dK_r^T += Q_r^T dS, dQ_r += dS K_r. A head belongs to one thread, blocks of keys follow one another.
//   Masked tokens are zero rows. Sums over r start from 0 for each r: roundings grow with places, not with channels.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fovea/kernels/cpu/axial_attention.cpp"
#include "fovea/kernels/cpu/targets.h"

#include "hwy/foreach_target.h"

#include <algorithm>
#include <vector>

#include "fovea/kernels/axial_attention.h"
#include "fovea/kernels/cpu/backward-inl.h"
#include "fovea/kernels/cpu/forward-inl.h"
#include "fovea/kernels/cpu/weighted_rows-inl.h"
#include "hwy/aligned_allocator.h"

#ifndef FOVEA_AXIAL_ATTENTION_ONCE
#define FOVEA_AXIAL_ATTENTION_ONCE
namespace fovea::kernels::cpu::axial {

enum Part { kQuery, kKey, kValue };

/// The alignment seen from the attended axis: place r of the other axis, place i of the attended one.
struct Call {
  const AxialAttentionParams<float>& p;
  int64_t B = p.qkv.shape[0], H = p.qkv.shape[4], C = p.qkv.shape[5];
  int64_t n = p.attended(), m = p.others();
  int other = p.axis == AlignmentAxis::kResidues ? 1 : 2, along = 3 - other;  // axes of a [B,R,L,...] tensor

  explicit Call(const AxialAttentionParams<float>& params) : p(params) {}

  bool open(int64_t b, int64_t r, int64_t i) const {
    return !p.mask.data || p.mask.data[b * p.mask.stride[0] + r * p.mask.stride[other] + i * p.mask.stride[along]];
  }
  /// Whether place i of the attended axis is masked for every r.
  bool closed(int64_t b, int64_t i) const {
    for (int64_t r = 0; r < m; ++r)
      if (open(b, r, i)) return false;
    return true;
  }
  template <class T>
  View<T, 4> part_of(const View<T, 6>& v, int64_t b, Part part) const {  // [m,H,n,C]
    return {v.data + b * v.stride[0] + part * v.stride[3],
            {m, H, n, C},
            {v.stride[other], v.stride[4], v.stride[along], v.stride[5]}};
  }
  template <class T>
  View<T, 4> heads_of(const View<T, 5>& v, int64_t b) const {  // [m,H,n,C]
    return {v.data + b * v.stride[0], {m, H, n, C}, {v.stride[other], v.stride[3], v.stride[along], v.stride[4]}};
  }
  /// Sample b as a call of dense attention with the places as its batch.
  AttentionParams<float> dense(int64_t b) const {
    AttentionParams<float> d;
    d.q = part_of(p.qkv, b, kQuery), d.k = part_of(p.qkv, b, kKey), d.v = part_of(p.qkv, b, kValue);
    if (p.pair_bias.data) {
      const auto& bias = p.pair_bias;
      d.bias = {bias.data + b * bias.stride[0], {m, H, n, n}, {0, bias.stride[1], bias.stride[2], bias.stride[3]}};
    }
    if (p.mask.data)
      d.key_mask = {p.mask.data + b * p.mask.stride[0], {m, n}, {p.mask.stride[other], p.mask.stride[along]}};
    d.scale = p.scale;
    d.out = heads_of(p.out, b);
    d.lse = p.lse[b];
    return d;
  }
};

/// Zeroes the distinct elements of a bias gradient [B,H,n,n].
inline void clear(const View<float, 4>& grad) {
  for (int64_t b = 0; b < (grad.stride[0] ? grad.shape[0] : std::min<int64_t>(1, grad.shape[0])); ++b)
    for (int64_t h = 0; h < (grad.stride[1] ? grad.shape[1] : std::min<int64_t>(1, grad.shape[1])); ++h)
      for (int64_t i = 0; i < grad.shape[2]; ++i)
        for (int64_t j = 0; j < grad.shape[3]; ++j) grad(b, h, i, j) = 0;
}

inline void untied_forward(const AxialAttentionParams<float>& p, const ParallelFor& parallel, Isa isa) {
  const Call call(p);
  for (int64_t b = 0; b < call.B; ++b) attention_forward(call.dense(b), parallel, isa);
}

inline void untied_backward(const AxialAttentionBackwardParams<float>& g, const ParallelFor& parallel, Isa isa) {
  const Call call(g.forward);
  const auto& bias = g.grad_pair_bias;
  if (bias.data && call.m == 0) clear(bias);  // the dense kernel leaves it alone then
  const bool sums_samples = bias.data && call.B > 1 && bias.stride[0] == 0;
  const bool by_head = bias.data && (bias.stride[1] != 0 || call.H == 1);
  const int64_t heads = by_head ? call.H : 1;
  std::vector<float> sample(sums_samples ? heads * call.n * call.n : 0);  // the dense kernel writes, it does not add
  for (int64_t b = 0; b < call.B; ++b) {
    AttentionBackwardParams<float> d;
    d.forward = call.dense(b);
    d.grad_out = call.heads_of(g.grad_out, b);
    d.grad_q = call.part_of(g.grad_qkv, b, kQuery), d.grad_k = call.part_of(g.grad_qkv, b, kKey);
    d.grad_v = call.part_of(g.grad_qkv, b, kValue);
    const std::array<int64_t, 4> shape{call.m, call.H, call.n, call.n};
    const bool aside = sums_samples && b > 0;
    if (aside)
      d.grad_bias = {sample.data(), shape, {0, by_head ? call.n * call.n : 0, call.n, 1}};
    else if (bias.data)
      d.grad_bias = {bias.data + b * bias.stride[0], shape, {0, bias.stride[1], bias.stride[2], bias.stride[3]}};
    attention_backward(d, parallel, isa);
    for (int64_t h = 0; h < heads && aside; ++h)
      for (int64_t i = 0; i < call.n; ++i)
        for (int64_t j = 0; j < call.n; ++j) bias(0, h, i, j) += sample[(h * call.n + i) * call.n + j];
  }
}

}  // namespace fovea::kernels::cpu::axial
#endif  // FOVEA_AXIAL_ATTENTION_ONCE

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace tied {
using cpu::axial::Call;

constexpr int kScoreRows = kRegisters == 32 ? 8 : 4;  // rows of a map that one tile sums

// Rows of one place and head: row i at + i * stride[2] of a [m,H,n,C] view.
template <class T>
Rows<T> rows_of(const View<T, 4>& v, int64_t r, int64_t h) {
  return {v.data + r * v.stride[0] + h * v.stride[1], nullptr, v.stride[2]};
}

// Rows [i0, i0 + count) of place r as rows of `step` in `memory`, filled up with zeros, masked ones zero.
Rows<const float> copied_rows(const Call& call, int64_t b, int64_t r, const Rows<const float>& rows, int64_t i0,
                              int64_t count, int64_t step, float* memory) {
  for (int64_t i = 0; i < count; ++i)
    call.open(b, r, i0 + i) ? CopyRow(rows(i0 + i), static_cast<int>(call.C), static_cast<int>(step), memory + i * step)
                            : Fill(memory + i * step, step, 0);
  return {memory, nullptr, step};
}

// The same where they are, if none is masked and their channels are whole multiples of `multiple`; else a copy.
Rows<const float> open_rows(const Call& call, int64_t b, int64_t r, const Rows<const float>& rows, int64_t i0,
                            int64_t count, int64_t multiple, int64_t step, float* memory) {
  bool direct = call.C % multiple == 0;
  for (int64_t i = i0; i < i0 + count && direct && call.p.mask.data; ++i) direct = call.open(b, r, i);
  return direct ? Rows<const float>{rows(i0), nullptr, rows.step}
                : copied_rows(call, b, r, rows, i0, count, step, memory);
}

// map[row][lanes] += <x(row), lanes of t>, row < rows.
template <int V>
void add_products(const Rows<const float>& x, int64_t rows, int C, const float* t, float* spill, float* map) {
  const Floats d;
  const auto tile = [&](auto count, int64_t row) {
    constexpr int J = decltype(count)::value;
    Vector a[J][V];
    FOVEA_EACH (j, J)
      FOVEA_EACH (v, V) a[j][v] = hn::Zero(d);
    float* to = map + row * V * L;
    DotTile<J, V, kScoreBlock>(x(row), x.step, C, t, to + J * V * L, V * L, spill, a);
    FOVEA_EACH (j, J)
      FOVEA_EACH (v, V) {
        float* at = to + (j * V + v) * L;
        hn::Store(hn::Add(hn::Load(d, at), a[j][v]), d, at);
      }
  };
  int64_t row = 0;
  for (; row + kScoreRows <= rows; row += kScoreRows) tile(std::integral_constant<int, kScoreRows>(), row);
  for (; row < rows; ++row) tile(std::integral_constant<int, 1>(), row);
}

// ------------------------------------------------------------------------------------------------------------- forward

struct ForwardMemory {
  float *q, *qt, *map, *k, *v, *out_t, *spill, *lse;
  int64_t step;
  ForwardMemory(const Call& call, Arena& arena) : step(round_up(call.C, 4)) {
    const int64_t lanes = 3 * L;
    q = arena.take(lanes * step), qt = arena.take(step * lanes), map = arena.take(round_up(call.n, kChunk) * lanes);
    k = arena.take(kChunk * step), v = arena.take(kChunk * step), out_t = arena.take(step * lanes);
    spill = arena.take(kScoreRows * lanes), lse = arena.take(lanes);
  }
};

// Softmax down the lanes of the map [n][V * L], log2 units: weights exp(s - maximum), their sums into `inverse` as
// reciprocals and into lse.
template <int V>
void softmax_lanes(const Call& call, int64_t b, float* map, float* inverse, float* lse) {
  const Floats d;
  for (int v = 0; v < V; ++v) {
    Vector maximum = hn::Set(d, -kInfinity), total = hn::Zero(d);
    for (int64_t j = 0; j < call.n; ++j) {
      const Vector s = hn::Load(d, map + (j * V + v) * L);
      maximum = hn::Max(hn::IfThenElse(hn::Eq(s, s), s, hn::Set(d, std::numeric_limits<float>::lowest())), maximum);
    }
    const auto none = hn::Eq(maximum, hn::Set(d, -kInfinity));
    const Vector shift = hn::IfThenZeroElse(none, maximum);
    for (int64_t j = 0; j < call.n; j += kChunk) {
      Vector chunk = hn::Zero(d);
      for (int64_t jj = j; jj < std::min(call.n, j + kChunk); ++jj) {
        float* at = map + (jj * V + v) * L;
        const Vector e = Exp2(hn::Sub(hn::Load(d, at), shift));
        chunk = hn::Add(chunk, e);
        hn::Store(e, d, at);
      }
      total = hn::Add(total, chunk);
    }
    const Vector one = hn::Set(d, 1.f);
    const Vector divisor = hn::IfThenElse(none, one, total);
    hn::StoreU(hn::IfThenZeroElse(none, hn::Div(one, divisor)), d, inverse + v * L);
    const Vector log = hn::Add(hn::IfThenElse(hn::Eq(total, total), Log2(divisor), total), maximum);
    hn::StoreU(hn::IfThenElse(none, hn::Set(d, -kInfinity), hn::Mul(log, hn::Set(d, kLn2))), d, lse + v * L);
  }
}

template <int V>
void query_block(const Call& call, const ForwardMemory& m, int64_t b, int64_t h, int64_t i0, int count) {
  constexpr int lanes = V * L;
  const auto& p = call.p;
  const int C = static_cast<int>(call.C);
  const auto q = call.part_of(p.qkv, b, axial::kQuery), k = call.part_of(p.qkv, b, axial::kKey),
             v = call.part_of(p.qkv, b, axial::kValue);
  const auto out = call.heads_of(p.out, b);

  // s[i,j] = scale sum_r <q_ri, k_rj> + bias[i,j]
  Fill(m.map, call.n * lanes, 0);
  for (int64_t r = 0; r < call.m; ++r) {
    const auto queries = open_rows(call, b, r, rows_of(q, r, h), i0, count, 1, m.step, m.q);
    PackTransposed(queries, 0, count, lanes, C, Factor(p.scale * kLog2eExact), m.qt);
    for (int64_t j = 0; j < call.n; j += kChunk) {
      const int64_t keys = std::min<int64_t>(kChunk, call.n - j);
      const auto rows = open_rows(call, b, r, rows_of(k, r, h), j, keys, 1, m.step, m.k);
      add_products<V>(rows, keys, C, m.qt, m.spill, m.map + j * lanes);
    }
  }
  for (int64_t j = 0; j < call.n; ++j) {
    float* row = m.map + j * lanes;
    for (int u = 0; u < count && p.pair_bias.data; ++u) row[u] += p.pair_bias(b, h, i0 + u, j) * kLog2e;
    if (call.closed(b, j)) Fill(row, lanes, -kInfinity);
  }
  HWY_ALIGN float inverse[lanes];
  softmax_lanes<V>(call, b, m.map, inverse, m.lse);
  for (int u = 0; u < count; ++u) p.lse(b, 0, h, i0 + u) = m.lse[u];

  // out_r = P v_r
  constexpr int CB = kRegisters == 32 ? 8 : 4;
  for (int64_t r = 0; r < call.m; ++r) {
    BlockState<V> s(m.qt, C, C, m.out_t, m.map);
    for (int64_t j = 0; j < call.n; j += kChunk) {
      const int keys = static_cast<int>(std::min<int64_t>(kChunk, call.n - j));
      const auto values = open_rows(call, b, r, rows_of(v, r, h), j, keys, 4, m.step, m.v);
      const KeyChunk chunk{nullptr, values.base, nullptr, 0, values.step, 0, keys};
      s.p = m.map + j * lanes;
      int c = 0;
      for (; c + CB <= C; c += CB) PvTile<CB, V, false>(s, chunk, c);
      for (; c < C; c += 4) PvTile<4, V, false>(s, chunk, c);
    }
    UnpackTransposed(m.out_t, lanes, inverse, rows_of(out, r, h), i0, count, C);
  }
}

void Forward(const AxialAttentionParams<float>& p, const ParallelFor& parallel) {
  const Call call(p);
  const int64_t blocks = (call.n + 3 * L - 1) / (3 * L);
  parallel(call.B * call.H * blocks, 1, [&](int64_t begin, int64_t end) {
    const FlushDenormals flush;
    Arena counter;
    ForwardMemory(call, counter);
    const auto memory = hwy::AllocateAligned<float>(counter.used());
    Arena arena(memory.get());
    const ForwardMemory m(call, arena);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / blocks / call.H, h = item / blocks % call.H, i0 = item % blocks * 3 * L;
      const int count = static_cast<int>(std::min<int64_t>(3 * L, call.n - i0)), vectors = (count + L - 1) / L;
      vectors == 1   ? query_block<1>(call, m, b, h, i0, count)
      : vectors == 2 ? query_block<2>(call, m, b, h, i0, count)
                     : query_block<3>(call, m, b, h, i0, count);
    }
  });
}

// ------------------------------------------------------------------------------------------------------------ backward

struct BackwardMemory {
  int64_t rows, step;
  float *q, *grad_out, *k, *v, *kt, *vt, *grad_q, *grad_vt, *grad_kt, *p, *ds, *spill, *lse, *scale, *one;
  double* delta;
  BackwardMemory(const Call& call, Arena& arena) : rows(round_up(call.n, 8)), step(round_up(call.C, L)) {
    const int64_t lanes = 3 * L;
    q = arena.take(rows * step), grad_out = arena.take(rows * step), grad_q = arena.take(rows * step);
    k = arena.take(lanes * step), v = arena.take(lanes * step);
    kt = arena.take(step * lanes), vt = arena.take(step * lanes), grad_vt = arena.take(step * lanes);
    grad_kt = arena.take(step * lanes);
    p = arena.take(rows * lanes), ds = arena.take(rows * lanes), spill = arena.take(kScoreRows * lanes);
    lse = arena.take(rows), scale = arena.take(lanes), one = arena.take(lanes);
    delta = reinterpret_cast<double*>(arena.take(2 * rows));
  }
};

template <int V>
void key_block(const Call& call, const BackwardMemory& m, const AxialAttentionBackwardParams<float>& g, int64_t b,
               int64_t h, int64_t j0, int count) {
  constexpr int lanes = V * L;
  const Floats d;
  const auto& p = call.p;
  const int C = static_cast<int>(call.C);
  const int64_t n = call.n;
  const auto q = call.part_of(p.qkv, b, axial::kQuery), k = call.part_of(p.qkv, b, axial::kKey),
             v = call.part_of(p.qkv, b, axial::kValue);
  const auto grad_out = call.heads_of(g.grad_out, b);
  const auto take = [&](const View<const float, 4>& rows, int64_t r, int64_t multiple, float* memory) {
    return open_rows(call, b, r, rows_of(rows, r, h), 0, n, multiple, m.step, memory);
  };
  // dO of a masked query counts: only its q is left out.
  const auto take_upstream = [&](int64_t r) {
    const Rows<const float> upstream = rows_of(grad_out, r, h);
    if (C % 4 == 0) return upstream;
    for (int64_t i = 0; i < n; ++i) CopyRow(upstream(i), C, static_cast<int>(m.step), m.grad_out + i * m.step);
    return Rows<const float>{m.grad_out, nullptr, m.step};
  };

  // S = sum_r Q_r K_r^T,   dP = sum_r dO_r V_r^T
  Fill(m.p, m.rows * lanes, 0), Fill(m.ds, m.rows * lanes, 0);
  for (int64_t r = 0; r < call.m; ++r) {
    const auto keys = open_rows(call, b, r, rows_of(k, r, h), j0, count, 1, m.step, m.k);
    PackTransposed(keys, 0, count, lanes, C, Factor(p.scale * kLog2eExact), m.kt);
    const auto values = open_rows(call, b, r, rows_of(v, r, h), j0, count, 1, m.step, m.v);
    PackTransposed(values, 0, count, lanes, C, Factor(1), m.vt);
    add_products<V>(take(q, r, 1, m.q), n, C, m.kt, m.spill, m.p);
    add_products<V>(take_upstream(r), n, C, m.vt, m.spill, m.ds);
  }

  // P = exp(S + bias - lse),   dS = P (dP - delta)
  HWY_ALIGN float bias[lanes], open[lanes];
  for (int u = 0; u < lanes; ++u) open[u] = u < count && !call.closed(b, j0 + u) ? 1 : 0;
  Fill(bias, lanes, 0);
  for (int64_t i = 0; i < n; ++i) {
    float *row_p = m.p + i * lanes, *row_ds = m.ds + i * lanes;
    for (int u = 0; u < count && p.pair_bias.data; ++u) bias[u] = p.pair_bias(b, h, i, j0 + u) * kLog2e;
    Vector dp[V];
    FOVEA_EACH (u, V) {
      const Vector s = hn::Add(hn::Load(d, row_p + u * L), hn::Load(d, bias + u * L));
      const auto closed = hn::Eq(hn::Load(d, open + u * L), hn::Zero(d));
      hn::Store(hn::IfThenZeroElse(closed, Exp2(hn::Sub(s, hn::Set(d, m.lse[i])))), d, row_p + u * L);
      dp[u] = hn::IfThenZeroElse(closed, hn::Load(d, row_ds + u * L));
    }
    if (n <= 3 * L) {  // all keys are here
      CentreRow<V>(dp, row_p);
    } else {
      FOVEA_EACH (u, V) dp[u] = hn::Sub(dp[u], hn::Set(d, static_cast<float>(m.delta[i])));
    }
    FOVEA_EACH (u, V) {
      const Vector weight = hn::Load(d, row_p + u * L);
      hn::Store(hn::IfThenZeroElse(hn::Eq(weight, hn::Zero(d)), hn::Mul(weight, dp[u])), d, row_ds + u * L);
    }
    for (int u = 0; u < count && g.grad_pair_bias.data; ++u) g.grad_pair_bias(b, h, i, j0 + u) += row_ds[u];
  }

  // dV_r = P^T dO_r,   dK_r = scale dS^T Q_r,   dQ_r = scale dS K_r
  constexpr int64_t kAllOpen = std::numeric_limits<int64_t>::max() / 2;
  const auto grad_q = call.part_of(g.grad_qkv, b, axial::kQuery), grad_k = call.part_of(g.grad_qkv, b, axial::kKey),
             grad_v = call.part_of(g.grad_qkv, b, axial::kValue);
  for (int64_t r = 0; r < call.m; ++r) {
    const auto queries = take(q, r, 4, m.q), upstream = take_upstream(r);
    const auto keys = copied_rows(call, b, r, rows_of(k, r, h), j0, count, m.step, m.k);
    const Rows<float> to_q = rows_of(grad_q, r, h), to_k = rows_of(grad_k, r, h), to_v = rows_of(grad_v, r, h);
    Fill(m.grad_vt, m.step * lanes, 0), Fill(m.grad_kt, m.step * lanes, 0), Fill(m.grad_q, m.rows * m.step, 0);
    for (int64_t i = 0; i < n; i += kRowChunk) {
      const int rows = static_cast<int>(std::min<int64_t>(kRowChunk, n - i));
      const int padded = static_cast<int>(round_up(rows, 8));
      const float *weights = m.p + i * lanes, *ds = m.ds + i * lanes;
      Columns<V, false>(upstream(i), upstream.step, C, weights, rows, kAllOpen, m.grad_vt);
      Columns<V, false>(queries(i), queries.step, C, ds, rows, kAllOpen, m.grad_kt);
      float* to = m.grad_q + i * m.step;
      int64_t c = 0;
      for (; c + 2 * L <= m.step; c += 2 * L) QueryColumns<2>(ds, lanes, keys.base + c, m.step, count, to + c, padded);
      if (c < m.step) QueryColumns<1>(ds, lanes, keys.base + c, m.step, count, to + c, padded);
    }
    UnpackTransposed(m.grad_vt, lanes, m.one, to_v, j0, count, C);
    UnpackTransposed(m.grad_kt, lanes, m.scale, to_k, j0, count, C);
    for (int j = 0; j < count; ++j)
      if (!call.open(b, r, j0 + j)) Fill(to_k(j0 + j), C, 0), Fill(to_v(j0 + j), C, 0);
    for (int64_t i = 0; i < n; ++i) {
      float* to = to_q(i);
      const float* from = m.grad_q + i * m.step;
      if (!call.open(b, r, i))
        Fill(to, C, 0);
      else if (j0 == 0)
        CopyRow(from, C, C, to, m.scale[0]);
      else
        AddRow(from, m.scale[0], C, to);
    }
  }
}

// All gradients of head h of sample b.
void backward_head(const Call& call, const BackwardMemory& m, const AxialAttentionBackwardParams<float>& g, int64_t b,
                   int64_t h) {
  const auto& p = call.p;
  const auto grad_out = call.heads_of(g.grad_out, b);
  const auto out = call.heads_of(p.out, b);
  for (int64_t i = 0; i < m.rows; ++i) {
    const float lse = i < call.n ? p.lse(b, 0, h, i) : -kInfinity;
    m.lse[i] = lse == -kInfinity ? kNoWeight : lse * kLog2e;
    m.delta[i] = 0;
    for (int64_t r = 0; r < call.m && i < call.n; ++r)
      m.delta[i] += double{Delta(rows_of(grad_out, r, h)(i), rows_of(out, r, h)(i), static_cast<int>(call.C))};
  }
  for (int64_t j = 0; j < call.n;) {
    const int64_t vectors = std::min<int64_t>(3, (call.n - j + L - 1) / L);
    const int count = static_cast<int>(std::min(vectors * L, call.n - j));
    vectors == 1   ? key_block<1>(call, m, g, b, h, j, count)
    : vectors == 2 ? key_block<2>(call, m, g, b, h, j, count)
                   : key_block<3>(call, m, g, b, h, j, count);
    j += count;
  }
}

void Backward(const AxialAttentionBackwardParams<float>& g, const ParallelFor& parallel) {
  const Call call(g.forward);
  // Heads and samples that share a bias gradient belong to one thread.
  const auto& bias = g.grad_pair_bias;
  const int64_t samples = bias.data && !bias.stride[0] ? std::min<int64_t>(1, call.B) : call.B;
  const int64_t heads = bias.data && !bias.stride[1] ? std::min<int64_t>(1, call.H) : call.H;
  if (bias.data) axial::clear(bias);
  parallel(samples * heads, 1, [&](int64_t begin, int64_t end) {
    const FlushDenormals flush;
    Arena counter;
    BackwardMemory(call, counter);
    const auto memory = hwy::AllocateAligned<float>(counter.used());
    Arena arena(memory.get());
    const BackwardMemory m(call, arena);
    Fill(m.scale, 3 * L, static_cast<float>(call.p.scale)), Fill(m.one, 3 * L, 1);
    for (int64_t item = begin; item < end; ++item)
      for (int64_t b = samples == call.B ? item / heads : 0; b < (samples == call.B ? item / heads + 1 : call.B); ++b)
        for (int64_t h = heads == call.H ? item % heads : 0; h < (heads == call.H ? item % heads + 1 : call.H); ++h)
          backward_head(call, m, g, b, h);
  });
}

}  // namespace tied
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS

#if HWY_ONCE
namespace fovea::kernels::cpu {

void axial_attention_forward(const AxialAttentionParams<float>& p, const ParallelFor& parallel, Isa isa) {
  if (!p.tied) return axial::untied_forward(p, parallel, isa);
#if HWY_TARGETS & HWY_AVX3
  if (isa >= Isa::kAvx512) return N_AVX3::tied::Forward(p, parallel);
#endif
#if HWY_TARGETS & HWY_AVX2
  if (isa >= Isa::kAvx2) return N_AVX2::tied::Forward(p, parallel);
#endif
#if HWY_TARGETS & HWY_NEON
  if (isa == Isa::kNeon) return N_NEON::tied::Forward(p, parallel);
#endif
  reference::axial_attention_forward(p, parallel);
}

void axial_attention_backward(const AxialAttentionBackwardParams<float>& g, const ParallelFor& parallel, Isa isa) {
  if (!g.forward.tied) return axial::untied_backward(g, parallel, isa);
#if HWY_TARGETS & HWY_AVX3
  if (isa >= Isa::kAvx512) return N_AVX3::tied::Backward(g, parallel);
#endif
#if HWY_TARGETS & HWY_AVX2
  if (isa >= Isa::kAvx2) return N_AVX2::tied::Backward(g, parallel);
#endif
#if HWY_TARGETS & HWY_NEON
  if (isa == Isa::kNeon) return N_NEON::tied::Backward(g, parallel);
#endif
  reference::axial_attention_backward(g, parallel);
}

}  // namespace fovea::kernels::cpu
#endif  // HWY_ONCE
