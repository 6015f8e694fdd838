#include "fovea/data/symmetric_eigenvalues.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "fovea/core/rng.h"

namespace fovea::data {
namespace {

TEST(SymmetricEigenvalues, OfTheSecondDifferenceAreKnown) {
  for (const int64_t n : {1, 2, 3, 17, 64}) {
    std::vector<double> a(size_t(n * n), 0);
    for (int64_t i = 0; i < n; ++i) {
      a[i * n + i] = 2;
      if (i > 0) a[i * n + i - 1] = -1;
    }
    const auto e = symmetric_eigenvalues(a, n);
    for (int64_t k = 0; k < n; ++k)
      EXPECT_NEAR(e[k], 2 - 2 * std::cos((k + 1) * std::numbers::pi / (n + 1)), 1e-12) << n;
  }
}

TEST(SymmetricEigenvalues, HaveTheTraceAndTheSquaresOfARandomMatrix) {
  for (const int64_t n : {2, 5, 40}) {
    std::vector<double> a(size_t(n * n));
    Rng rng(1, 0, uint32_t(n));
    double trace = 0, squares = 0;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j <= i; ++j) {
        const double v = rng.normal();
        a[i * n + j] = v;
        a[j * n + i] = i == j ? v : 777;  // the upper triangle is not read
        trace += i == j ? v : 0, squares += (i == j ? 1 : 2) * v * v;
      }
    double sum = 0, square = 0;
    for (const double e : symmetric_eigenvalues(a, n)) sum += e, square += e * e;
    EXPECT_NEAR(sum, trace, 1e-11 * n);
    EXPECT_NEAR(square, squares, 1e-11 * squares);
  }
}

TEST(SymmetricEigenvalues, OfDegenerateMatrices) {
  EXPECT_EQ(symmetric_eigenvalues({}, 0).size(), 0u);
  for (const double e : symmetric_eigenvalues(std::vector<double>(49, 0), 7)) EXPECT_EQ(e, 0);
  const auto ones = symmetric_eigenvalues(std::vector<double>(49, 1), 7);
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(ones[i], 0, 1e-14);
  EXPECT_NEAR(ones[6], 7, 1e-13);
}

}  // namespace
}  // namespace fovea::data
