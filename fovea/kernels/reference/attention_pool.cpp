// Definition of softmax pooling. The backward pass recomputes the softmax instead of trusting the saved lse, so it also
// judges the forward pass of other kernels.
#include "fovea/kernels/attention_pool.h"

#include <cmath>
#include <limits>
#include <vector>

namespace fovea::kernels::reference {

namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// weights[n - begin] = softmax of head h over the bag's rows, 0 for a row that takes no part. Returns lse.
template <class T>
double softmax_of_bag(const AttentionPoolParams<T>& p, int64_t begin, int64_t end, int64_t h,
                      std::vector<double>& weights) {
  weights.assign(end - begin, 0);
  double largest = -kInfinity;
  for (int64_t n = begin; n < end; ++n)
    if (!(p.scores(n, h) <= largest)) largest = p.scores(n, h);  // a NaN becomes the maximum and stays
  if (largest == -kInfinity) return -kInfinity;
  double sum = 0;
  for (int64_t n = begin; n < end; ++n)
    if (p.scores(n, h) != -kInfinity) sum += weights[n - begin] = std::exp(p.scores(n, h) - largest);
  for (double& w : weights) w = w == 0 ? 0 : w / sum;
  return largest + std::log(sum);
}
}  // namespace

template <class T>
void attention_pool_forward(const AttentionPoolParams<T>& p, const ParallelFor& parallel) {
  const auto [bags, H, E] = p.out.shape;
  parallel(bags * H, 1, [&, H = H, E = E](int64_t first, int64_t last) {
    std::vector<double> weights;
    for (int64_t item = first; item < last; ++item) {
      const int64_t b = item / H, h = item % H, begin = p.offsets(b), end = p.offsets(b + 1);
      p.lse(b, h) = static_cast<T>(softmax_of_bag(p, begin, end, h, weights));
      for (int64_t c = 0; c < E; ++c) {
        double sum = 0;
        for (int64_t n = begin; n < end; ++n)
          if (p.scores(n, h) != -kInfinity) sum += weights[n - begin] * double(p.values(n, c));
        p.out(b, h, c) = static_cast<T>(sum);
      }
    }
  });
}

template <class T>
void attention_pool_backward(const AttentionPoolBackwardParams<T>& g, const ParallelFor& parallel) {
  const AttentionPoolParams<T>& p = g.forward;
  const auto [bags, H, E] = p.out.shape;
  parallel(bags, 1, [&, H = H, E = E](int64_t first, int64_t last) {
    std::vector<double> weights, grad_weights, grad_values;
    for (int64_t b = first; b < last; ++b) {
      const int64_t begin = p.offsets(b), end = p.offsets(b + 1);
      grad_values.assign((end - begin) * E, 0);
      for (int64_t h = 0; h < H; ++h) {
        softmax_of_bag(p, begin, end, h, weights);
        // out_c = sum_n w_n v_nc   =>   dw_n = sum_c g_c v_nc,   dv_nc += w_n g_c
        grad_weights.assign(end - begin, 0);
        double delta = 0;  // sum_n w_n dw_n
        for (int64_t n = begin; n < end; ++n) {
          if (p.scores(n, h) == -kInfinity) continue;
          for (int64_t c = 0; c < E; ++c) {
            const double upstream = g.grad_out(b, h, c);
            grad_weights[n - begin] += upstream * double(p.values(n, c));
            grad_values[(n - begin) * E + c] += weights[n - begin] * upstream;
          }
          delta += weights[n - begin] * grad_weights[n - begin];
        }
        // w = softmax(s)   =>   ds_n = w_n (dw_n - delta)
        for (int64_t n = begin; n < end && g.grad_scores.data; ++n)
          g.grad_scores(n, h) =
              p.scores(n, h) == -kInfinity ? 0 : static_cast<T>(weights[n - begin] * (grad_weights[n - begin] - delta));
      }
      for (int64_t n = begin; n < end && g.grad_values.data; ++n)
        for (int64_t c = 0; c < E; ++c) g.grad_values(n, c) = static_cast<T>(grad_values[(n - begin) * E + c]);
    }
  });
}

template void attention_pool_forward(const AttentionPoolParams<float>&, const ParallelFor&);
template void attention_pool_forward(const AttentionPoolParams<double>&, const ParallelFor&);
template void attention_pool_backward(const AttentionPoolBackwardParams<float>&, const ParallelFor&);
template void attention_pool_backward(const AttentionPoolBackwardParams<double>&, const ParallelFor&);

}  // namespace fovea::kernels::reference
