// Dense attention in bfloat16 on AMX tiles: amx_forward-inl.h and amx_backward-inl.h hold the tiles, this file feeds
// them.
//   All keys and values of a call are packed into tiles first, once for all heads and queries that share them (as large
//   as K and V themselves; backward one more copy of K). Then a block of 32 queries of one head is a piece of work;
//   keys stream past it in chunks, always with the running maximum; bias is transposed chunk by chunk. Masked keys are
//   packed as zeros and closed for all lanes. Causal: chunks behind the last query's diagonal are not computed, a chunk
//   that the diagonal crosses closes lanes key by key. Rows that hold a NaN or an infinity, which 0 does not cancel,
//   are then zeros in the products that sum over them, and are added by hand to the lanes that see them.
//   Backward: a piece of work is a segment of queries of one key head; its dK and dV are float sums of its own, added
//   in segment order at the end. All splits depend on the shapes alone, hence the same bits for any number of threads.
#if defined(__x86_64__)
#include <algorithm>
#include <vector>

#include "fovea/kernels/cpu/amx.h"
#include "fovea/kernels/cpu/amx_backward-inl.h"
#include "fovea/kernels/cpu/amx_forward-inl.h"

namespace fovea::kernels::amx {
namespace {

using cpu::FlushDenormals;

template <class T>
T* row_of(const View<T, 4>& v, int64_t b, int64_t h, int64_t i) {
  return v.data + b * v.stride[0] + h * v.stride[1] + i * v.stride[2];
}

struct Call {
  const AttentionParams<BFloat16>& p;
  int64_t B = p.q.shape[0], H = p.q.shape[1], N = p.q.shape[2], C = p.q.shape[3];
  int64_t Hk = p.k.shape[1], M = p.k.shape[2], Cv = p.v.shape[3];
  int64_t group = Hk ? H / Hk : 1;
  int64_t query_blocks = blocks_of(N), key_blocks = blocks_of(M);
  float factor = static_cast<float>(p.scale * 1.4426950408889634);  // of <q, k>, to log2 units

  explicit Call(const AttentionParams<BFloat16>& params) : p(params) {}
  bool key_open(int64_t b, int64_t j) const { return !p.key_mask.data || p.key_mask(b, j); }
  // Query i sees keys below this.
  int64_t open_keys(int64_t i) const { return p.causal ? std::clamp<int64_t>(i + (M - N) + 1, 0, M) : M; }
};

}  // namespace
}  // namespace fovea::kernels::amx

