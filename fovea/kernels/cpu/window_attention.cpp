// Windowed attention on vectors: forward-inl.h and backward-inl.h hold the tiles, this file feeds them.
//   Work is cut into (head, chunk of windows of one class); head and class vary slowest, so that a thread builds the
//   bias tile of (head, class) once and streams windows past it (0.5 MB at 7^3 tokens: it stays in L2). Per window K
//   and V are gathered through the token list into packed rows, padded positions become copies of pad_token, Q is
//   gathered while it is transposed, and outputs go straight to their tokens: no copy of the volume is rolled,
//   partitioned or padded. Regions that exclude each other are separate groups, so those blocks cost nothing.
//   Bias gradient: one float tile a chunk, folded into a double partial sum of the chunk; partial sums are added in
//   chunk order. Chunks depend on the shapes alone, hence the same bits for any number of threads.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fovea/kernels/cpu/window_attention.cpp"
#include "fovea/kernels/cpu/targets.h"

#include "hwy/foreach_target.h"

#include <algorithm>
#include <vector>

#include "fovea/kernels/cpu/backward-inl.h"
#include "fovea/kernels/cpu/forward-inl.h"
#include "fovea/kernels/cpu/window_plan.h"
#include "hwy/aligned_allocator.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace windowed {

// Offset of a flat token index in a tensor with any Z, Y, X strides.
struct TokenOffset {
  int64_t z, y, x, Y, X;
  bool merged;
  TokenOffset(const Triple& grid, int64_t sz, int64_t sy, int64_t sx)
      : z(sz), y(sy), x(sx), Y(grid[1]), X(grid[2]), merged(sy == X * sx && sz == Y * sy) {}
  int64_t operator()(int64_t t) const { return merged ? t * x : t / (Y * X) * z + t / X % Y * y + t % X * x; }
};

struct Call {
  const WindowAttentionParams<float>& p;
  int64_t B = p.qkv.shape[0], H = p.qkv.shape[5], C = p.qkv.shape[6];
  Triple grid{p.qkv.shape[1], p.qkv.shape[2], p.qkv.shape[3]};
  WindowPlan plan;
  std::vector<WindowChunk> chunks;
  std::vector<int32_t> linear;  // row of bias_table of (i, j) = linear[i] - linear[j] + centre
  int32_t centre;
  TokenOffset in, out, lse;

  explicit Call(const WindowAttentionParams<float>& params)
      : p(params),
        plan(grid, p.window, p.shift, !p.mask_value, p.pad_token.data != nullptr),
        linear(plan.n),
        in(grid, p.qkv.stride[1], p.qkv.stride[2], p.qkv.stride[3]),
        out(grid, p.out.stride[1], p.out.stride[2], p.out.stride[3]),
        lse(grid, p.lse.stride[2], p.lse.stride[3], p.lse.stride[4]) {
    const int64_t wy = p.window[1], wx = p.window[2];
    for (int64_t i = 0; i < plan.n; ++i)
      linear[i] = static_cast<int32_t>((i / (wy * wx) * (2 * wy - 1) + i / wx % wy) * (2 * wx - 1) + i % wx);
    centre = linear.back();
  }
  int64_t pairs() const { return B * static_cast<int64_t>(plan.token.size()) / plan.n; }
};

// Whether a class needs a tile at all: without bias and mask one row of zeros does.
inline bool has_tile(const Call& call, const WindowClass& c) {
  return call.p.bias.data || call.p.bias_table.data ||
         (call.p.mask_value &&
          std::any_of(c.region.begin(), c.region.end(), [&](int32_t r) { return r != c.region[0]; }));
}

enum class TileRows { kKeys, kQueries };  // forward: a row a key, lanes are queries; backward: the other way round

inline int64_t tile_lanes(const WindowGroup& g, TileRows rows) {
  return round_up(rows == TileRows::kKeys ? g.queries : g.keys(), L);
}
inline int64_t tile_rows(const WindowGroup& g, TileRows rows) {
  return rows == TileRows::kKeys ? g.keys() : round_up(g.queries, 8);
}

