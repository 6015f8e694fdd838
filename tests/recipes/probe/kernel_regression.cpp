// fovea_kernel_regression_probe SAMPLES.csv PLACES.csv constant|plane H...    (one bandwidth, or one an axis)
// SAMPLES: coordinates, then the value; PLACES: coordinates. Prints a line a place: value and weight norm, then a line
// a sample: its value left out. How the Python oracles reach the kernel regression.
#include <cstdio>
#include <cstdlib>

#include "fovea/core/error.h"
#include "fovea/io/csv.h"
#include "fovea/recipes/kernel_regression.h"

namespace {
torch::Tensor read_matrix(const char* path) {
  const auto table = fovea::io::read_csv(path);
  std::vector<torch::Tensor> columns;
  for (size_t c = 0; c < table.columns().size(); ++c)
    columns.push_back(torch::tensor(table.numbers(c), torch::kFloat64));
  return torch::stack(columns, 1);
}
}  // namespace

int main(int count, char** a) try {
  using namespace fovea::recipes;
  if (count < 5) return 2;
  const auto rows = read_matrix(a[1]), x = read_matrix(a[2]);
  const Samples samples{rows.slice(1, 0, -1), rows.select(1, -1)};
  const LocalFit fit = std::string(a[3]) == "plane" ? LocalFit::kPlane : LocalFit::kConstant;
  Bandwidth h;
  for (int i = 4; i < count; ++i) h.push_back(std::atof(a[i]));
  const auto value = kernel_regression(samples, x, h, fit), norm = weight_norms(samples, x, h, fit);
  for (int64_t i = 0; i < x.size(0); ++i) std::printf("%.17g %.17g\n", value[i].item<double>(), norm[i].item<double>());
  const auto left_out = leave_one_out(samples, h, fit);
  for (int64_t i = 0; i < left_out.size(0); ++i) std::printf("%.17g\n", left_out[i].item<double>());
  return 0;
} catch (const fovea::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return int(e.code());
}
