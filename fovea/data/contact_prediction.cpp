#include "fovea/data/contact_prediction.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "fovea/core/error.h"
#include "fovea/io/input_file.h"

namespace fovea::data {

namespace {
constexpr int64_t kStates = 21;  // 20 residues and the gap; a letter that names none counts as one

// [rows, L * kStates] f32 of zeros and ones, rows from `first`.
torch::Tensor one_hot(const io::Alignment& a, int64_t first, int64_t rows) {
  auto codes = torch::from_blob(const_cast<uint8_t*>(a.row(first)), {rows, a.columns}, torch::kUInt8).to(torch::kInt64).clamp_max(io::kGap);
  return torch::one_hot(codes, kStates).to(torch::kFloat32).flatten(1);
}

// Weighted frequencies: of states [L * kStates] and of pairs [L * kStates, L * kStates], f64.
struct Frequencies {
  torch::Tensor one, two;
};

Frequencies frequencies(const io::Alignment& a, const torch::Tensor& weights) {
  if (weights.sizes() != torch::IntArrayRef({a.rows()})) throw ArgumentError(c10::str("contact prediction: ", weights.sizes(), " weights for ", a.rows(), " sequences"));
  constexpr int64_t kChunk = 2048;
  const int64_t n = a.columns * kStates;
  Frequencies f{torch::zeros({n}, torch::kFloat64), torch::zeros({n, n}, torch::kFloat64)};
  const auto share = (weights / weights.sum()).to(torch::kFloat32);
  for (int64_t first = 0; first < a.rows(); first += kChunk) {
    const auto x = one_hot(a, first, std::min(kChunk, a.rows() - first));
    const auto weighted = x * share.slice(0, first, first + x.size(0)).unsqueeze(1);
    f.one += weighted.sum(0).to(torch::kFloat64), f.two += torch::matmul(weighted.t(), x).to(torch::kFloat64);
  }
  return f;
}

torch::Tensor without_diagonal(torch::Tensor scores) { return scores.fill_diagonal_(0); }

// Rows of residues, each filled up to whole words of eight with a letter that none has: [N, words].
std::vector<uint64_t> words_of(const io::Alignment& a, int64_t words) {
  std::vector<uint64_t> all(size_t(a.rows() * words), 0);
  auto* bytes = reinterpret_cast<uint8_t*>(all.data());
  for (int64_t n = 0; n < a.rows(); ++n)
    for (int64_t i = 0; i < a.columns; ++i) bytes[n * words * 8 + i] = std::min(a.row(n)[i], io::kGap);
  return all;
}

// In how many of their bytes, all below 128, two rows differ: eight at a time, counted in eight lanes of a word.
int64_t differences(const uint64_t* x, const uint64_t* y, int64_t words) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  int64_t sum = 0;
  for (int64_t begin = 0; begin < words; begin += 31) {  // 31 * 8 < 256: the lanes' sum fits the highest one
    uint64_t lanes = 0;
    for (int64_t w = begin; w < std::min(begin + 31, words); ++w) lanes += ((x[w] ^ y[w]) + 127 * kOnes) >> 7 & kOnes;
    sum += int64_t(lanes * kOnes >> 56);
  }
  return sum;
}
}  // namespace

torch::Tensor sequence_weights(const io::Alignment& a, double identity) {
  const int64_t words = (a.columns + 7) / 8, allowed = a.columns - int64_t(std::ceil(identity * double(a.columns) - 1e-6));
  const auto all = words_of(a, words);
  auto neighbours = torch::zeros({a.rows()}, torch::kFloat64);
  double* out = neighbours.data_ptr<double>();
  at::parallel_for(0, a.rows(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = 0; j < a.rows(); ++j) out[i] += differences(&all[size_t(i * words)], &all[size_t(j * words)], words) <= allowed;
  });
  return neighbours.reciprocal();
}