// Floats of all tiles of the largest class.
inline int64_t tile_memory(const Call& call, TileRows rows) {
  int64_t most = 0;
  for (const WindowClass& c : call.plan.classes) {
    int64_t sum = 0;
    for (const WindowGroup& g : c.groups) sum += tile_rows(g, rows) * tile_lanes(g, rows);
    most = std::max(most, sum);
  }
  return most;
}

// Column h of the table times log2(e), contiguous.
inline void copy_table_column(const Call& call, int64_t h, float* column) {
  for (int64_t r = 0; r < call.p.bias_table.shape[0]; ++r) column[r] = call.p.bias_table(r, h) * kLog2e;
}

// Bias of all (query, key) of the group in log2 units, lanes behind the last one `beyond`. Returns the largest |score|
// that bias and mask can add (a large negative mask adds none).
float build_tile(const Call& call, const WindowClass& c, const WindowGroup& g, TileRows rows, int64_t h,
                 const float* column, float beyond, float* tile) {
  const auto& p = call.p;
  const int64_t lanes = tile_lanes(g, rows), n_rows = rows == TileRows::kKeys ? g.keys() : g.queries;
  const int64_t n_lanes = rows == TileRows::kKeys ? g.queries : g.keys();
  if (!has_tile(call, c)) {
    for (int64_t u = 0; u < lanes; ++u) tile[u] = u < n_lanes ? 0 : beyond;
    return 0;
  }
  const int sign = rows == TileRows::kKeys ? -1 : 1;  // of (row position - lane position) within the displacement
  const float mask = p.mask_value ? static_cast<float>(*p.mask_value) * kLog2e : 0;
  float largest = 0;
  for (int64_t r = 0; r < n_rows; ++r) {
    float* out = tile + r * lanes;
    const int32_t row = g.position[r];
    if (p.bias_table.data) {
      const float* middle = column + call.centre + sign * call.linear[row];
      for (int64_t u = 0; u < n_lanes; ++u) out[u] = middle[-sign * call.linear[g.position[u]]];
    } else if (p.bias.data) {
      const int64_t lane_stride = p.bias.stride[rows == TileRows::kKeys ? 1 : 2],
                    row_stride = p.bias.stride[rows == TileRows::kKeys ? 2 : 1];
      const float* from = p.bias.data + h * p.bias.stride[0] + row * row_stride;
      for (int64_t u = 0; u < n_lanes; ++u) out[u] = from[g.position[u] * lane_stride] * kLog2e;
    } else {
      std::fill(out, out + n_lanes, 0.f);
    }
    for (int64_t u = 0; u < n_lanes; ++u) largest = std::abs(out[u]) <= largest ? largest : std::abs(out[u]);
    if (p.mask_value)
      for (int64_t u = 0; u < n_lanes; ++u) out[u] += c.region[row] == c.region[g.position[u]] ? 0.f : mask;
    for (int64_t u = n_lanes; u < lanes; ++u) out[u] = beyond;
  }
  for (int64_t r = n_rows; r < tile_rows(g, rows); ++r) std::fill(tile + r * lanes, tile + (r + 1) * lanes, beyond);
  return largest + std::max(mask, 0.f);
}

// ------------------------------------------------------------------------------------------------------------- forward

struct ForwardMemory {
  float *tiles, *column, *k, *v, *key_maximum, *qt, *out_t, *p, *lse;
  ForwardMemory(const Call& call, Arena& arena) {
    const int64_t padded = round_up(call.C, 4);
    tiles = arena.take(tile_memory(call, TileRows::kKeys) + 2 * L), column = arena.take(call.p.bias_table.shape[0]);
    k = arena.take(call.plan.n * padded), v = arena.take(call.plan.n * padded), key_maximum = arena.take(padded);
    qt = arena.take(call.C * 3 * L), out_t = arena.take(padded * 3 * L), p = arena.take(kChunk * 3 * L),
    lse = arena.take(3 * L);
  }
};

