// Windowed attention on vectors: head-inl.h computes one head of one window, this file feeds it.
//   Work is cut into (head, chunk of windows of one class); head and class vary slowest, so that a thread builds the
//   bias tile of (head, class) once and streams windows past it (0.5 MB at 7^3 tokens: it stays in L2). Per window K
//   and V are gathered through the token list into packed rows, padded positions become copies of pad_token, Q is
//   gathered while it is transposed, and outputs go straight to their tokens: no copy of the volume is rolled,
//   partitioned or padded. Regions that exclude each other are separate groups, so those blocks cost nothing. While a
//   window is computed the rows of the next one are fetched into L2, those that will be written too.
//   Bias gradient: one float tile a chunk, folded into a double partial sum of the chunk; partial sums are added in
//   chunk order. Chunks depend on the shapes alone, hence the same bits for any number of threads.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fovea/kernels/cpu/window_attention.cpp"
#include "fovea/kernels/cpu/targets.h"

#include "hwy/foreach_target.h"

#include <algorithm>
#include <vector>

#include "fovea/kernels/cpu/amx.h"
#include "fovea/kernels/cpu/head-inl.h"
#include "fovea/kernels/cpu/window_bias.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace windowed {

template <class T>
using Call = WindowCall<T>;

// Tiles of the bias: forward a row a key, backward a row a query.
constexpr TileLayout kForwardTiles{TileLayout::Lanes::kQueries, 0, L, 1};
constexpr TileLayout kBackwardTiles{TileLayout::Lanes::kKeys, 0, L, 8};
constexpr int64_t kBehindTiles = 2 * L;  // blocks of vectors may read that far

// Walks over the windows of work items: item, then group of the item's class, then (batch, window) pair.
template <class T>
struct WindowCursor {
  const Call<T>* call;
  int64_t item, end, pair = 0;
  size_t group = 0;

  WindowCursor(const Call<T>& c, int64_t begin, int64_t end_item) : call(&c), item(begin), end(end_item) { Enter(); }
  bool done() const { return item >= end; }
  int64_t head() const { return item / static_cast<int64_t>(call->chunks.size()); }
  const WindowChunk& chunk() const { return call->chunks[item % static_cast<int64_t>(call->chunks.size())]; }
  const WindowClass& window_class() const { return call->plan.classes[chunk().window_class]; }
  const WindowGroup& rows() const { return window_class().groups[group]; }
  int64_t batch() const { return call->batch(window_class(), pair); }
  const int32_t* tokens() const { return call->tokens(window_class(), pair); }
  bool last_pair() const { return pair + 1 == chunk().end; }
  void Advance() {
    if (++pair < chunk().end) return;
    pair = chunk().begin;
    if (++group < window_class().groups.size()) return;
    ++item, Enter();
  }

 private:
  void Enter() {  // the first window of the item, or of the next one whose class has tokens at all
    while (!done() && window_class().groups.empty()) ++item;
    if (!done()) group = 0, pair = chunk().begin;
  }
};

// Offsets of a window's rows in the tensors of the call.
struct RowOffsets {
  std::vector<int64_t> in, out, grad_in, grad_out, lse;
};

// ------------------------------------------------------------------------------------------------------------- forward

template <class T>
void find_rows(const Call<T>& call, const WindowCursor<T>& at, RowOffsets& rows) {
  const WindowGroup& g = at.rows();
  const int32_t* token = at.tokens();
  rows.in.resize(g.queries), rows.out.resize(g.queries);
  for (int64_t i = 0; i < g.queries; ++i) {
    const int64_t t = token[g.position[i]];
    rows.in[i] = call.in(t), rows.out[i] = call.out(t);
  }
}

template <class T>
HeadRows<T> head_rows(const Call<T>& call, const WindowCursor<T>& at, const RowOffsets& rows) {
  const auto& p = call.p;
  const T* qkv = call.qkv_of(at.batch(), at.head());
  const T* pad = p.pad_token.data ? p.pad_token.data + at.head() * p.pad_token.stride[1] : nullptr;
  const int C = static_cast<int>(call.C);
  return {{qkv, rows.in.data(), 0},
          {qkv + p.qkv.stride[4], rows.in.data(), 0},
          {qkv + 2 * p.qkv.stride[4], rows.in.data(), 0},
          at.rows().queries,
          at.rows().keys(),
          at.rows().queries,
          pad ? pad + p.pad_token.stride[0] : nullptr,
          pad ? pad + 2 * p.pad_token.stride[0] : nullptr,
          C,
          C,
          p.scale};
}

template <class T>
struct ForwardMemory {
  BiasTiles<T> tiles;
  ForwardScratch head;
  ForwardMemory(const Call<T>& call, Arena& arena)
      : tiles(call, kForwardTiles, 0.f, kIsa, arena.take(kForwardTiles.largest(call.plan) + kBehindTiles)),
        head(arena, call.plan.n, call.plan.n, call.C, call.C) {}
};