FOVEA_AVX512_BEGIN
namespace fovea::kernels::amx {
namespace {

// Tiles of all keys or values of a call; a part is one (batch, key head).
struct PackedPart {
  int64_t size;  // numbers of a part
  Aligned<uint16_t> data;
  PackedPart(const Call& call, int64_t tiles_a_block)
      : size(call.key_blocks * tiles_a_block * kTileNumbers), data(call.B * call.Hk * size) {}
  uint16_t* of(int64_t part, int64_t j, int64_t tiles_a_block) const {
    return data + part * size + j / kBlock * tiles_a_block * kTileNumbers;
  }
};

// Pointers of n rows from j on; null for masked keys.
void list_rows(const Call& call, const View<const BFloat16, 4>& x, int64_t b, int64_t hk, int64_t j, int n,
               const BFloat16** rows) {
  for (int r = 0; r < n; ++r) rows[r] = call.key_open(b, j + r) ? row_of(x, b, hk, j + r) : nullptr;
}

// Lanes of queries [i0, i0 + n) that see each of the keys [j0, j0 + keys).
void list_open_lanes(const Call& call, int64_t b, int64_t i0, int n, int64_t j0, int keys, uint32_t* open) {
  const uint32_t all = static_cast<uint32_t>((uint64_t{1} << n) - 1);
  for (int j = 0; j < keys; ++j) {
    // Causal: key j is seen by query i0 + u if u >= j - (M - N) - i0.
    const int64_t first = call.p.causal ? std::clamp<int64_t>(j0 + j - (call.M - call.N) - i0, 0, 32) : 0;
    open[j] = call.key_open(b, j0 + j) ? all & static_cast<uint32_t>(~uint64_t{0} << first) : 0;
  }
}

// bias[j][u] of (query i0 + u, key j0 + j) in log2 units, 0 for u >= n. Up to 15 rows behind the last key are written.
void transpose_bias(const Call& call, int64_t b, int64_t h, int64_t i0, int n, int64_t j0, int keys, float* bias) {
  const auto [sb, sh, si, sj] = call.p.bias.stride;
  const float* from = call.p.bias.data + b * sb + h * sh + i0 * si + j0 * sj;
  if (sj != 1) {
    for (int j = 0; j < keys; ++j)
      for (int u = 0; u < kBlock; ++u) bias[j * kBlock + u] = u < n ? from[u * si + j * sj] * kLog2e : 0.f;
    return;
  }
  for (int j = 0; j < keys; j += kRows)
    for (int u = 0; u < kBlock; u += kRows) {
      __m512i x[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        x[i] = u + i < n
                   ? _mm512_castps_si512(_mm512_mul_ps(
                         _mm512_set1_ps(kLog2e), _mm512_maskz_loadu_ps(first_lanes(keys - j), from + (u + i) * si + j)))
                   : _mm512_setzero_si512();
      transpose(x);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_store_si512(bias + (j + i) * kBlock + u, x[i]);
    }
}

// ------------------------------------------------------------------------------------------------------------- forward

struct ForwardCall : Call {
  int64_t depth = blocks_of(C), channel_tiles = tiles_of(Cv + 1);
  PackedPart k, values;
  std::vector<uint8_t> apart;  // [B][Hk][M], causal only: V is not finite there

  explicit ForwardCall(const AttentionParams<BFloat16>& params)
      : Call(params), k(*this, 2 * depth), values(*this, channel_tiles), apart(p.causal ? B * Hk * M : 0) {}
};

// Packs blocks of 32 keys; an item is one of a part.
void pack_keys(ForwardCall& call, int64_t begin, int64_t end) {
  for (int64_t item = begin; item < end; ++item) {
    const int64_t part = item / call.key_blocks, b = part / call.Hk, hk = part % call.Hk;
    const int64_t j = item % call.key_blocks * kBlock;
    const int n = static_cast<int>(std::min<int64_t>(kBlock, call.M - j));
    const BFloat16* rows[kBlock];
    list_rows(call, call.p.k, b, hk, j, n, rows);
    pack_rows(rows, n, call.C, call.k.of(part, j, 2 * call.depth));
    list_rows(call, call.p.v, b, hk, j, n, rows);
    for (int r = 0; r < n && call.p.causal; ++r)
      if (rows[r] && has_non_finite(rows[r], call.Cv)) call.apart[part * call.M + j + r] = 1, rows[r] = nullptr;
    uint16_t* values = call.values.of(part, j, call.channel_tiles);
    pack_transposed(rows, n, call.Cv, call.channel_tiles, values);
    set_ones_channel(n, call.Cv, call.channel_tiles, values);
  }
}

template <class Tiles, int kLaneTiles>
void forward_block(Tiles& tiles, const ForwardCall& call, const ForwardMemory& m, float* bias, int64_t b, int64_t h,
                   int64_t i0, int n) {
  const auto& p = call.p;
  const int64_t hk = h / call.group, part = b * call.Hk + hk;
  const BFloat16* q[kBlock];
  BFloat16* out[kBlock];
  for (int u = 0; u < n; ++u) q[u] = row_of(p.q, b, h, i0 + u), out[u] = row_of(p.out, b, h, i0 + u);
  pack_paired(q, n, call.C, m.q);
  ForwardBlock<Tiles, kLaneTiles> block(tiles, m, call.factor);
  const int64_t all_see = call.open_keys(i0), some_see = call.open_keys(i0 + n - 1);
  uint32_t open[kChunk];
  for (int64_t j0 = 0; j0 < some_see; j0 += kChunk) {
    const int keys = static_cast<int>(std::min<int64_t>(kChunk, some_see - j0));
    if (p.bias.data) transpose_bias(call, b, h, i0, n, j0, keys, bias);
    const ForwardKeys chunk{call.k.of(part, j0, 2 * call.depth),
                            call.values.of(part, j0, call.channel_tiles),
                            bias,
                            p.bias.data ? kBlock : 0,
                            open,
                            keys};
    if (!p.key_mask.data && j0 + keys <= all_see) {
      block.template add<true, false>(chunk);
      for (uint32_t& lanes : open) lanes = ~0u;
    } else {
      list_open_lanes(call, b, i0, n, j0, keys, open);
      block.template add<true, true>(chunk);
    }
    for (int j = 0; !call.apart.empty() && j < keys; ++j)
      if (call.apart[part * call.M + j0 + j]) block.add_value(j, open[j], row_of(p.v, b, hk, j0 + j), call.Cv);
  }
  float lse[kBlock];
  block.end(/*online=*/true, call.Cv, n, out, lse);
  for (int u = 0; u < n && p.lse.data; ++u) p.lse(b, h, i0 + u) = lse[u];
}

template <class Tiles>
void forward_items(const ForwardCall& call, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  Tiles tiles;
  const ForwardMemory m(call.C, call.Cv);
  const Aligned<float> bias(kChunk * kBlock);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / call.query_blocks / call.H, h = item / call.query_blocks % call.H;
    const int64_t i0 = item % call.query_blocks * kBlock;
    const int n = static_cast<int>(std::min<int64_t>(kBlock, call.N - i0));
    n > kRows ? forward_block<Tiles, 2>(tiles, call, m, bias, b, h, i0, n)
              : forward_block<Tiles, 1>(tiles, call, m, bias, b, h, i0, n);
  }
}

// ------------------------------------------------------------------------------------------------------------ backward

struct BackwardCall : Call {
  const AttentionBackwardParams<BFloat16>& g;
  int64_t depth = blocks_of(C), v_depth = blocks_of(Cv), channel_tiles = tiles_of(C);
  int64_t k_step = channel_tiles * kRows, v_step = tiles_of(Cv) * kRows, padded_keys = key_blocks * kBlock;
  PackedPart k, v, k_t;
  bool sums_batch = false, sums_heads = false, sums_queries = false, sums_keys = false;  // broadcast axes of grad_bias
  int64_t segments = 1, segment_blocks;
  Aligned<float> grad_k, grad_v;  // [segments][B][Hk][padded_keys][step]