struct WindowKeys {
  const float* tile;
  int64_t tile_step, n, step;
  float bias_bound;
};

template <int V>
void query_block(const Call& call, const ForwardMemory& m, const WindowKeys& keys, const Rows<const float>& q,
                 const Rows<float>& out, int64_t i0, int64_t queries) {
  const int n = static_cast<int>(std::min<int64_t>(V * L, queries - i0)), C = static_cast<int>(call.C);
  PackTransposed(q, i0, n, V * L, C, Factor(call.p.scale * kLog2eExact), m.qt);
  const bool online = !(ScoreBound(m.qt, C, V * L, m.key_maximum) + keys.bias_bound <= kSafeScore);
  BlockState<V> s(m.qt, C, C, m.out_t, m.p);
  for (int64_t j = 0; j < keys.n; j += kChunk) {
    const KeyChunk chunk{m.k + j * keys.step,
                         m.v + j * keys.step,
                         keys.tile + j * keys.tile_step + i0,
                         keys.step,
                         keys.step,
                         keys.tile_step,
                         static_cast<int>(std::min<int64_t>(kChunk, keys.n - j))};
    online ? AddKeys<V, true, false>(s, chunk) : AddKeys<V, false, false>(s, chunk);
  }
  EndBlock(s, online, out, i0, n, m.lse);
}

void forward_items(const Call& call, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  const auto& p = call.p;
  const int64_t C = call.C, n_chunks = static_cast<int64_t>(call.chunks.size()), step = round_up(C, 4);
  Arena counter;
  ForwardMemory(call, counter);
  const auto memory = hwy::AllocateAligned<float>(counter.used());
  Arena arena(memory.get());
  const ForwardMemory m(call, arena);
  std::vector<int64_t> in(call.plan.n), out(call.plan.n);
  std::vector<float> bias_bound;
  int64_t tile_head = -1, tile_class = -1, column_head = -1;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t h = item / n_chunks;
    const WindowChunk& chunk = call.chunks[item % n_chunks];
    const WindowClass& c = call.plan.classes[chunk.window_class];
    const bool tiled = has_tile(call, c);
    if (p.bias_table.data && h != column_head) copy_table_column(call, column_head = h, m.column);
    if (h != tile_head || chunk.window_class != tile_class) {
      tile_head = h, tile_class = chunk.window_class;
      bias_bound.clear();
      float* tile = m.tiles;
      for (const WindowGroup& g : c.groups) {
        bias_bound.push_back(build_tile(call, c, g, TileRows::kKeys, h, m.column, 0.f, tile));
        tile += tile_rows(g, TileRows::kKeys) * tile_lanes(g, TileRows::kKeys);
      }
    }
    const int64_t n_windows = static_cast<int64_t>(c.windows.size());
    for (int64_t pair = chunk.begin; pair < chunk.end; ++pair) {
      const int64_t b = pair / n_windows;
      const int32_t* token = call.plan.token.data() + c.windows[pair % n_windows] * call.plan.n;
      const float* qkv = p.qkv.data + b * p.qkv.stride[0] + h * p.qkv.stride[5];
      const float* tile = m.tiles;
      for (size_t group = 0; group < c.groups.size(); ++group) {
        const WindowGroup& g = c.groups[group];
        for (int64_t i = 0; i < g.queries; ++i) {
          const int64_t t = token[g.position[i]];
          in[i] = call.in(t), out[i] = call.out(t);
          CopyRow(qkv + in[i] + p.qkv.stride[4], C, step, m.k + i * step);
          CopyRow(qkv + in[i] + 2 * p.qkv.stride[4], C, step, m.v + i * step);
        }
        for (int64_t i = g.queries; i < g.keys(); ++i) {
          CopyRow(&p.pad_token(1, h, 0), C, step, m.k + i * step);
          CopyRow(&p.pad_token(2, h, 0), C, step, m.v + i * step);
        }
        ColumnMaximum(m.k, g.keys(), step, m.key_maximum);
        const WindowKeys keys{tile, tiled ? tile_lanes(g, TileRows::kKeys) : 0, g.keys(), step, bias_bound[group]};
        const Rows<const float> q{qkv, in.data(), 0};
        const Rows<float> o{p.out.data + b * p.out.stride[0] + h * p.out.stride[4], out.data(), 0};
        for (int64_t i = 0; i < g.queries;) {  // blocks of 3 vectors; a rest of 4 goes as 2 + 2
          const int64_t left = (g.queries - i + L - 1) / L, take = left == 1 ? 1 : left == 2 || left == 4 ? 2 : 3;
          take == 1   ? query_block<1>(call, m, keys, q, o, i, g.queries)
          : take == 2 ? query_block<2>(call, m, keys, q, o, i, g.queries)
                      : query_block<3>(call, m, keys, q, o, i, g.queries);
          if (p.lse.data) {
            float* lse = p.lse.data + b * p.lse.stride[0] + h * p.lse.stride[1];
            for (int64_t u = i; u < std::min(i + take * L, g.queries); ++u)
              lse[call.lse(token[g.position[u]])] = m.lse[u - i];
          }
          i += take * L;
        }
        tile += tile_rows(g, TileRows::kKeys) * tile_lanes(g, TileRows::kKeys);
      }
    }
  }
}

