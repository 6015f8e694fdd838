// Definition of axial attention: one query at a time, a double for every sum. The backward pass recomputes the softmax
// instead of trusting the saved lse, so it also judges the forward pass of other kernels.
#include "fovea/kernels/axial_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace fovea::kernels::reference {

namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
enum { kQuery, kKey, kValue };

// The alignment seen from the attended axis: token (r, i) is place r of the other axis, place i of the attended one.
template <class T>
struct Alignment {
  const AxialAttentionParams<T>& p;
  int64_t B = p.qkv.shape[0], H = p.qkv.shape[4], C = p.qkv.shape[5];
  int64_t n = p.attended(), m = p.others();
  int64_t maps = p.tied ? 1 : m;  // of a sample and head

  explicit Alignment(const AxialAttentionParams<T>& params) : p(params) {}

  // Element [b, r, i, ...] of a tensor that starts with [B,R,L].
  template <class U, int Rank, class... Index>
  U& at(const View<U, Rank>& view, int64_t b, int64_t r, int64_t i, Index... index) const {
    return p.axis == AlignmentAxis::kResidues ? view(b, r, i, index...) : view(b, i, r, index...);
  }
  bool open(int64_t b, int64_t r, int64_t i) const { return !p.mask.data || at(p.mask, b, r, i); }
  // Whether q[r,i] k[r,j] counts.
  bool pairs(int64_t b, int64_t r, int64_t i, int64_t j) const { return open(b, r, j) && (!p.tied || open(b, r, i)); }
  // The places r that map `map` is of: [first, last).
  int64_t first(int64_t map) const { return p.tied ? 0 : map; }
  int64_t last(int64_t map) const { return p.tied ? m : map + 1; }

  // weights[j] = softmax of query i in a map, 0 for a closed key. Returns lse.
  double softmax_row(int64_t b, int64_t map, int64_t h, int64_t i, std::vector<double>& weights) const {
    weights.assign(n, -kInfinity);
    double largest = -kInfinity;
    for (int64_t j = 0; j < n; ++j) {
      bool closed = true;
      double dot = 0;
      for (int64_t r = first(map); r < last(map); ++r) {
        closed = closed && !open(b, r, j);
        if (!pairs(b, r, i, j)) continue;
        for (int64_t c = 0; c < C; ++c)
          dot += double(at(p.qkv, b, r, i, kQuery, h, c)) * double(at(p.qkv, b, r, j, kKey, h, c));
      }
      if (closed) continue;
      weights[j] = p.scale * dot + (p.pair_bias.data ? double(p.pair_bias(b, h, i, j)) : 0);
      if (!(weights[j] <= largest)) largest = weights[j];  // a NaN becomes the maximum and stays
    }
    if (largest == -kInfinity) {
      weights.assign(n, 0);
      return -kInfinity;
    }
    double sum = 0;
    for (double& w : weights) w = w == -kInfinity ? 0 : std::exp(w - largest), sum += w;
    for (double& w : weights) w = w == 0 ? 0 : w / sum;
    return largest + std::log(sum);
  }
};
}  // namespace

template <class T>
void axial_attention_forward(const AxialAttentionParams<T>& p, const ParallelFor& parallel) {
  const Alignment<T> a(p);
  parallel(a.B * a.maps * a.H * a.n, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> weights;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t i = item % a.n, h = item / a.n % a.H, map = item / a.n / a.H % a.maps,
                    b = item / a.n / a.H / a.maps;
      p.lse(b, map, h, i) = static_cast<T>(a.softmax_row(b, map, h, i, weights));
      for (int64_t r = a.first(map); r < a.last(map); ++r)
        for (int64_t c = 0; c < a.C; ++c) {
          double sum = 0;
          for (int64_t j = 0; j < a.n; ++j)
            if (weights[j] != 0 && a.open(b, r, j)) sum += weights[j] * double(a.at(p.qkv, b, r, j, kValue, h, c));
          a.at(p.out, b, r, i, h, c) = static_cast<T>(sum);
        }
    }
  });
}