torch::Tensor mutual_information(const io::Alignment& a, const torch::Tensor& weights) {
  const auto [one, two] = frequencies(a, weights);
  const auto independent = one.unsqueeze(1) * one.unsqueeze(0);
  const auto terms = torch::where(two > 0, two * torch::log(two / independent.clamp_min(1e-300)), torch::zeros_like(two));
  return without_diagonal(terms.view({a.columns, kStates, a.columns, kStates}).sum({1, 3}));
}

torch::Tensor inverse_covariance(const io::Alignment& a, const torch::Tensor& weights, double shrinkage) {
  const auto [one, two] = frequencies(a, weights);
  const int64_t n = a.columns * (kStates - 1);
  // Without the gap: the states of a column sum to 1, so that one of them is told by the others.
  const auto residues = (two - one.unsqueeze(1) * one.unsqueeze(0)).view({a.columns, kStates, a.columns, kStates}).slice(1, 0, kStates - 1).slice(3, 0, kStates - 1).reshape({n, n});
  const auto ridge = shrinkage / std::sqrt(weights.sum().item<double>()) * torch::eye(n, torch::kFloat64);
  const auto inverse = torch::cholesky_inverse(torch::linalg_cholesky(residues + ridge));
  return without_diagonal(inverse.view({a.columns, kStates - 1, a.columns, kStates - 1}).square().sum({1, 3}).sqrt());
}

torch::Tensor average_product_correction(const torch::Tensor& scores) {
  const int64_t n = scores.size(0);
  auto s = scores.to(torch::kFloat64).clone().fill_diagonal_(0);
  const auto mean = s.sum(1) / double(n - 1);
  if (s.sum().item<double>() == 0) return s;
  return without_diagonal(s - mean.unsqueeze(1) * mean.unsqueeze(0) / (s.sum() / double(n * (n - 1))));
}

torch::Tensor read_distances(const std::filesystem::path& path, int64_t columns) {
  auto distances = torch::full({columns, columns}, std::numeric_limits<double>::quiet_NaN(), torch::kFloat64);
  auto at = distances.accessor<double, 2>();
  std::istringstream lines(io::read_text(path, uint64_t{256} << 20));
  std::string line;
  for (int64_t number = 1; std::getline(lines, line); ++number) {
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    double i = 0, j = 0, score = 0, distance = 0;
    std::istringstream words(line);
    words.imbue(std::locale::classic());
    if (!(words >> i >> j >> score >> distance)) throw IoError(path, "line " + std::to_string(number) + ": expected four numbers, i j score distance");
    if (!(i >= 1 && j >= 1 && i <= double(columns) && j <= double(columns)))
      throw IoError(path, "line " + std::to_string(number) + ": columns " + std::to_string(i) + " and " + std::to_string(j) + ", expected 1 to " + std::to_string(columns));
    at[int64_t(i) - 1][int64_t(j) - 1] = at[int64_t(j) - 1][int64_t(i) - 1] = distance;
  }
  return distances;
}

double contact_precision(const torch::Tensor& scores, const torch::Tensor& distances, int64_t count, int64_t separation, double contact) {
  const auto s = scores.to(torch::kFloat64).contiguous(), d = distances.to(torch::kFloat64).contiguous();
  const auto score = s.accessor<double, 2>(), distance = d.accessor<double, 2>();
  std::vector<std::pair<double, bool>> pairs;
  for (int64_t i = 0; i < s.size(0); ++i)
    for (int64_t j = i + separation; j < s.size(0); ++j)
      if (!std::isnan(distance[i][j])) pairs.emplace_back(-score[i][j], distance[i][j] < contact);
  if (pairs.empty()) throw ArgumentError("contact precision: no pair of columns at least " + std::to_string(separation) + " apart has a distance");
  std::stable_sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  const size_t taken = count > 0 ? std::min(pairs.size(), size_t(count)) : pairs.size();
  return double(std::count_if(pairs.begin(), pairs.begin() + std::ptrdiff_t(taken), [](const auto& p) { return p.second; })) / double(taken);
}

}  // namespace fovea::data
