#pragma once
#include <cstdint>
#include <vector>

namespace fovea::data {

/// Eigenvalues of a real symmetric matrix, ascending.
///   matrix   [n, n], row by row; only the lower triangle is read
/// Cost     about 4/3 n^3 multiplications (Householder reduction to three diagonals, then implicit QL)
/// Source   Golub & Van Loan, Matrix Computations, sections 8.3.1 and 8.3.5
std::vector<double> symmetric_eigenvalues(std::vector<double> matrix, int64_t n);

}  // namespace fovea::data
