// Dense attention of many short sequences: each (batch, head) is one piece of work of head-inl.h.
//   Heads vary slowest, so that where the batch shares a bias its tile is transposed once a head and thread and stays
//   in L2. A bias gradient that is shared by the batch sums in float over a chunk of batches, chunks are added in
//   double in their order; chunks depend on the shapes alone, hence the same bits for any number of threads. Memory
//   beside the tensors: the bias tile a thread, one bias a chunk for its gradient, O((N + M) C) a thread.
#if defined(FOVEA_KERNELS_ATTENTION_HEADS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOVEA_KERNELS_ATTENTION_HEADS_INL_H_
#undef FOVEA_KERNELS_ATTENTION_HEADS_INL_H_
#else
#define FOVEA_KERNELS_ATTENTION_HEADS_INL_H_
#endif

#include <vector>

#include "fovea/kernels/attention.h"
#include "fovea/kernels/cpu/head-inl.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace heads {

template <class T>
struct Call {
  const AttentionParams<T>& p;
  int64_t B = p.q.shape[0], H = p.q.shape[1], N = p.q.shape[2], C = p.q.shape[3], M = p.k.shape[2], Cv = p.v.shape[3];
  int64_t group = H / p.k.shape[1];

  explicit Call(const AttentionParams<T>& params) : p(params) {}

  bool shared_bias() const { return !p.bias.data || B == 1 || p.bias.stride[0] == 0; }
  template <class E>
  static Rows<E> rows(const View<E, 4>& v, int64_t b, int64_t h) {
    return {v.data + b * v.stride[0] + h * v.stride[1], nullptr, v.stride[2]};
  }
  HeadRows<T> head_rows(int64_t b, int64_t h) const {
    return {rows(p.q, b, h), rows(p.k, b, h / group), rows(p.v, b, h / group), N,      M, M, nullptr,
            nullptr,         static_cast<int>(C),     static_cast<int>(Cv),    p.scale};
  }
};

// Whether the call is one of many short sequences whose heads are best taken whole.
template <class T>
bool forward_fits(const AttentionParams<T>& p) {
  constexpr int64_t kMostRows = 1 << 16, kMostBias = 1 << 20, kFewestHeads = 8;  // floats of K and V, of bias
  const Call<T> call(p);
  return p.sees_all_keys() && p.plain() && !p.key_mask.data && call.B * call.H >= kFewestHeads && call.M > 0 &&
         call.M * (call.C + call.Cv) <= kMostRows && (!p.bias.data || call.N * call.M <= kMostBias);
}

// The bias of one (batch, head) in log2 units with padded lanes, kept while the same one is asked for.
template <class T>
class BiasOfHead {
 public:
  enum class Lanes { kQueries, kKeys };
  BiasOfHead(const Call<T>& call, Arena& arena, Lanes lanes)
      : call_(call), lanes_(lanes), width_(round_up(lanes == Lanes::kQueries ? call.N : call.M, L)) {
    const int64_t rows = !call.p.bias.data ? 1 : lanes == Lanes::kQueries ? call.M : round_up(call.N, 8);
    tile_ = arena.take(rows * width_ + 2 * L);
  }
  int64_t step() const { return call_.p.bias.data ? width_ : 0; }
  const float* tile() const { return tile_; }
  float bound() const { return bound_; }

  void Prepare(int64_t b, int64_t h) {
    const auto& bias = call_.p.bias;
    if (call_.shared_bias()) b = 0;
    if (b == b_ && h == h_) return;
    const bool first = h_ < 0;
    b_ = b, h_ = h;
    if (!bias.data) {
      if (first) FillRow(tile_, nullptr, 0);
      return;
    }
    const auto [sb, sh, si, sj] = bias.stride;
    const float* from = bias.data + b * sb + h * sh;
    if (lanes_ == Lanes::kKeys) {
      for (int64_t i = 0; i < call_.N; ++i) FillRow(tile_ + i * width_, from + i * si, sj);
      for (int64_t i = call_.N; i < round_up(call_.N, 8); ++i) Fill(tile_ + i * width_, width_, -kNoWeight);
      return;
    }
    if (sj == 1)
      PackTransposed(Rows<const float>{from, nullptr, si}, 0, static_cast<int>(call_.N), static_cast<int>(width_),
                     static_cast<int>(call_.M), Factor(kLog2e), tile_);
    else
      for (int64_t j = 0; j < call_.M; ++j) FillRow(tile_ + j * width_, from + j * sj, si);
    const Floats d;
    Vector largest = hn::Zero(d);
    for (int64_t u = 0; u < call_.M * width_; u += L) largest = hn::Max(largest, hn::Abs(hn::Load(d, tile_ + u)));
    bound_ = hn::GetLane(hn::MaxOfLanes(d, largest));
  }

