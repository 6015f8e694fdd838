// Dense attention on vectors: forward-inl.h and backward-inl.h hold the tiles, this file feeds them.
//   Forward: a block of up to 3 vectors of queries a time, keys streamed past it in chunks of 32, always with the
//   running maximum. K and V are read where they are if their rows are whole vectors of four channels, else a chunk is
//   packed. Bias is transposed chunk by chunk; masked keys become zero rows with bias -inf. Causal and local windows:
//   keys that no query of the block sees are skipped; chunks that all of them see whole run in plain tiles; the rest
//   close keys lane by lane with bias -inf in tiles that select, so NaN there goes nowhere. The same tiles cap scores
//   and drop weights. Backward: for each key head, blocks of keys in order; Q and dO of one head are packed once, dQ
//   sums over the blocks. Where few heads leave threads idle, keys are cut into segments whose dQ are added in order.
//   Memory O(B H N C) at most for those, O((N + M) C) a thread; no N x M tensor. All splits depend on the shapes alone.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fovea/kernels/cpu/attention.cpp"
#include "fovea/kernels/cpu/targets.h"

#include "hwy/foreach_target.h"

#include <algorithm>
#include <vector>

#include "fovea/kernels/attention.h"
#include "fovea/kernels/cpu/amx.h"
#include "fovea/kernels/cpu/attention_heads-inl.h"
#include "fovea/kernels/cpu/backward-inl.h"
#include "fovea/kernels/cpu/forward-inl.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace dense {

template <class T>
struct Call {
  const AttentionParams<T>& p;
  int64_t B = p.q.shape[0], H = p.q.shape[1], N = p.q.shape[2], C = p.q.shape[3];
  int64_t Hk = p.k.shape[1], M = p.k.shape[2], Cv = p.v.shape[3];
  int64_t group = Hk ? H / Hk : 1;
  int64_t blocks = (N + 3 * L - 1) / (3 * L);  // of queries

  explicit Call(const AttentionParams<T>& params) : p(params) {}
  bool key_open(int64_t b, int64_t j) const { return !p.key_mask.data || p.key_mask(b, j); }
  bool has_bias() const { return p.bias.data || p.alibi_slopes.data; }
  bool drops() const { return p.dropout.probability > 0; }
  float cap() const { return static_cast<float>(p.softcap * kLog2eExact); }  // in log2 units
  // Whether all queries [i0, i1] see all keys [j0, j1) but the masked ones.
  bool open(int64_t i0, int64_t i1, int64_t j0, int64_t j1) const {
    return p.first_key(i1) <= j0 && j1 <= p.end_key(i0);
  }
  // What ALiBi adds to the score of query i and key j, log2 units. A query whose place is before all keys counts from the
  // first one: the way to there is the same for every key, so softmax does not see it, but float32 would round it.
  float alibi(int64_t h, int64_t i, int64_t j) const {
    return -static_cast<float>(p.alibi_slopes(h) * kLog2eExact) * static_cast<float>(std::abs(std::max<int64_t>(i + (M - N), 0) - j));
  }
  // What the scores of query i lack for it, and the lse must hold.
  float alibi_before_keys(int64_t h, int64_t i) const {
    return p.alibi_slopes.data ? -static_cast<float>(p.alibi_slopes(h) * static_cast<double>(std::max<int64_t>(N - M - i, 0))) : 0;
  }
  template <class E>
  static Rows<E> rows(const View<E, 4>& v, int64_t b, int64_t h) {
    return {v.data + b * v.stride[0] + h * v.stride[1], nullptr, v.stride[2]};
  }
};

