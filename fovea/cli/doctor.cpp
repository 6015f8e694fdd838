#include <sys/statvfs.h>
#include <torch/torch.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/core/isa.h"
#include "fovea/core/process_memory.h"
#include "fovea/core/version.h"
#include "fovea/ops/window_attention.h"

namespace fovea::cli {

namespace {
namespace fs = std::filesystem;

double gib(double bytes) { return bytes / (1024.0 * 1024 * 1024); }

// Largest difference between the fast kernel and the double definition on one shifted, padded problem.
double kernel_error() {
  torch::NoGradGuard no_grad;
  torch::Generator generator = at::detail::createCPUGenerator(7);
  const auto qkv = torch::randn({1, 7, 9, 10, 3, 2, 16}, generator, torch::kFloat64);
  const auto table = torch::randn({7 * 7 * 7, 2}, generator, torch::kFloat64);
  const auto fast = std::get<0>(ops::window_attention(qkv.to(torch::kFloat32), table.to(torch::kFloat32), {4, 4, 4}, {2, 2, 2}));
  const auto exact = std::get<0>(ops::window_attention(qkv, table, {4, 4, 4}, {2, 2, 2}));
  return (fast.to(torch::kFloat64) - exact).abs().max().item<double>();
}

// OpenMP runtimes mapped into this process; two of them would fight over threads and scratch memory.
int openmp_runtimes() {
  std::ifstream maps("/proc/self/maps");
  std::vector<std::string> seen;
  for (std::string line; std::getline(maps, line);) {
    const size_t at = line.find('/');
    if (at == line.npos) continue;
    const std::string name = fs::path(line.substr(at)).filename();
    if ((name.rfind("libgomp", 0) == 0 || name.rfind("libomp", 0) == 0 || name.rfind("libiomp", 0) == 0) &&
        std::find(seen.begin(), seen.end(), line.substr(at)) == seen.end())
      seen.push_back(line.substr(at));
  }
  return static_cast<int>(seen.size());
}

struct Finding {
  std::string name, value, advice;  // advice empty: fine
};

std::vector<Finding> examine() {
  std::vector<Finding> found;
  auto add = [&](std::string name, std::string value, bool fine = true, std::string advice = "") {
    found.push_back({std::move(name), std::move(value), fine ? "" : std::move(advice)});
  };
  char text[128];
  add("fovea", kVersion);
  add("libtorch", TORCH_VERSION);
  add("processor", cpu_model());
  add("instruction set", name_of(chosen_isa()), chosen_isa() != Isa::kBaseline, "no AVX2: the slow reference kernels are used");
  add("threads", std::to_string(torch::get_num_threads()));
  const MachineMemory memory = machine_memory();
  std::snprintf(text, sizeof text, "%.1f GiB, %.1f GiB free", gib(memory.total_bytes), gib(memory.free_bytes));
  add("memory", text);
  struct statvfs disk {};
  if (statvfs(".", &disk) == 0) {
    const double free_gib = gib(double(disk.f_bavail) * double(disk.f_frsize));
    std::snprintf(text, sizeof text, "%.1f GiB free here", free_gib);
    add("disk", text, free_gib > 1, "less than 1 GiB free: checkpoints may not fit");
  }
  const double error = kernel_error();
  std::snprintf(text, sizeof text, "max error %.1e against double", error);
  add("attention kernel", text, error < 2e-6, "above 2e-6: please report this processor");
  const int runtimes = openmp_runtimes();
  add("OpenMP runtimes", std::to_string(runtimes), runtimes <= 1, "two thread pools in one process: unset LD_PRELOAD");
  const bool demo = fs::exists("/usr/share/mricron/templates/ch2.nii.gz");
  add("demo data", demo ? "mricron-data" : "absent", demo, "apt-get install mricron-data");
  return found;
}
}  // namespace

void add_doctor(CLI::App& program) {
  auto common = std::make_shared<CommonOptions>();
  CLI::App* command = program.add_subcommand("doctor", "Example: fovea doctor\n\nLooks at this machine before a long job: processor, memory, disk, kernels against their definition.");
  common->add_to(*command);
  command->callback([common] {
    common->apply();
    const auto found = examine();
    std::string advice;
    nlohmann::ordered_json json = nlohmann::ordered_json::array();
    for (const Finding& f : found) {
      json.push_back({{"name", f.name}, {"value", f.value}, {"ok", f.advice.empty()}, {"advice", f.advice}});
      if (!common->json) std::printf("%-4s %-18s %s%s%s\n", f.advice.empty() ? "ok" : "LOOK", f.name.c_str(), f.value.c_str(), f.advice.empty() ? "" : ": ", f.advice.c_str());
    }
    if (common->json) std::printf("%s\n", json.dump(2).c_str());
  });
}

}  // namespace fovea::cli