 private:
  // Lanes of one row; without bias zeros. Lanes behind the last key get no weight.
  void FillRow(float* row, const float* from, int64_t stride) const {
    const int64_t n = lanes_ == Lanes::kQueries ? call_.N : call_.M;
    for (int64_t u = 0; u < n; ++u) row[u] = from ? from[u * stride] * kLog2e : 0;
    Fill(row + n, width_ - n, lanes_ == Lanes::kQueries ? 0 : -kNoWeight);
  }

  const Call<T>& call_;
  Lanes lanes_;
  int64_t width_, b_ = -1, h_ = -1;
  float* tile_;
  float bound_ = 0;
};

// ------------------------------------------------------------------------------------------------------------- forward

template <class T>
struct ForwardMemory {
  BiasOfHead<T> bias;
  ForwardScratch head;
  ForwardMemory(const Call<T>& call, Arena& arena)
      : bias(call, arena, BiasOfHead<T>::Lanes::kQueries), head(arena, call.N, call.M, call.C, call.Cv) {}
};

template <class T>
void forward_items(const Call<T>& call, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  const auto& p = call.p;
  const auto memory = arena_memory([&](Arena& arena) { ForwardMemory<T>(call, arena); });
  Arena arena(memory.get());
  ForwardMemory<T> m(call, arena);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t h = item / call.B, b = item % call.B;
    NextRows next;
    if (item + 1 < end) {
      const int64_t h1 = (item + 1) / call.B, b1 = (item + 1) % call.B;
      const HeadRows<T> r = call.head_rows(b1, h1);
      next.Add(r.q, call.N, call.C), next.Add(r.k, call.M, call.C), next.Add(r.v, call.M, call.Cv);
      next.Add(call.rows(p.out, b1, h1), call.N, call.Cv);
    }
    m.bias.Prepare(b, h);
    ForwardHead(m.head, call.head_rows(b, h), BiasTile{m.bias.tile(), m.bias.step(), m.bias.bound()},
                call.rows(p.out, b, h), &next);
    if (p.lse.data)
      for (int64_t i = 0; i < call.N; ++i) p.lse(b, h, i) = m.head.lse[i];
  }
}

template <class T>
void Forward(const AttentionParams<T>& p, const ParallelFor& parallel) {
  const Call<T> call(p);
  parallel(call.B * call.H, 1, [&call](int64_t begin, int64_t end) { forward_items(call, begin, end); });
}

// ------------------------------------------------------------------------------------------------------------ backward

// Whether the gradients can be taken head by head: the bias gradient may be shared by the batch, not by anything else.
template <class T>
bool backward_fits(const AttentionBackwardParams<T>& g) {
  const Call<T> call(g.forward);
  const auto& stride = g.grad_bias.stride;
  const bool own_bias =
      !g.grad_bias.data || ((stride[1] || call.H == 1) && (stride[2] || call.N == 1) && (stride[3] || call.M == 1));
  return forward_fits(g.forward) && call.group == 1 && own_bias;
}

template <class T>
struct BackwardCall : Call<T> {
  const AttentionBackwardParams<T>& g;
  int64_t batches;      // of an item
  int64_t chunks;       // of the batch
  int64_t rows, lanes;  // of a tile of the bias gradient
  // Each item's tile of the bias gradient, if the batch shares it: [H][chunks][rows][lanes].
  AlignedMemory<float> shares;

  explicit BackwardCall(const AttentionBackwardParams<T>& params)
      : Call<T>(params.forward), g(params), rows(round_up(this->N, 8)), lanes(round_up(this->M, L)) {
    constexpr int64_t kItems = 8, kMostBatches = 64;  // enough to share out; float sums of few enough terms
    const bool sums = g.grad_bias.data && this->B > 1 && g.grad_bias.stride[0] == 0;
    const int64_t wanted = std::max((kItems + this->H - 1) / this->H, (this->B + kMostBatches - 1) / kMostBatches);
    batches = sums ? (this->B + wanted - 1) / wanted : 1;
    chunks = (this->B + batches - 1) / batches;
    if (sums) shares = aligned_memory<float>(this->H * chunks * rows * lanes);
  }
  float* share(int64_t item) const { return shares.get() + item * rows * lanes; }
};

template <class T>
struct BackwardMemory {
  BiasOfHead<T> bias;
  BackwardScratch head;
  float* grad_bias;
  BackwardMemory(const BackwardCall<T>& call, Arena& arena)
      : bias(call, arena, BiasOfHead<T>::Lanes::kKeys),
        head(arena, call.N, call.M, call.C, call.Cv),
        grad_bias(arena.take(call.g.grad_bias.data && !call.shares ? call.rows * call.lanes : 0)) {}
};

