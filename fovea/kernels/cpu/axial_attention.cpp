// Axial attention on vectors.
//   Untied: one call of the dense kernel a sample, places of the other axis as its batch, all by strides; the gradient
//   of a bias shared by the places is a broadcast axis there, summed by one owner in order.
//   Tied: one map for all places r, made with the tiles of the dense kernel (forward-inl.h, backward-inl.h), a block of
//   up to 3 vectors of queries (forward) or keys (backward) at a time, the other side of the map in full. Blocks
//   of 192 columns go through the alignment together, or each would read it from memory anew:
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
  bool has_one_key(int64_t b) const {
    int64_t keys = 0;
    for (int64_t i = 0; i < n && keys < 2; ++i) keys += !closed(b, i);
    return keys == 1;
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

constexpr int64_t kStripBlocks = 64 / L;              // blocks of 3 vectors that share a reading of the alignment
constexpr int64_t kPlaces = 4;                        // places that a chunk of the map serves while it is in cache
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
    DotTile<J, V, kScoreBlock, 0>(x(row), x.step, C, t, to + J * V * L, V * L, spill, a);
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

// Up to 3 vectors of a map's columns: queries in the forward pass, keys in the backward pass.
struct Block {
  int64_t first;
  int count, vectors;
};

// Blocks of the strip that starts at `first`, the other side of the map in full: they go through the alignment
// together.
std::vector<Block> strip_blocks(const Call& call, int64_t first) {
  std::vector<Block> blocks;
  const int64_t end = std::min(call.n, first + kStripBlocks * 3 * L);
  for (int64_t i = first; i < end; i += 3 * L) {
    const int count = static_cast<int>(std::min<int64_t>(3 * L, end - i));
    blocks.push_back({i, count, (count + L - 1) / L});
  }
  return blocks;
}

// f(std::integral_constant<int, V>()) with the block's number of vectors.
template <class F>
HWY_INLINE void with_vectors(const Block& block, const F& f) {
  block.vectors == 1   ? f(std::integral_constant<int, 1>())
  : block.vectors == 2 ? f(std::integral_constant<int, 2>())
                       : f(std::integral_constant<int, 3>());
}

// ------------------------------------------------------------------------------------------------------------- forward

struct ForwardMemory {
  int64_t step, map_size;
  float *q, *qt, *map, *k, *v, *out_t, *spill, *lse, *inverse;
  ForwardMemory(const Call& call, Arena& arena) : step(round_up(call.C, 4)), map_size(call.n * 3 * L) {
    const int64_t lanes = 3 * L;
    q = arena.take(lanes * step), qt = arena.take(kPlaces * step * lanes), map = arena.take(kStripBlocks * map_size);
    k = arena.take(kChunk * step), v = arena.take(kChunk * step), out_t = arena.take(kPlaces * step * lanes);
    spill = arena.take(kScoreRows * lanes), lse = arena.take(lanes), inverse = arena.take(kStripBlocks * lanes);
  }
};

// Softmax down the lanes of the map [n][V * L], log2 units: weights exp(s - maximum), their sums into `inverse` as
// reciprocals and into lse.
template <int V>
void softmax_lanes(int64_t n, float* map, float* inverse, float* lse) {
  const Floats d;
  for (int v = 0; v < V; ++v) {
    Vector maximum = hn::Set(d, -kInfinity), total = hn::Zero(d);
    for (int64_t j = 0; j < n; ++j) {
      const Vector s = hn::Load(d, map + (j * V + v) * L);
      maximum = hn::Max(hn::IfThenElse(hn::Eq(s, s), s, hn::Set(d, std::numeric_limits<float>::lowest())), maximum);
    }
    const auto none = hn::Eq(maximum, hn::Set(d, -kInfinity));
    const Vector shift = hn::IfThenZeroElse(none, maximum);
    for (int64_t j = 0; j < n; j += kChunk) {
      Vector chunk = hn::Zero(d);
      for (int64_t jj = j; jj < std::min(n, j + kChunk); ++jj) {
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

// s[i,j] += scale sum_r <q_ri, k_rj>, r0 <= r < r_end.
template <int V>
void add_scores(const Call& call, const ForwardMemory& m, int64_t b, int64_t h, const Block& block, int64_t r0,
                int64_t r_end, float* map) {
  constexpr int lanes = V * L;
  const auto q = call.part_of(call.p.qkv, b, axial::kQuery), k = call.part_of(call.p.qkv, b, axial::kKey);
  const int C = static_cast<int>(call.C);
  const int64_t packed = m.step * lanes;
  for (int64_t r = r0; r < r_end; ++r) {
    const auto queries = open_rows(call, b, r, rows_of(q, r, h), block.first, block.count, 1, m.step, m.q);
    PackTransposed(queries, 0, block.count, lanes, C, Factor(call.p.scale * kLog2eExact), m.qt + (r - r0) * packed);
  }
  for (int64_t j = 0; j < call.n; j += kChunk)
    for (int64_t r = r0; r < r_end; ++r) {
      const int64_t keys = std::min<int64_t>(kChunk, call.n - j);
      const auto rows = open_rows(call, b, r, rows_of(k, r, h), j, keys, 1, m.step, m.k);
      add_products<V>(rows, keys, C, m.qt + (r - r0) * packed, m.spill, map + j * lanes);
    }
}

// Scores plus bias become weights; lse is written.
template <int V>
void weigh(const Call& call, const ForwardMemory& m, int64_t b, int64_t h, const Block& block, float* map,
           float* inverse) {
  constexpr int lanes = V * L;
  const auto& p = call.p;
  for (int64_t j = 0; j < call.n; ++j) {
    float* row = map + j * lanes;
    for (int u = 0; u < block.count && p.pair_bias.data; ++u) row[u] += p.pair_bias(b, h, block.first + u, j) * kLog2e;
    if (call.closed(b, j)) Fill(row, lanes, -kInfinity);
  }
  softmax_lanes<V>(call.n, map, inverse, m.lse);
  for (int u = 0; u < block.count; ++u) p.lse(b, 0, h, block.first + u) = m.lse[u];
}

// out_r = P v_r, r0 <= r < r_end.
template <int V>
void write_out(const Call& call, const ForwardMemory& m, int64_t b, int64_t h, const Block& block, int64_t r0,
               int64_t r_end, float* map, const float* inverse) {
  constexpr int lanes = V * L, CB = kRegisters == 32 ? 8 : 4;
  const auto v = call.part_of(call.p.qkv, b, axial::kValue);
  const auto out = call.heads_of(call.p.out, b);
  const int C = static_cast<int>(call.C);
  const int64_t packed = m.step * lanes;
  BlockState<V> s(m.qt, C, C, m.out_t, map);
  Fill(m.out_t, (r_end - r0) * packed, 0);
  for (int64_t j = 0; j < call.n; j += kChunk)
    for (int64_t r = r0; r < r_end; ++r) {
      const int keys = static_cast<int>(std::min<int64_t>(kChunk, call.n - j));
      const auto values = open_rows(call, b, r, rows_of(v, r, h), j, keys, 4, m.step, m.v);
      const KeyChunk chunk{nullptr, values.base, nullptr, 0, values.step, 0, keys};
      s.out_t = m.out_t + (r - r0) * packed, s.p = map + j * lanes;
      int c = 0;
      for (; c + CB <= C; c += CB) PvTile<CB, V, false>(s, chunk, c);
      for (; c < C; c += 4) PvTile<4, V, false>(s, chunk, c);
    }
  for (int64_t r = r0; r < r_end; ++r)
    UnpackTransposed(m.out_t + (r - r0) * packed, lanes, inverse, rows_of(out, r, h), block.first, block.count, C);
}

void forward_strip(const Call& call, const ForwardMemory& m, int64_t b, int64_t h, int64_t first) {
  const std::vector<Block> blocks = strip_blocks(call, first);
  Fill(m.map, static_cast<int64_t>(blocks.size()) * m.map_size, 0);
  const auto each = [&](const auto& f) {
    for (size_t i = 0; i < blocks.size(); ++i)
      with_vectors(blocks[i],
                   [&](auto vectors) { f(vectors, blocks[i], m.map + i * m.map_size, m.inverse + i * 3 * L); });
  };
  for (int64_t r = 0; r < call.m; r += kPlaces)
    each([&](auto vectors, const Block& block, float* map, float*) {
      add_scores<decltype(vectors)::value>(call, m, b, h, block, r, std::min(r + kPlaces, call.m), map);
    });
  each([&](auto vectors, const Block& block, float* map, float* inverse) {
    weigh<decltype(vectors)::value>(call, m, b, h, block, map, inverse);
  });
  for (int64_t r = 0; r < call.m; r += kPlaces)
    each([&](auto vectors, const Block& block, float* map, float* inverse) {
      write_out<decltype(vectors)::value>(call, m, b, h, block, r, std::min(r + kPlaces, call.m), map, inverse);
    });
}

void Forward(const AxialAttentionParams<float>& p, const ParallelFor& parallel) {
  const Call call(p);
  const int64_t width = kStripBlocks * 3 * L, strips = (call.n + width - 1) / width;
  parallel(call.B * call.H * strips, 1, [&](int64_t begin, int64_t end) {
    const FlushDenormals flush;
    const auto memory = arena_memory([&](Arena& arena) { ForwardMemory(call, arena); });
    Arena arena(memory.get());
    const ForwardMemory m(call, arena);
    for (int64_t item = begin; item < end; ++item)
      forward_strip(call, m, item / strips / call.H, item / strips % call.H, item % strips * width);
  });
}

// ------------------------------------------------------------------------------------------------------------ backward

struct BackwardMemory {
  int64_t rows, step, map_size;
  float *q, *grad_out, *k, *v, *kt, *vt, *grad_q, *grad_vt, *grad_kt, *p, *ds, *spill, *lse, *scale, *one;
  double* delta;
  BackwardMemory(const Call& call, Arena& arena)
      : rows(round_up(call.n, 8)), step(round_up(call.C, L)), map_size(rows * 3 * L) {
    const int64_t lanes = 3 * L;
    q = arena.take(rows * step), grad_out = arena.take(rows * step), grad_q = arena.take(rows * step);
    k = arena.take(lanes * step), v = arena.take(lanes * step);
    kt = arena.take(kPlaces * step * lanes), vt = arena.take(kPlaces * step * lanes);
    grad_vt = arena.take(step * lanes), grad_kt = arena.take(step * lanes);
    p = arena.take(kStripBlocks * map_size), ds = arena.take(kStripBlocks * map_size);
    spill = arena.take(kScoreRows * lanes);
    lse = arena.take(rows), scale = arena.take(lanes), one = arena.take(lanes);
    delta = reinterpret_cast<double*>(arena.take(2 * rows));
  }
};

// A head of a sample.
struct Head {
  const Call& call;
  const BackwardMemory& m;
  const AxialAttentionBackwardParams<float>& g;
  int64_t b, h;
  View<const float, 4> q = call.part_of(call.p.qkv, b, axial::kQuery), k = call.part_of(call.p.qkv, b, axial::kKey),
                       v = call.part_of(call.p.qkv, b, axial::kValue), grad_out = call.heads_of(g.grad_out, b);
  View<float, 4> grad_q = call.part_of(g.grad_qkv, b, axial::kQuery), grad_k = call.part_of(g.grad_qkv, b, axial::kKey),
                 grad_v = call.part_of(g.grad_qkv, b, axial::kValue);
  bool has_one_key = call.has_one_key(b);

  template <class T>
  Rows<T> rows(const View<T, 4>& view, int64_t r) const {
    return rows_of(view, r, h);
  }
};

// S += Q_r K_r^T,   dP += dO_r V_r^T, r0 <= r < r_end.
template <int V>
void add_maps(const Head& head, const Block& block, int64_t r0, int64_t r_end, float* scores, float* grad_weights) {
  constexpr int lanes = V * L;
  const Call& call = head.call;
  const BackwardMemory& m = head.m;
  const int C = static_cast<int>(call.C);
  const int64_t packed = m.step * lanes;
  for (int64_t r = r0; r < r_end; ++r) {
    const auto keys = open_rows(call, head.b, r, head.rows(head.k, r), block.first, block.count, 1, m.step, m.k);
    PackTransposed(keys, 0, block.count, lanes, C, Factor(call.p.scale * kLog2eExact), m.kt + (r - r0) * packed);
    const auto values = open_rows(call, head.b, r, head.rows(head.v, r), block.first, block.count, 1, m.step, m.v);
    PackTransposed(values, 0, block.count, lanes, C, Factor(1), m.vt + (r - r0) * packed);
  }
  for (int64_t i = 0; i < call.n; i += kRowChunk)
    for (int64_t r = r0; r < r_end; ++r) {
      const int64_t rows = std::min<int64_t>(kRowChunk, call.n - i);
      const auto queries = open_rows(call, head.b, r, head.rows(head.q, r), i, rows, 1, m.step, m.q);
      add_products<V>(queries, rows, C, m.kt + (r - r0) * packed, m.spill, scores + i * lanes);
      // dO of a masked query counts: only its q is left out.
      const auto upstream = head.rows(head.grad_out, r);
      add_products<V>({upstream(i), nullptr, upstream.step}, rows, C, m.vt + (r - r0) * packed, m.spill,
                      grad_weights + i * lanes);
    }
}

// A row whose keys are all here: P becomes P / sum P, dP loses its mean under P. As CentreRow of the dense kernel, but
// divided rather than multiplied by the inverse: a single open key has weight 1 and gradient 0 to the bit, where dP, a
// sum over all places, is large and would leave its rounding.
template <int V>
HWY_INLINE void centre(float* p, Vector (&dp)[V]) {
  const Floats d;
  Vector total = hn::Zero(d), mean = total;
  FOVEA_EACH (v, V) total = hn::Add(total, hn::Load(d, p + v * L));
  total = hn::SumOfLanes(d, total);
  if (hn::GetLane(total) == 0) return;
  FOVEA_EACH (v, V) {
    const Vector weight = hn::Div(hn::Load(d, p + v * L), total);
    hn::Store(weight, d, p + v * L);
    mean = hn::Add(mean, hn::IfThenZeroElse(hn::Eq(weight, hn::Zero(d)), hn::Mul(weight, dp[v])));
  }
  mean = hn::SumOfLanes(d, mean);
  FOVEA_EACH (v, V) dp[v] = hn::Sub(dp[v], mean);
}

// P = exp(S + bias - lse) in place of S,   dS = P (dP - delta) in place of dP.
template <int V>
void weigh(const Head& head, const Block& block, float* map_p, float* map_ds) {
  constexpr int lanes = V * L;
  const Floats d;
  const Call& call = head.call;
  const auto& bias = call.p.pair_bias;
  HWY_ALIGN float row_bias[lanes], open[lanes];
  for (int u = 0; u < lanes; ++u) open[u] = u < block.count && !call.closed(head.b, block.first + u) ? 1 : 0;
  Fill(row_bias, lanes, 0);
  for (int64_t i = 0; i < call.n; ++i) {
    float *p = map_p + i * lanes, *ds = map_ds + i * lanes;
    for (int u = 0; u < block.count && bias.data; ++u) row_bias[u] = bias(head.b, head.h, i, block.first + u) * kLog2e;
    Vector dp[V];
    FOVEA_EACH (v, V) {
      const Vector s = hn::Add(hn::Load(d, p + v * L), hn::Load(d, row_bias + v * L));
      const auto closed = hn::Eq(hn::Load(d, open + v * L), hn::Zero(d));
      // At most 0 but for the rounding of both, which has no bound where scores are large. In this order NaN stays.
      const Vector exponent = hn::Min(hn::Zero(d), hn::Sub(s, hn::Set(d, head.m.lse[i])));
      hn::Store(hn::IfThenZeroElse(closed, Exp2(exponent)), d, p + v * L);
      dp[v] = hn::IfThenZeroElse(closed, hn::Load(d, ds + v * L));
    }
    if (call.n <= 3 * L) {
      centre<V>(p, dp);
    } else {  // dP - delta of a single open key is 0 but for the rounding of both, which grows with the places
      const Vector delta = hn::Set(d, static_cast<float>(head.m.delta[i]));
      FOVEA_EACH (v, V) dp[v] = head.has_one_key ? hn::Zero(d) : hn::Sub(dp[v], delta);
    }
    FOVEA_EACH (v, V) {
      const Vector weight = hn::Load(d, p + v * L);
      hn::Store(hn::IfThenZeroElse(hn::Eq(weight, hn::Zero(d)), hn::Mul(weight, dp[v])), d, ds + v * L);
    }
    for (int u = 0; u < block.count && head.g.grad_pair_bias.data; ++u)
      head.g.grad_pair_bias(head.b, head.h, i, block.first + u) += ds[u];
  }
}

// dV_r = P^T dO_r,   dK_r = scale dS^T Q_r;   dQ_r += dS K_r, in m.grad_q and without the scale.
template <int V>
void write_gradients(const Head& head, const Block& block, int64_t r, const Rows<const float>& queries,
                     const Rows<const float>& upstream, const float* p, const float* ds) {
  constexpr int lanes = V * L;
  const Call& call = head.call;
  const BackwardMemory& m = head.m;
  const int C = static_cast<int>(call.C);
  const auto keys = copied_rows(call, head.b, r, head.rows(head.k, r), block.first, block.count, m.step, m.k);
  Fill(m.grad_vt, m.step * lanes, 0), Fill(m.grad_kt, m.step * lanes, 0);
  for (int64_t i = 0; i < call.n; i += kRowChunk) {
    const int rows = static_cast<int>(std::min<int64_t>(kRowChunk, call.n - i));
    const int padded = static_cast<int>(round_up(rows, 8));
    Columns<V, false>(upstream(i), upstream.step, C, p + i * lanes, rows, m.grad_vt);
    Columns<V, false>(queries(i), queries.step, C, ds + i * lanes, rows, m.grad_kt);
    const float *x = ds + i * lanes, *key = keys.base;
    float* to = m.grad_q + i * m.step;
    int64_t c = 0;
    for (; c + 2 * L <= m.step; c += 2 * L) QueryColumns<2, false>(x, lanes, key + c, m.step, block.count, to + c, padded);
    if (c < m.step) QueryColumns<1, false>(x, lanes, key + c, m.step, block.count, to + c, padded);
  }
  const Rows<float> grad_k = head.rows(head.grad_k, r), grad_v = head.rows(head.grad_v, r);
  UnpackTransposed(m.grad_vt, lanes, m.one, grad_v, block.first, block.count, C);
  UnpackTransposed(m.grad_kt, lanes, m.scale, grad_k, block.first, block.count, C);
  for (int64_t j = block.first; j < block.first + block.count; ++j)
    if (!call.open(head.b, r, j)) Fill(grad_k(j), C, 0), Fill(grad_v(j), C, 0);
}

void backward_strip(const Head& head, int64_t first) {
  const Call& call = head.call;
  const BackwardMemory& m = head.m;
  const int C = static_cast<int>(call.C);
  const std::vector<Block> blocks = strip_blocks(call, first);
  Fill(m.p, static_cast<int64_t>(blocks.size()) * m.map_size, 0);
  Fill(m.ds, static_cast<int64_t>(blocks.size()) * m.map_size, 0);
  const auto each = [&](const auto& f) {
    for (size_t i = 0; i < blocks.size(); ++i)
      with_vectors(blocks[i],
                   [&](auto vectors) { f(vectors, blocks[i], m.p + i * m.map_size, m.ds + i * m.map_size); });
  };
  for (int64_t r = 0; r < call.m; r += kPlaces)
    each([&](auto vectors, const Block& block, float* p, float* ds) {
      add_maps<decltype(vectors)::value>(head, block, r, std::min(r + kPlaces, call.m), p, ds);
    });
  each([&](auto vectors, const Block& block, float* p, float* ds) {
    weigh<decltype(vectors)::value>(head, block, p, ds);
  });
  for (int64_t r = 0; r < call.m; ++r) {
    const auto queries = open_rows(call, head.b, r, head.rows(head.q, r), 0, call.n, 4, m.step, m.q);
    Rows<const float> upstream = head.rows(head.grad_out, r);
    if (C % 4) {
      for (int64_t i = 0; i < call.n; ++i) CopyRow(upstream(i), C, static_cast<int>(m.step), m.grad_out + i * m.step);
      upstream = {m.grad_out, nullptr, m.step};
    }
    Fill(m.grad_q, m.rows * m.step, 0);
    each([&](auto vectors, const Block& block, float* p, float* ds) {
      write_gradients<decltype(vectors)::value>(head, block, r, queries, upstream, p, ds);
    });
    const Rows<float> grad_q = head.rows(head.grad_q, r);
    for (int64_t i = 0; i < call.n; ++i) {
      const float* from = m.grad_q + i * m.step;
      if (!call.open(head.b, r, i))
        Fill(grad_q(i), C, 0);
      else if (first == 0)
        CopyRow(from, C, C, grad_q(i), m.scale[0]);
      else
        AddRow(from, m.scale[0], C, grad_q(i));
    }
  }
}

// All gradients of head h of sample b.
void backward_head(const Call& call, const BackwardMemory& m, const AxialAttentionBackwardParams<float>& g, int64_t b,
                   int64_t h) {
  const Head head{call, m, g, b, h};
  const auto out = call.heads_of(call.p.out, b);
  for (int64_t i = 0; i < m.rows; ++i) {
    const float lse = i < call.n ? call.p.lse(b, 0, h, i) : -kInfinity;
    m.lse[i] = lse == -kInfinity ? kNoWeight : lse * kLog2e;
    m.delta[i] = 0;
    for (int64_t r = 0; r < call.m && i < call.n; ++r)
      m.delta[i] += double{Delta(head.rows(head.grad_out, r)(i), rows_of(out, r, h)(i), static_cast<int>(call.C))};
  }
  for (int64_t first = 0; first < call.n; first += kStripBlocks * 3 * L) backward_strip(head, first);
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
    const auto memory = arena_memory([&](Arena& arena) { BackwardMemory(call, arena); });
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
  FOVEA_RETURN_BEST(isa, tied::Forward, p, parallel)
  reference::axial_attention_forward(p, parallel);
}

void axial_attention_backward(const AxialAttentionBackwardParams<float>& g, const ParallelFor& parallel, Isa isa) {
  if (!g.forward.tied) return axial::untied_backward(g, parallel, isa);
  FOVEA_RETURN_BEST(isa, tied::Backward, g, parallel)
  reference::axial_attention_backward(g, parallel);
}

}  // namespace fovea::kernels::cpu
#endif  // HWY_ONCE