void Forward(const WindowAttentionParams<float>& p, const ParallelFor& parallel) {
  Call call(p);
  call.chunks = call.plan.chunks(call.B, 4);
  parallel(call.H * static_cast<int64_t>(call.chunks.size()), 1,
           [&call](int64_t begin, int64_t end) { forward_items(call, begin, end); });
}

// ------------------------------------------------------------------------------------------------------------ backward

struct BackwardCall : Call {
  const WindowAttentionBackwardParams<float>& g;
  TokenOffset grad_in, grad_out;
  bool bias_wanted;
  int64_t entries;                  // of the bias parameter, a head
  std::vector<double> bias_sum;     // [H][chunks][entries]
  std::vector<double> padding_sum;  // [H][chunks][2][C]

  explicit BackwardCall(const WindowAttentionBackwardParams<float>& params)
      : Call(params.forward),
        g(params),
        grad_in(grid, g.grad_qkv.stride[1], g.grad_qkv.stride[2], g.grad_qkv.stride[3]),
        grad_out(grid, g.grad_out.stride[1], g.grad_out.stride[2], g.grad_out.stride[3]),
        bias_wanted(g.grad_bias_table.data || g.grad_bias.data) {
    // Enough chunks to share out, few enough that their partial sums stay small beside the tensors.
    const int64_t pairs_a_chunk = std::clamp<int64_t>((pairs() + 15) / 16, 8, 64);
    chunks = plan.chunks(B, g.grad_bias.data ? std::max(pairs_a_chunk, (pairs() + 7) / 8) : pairs_a_chunk);
    entries = g.grad_bias_table.data ? g.grad_bias_table.shape[0] : g.grad_bias.data ? plan.n * plan.n : 0;
    bias_sum.resize(H * chunks.size() * entries);
    if (g.grad_pad_token.data) padding_sum.resize(H * chunks.size() * 2 * C);
  }
};

struct BackwardMemory {
  float *tiles, *grad_tiles, *column, *q, *grad_out, *grad_q, *k, *v, *grad_k, *grad_v, *lse, *delta;
  float *kt, *vt, *grad_kt, *grad_vt, *p, *ds, *scale, *one;
  BackwardMemory(const BackwardCall& call, Arena& arena) {
    const int64_t rows = round_up(call.plan.n, 8), step = round_up(call.C, L),
                  tile = tile_memory(call, TileRows::kQueries) + 2 * L;
    tiles = arena.take(tile), grad_tiles = arena.take(call.bias_wanted ? tile : 0),
    column = arena.take(call.p.bias_table.shape[0]);
    for (float** piece : {&q, &grad_out, &grad_q, &k, &v, &grad_k, &grad_v}) *piece = arena.take(rows * step);
    lse = arena.take(rows), delta = arena.take(rows);
    for (float** piece : {&kt, &vt, &grad_kt, &grad_vt}) *piece = arena.take(step * 3 * L);
    p = arena.take(kRowChunk * 3 * L), ds = arena.take(kRowChunk * 3 * L), scale = arena.take(3 * L),
    one = arena.take(3 * L);
  }
};

