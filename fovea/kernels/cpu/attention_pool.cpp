// Softmax pooling of bags on vectors.
//   Bags are cut into parts of up to 1024 rows, parts into blocks of 32. A block's weights of all heads are computed
//   first (scores come in any layout, so they are gathered), then the block's rows are added up for four heads at a
//   time. Each part has a running maximum a head; when it grows, what the part has summed so far is scaled. Sums of a
//   block start from 0: roundings grow with blocks and parts, not with rows.
//     forward   parts in parallel; the only part of a bag writes out itself, others are joined bag by bag, in order
//     backward  parts in parallel: nothing is summed over rows, delta_h = <dO_h, O_h> is all that rows share
//   All splits depend on the offsets alone.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fovea/kernels/cpu/attention_pool.cpp"
#include "fovea/kernels/cpu/targets.h"

#include "hwy/foreach_target.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "fovea/kernels/attention_pool.h"
#include "fovea/kernels/cpu/weighted_rows-inl.h"

#ifndef FOVEA_ATTENTION_POOL_ONCE
#define FOVEA_ATTENTION_POOL_ONCE
namespace fovea::kernels::cpu::pool {

constexpr int64_t kPartRows = 1024;
constexpr int kBlockRows = 32;
constexpr int64_t kWorkPerTask = 1 << 16;  // multiplications

struct Part {
  int64_t bag, begin, end;
};

/// The parts of all bags, those of bag b at [first[b], first[b + 1]).
struct Parts {
  std::vector<Part> all;
  std::vector<int64_t> first;

