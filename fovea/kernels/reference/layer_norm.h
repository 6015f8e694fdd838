#pragma once
#include <cmath>
#include <vector>

#include "fovea/kernels/linear.h"

namespace fovea::kernels::reference {

/// Layer norm of the rows of x [N,I] in double, and its gradient.
template <class T>
class NormedRows {
 public:
  NormedRows(const View<const T, 2>& x, const LayerNorm<T>& norm)
      : x_(x), norm_(norm), mean_(x.shape[0]), rstd_(x.shape[0], 1.0) {
    if (!norm.present()) return;
    const int64_t I = x.shape[1];
    for (int64_t n = 0; n < x.shape[0]; ++n) {
      double mean = 0, variance = 0;
      for (int64_t i = 0; i < I; ++i) mean += double{x(n, i)} / I;
      for (int64_t i = 0; i < I; ++i) variance += (x(n, i) - mean) * (x(n, i) - mean) / I;
      mean_[n] = mean;
      rstd_[n] = 1 / std::sqrt(variance + norm.epsilon);
    }
  }

  /// (x - mean) * rstd.
  double hat(int64_t n, int64_t i) const { return (x_(n, i) - mean_[n]) * rstd_[n]; }

  double operator()(int64_t n, int64_t i) const {
    if (!norm_.present()) return x_(n, i);
    return hat(n, i) * norm_.weight(i) + (norm_.bias.data ? norm_.bias(i) : 0);
  }

  /// Gradients from dz [N,I]: grad_x += ..., the norm's are written. Data null: not wanted.
  void backward(const std::vector<double>& dz, const View<T, 2>& grad_x, const LayerNormGradient<T>& grad_norm) const {
    const int64_t N = x_.shape[0], I = x_.shape[1];
    for (int64_t n = 0; grad_x.data && n < N; ++n) {
      double sum = 0, product = 0;  // means of dz * weight and of dz * weight * hat
      for (int64_t i = 0; norm_.present() && i < I; ++i) {
        sum += dz[n * I + i] * norm_.weight(i) / I;
        product += dz[n * I + i] * norm_.weight(i) * hat(n, i) / I;
      }
      for (int64_t i = 0; i < I; ++i) {
        const double weight = norm_.present() ? norm_.weight(i) : 1;
        const double hat_part = norm_.present() ? hat(n, i) * product : 0;
        grad_x(n, i) += static_cast<T>(rstd_[n] * (dz[n * I + i] * weight - sum - hat_part));
      }
    }
    for (int64_t i = 0; i < I; ++i) {
      double weight = 0, bias = 0;
      for (int64_t n = 0; n < N; ++n) weight += dz[n * I + i] * hat(n, i), bias += dz[n * I + i];
      if (grad_norm.weight.data) grad_norm.weight(i) = static_cast<T>(weight);
      if (grad_norm.bias.data) grad_norm.bias(i) = static_cast<T>(bias);
    }
  }

 private:
  View<const T, 2> x_;
  LayerNorm<T> norm_;
  std::vector<double> mean_, rstd_;
};

}  // namespace fovea::kernels::reference
