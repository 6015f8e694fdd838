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
#include "fovea/kernels/cpu/window_plan.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace windowed {

template <class T>
using Call = WindowCall<T>;

enum class TileRows { kKeys, kQueries };  // forward: a row a key, lanes are queries; backward: the other way round

inline int64_t tile_lanes(const WindowGroup& g, TileRows rows) {
  return round_up(rows == TileRows::kKeys ? g.queries : g.keys(), L);
}
inline int64_t tile_rows(const WindowGroup& g, TileRows rows) {
  return rows == TileRows::kKeys ? g.keys() : round_up(g.queries, 8);
}

// Floats of all tiles of the largest class.
template <class T>
int64_t tile_memory(const Call<T>& call, TileRows rows) {
  int64_t most = 0;
  for (const WindowClass& c : call.plan.classes) {
    int64_t sum = 0;
    for (const WindowGroup& g : c.groups) sum += tile_rows(g, rows) * tile_lanes(g, rows);
    most = std::max(most, sum);
  }
  return most;
}

// Column h of the table times log2(e), contiguous.
template <class T>
void copy_table_column(const Call<T>& call, int64_t h, float* column) {
  for (int64_t r = 0; r < call.p.bias_table.shape[0]; ++r) column[r] = call.p.bias_table(r, h) * kLog2e;
}

// Bias of all (query, key) of the group in log2 units, lanes behind the last one `beyond`. Returns the largest |score|
// that bias and mask can add (a large negative mask adds none).
template <class T>
float build_tile(const Call<T>& call, const WindowClass& c, const WindowGroup& g, TileRows rows, int64_t h,
                 const float* column, float beyond, float* tile) {
  const Floats d;
  const hn::RebindToSigned<Floats> di;
  const auto& p = call.p;
  const int64_t lanes = tile_lanes(g, rows), n_rows = rows == TileRows::kKeys ? g.keys() : g.queries;
  const int64_t n_lanes = rows == TileRows::kKeys ? g.queries : g.keys();
  if (!call.has_tile(c)) {
    for (int64_t u = 0; u < lanes; ++u) tile[u] = u < n_lanes ? 0 : beyond;
    return 0;
  }
  const int sign = rows == TileRows::kKeys ? -1 : 1;  // of (row position - lane position) within the displacement
  const float mask = p.mask_value ? static_cast<float>(*p.mask_value) * kLog2e : 0;
  // Where lane u finds its entry, from where the row finds its own.
  std::vector<int32_t> lane_entry(lanes, 0);
  const int64_t bias_lane = p.bias.stride[rows == TileRows::kKeys ? 1 : 2],
                bias_row = p.bias.stride[rows == TileRows::kKeys ? 2 : 1];
  for (int64_t u = 0; u < n_lanes; ++u) lane_entry[u] = -sign * call.linear[g.position[u]];
  Vector largest = hn::Zero(d);
  for (int64_t r = 0; r < n_rows; ++r) {
    float* out = tile + r * lanes;
    const int32_t row = g.position[r];
    if (p.bias_table.data) {
      const float* middle = column + call.centre + sign * call.linear[row];
      for (int64_t u = 0; u < lanes; u += L)
        hn::Store(hn::GatherIndex(d, middle, hn::LoadU(di, lane_entry.data() + u)), d, out + u);
    } else if (p.bias.data) {
      const float* from = p.bias.data + h * p.bias.stride[0] + row * bias_row;
      for (int64_t u = 0; u < n_lanes; ++u) out[u] = from[g.position[u] * bias_lane] * kLog2e;
    } else {
      Fill(out, n_lanes, 0);
    }
    Fill(out + n_lanes, lanes - n_lanes, 0);
    for (int64_t u = 0; u < lanes; u += L) largest = hn::Max(largest, hn::Abs(hn::Load(d, out + u)));
    if (p.mask_value)
      for (int64_t u = 0; u < n_lanes; ++u) out[u] += c.region[row] == c.region[g.position[u]] ? 0.f : mask;
    Fill(out + n_lanes, lanes - n_lanes, beyond);
  }
  for (int64_t r = n_rows; r < tile_rows(g, rows); ++r) Fill(tile + r * lanes, lanes, beyond);
  return hn::GetLane(hn::MaxOfLanes(d, largest)) + std::max(mask, 0.f);
}

// The bias tiles of one (head, class), kept until another one is asked for.
template <class T>
class BiasTiles {
 public:
  BiasTiles(const Call<T>& call, Arena& arena, TileRows rows, float beyond)
      : call_(call), rows_(rows), beyond_(beyond) {
    tiles_ = arena.take(tile_memory(call, rows) + 2 * L), column_ = arena.take(call.p.bias_table.shape[0]);
  }
  void Prepare(int64_t h, int32_t window_class) {
    if (h == head_ && window_class == class_) return;
    if (call_.p.bias_table.data && h != head_) copy_table_column(call_, h, column_);
    head_ = h, class_ = window_class;
    const WindowClass& c = call_.plan.classes[window_class];
    tiled_ = call_.has_tile(c);
    start_.clear(), bound_.clear();
    int64_t at = 0;
    for (const WindowGroup& g : c.groups) {
      start_.push_back(at);
      bound_.push_back(build_tile(call_, c, g, rows_, h, column_, beyond_, tiles_ + at));
      at += tile_rows(g, rows_) * tile_lanes(g, rows_);
    }
  }
  const float* tile(size_t group) const { return tiles_ + start_[group]; }
  int64_t start(size_t group) const { return start_[group]; }
  int64_t step(const WindowGroup& g) const { return tiled_ ? tile_lanes(g, rows_) : 0; }
  float bound(size_t group) const { return bound_[group]; }

