// Definition of windowed attention: for each window its list of tokens, for each query its list of keys, a double for
// every sum. It recomputes the softmax in its backward pass, so it also judges the forward pass of other kernels.
#include "fovea/kernels/window_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace fovea::kernels::reference {

namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// One channel vector somewhere in memory.
template <class T>
struct Channels {
  T* data;
  int64_t step;
  T& operator[](int64_t c) const { return data[c * step]; }
};

// One call: sizes, and everything about a (batch, head, window) that the passes share.
template <class T>
struct Problem {
  const WindowAttentionParams<T>& p;
  int64_t B = p.qkv.shape[0], H = p.qkv.shape[5], C = p.qkv.shape[6];
  Triple grid{p.qkv.shape[1], p.qkv.shape[2], p.qkv.shape[3]}, counts = window_counts(grid, p.window);
  int64_t windows = counts[0] * counts[1] * counts[2], n = p.window[0] * p.window[1] * p.window[2];
  std::vector<int32_t> relative;  // row of bias_table for each pair of positions

  explicit Problem(const WindowAttentionParams<T>& params) : p(params) {
    if (!p.bias_table.data) return;
    relative.resize(n * n);
    relative_position_index(p.window, relative.data());
  }

  int64_t z(int64_t token) const { return token / (grid[1] * grid[2]); }
  int64_t y(int64_t token) const { return token / grid[2] % grid[1]; }
  int64_t x(int64_t token) const { return token % grid[2]; }
};

template <class T>
struct Window {
  const Problem<T>& a;
  int64_t b, h;
  std::vector<int32_t> token, region;

  Window(const Problem<T>& problem, int64_t batch, int64_t head, int64_t window)
      : Window(problem, batch, head,
               Triple{window / (problem.counts[1] * problem.counts[2]), window / problem.counts[2] % problem.counts[1],
                      window % problem.counts[2]}) {}
  Window(const Problem<T>& problem, int64_t batch, int64_t head, const Triple& index)
      : a(problem), b(batch), h(head), token(a.n), region(a.n) {
    window_tokens(a.grid, a.p.window, a.p.shift, index, token.data(), region.data());
  }

  // part: 0 q, 1 k, 2 v. Position j of the window; the padding token's where j is padding.
  Channels<const T> channels(int part, int64_t j) const {
    if (token[j] < 0) return {&a.p.pad_token(part, h, 0), a.p.pad_token.stride[2]};
    return {&a.p.qkv(b, a.z(token[j]), a.y(token[j]), a.x(token[j]), part, h, 0), a.p.qkv.stride[6]};
  }

  // weights[j] = softmax of query i, 0 for a position that takes no part. Returns lse. Keys of weight 0 are never read.
  double softmax_row(int64_t i, std::vector<double>& weights) const {
    weights.assign(a.n, -kInfinity);
    const Channels<const T> q = channels(0, i);
    double largest = -kInfinity;
    for (int64_t j = 0; j < a.n; ++j) {
      if (token[j] < 0 && !a.p.pad_token.data) continue;
      if (region[j] != region[i] && !a.p.mask_value) continue;
      const Channels<const T> k = channels(1, j);
      double dot = 0;
      for (int64_t c = 0; c < a.C; ++c) dot += double(q[c]) * double(k[c]);
      weights[j] = a.p.scale * dot;
      if (a.p.bias_table.data) weights[j] += double(a.p.bias_table(a.relative[i * a.n + j], h));
      if (a.p.bias.data) weights[j] += double(a.p.bias(h, i, j));
      if (region[j] != region[i]) weights[j] += *a.p.mask_value;
      if (!(weights[j] <= largest)) largest = weights[j];  // a NaN becomes the maximum and stays
    }
    if (largest == -kInfinity) {
      weights.assign(a.n, 0);
      return -kInfinity;
    }
    double sum = 0;
    for (double& w : weights) w = w == -kInfinity ? 0 : std::exp(w - largest), sum += w;
    for (double& w : weights) w = w == 0 ? 0 : w / sum;  // what takes no part stays 0, even in a row that is NaN
    return largest + std::log(sum);
  }
};
}  // namespace

