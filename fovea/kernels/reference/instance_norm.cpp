#include "fovea/kernels/instance_norm.h"

#include <cmath>
#include <vector>

namespace fovea::kernels::reference {

template <class T>
void instance_moments(const View<const T, 3>& x, const View<double, 3>& moments, const ParallelFor& parallel) {
  const int64_t B = x.shape[0], V = x.shape[1], C = x.shape[2];
  parallel(B * C, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / C, c = item % C;
      double mean = 0, squares = 0;
      for (int64_t v = 0; v < V; ++v) mean += x(b, v, c);
      mean /= static_cast<double>(V);
      for (int64_t v = 0; v < V; ++v) squares += (x(b, v, c) - mean) * (x(b, v, c) - mean);
      moments(b, c, 0) = mean, moments(b, c, 1) = squares;
    }
  });
}

template <class T>
void instance_norm_forward(const InstanceNormParams<T>& p, const ParallelFor& parallel) {
  const int64_t B = p.x.shape[0], V = p.x.shape[1], C = p.x.shape[2];
  std::vector<double> taken(p.moments.data ? 0 : B * C * 2);
  View<const double, 3> moments = p.moments;
  if (!moments.data) {
    instance_moments<T>(p.x, {taken.data(), {B, C, 2}, {2 * C, 2, 1}}, parallel);
    moments = {taken.data(), {B, C, 2}, {2 * C, 2, 1}};
  }
  parallel(B * C, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / C, c = item % C;
      const double mean = moments(b, c, 0), rstd = 1 / std::sqrt(moments(b, c, 1) / static_cast<double>(V) + p.epsilon);
      const double weight = p.weight.data ? p.weight(c) : 1, bias = p.bias.data ? p.bias(c) : 0;
      for (int64_t v = 0; v < V; ++v) {
        const double y = (p.x(b, v, c) - mean) * rstd * weight + bias + (p.residual.data ? p.residual(b, v, c) : 0);
        p.out(b, v, c) = static_cast<T>(y > 0 ? y : p.slope * y);
      }
      p.mean(b, c) = static_cast<T>(mean);
      p.rstd(b, c) = static_cast<T>(rstd);
    }
  });
}

template <class T>
void instance_norm_backward(const InstanceNormBackwardParams<T>& g, const ParallelFor& parallel) {
  const auto& p = g.forward;
  const int64_t B = p.x.shape[0], V = p.x.shape[1], C = p.x.shape[2];
  parallel(C, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      double weight_sum = 0, bias_sum = 0;
      const double weight = p.weight.data ? p.weight(c) : 1;
      for (int64_t b = 0; b < B; ++b) {
        const double mean = p.mean(b, c), rstd = p.rstd(b, c);
        const auto z = [&](int64_t v) -> double {
          if (p.x.data) return (p.x(b, v, c) - mean) * rstd;
          const double y = p.out(b, v, c) > 0 ? p.out(b, v, c) : p.out(b, v, c) / p.slope;
          return y - (p.residual.data ? p.residual(b, v, c) : 0);
        };
        const auto dy = [&](int64_t v) { return g.grad_out(b, v, c) * (p.out(b, v, c) > 0 ? 1 : p.slope); };
        double dy_sum = 0, dy_z_sum = 0;
        for (int64_t v = 0; v < V; ++v) dy_sum += dy(v), dy_z_sum += dy(v) * z(v);
        const double count = static_cast<double>(V);
        for (int64_t v = 0; v < V; ++v) {
          g.grad_x(b, v, c) = static_cast<T>(weight * rstd * (dy(v) - dy_sum / count - z(v) * dy_z_sum / count));
          if (g.grad_residual.data) g.grad_residual(b, v, c) = static_cast<T>(dy(v));
        }
        weight_sum += dy_z_sum;
        bias_sum += dy_sum;
      }
      if (g.grad_weight.data) g.grad_weight(c) = static_cast<T>(weight_sum);
      if (g.grad_bias.data) g.grad_bias(c) = static_cast<T>(bias_sum);
    }
  });
}

template void instance_moments(const View<const float, 3>&, const View<double, 3>&, const ParallelFor&);
template void instance_moments(const View<const double, 3>&, const View<double, 3>&, const ParallelFor&);
template void instance_norm_forward(const InstanceNormParams<float>&, const ParallelFor&);
template void instance_norm_forward(const InstanceNormParams<double>&, const ParallelFor&);
template void instance_norm_backward(const InstanceNormBackwardParams<float>&, const ParallelFor&);
template void instance_norm_backward(const InstanceNormBackwardParams<double>&, const ParallelFor&);

}  // namespace fovea::kernels::reference