 private:
  const Call<T>& call_;
  TileRows rows_;
  float beyond_;
  float *tiles_, *column_;
  int64_t head_ = -1;
  int32_t class_ = -1;
  bool tiled_ = false;
  std::vector<int64_t> start_;
  std::vector<float> bound_;
};

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
  int64_t batch() const { return pair / static_cast<int64_t>(window_class().windows.size()); }
  const int32_t* tokens() const {
    const std::vector<int32_t>& windows = window_class().windows;
    return call->plan.token.data() + windows[pair % static_cast<int64_t>(windows.size())] * call->plan.n;
  }
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
  const T* qkv = p.qkv.data + at.batch() * p.qkv.stride[0] + at.head() * p.qkv.stride[5];
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
T* out_of(const Call<T>& call, const WindowCursor<T>& at) {
  return call.p.out.data + at.batch() * call.p.out.stride[0] + at.head() * call.p.out.stride[4];
}

template <class T>
struct ForwardMemory {
  BiasTiles<T> tiles;
  ForwardScratch head;
  ForwardMemory(const Call<T>& call, Arena& arena)
      : tiles(call, arena, TileRows::kKeys, 0.f), head(arena, call.plan.n, call.plan.n, call.C, call.C) {}
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
      next.Add(Rows<T>{out_of(call, ahead), next_rows->out.data(), 0}, r.queries, call.C);
    }
    const WindowGroup& g = at.rows();
    m.tiles.Prepare(at.head(), at.chunk().window_class);
    const BiasTile bias{m.tiles.tile(at.group), m.tiles.step(g), m.tiles.bound(at.group)};
    ForwardHead(m.head, head_rows(call, at, *rows), bias, Rows<T>{out_of(call, at), rows->out.data(), 0}, &next);
    if (p.lse.data) {
      float* lse = p.lse.data + at.batch() * p.lse.stride[0] + at.head() * p.lse.stride[1];
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
struct BackwardCall : Call<T> {
  const WindowAttentionBackwardParams<T>& g;
  TokenOffset grad_in, grad_out;
  bool bias_wanted;
  int64_t entries;                  // of the bias parameter, a head
  int64_t entries_step;             // the same with room for a vector that nobody else writes
  std::vector<double> bias_sum;     // [H][chunks][entries_step]
  std::vector<double> padding_sum;  // [H][chunks][2][C]

  explicit BackwardCall(const WindowAttentionBackwardParams<T>& params)
      : Call<T>(params.forward),
        g(params),
        grad_in(this->grid, g.grad_qkv.stride[1], g.grad_qkv.stride[2], g.grad_qkv.stride[3]),
        grad_out(this->grid, g.grad_out.stride[1], g.grad_out.stride[2], g.grad_out.stride[3]),
        bias_wanted(g.grad_bias_table.data || g.grad_bias.data) {
    // Enough chunks to share out, few enough that their partial sums stay small beside the tensors.
    const int64_t pairs = this->pairs(), pairs_a_chunk = std::clamp<int64_t>((pairs + 15) / 16, 8, 64);
    this->chunks =
        this->plan.chunks(this->B, g.grad_bias.data ? std::max(pairs_a_chunk, (pairs + 7) / 8) : pairs_a_chunk);
    const int64_t items = this->H * static_cast<int64_t>(this->chunks.size());
    entries = g.grad_bias_table.data ? g.grad_bias_table.shape[0] : g.grad_bias.data ? this->plan.n * this->plan.n : 0;
    entries_step = entries ? entries + L : 0;
    bias_sum.resize(items * entries_step);
    if (g.grad_pad_token.data) padding_sum.resize(items * 2 * this->C);
  }
};

// Consecutive positions of a group along x: lanes [lane, lane + length) and where their entries of the bias start.
struct LaneRun {
  int64_t lane, entry, length;
};

template <class T>
std::vector<LaneRun> lane_runs(const BackwardCall<T>& call, const WindowGroup& g) {
  std::vector<LaneRun> runs;
  const int64_t wx = call.p.window[2];
  for (int64_t j = 0; j < g.keys(); ++j) {
    const int32_t position = g.position[j];
    if (j && position == g.position[j - 1] + 1 && position % wx)
      ++runs.back().length;
    else
      runs.push_back({j, call.g.grad_bias_table.data ? call.linear[position] : position, 1});
  }
  return runs;
}

// to[i] += from[i]; may read, and write back, up to a vector behind both.
HWY_INLINE void AddToDoubles(const float* from, int64_t n, double* to) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> narrow;
  constexpr int64_t kDoubles = L / 2;
  for (int64_t i = 0; i < n; i += kDoubles) {
    const auto x = hn::IfThenElseZero(hn::FirstN(d, n - i), hn::PromoteTo(d, hn::LoadU(narrow, from + i)));
    hn::StoreU(hn::Add(hn::LoadU(d, to + i), x), d, to + i);
  }
}