// Four rows of 32 random bits, one a key from j on: AttentionDropout::factor for L keys at a time.
HWY_INLINE void PhiloxRows(const AttentionDropout& dropout, int64_t b, int64_t h, int64_t i, int64_t j,
                           hn::Vec<hn::RebindToUnsigned<Floats>> (&c)[4]) {
  const hn::RebindToUnsigned<Floats> d;
  const hn::Repartition<uint64_t, decltype(d)> wide;
  const auto multiply = [&](auto x, uint32_t factor, auto& high, auto& low) {
    const auto even = hn::MulEven(x, hn::Set(d, factor));
    const auto odd = hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, x))), hn::Set(d, factor));
    high = hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, hn::ShiftRight<32>(even)));
    low = hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(odd)), hn::BitCast(d, even));
  };
  c[0] = hn::Iota(d, static_cast<uint32_t>(j)), c[1] = hn::Set(d, static_cast<uint32_t>(i / 4));
  c[2] = hn::Set(d, static_cast<uint32_t>(h)), c[3] = hn::Set(d, static_cast<uint32_t>(b));
  uint32_t key0 = static_cast<uint32_t>(dropout.seed), key1 = static_cast<uint32_t>(dropout.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    auto high0 = c[0], low0 = c[0], high1 = c[0], low1 = c[0];
    multiply(c[0], 0xD2511F53, high0, low0), multiply(c[2], 0xCD9E8D57, high1, low1);
    c[0] = hn::Xor(hn::Xor(high1, c[1]), hn::Set(d, key0)), c[1] = low1;
    c[2] = hn::Xor(hn::Xor(high0, c[3]), hn::Set(d, key1)), c[3] = low0;
    key0 += 0x9E3779B9, key1 += 0xBB67AE85;
  }
}

// to[r * step + u] = what dropout multiplies the weight of query i0 + r and key j0 + u with. i0 is a multiple of 4;
// rows are rounded up to 4 and keys to L, for which `to` has room.
template <class T>
void DropoutRows(const Call<T>& call, int64_t b, int64_t h, int64_t i0, int rows, int64_t j0, int n, int64_t step,
                 float* to) {
  const Floats d;
  const hn::RebindToUnsigned<Floats> du;
  const AttentionDropout& dropout = call.p.dropout;
  const auto threshold = hn::Set(du, dropout.threshold());
  const Vector kept = hn::Set(d, static_cast<float>(1 / (1 - dropout.probability)));
  for (int r = 0; r < rows; r += 4)
    for (int u = 0; u < n; u += L) {
      hn::Vec<decltype(du)> bits[4];
      PhiloxRows(dropout, b, h, i0 + r, j0 + u, bits);
      for (int q = 0; q < 4; ++q)
        hn::Store(hn::IfThenElseZero(hn::RebindMask(d, hn::Not(hn::Lt(bits[q], threshold))), kept), d, to + (r + q) * step + u);
    }
}

// ------------------------------------------------------------------------------------------------------------- forward

struct ForwardMemory {
  float *qt, *out_t, *p, *lse, *k, *v, *bias, *zeros, *keep, *keep_rows;
  template <class T>
  ForwardMemory(const Call<T>& call, Arena& arena) {
    keep = arena.take(call.drops() ? (kChunk + 16) * 3 * L : 0);
    keep_rows = arena.take(call.drops() ? kChunk * round_up(3 * L, 4) : 0);
    qt = arena.take(call.C * 3 * L), out_t = arena.take(round_up(call.Cv, 4) * 3 * L), p = arena.take(kChunk * 3 * L);
    k = arena.take(kChunk * round_up(call.C, 4)), v = arena.take(kChunk * round_up(call.Cv, 4));
    bias = arena.take((kChunk + 16) * 3 * L), zeros = arena.take(3 * L), lse = arena.take(3 * L);
  }
};

