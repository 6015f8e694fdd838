// Definition of dense attention: one query at a time, a double for every sum, nothing clever. It recomputes the softmax
// in its backward pass instead of trusting the saved lse, so it also judges the forward pass of other kernels.
#include "fovea/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace fovea::kernels::reference {

namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// weights[j] = softmax of query (b, h, i), 0 for a key that takes no part. Returns lse. Keys of weight 0 are never
// read. cap_slopes, if wanted: what the soft cap multiplies the gradient of each score with.
template <class T>
double softmax_row(const AttentionParams<T>& p, int64_t b, int64_t h, int64_t i, std::vector<double>& weights,
                   std::vector<double>* cap_slopes = nullptr) {
  const int64_t n = p.q.shape[2], m = p.k.shape[2], channels = p.q.shape[3], hk = h / (p.q.shape[1] / p.k.shape[1]);
  weights.assign(m, -kInfinity);
  if (cap_slopes) cap_slopes->assign(m, 1.0);
  double largest = -kInfinity;
  for (int64_t j = p.first_key(i), end = p.end_key(i); j < end; ++j) {
    if (p.key_mask.data && !p.key_mask(b, j)) continue;
    double score = 0;
    for (int64_t c = 0; c < channels; ++c) score += double(p.q(b, h, i, c)) * double(p.k(b, hk, j, c));
    score *= p.scale;
    if (p.softcap > 0) {
      const double t = std::tanh(score / p.softcap);
      if (cap_slopes) (*cap_slopes)[j] = 1 - t * t;
      score = p.softcap * t;
    }
    if (p.bias.data) score += double(p.bias(b, h, i, j));
    if (p.alibi_slopes.data) score -= p.alibi_slopes(h) * double(std::abs(i + (m - n) - j));
    weights[j] = score;
    if (!(weights[j] <= largest)) largest = weights[j];  // a NaN becomes the maximum and stays
  }
  if (largest == -kInfinity) {
    weights.assign(m, 0);
    return -kInfinity;
  }
  double sum = 0;
  for (double& w : weights) w = w == -kInfinity ? 0 : std::exp(w - largest), sum += w;
  for (double& w : weights) w = w == 0 ? 0 : w / sum;  // what takes no part stays 0, even in a row that is NaN
  return largest + std::log(sum);
}
}  // namespace

template <class T>
void attention_forward(const AttentionParams<T>& p, const ParallelFor& parallel) {
  const auto [B, H, N, C] = p.q.shape;
  const int64_t M = p.k.shape[2], Cv = p.v.shape[3], group = p.k.shape[1] ? H / p.k.shape[1] : 1;
  parallel(B * H * N, 1, [&, H = H, N = N](int64_t begin, int64_t end) {
    std::vector<double> weights;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / N / H, h = item / N % H, i = item % N;
      const double lse = softmax_row(p, b, h, i, weights);
      if (p.lse.data) p.lse(b, h, i) = static_cast<ScoreOf<T>>(lse);
      if (p.dropout.probability > 0)
        for (int64_t j = 0; j < M; ++j)
          if (weights[j] != 0) weights[j] *= p.dropout.factor(b, h, i, j);
      for (int64_t c = 0; c < Cv; ++c) {
        double sum = 0;
        for (int64_t j = 0; j < M; ++j)
          if (weights[j] != 0) sum += weights[j] * double(p.v(b, h / group, j, c));
        p.out(b, h, i, c) = static_cast<T>(sum);
      }
    }
  });
}

