#include "fovea/data/symmetric_eigenvalues.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "fovea/core/error.h"

namespace fovea::data {

namespace {
// diagonal[0 .. n), beside[i] between i and i + 1, of Q^T A Q. Row k's entries left of the diagonal are reflected onto
// the one next to it, from the last row up.
void to_three_diagonals(std::vector<double>& a, int64_t n, std::vector<double>& diagonal, std::vector<double>& beside) {
  diagonal.assign(size_t(n), 0), beside.assign(size_t(n), 0);
  std::vector<double> p(static_cast<size_t>(n));
  for (int64_t k = n - 1; k > 0; --k) {
    double* row = a.data() + k * n;  // v = row[0 .. k)
    const double norm = std::sqrt(std::inner_product(row, row + k, row, 0.0));
    const double rest = std::sqrt(std::inner_product(row, row + k - 1, row, 0.0));
    if (rest <= norm * std::numeric_limits<double>::epsilon() * 1e-3) {
      beside[k - 1] = row[k - 1];
      continue;
    }
    const double alpha = row[k - 1] > 0 ? -norm : norm;
    beside[k - 1] = alpha;
    row[k - 1] -= alpha;
    const double half = std::inner_product(row, row + k, row, 0.0) / 2;  // H = I - v v^T / half
    for (int64_t i = 0; i < k; ++i) {
      double sum = 0;
      for (int64_t j = 0; j <= i; ++j) sum += a[i * n + j] * row[j];
      for (int64_t j = i + 1; j < k; ++j) sum += a[j * n + i] * row[j];
      p[i] = sum / half;
    }
    const double scale = std::inner_product(row, row + k, p.begin(), 0.0) / (2 * half);
    for (int64_t i = 0; i < k; ++i) p[i] -= scale * row[i];
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j <= i; ++j) a[i * n + j] -= row[i] * p[j] + p[i] * row[j];
  }
  for (int64_t k = 0; k < n; ++k) diagonal[k] = a[k * n + k];
}
}  // namespace

std::vector<double> symmetric_eigenvalues(std::vector<double> matrix, int64_t n) {
  FOVEA_CHECK(int64_t(matrix.size()) == n * n, "symmetric_eigenvalues: the matrix is not square");
  std::vector<double> d, e;
  to_three_diagonals(matrix, n, d, e);
  for (int64_t low = 0; low < n; ++low) {
    for (int round = 0;; ++round) {
      int64_t m = low;  // the block low .. m hangs together
      while (m + 1 < n &&
             std::abs(e[m]) > std::numeric_limits<double>::epsilon() * (std::abs(d[m]) + std::abs(d[m + 1])))
        ++m;
      if (m == low) break;
      FOVEA_CHECK(round < 60, "symmetric_eigenvalues: no convergence, is there a NaN?");
      // One implicit QL step with Wilkinson's shift.
      double g = (d[low + 1] - d[low]) / (2 * e[low]);
      g = d[m] - d[low] + e[low] / (g + std::copysign(std::hypot(g, 1.0), g));
      double sine = 1, cosine = 1, carried = 0;
      int64_t i = m - 1;
      for (; i >= low; --i) {
        const double f = sine * e[i], b = cosine * e[i];
        const double r = std::hypot(f, g);
        e[i + 1] = r;
        if (r == 0) {
          d[i + 1] -= carried, e[m] = 0;
          break;
        }
        sine = f / r, cosine = g / r;
        g = d[i + 1] - carried;
        const double t = (d[i] - g) * sine + 2 * cosine * b;
        carried = sine * t;
        d[i + 1] = g + carried;
        g = cosine * t - b;
      }
      if (i >= low) continue;
      d[low] -= carried, e[low] = g, e[m] = 0;
    }
  }
  std::sort(d.begin(), d.end());
  return d;
}

}  // namespace fovea::data
