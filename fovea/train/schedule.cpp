#include "fovea/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "fovea/core/error.h"

namespace fovea::train {
namespace {

double decay(const ScheduleConfig& config, double t) {
  t = std::clamp(t, 0.0, 1.0);
  const double f = config.final_factor;
  switch (config.kind) {
    case ScheduleKind::kCosine:
      return f + (1 - f) * 0.5 * (1 + std::cos(std::numbers::pi * t));
    case ScheduleKind::kPolynomial:
      return f + (1 - f) * std::pow(1 - t, config.power);
    case ScheduleKind::kConstant:
      break;
  }
  return 1;
}

}  // namespace

void ScheduleConfig::validate() const {
  if (!(warmup >= 0 && warmup <= 1))
    throw ArgumentError("schedule: warmup is " + std::to_string(warmup) + ", expected a share in [0, 1]");
  if (!(final_factor >= 0 && final_factor <= 1)) {
    throw ArgumentError("schedule: final_factor is " + std::to_string(final_factor) + ", expected a share in [0, 1]");
  }
  if (!(power > 0)) throw ArgumentError("schedule: power is " + std::to_string(power) + ", expected > 0");
}

double schedule_factor_at_step(const ScheduleConfig& config, int64_t step, int64_t total) {
  const int64_t warmup = std::llround(config.warmup * double(total));
  if (step < warmup) return double(step + 1) / double(warmup);
  return decay(config, total > warmup ? double(step - warmup) / double(total - warmup) : 1);
}

double schedule_factor_at_fraction(const ScheduleConfig& config, double fraction) {
  if (fraction < config.warmup) return std::max(0.01, fraction / config.warmup);
  return decay(config, config.warmup < 1 ? (fraction - config.warmup) / (1 - config.warmup) : 1);
}

}  // namespace fovea::train