// Keys [j0, j0 + n) for the query lanes [i0, i0 + queries) of (b, h); `select`: for tiles that select.
template <int V, class T>
KeyChunk key_chunk(const Call<T>& call, const ForwardMemory& m, int64_t b, int64_t h, int64_t i0, int queries,
                   int64_t j0, int n, bool select) {
  const auto& p = call.p;
  const Rows<const T> k = call.rows(p.k, b, h / call.group), v = call.rows(p.v, b, h / call.group);
  constexpr bool kPacks = !std::is_same_v<T, float>;
  KeyChunk chunk{m.k, m.v, m.zeros, k.step, v.step, 0, n};
  if constexpr (!kPacks) chunk.k = k(j0), chunk.v = v(j0);
  const bool masked = p.key_mask.data != nullptr;
  if (kPacks || masked || call.C % 4) {
    chunk.k = m.k, chunk.k_step = round_up(call.C, 4);
    for (int j = 0; j < n; ++j)
      call.key_open(b, j0 + j) ? CopyRow(k(j0 + j), call.C, chunk.k_step, m.k + j * chunk.k_step)
                               : Fill(m.k + j * chunk.k_step, chunk.k_step, 0);
  }
  if (kPacks || masked || call.Cv % 4) {
    chunk.v = m.v, chunk.v_step = round_up(call.Cv, 4);
    for (int j = 0; j < n; ++j)
      call.key_open(b, j0 + j) ? CopyRow(v(j0 + j), call.Cv, chunk.v_step, m.v + j * chunk.v_step)
                               : Fill(m.v + j * chunk.v_step, chunk.v_step, 0);
  }
  constexpr int lanes = V * L;
  const bool cut = select && !call.open(i0, i0 + queries - 1, j0, j0 + n);
  if (call.has_bias() || masked || cut) {
    chunk.bias_t = m.bias, chunk.bias_step = lanes;
    if (!p.bias.data) {
      Fill(m.bias, n * lanes, 0);
    } else {
      const auto [sb, sh, si, sj] = p.bias.stride;
      const float* from = p.bias.data + b * sb + h * sh + i0 * si + j0 * sj;
      if (sj == 1) {
        PackTransposed(Rows<const float>{from, nullptr, si}, 0, queries, lanes, n, Factor(kLog2e), m.bias);
      } else {
        for (int j = 0; j < n; ++j)
          for (int u = 0; u < lanes; ++u) m.bias[j * lanes + u] = u < queries ? from[u * si + j * sj] * kLog2e : 0;
      }
    }
    if (p.alibi_slopes.data)
      for (int j = 0; j < n; ++j)
        for (int u = 0; u < lanes; ++u) m.bias[j * lanes + u] += call.alibi(h, i0 + u, j0 + j);
    if (masked)
      for (int j = 0; j < n; ++j)
        if (!call.key_open(b, j0 + j)) Fill(m.bias + j * lanes, lanes, -kInfinity);
    for (int u = 0; cut && u < queries; ++u) {
      const int first = static_cast<int>(std::clamp<int64_t>(p.first_key(i0 + u) - j0, 0, n));
      const int end = static_cast<int>(std::clamp<int64_t>(p.end_key(i0 + u) - j0, 0, n));
      for (int j = 0; j < first; ++j) m.bias[j * lanes + u] = -kInfinity;
      for (int j = end; j < n; ++j) m.bias[j * lanes + u] = -kInfinity;
    }
  }
  if (select) chunk.cap = call.cap();
  if (call.drops()) {
    DropoutRows(call, b, h, i0, queries, j0, n, kChunk, m.keep_rows);
    PackTransposed(Rows<const float>{m.keep_rows, nullptr, kChunk}, 0, queries, lanes, n, Factor(1), m.keep);
    chunk.keep = m.keep;
  }
  return chunk;
}

template <int V, class T>
void query_block(const Call<T>& call, const ForwardMemory& m, int64_t b, int64_t h, int64_t i0, int queries) {
  const auto& p = call.p;
  PackTransposed(call.rows(p.q, b, h), i0, queries, V * L, call.C, Factor(p.scale * kLog2eExact), m.qt);
  BlockState<V> s(m.qt, static_cast<int>(call.C), static_cast<int>(call.Cv), m.out_t, m.p);
  const int64_t last = i0 + queries - 1, end = p.end_key(last);
  for (int64_t j = p.first_key(i0); j < end; j += kChunk) {
    const int n = static_cast<int>(std::min<int64_t>(kChunk, end - j));
    const bool select = p.softcap > 0 || call.drops() || !call.open(i0, last, j, j + n);
    const KeyChunk chunk = key_chunk<V>(call, m, b, h, i0, queries, j, n, select);
    select ? AddKeys<V, true, true>(s, chunk) : AddKeys<V, true, false>(s, chunk);
  }
  EndBlock(s, true, call.rows(p.out, b, h), i0, queries, m.lse);
  if (p.lse.data)
    for (int u = 0; u < queries; ++u) p.lse(b, h, i0 + u) = m.lse[u] + call.alibi_before_keys(h, i0 + u);
}