// Adds the group's float tile to the chunk's double sum and clears it.
void fold_tile(const BackwardCall& call, const WindowGroup& g, float* tile, double* sum) {
  const int64_t lanes = tile_lanes(g, TileRows::kQueries);
  for (int64_t i = 0; i < g.queries; ++i) {
    float* row = tile + i * lanes;
    const int32_t position = g.position[i];
    double* to = sum + (call.g.grad_bias_table.data ? call.linear[position] + call.centre : position * call.plan.n);
    if (call.g.grad_bias_table.data)
      for (int64_t j = 0; j < g.keys(); ++j) to[-call.linear[g.position[j]]] += row[j];
    else
      for (int64_t j = 0; j < g.keys(); ++j) to[g.position[j]] += row[j];
  }
  std::fill(tile, tile + tile_rows(g, TileRows::kQueries) * lanes, 0.f);
}

template <int V>
void key_block(const BackwardCall& call, const BackwardMemory& m, const QueryRows& rows, const BiasRows& bias,
               int64_t j0, int64_t keys) {
  const int C = static_cast<int>(call.C), n = static_cast<int>(std::min<int64_t>(V * L, keys - j0));
  const Rows<const float> k{m.k, nullptr, rows.step}, v{m.v, nullptr, rows.step};
  PackTransposed(k, j0, n, V * L, C, Factor(call.p.scale * kLog2eExact), m.kt);
  PackTransposed(v, j0, n, V * L, C, Factor(1), m.vt);
  Fill(m.grad_kt, round_up(C, 4) * V * L, 0), Fill(m.grad_vt, round_up(C, 4) * V * L, 0);
  const KeyLanes lanes{m.k + j0 * rows.step, m.kt, m.vt, m.grad_kt, m.grad_vt, m.p, m.ds, n, C, C};
  for (int64_t i = 0; i < rows.rows; i += kRowChunk) {
    const BiasRows here{bias.bias + i * bias.step + j0, bias.step,
                        bias.grad ? bias.grad + i * bias.grad_step + j0 : nullptr, bias.grad_step};
    AddRows<V, false>(rows, lanes, here, i, static_cast<int>(std::min<int64_t>(kRowChunk, rows.rows - i)));
  }
  UnpackTransposed(m.grad_kt, V * L, m.scale, Rows<float>{m.grad_k, nullptr, rows.step}, j0, n, C);
  UnpackTransposed(m.grad_vt, V * L, m.one, Rows<float>{m.grad_v, nullptr, rows.step}, j0, n, C);
}