  explicit BackwardCall(const AttentionBackwardParams<BFloat16>& params)
      : Call(params.forward),
        g(params),
        k(*this, 2 * depth),
        v(*this, 2 * v_depth),
        k_t(*this, channel_tiles),
        segments(count_segments()),
        segment_blocks((query_blocks + segments - 1) / segments),
        grad_k(segments * B * Hk * padded_keys * k_step),
        grad_v(segments * B * Hk * padded_keys * v_step) {}

  float* grad_k_of(int64_t segment, int64_t part) const {
    return grad_k + (segment * B * Hk + part) * padded_keys * k_step;
  }
  float* grad_v_of(int64_t segment, int64_t part) const {
    return grad_v + (segment * B * Hk + part) * padded_keys * v_step;
  }
  int64_t items() const { return (sums_batch ? 1 : B) * (sums_heads ? 1 : Hk); }

 private:
  // Work items are (batch, key head, segment), except that axes which share a bias gradient stay in one item.
  int64_t count_segments() {
    if (g.grad_bias.data) {
      const auto& stride = g.grad_bias.stride;
      sums_batch = B > 1 && !stride[0], sums_heads = H > 1 && !stride[1], sums_queries = N > 1 && !stride[2],
      sums_keys = M > 1 && !stride[3];
    }
    constexpr int64_t kItemsWanted = 8, kShortestSegment = 8;  // blocks of queries
    const int64_t here = std::max<int64_t>(1, items());
    return sums_queries ? 1
                        : std::clamp<int64_t>((kItemsWanted + here - 1) / here, 1,
                                              std::max<int64_t>(1, query_blocks / kShortestSegment));
  }
};

void pack_keys_and_values(BackwardCall& call, int64_t begin, int64_t end) {
  for (int64_t item = begin; item < end; ++item) {
    const int64_t part = item / call.key_blocks, b = part / call.Hk, hk = part % call.Hk;
    const int64_t j = item % call.key_blocks * kBlock;
    const int n = static_cast<int>(std::min<int64_t>(kBlock, call.M - j));
    const BFloat16* rows[kBlock];
    list_rows(call, call.p.k, b, hk, j, n, rows);
    pack_rows(rows, n, call.C, call.k.of(part, j, 2 * call.depth));
    for (int r = 0; r < n && call.p.causal; ++r)
      if (rows[r] && has_non_finite(rows[r], call.C)) rows[r] = nullptr;  // scores of K are NaN or -inf: enough for dQ
    pack_transposed(rows, n, call.C, call.channel_tiles, call.k_t.of(part, j, call.channel_tiles));
    list_rows(call, call.p.v, b, hk, j, n, rows);
    pack_rows(rows, n, call.Cv, call.v.of(part, j, 2 * call.v_depth));
  }
}

// Adds grad_s[key][lane] to grad_bias; broadcast axes are summed first.
void add_bias_gradient(const BackwardCall& call, const float* grad_s, int64_t b, int64_t h, int64_t i0, int n,
                       int64_t j0, int keys) {
  const auto& grad = call.g.grad_bias;
  const auto [sb, sh, si, sj] = grad.stride;
  float* to = grad.data + b * sb + h * sh + i0 * si + j0 * sj;
  if (call.sums_queries) {
    double whole = 0;
    for (int j = 0; j < keys; ++j) {
      double sum = 0;
      for (int u = 0; u < n; ++u) sum += grad_s[j * kBlock + u];
      if (call.sums_keys)
        whole += sum;
      else
        to[j * sj] += static_cast<float>(sum);
    }
    if (call.sums_keys) *to += static_cast<float>(whole);
    return;
  }
  if (sj == 1) {
    for (int j = 0; j < keys; j += kRows)
      for (int u = 0; u < n; u += kRows) {
        __m512i x[16];
#pragma GCC unroll 16
        for (int r = 0; r < 16; ++r) x[r] = _mm512_load_si512(grad_s + (j + r) * kBlock + u);
        transpose(x);
        for (int i = 0; i < std::min(kRows, n - u); ++i) {
          float* row = to + (u + i) * si + j;
          const __mmask16 some = first_lanes(keys - j);
          _mm512_mask_storeu_ps(row, some, _mm512_add_ps(_mm512_castsi512_ps(x[i]), _mm512_maskz_loadu_ps(some, row)));
        }
      }
    return;
  }
  for (int u = 0; u < n; ++u) {
    double sum = 0;
    for (int j = 0; j < keys; ++j) {
      if (call.sums_keys)
        sum += grad_s[j * kBlock + u];
      else
        to[u * si + j * sj] += grad_s[j * kBlock + u];
    }
    if (call.sums_keys) to[u * si] += static_cast<float>(sum);
  }
}

struct DenseBackwardMemory {
  BackwardMemory block;
  Aligned<float> bias, grad_bias;  // [kKeysKept][32]
  explicit DenseBackwardMemory(const BackwardCall& call)
      : block(call.C, call.Cv, call.M),
        bias(kKeysKept * kBlock),
        grad_bias(call.g.grad_bias.data ? kKeysKept * kBlock : 0) {}
};

// A block of queries and one chunk of its keys.
template <class Tiles, int kLaneTiles, bool kMasked>
void key_chunk(Tiles& tiles, const BackwardCall& call, const DenseBackwardMemory& m, const BackwardKeys& keys,
               bool whole, uint32_t queries_apart, int64_t b, int64_t h, int64_t i0) {
  BackwardBlock<Tiles, kLaneTiles, kMasked> block(tiles, m.block, call.factor);
  block.add(keys, whole);
  for (int u = 0; u < kBlock && queries_apart; ++u)
    if (queries_apart >> u & 1) block.add_query(keys, u, row_of(call.g.grad_out, b, h, i0 + u));
}

template <class Tiles, int kLaneTiles>
void backward_block(Tiles& tiles, const BackwardCall& call, const DenseBackwardMemory& m, int64_t b, int64_t h,
                    int64_t segment, int64_t i0, int n) {
  const auto& p = call.p;
  const auto& g = call.g;
  const int64_t part = b * call.Hk + h / call.group;
  const BFloat16 *q[kBlock], *grad_out[kBlock];
  BFloat16* grad_q[kBlock];
  uint32_t queries_apart = 0;
  const int64_t all_see = call.open_keys(i0), some_see = call.open_keys(i0 + n - 1);
  const bool whole = some_see <= kKeysKept;
  for (int u = 0; u < kBlock; ++u) {
    m.block.lse[u] = kNoWeight, m.block.delta[u] = 0;
    if (u >= n) continue;
    q[u] = row_of(p.q, b, h, i0 + u), grad_out[u] = row_of(g.grad_out, b, h, i0 + u);
    grad_q[u] = row_of(g.grad_q, b, h, i0 + u);
    if (!whole) m.block.delta[u] = dot_rows(grad_out[u], row_of(p.out, b, h, i0 + u), call.Cv);
    const float lse = p.lse(b, h, i0 + u);
    if (lse != -kInfinity) m.block.lse[u] = lse * kLog2e;
    if (p.causal && (has_non_finite(q[u], call.C) || has_non_finite(grad_out[u], call.Cv))) queries_apart |= 1u << u;
  }
  m.block.pack(q, grad_out, n, queries_apart);
  uint32_t open[kKeysKept];
  for (int64_t j0 = 0; j0 < some_see; j0 += kKeysKept) {
    const int n_keys = static_cast<int>(std::min<int64_t>(kKeysKept, some_see - j0));
    if (p.bias.data) transpose_bias(call, b, h, i0, n, j0, n_keys, m.bias);
    if (g.grad_bias.data) std::memset(m.grad_bias, 0, static_cast<size_t>(n_keys * kLaneBytes));
    const bool masked = p.key_mask.data || j0 + n_keys > all_see || queries_apart;
    if (masked) list_open_lanes(call, b, i0, n, j0, n_keys, open);
    const BackwardKeys keys{call.k.of(part, j0, 2 * call.depth),
                            call.v.of(part, j0, 2 * call.v_depth),
                            call.k_t.of(part, j0, call.channel_tiles),
                            m.bias,
                            p.bias.data ? kBlock : 0,
                            open,
                            call.grad_k_of(segment, part) + j0 * call.k_step,
                            call.grad_v_of(segment, part) + j0 * call.v_step,
                            call.k_step,
                            call.v_step,
                            g.grad_bias.data ? static_cast<float*>(m.grad_bias) : nullptr,
                            kBlock,
                            n_keys};
    masked ? key_chunk<Tiles, kLaneTiles, true>(tiles, call, m, keys, whole, queries_apart, b, h, i0)
           : key_chunk<Tiles, kLaneTiles, false>(tiles, call, m, keys, whole, 0, b, h, i0);
    if (g.grad_bias.data) add_bias_gradient(call, m.grad_bias, b, h, i0, n, j0, n_keys);
  }
  const __m512 scale[2] = {_mm512_set1_ps(static_cast<float>(p.scale)), _mm512_set1_ps(static_cast<float>(p.scale))};
  write_transposed(m.block.grad_q_t, scale, n, call.C, grad_q);
}

template <class Tiles>
void backward_items(const BackwardCall& call, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  Tiles tiles;
  const DenseBackwardMemory m(call);
  const int64_t heads = call.sums_heads ? 1 : call.Hk;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t segment = item % call.segments, hk = item / call.segments % heads, b = item / call.segments / heads;
    const int64_t first = segment * call.segment_blocks * kBlock;
    const int64_t last = std::min(call.N, first + call.segment_blocks * kBlock);
    for (int64_t bb = call.sums_batch ? 0 : b; bb < (call.sums_batch ? call.B : b + 1); ++bb)
      for (int64_t h = call.sums_heads ? 0 : hk * call.group; h < (call.sums_heads ? call.H : (hk + 1) * call.group);
           ++h)
        for (int64_t i0 = first; i0 < last; i0 += kBlock) {
          const int n = static_cast<int>(std::min<int64_t>(kBlock, last - i0));
          n > kRows ? backward_block<Tiles, 2>(tiles, call, m, bb, h, segment, i0, n)
                    : backward_block<Tiles, 1>(tiles, call, m, bb, h, segment, i0, n);
        }
  }
}

// dK and dV of one part: sums over segments, in order.
void write_key_gradients(const BackwardCall& call, int64_t part) {
  const int64_t b = part / call.Hk, hk = part % call.Hk;
  float *grad_k = call.grad_k_of(0, part), *grad_v = call.grad_v_of(0, part);
  for (int64_t segment = 1; segment < call.segments; ++segment) {
    const float *k = call.grad_k_of(segment, part), *v = call.grad_v_of(segment, part);
    for (int64_t e = 0; e < call.M * call.k_step; ++e) grad_k[e] += k[e];
    for (int64_t e = 0; e < call.M * call.v_step; ++e) grad_v[e] += v[e];
  }
  for (int64_t j = 0; j < call.M; ++j) {
    if (!call.key_open(b, j)) {  // whatever its queries hold
      std::memset(grad_k + j * call.k_step, 0, static_cast<size_t>(call.k_step) * sizeof(float));
      std::memset(grad_v + j * call.v_step, 0, static_cast<size_t>(call.v_step) * sizeof(float));
    }
    write_row(grad_k + j * call.k_step, static_cast<float>(call.p.scale), call.C, row_of(call.g.grad_k, b, hk, j));
    write_row(grad_v + j * call.v_step, 1, call.Cv, row_of(call.g.grad_v, b, hk, j));
  }
}

}  // namespace
}  // namespace fovea::kernels::amx
FOVEA_AVX512_END

