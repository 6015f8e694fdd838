#include "fovea/kernels/linear.h"

#include "fovea/kernels/reference/layer_norm.h"

namespace fovea::kernels::reference {

template <class T>
void linear_forward(const LinearParams<T>& p, const ParallelFor& parallel) {
  const int64_t N = p.x.shape[0], I = p.x.shape[1], O = p.weight.shape[0];
  const NormedRows<T> z(p.x, p.norm);
  parallel(N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      for (int64_t o = 0; o < O; ++o) {
        double sum = p.bias.data ? p.bias(o) : 0;
        for (int64_t i = 0; i < I; ++i) sum += z(n, i) * p.weight(o, i);
        if (p.residual.data) sum += p.residual(n, o);
        p.at(n, o) = static_cast<T>(sum);
      }
  });
}

template <class T>
void linear_backward(const LinearBackwardParams<T>& g, const ParallelFor& parallel) {
  const LinearParams<T>& p = g.forward;
  const int64_t N = p.x.shape[0], I = p.x.shape[1], O = p.weight.shape[0];
  const NormedRows<T> z(p.x, p.norm);
  std::vector<double> dz(N * I, 0.0);
  parallel(N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      for (int64_t i = 0; i < I; ++i) {
        for (int64_t o = 0; o < O; ++o) dz[n * I + i] += double{g.grad_out(n, o)} * p.weight(o, i);
        if (g.grad_x.data) g.grad_x(n, i) = 0;
      }
  });
  z.backward(dz, g.grad_x, g.grad_norm);
  parallel(O, 1, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      double bias = 0;
      for (int64_t n = 0; n < N; ++n) bias += g.grad_out(n, o);
      if (g.grad_bias.data) g.grad_bias(o) = static_cast<T>(bias);
      for (int64_t i = 0; g.grad_weight.data && i < I; ++i) {
        double sum = 0;
        for (int64_t n = 0; n < N; ++n) sum += g.grad_out(n, o) * z(n, i);
        g.grad_weight(o, i) = static_cast<T>(sum);
      }
    }
  });
}

template void linear_forward(const LinearParams<float>&, const ParallelFor&);
template void linear_forward(const LinearParams<double>&, const ParallelFor&);
template void linear_backward(const LinearBackwardParams<float>&, const ParallelFor&);
template void linear_backward(const LinearBackwardParams<double>&, const ParallelFor&);

}  // namespace fovea::kernels::reference