template <class T>
void forward_items(const Call<T>& call, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  const auto memory = arena_memory([&](Arena& arena) { ForwardMemory(call, arena); });
  Arena arena(memory.get());
  const ForwardMemory m(call, arena);
  Fill(m.zeros, 3 * L, 0);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / call.blocks / call.H, h = item / call.blocks % call.H, i0 = item % call.blocks * 3 * L;
    const int queries = static_cast<int>(std::min<int64_t>(3 * L, call.N - i0));
    const int vectors = (queries + L - 1) / L;
    vectors == 1   ? query_block<1>(call, m, b, h, i0, queries)
    : vectors == 2 ? query_block<2>(call, m, b, h, i0, queries)
                   : query_block<3>(call, m, b, h, i0, queries);
  }
}

template <class T>
void Forward(const AttentionParams<T>& p, const ParallelFor& parallel) {
  if (p.k.shape[1] > 0 && heads::forward_fits(p)) return heads::Forward(p, parallel);
  const Call<T> call(p);
  parallel(call.B * call.H * call.blocks, 1, [&call](int64_t begin, int64_t end) { forward_items(call, begin, end); });
}

// ------------------------------------------------------------------------------------------------------------ backward

template <class T>
struct BackwardCall : Call<T> {
  using Call<T>::B, Call<T>::H, Call<T>::Hk, Call<T>::N, Call<T>::M, Call<T>::C;
  const AttentionBackwardParams<T>& g;
  bool sums_batch = false, sums_heads = false, sums_queries = false, sums_keys = false;  // broadcast axes of grad_bias
  int64_t segments = 1, segment_keys;  // keys are cut into segments of whole blocks
  std::vector<float> partial_q;        // [segments][B][H][N][C] if there are several

  explicit BackwardCall(const AttentionBackwardParams<T>& params) : Call<T>(params.forward), g(params) {
    if (g.grad_bias.data) {
      const auto& stride = g.grad_bias.stride;
      sums_batch = B > 1 && !stride[0], sums_heads = H > 1 && !stride[1], sums_queries = N > 1 && !stride[2],
      sums_keys = M > 1 && !stride[3];
    }
    // Work items are (batch, key head, segment), except that axes which share a bias gradient stay in one item.
    const int64_t items = std::max<int64_t>(1, (sums_batch ? 1 : B) * (sums_heads ? 1 : Hk));
    constexpr int64_t kItemsWanted = 8, kShortestSegment = 768;
    if (!sums_keys)
      segments = std::clamp<int64_t>((kItemsWanted + items - 1) / items, 1, std::max<int64_t>(1, M / kShortestSegment));
    segment_keys = round_up((M + segments - 1) / segments, 3 * L);
    if (segments > 1) partial_q.resize(segments * B * H * N * C);
  }
  float* partial(int64_t segment, int64_t b, int64_t h) {
    return partial_q.data() + ((segment * B + b) * H + h) * N * C;
  }
};