// Adds the group's float tile to the chunk's double sum and clears it. The sum of a bias table lies the other way
// round, by (key - query), so that neighbouring lanes meet neighbouring entries.
template <class T>
void fold_tile(const BackwardCall<T>& call, const WindowGroup& g, float* tile, double* sum) {
  const int64_t lanes = tile_lanes(g, TileRows::kQueries);
  const std::vector<LaneRun> runs = lane_runs(call, g);
  for (int64_t i = 0; i < g.queries; ++i) {
    const int32_t position = g.position[i];
    double* to = sum + (call.g.grad_bias_table.data ? call.centre - call.linear[position] : position * call.plan.n);
    for (const LaneRun& run : runs) AddToDoubles(tile + i * lanes + run.lane, run.length, to + run.entry);
  }
  Fill(tile, tile_rows(g, TileRows::kQueries) * lanes, 0);
}

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
  const auto &grad_out = call.g.grad_out, &lse = call.p.lse;
  return {{grad_out.data + at.batch() * grad_out.stride[0] + at.head() * grad_out.stride[4], rows.grad_out.data(), 0},
          {out_of(call, at), rows.out.data(), 0},
          {lse.data + at.batch() * lse.stride[0] + at.head() * lse.stride[1], rows.lse.data(), 0}};
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
      : tiles(call, arena, TileRows::kQueries, -kNoWeight),
        head(arena, call.plan.n, call.plan.n, call.C, call.C),
        grad_tile(arena.take(call.bias_wanted ? tile_memory(call, TileRows::kQueries) + 2 * L : 0)) {}
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
    m.tiles.Prepare(at.head(), chunk.window_class);
    const int64_t lanes = tile_lanes(g, TileRows::kQueries);
    const BiasRows bias{m.tiles.tile(at.group), m.tiles.step(g), call.bias_wanted ? m.grad_tile : nullptr, lanes};
    if (bias.grad && at.pair == chunk.begin) Fill(bias.grad, tile_rows(g, TileRows::kQueries) * lanes, 0);
    BackwardHead(m.head, head_rows(call, at, *rows), upstream(call, at, *rows), bias, &next);
    write_gradients(call, m.head, at, *rows);
    if (!call.padding_sum.empty()) {
      double* sum = &call.padding_sum[at.item * 2 * C];
      for (int64_t j = g.queries; j < g.keys(); ++j)
        for (int64_t c = 0; c < C; ++c)
          sum[c] += m.head.grad_k[j * step + c], sum[C + c] += m.head.grad_v[j * step + c];
    }
    if (bias.grad && (at.last_pair() || (at.pair - chunk.begin) % kPairsAFold == kPairsAFold - 1))
      fold_tile(call, g, bias.grad, &call.bias_sum[at.item * call.entries_step]);
    at = ahead;
    std::swap(rows, next_rows);
  }
}

// Adds the chunks' partial sums in chunk order and writes the gradients of bias and padding token of head h.
template <class T>
void reduce_head(const BackwardCall<T>& call, int64_t h) {
  const auto& g = call.g;
  const int64_t n_chunks = static_cast<int64_t>(call.chunks.size()), n = call.plan.n, C = call.C;
  std::vector<double> sum(call.entries);
  for (int64_t chunk = 0; chunk < n_chunks; ++chunk)
    for (int64_t e = 0; e < call.entries; ++e) sum[e] += call.bias_sum[(h * n_chunks + chunk) * call.entries_step + e];
  for (int64_t e = 0; e < call.entries; ++e)
    (g.grad_bias_table.data ? g.grad_bias_table(call.entries - 1 - e, h) : g.grad_bias(h, e / n, e % n)) =
        static_cast<float>(sum[e]);
  if (!g.grad_pad_token.data) return;
  for (int64_t c = 0; c < 2 * C; ++c) {
    double padding = 0;
    for (int64_t chunk = 0; chunk < n_chunks; ++chunk) padding += call.padding_sum[(h * n_chunks + chunk) * 2 * C + c];
    g.grad_pad_token(1 + c / C, h, c % C) = static_cast<T>(padding);
  }
  for (int64_t c = 0; c < C; ++c) g.grad_pad_token(0, h, c) = static_cast<T>(0.0);
}

template <class T>
void Backward(const WindowAttentionBackwardParams<T>& g, const ParallelFor& parallel) {
  BackwardCall<T> call(g);
  parallel(call.H * static_cast<int64_t>(call.chunks.size()), 1,
           [&call](int64_t begin, int64_t end) { backward_items(call, begin, end); });
  parallel(call.H, 1, [&call](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) reduce_head(call, h);
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
