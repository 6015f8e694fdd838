#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace fovea::recipes {

/// A measured number beside what it must be.
struct Figure {
  enum class Rule { kAtMost, kAtLeast, kEqual };
  std::string name;
  double value = 0;
  Rule rule = Rule::kEqual;
  double target = 0;

  /// NaN is never ok.
  bool ok() const;
};

/// What a row's acceptance test found.
struct CheckResult {
  std::string row;
  std::vector<Figure> figures;
  std::vector<std::string> notes;  // what could not be measured here, and why
  double seconds = 0;

  void at_most(const std::string& name, double value, double target) { figures.push_back({name, value, Figure::Rule::kAtMost, target}); }
  void at_least(const std::string& name, double value, double target) { figures.push_back({name, value, Figure::Rule::kAtLeast, target}); }
  void equal(const std::string& name, double value, double target) { figures.push_back({name, value, Figure::Rule::kEqual, target}); }
  bool passed() const;
};

struct CheckOptions {
  bool full = false;  // the long version
  uint64_t seed = 0;
};

/// The acceptance test of one mission row.
struct RowCheck {
  std::string row;      // "P2"
  std::string summary;  // one line
  std::function<CheckResult(const CheckOptions&)> run;
};

/// Every row that can be checked, in mission order: a plain list.
const std::vector<RowCheck>& row_checks();

/// Runs the named rows ("P2", "A4", "all"). ArgumentError for a name that is no row or has no test yet.
std::vector<CheckResult> run_checks(const std::vector<std::string>& rows, const CheckOptions& options,
                                    const std::function<void(const CheckResult&)>& done = {});

CheckResult check_scaled_dot_product(const CheckOptions& options);  // P1
CheckResult check_patch_embedding(const CheckOptions& options);   // P2
CheckResult check_global_attention(const CheckOptions& options);  // P3
CheckResult check_window_attention(const CheckOptions& options);  // P4
CheckResult check_shifted_windows(const CheckOptions& options);   // P5
CheckResult check_heads(const CheckOptions& options);             // P6
CheckResult check_relative_bias(const CheckOptions& options);     // P7
CheckResult check_qk_norm(const CheckOptions& options);           // P8
CheckResult check_kernel_regression(const CheckOptions& options);  // A1
CheckResult check_multiple_instance(const CheckOptions& options);  // A2
CheckResult check_deformable_attention(const CheckOptions& options);  // A3
CheckResult check_spatial_attention(const CheckOptions& options);  // A4
CheckResult check_cross_attention(const CheckOptions& options);   // A5
CheckResult check_co_attention(const CheckOptions& options);      // A6
CheckResult check_report_text(const CheckOptions& options);        // A7
CheckResult check_radiomics(const CheckOptions& options);          // A8
CheckResult check_masked_autoencoder(const CheckOptions& options);  // A9
CheckResult check_prognosis(const CheckOptions& options);         // A10
CheckResult check_alignments(const CheckOptions& options);         // A11
CheckResult check_greens_function(const CheckOptions& options);    // A12
CheckResult check_station_fusion(const CheckOptions& options);  // A13

}  // namespace fovea::recipes
