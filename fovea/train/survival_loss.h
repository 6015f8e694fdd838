#pragma once
#include <torch/types.h>

#include <cstdint>
#include <vector>

namespace fovea::train {

/// What is known of B patients: `time` [B] of the event, or of the last contact where `event` [B] (bool) is false.
struct SurvivalTensors {
  torch::Tensor time, event;
};

/// How patients with events at the same time are treated.
enum class CoxTies {
  kBreslow,  ///< each has the whole risk set behind it
  kEfron,    ///< the l-th of d has l/d of the tied left out: closer to the exact likelihood
};

/// Negative log partial likelihood of Cox's model, exact risk sets: everybody who is under observation at the event's time,
/// those with the same time included.
///   Breslow  sum over events i of log sum_{j: t_j >= t_i} exp(r_j) - r_i
/// Shapes   risk [B], the log hazard ratio, any float dtype; result a scalar of it, summed over events; divide by their
///          number for a mean. No event: 0, with zero gradients.
/// Cost     O(B log B)
/// Errors   ArgumentError on shapes, or on a time that is not finite
/// Source   Cox 1972; Breslow 1974; Efron 1977, doi:10.1080/01621459.1977.10480613
torch::Tensor cox_loss(const torch::Tensor& risk, const SurvivalTensors& known, CoxTies ties = CoxTies::kEfron);

/// Follow-up cut into intervals: interval k is (cuts[k-1], cuts[k]], the first begins at 0, the last one has no end.
class TimeIntervals {
 public:
  /// Errors  ArgumentError unless cuts are positive and rise.
  explicit TimeIntervals(std::vector<double> cuts);
  /// `count` intervals with about as many events each.
  static TimeIntervals of_equal_events(const SurvivalTensors& known, int64_t count);

  int64_t count() const { return static_cast<int64_t>(cuts_.size()) + 1; }
  const std::vector<double>& cuts() const { return cuts_; }
  /// The interval of each time: int64 [B].
  torch::Tensor of(const torch::Tensor& time) const;

 private:
  std::vector<double> cuts_;
};

// Losses on intervals: the network has one number a patient and interval. interval [B] int64 as TimeIntervals::of() gives
// it, event [B] bool; result: mean over the batch. Somebody censored in interval k is known to have lived through those
// before it. Errors: ArgumentError on shapes or an interval outside of [0, T).

/// Logistic hazard: h = sigmoid(logits) is the probability of the event in an interval of one who has reached it.
///   -log prod_{j<k} (1 - h_j) h_k   for an event;  -log prod_{j<=k} (1 - h_j)   censored
/// Shapes   logits [B,T]
/// Source   Gensheimer and Narasimhan 2019, arXiv:1805.00917
torch::Tensor logistic_hazard_loss(const torch::Tensor& logits, const torch::Tensor& interval, const torch::Tensor& event);
/// Probability of living beyond each interval: [B,T].
torch::Tensor logistic_hazard_survival(const torch::Tensor& logits);

/// Multi-task logistic regression: log odds that add up over the intervals still to come.
///   p = softmax of (sum_{j>=k} logits_j, 0);  -log p_k for an event, -log sum_{j>k} p_j censored
/// Shapes   logits [B,T], T intervals and the time after them
/// Source   Yu et al. 2011 (NeurIPS), "Learning patient-specific cancer survival distributions"
torch::Tensor mtlr_loss(const torch::Tensor& logits, const torch::Tensor& interval, const torch::Tensor& event);
/// Probability of living beyond each interval: [B,T].
torch::Tensor mtlr_survival(const torch::Tensor& logits);

struct DeepHitOptions {
  double likelihood_weight = 0.2;  ///< of the likelihood; the ranking term has the rest
  double sigma = 0.1;              ///< scale of the ranking term's differences
};

/// DeepHit for one risk: p = softmax of (logits, 0), its likelihood as above, and a ranking term.
///   mean over pairs i, j with t_i < t_j and an event of i of exp(-(F_i(t_i) - F_j(t_i)) / sigma), F the summed p
/// Shapes   logits [B,T]
/// Source   Lee et al. 2018 (AAAI), "DeepHit"; the mean is over all B x B pairs, as in pycox
torch::Tensor deephit_loss(const torch::Tensor& logits, const torch::Tensor& interval, const torch::Tensor& event,
                           const DeepHitOptions& options = {});
/// Probability of living beyond each interval: [B,T].
torch::Tensor deephit_survival(const torch::Tensor& logits);

}  // namespace fovea::train