struct BackwardMemory {
  float *q, *grad_out, *grad_q, *lse, *delta, *k, *kt, *vt, *grad_kt, *grad_vt, *p, *ds, *bias, *scale, *one;
  float* open_bias;                     // the row of all query rows if there is no bias by row
  float *keep, *cap_slope, *grad_bias;  // [kRowChunk][lanes], where dropout or a soft cap (with bias) needs them
  float *grad_k, *grad_v;    // of the segment's keys, summed over the heads of a group
  float *block_k, *block_v;  // of one block of keys
  template <class T>
  BackwardMemory(const BackwardCall<T>& call, Arena& arena) {
    const int64_t rows = round_up(call.N, 8), step = round_up(call.C, L), v_step = round_up(call.Cv, 4), lanes = 3 * L;
    q = arena.take(rows * step), grad_q = arena.take(rows * step), grad_out = arena.take(rows * v_step);
    lse = arena.take(rows), delta = arena.take(rows), k = arena.take(lanes * step);
    kt = arena.take(step * lanes), vt = arena.take(v_step * lanes), grad_kt = arena.take(step * lanes),
    grad_vt = arena.take(v_step * lanes);
    p = arena.take(kRowChunk * lanes), ds = arena.take(kRowChunk * lanes), bias = arena.take((kRowChunk + 8) * lanes);
    scale = arena.take(lanes), one = arena.take(lanes), open_bias = arena.take(lanes);
    const int64_t tile = (kRowChunk + 8) * lanes;
    keep = arena.take(call.drops() ? tile : 0), cap_slope = arena.take(call.p.softcap > 0 ? tile : 0);
    grad_bias = arena.take(call.p.softcap > 0 && call.g.grad_bias.data ? tile : 0);
    const int64_t keys = std::min(call.segment_keys, call.M);
    grad_k = arena.take(keys * call.C), grad_v = arena.take(keys * call.Cv);
    block_k = arena.take(lanes * call.C), block_v = arena.take(lanes * call.Cv);
  }
};

// Bias of rows [i, i + rows) against the block's keys, log2 units; lanes without a key that takes part get -1e30, of
// `cut` tiles those that the row does not see, too.
template <class T>
void fill_bias(const BackwardCall<T>& call, float* tile, int64_t b, int64_t h, int64_t i, int rows, int64_t j0, int n,
               int lanes, bool cut) {
  const auto& p = call.p;
  for (int r = 0; r < rows; ++r) {
    float* to = tile + r * lanes;
    if (p.bias.data && i + r < call.N) {
      const int64_t step = p.bias.stride[3];
      const float* from =
          p.bias.data + b * p.bias.stride[0] + h * p.bias.stride[1] + (i + r) * p.bias.stride[2] + j0 * step;
      if (step == 1)
        for (int u = 0; u < n; ++u) to[u] = from[u] * kLog2e;
      else
        for (int u = 0; u < n; ++u) to[u] = from[u * step] * kLog2e;
    } else {
      Fill(to, n, 0);
    }
    for (int u = 0; u < n && p.alibi_slopes.data; ++u) to[u] += call.alibi(h, i + r, j0 + u);
    for (int u = 0; u < n && p.key_mask.data; ++u)
      if (!call.key_open(b, j0 + u)) to[u] = -kNoWeight;
    int first = 0, end = n;
    if (cut) {
      first = static_cast<int>(std::clamp<int64_t>(p.first_key(i + r) - j0, 0, n));
      end = static_cast<int>(std::clamp<int64_t>(p.end_key(i + r) - j0, 0, n));
    }
    Fill(to, first, -kNoWeight), Fill(to + end, lanes - end, -kNoWeight);
  }
}

