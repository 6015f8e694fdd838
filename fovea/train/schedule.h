#pragma once
#include <array>
#include <cstdint>
#include <utility>

namespace fovea::train {

enum class ScheduleKind { kCosine, kPolynomial, kConstant };
inline auto config_names(ScheduleKind) {
  return std::array{std::pair{ScheduleKind::kCosine, "cosine"}, std::pair{ScheduleKind::kPolynomial, "polynomial"},
                    std::pair{ScheduleKind::kConstant, "constant"}};
}

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::kCosine;
  double warmup = 0.02;
  double final_factor = 0;
  double power = 0.9;

  template <class V>
  void visit(V& v) {
    v("kind", kind, "decay after the warm-up: cosine, polynomial (nnU-Net) or constant");
    v("warmup", warmup, "share of the training in which the learning rate rises linearly from 0");
    v("final_factor", final_factor, "learning rate at the end, as a share of its peak");
    v("power", power, "exponent of the polynomial decay");
  }
  /// Errors  ArgumentError: warmup or final_factor outside [0, 1], power not positive.
  void validate() const;
};

/// Factor of the peak learning rate for optimizer step `step` (from 0) of `total`. W = round(warmup * total) steps rise
/// as (step + 1) / W; then, with t = (step - W) / (total - W):
///   cosine f + (1 - f) (1 + cos(pi t)) / 2 · polynomial f + (1 - f) (1 - t)^power · constant 1     (f = final_factor)
/// Steps from `total` on keep the final value.
/// Source   Loshchilov & Hutter 2017 (cosine); Isensee et al. 2021 (polynomial, power 0.9)
double schedule_factor_at_step(const ScheduleConfig& config, int64_t step, int64_t total);

/// The same at a share of the training in [0, 1], for runs with a time budget. The rise starts at 1/100, not at 0, so
/// that the first step is no waste.
double schedule_factor_at_fraction(const ScheduleConfig& config, double fraction);

}  // namespace fovea::train
