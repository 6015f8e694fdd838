// Grey-level co-occurrence: how often levels i and j lie one step apart.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "fovea/data/radiomics_region.h"
#include "fovea/data/symmetric_eigenvalues.h"

namespace fovea::data {

namespace {
constexpr double kEps = std::numeric_limits<double>::epsilon();

double entropy(const std::vector<double>& p) {
  double h = 0;
  for (const double v : p)
    if (v > 0) h -= v * std::log2(v + kEps);
  return h;
}

// Counts of pairs, both ways round: symmetric.
void count_pairs(const LevelGrid& grid, const Step& step, double weight, std::vector<double>& matrix) {
  const auto n = int64_t(grid.levels.size());
  const int64_t offset = step[0] * grid.stride[0] + step[1] * grid.stride[1] + step[2];
  for (const int64_t at : grid.voxels) {
    const int64_t i = grid.index[at] - 1, j = grid.index[at + offset] - 1;
    if (j < 0) continue;
    matrix[i * n + j] += weight, matrix[j * n + i] += weight;
  }
}

double weight_of(const Step& step, const std::array<double, 3>& spacing_mm, DirectionWeighting weighting) {
  double sum = 0, square = 0, largest = 0;
  for (int a = 0; a < 3; ++a) {
    const double d = std::abs(double(step[a])) * spacing_mm[a];
    sum += d, square += d * d, largest = std::max(largest, d);
  }
  switch (weighting) {
    case DirectionWeighting::kManhattan:
      return std::exp(-sum * sum);
    case DirectionWeighting::kEuclidean:
      return std::exp(-square);
    case DirectionWeighting::kInfinity:
      return std::exp(-largest * largest);
    default:
      return 1;
  }
}

// The correlation of the best functions of i and j: the second largest singular value of p / sqrt(px py).
double maximal_correlation(const std::vector<double>& p, const std::vector<double>& px) {
  const auto n = int64_t(px.size());
  if (n < 2) return 1;
  std::vector<double> b(p.size());
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j) b[i * n + j] = p[i * n + j] > 0 ? p[i * n + j] / std::sqrt(px[i] * px[j]) : 0;
  const std::vector<double> e = symmetric_eigenvalues(std::move(b), n);
  return std::max(std::abs(e[n - 2]), std::abs(e[0]));  // the largest is 1
}

// Features of one matrix that sums to 1, in the order of their names.
std::array<double, 24> features_of(const std::vector<double>& p, const LevelGrid& grid) {
  const auto n = int64_t(grid.levels.size());
  const auto& level = grid.levels;
  const double highest = double(grid.largest_level());
  std::vector<double> px(size_t(n), 0), sums(size_t(2 * grid.largest_level() + 1), 0),
      differences(size_t(grid.largest_level()), 0);
  for (int64_t i = 0; i < n; ++i) px[i] = std::accumulate(p.begin() + i * n, p.begin() + (i + 1) * n, 0.0);
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += level[i] * px[i];
  double variance = 0, marginal_entropy = entropy(px);
  for (int64_t i = 0; i < n; ++i) variance += px[i] * (level[i] - mean) * (level[i] - mean);

  double autocorrelation = 0, prominence = 0, shade = 0, tendency = 0, covariance = 0, energy = 0, largest = 0;
  double cross_entropy = 0, product_entropy = 0;  // HXY1, HXY2
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) {
      const double independent = px[i] * px[j], v = p[i * n + j];
      if (independent == 0) continue;
      const double log_independent = std::log2(independent + kEps);
      product_entropy -= independent * log_independent;
      if (v == 0) continue;
      cross_entropy -= v * log_independent;
      const double x = level[i] - mean, y = level[j] - mean, s = x + y;
      autocorrelation += v * level[i] * level[j];
      covariance += v * x * y;
      tendency += v * s * s, shade += v * s * s * s, prominence += v * s * s * s * s;
      energy += v * v, largest = std::max(largest, v);
      sums[size_t(level[i] + level[j])] += v;
      differences[size_t(std::abs(level[i] - level[j]))] += v;
    }
  const double joint_entropy = entropy(p);
  double sum_average = 0, average = 0, contrast = 0, id = 0, idm = 0, idn = 0, idmn = 0, inverse_variance = 0;
  for (size_t k = 0; k < sums.size(); ++k) sum_average += double(k) * sums[k];
  for (size_t i = 0; i < differences.size(); ++i) {
    const double k = double(i), v = differences[i];
    average += k * v, contrast += k * k * v;
    id += v / (1 + k), idm += v / (1 + k * k);
    idn += v / (1 + k / highest), idmn += v / (1 + k * k / (highest * highest));
    if (i > 0) inverse_variance += v / (k * k);
  }
  double difference_variance = 0;
  for (size_t k = 0; k < differences.size(); ++k)
    difference_variance += differences[k] * (double(k) - average) * (double(k) - average);
  const double imc1 = marginal_entropy != 0 ? (joint_entropy - cross_entropy) / marginal_entropy : 0;
  const double imc2 = std::sqrt(std::max(0.0, 1 - std::exp(-2 * (product_entropy - joint_entropy))));
  return {autocorrelation,
          prominence,
          shade,
          tendency,
          contrast,
          variance > 0 ? covariance / (variance + kEps) : 1,
          average,
          entropy(differences),
          difference_variance,
          id,
          idm,
          idmn,
          idn,
          imc1,
          imc2,
          inverse_variance,
          mean,
          energy,
          joint_entropy,
          maximal_correlation(p, px),
          largest,
          sum_average,
          entropy(sums),
          variance};
}
}  // namespace

std::vector<double> glcm_features(const LevelGrid& grid, const RadiomicsOptions& options) {
  const size_t cells = grid.levels.size() * grid.levels.size();
  std::vector<double> matrix(cells, 0), mean(24, 0);
  int filled = 0;
  const auto add_features = [&] {
    const double total = std::accumulate(matrix.begin(), matrix.end(), 0.0);
    if (total == 0) return;
    for (double& v : matrix) v /= total;
    const auto features = features_of(matrix, grid);
    for (size_t f = 0; f < features.size(); ++f) mean[f] += features[f];
    ++filled;
  };
  for (const Step& step : directions(options.distances, options.plane_axis)) {
    count_pairs(grid, step, weight_of(step, grid.spacing_mm, options.weighting), matrix);
    if (options.weighting != DirectionWeighting::kMean) continue;
    add_features();
    std::fill(matrix.begin(), matrix.end(), 0);
  }
  if (options.weighting != DirectionWeighting::kMean) add_features();
  for (double& m : mean) m = filled ? m / filled : std::numeric_limits<double>::quiet_NaN();
  return mean;
}

}  // namespace fovea::data