// Adds dS of a tile to grad_bias; broadcast axes are summed within the tile first.
template <class T>
void add_bias_gradient(const BackwardCall<T>& call, const float* ds, int64_t b, int64_t h, int64_t i, int rows,
                       int64_t j0, int n, int lanes) {
  const auto& grad = call.g.grad_bias;
  rows = static_cast<int>(std::min<int64_t>(rows, call.N - i));
  float* base = grad.data + b * grad.stride[0] + h * grad.stride[1] + i * grad.stride[2] + j0 * grad.stride[3];
  if (call.sums_queries) {
    double whole = 0;
    for (int u = 0; u < n; ++u) {
      double sum = 0;
      for (int r = 0; r < rows; ++r) sum += ds[r * lanes + u];
      if (call.sums_keys)
        whole += sum;
      else
        base[u * grad.stride[3]] += static_cast<float>(sum);
    }
    if (call.sums_keys) *base += static_cast<float>(whole);
    return;
  }
  for (int r = 0; r < rows; ++r) {
    float* to = base + r * grad.stride[2];
    if (call.sums_keys) {
      double sum = 0;
      for (int u = 0; u < n; ++u) sum += ds[r * lanes + u];
      *to += static_cast<float>(sum);
    } else if (grad.stride[3] == 1) {
      for (int u = 0; u < n; ++u) to[u] += ds[r * lanes + u];
    } else {
      for (int u = 0; u < n; ++u) to[u * grad.stride[3]] += ds[r * lanes + u];
    }
  }
}

// Adds the gradients of keys [j0, j0 + n) to grad_k and grad_v, rows of C and Cv floats.
template <int V, class T>
void key_block(const BackwardCall<T>& call, const BackwardMemory& m, const QueryRows& rows, int64_t b, int64_t h,
               int64_t j0, int n, float* grad_k, float* grad_v) {
  const auto& p = call.p;
  constexpr int lanes = V * L;
  const int C = static_cast<int>(call.C), Cv = static_cast<int>(call.Cv);
  const Rows<const T> k = call.rows(p.k, b, h / call.group), v = call.rows(p.v, b, h / call.group);
  // Masked keys become zero rows.
  for (int j = 0; j < n; ++j)
    call.key_open(b, j0 + j) ? CopyRow(k(j0 + j), C, rows.step, m.k + j * rows.step)
                             : Fill(m.k + j * rows.step, rows.step, 0);
  PackTransposed(Rows<const float>{m.k, nullptr, rows.step}, 0, n, lanes, C, Factor(p.scale * kLog2eExact), m.kt);
  PackTransposed(v, j0, n, lanes, Cv, Factor(1), m.vt);
  if (p.key_mask.data)
    for (int j = 0; j < n; ++j)
      if (!call.key_open(b, j0 + j))
        for (int c = 0; c < Cv; ++c) m.vt[c * lanes + j] = 0;
  Fill(m.grad_kt, round_up(C, 4) * lanes, 0), Fill(m.grad_vt, round_up(Cv, 4) * lanes, 0);
  const bool drops = call.drops(), caps = p.softcap > 0;
  const KeyLanes keys{m.k, m.kt, m.vt, m.grad_kt, m.grad_vt, m.p, m.ds, n, C, Cv,
                      call.cap(), m.cap_slope, drops ? m.keep : nullptr};
  if (!call.has_bias()) fill_bias(call, m.open_bias, b, h, 0, 1, j0, n, lanes, /*cut=*/false);
  for (int64_t i = 0; i < rows.rows; i += kRowChunk) {
    const int taken = static_cast<int>(std::min<int64_t>(kRowChunk, rows.rows - i));
    if (p.end_key(i + taken - 1) <= j0 || p.first_key(i) >= j0 + n) continue;
    const bool cut = !call.open(i, i + taken - 1, j0, j0 + n), by_row = call.has_bias() || cut;
    if (by_row) fill_bias(call, m.bias, b, h, i, taken, j0, n, lanes, cut);
    if (drops) DropoutRows(call, b, h, i, taken, j0, n, lanes, m.keep);
    BiasRows bias{by_row ? m.bias : m.open_bias, by_row ? lanes : 0, nullptr, 0};
    const bool grad_bias = call.g.grad_bias.data != nullptr;
    if (caps && grad_bias) {  // ds then holds the gradient before the cap, which the bias does not go through
      Fill(m.grad_bias, taken * lanes, 0);
      bias.grad = m.grad_bias, bias.grad_step = lanes;
    }
    caps || drops || cut ? AddRows<V, true>(rows, keys, bias, i, taken) : AddRows<V, false>(rows, keys, bias, i, taken);
    if (grad_bias) add_bias_gradient(call, caps ? m.grad_bias : m.ds, b, h, i, taken, j0, n, lanes);
  }
  UnpackTransposed(m.grad_kt, lanes, m.scale, Rows<float>{m.block_k, nullptr, C}, 0, n, C);
  UnpackTransposed(m.grad_vt, lanes, m.one, Rows<float>{m.block_v, nullptr, Cv}, 0, n, Cv);
  for (int64_t e = 0; e < int64_t{n} * C; ++e) grad_k[e] += m.block_k[e];
  for (int64_t e = 0; e < int64_t{n} * Cv; ++e) grad_v[e] += m.block_v[e];
}