namespace fovea::kernels::amx {

void attention_forward(const AttentionParams<BFloat16>& p, const ParallelFor& parallel, TileUnit unit) {
  ForwardCall call(p);
  parallel(call.B * call.Hk * call.key_blocks, 1, [&call](int64_t begin, int64_t end) { pack_keys(call, begin, end); });
  const auto items = unit == TileUnit::kHardware ? forward_items<HardwareTiles> : forward_items<EmulatedTiles>;
  parallel(call.B * call.H * call.query_blocks, 1, [&](int64_t begin, int64_t end) { items(call, begin, end); });
}

void attention_backward(const AttentionBackwardParams<BFloat16>& g, const ParallelFor& parallel, TileUnit unit) {
  BackwardCall call(g);
  if (g.grad_bias.data) {
    std::array<int64_t, 4> extent;
    for (int a = 0; a < 4; ++a)
      extent[a] = g.grad_bias.stride[a] ? g.grad_bias.shape[a] : std::min<int64_t>(1, g.grad_bias.shape[a]);
    for (int64_t b = 0; b < extent[0]; ++b)
      for (int64_t h = 0; h < extent[1]; ++h)
        for (int64_t i = 0; i < extent[2]; ++i)
          for (int64_t j = 0; j < extent[3]; ++j) g.grad_bias(b, h, i, j) = 0;
  }
  if (call.B == 0 || call.Hk == 0) return;
  parallel(call.B * call.Hk * call.key_blocks, 1,
           [&call](int64_t begin, int64_t end) { pack_keys_and_values(call, begin, end); });
  const auto items = unit == TileUnit::kHardware ? backward_items<HardwareTiles> : backward_items<EmulatedTiles>;
  parallel(call.items() * call.segments, 1, [&](int64_t begin, int64_t end) { items(call, begin, end); });
  parallel(call.B * call.Hk, 1, [&call](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) write_key_gradients(call, part);
  });
}

}  // namespace fovea::kernels::amx
#endif  // __x86_64__