template <class T>
void axial_attention_backward(const AxialAttentionBackwardParams<T>& g, const ParallelFor& parallel) {
  const auto& p = g.forward;
  const Alignment<T> a(p);
  std::vector<double> bias_sum(g.grad_pair_bias.data ? a.B * a.H * a.n * a.n : 0, 0.0);
  parallel(a.B * a.H, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> weights, grad_weights, grad_qkv;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / a.H, h = item % a.H;
      grad_qkv.assign(a.m * a.n * 3 * a.C, 0);
      const auto grad = [&](int64_t r, int64_t i, int which, int64_t c) -> double& {
        return grad_qkv[((r * a.n + i) * 3 + which) * a.C + c];
      };
      for (int64_t map = 0; map < a.maps; ++map)
        for (int64_t i = 0; i < a.n; ++i) {
          a.softmax_row(b, map, h, i, weights);
          // out_r = sum_j w_j v_rj   =>   dw_j = sum_r <g_r, v_rj>,   dv_rj += w_j g_r
          grad_weights.assign(a.n, 0);
          double delta = 0;  // sum_j w_j dw_j
          for (int64_t j = 0; j < a.n; ++j) {
            if (weights[j] == 0) continue;
            for (int64_t r = a.first(map); r < a.last(map); ++r) {
              if (!a.open(b, r, j)) continue;
              for (int64_t c = 0; c < a.C; ++c) {
                const double upstream = a.at(g.grad_out, b, r, i, h, c);
                grad_weights[j] += upstream * double(a.at(p.qkv, b, r, j, kValue, h, c));
                grad(r, j, kValue, c) += weights[j] * upstream;
              }
            }
            delta += weights[j] * grad_weights[j];
          }
          // w = softmax(s)   =>   ds_j = w_j (dw_j - delta);   s_j = scale sum_r <q_ri, k_rj> + bias_j
          for (int64_t j = 0; j < a.n; ++j) {
            if (weights[j] == 0) continue;
            const double grad_score = weights[j] * (grad_weights[j] - delta);
            if (g.grad_pair_bias.data) bias_sum[((b * a.H + h) * a.n + i) * a.n + j] += grad_score;
            for (int64_t r = a.first(map); r < a.last(map); ++r) {
              if (!a.pairs(b, r, i, j)) continue;
              for (int64_t c = 0; c < a.C; ++c) {
                grad(r, i, kQuery, c) += p.scale * grad_score * double(a.at(p.qkv, b, r, j, kKey, h, c));
                grad(r, j, kKey, c) += p.scale * grad_score * double(a.at(p.qkv, b, r, i, kQuery, h, c));
              }
            }
          }
        }
      for (int64_t r = 0; r < a.m; ++r)
        for (int64_t i = 0; i < a.n; ++i)
          for (int which : {kQuery, kKey, kValue})
            for (int64_t c = 0; c < a.C; ++c)
              a.at(g.grad_qkv, b, r, i, which, h, c) = static_cast<T>(grad(r, i, which, c));
    }
  });
  if (!g.grad_pair_bias.data) return;
  const auto& stride = g.grad_pair_bias.stride;
  for (int64_t b = 0; b < (stride[0] ? a.B : std::min<int64_t>(1, a.B)); ++b)
    for (int64_t h = 0; h < (stride[1] ? a.H : std::min<int64_t>(1, a.H)); ++h)
      for (int64_t i = 0; i < a.n; ++i)
        for (int64_t j = 0; j < a.n; ++j) {
          double sum = 0;
          for (int64_t bb = b; bb < (stride[0] ? b + 1 : a.B); ++bb)
            for (int64_t hh = h; hh < (stride[1] ? h + 1 : a.H); ++hh)
              sum += bias_sum[((bb * a.H + hh) * a.n + i) * a.n + j];
          g.grad_pair_bias(b, h, i, j) = static_cast<T>(sum);
        }
}

template void axial_attention_forward(const AxialAttentionParams<float>&, const ParallelFor&);
template void axial_attention_forward(const AxialAttentionParams<double>&, const ParallelFor&);
template void axial_attention_backward(const AxialAttentionBackwardParams<float>&, const ParallelFor&);
template void axial_attention_backward(const AxialAttentionBackwardParams<double>&, const ParallelFor&);

}  // namespace fovea::kernels::reference