template <class T>
void window_attention_forward(const WindowAttentionParams<T>& p, const ParallelFor& parallel) {
  const Problem<T> a(p);
  parallel(a.B * a.H * a.windows, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> weights, sum(a.C);
    for (int64_t item = begin; item < end; ++item) {
      const Window<T> w(a, item / a.windows / a.H, item / a.windows % a.H, item % a.windows);
      for (int64_t i = 0; i < a.n; ++i) {
        if (w.token[i] < 0) continue;
        const int64_t z = a.z(w.token[i]), y = a.y(w.token[i]), x = a.x(w.token[i]);
        const double lse = w.softmax_row(i, weights);
        if (p.lse.data) p.lse(w.b, w.h, z, y, x) = static_cast<ScoreOf<T>>(lse);
        std::fill(sum.begin(), sum.end(), 0.0);
        for (int64_t j = 0; j < a.n; ++j) {
          if (weights[j] == 0) continue;
          const Channels<const T> v = w.channels(2, j);
          for (int64_t c = 0; c < a.C; ++c) sum[c] += weights[j] * double(v[c]);
        }
        for (int64_t c = 0; c < a.C; ++c) p.out(w.b, z, y, x, w.h, c) = static_cast<T>(sum[c]);
      }
    }
  });
}

template <class T>
void window_attention_backward(const WindowAttentionBackwardParams<T>& g, const ParallelFor& parallel) {
  const WindowAttentionParams<T>& p = g.forward;
  const Problem<T> a(p);
  const int64_t n = a.n, C = a.C, table_rows = g.grad_bias_table.shape[0];
  // A head's bias gradient is summed over batch, then windows, then queries: one thread a head fixes that order.
  parallel(a.H, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      std::vector<double> weights, table(g.grad_bias_table.data ? table_rows : 0), bias(g.grad_bias.data ? n * n : 0),
          pad(2 * C);
      std::vector<double> grad_q(n * C), grad_k(n * C), grad_v(n * C), grad_weight(n);
      for (int64_t b = 0; b < a.B; ++b)
        for (int64_t window = 0; window < a.windows; ++window) {
          const Window<T> w(a, b, h, window);
          for (auto* sums : {&grad_q, &grad_k, &grad_v}) std::fill(sums->begin(), sums->end(), 0.0);
          for (int64_t i = 0; i < n; ++i) {
            if (w.token[i] < 0) continue;
            const int64_t z = a.z(w.token[i]), y = a.y(w.token[i]), x = a.x(w.token[i]);
            const Channels<const T> q = w.channels(0, i), upstream{&g.grad_out(b, z, y, x, h, 0), g.grad_out.stride[5]};
            w.softmax_row(i, weights);
            // out_c = sum_j w_j v_jc   =>   dw_j = sum_c g_c v_jc,   dv_jc += w_j g_c
            double delta = 0;  // sum_j w_j dw_j
            for (int64_t j = 0; j < n; ++j) {
              if (weights[j] == 0) continue;
              const Channels<const T> v = w.channels(2, j);
              grad_weight[j] = 0;
              for (int64_t c = 0; c < C; ++c) {
                grad_weight[j] += double(upstream[c]) * double(v[c]);
                grad_v[j * C + c] += weights[j] * double(upstream[c]);
              }
              delta += weights[j] * grad_weight[j];
            }
            // w = softmax(s)   =>   ds_j = w_j (dw_j - delta);   s_j = scale <q, k_j> + bias_ij + mask_ij
            for (int64_t j = 0; j < n; ++j) {
              if (weights[j] == 0) continue;
              const Channels<const T> k = w.channels(1, j);
              const double grad_score = weights[j] * (grad_weight[j] - delta);
              if (!table.empty()) table[a.relative[i * n + j]] += grad_score;
              if (!bias.empty()) bias[i * n + j] += grad_score;
              for (int64_t c = 0; c < C; ++c) {
                grad_q[i * C + c] += p.scale * grad_score * double(k[c]);
                grad_k[j * C + c] += p.scale * grad_score * double(q[c]);
              }
            }
          }
          for (int64_t j = 0; j < n; ++j)
            for (int64_t c = 0; c < C; ++c) {
              if (w.token[j] < 0) {
                pad[c] += grad_k[j * C + c], pad[C + c] += grad_v[j * C + c];
                continue;
              }
              const int64_t z = a.z(w.token[j]), y = a.y(w.token[j]), x = a.x(w.token[j]);
              g.grad_qkv(b, z, y, x, 0, h, c) = static_cast<T>(grad_q[j * C + c]);
              g.grad_qkv(b, z, y, x, 1, h, c) = static_cast<T>(grad_k[j * C + c]);
              g.grad_qkv(b, z, y, x, 2, h, c) = static_cast<T>(grad_v[j * C + c]);
            }
        }
      for (size_t row = 0; row < table.size(); ++row) g.grad_bias_table(row, h) = static_cast<ScoreOf<T>>(table[row]);
      if (!bias.empty())
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < n; ++j) g.grad_bias(h, i, j) = static_cast<ScoreOf<T>>(bias[i * n + j]);
      if (g.grad_pad_token.data)
        for (int64_t c = 0; c < C; ++c) {
          g.grad_pad_token(0, h, c) = static_cast<T>(0.0);
          g.grad_pad_token(1, h, c) = static_cast<T>(pad[c]);
          g.grad_pad_token(2, h, c) = static_cast<T>(pad[C + c]);
        }
    }
  });
}

