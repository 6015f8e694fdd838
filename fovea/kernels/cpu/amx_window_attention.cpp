// Windowed attention in bfloat16 on AMX tiles: amx_forward-inl.h and amx_backward-inl.h hold the tiles, this file feeds
// them.
//   Work is cut into (head, chunk of windows of one class), as in window_attention.cpp: head and class vary slowest, so
//   that a thread builds the bias of (head, class) once, [query block][keys][32 lanes] in float and log2 units, which
//   is the order it is read in, and streams windows past it. Per window and group of positions that attend to each
//   other, a list of row pointers is all that partition, roll and padding amount to; K and V are packed into tiles
//   once, queries 32 at a time, and results go straight to their tokens. Bias gradient: one float tile a chunk, folded
//   into a double partial sum of the chunk; partial sums are added in chunk order. Chunks depend on the shapes alone,
//   hence the same bits for any number of threads.
#if defined(__x86_64__)
#include <algorithm>
#include <vector>

#include "fovea/core/isa.h"
#include "fovea/kernels/cpu/amx.h"
#include "fovea/kernels/cpu/amx_backward-inl.h"
#include "fovea/kernels/cpu/amx_forward-inl.h"
#include "fovea/kernels/cpu/window_bias.h"

namespace fovea::kernels::amx {
namespace {

using cpu::FlushDenormals;
using cpu::WindowChunk;
using cpu::WindowClass;
using cpu::WindowGroup;

using Call = cpu::WindowCall<BFloat16>;
using BackwardCall = cpu::WindowBackwardCall<BFloat16>;
using BiasTiles = cpu::BiasTiles<BFloat16>;

constexpr cpu::TileLayout kTiles{cpu::TileLayout::Lanes::kQueries, kBlock, kBlock, 1};

// Numbers of all bias tiles of a class, and a vector that sums of the gradient may read behind them.
int64_t tile_memory(const Call& call) { return kTiles.largest(call.plan) + kRows; }

// Of <q, k>, to log2 units.
float score_factor(const Call& call) { return static_cast<float>(call.p.scale * 1.4426950408889634); }

// Row pointers of one group of one window.
struct GroupRows {
  std::vector<const BFloat16*> q, k, v;
  explicit GroupRows(const Call& call) : q(call.plan.n), k(call.plan.n), v(call.plan.n) {}

  void gather(const Call& call, const WindowGroup& g, const int32_t* token, int64_t b, int64_t h) {
    const BFloat16* qkv = call.qkv_of(b, h);
    const int64_t part = call.p.qkv.stride[4];
    for (int64_t i = 0; i < g.queries; ++i) {
      q[i] = qkv + call.in(token[g.position[i]]);
      k[i] = q[i] + part, v[i] = k[i] + part;
    }
    for (int64_t j = g.queries; j < g.keys(); ++j) k[j] = &call.p.pad_token(1, h, 0), v[j] = &call.p.pad_token(2, h, 0);
  }
};

}  // namespace
}  // namespace fovea::kernels::amx

FOVEA_AVX512_BEGIN
namespace fovea::kernels::amx {
namespace {

// ------------------------------------------------------------------------------------------------------------- forward

struct WindowMemory {
  ForwardMemory block;
  Aligned<uint16_t> k, values;
  explicit WindowMemory(const Call& call)
      : block(call.C, call.C),
        k(blocks_of(call.plan.n) * 2 * block.depth * kTileNumbers),
        values(blocks_of(call.plan.n) * block.channel_tiles * kTileNumbers) {}
};

// Sum over channels of the largest squares among n packed keys: |<q, k>|^2 <= |q|^2 times this.
float largest_key(const uint16_t* k, int64_t n, int64_t depth) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t c = 0; c < depth; ++c) {
    __m512i most = _mm512_setzero_si512();  // without the sign, bfloat16 numbers are ordered as integers
    for (int64_t i = 0; i < n; ++i) {
      const uint16_t* row = k + ((i / kRows * depth + c) * kRows + i % kRows) * kBlock;
      most = _mm512_max_epu16(most, _mm512_and_si512(_mm512_load_si512(row), _mm512_set1_epi16(0x7fff)));
    }
    const __m512 low = low_halves(most), high = high_halves(most);
    sum = _mm512_fmadd_ps(low, low, _mm512_fmadd_ps(high, high, sum));
  }
  return _mm512_reduce_add_ps(sum);
}