template <class T>
void attention_backward(const AttentionBackwardParams<T>& g, const ParallelFor& parallel) {
  const AttentionParams<T>& p = g.forward;
  const auto [B, H, N, C] = p.q.shape;
  const int64_t Hk = p.k.shape[1], M = p.k.shape[2], Cv = p.v.shape[3], group = Hk ? H / Hk : 1;

  // Distinct elements of grad_bias in double; broadcast axes have one.
  std::array<int64_t, 4> bias_shape{};
  for (int a = 0; a < 4; ++a)
    bias_shape[a] = g.grad_bias.stride[a] ? g.grad_bias.shape[a] : std::min<int64_t>(1, g.grad_bias.shape[a]);
  std::vector<double> bias_sum(g.grad_bias.data ? bias_shape[0] * bias_shape[1] * bias_shape[2] * bias_shape[3] : 0,
                               0.0);
  const auto bias_at = [&](int64_t b, int64_t h, int64_t i, int64_t j) -> double& {
    const int64_t index[] = {b, h, i, j};
    int64_t offset = 0;
    for (int a = 0; a < 4; ++a) offset = offset * bias_shape[a] + (bias_shape[a] == 1 ? 0 : index[a]);
    return bias_sum[offset];
  };

  const auto run = [&, H = H, N = N, C = C](int64_t begin, int64_t end) {
    std::vector<double> weights, cap_slopes, grad_k(M * C), grad_v(M * Cv), grad_q(C);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / Hk, hk = item % Hk;
      std::fill(grad_k.begin(), grad_k.end(), 0.0), std::fill(grad_v.begin(), grad_v.end(), 0.0);
      for (int64_t h = hk * group; h < (hk + 1) * group; ++h)
        for (int64_t i = 0; i < N; ++i) {
          softmax_row(p, b, h, i, weights, &cap_slopes);
          // out_c = sum_j w_j f_j v_jc   =>   dw_j = f_j sum_c g_c v_jc,   dv_jc += w_j f_j g_c;   f from dropout
          std::vector<double> grad_weight(M, 0.0);
          double delta = 0;  // sum_j w_j dw_j
          for (int64_t j = 0; j < M; ++j) {
            if (weights[j] == 0) continue;
            const double kept = p.dropout.probability > 0 ? p.dropout.factor(b, h, i, j) : 1;
            for (int64_t c = 0; c < Cv && kept != 0; ++c) {
              const double upstream = double(g.grad_out(b, h, i, c));
              grad_weight[j] += kept * upstream * double(p.v(b, hk, j, c));
              grad_v[j * Cv + c] += weights[j] * kept * upstream;
            }
            delta += weights[j] * grad_weight[j];
          }
          // w = softmax(s)   =>   ds_j = w_j (dw_j - delta);   s_j = cap(scale <q, k_j>) + bias_j
          std::fill(grad_q.begin(), grad_q.end(), 0.0);
          for (int64_t j = 0; j < M; ++j) {
            if (weights[j] == 0) continue;
            const double grad_score = weights[j] * (grad_weight[j] - delta);
            if (g.grad_bias.data) bias_at(b, h, i, j) += grad_score;
            const double grad_product = p.scale * cap_slopes[j] * grad_score;
            for (int64_t c = 0; c < C; ++c) {
              grad_q[c] += grad_product * double(p.k(b, hk, j, c));
              grad_k[j * C + c] += grad_product * double(p.q(b, h, i, c));
            }
          }
          for (int64_t c = 0; c < C; ++c) g.grad_q(b, h, i, c) = static_cast<T>(grad_q[c]);
        }
      for (int64_t j = 0; j < M; ++j) {
        for (int64_t c = 0; c < C; ++c) g.grad_k(b, hk, j, c) = static_cast<T>(grad_k[j * C + c]);
        for (int64_t c = 0; c < Cv; ++c) g.grad_v(b, hk, j, c) = static_cast<T>(grad_v[j * Cv + c]);
      }
    }
  };
  // A gradient that is summed over batch or heads needs one order: one thread.
  const bool shared = g.grad_bias.data && (bias_shape[0] != B || bias_shape[1] != H);
  shared ? serial_for(B * Hk, 1, run) : parallel(B * Hk, 1, run);

  if (g.grad_bias.data)
    for (int64_t b = 0; b < bias_shape[0]; ++b)
      for (int64_t h = 0; h < bias_shape[1]; ++h)
        for (int64_t i = 0; i < bias_shape[2]; ++i)
          for (int64_t j = 0; j < bias_shape[3]; ++j) 
            g.grad_bias(b, h, i, j) = static_cast<ScoreOf<T>>(bias_at(b, h, i, j));
}

template <class T>
void attention_rows(const AttentionRowsParams<T>& r, const ParallelFor& parallel) {
  const AttentionParams<T>& p = r.forward;
  const int64_t H = p.q.shape[1], M = p.k.shape[2], R = r.queries.shape[0];
  parallel(p.q.shape[0] * H * R, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> weights;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / R / H, h = item / R % H, row = item % R;
      softmax_row(p, b, h, r.queries(row), weights);
      for (int64_t j = 0; j < M; ++j) r.weights(b, h, row, j) = static_cast<T>(weights[j]);
    }
  });
}

template void attention_forward(const AttentionParams<float>&, const ParallelFor&);
template void attention_forward(const AttentionParams<double>&, const ParallelFor&);
template void attention_forward(const AttentionParams<BFloat16>&, const ParallelFor&);
template void attention_backward(const AttentionBackwardParams<float>&, const ParallelFor&);
template void attention_backward(const AttentionBackwardParams<double>&, const ParallelFor&);
template void attention_backward(const AttentionBackwardParams<BFloat16>&, const ParallelFor&);
template void attention_rows(const AttentionRowsParams<float>&, const ParallelFor&);
template void attention_rows(const AttentionRowsParams<double>&, const ParallelFor&);

}  // namespace fovea::kernels::reference
