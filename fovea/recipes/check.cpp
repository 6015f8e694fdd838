#include "fovea/recipes/check.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "fovea/core/error.h"

namespace fovea::recipes {

bool Figure::ok() const {
  switch (rule) {
    case Rule::kAtMost: return value <= target;
    case Rule::kAtLeast: return value >= target;
    default: return value == target;
  }
}

bool CheckResult::passed() const {
  return !figures.empty() && std::all_of(figures.begin(), figures.end(), [](const Figure& f) { return f.ok(); });
}

const std::vector<RowCheck>& row_checks() {
  static const std::vector<RowCheck> rows = {
      {"P1", "scaled dot-product attention: definition, why it is scaled, softmax as a budget, memory", check_scaled_dot_product},
      {"P2", "3-D patch embedding: token counts, both forms, positions, exact unpatchify", check_patch_embedding},
      {"P3", "global attention: counts, cost and its N^2, two distant nodules", check_global_attention},
      {"P4", "windowed attention: definition, parameter counts, linear cost, memory", check_window_attention},
      {"P5", "shifted windows: regions, receptive field, no leak over the border, two distant nodules", check_shifted_windows},
      {"P6", "several heads: parameters, the same as single heads side by side, three tissues", check_heads},
      {"P7", "relative position bias: index, equivariance, the right-neighbour task", check_relative_bias},
      {"P8", "QK-norm: implicit temperature, bounded scores, learning-rate sweep on Fashion-MNIST", check_qk_norm},
      {"A1", "kernel regression is attention: equality, error slopes, bandwidth, real stations", check_kernel_regression},
      {"A2", "multiple instances: who finds the digit that tells, tables of instances, a bag of 100 000 rows", check_multiple_instance},
      {"A3", "deformable attention: definition, the ring of radius sigma, simulated lesions of unequal size", check_deformable_attention},
      {"A4", "spatial attention: counts, definition, cost beside a convolution, map of simulated lesions", check_spatial_attention},
      {"A5", "CT asks PET on its own grid: simulated pairs, a PET that is moved, none", check_cross_attention},
      {"A6", "co-attention of scan and table: MCAT's loss, side XOR flag, where the flag looks", check_co_attention},
      {"A7", "report text as query: named lobes, left and right, a gate that noise closes (simulated)", check_report_text},
      {"A8", "radiomics token: features equal to published ones, whom a class token trusts", check_radiomics},
      {"A9", "masked autoencoder: what is hidden, what it costs, real scans rebuilt, labels saved", check_masked_autoencoder},
      {"A10", "prognosis: Cox as R fits it, Rotterdam to GBSG, outline and outcome on one trunk", check_prognosis},
      {"A11", "alignments: axes and their cost, contacts of simulated and real families beside statistics", check_alignments},
      {"A12", "differential equations: rotary scores, Green's functions in learned kernels, Burgers beside FNO", check_greens_function},
      {"A13", "stations and grids: simulated fields beside their exact posterior, real stations left out beside kriging", check_station_fusion},
  };
  return rows;
}

std::vector<CheckResult> run_checks(const std::vector<std::string>& names, const CheckOptions& options,
                                    const std::function<void(const CheckResult&)>& done) {
  std::vector<std::string> known;
  for (const RowCheck& row : row_checks()) known.push_back(row.row);
  std::vector<const RowCheck*> chosen;
  for (const std::string& name : names) {
    size_t before = chosen.size();
    for (const RowCheck& row : row_checks())
      if (name == "all" || name == row.row) chosen.push_back(&row);
    if (chosen.size() == before) {
      std::string list;
      for (const std::string& k : known) list += " " + k;
      throw ArgumentError("check: row " + name + " has no acceptance test in this version, expected one of" + list + " or all");
    }
  }
  std::vector<CheckResult> results;
  for (const RowCheck* row : chosen) {
    const auto start = std::chrono::steady_clock::now();
    CheckResult result = row->run(options);
    result.row = row->row;
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (done) done(result);
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace fovea::recipes