// Largest |q|^2 of the packed queries.
float largest_query(const uint16_t* q, int64_t depth, int lane_tiles) {
  __m512 largest = _mm512_setzero_ps();
  for (int l = 0; l < lane_tiles; ++l) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t row = 0; row < depth * kRows; ++row) {
      const __m512i pairs = _mm512_load_si512(q + (l * depth * kRows + row) * kBlock);
      const __m512 low = low_halves(pairs), high = high_halves(pairs);
      sum = _mm512_fmadd_ps(low, low, _mm512_fmadd_ps(high, high, sum));
    }
    largest = _mm512_max_ps(largest, sum);
  }
  return _mm512_reduce_max_ps(largest);
}

// The keys of a group, packed, and the bias of the lanes of one block of queries.
struct GroupKeys {
  const float* bias;
  int64_t bias_step, n;
  float bias_bound, largest;  // as build_tile and largest_key return them
};

template <class Tiles, int kLaneTiles>
void query_block(Tiles& tiles, const Call& call, const WindowMemory& m, const GroupKeys& keys, const BFloat16* const* q,
                 int n, BFloat16* const* out, float* lse) {
  pack_paired(q, n, call.C, m.block.q);
  const float bound = std::abs(score_factor(call)) * std::sqrt(largest_query(m.block.q, m.block.depth, kLaneTiles)) *
                      std::sqrt(keys.largest);
  const bool online = !(bound + keys.bias_bound <= kSafeScore);
  ForwardBlock<Tiles, kLaneTiles> block(tiles, m.block, score_factor(call));
  for (int64_t j = 0; j < keys.n; j += kChunk) {
    const ForwardKeys chunk{m.k + j * m.block.depth * kBlock,
                            m.values + j * m.block.channel_tiles * kRows,
                            keys.bias + j * keys.bias_step,
                            keys.bias_step,
                            nullptr,
                            static_cast<int>(std::min<int64_t>(kChunk, keys.n - j))};
    online ? block.template add<true, false>(chunk) : block.template add<false, false>(chunk);
  }
  block.end(online, call.C, n, out, lse);
}

template <class Tiles>
void forward_items(const Call& call, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  Tiles tiles;
  const WindowMemory m(call);
  const Aligned<float> bias_memory(tile_memory(call));
  BiasTiles bias(call, kTiles, /*beyond=*/0, Isa::kAvx512, bias_memory);
  GroupRows rows(call);
  const int64_t n_chunks = static_cast<int64_t>(call.chunks.size());
  for (int64_t item = begin; item < end; ++item) {
    const int64_t h = item / n_chunks;
    const WindowChunk& chunk = call.chunks[item % n_chunks];
    const WindowClass& c = call.plan.classes[chunk.window_class];
    bias.prepare(h, chunk.window_class);
    for (int64_t pair = chunk.begin; pair < chunk.end; ++pair) {
      const int64_t b = call.batch(c, pair);
      const int32_t* token = call.tokens(c, pair);
      for (size_t group = 0; group < c.groups.size(); ++group) {
        const WindowGroup& g = c.groups[group];
        rows.gather(call, g, token, b, h);
        pack_rows(rows.k.data(), g.keys(), call.C, m.k);
        pack_transposed(rows.v.data(), g.keys(), call.C, m.block.channel_tiles, m.values);
        set_ones_channel(g.keys(), call.C, m.block.channel_tiles, m.values);
        const float largest = largest_key(m.k, g.keys(), m.block.depth);
        const int64_t bias_rows = bias.step(g) ? g.keys() : 0;
        for (int64_t i = 0; i < g.queries; i += kBlock) {
          const int n = static_cast<int>(std::min<int64_t>(kBlock, g.queries - i));
          BFloat16* out[kBlock];
          for (int u = 0; u < n; ++u) out[u] = call.out_of(b, h) + call.out(token[g.position[i + u]]);
          const GroupKeys keys{bias.tile(group) + i * bias_rows, bias.step(g), g.keys(), bias.bound(group), largest};
          float lse[kBlock];
          n > kRows ? query_block<Tiles, 2>(tiles, call, m, keys, rows.q.data() + i, n, out, lse)
                    : query_block<Tiles, 1>(tiles, call, m, keys, rows.q.data() + i, n, out, lse);
          for (int u = 0; u < n && call.p.lse.data; ++u) call.lse_of(b, h)[call.lse(token[g.position[i + u]])] = lse[u];
        }
      }
    }
  }
}