// dK, dV of one segment of keys of (b, hk), and its share of dQ of all heads of the group.
template <class T>
void backward_segment(BackwardCall<T>& call, const BackwardMemory& m, int64_t b, int64_t hk, int64_t segment) {
  const auto& p = call.p;
  const auto& g = call.g;
  const int64_t step = round_up(call.C, L), v_step = round_up(call.Cv, 4), n_rows = round_up(call.N, 8), C = call.C,
                Cv = call.Cv;
  const int64_t begin = std::min(call.M, segment * call.segment_keys),
                end = std::min(call.M, begin + call.segment_keys);
  Fill(m.grad_k, (end - begin) * C, 0), Fill(m.grad_v, (end - begin) * Cv, 0);
  for (int64_t h = hk * call.group; h < (hk + 1) * call.group; ++h) {
    const Rows<const T> q = call.rows(p.q, b, h), upstream = call.rows(g.grad_out, b, h);
    const Rows<T> out = call.rows(p.out, b, h);
    bool far = false;
    for (int64_t i = 0; i < n_rows; ++i) {
      if (i < call.N) {
        CopyRow(q(i), C, step, m.q + i * step);
        CopyRow(upstream(i), Cv, v_step, m.grad_out + i * v_step);
        m.delta[i] = Delta(m.grad_out + i * v_step, out(i), Cv);
        m.lse[i] = PackedLse(p.lse(b, h, i) - call.alibi_before_keys(h, i), far);
      } else {
        Fill(m.q + i * step, step, 0), Fill(m.grad_out + i * v_step, v_step, 0);
        m.delta[i] = 0, m.lse[i] = kNoWeight;
      }
    }
    Fill(m.grad_q, n_rows * step, 0);
    const QueryRows rows{m.q, m.grad_out, m.lse, call.M <= 3 * L ? nullptr : m.delta, m.grad_q, n_rows, step, v_step, far};
    for (int64_t j = begin; j < end;) {
      const int64_t vectors = std::min<int64_t>(3, (end - j + L - 1) / L);
      const int n = static_cast<int>(std::min(vectors * L, end - j));
      float *to_k = m.grad_k + (j - begin) * C, *to_v = m.grad_v + (j - begin) * Cv;
      vectors == 1   ? key_block<1>(call, m, rows, b, h, j, n, to_k, to_v)
      : vectors == 2 ? key_block<2>(call, m, rows, b, h, j, n, to_k, to_v)
                     : key_block<3>(call, m, rows, b, h, j, n, to_k, to_v);
      j += n;
    }
    const float scale = static_cast<float>(p.scale);
    for (int64_t i = 0; i < call.N; ++i)
      if (call.segments > 1)
        CopyRow(m.grad_q + i * step, C, C, call.partial(segment, b, h) + i * C, scale);
      else
        CopyRow(m.grad_q + i * step, C, C, call.rows(g.grad_q, b, h)(i), scale);
  }
  const Rows<T> grad_k = call.rows(g.grad_k, b, hk), grad_v = call.rows(g.grad_v, b, hk);
  for (int64_t j = begin; j < end; ++j) {
    float *from_k = m.grad_k + (j - begin) * C, *from_v = m.grad_v + (j - begin) * Cv;
    if (!call.key_open(b, j)) Fill(from_k, C, 0), Fill(from_v, Cv, 0);
    CopyRow(from_k, C, C, grad_k(j)), CopyRow(from_v, Cv, Cv, grad_v(j));
  }
}

