#include "fovea/recipes/bench.h"

#include <algorithm>
#include <chrono>

#include "fovea/core/error.h"
#include "fovea/core/process_memory.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
double run_ms(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}
}  // namespace

void time_in_turns(BenchRow& row, const BenchOptions& options, const std::function<void()>& ours,
                   const std::function<void()>& peer) {
  constexpr size_t kRuns = 200, kFewest = 5;
  ours();
  if (peer) peer();
  std::vector<double> ours_ms, peer_ms;
  const auto start = std::chrono::steady_clock::now();
  const auto spent_s = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  while (ours_ms.size() < kFewest || (ours_ms.size() < kRuns && spent_s() < options.seconds)) {
    ours_ms.push_back(run_ms(ours));
    if (peer) peer_ms.push_back(run_ms(peer));
  }
  row.ours_best_ms = *std::min_element(ours_ms.begin(), ours_ms.end()), row.ours_median_ms = median(ours_ms);
  if (!peer) return;
  row.peer_best_ms = *std::min_element(peer_ms.begin(), peer_ms.end()), row.peer_median_ms = median(peer_ms);
  row.ratio = row.peer_best_ms / row.ours_best_ms;
}

int64_t measure_workspace(const std::function<int64_t()>& work) {
  work();
  release_free_memory();
  const int64_t before = resident_bytes();
  if (!reset_peak_resident()) return -1;
  const int64_t result_bytes = work();
  return std::max<int64_t>(0, peak_resident_bytes() - before - result_bytes);
}

namespace {
struct Part {
  std::string name;
  void (*run)(const BenchOptions&, const BenchDone&);
};
const std::vector<Part>& all_parts() {
  static const std::vector<Part> parts = {{"attention", bench_attention}, {"window", bench_window}, {"threads", bench_threads},
                                          {"block", bench_block},         {"encoder", bench_encoder}, {"conv", bench_conv},
                                          {"norm", bench_norm},           {"network", bench_network}, {"train-step", bench_train_step}};
  return parts;
}
}  // namespace

std::string bench_part_names() {
  std::string names;
  for (const Part& part : all_parts()) names += part.name + ", ";
  return names.substr(0, names.size() - 2) + " or all";
}

BenchReport run_bench(const std::vector<std::string>& parts, BenchOptions options, const BenchDone& done) {
  for (const std::string& name : parts)
    if (name != "all" && std::none_of(all_parts().begin(), all_parts().end(), [&](const Part& part) { return part.name == name; }))
      throw ArgumentError("bench: no part is called '" + name + "'; there are " + bench_part_names());
  const OneThread one_thread;
  BenchReport report{name_of(chosen_isa()), cpu_model(), kernels::measure_peaks(), 0, {}};
  report.two_thread_speed = kernels::measure_fma_gflops(2) / kernels::measure_fma_gflops(1);
  options.peak_gflops = report.peaks.fma_gflops, options.two_thread_speed = report.two_thread_speed;
  for (const Part& part : all_parts())
    if (std::any_of(parts.begin(), parts.end(), [&](const std::string& name) { return name == "all" || name == part.name; }))
      part.run(options, [&](const BenchRow& row) {
        report.rows.push_back(row);
        if (done) done(row);
      });
  return report;
}

}  // namespace fovea::recipes