// All gradients of one group of one window and head.
void backward_group(const BackwardCall& call, const BackwardMemory& m, const WindowGroup& g, const int32_t* token,
                    int64_t b, int64_t h, const BiasRows& bias, double* padding_sum) {
  const auto& p = call.p;
  const auto& grads = call.g;
  const int64_t C = call.C, step = round_up(C, L), rows = round_up(g.queries, 8);
  const float* qkv = p.qkv.data + b * p.qkv.stride[0] + h * p.qkv.stride[5];
  const float* upstream = grads.grad_out.data + b * grads.grad_out.stride[0] + h * grads.grad_out.stride[4];
  const float* forward_out = p.out.data + b * p.out.stride[0] + h * p.out.stride[4];
  const float* forward_lse = p.lse.data + b * p.lse.stride[0] + h * p.lse.stride[1];
  for (int64_t i = 0; i < g.queries; ++i) {
    const int64_t t = token[g.position[i]];
    const float* from = qkv + call.in(t);
    CopyRow(from, C, step, m.q + i * step);
    CopyRow(from + p.qkv.stride[4], C, step, m.k + i * step);
    CopyRow(from + 2 * p.qkv.stride[4], C, step, m.v + i * step);
    CopyRow(upstream + call.grad_out(t), C, step, m.grad_out + i * step);
    m.delta[i] = Delta(m.grad_out + i * step, forward_out + call.out(t), C);
    const float lse = forward_lse[call.lse(t)];
    m.lse[i] = lse == -kInfinity ? kNoWeight : lse * kLog2e;
  }
  for (int64_t i = g.queries; i < rows; ++i) {
    Fill(m.q + i * step, step, 0), Fill(m.grad_out + i * step, step, 0);
    m.delta[i] = 0, m.lse[i] = kNoWeight;
  }
  for (int64_t j = g.queries; j < g.keys(); ++j) {
    CopyRow(&p.pad_token(1, h, 0), C, step, m.k + j * step);
    CopyRow(&p.pad_token(2, h, 0), C, step, m.v + j * step);
  }
  Fill(m.grad_q, rows * step, 0);
  const QueryRows packed{m.q, m.grad_out, m.lse, g.keys() <= 3 * L ? nullptr : m.delta, m.grad_q, rows, step, step};
  for (int64_t j = 0; j < g.keys();) {
    const int64_t left = (g.keys() - j + L - 1) / L, take = left == 1 ? 1 : left == 2 || left == 4 ? 2 : 3;
    take == 1   ? key_block<1>(call, m, packed, bias, j, g.keys())
    : take == 2 ? key_block<2>(call, m, packed, bias, j, g.keys())
                : key_block<3>(call, m, packed, bias, j, g.keys());
    j += take * L;
  }
  float* grad = grads.grad_qkv.data + b * grads.grad_qkv.stride[0] + h * grads.grad_qkv.stride[5];
  for (int64_t i = 0; i < g.queries; ++i) {
    float* to = grad + call.grad_in(token[g.position[i]]);
    CopyRow(m.grad_q + i * step, C, C, to, static_cast<float>(p.scale));
    CopyRow(m.grad_k + i * step, C, C, to + grads.grad_qkv.stride[4]);
    CopyRow(m.grad_v + i * step, C, C, to + 2 * grads.grad_qkv.stride[4]);
  }
  if (padding_sum)
    for (int64_t j = g.queries; j < g.keys(); ++j)
      for (int64_t c = 0; c < C; ++c)
        padding_sum[c] += m.grad_k[j * step + c], padding_sum[C + c] += m.grad_v[j * step + c];
}

void backward_items(BackwardCall& call, int64_t begin, int64_t end) {
  constexpr int64_t kPairsAFold = 64;  // windows summed in float before the sum goes on in double
  const FlushDenormals flush;
  const int64_t n_chunks = static_cast<int64_t>(call.chunks.size());
  Arena counter;
  BackwardMemory(call, counter);
  const auto memory = hwy::AllocateAligned<float>(counter.used());
  Arena arena(memory.get());
  const BackwardMemory m(call, arena);
  Fill(m.scale, 3 * L, static_cast<float>(call.p.scale)), Fill(m.one, 3 * L, 1);
  int64_t tile_head = -1, tile_class = -1, column_head = -1;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t h = item / n_chunks;
    const WindowChunk& chunk = call.chunks[item % n_chunks];
    const WindowClass& c = call.plan.classes[chunk.window_class];
    const bool tiled = has_tile(call, c);
    if (call.p.bias_table.data && h != column_head) copy_table_column(call, column_head = h, m.column);
    if (h != tile_head || chunk.window_class != tile_class) {
      tile_head = h, tile_class = chunk.window_class;
      float* tile = m.tiles;
      for (const WindowGroup& g : c.groups) {
        build_tile(call, c, g, TileRows::kQueries, h, m.column, -kNoWeight, tile);
        tile += tile_rows(g, TileRows::kQueries) * tile_lanes(g, TileRows::kQueries);
      }
    }
    const int64_t n_windows = static_cast<int64_t>(c.windows.size());
    int64_t at = 0;
    for (const WindowGroup& g : c.groups) {
      const int64_t lanes = tile_lanes(g, TileRows::kQueries);
      const BiasRows bias{m.tiles + at, tiled ? lanes : 0, call.bias_wanted ? m.grad_tiles + at : nullptr, lanes};
      if (bias.grad) Fill(bias.grad, tile_rows(g, TileRows::kQueries) * lanes, 0);
      for (int64_t pair = chunk.begin; pair < chunk.end; ++pair) {
        const int32_t* token = call.plan.token.data() + c.windows[pair % n_windows] * call.plan.n;
        backward_group(call, m, g, token, pair / n_windows, h, bias,
                       call.padding_sum.empty() ? nullptr : &call.padding_sum[item * 2 * call.C]);
        if (bias.grad && (pair + 1 == chunk.end || (pair - chunk.begin) % kPairsAFold == kPairsAFold - 1))
          fold_tile(call, g, bias.grad, &call.bias_sum[item * call.entries]);
      }
      at += tile_rows(g, TileRows::kQueries) * lanes;
    }
  }
}