template <class T>
void forward_items(const Call<T>& call, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  const auto& p = call.p;
  const auto memory = arena_memory([&](Arena& arena) { ForwardMemory<T>(call, arena); });
  Arena arena(memory.get());
  ForwardMemory<T> m(call, arena);
  RowOffsets offsets[2];
  RowOffsets *rows = &offsets[0], *next_rows = &offsets[1];
  WindowCursor<T> at(call, begin, end);
  if (!at.done()) find_rows(call, at, *rows);
  while (!at.done()) {
    WindowCursor<T> ahead = at;
    ahead.Advance();
    NextRows next;
    if (!ahead.done()) {
      find_rows(call, ahead, *next_rows);
      const HeadRows<T> r = head_rows(call, ahead, *next_rows);
      for (const Rows<const T>& part : {r.q, r.k, r.v}) next.Add(part, r.queries, call.C);
      next.Add(Rows<T>{call.out_of(ahead.batch(), ahead.head()), next_rows->out.data(), 0}, r.queries, call.C);
    }
    const WindowGroup& g = at.rows();
    m.tiles.prepare(at.head(), at.chunk().window_class);
    const BiasTile bias{m.tiles.tile(at.group), m.tiles.step(g), m.tiles.bound(at.group)};
    ForwardHead(m.head, head_rows(call, at, *rows), bias,
                Rows<T>{call.out_of(at.batch(), at.head()), rows->out.data(), 0}, &next);
    if (p.lse.data) {
      float* lse = call.lse_of(at.batch(), at.head());
      const int32_t* token = at.tokens();
      for (int64_t i = 0; i < g.queries; ++i) lse[call.lse(token[g.position[i]])] = m.head.lse[i];
    }
    at = ahead;
    std::swap(rows, next_rows);
  }
}

template <class T>
void Forward(const WindowAttentionParams<T>& p, const ParallelFor& parallel) {
  Call<T> call(p);
  call.chunks = call.plan.chunks(call.B, 4);
  parallel(call.H * static_cast<int64_t>(call.chunks.size()), 1,
           [&call](int64_t begin, int64_t end) { forward_items(call, begin, end); });
}

// ------------------------------------------------------------------------------------------------------------ backward

template <class T>
using BackwardCall = WindowBackwardCall<T>;

template <class T>
void find_backward_rows(const BackwardCall<T>& call, const WindowCursor<T>& at, RowOffsets& rows) {
  find_rows(call, at, rows);
  const WindowGroup& g = at.rows();
  const int32_t* token = at.tokens();
  rows.grad_in.resize(g.queries), rows.grad_out.resize(g.queries), rows.lse.resize(g.queries);
  for (int64_t i = 0; i < g.queries; ++i) {
    const int64_t t = token[g.position[i]];
    rows.grad_in[i] = call.grad_in(t), rows.grad_out[i] = call.grad_out(t), rows.lse[i] = call.lse(t);
  }
}

template <class T>
Upstream<T> upstream(const BackwardCall<T>& call, const WindowCursor<T>& at, const RowOffsets& rows) {
  const auto& grad_out = call.g.grad_out;
  return {{grad_out.data + at.batch() * grad_out.stride[0] + at.head() * grad_out.stride[4], rows.grad_out.data(), 0},
          {call.out_of(at.batch(), at.head()), rows.out.data(), 0},
          {call.lse_of(at.batch(), at.head()), rows.lse.data(), 0}};
}

template <class T>
T* grad_qkv_of(const BackwardCall<T>& call, const WindowCursor<T>& at) {
  const auto& grad = call.g.grad_qkv;
  return grad.data + at.batch() * grad.stride[0] + at.head() * grad.stride[5];
}

// Gradients of the group's tokens to their places, those of padded keys to the sum.
template <class T>
void write_gradients(const BackwardCall<T>& call, const BackwardScratch& m, const WindowCursor<T>& at,
                     const RowOffsets& rows) {
  const WindowGroup& g = at.rows();
  const int64_t C = call.C, step = round_up(C, L), part = call.g.grad_qkv.stride[4];
  T* grad = grad_qkv_of(call, at);
  for (int64_t i = 0; i < g.queries; ++i) {
    T* to = grad + rows.grad_in[i];
    CopyRow(m.grad_q + i * step, C, C, to, static_cast<float>(call.p.scale));
    CopyRow(m.grad_k + i * step, C, C, to + part);
    CopyRow(m.grad_v + i * step, C, C, to + 2 * part);
  }
}

template <class T>
struct BackwardMemory {
  BiasTiles<T> tiles;
  BackwardScratch head;
  float* grad_tile;
  BackwardMemory(const BackwardCall<T>& call, Arena& arena)
      : tiles(call, kBackwardTiles, -kNoWeight, kIsa, arena.take(kBackwardTiles.largest(call.plan) + kBehindTiles)),
        head(arena, call.plan.n, call.plan.n, call.C, call.C),
        grad_tile(arena.take(call.bias_wanted ? kBackwardTiles.largest(call.plan) + kBehindTiles : 0)) {}
};

