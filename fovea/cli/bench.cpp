#include "fovea/recipes/bench.h"

#include <c10/core/CPUAllocator.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/core/process_memory.h"
#include "fovea/core/version.h"
#include "fovea/io/json_file.h"
#include "fovea/report/plot.h"
#include "fovea/report/save_file.h"

namespace fovea::cli {

namespace {
struct BenchArguments {
  CommonOptions common;
  std::vector<std::string> parts = {"all"};
  double seconds = 3;
  std::string memory = "torch";
  std::string output;
};

// Tensors from the C library's heap, where a Python process has them: this program is linked with tcmalloc, which takes
// the place of every name of it, so its functions are asked for by library.
class LibcAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* block = bytes > 0 ? memalign_(c10::gAlignment, bytes) : nullptr;
    if (bytes > 0 && block == nullptr) throw std::bad_alloc();
    return {block, block, free_, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return free_; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

 private:
  static void* of_libc(const char* name) {
    static void* const library = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    void* const function = library == nullptr ? nullptr : dlsym(library, name);
    FOVEA_CHECK(function != nullptr, "the C library has no function for --memory torch");
    return function;
  }

  void* (*memalign_)(size_t, size_t) = reinterpret_cast<void* (*)(size_t, size_t)>(of_libc("memalign"));
  void (*free_)(void*) = reinterpret_cast<void (*)(void*)>(of_libc("free"));
};

// Before the first tensor.
void set_memory(const std::string& memory) {
  if (memory == "fovea") {
    setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/1);
  } else {
    static LibcAllocator allocator;
    c10::SetCPUAllocator(&allocator, /*priority=*/1);
  }
}

nlohmann::ordered_json to_json(const recipes::BenchReport& report, const std::string& memory) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const auto& r : report.rows)
    rows.push_back({{"name", r.name},
                    {"shape", r.shape},
                    {"dtype", r.dtype},
                    {"peer", r.peer},
                    {"ours_best_ms", r.ours_best_ms},
                    {"ours_median_ms", r.ours_median_ms},
                    {"peer_best_ms", r.peer_best_ms},
                    {"peer_median_ms", r.peer_median_ms},
                    {"ratio", r.ratio},
                    {"target", r.target},
                    {"ok", r.ok()},
                    {"error", r.error},
                    {"error_bound", r.error_bound},
                    {"dice", r.dice},
                    {"gscores_per_s", r.rate},
                    {"roofline_share", r.roofline_share},
                    {"workspace_bytes", r.workspace_bytes}});
  return {{"isa", report.isa},
          {"cpu", report.cpu},
          {"version", kVersion},
          {"memory", memory},
          {"peaks",
           {{"fma_gflops", report.peaks.fma_gflops},
            {"read_gb_per_s", report.peaks.read_gb_per_s},
            {"two_thread_speed", report.two_thread_speed}}},
          {"peak_resident_bytes", peak_resident_bytes()},
          {"rows", rows}};
}

void print_head() {
  std::printf("%-66s %-4s %9s %9s %7s %7s  %7s %6s %9s %9s %8s\n", "", "", "ours ms", "peer ms", "ratio", "target", "Gs/s",
              "roof", "workspace", "error", "Dice");
}

void print_row(const recipes::BenchRow& r) {
  const std::string what = r.name + "  " + (r.rate > 0 ? r.shape : "");
  std::printf("%-66s %-4s %9.2f %9.2f %7.2f", what.c_str(), r.dtype.c_str(), r.ours_best_ms, r.peer_best_ms, r.ratio);
  r.target > 0 ? std::printf(" %7.2f", r.target) : std::printf(" %7s", "-");
  r.rate > 0 ? std::printf("  %7.3f %5.0f%%", r.rate, 100 * r.roofline_share) : std::printf("  %7s %6s", "-", "-");
  std::printf(" %9s %9.1e", r.workspace_bytes < 0 ? "-" : format_bytes(r.workspace_bytes).c_str(), r.error);
  r.dice >= 0 ? std::printf(" %8.5f", r.dice) : std::printf(" %8s", "-");
  std::printf("  %s\n", r.ok() ? "ok" : "MISS");
  std::fflush(stdout);
}

std::string ratio_plot(const recipes::BenchReport& report) {
  report::BarPlot plot;
  plot.title = "Times as fast as the peer, " + report.isa + ", one thread";
  plot.y_label = "ratio";
  report::Bars reached{"reached", {}}, wanted{"target", {}};
  for (const auto& r : report.rows) {
    plot.categories.push_back(std::to_string(plot.categories.size() + 1));
    reached.values.push_back(r.ratio), wanted.values.push_back(r.target);
  }
  plot.bars = {reached, wanted};
  plot.width = 1600;
  plot.decimals = 1;
  return report::to_svg(plot);
}

void run(const BenchArguments& a) {
  set_memory(a.memory);
  a.common.apply();
  if (!a.output.empty()) require_folder_of(a.output);
  recipes::BenchOptions options;
  options.seconds = a.seconds, options.seed = a.common.seed;
  if (!a.common.json) print_head();
  const auto report = recipes::run_bench(a.parts, options, [&](const recipes::BenchRow& row) {
    if (!a.common.json) print_row(row);
  });
  const auto json = to_json(report, a.memory);
  if (!a.output.empty()) {
    io::write_json(a.output + ".json", json);
    report::save_file(a.output + ".svg", ratio_plot(report));
  }
  if (a.common.json)
    std::printf("%s\n", json.dump(2).c_str());
  else
    std::printf(
        "%s, %s: %.0f GFLOP/s of multiply-adds, %.1f GB/s read, one thread, memory as %s has it; two threads %.2f times that%s\n",
        report.cpu.c_str(), report.isa.c_str(), report.peaks.fma_gflops, report.peaks.read_gb_per_s,
        a.memory.c_str(), report.two_thread_speed,
        recipes::has_two_cores(report.two_thread_speed) ? "" : ", so rows of two threads have no target here");
}
}  // namespace

void add_bench(CLI::App& program) {
  auto a = std::make_shared<BenchArguments>();
  CLI::App* command = program.add_subcommand(
      "bench",
      "Example: fovea bench attention window --json\n\n"
      "Times our operators against torch's on the same numbers, in turns in one process on one thread, after checking\n"
      "both against float64. ratio: how many times as fast; roof: share of what the processor's ports allow.\n"
      "--memory fovea gives both sides huge pages and a heap that keeps freed tensors, as every other fovea command has\n"
      "them: torch gains most.");
  command->add_option("part", a->parts, recipes::bench_part_names())->capture_default_str();
  command->add_option("--seconds", a->seconds, "longest time a row, ours and the peer together")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  command->add_option("--memory", a->memory, "torch: ordinary pages, the C library's heap; fovea: as the other commands have it")
      ->check(CLI::IsMember({"torch", "fovea"}))
      ->capture_default_str();
  command->add_option("-o,--output", a->output, "write OUTPUT.json and a plot, OUTPUT.svg");
  a->common.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace fovea::cli