  explicit Parts(const View<const int64_t, 1>& offsets) {
    for (int64_t b = 0; b + 1 < offsets.shape[0]; ++b) {
      first.push_back(count());
      for (int64_t n = offsets(b); n < offsets(b + 1); n += kPartRows)
        all.push_back({b, n, std::min(n + kPartRows, offsets(b + 1))});
    }
    first.push_back(count());
  }
  int64_t count() const { return static_cast<int64_t>(all.size()); }
  int64_t of_bag(int64_t b) const { return first[b + 1] - first[b]; }
  int64_t grain(int64_t work_per_row) const {
    int64_t rows = 1;
    for (const Part& part : all) rows += part.end - part.begin;
    return std::max<int64_t>(1, kWorkPerTask * count() / (rows * std::max<int64_t>(1, work_per_row)));
  }
};

}  // namespace fovea::kernels::cpu::pool
#endif  // FOVEA_ATTENTION_POOL_ONCE

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace pooled {
using cpu::pool::kBlockRows;
using cpu::pool::Part;
using cpu::pool::Parts;

// Scores of up to 32 rows, [head][row], and the rows themselves.
struct Block {
  int n = 0;
  const float* rows[kBlockRows];
  std::vector<float> score, weight;  // [H][kBlockRows]; score -inf behind row n
  std::vector<char> closed;          // [H]: some row takes no part

  explicit Block(int64_t H) : score(H * kBlockRows), weight(H * kBlockRows), closed(H) {}

  void take(const AttentionPoolParams<float>& p, int64_t begin, int64_t end) {
    n = static_cast<int>(std::min<int64_t>(kBlockRows, end - begin));
    for (int r = 0; r < n; ++r) rows[r] = p.values.data + (begin + r) * p.values.stride[0];
    for (int64_t h = 0; h < p.scores.shape[1]; ++h) {
      float* s = score.data() + h * kBlockRows;
      closed[h] = 0;
      for (int r = 0; r < n; ++r) s[r] = p.scores(begin + r, h), closed[h] |= s[r] == -kInfinity;
      Fill(s + n, kBlockRows - n, -kInfinity);
    }
  }

  // weight = exp(score - shift); 0 where the score is -inf. Returns the sum.
  double weigh(int64_t h, float shift) {
    const Floats d;
    Vector sum = hn::Zero(d);
    for (int r = 0; r < kBlockRows; r += L) {
      const Vector s = hn::LoadU(d, score.data() + h * kBlockRows + r);
      const Vector e = Exp2(hn::Mul(hn::Sub(s, hn::Set(d, shift)), hn::Set(d, kLog2e)));
      const Vector w = hn::IfThenZeroElse(hn::Eq(s, hn::Set(d, -kInfinity)), e);
      hn::StoreU(w, d, weight.data() + h * kBlockRows + r);
      sum = hn::Add(sum, w);
    }
    return hn::GetLane(hn::SumOfLanes(d, sum));
  }

  // Largest score of a head; a NaN counts as lowest of all, so that it hides none. -inf: no row takes part.
  float largest(int64_t h) const {
    const Floats d;
    Vector m = hn::Set(d, -kInfinity);
    for (int r = 0; r < kBlockRows; r += L) {
      const Vector s = hn::LoadU(d, score.data() + h * kBlockRows + r);
      m = hn::Max(m, hn::IfThenElse(hn::Eq(s, s), s, hn::Set(d, std::numeric_limits<float>::lowest())));
    }
    return hn::GetLane(hn::MaxOfLanes(d, m));
  }
};

// Softmax sums of one part: sums[h] = sum_n exp(s_n - maximum) v_n, total likewise.
struct Softmax {
  std::vector<float> maximum;
  std::vector<double> total;
  explicit Softmax(int64_t H) : maximum(H, -kInfinity), total(H, 0.0) {}
};

void scale_row(float* row, float factor, int64_t E) { CopyRow(row, static_cast<int>(E), 0, row, factor); }

void add_block(Block& block, Softmax& state, float* sums, int64_t step, int64_t E) {
  const auto H = static_cast<int64_t>(state.total.size());
  for (int64_t h = 0; h < H; ++h) {
    const float largest = block.largest(h), before = state.maximum[h];
    if (largest > before) {
      state.maximum[h] = largest;
      if (before != -kInfinity) {
        const double factor = std::exp(double{before} - largest);
        state.total[h] *= factor;
        scale_row(sums + h * step, static_cast<float>(factor), E);
      }
    }
    // Without any row the shift is -inf, but then every weight is 0 anyway.
    state.total[h] += block.weigh(h, state.maximum[h]);
  }
  const int channels = static_cast<int>(E);
  for (int64_t h = 0; h < H;) {
    const float* weights = block.weight.data() + h * kBlockRows;
    if (block.closed[h]) {  // what lies in rows that take no part may be NaN, so they leave the list
      const float* rows[kBlockRows];
      float open[kBlockRows];
      int n = 0;
      for (int r = 0; r < block.n; ++r)
        if (block.score[h * kBlockRows + r] != -kInfinity) rows[n] = block.rows[r], open[n++] = weights[r];
      SumRows<true>({rows, n, open, 0}, 1, sums + h * step, step, channels);
      ++h;
      continue;
    }
    int64_t end = h + 1;
    while (end < H && !block.closed[end]) ++end;
    SumRows<true>({block.rows, block.n, weights, kBlockRows}, end - h, sums + h * step, step, channels);
    h = end;
  }
}

double inverse(double total) { return total == 0 ? 0 : 1 / total; }

void Forward(const AttentionPoolParams<float>& p, const ParallelFor& parallel) {
  const auto [bags, H, E] = p.out.shape;
  const Parts parts(p.offsets);
  // Parts of bags that have several leave their sums here, with their maximum and total.
  std::vector<int64_t> slot(parts.count(), -1);
  int64_t slots = 0;
  for (int64_t i = 0; i < parts.count(); ++i)
    if (parts.of_bag(parts.all[i].bag) > 1) slot[i] = slots++;
  std::vector<float> partial(slots * H * E);
  std::vector<Softmax> partial_state(slots, Softmax(H));

  parallel(parts.count(), parts.grain(H * E), [&, H = H, E = E](int64_t first, int64_t last) {
    const FlushDenormals flush;
    Block block(H);
    for (int64_t i = first; i < last; ++i) {
      const Part& part = parts.all[i];
      const bool only = slot[i] < 0;
      float* sums = only ? p.out.data + part.bag * p.out.stride[0] : partial.data() + slot[i] * H * E;
      const int64_t step = only ? p.out.stride[1] : E;
      Softmax state(H);
      for (int64_t h = 0; h < H && only; ++h) Fill(sums + h * step, E, 0);
      for (int64_t n = part.begin; n < part.end; n += kBlockRows) {
        block.take(p, n, part.end);
        add_block(block, state, sums, step, E);
      }
      if (only) {
        for (int64_t h = 0; h < H; ++h) {
          scale_row(sums + h * step, static_cast<float>(inverse(state.total[h])), E);
          p.lse(part.bag, h) = static_cast<float>(state.maximum[h] + std::log(state.total[h]));
        }
      } else {
        partial_state[slot[i]] = state;
      }
    }
  });

  const int64_t join_grain = std::max<int64_t>(1, cpu::pool::kWorkPerTask / std::max<int64_t>(1, E));
  parallel(bags * H, join_grain, [&, H = H, E = E](int64_t first, int64_t last) {
    const FlushDenormals flush;
    for (int64_t item = first; item < last; ++item) {
      const int64_t b = item / H, h = item % H, count = parts.of_bag(b);
      if (count == 1) continue;
      float* out = p.out.data + b * p.out.stride[0] + h * p.out.stride[1];
      Fill(out, E, 0);
      const int64_t begin = count ? slot[parts.first[b]] : 0;
      float largest = -kInfinity;
      for (int64_t k = begin; k < begin + count; ++k) largest = std::max(largest, partial_state[k].maximum[h]);
      std::vector<double> factor(count, 0.0);
      double total = 0;
      for (int64_t k = 0; k < count; ++k) {
        const Softmax& state = partial_state[begin + k];
        if (state.maximum[h] == -kInfinity) continue;
        factor[k] = std::exp(double{state.maximum[h]} - largest);
        total += factor[k] * state.total[h];
      }
      for (int64_t k = 0; k < count; k += kBlockRows) {
        const float* rows[kBlockRows];
        float weights[kBlockRows];
        const int n = static_cast<int>(std::min<int64_t>(kBlockRows, count - k));
        for (int r = 0; r < n; ++r) {
          rows[r] = partial.data() + ((begin + k + r) * H + h) * E;
          weights[r] = static_cast<float>(factor[k + r] * inverse(total));
        }
        SumRows<true>({rows, n, weights, 0}, 1, out, 0, static_cast<int>(E));
      }
      p.lse(b, h) = static_cast<float>(largest + std::log(total));
    }
  });
}

void Backward(const AttentionPoolBackwardParams<float>& g, const ParallelFor& parallel) {
  const auto& p = g.forward;
  const int64_t H = p.out.shape[1], E = p.out.shape[2];
  const int channels = static_cast<int>(E);
  const Parts parts(p.offsets);
  parallel(parts.count(), parts.grain(2 * H * E), [&](int64_t first, int64_t last) {
    const FlushDenormals flush;
    Block block(H);
    std::vector<const float*> upstream(H), open_upstream(H);
    std::vector<float> delta(H), dot(H * kBlockRows), weight(kBlockRows * H), open_weight(H);
    for (int64_t i = first; i < last; ++i) {
      const Part& part = parts.all[i];
      const float* grad_out = g.grad_out.data + part.bag * g.grad_out.stride[0];
      const int64_t grad_step = g.grad_out.stride[1];
      for (int64_t h = 0; h < H; ++h) {
        upstream[h] = grad_out + h * grad_step;
        const float* out = p.out.data + part.bag * p.out.stride[0] + h * p.out.stride[1];
        DotRows(&out, 1, upstream[h], 0, 1, channels, &delta[h], 1);
      }
      for (int64_t begin = part.begin; begin < part.end; begin += kBlockRows) {
        // w = exp(s - lse)
        block.take(p, begin, part.end);
        for (int64_t h = 0; h < H; ++h) block.weigh(h, p.lse(part.bag, h));
        if (g.grad_scores.data) {
          // out = sum_n w_n v_n   =>   dw_n = <dO, v_n>,   ds_n = w_n (dw_n - delta)
          DotRows(block.rows, block.n, grad_out, grad_step, H, channels, dot.data(), kBlockRows);
          for (int64_t h = 0; h < H; ++h)
            for (int r = 0; r < block.n; ++r) {
              const int64_t at = h * kBlockRows + r;
              g.grad_scores(begin + r, h) = block.score[at] == -kInfinity ? 0 : block.weight[at] * (dot[at] - delta[h]);
            }
        }
        if (!g.grad_values.data) continue;
        // dv_n = sum_h w_nh dO_h; heads that a row takes no part in leave the list: their dO may be anything.
        for (int64_t h = 0; h < H; ++h)
          for (int r = 0; r < block.n; ++r) weight[r * H + h] = block.weight[h * kBlockRows + r];
        float* grad_values = g.grad_values.data + begin * g.grad_values.stride[0];
        const int64_t step = g.grad_values.stride[0];
        if (std::none_of(block.closed.begin(), block.closed.end(), [](char c) { return c; })) {
          SumRows<false>({upstream.data(), static_cast<int>(H), weight.data(), H}, block.n, grad_values, step,
                         channels);
          continue;
        }
        for (int r = 0; r < block.n; ++r) {
          int n = 0;
          for (int64_t h = 0; h < H; ++h)
            if (block.score[h * kBlockRows + r] != -kInfinity)
              open_upstream[n] = upstream[h], open_weight[n++] = weight[r * H + h];
          SumRows<false>({open_upstream.data(), n, open_weight.data(), 0}, 1, grad_values + r * step, step, channels);
        }
      }
    }
  });
}

}  // namespace pooled
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS

#if HWY_ONCE
namespace fovea::kernels::cpu {

void attention_pool_forward(const AttentionPoolParams<float>& p, const ParallelFor& parallel, Isa isa) {
  FOVEA_RETURN_BEST(isa, pooled::Forward, p, parallel)
  reference::attention_pool_forward(p, parallel);
}

void attention_pool_backward(const AttentionPoolBackwardParams<float>& g, const ParallelFor& parallel, Isa isa) {
  FOVEA_RETURN_BEST(isa, pooled::Backward, g, parallel)
  reference::attention_pool_backward(g, parallel);
}

}  // namespace fovea::kernels::cpu
#endif  // HWY_ONCE
