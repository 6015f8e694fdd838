#include "fovea/train/survival_loss.h"

#include <torch/torch.h>

#include <algorithm>
#include <limits>

#include "fovea/core/error.h"

namespace fovea::train {
namespace {
using torch::Tensor;

std::string sizes_of(const Tensor& t) { return c10::str(t.sizes()); }

void check_known(const char* loss, int64_t patients, const SurvivalTensors& known) {
  if (known.time.dim() != 1 || known.time.size(0) != patients)
    throw ArgumentError(c10::str(loss, ": time has shape ", sizes_of(known.time), ", expected [", patients, "], one a patient"));
  if (known.event.sizes() != known.time.sizes() || known.event.scalar_type() != torch::kBool)
    throw ArgumentError(c10::str(loss, ": event has shape ", sizes_of(known.event), " of ", known.event.scalar_type(), ", expected bool [", patients, "]"));
  if (!known.time.isfinite().all().item<bool>()) throw ArgumentError(c10::str(loss, ": a time is not finite; leave such patients out"));
}

void check_intervals(const char* loss, const Tensor& logits, const Tensor& interval, const Tensor& event) {
  if (logits.dim() != 2 || logits.size(1) == 0) throw ArgumentError(c10::str(loss, ": logits have shape ", sizes_of(logits), ", expected [B,T], T >= 1"));
  const int64_t B = logits.size(0), T = logits.size(1);
  if (interval.dim() != 1 || interval.size(0) != B || interval.scalar_type() != torch::kLong)
    throw ArgumentError(c10::str(loss, ": interval has shape ", sizes_of(interval), " of ", interval.scalar_type(), ", expected int64 [", B, "]"));
  if (event.sizes() != interval.sizes() || event.scalar_type() != torch::kBool)
    throw ArgumentError(c10::str(loss, ": event has shape ", sizes_of(event), " of ", event.scalar_type(), ", expected bool [", B, "]"));
  if (B == 0) return;
  const int64_t lowest = interval.min().item<int64_t>(), highest = interval.max().item<int64_t>();
  if (lowest < 0 || highest >= T)
    throw ArgumentError(c10::str(loss, ": interval ", lowest < 0 ? lowest : highest, ", expected 0 to ", T - 1, ": the logits have ", T, " intervals"));
}

Tensor mean_or_zero(const Tensor& each, const Tensor& logits) { return each.size(0) == 0 ? logits.sum() * 0 : each.mean(); }

/// log p [B,T+1] of the intervals and the time after them.
Tensor log_masses(const Tensor& scores) { return torch::log_softmax(torch::constant_pad_nd(scores, {0, 1}), 1); }

Tensor backwards_cumsum(const Tensor& t) { return t.flip(1).cumsum(1).flip(1); }

/// -log p_k of events, -log sum_{j>k} p_j of the others: [B].
Tensor mass_likelihood(const Tensor& log_mass, const Tensor& interval, const Tensor& event) {
  const auto at = interval.unsqueeze(1);
  const auto later = torch::logcumsumexp(log_mass.flip(1), 1).flip(1);  // log sum_{j>=k}
  return -torch::where(event, log_mass.gather(1, at).squeeze(1), later.gather(1, at + 1).squeeze(1));
}

Tensor survival_of_masses(const Tensor& scores) { return 1 - log_masses(scores).exp().cumsum(1).narrow(1, 0, scores.size(1)); }
}  // namespace

Tensor cox_loss(const Tensor& risk, const SurvivalTensors& known, CoxTies ties) {
  if (risk.dim() != 1) throw ArgumentError("cox_loss: risk has shape " + sizes_of(risk) + ", expected [B]");
  check_known("cox_loss", risk.size(0), known);
  if (!known.event.any().item<bool>()) return risk.sum() * 0;
  // Latest first: the risk set of a patient is everybody up to the last one of the same time. In double, hazards relative
  // to the largest: risks may differ by 700 before a risk set vanishes beside another.
  const auto order = known.time.argsort(/*stable=*/true, /*dim=*/0, /*descending=*/true);
  const auto r = risk.index_select(0, order).to(torch::kDouble), event = known.event.index_select(0, order);
  const auto [times, group, sizes] = torch::unique_consecutive(known.time.index_select(0, order), /*return_inverse=*/true, /*return_counts=*/true);
  const auto largest = r.detach().max(), hazard = (r - largest).exp();
  auto at_risk = hazard.cumsum(0).index_select(0, sizes.cumsum(0) - 1).index_select(0, group);  // of each patient
  if (ties == CoxTies::kEfron) {
    const auto died = event.to(torch::kDouble);
    const auto over_group = [&](const Tensor& t) { return torch::zeros({times.size(0)}, t.options()).index_add(0, group, t); };
    const auto deaths = over_group(died);
    const auto earlier = died.cumsum(0) - died - (deaths.cumsum(0) - deaths).index_select(0, group);  // 0 .. d-1 of the tied
    at_risk = at_risk - died * earlier / deaths.index_select(0, group).clamp_min(1) * over_group(died * hazard).index_select(0, group);
  }
  return (at_risk.clamp_min(std::numeric_limits<double>::min()).log() + largest - r).masked_select(event).sum().to(risk.scalar_type());
}

TimeIntervals::TimeIntervals(std::vector<double> cuts) : cuts_(std::move(cuts)) {
  for (size_t i = 0; i < cuts_.size(); ++i)
    if (!(cuts_[i] > (i == 0 ? 0 : cuts_[i - 1])))
      throw ArgumentError(c10::str("time intervals: cut ", i, " is ", cuts_[i], ", expected more than ", i == 0 ? 0 : cuts_[i - 1]));
}

TimeIntervals TimeIntervals::of_equal_events(const SurvivalTensors& known, int64_t count) {
  if (count < 1) throw ArgumentError(c10::str("time intervals: ", count, " wanted, expected at least 1"));
  check_known("time intervals", known.time.size(0), known);
  const auto sorted = std::get<0>(known.time.to(torch::kDouble).masked_select(known.event).sort());
  std::vector<double> cuts;
  for (int64_t k = 1; k < count && sorted.size(0) > 0; ++k) {
    const double cut = sorted[std::min(sorted.size(0) - 1, sorted.size(0) * k / count)].item<double>();
    if (cut > (cuts.empty() ? 0 : cuts.back())) cuts.push_back(cut);
  }
  return TimeIntervals(std::move(cuts));
}

Tensor TimeIntervals::of(const Tensor& time) const {
  return torch::searchsorted(torch::tensor(cuts_, torch::kDouble), time.to(torch::kDouble).contiguous());
}

Tensor logistic_hazard_loss(const Tensor& logits, const Tensor& interval, const Tensor& event) {
  check_intervals("logistic_hazard_loss", logits, interval, event);
  const auto steps = torch::arange(logits.size(1)), at = interval.unsqueeze(1);
  const auto target = (steps == at).logical_and(event.unsqueeze(1)).to(logits.scalar_type());
  const auto each = torch::binary_cross_entropy_with_logits(logits, target, {}, {}, at::Reduction::None);
  return mean_or_zero((each * (steps <= at).to(logits.scalar_type())).sum(1), logits);
}

Tensor logistic_hazard_survival(const Tensor& logits) { return torch::log_sigmoid(-logits).cumsum(1).exp(); }

Tensor mtlr_loss(const Tensor& logits, const Tensor& interval, const Tensor& event) {
  check_intervals("mtlr_loss", logits, interval, event);
  return mean_or_zero(mass_likelihood(log_masses(backwards_cumsum(logits)), interval, event), logits);
}

Tensor mtlr_survival(const Tensor& logits) { return survival_of_masses(backwards_cumsum(logits)); }

Tensor deephit_loss(const Tensor& logits, const Tensor& interval, const Tensor& event, const DeepHitOptions& options) {
  check_intervals("deephit_loss", logits, interval, event);
  if (logits.size(0) == 0) return logits.sum() * 0;
  const auto log_mass = log_masses(logits);
  const auto likelihood = mass_likelihood(log_mass, interval, event).mean();
  const auto reached = log_mass.exp().narrow(1, 0, logits.size(1)).cumsum(1);                       // F_i(t): [B,T]
  const auto at_own = reached.gather(1, interval.unsqueeze(1));                                     // F_i(t_i): [B,1]
  const auto of_others = reached.index_select(1, interval).t();                                     // F_j(t_i): [i,j]
  const auto later = interval.unsqueeze(1) < interval.unsqueeze(0);                                 // t_i < t_j
  const auto tied = (interval.unsqueeze(1) == interval.unsqueeze(0)).logical_and(event.logical_not().unsqueeze(0));
  const auto counts = later.logical_or(tied).logical_and(event.unsqueeze(1)).to(logits.scalar_type());
  const auto ranking = (counts * torch::exp((of_others - at_own) / options.sigma)).mean();
  return options.likelihood_weight * likelihood + (1 - options.likelihood_weight) * ranking;
}

Tensor deephit_survival(const Tensor& logits) { return survival_of_masses(logits); }

}  // namespace fovea::train