// ------------------------------------------------------------------------------------------------------------ backward

struct WindowBackwardMemory {
  BackwardMemory block;
  int64_t step;  // floats of a row of grad_k or grad_v
  Aligned<uint16_t> k, v, k_t;
  Aligned<float> grad_k, grad_v, grad_bias;
  explicit WindowBackwardMemory(const BackwardCall& call)
      : block(call.C, call.C, call.plan.n),
        step(block.channel_tiles * kRows),
        k(blocks_of(call.plan.n) * 2 * block.depth * kTileNumbers),
        v(blocks_of(call.plan.n) * 2 * block.depth * kTileNumbers),
        k_t(blocks_of(call.plan.n) * block.channel_tiles * kTileNumbers),
        grad_k(round_up(call.plan.n, kBlock) * step),
        grad_v(round_up(call.plan.n, kBlock) * step),
        grad_bias(call.bias_wanted ? tile_memory(call) : 0) {}
};

// The bias of a block of queries and where its gradient goes; a row of 32 lanes a key.
struct BlockBias {
  const float* bias;
  int64_t step;
  float* grad;  // null: not wanted
};

template <class Tiles, int kLaneTiles>
void query_gradients(Tiles& tiles, const BackwardCall& call, const WindowBackwardMemory& m, const BlockBias& bias,
                     int64_t keys) {
  BackwardBlock<Tiles, kLaneTiles, false> block(tiles, m.block, score_factor(call));
  for (int64_t j = 0; j < keys; j += kKeysKept)
    block.add(
        {m.k + j * m.block.depth * kBlock, m.v + j * m.block.depth * kBlock, m.k_t + j * m.block.channel_tiles * kRows,
         bias.bias + j * bias.step, bias.step, nullptr, m.grad_k + j * m.step, m.grad_v + j * m.step, m.step, m.step,
         bias.grad ? bias.grad + j * kBlock : nullptr, kBlock,
         static_cast<int>(std::min<int64_t>(kKeysKept, keys - j))},
        /*whole=*/keys <= kKeysKept);
}

// All gradients of one group of one window and head.
template <class Tiles>
void backward_group(Tiles& tiles, const BackwardCall& call, const WindowBackwardMemory& m, GroupRows& rows,
                    const BiasTiles& bias, size_t group, const WindowGroup& g, const int32_t* token, int64_t b,
                    int64_t h, float* grad_bias, double* padding_sum) {
  const auto& grads = call.g;
  const int64_t C = call.C;
  rows.gather(call, g, token, b, h);
  pack_rows(rows.k.data(), g.keys(), C, m.k), pack_rows(rows.v.data(), g.keys(), C, m.v);
  pack_transposed(rows.k.data(), g.keys(), C, m.block.channel_tiles, m.k_t);
  const size_t bytes = static_cast<size_t>(round_up(g.keys(), kBlock) * m.step) * sizeof(float);
  std::memset(m.grad_k, 0, bytes), std::memset(m.grad_v, 0, bytes);
  const BFloat16* upstream = grads.grad_out.data + b * grads.grad_out.stride[0] + h * grads.grad_out.stride[4];
  BFloat16* grad = grads.grad_qkv.data + b * grads.grad_qkv.stride[0] + h * grads.grad_qkv.stride[5];
  const __m512 scale[2] = {_mm512_set1_ps(static_cast<float>(call.p.scale)),
                           _mm512_set1_ps(static_cast<float>(call.p.scale))};
  for (int64_t i = 0; i < g.queries; i += kBlock) {
    const int n = static_cast<int>(std::min<int64_t>(kBlock, g.queries - i));
    const BFloat16* grad_out[kBlock];
    BFloat16* grad_q[kBlock];
    for (int u = 0; u < kBlock; ++u) {
      m.block.lse[u] = kNoWeight, m.block.delta[u] = 0;
      if (u >= n) continue;
      const int64_t t = token[g.position[i + u]];
      grad_out[u] = upstream + call.grad_out(t), grad_q[u] = grad + call.grad_in(t);
      if (g.keys() > kKeysKept) m.block.delta[u] = dot_rows(grad_out[u], call.out_of(b, h) + call.out(t), C);
      const float lse = call.lse_of(b, h)[call.lse(t)];
      if (lse != -kInfinity) m.block.lse[u] = lse * kLog2e;
    }
    m.block.pack(rows.q.data() + i, grad_out, n);
    const BlockBias here{bias.tile(group) + (bias.step(g) ? i * g.keys() : 0), bias.step(g),
                         grad_bias ? grad_bias + i * g.keys() : nullptr};
    n > kRows ? query_gradients<Tiles, 2>(tiles, call, m, here, g.keys())
              : query_gradients<Tiles, 1>(tiles, call, m, here, g.keys());
    write_transposed(m.block.grad_q_t, scale, n, C, grad_q);
  }
  for (int64_t j = 0; j < g.queries; ++j) {
    BFloat16* to = grad + call.grad_in(token[g.position[j]]);
    write_row(m.grad_k + j * m.step, static_cast<float>(call.p.scale), C, to + grads.grad_qkv.stride[4]);
    write_row(m.grad_v + j * m.step, 1, C, to + 2 * grads.grad_qkv.stride[4]);
  }
  if (!padding_sum) return;
  for (int64_t j = g.queries; j < g.keys(); ++j)
    for (int64_t c = 0; c < C; ++c)
      padding_sum[c] += call.p.scale * m.grad_k[j * m.step + c], padding_sum[C + c] += m.grad_v[j * m.step + c];
}