template <class T>
void window_attention_rows(const WindowAttentionRowsParams<T>& r, const ParallelFor& parallel) {
  const WindowAttentionParams<T>& p = r.forward;
  const Problem<T> a(p);
  parallel(r.queries.shape[0], 1, [&](int64_t begin, int64_t end) {
    std::vector<double> weights;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t query = r.queries(row), position[] = {a.z(query), a.y(query), a.x(query)};
      Triple index;
      for (int axis = 0; axis < 3; ++axis) {
        const int64_t padded = a.counts[axis] * p.window[axis];
        index[axis] = (position[axis] + padded - p.shift[axis]) % padded / p.window[axis];
      }
      for (int64_t b = 0; b < a.B; ++b)
        for (int64_t h = 0; h < a.H; ++h) {
          const Window<T> w(a, b, h, index);
          w.softmax_row(std::find(w.token.begin(), w.token.end(), query) - w.token.begin(), weights);
          for (int64_t j = 0; j < a.n; ++j) r.weights(b, h, row, j) = static_cast<T>(weights[j]);
        }
      std::vector<int32_t> token(a.n), region(a.n);
      window_tokens(a.grid, p.window, p.shift, index, token.data(), region.data());
      for (int64_t j = 0; j < a.n; ++j) r.keys(row, j) = token[j];
    }
  });
}

template void window_attention_forward(const WindowAttentionParams<float>&, const ParallelFor&);
template void window_attention_forward(const WindowAttentionParams<double>&, const ParallelFor&);
template void window_attention_forward(const WindowAttentionParams<BFloat16>&, const ParallelFor&);
template void window_attention_backward(const WindowAttentionBackwardParams<float>&, const ParallelFor&);
template void window_attention_backward(const WindowAttentionBackwardParams<double>&, const ParallelFor&);
template void window_attention_backward(const WindowAttentionBackwardParams<BFloat16>&, const ParallelFor&);
template void window_attention_rows(const WindowAttentionRowsParams<float>&, const ParallelFor&);
template void window_attention_rows(const WindowAttentionRowsParams<double>&, const ParallelFor&);

}  // namespace fovea::kernels::reference
