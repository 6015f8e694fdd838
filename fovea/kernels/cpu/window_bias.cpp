#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fovea/kernels/cpu/window_bias.cpp"
#include "fovea/kernels/cpu/targets.h"

#include "hwy/foreach_target.h"

#include "fovea/kernels/cpu/window_bias.h"

#include <algorithm>

#include "fovea/kernels/cpu/vector-inl.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace window_bias {

// Bias of all (query, key) of the group in log2 units, `beyond` in the padding. `column` is that of head h in
// bias_table, times log2(e). Returns the largest |score| that bias and mask can add.
template <class T>
float BuildTile(const WindowCall<T>& call, const WindowClass& c, const WindowGroup& g, const TileLayout& layout,
                int64_t h, const float* column, float beyond, float* tile) {
  const Floats d;
  const hn::RebindToSigned<Floats> di;
  const auto& p = call.p;
  const int64_t step = layout.step(g), n_rows = layout.rows_of(g), n_lanes = layout.lanes_of(g);
  const int32_t* position = g.position.data();
  if (!call.has_tile(c)) {
    for (int64_t u = 0; u < step; ++u) tile[u] = u < n_lanes ? 0 : beyond;
    return 0;
  }
  const int sign = layout.lanes_are_queries() ? -1 : 1;  // of (row position - lane position) within the displacement
  const float mask = p.mask_value ? static_cast<float>(*p.mask_value) * kLog2e : 0;
  // Where a lane finds its entry of the column, from where the row finds its own.
  std::vector<int32_t> lane_entry(round_up(n_lanes, step), 0);
  for (int64_t u = 0; u < n_lanes; ++u) lane_entry[u] = -sign * call.linear[position[u]];
  const int64_t bias_lane = p.bias.stride[layout.lanes_are_queries() ? 1 : 2],
                bias_row = p.bias.stride[layout.lanes_are_queries() ? 2 : 1];
  Vector largest = hn::Zero(d);
  float* out = tile;
  for (int64_t first = 0; first < n_lanes; first += step) {
    const int32_t* lane = position + first;
    const int64_t n = std::min(step, n_lanes - first);
    for (int64_t r = 0; r < n_rows; ++r, out += step) {
      const int32_t row = position[r];
      if (p.bias_table.data) {
        const float* middle = column + call.centre + sign * call.linear[row];
        const int32_t* entry = lane_entry.data() + first;
        for (int64_t u = 0; u < step; u += L)
          hn::Store(hn::GatherIndex(d, middle, hn::LoadU(di, entry + u)), d, out + u);
      } else if (p.bias.data) {
        const float* from = p.bias.data + h * p.bias.stride[0] + row * bias_row;
        for (int64_t u = 0; u < n; ++u) out[u] = from[lane[u] * bias_lane] * kLog2e;
      } else {
        Fill(out, n, 0);
      }
      Fill(out + n, step - n, 0);
      for (int64_t u = 0; u < step; u += L) largest = hn::Max(largest, hn::Abs(hn::Load(d, out + u)));
      if (p.mask_value)
        for (int64_t u = 0; u < n; ++u) out[u] += c.region[row] == c.region[lane[u]] ? 0.f : mask;
      Fill(out + n, step - n, beyond);
    }
    Fill(out, (layout.rows(g) - n_rows) * step, beyond);
    out += (layout.rows(g) - n_rows) * step;
  }
  return hn::GetLane(hn::MaxOfLanes(d, largest)) + std::max(mask, 0.f);
}

// Lanes [lane, lane + length) of a block whose positions follow each other along x, and where their entries start.
struct LaneRun {
  int64_t lane, entry, length;
};

template <class T>
std::vector<LaneRun> lane_runs(const WindowBackwardCall<T>& call, const int32_t* position, int64_t n) {
  std::vector<LaneRun> runs;
  for (int64_t u = 0; u < n; ++u)
    if (u && position[u] == position[u - 1] + 1 && position[u] % call.p.window[2])
      ++runs.back().length;
    else
      runs.push_back({u, call.g.grad_bias_table.data ? call.linear[position[u]] : position[u], 1});
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

template <class T>
void FoldTile(const WindowBackwardCall<T>& call, const WindowGroup& g, float* tile, double* sum) {
  const TileLayout& layout = call.layout;
  const int64_t step = layout.step(g), n_rows = layout.rows_of(g), n_lanes = layout.lanes_of(g);
  const float* from = tile;
  for (int64_t first = 0; first < n_lanes; first += step) {
    const auto runs = lane_runs(call, g.position.data() + first, std::min(step, n_lanes - first));
    for (int64_t r = 0; r < n_rows; ++r, from += step) {
      const int32_t row = g.position[r];
      double* to = sum + (call.g.grad_bias_table.data ? call.centre - call.linear[row] : row * call.plan.n);
      for (const LaneRun& run : runs) AddToDoubles(from + run.lane, run.length, to + run.entry);
    }
    from += (layout.rows(g) - n_rows) * step;
  }
  Fill(tile, layout.size(g), 0);
}

}  // namespace window_bias
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS

