#include "fovea/kernels/mlp.h"

#include <numbers>

#include "fovea/kernels/reference/layer_norm.h"

namespace fovea::kernels::reference {
namespace {

double normal_distribution(double h) { return 0.5 * std::erfc(-h / std::numbers::sqrt2); }
double gelu(double h) { return h * normal_distribution(h); }
double gelu_slope(double h) {
  return normal_distribution(h) + h * std::exp(-0.5 * h * h) / std::sqrt(2 * std::numbers::pi);
}

/// z W1^T + b1, [N,M].
template <class T>
std::vector<double> hidden_values(const MlpParams<T>& p, const NormedRows<T>& z, const ParallelFor& parallel) {
  const int64_t N = p.x.shape[0], E = p.x.shape[1], M = p.weight1.shape[0];
  std::vector<double> h(N * M);
  parallel(N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      for (int64_t m = 0; m < M; ++m) {
        h[n * M + m] = p.bias1.data ? p.bias1(m) : 0;
        for (int64_t i = 0; i < E; ++i) h[n * M + m] += z(n, i) * p.weight1(m, i);
      }
  });
  return h;
}

}  // namespace

template <class T>
void mlp_forward(const MlpParams<T>& p, const ParallelFor& parallel) {
  const int64_t N = p.x.shape[0], M = p.weight1.shape[0], O = p.weight2.shape[0];
  const NormedRows<T> z(p.x, p.norm);
  const std::vector<double> h = hidden_values(p, z, parallel);
  parallel(N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      for (int64_t o = 0; o < O; ++o) {
        double sum = p.bias2.data ? p.bias2(o) : 0;
        for (int64_t m = 0; m < M; ++m) sum += gelu(h[n * M + m]) * p.weight2(o, m);
        if (p.add_input) sum += p.x(n, o);
        p.out(n, o) = static_cast<T>(sum);
      }
  });
}

template <class T>
void mlp_backward(const MlpBackwardParams<T>& g, const ParallelFor& parallel) {
  const MlpParams<T>& p = g.forward;
  const int64_t N = p.x.shape[0], E = p.x.shape[1], M = p.weight1.shape[0], O = p.weight2.shape[0];
  const NormedRows<T> z(p.x, p.norm);
  const std::vector<double> h = hidden_values(p, z, parallel);
  std::vector<double> dh(N * M, 0.0), dz(N * E, 0.0);
  parallel(N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t m = 0; m < M; ++m) {
        double sum = 0;
        for (int64_t o = 0; o < O; ++o) sum += double{g.grad_out(n, o)} * p.weight2(o, m);
        dh[n * M + m] = sum * gelu_slope(h[n * M + m]);
      }
      for (int64_t i = 0; i < E; ++i) {
        for (int64_t m = 0; m < M; ++m) dz[n * E + i] += dh[n * M + m] * p.weight1(m, i);
        if (g.grad_x.data) g.grad_x(n, i) = p.add_input ? g.grad_out(n, i) : 0;
      }
    }
  });
  z.backward(dz, g.grad_x, g.grad_norm);
  parallel(M, 1, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      double bias = 0;
      for (int64_t n = 0; n < N; ++n) bias += dh[n * M + m];
      if (g.grad_bias1.data) g.grad_bias1(m) = static_cast<T>(bias);
      for (int64_t i = 0; g.grad_weight1.data && i < E; ++i) {
        double sum = 0;
        for (int64_t n = 0; n < N; ++n) sum += dh[n * M + m] * z(n, i);
        g.grad_weight1(m, i) = static_cast<T>(sum);
      }
      for (int64_t o = 0; g.grad_weight2.data && o < O; ++o) {
        double sum = 0;
        for (int64_t n = 0; n < N; ++n) sum += g.grad_out(n, o) * gelu(h[n * M + m]);
        g.grad_weight2(o, m) = static_cast<T>(sum);
      }
    }
  });
  for (int64_t o = 0; g.grad_bias2.data && o < O; ++o) {
    double sum = 0;
    for (int64_t n = 0; n < N; ++n) sum += g.grad_out(n, o);
    g.grad_bias2(o) = static_cast<T>(sum);
  }
}

template void mlp_forward(const MlpParams<float>&, const ParallelFor&);
template void mlp_forward(const MlpParams<double>&, const ParallelFor&);
template void mlp_backward(const MlpBackwardParams<float>&, const ParallelFor&);
template void mlp_backward(const MlpBackwardParams<double>&, const ParallelFor&);

}  // namespace fovea::kernels::reference