template <class T>
void backward_head(const BackwardCall<T>& call, BackwardMemory<T>& m, int64_t b, int64_t h, float* grad_bias,
                   NextRows* next) {
  const auto& g = call.g;
  const auto& lse = g.forward.lse;
  m.bias.Prepare(b, h);
  const Upstream<T> up{Call<T>::rows(g.grad_out, b, h),
                       Call<T>::rows(View<const T, 4>(g.forward.out), b, h),
                       {lse.data + b * lse.stride[0] + h * lse.stride[1], nullptr, lse.stride[2]}};
  BackwardHead(m.head, call.head_rows(b, h), up, BiasRows{m.bias.tile(), m.bias.step(), grad_bias, call.lanes}, next);
  const int64_t step = round_up(call.C, L), v_step = round_up(call.Cv, L);
  const int C = static_cast<int>(call.C), Cv = static_cast<int>(call.Cv);
  const Rows<T> to_q = Call<T>::rows(g.grad_q, b, h), to_k = Call<T>::rows(g.grad_k, b, h),
                to_v = Call<T>::rows(g.grad_v, b, h);
  for (int64_t i = 0; i < call.N; ++i)
    CopyRow(m.head.grad_q + i * step, C, C, to_q(i), static_cast<float>(g.forward.scale));
  for (int64_t j = 0; j < call.M; ++j) {
    CopyRow(m.head.grad_k + j * step, C, C, to_k(j));
    CopyRow(m.head.grad_v + j * v_step, Cv, Cv, to_v(j));
  }
}

inline void copy_bias_row(const float* from, int64_t n, float* to, int64_t stride) {
  if (stride == 1)
    std::copy(from, from + n, to);
  else
    for (int64_t j = 0; j < n; ++j) to[j * stride] = from[j];
}

template <class T>
void backward_items(const BackwardCall<T>& call, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  const auto& g = call.g;
  const auto memory = arena_memory([&](Arena& arena) { BackwardMemory<T>(call, arena); });
  Arena arena(memory.get());
  BackwardMemory<T> m(call, arena);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t h = item / call.chunks, first = item % call.chunks * call.batches;
    const int64_t last = std::min(first + call.batches, call.B);
    float* grad_bias = !g.grad_bias.data ? nullptr : call.shares ? call.share(item) : m.grad_bias;
    if (grad_bias) Fill(grad_bias, call.rows * call.lanes, 0);
    for (int64_t b = first; b < last; ++b) {
      NextRows next;
      if (b + 1 < last) {
        const HeadRows<T> r = call.head_rows(b + 1, h);
        next.Add(r.q, call.N, call.C), next.Add(r.k, call.M, call.C), next.Add(r.v, call.M, call.Cv);
        next.Add(Call<T>::rows(g.grad_out, b + 1, h), call.N, call.Cv);
        next.Add(Call<T>::rows(g.forward.out, b + 1, h), call.N, call.Cv);
        next.Add(Call<T>::rows(g.grad_q, b + 1, h), call.N, call.C);
        next.Add(Call<T>::rows(g.grad_k, b + 1, h), call.M, call.C);
        next.Add(Call<T>::rows(g.grad_v, b + 1, h), call.M, call.Cv);
      }
      backward_head(call, m, b, h, grad_bias, &next);
    }
    if (grad_bias && !call.shares)
      for (int64_t i = 0; i < call.N; ++i)
        copy_bias_row(grad_bias + i * call.lanes, call.M, &g.grad_bias(first, h, i, 0), g.grad_bias.stride[3]);
  }
}

// Adds the chunks' shares of the bias gradient of head h in order.
template <class T>
void reduce_head(const BackwardCall<T>& call, int64_t h) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> narrow;
  const auto& grad = call.g.grad_bias;
  for (int64_t i = 0; i < call.N; ++i) {
    float* row = call.share(h * call.chunks) + i * call.lanes;
    for (int64_t u = 0; u < call.lanes; u += L / 2) {
      auto sum = hn::PromoteTo(d, hn::LoadU(narrow, row + u));
      for (int64_t chunk = 1; chunk < call.chunks; ++chunk)
        sum = hn::Add(sum, hn::PromoteTo(d, hn::LoadU(narrow, row + chunk * call.rows * call.lanes + u)));
      hn::StoreU(hn::DemoteTo(narrow, sum), narrow, row + u);
    }
    copy_bias_row(row, call.M, &grad(0, h, i, 0), grad.stride[3]);
  }
}

template <class T>
void Backward(const AttentionBackwardParams<T>& g, const ParallelFor& parallel) {
  const BackwardCall<T> call(g);
  parallel(call.H * call.chunks, 1, [&call](int64_t begin, int64_t end) { backward_items(call, begin, end); });
  if (call.shares)
    parallel(call.H, 1, [&call](int64_t begin, int64_t end) {
      for (int64_t h = begin; h < end; ++h) reduce_head(call, h);
    });
}

}  // namespace heads
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS
#endif  // toggle