#if HWY_ONCE
namespace fovea::kernels::cpu {

namespace {
template <class T>
float build_tile([[maybe_unused]] Isa isa, const WindowCall<T>& call, const WindowClass& c, const WindowGroup& g,
                 const TileLayout& layout, int64_t h, const float* column, float beyond, float* tile) {
  FOVEA_RETURN_BEST(isa, window_bias::BuildTile, call, c, g, layout, h, column, beyond, tile)
  return 0;
}

template <class T>
void fold_tile([[maybe_unused]] Isa isa, const WindowBackwardCall<T>& call, const WindowGroup& g, float* tile,
               double* sum) {
  FOVEA_RETURN_BEST(isa, window_bias::FoldTile, call, g, tile, sum)
}
}  // namespace

int64_t TileLayout::largest(const WindowPlan& plan) const {
  int64_t most = 0;
  for (const WindowClass& c : plan.classes) {
    int64_t sum = 0;
    for (const WindowGroup& g : c.groups) sum += size(g);
    most = std::max(most, sum);
  }
  return most;
}

template <class T>
void BiasTiles<T>::prepare(int64_t head, int32_t window_class) {
  if (head == head_ && window_class == class_) return;
  if (call_.p.bias_table.data && head != head_) {
    column_.resize(call_.p.bias_table.shape[0]);
    for (size_t row = 0; row < column_.size(); ++row)
      column_[row] = call_.p.bias_table(static_cast<int64_t>(row), head) * 1.44269504f;
  }
  head_ = head, class_ = window_class;
  const WindowClass& c = call_.plan.classes[window_class];
  tiled_ = call_.has_tile(c);
  start_.clear(), bound_.clear();
  int64_t at = 0;
  for (const WindowGroup& g : c.groups) {
    start_.push_back(at);
    bound_.push_back(build_tile(isa_, call_, c, g, layout_, head, column_.data(), beyond_, memory_ + at));
    at += layout_.size(g);
  }
}

template <class T>
WindowBackwardCall<T>::WindowBackwardCall(const WindowAttentionBackwardParams<T>& params,
                                          const TileLayout& gradient_layout, Isa kernel_isa)
    : WindowCall<T>(params.forward),
      g(params),
      grad_in(this->grid, g.grad_qkv.stride[1], g.grad_qkv.stride[2], g.grad_qkv.stride[3]),
      grad_out(this->grid, g.grad_out.stride[1], g.grad_out.stride[2], g.grad_out.stride[3]),
      layout(gradient_layout),
      isa(kernel_isa),
      bias_wanted(g.grad_bias_table.data || g.grad_bias.data) {
  constexpr int64_t kVector = 16;
  // Enough chunks to share out, few enough that their partial sums stay small beside the tensors.
  const int64_t pairs = this->pairs(), pairs_a_chunk = std::clamp<int64_t>((pairs + 15) / 16, 8, 64);
  this->chunks =
      this->plan.chunks(this->B, g.grad_bias.data ? std::max(pairs_a_chunk, (pairs + 7) / 8) : pairs_a_chunk);
  entries_ = g.grad_bias_table.data ? g.grad_bias_table.shape[0] : g.grad_bias.data ? this->plan.n * this->plan.n : 0;
  entries_step_ = entries_ ? entries_ + kVector : 0;
  bias_.resize(items() * entries_step_);
  if (g.grad_pad_token.data) padding_.resize(items() * 2 * this->C);
}

template <class T>
void WindowBackwardCall<T>::fold(int64_t item, const WindowGroup& group, float* tile) {
  fold_tile(isa, *this, group, tile, &bias_[item * entries_step_]);
}

template <class T>
void WindowBackwardCall<T>::reduce(int64_t h) const {
  const int64_t n_chunks = static_cast<int64_t>(this->chunks.size()), n = this->plan.n, C = this->C;
  const bool transposed = layout.lanes_are_queries();  // entries follow each other by lanes
  std::vector<double> sum(entries_);
  for (int64_t chunk = 0; chunk < n_chunks; ++chunk)
    for (int64_t e = 0; e < entries_; ++e) sum[e] += bias_[(h * n_chunks + chunk) * entries_step_ + e];
  for (int64_t e = 0; e < entries_; ++e)
    (g.grad_bias_table.data ? g.grad_bias_table(transposed ? e : entries_ - 1 - e, h)
     : transposed           ? g.grad_bias(h, e % n, e / n)
                            : g.grad_bias(h, e / n, e % n)) = static_cast<float>(sum[e]);
  if (!g.grad_pad_token.data) return;
  for (int64_t c = 0; c < 2 * C; ++c) {
    double padding = 0;
    for (int64_t chunk = 0; chunk < n_chunks; ++chunk) padding += padding_[(h * n_chunks + chunk) * 2 * C + c];
    g.grad_pad_token(1 + c / C, h, c % C) = static_cast<T>(static_cast<float>(padding));
  }
  for (int64_t c = 0; c < C; ++c) g.grad_pad_token(0, h, c) = static_cast<T>(0.f);
}

template class BiasTiles<float>;
template class BiasTiles<BFloat16>;
template struct WindowBackwardCall<float>;
template struct WindowBackwardCall<BFloat16>;

}  // namespace fovea::kernels::cpu
#endif  // HWY_ONCE
