#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/data/plan.h"
#include "fovea/infer/memory_plan.h"
#include "fovea/io/config.h"
#include "fovea/ops/parallel.h"
#include "fovea/recipes/training_memory.h"

namespace fovea::cli {

namespace {
namespace fs = std::filesystem;

struct PlanArguments {
  CommonOptions common;
  fs::path dataset, output;
  std::string max_ram = "4G", spacing, patch, network = "swin_unetr_12";
  int64_t batch = 0;
  bool verify = false;
};

void list_problems(const PlanArguments& a, const data::Dataset& dataset) {
  const auto problems = data::verify(dataset, ops::torch_parallel_for);
  if (a.common.json) std::printf("%s\n", nlohmann::ordered_json({{"dataset", dataset.name}, {"problems", problems}}).dump(2).c_str());
  else
    for (const std::string& line : problems) std::printf("%s\n", line.c_str());
  if (!problems.empty()) throw IoError(a.dataset, problems.size() == 1 ? "1 problem found, expected none; it is listed above"
                                                : std::to_string(problems.size()) + " problems found, expected none; each is listed above");
  if (!a.common.json) std::printf("%s: %zu training and %zu test cases, no problems\n", dataset.name.c_str(), dataset.training.size(), dataset.test.size());
}

void run(const PlanArguments& a) {
  a.common.apply();
  if (!a.output.empty()) require_folder_of(a.output);
  const auto dataset = data::open_dataset(a.dataset);
  if (a.verify) return list_problems(a, dataset);
  data::PlanOptions options;
  options.max_ram_bytes = infer::parse_bytes(a.max_ram);
  options.network = a.network;
  options.memory_bytes = recipes::training_memory_estimate(a.network, nlohmann::ordered_json::object());  // refuses an unknown name before any scan is read
  options.parallel = ops::torch_parallel_for;
  if (!a.spacing.empty()) options.spacing_mm = parse_triple(a.spacing, "--spacing");
  if (!a.patch.empty()) options.patch_size = parse_whole_triple(a.patch, "--patch");
  if (a.batch > 0) options.batch_size = a.batch;
  const data::Plan plan = data::make_plan(dataset, options);
  if (!a.output.empty()) {
    io::write_json(a.output, io::to_json(plan));
    std::printf("%s\n", a.output.c_str());
  } else {
    std::printf("%s", a.common.json ? (io::to_json(plan).dump(2) + "\n").c_str() : io::print_with_comments(plan).c_str());
  }
}
}  // namespace

void add_plan(CLI::App& program) {
  auto a = std::make_shared<PlanArguments>();
  CLI::App* command = program.add_subcommand("plan",
      "Example: fovea plan -d Dataset004_Hippocampus --max-ram 8G -o plan.json\n\n"
      "Decides grid, normalisation, patch and batch for a dataset and a stated memory budget. --verify lists every broken case instead.");
  command->add_option("-d,--dataset", a->dataset, "nnU-Net folder, Decathlon datalist, or folder with imagesTr and labelsTr")->required();
  command->add_option("-o,--output", a->output, "plan file; none: print it with comments");
  command->add_option("--max-ram", a->max_ram, "memory that training may take")->capture_default_str();
  command->add_option("--spacing", a->spacing, "voxel size of the network's grid in mm: Z,Y,X (default: the median)");
  command->add_option("--patch", a->patch, "patch in voxels: Z,Y,X (default: the largest that fits)");
  command->add_option("--batch", a->batch, "patches a step")->check(CLI::Range(1, 4096));
  command->add_option("--network", a->network, "network or preset")->capture_default_str();
  command->add_flag("--verify", a->verify, "list every broken case and stop");
  a->common.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace fovea::cli
