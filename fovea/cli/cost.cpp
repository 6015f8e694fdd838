#include <torch/torch.h>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/core/isa.h"
#include "fovea/core/process_memory.h"
#include "fovea/io/image.h"
#include "fovea/kernels/attention_cost.h"

namespace fovea::cli {

namespace {
using kernels::AttentionCost;
using kernels::AttentionLayer;
using kernels::AttentionReach;
using kernels::Triple;
using Json = nlohmann::ordered_json;

struct CostArguments {
  CommonOptions common;
  std::string grid, patch, window = "8", dtype = "f32", reach = "all", max_time = "1m";
  std::filesystem::path image;
  int64_t width = 48, heads = 3;
};

struct Plan {
  AttentionReach reach;
  AttentionCost cost;
  double fused_s, plain_s;
  std::string refused;  // why, or empty
};

// All kinds of attention over the tokens of one patch size.
struct Section {
  Triple patch;
  AttentionLayer layer;
  std::vector<Plan> plans;

  const Plan* find(AttentionReach reach) const {
    for (const Plan& plan : plans)
      if (plan.reach == reach) return &plan;
    return nullptr;
  }
};

std::string text_of(const Triple& t) {
  return std::to_string(t[0]) + "x" + std::to_string(t[1]) + "x" + std::to_string(t[2]);
}

std::vector<AttentionReach> chosen_reaches(const std::string& name) {
  const std::vector<AttentionReach> all = {AttentionReach::kGlobal, AttentionReach::kWindows,
                                           AttentionReach::kShiftedWindows, AttentionReach::kAxes};
  if (name == "all") return all;
  for (const AttentionReach reach : all)
    if (kernels::name_of(reach) == name) return {reach};
  throw ArgumentError("cost: --attention " + name + ": expected global, windows, shifted, axes or all");
}

Triple voxels_of(const CostArguments& a) {
  if (!a.image.empty() && !a.grid.empty()) throw ArgumentError("cost: --image and a grid were both given; give one");
  if (!a.image.empty()) return io::inspect(a.image).geometry.shape;
  return parse_lengths(a.grid.empty() ? "128" : a.grid, "--grid");
}

Section plan_section(const CostArguments& a, const Triple& voxels, const Triple& patch,
                     const kernels::Machine& machine) {
  Section section{
      patch,
      {kernels::token_grid(voxels, patch), parse_lengths(a.window, "--window"), a.width, a.heads, DType::kF32},
      {}};
  if (a.dtype == "bf16")
    section.layer.dtype = DType::kBF16;
  else if (a.dtype != "f32")
    throw ArgumentError("cost: --dtype " + a.dtype + ": expected f32 or bf16");
  const double longest_s = parse_duration_s(a.max_time, "--max-time");
  for (const AttentionReach reach : chosen_reaches(a.reach)) {
    const AttentionCost cost = kernels::attention_cost(reach, section.layer);
    section.plans.push_back({reach, cost, kernels::fused_seconds(cost, section.layer, machine),
                             kernels::plain_seconds(cost, section.layer, machine),
                             kernels::why_refused(cost, section.layer, machine, longest_s)});
  }
  return section;
}

// Global over windowed attention: dot products, and all multiply-adds.
std::optional<std::array<double, 2>> saving(const Section& s) {
  const Plan *global = s.find(AttentionReach::kGlobal), *windows = s.find(AttentionReach::kWindows);
  if (!global || !windows) return {};
  return {{double(global->cost.pairs) / double(windows->cost.pairs),
           global->cost.multiply_adds() / windows->cost.multiply_adds()}};
}

Json to_json(const Section& s) {
  Json plans = Json::array();
  for (const Plan& p : s.plans)
    plans.push_back({{"attention", kernels::name_of(p.reach)},
                     {"tokens", p.cost.tokens},
                     {"dot_products_a_head", p.cost.pairs},
                     {"score_flop", p.cost.score_flops},
                     {"projection_flop", p.cost.projection_flops},
                     {"exponentials", p.cost.exponentials},
                     {"plain_score_bytes", p.cost.plain_bytes},
                     {"lse_bytes", p.cost.lse_bytes},
                     {"tensor_bytes", p.cost.tensor_bytes},
                     {"fused_seconds", std::isfinite(p.fused_s) ? Json(p.fused_s) : Json()},
                     {"plain_seconds", std::isfinite(p.plain_s) ? Json(p.plain_s) : Json()},
                     {"refused", p.refused.empty() ? Json() : Json(p.refused)}});
  Json section = {{"patch", s.patch}, {"token_grid", s.layer.grid}, {"tokens", s.layer.tokens()}, {"plans", plans}};
  if (const auto ratio = saving(s))
    section["windows_save"] = {{"dot_products", (*ratio)[0]}, {"with_projections", (*ratio)[1]}};
  return section;
}

void print_section(const Section& s) {
  std::printf("\n%lld tokens (%s), patches of %s voxels\n", static_cast<long long>(s.layer.tokens()),
              text_of(s.layer.grid).c_str(), text_of(s.patch).c_str());
  std::printf("  %-8s %14s %13s %13s %11s %10s %11s %11s\n", "", "dot products", "score", "projection", "plain form",
              "ours", "ours takes", "plain takes");
  std::printf("  %-8s %14s %13s %13s %11s %10s %11s %11s\n", "", "a head", "GFLOP", "GFLOP", "stores", "stores",
              "at best", "at best");
  for (const Plan& p : s.plans)
    std::printf("  %-8s %14lld %13.4g %13.4g %11s %10s %11s %11s\n", kernels::name_of(p.reach).c_str(),
                static_cast<long long>(p.cost.pairs), 1e-9 * p.cost.score_flops, 1e-9 * p.cost.projection_flops,
                format_bytes(p.cost.plain_bytes).c_str(), format_bytes(p.cost.lse_bytes).c_str(),
                p.refused.empty() ? kernels::format_seconds(p.fused_s).c_str() : "refused",
                p.refused.empty() ? kernels::format_seconds(p.plain_s).c_str() : "refused");
  if (const auto ratio = saving(s))
    std::printf("  windows save a factor of %.4g in dot products, %.4g with projections\n", (*ratio)[0], (*ratio)[1]);
  for (const Plan& p : s.plans)
    if (!p.refused.empty())
      std::printf("  %s attention refused: %s\n", kernels::name_of(p.reach).c_str(), p.refused.c_str());
}

void run(const CostArguments& a) {
  a.common.apply();
  const Triple voxels = voxels_of(a);
  std::vector<Triple> patches = {{1, 1, 1}, {8, 8, 8}};
  if (!a.patch.empty()) patches = {parse_lengths(a.patch, "--patch")};
  kernels::Machine machine;
  for (const Triple& patch : patches) plan_section(a, voxels, patch, machine);  // refuses bad input before it measures
  machine = kernels::this_machine(torch::get_num_threads());
  std::vector<Section> sections;
  for (const Triple& patch : patches) sections.push_back(plan_section(a, voxels, patch, machine));

  const bool one = sections.size() == 1 && sections.front().plans.size() == 1;
  if (one && !sections.front().plans.front().refused.empty())
    throw ResourceError("cost: " + a.reach + " attention: " + sections.front().plans.front().refused +
                        "; use windows or larger patches");
  if (a.common.json) {
    Json all = Json::array();
    for (const Section& s : sections) all.push_back(to_json(s));
    const AttentionLayer& layer = sections.front().layer;
    const Json out = {{"voxels", voxels},
                      {"window", layer.window},
                      {"width", layer.width},
                      {"heads", layer.heads},
                      {"dtype", a.dtype},
                      {"machine",
                       {{"isa", name_of(chosen_isa())},
                        {"threads", machine.threads},
                        {"memory_bytes", machine.memory_bytes},
                        {"fma_gflops_a_thread", machine.peaks.fma_gflops},
                        {"read_gb_per_s_a_thread", machine.peaks.read_gb_per_s}}},
                      {"grids", all}};
    return void(std::printf("%s\n", out.dump(2).c_str()));
  }
  std::printf("%s voxels, width %lld, %lld heads, %s, windows of %s tokens\n", text_of(voxels).c_str(),
              static_cast<long long>(a.width), static_cast<long long>(a.heads), a.dtype.c_str(),
              text_of(sections.front().layer.window).c_str());
  std::printf("this machine: %d threads (%s) of %.0f GFLOP/s and %.1f GB/s, measured now; %s\n", machine.threads,
              name_of(chosen_isa()).c_str(), machine.peaks.fma_gflops, machine.peaks.read_gb_per_s,
              format_bytes(machine.memory_bytes).c_str());
  for (const Section& s : sections) print_section(s);
}
}  // namespace

void add_cost(CLI::App& program) {
  auto a = std::make_shared<CostArguments>();
  CLI::App* command = program.add_subcommand("cost",
                                             "Example: fovea cost 128 --patch 8 --window 8 --width 96 --heads 6\n\n"
                                             "What one self-attention layer costs before it is built: tokens, dot "
                                             "products, FLOP, bytes of scores that the plain\n"
                                             "form stores and ours does not, and the time that a forward pass takes at "
                                             "this machine's peaks, for global, windowed,\n"
                                             "shifted-window and axial attention. Nothing but the peaks is run. "
                                             "Without --patch: voxels and 8x8x8 patches as tokens.");
  command->add_option("grid,--grid", a->grid, "voxels, one edge or Z,Y,X (default: 128)");
  command->add_option("--image", a->image, "take the grid of this scan");
  command->add_option("--patch", a->patch, "voxels a token, one edge or Z,Y,X (default: 1 and 8)");
  command->add_option("--window", a->window, "tokens a window, one edge or Z,Y,X; clipped to the grid")
      ->capture_default_str();
  command->add_option("--width", a->width, "numbers a token, all heads together")->capture_default_str();
  command->add_option("--heads", a->heads, "attention heads; divides the width")->capture_default_str();
  command->add_option("--dtype", a->dtype, "f32 or bf16")->capture_default_str();
  command
      ->add_option("--attention", a->reach,
                   "global, windows, shifted, axes or all; refused with exit code 3 if the only plan asked for is")
      ->capture_default_str();
  command
      ->add_option("--max-time", a->max_time, "longest forward pass that is not refused where scores cannot be stored")
      ->capture_default_str();
  a->common.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace fovea::cli