template <class Tiles>
void backward_items(BackwardCall& call, int64_t begin, int64_t end) {
  constexpr int64_t kPairsAFold = 64;  // windows summed in float before the sum goes on in double
  const FlushDenormals flush;
  Tiles tiles;
  const WindowBackwardMemory m(call);
  const Aligned<float> bias_memory(tile_memory(call));
  BiasTiles bias(call, kTiles, /*beyond=*/0, Isa::kAvx512, bias_memory);
  GroupRows rows(call);
  const int64_t n_chunks = static_cast<int64_t>(call.chunks.size());
  for (int64_t item = begin; item < end; ++item) {
    const int64_t h = item / n_chunks;
    const WindowChunk& chunk = call.chunks[item % n_chunks];
    const WindowClass& c = call.plan.classes[chunk.window_class];
    bias.prepare(h, chunk.window_class);
    for (size_t group = 0; group < c.groups.size(); ++group) {
      const WindowGroup& g = c.groups[group];
      float* grad = call.bias_wanted ? m.grad_bias + bias.start(group) : nullptr;
      for (int64_t pair = chunk.begin; pair < chunk.end; ++pair) {
        backward_group(tiles, call, m, rows, bias, group, g, call.tokens(c, pair), call.batch(c, pair), h, grad,
                       call.padding_sum(item));
        if (grad && (pair + 1 == chunk.end || (pair - chunk.begin) % kPairsAFold == kPairsAFold - 1))
          call.fold(item, g, grad);
      }
    }
  }
}

}  // namespace
}  // namespace fovea::kernels::amx
FOVEA_AVX512_END

namespace fovea::kernels::amx {

bool available(TileUnit unit) {
  return unit == TileUnit::kHardware ? best_isa() >= Isa::kAmx && __builtin_cpu_supports("avx512bf16")
                                     : best_isa() >= Isa::kAvx512;
}

void window_attention_forward(const WindowAttentionParams<BFloat16>& p, const ParallelFor& parallel, TileUnit unit) {
  Call call(p);
  call.chunks = call.plan.chunks(call.B, 4);
  const auto items = unit == TileUnit::kHardware ? forward_items<HardwareTiles> : forward_items<EmulatedTiles>;
  parallel(call.H * static_cast<int64_t>(call.chunks.size()), 1,
           [&](int64_t begin, int64_t end) { items(call, begin, end); });
}

void window_attention_backward(const WindowAttentionBackwardParams<BFloat16>& g, const ParallelFor& parallel,
                               TileUnit unit) {
  BackwardCall call(g, kTiles, Isa::kAvx512);
  const auto items = unit == TileUnit::kHardware ? backward_items<HardwareTiles> : backward_items<EmulatedTiles>;
  parallel(call.H * static_cast<int64_t>(call.chunks.size()), 1,
           [&](int64_t begin, int64_t end) { items(call, begin, end); });
  parallel(call.H, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) call.reduce(h);
  });
}

}  // namespace fovea::kernels::amx
#endif  // __x86_64__