template <class T>
void backward_items(BackwardCall<T>& call, int64_t begin, int64_t end) {
  constexpr int64_t kPairsAFold = 64;  // windows summed in float before the sum goes on in double
  const FlushDenormals flush;
  const int64_t C = call.C, step = round_up(C, L);
  const auto memory = arena_memory([&](Arena& arena) { BackwardMemory<T>(call, arena); });
  Arena arena(memory.get());
  BackwardMemory<T> m(call, arena);
  RowOffsets offsets[2];
  RowOffsets *rows = &offsets[0], *next_rows = &offsets[1];
  WindowCursor<T> at(call, begin, end);
  if (!at.done()) find_backward_rows(call, at, *rows);
  while (!at.done()) {
    WindowCursor<T> ahead = at;
    ahead.Advance();
    NextRows next;
    if (!ahead.done()) {
      find_backward_rows(call, ahead, *next_rows);
      const HeadRows<T> r = head_rows(call, ahead, *next_rows);
      const Upstream<T> up = upstream(call, ahead, *next_rows);
      for (const Rows<const T>& part : {r.q, r.k, r.v, up.grad_out, up.out}) next.Add(part, r.queries, C);
      for (int part = 0; part < 3; ++part)
        next.Add(Rows<T>{grad_qkv_of(call, ahead) + part * call.g.grad_qkv.stride[4], next_rows->grad_in.data(), 0},
                 r.queries, C);
    }
    const WindowGroup& g = at.rows();
    const WindowChunk& chunk = at.chunk();
    m.tiles.prepare(at.head(), chunk.window_class);
    const int64_t lanes = kBackwardTiles.step(g);
    const BiasRows bias{m.tiles.tile(at.group), m.tiles.step(g), call.bias_wanted ? m.grad_tile : nullptr, lanes};
    if (bias.grad && at.pair == chunk.begin) Fill(bias.grad, kBackwardTiles.size(g), 0);
    BackwardHead(m.head, head_rows(call, at, *rows), upstream(call, at, *rows), bias, &next);
    write_gradients(call, m.head, at, *rows);
    if (double* sum = call.padding_sum(at.item)) {
      for (int64_t j = g.queries; j < g.keys(); ++j)
        for (int64_t c = 0; c < C; ++c)
          sum[c] += m.head.grad_k[j * step + c], sum[C + c] += m.head.grad_v[j * step + c];
    }
    if (bias.grad && (at.last_pair() || (at.pair - chunk.begin) % kPairsAFold == kPairsAFold - 1))
      call.fold(at.item, g, bias.grad);
    at = ahead;
    std::swap(rows, next_rows);
  }
}

template <class T>
void Backward(const WindowAttentionBackwardParams<T>& g, const ParallelFor& parallel) {
  BackwardCall<T> call(g, kBackwardTiles, kIsa);
  parallel(call.items(), 1, [&call](int64_t begin, int64_t end) { backward_items(call, begin, end); });
  parallel(call.H, 1, [&call](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) call.reduce(h);
  });
}

}  // namespace windowed
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS

#if HWY_ONCE
namespace fovea::kernels::cpu {

template <class T>
void window_attention_forward(const WindowAttentionParams<T>& p, const ParallelFor& parallel, Isa isa) {
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, BFloat16>)
    if (isa >= Isa::kAmx && amx::available(amx::TileUnit::kHardware))
      return amx::window_attention_forward(p, parallel, amx::TileUnit::kHardware);
#endif
  FOVEA_RETURN_BEST(isa, windowed::Forward, p, parallel)
  reference::window_attention_forward(p, parallel);
}

template <class T>
void window_attention_backward(const WindowAttentionBackwardParams<T>& g, const ParallelFor& parallel, Isa isa) {
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, BFloat16>)
    if (isa >= Isa::kAmx && amx::available(amx::TileUnit::kHardware))
      return amx::window_attention_backward(g, parallel, amx::TileUnit::kHardware);
#endif
  FOVEA_RETURN_BEST(isa, windowed::Backward, g, parallel)
  reference::window_attention_backward(g, parallel);
}

template void window_attention_forward(const WindowAttentionParams<float>&, const ParallelFor&, Isa);
template void window_attention_forward(const WindowAttentionParams<BFloat16>&, const ParallelFor&, Isa);
template void window_attention_backward(const WindowAttentionBackwardParams<float>&, const ParallelFor&, Isa);
template void window_attention_backward(const WindowAttentionBackwardParams<BFloat16>&, const ParallelFor&, Isa);

// A few rows are asked for at a time: the definition is fast enough, and nothing can differ from it.
void window_attention_rows(const WindowAttentionRowsParams<float>& r, const ParallelFor& parallel) {
  reference::window_attention_rows(r, parallel);
}

}  // namespace fovea::kernels::cpu
#endif  // HWY_ONCE