template <class T>
void backward_items(BackwardCall<T>& call, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  const auto memory = arena_memory([&](Arena& arena) { BackwardMemory(call, arena); });
  Arena arena(memory.get());
  const BackwardMemory m(call, arena);
  Fill(m.scale, 3 * L, static_cast<float>(call.p.scale)), Fill(m.one, 3 * L, 1);
  const int64_t heads = call.sums_heads ? 1 : call.Hk;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t segment = item % call.segments, hk = item / call.segments % heads, b = item / call.segments / heads;
    for (int64_t bb = call.sums_batch ? 0 : b; bb < (call.sums_batch ? call.B : b + 1); ++bb)
      for (int64_t kk = call.sums_heads ? 0 : hk; kk < (call.sums_heads ? call.Hk : hk + 1); ++kk)
        backward_segment(call, m, bb, kk, segment);
  }
}

template <class T>
void Backward(const AttentionBackwardParams<T>& g, const ParallelFor& parallel) {
  if (g.forward.k.shape[1] > 0 && heads::backward_fits(g)) return heads::Backward(g, parallel);
  BackwardCall<T> call(g);
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
  const int64_t items = (call.sums_batch ? 1 : call.B) * (call.sums_heads ? 1 : call.Hk) * call.segments;
  parallel(items, 1, [&call](int64_t begin, int64_t end) { backward_items(call, begin, end); });
  // dQ = sum over segments, in order.
  if (call.segments > 1)
    parallel(call.B * call.H, 1, [&call](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t b = item / call.H, h = item % call.H, size = call.N * call.C;
        float* sum = call.partial(0, b, h);
        for (int64_t s = 1; s < call.segments; ++s)
          for (int64_t e = 0; e < size; ++e) sum[e] += call.partial(s, b, h)[e];
        const int C = static_cast<int>(call.C);
        for (int64_t i = 0; i < call.N; ++i) CopyRow(sum + i * C, C, C, call.rows(call.g.grad_q, b, h)(i));
      }
    });
}

}  // namespace dense
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS

#if HWY_ONCE
namespace fovea::kernels::cpu {

template <class T>
void attention_forward(const AttentionParams<T>& p, const ParallelFor& parallel, Isa isa) {
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, BFloat16>)
    if (isa >= Isa::kAmx && amx::serves(p) && amx::available(amx::TileUnit::kHardware))
      return amx::attention_forward(p, parallel, amx::TileUnit::kHardware);
#endif
  FOVEA_RETURN_BEST(isa, dense::Forward, p, parallel)
  reference::attention_forward(p, parallel);
}

template <class T>
void attention_backward(const AttentionBackwardParams<T>& g, const ParallelFor& parallel, Isa isa) {
#if defined(__x86_64__)
  if constexpr (std::is_same_v<T, BFloat16>)
    if (isa >= Isa::kAmx && amx::serves(g.forward) && amx::available(amx::TileUnit::kHardware))
      return amx::attention_backward(g, parallel, amx::TileUnit::kHardware);
#endif
  FOVEA_RETURN_BEST(isa, dense::Backward, g, parallel)
  reference::attention_backward(g, parallel);
}

template void attention_forward(const AttentionParams<float>&, const ParallelFor&, Isa);
template void attention_forward(const AttentionParams<BFloat16>&, const ParallelFor&, Isa);
template void attention_backward(const AttentionBackwardParams<float>&, const ParallelFor&, Isa);
template void attention_backward(const AttentionBackwardParams<BFloat16>&, const ParallelFor&, Isa);

// A few rows are asked for at a time: the definition is fast enough, and nothing can differ from it.
void attention_rows(const AttentionRowsParams<float>& r, const ParallelFor& parallel) {
  reference::attention_rows(r, parallel);
}

}  // namespace fovea::kernels::cpu
#endif  // HWY_ONCE