// Adds the chunks' partial sums in chunk order and writes the gradients of bias and padding token of head h.
void reduce_head(const BackwardCall& call, int64_t h) {
  const auto& g = call.g;
  const int64_t n_chunks = static_cast<int64_t>(call.chunks.size()), n = call.plan.n, C = call.C;
  std::vector<double> sum(call.entries);
  for (int64_t chunk = 0; chunk < n_chunks; ++chunk)
    for (int64_t e = 0; e < call.entries; ++e) sum[e] += call.bias_sum[(h * n_chunks + chunk) * call.entries + e];
  for (int64_t e = 0; e < call.entries; ++e)
    (g.grad_bias_table.data ? g.grad_bias_table(e, h) : g.grad_bias(h, e / n, e % n)) = static_cast<float>(sum[e]);
  if (!g.grad_pad_token.data) return;
  for (int64_t c = 0; c < 2 * C; ++c) {
    double padding = 0;
    for (int64_t chunk = 0; chunk < n_chunks; ++chunk) padding += call.padding_sum[(h * n_chunks + chunk) * 2 * C + c];
    g.grad_pad_token(1 + c / C, h, c % C) = static_cast<float>(padding);
  }
  for (int64_t c = 0; c < C; ++c) g.grad_pad_token(0, h, c) = 0;
}

void Backward(const WindowAttentionBackwardParams<float>& g, const ParallelFor& parallel) {
  BackwardCall call(g);
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

void window_attention_forward(const WindowAttentionParams<float>& p, const ParallelFor& parallel, Isa isa) {
#if HWY_TARGETS & HWY_AVX3
  if (isa >= Isa::kAvx512) return N_AVX3::windowed::Forward(p, parallel);
#endif
#if HWY_TARGETS & HWY_AVX2
  if (isa >= Isa::kAvx2) return N_AVX2::windowed::Forward(p, parallel);
#endif
#if HWY_TARGETS & HWY_NEON
  if (isa == Isa::kNeon) return N_NEON::windowed::Forward(p, parallel);
#endif
  reference::window_attention_forward(p, parallel);
}

void window_attention_backward(const WindowAttentionBackwardParams<float>& g, const ParallelFor& parallel, Isa isa) {
#if HWY_TARGETS & HWY_AVX3
  if (isa >= Isa::kAvx512) return N_AVX3::windowed::Backward(g, parallel);
#endif
#if HWY_TARGETS & HWY_AVX2
  if (isa >= Isa::kAvx2) return N_AVX2::windowed::Backward(g, parallel);
#endif
#if HWY_TARGETS & HWY_NEON
  if (isa == Isa::kNeon) return N_NEON::windowed::Backward(g, parallel);
#endif
  reference::window_attention_backward(g, parallel);
}

// A few rows are asked for at a time: the definition is fast enough, and nothing can differ from it.
void window_attention_rows(const WindowAttentionRowsParams<float>& r, const ParallelFor& parallel) {
  reference::window_attention_rows(r, parallel);
}

}  // namespace fovea::kernels::cpu
#endif  // HWY_ONCE
