#pragma once
#include <vector>

#include "fovea/train/survival_metrics.h"

namespace fovea::train {

/// The baseline of a proportional hazards model: what turns its risks into probabilities of being without the event.
///   H(t) = sum over event times s <= t of events(s) / sum of exp(risk) over those still at risk at s
///   S(t | risk) = exp(-H(t) exp(risk))
/// Source   Breslow 1972, in the discussion of Cox, doi:10.1111/j.2517-6161.1972.tb00900.x
struct BreslowHazard {
  std::vector<double> times, cumulative;  // distinct event times, rising; H from then on

  double survival(double time, double risk) const;
};

/// risk: of each patient. Cost O(n log n). Errors: ArgumentError on unequal lengths or a risk that is not finite.
BreslowHazard breslow_hazard(const SurvivalData& data, const std::vector<double>& risk);

}  // namespace fovea::train
