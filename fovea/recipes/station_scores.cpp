#include "fovea/recipes/station_scores.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "fovea/train/survival_metrics.h"

namespace fovea::recipes {

namespace {
// of(sums over times of three numbers a time), with its interval over resamples of the times.
LeftOutStations::Ratio over_times(const std::vector<std::array<double, 3>>& sums, uint64_t seed,
                                  const std::function<double(double, double, double)>& of) {
  const auto over = [&](const std::vector<size_t>& times) {
    double a = 0, b = 0, n = 0;
    for (const size_t i : times) a += sums[i][0], b += sums[i][1], n += sums[i][2];
    return of(a, b, n);
  };
  std::vector<size_t> all(sums.size());
  std::iota(all.begin(), all.end(), size_t{0});
  const auto interval = train::bootstrap_interval(sums.size(), over, 1000, 0.95, seed);
  return {over(all), interval.low, interval.high};
}

torch::Tensor normal_nll(const torch::Tensor& truth, const Kriged& k) {
  return (std::log(2 * M_PI) + k.variance.log() + (truth - k.mean).square() / k.variance) / 2;
}
}  // namespace

LeftOutStations score_left_out(const StationProblem& p, std::vector<models::StationFusion>& networks,
                               const std::vector<int64_t>& fold_of, const LeftOutOptions& options) {
  torch::NoGradGuard no_grad;
  LeftOutStations r;
  std::vector<std::array<double, 3>> with_kriging, with_kernel, likelihoods, log_likelihoods;
  double covered = 0, log_kriging = 0, inverse_distance = 0, mean = 0;
  for (size_t i = 0; i < p.test.size(); i += size_t(options.every)) {
    const int64_t t = p.test[i];
    const auto here = present_stations(p.table, t);
    std::vector<int64_t> scored;  // columns of `here`
    for (size_t c = 0; c < here.size(); ++c)
      if (fold_of[size_t(here[c])] >= 0) scored.push_back(int64_t(c));
    if (options.time) options.time();
    if (scored.empty()) continue;
    const auto of = torch::tensor(here), columns = torch::tensor(scored);
    const auto values = p.table.values[t].index_select(0, of), d = p.distance.index_select(0, of).index_select(1, of);
    // Baselines on what a line in the first covariate leaves, fitted at this time, the left-out value in it.
    auto line = torch::zeros_like(values);
    if (p.table.covariates.size(2) > 0) {
      const auto x = p.table.covariates[t].index_select(0, of).select(1, 0).to(torch::kFloat64), centred = x - x.mean();
      line = centred * ((centred * values).sum() / centred.square().sum().clamp_min(1e-12));
    }
    const auto flat = values - line;
    const auto sum = [&](const torch::Tensor& each) { return each.index_select(0, columns).sum().item<double>(); };
    const auto squared = [&](const torch::Tensor& predicted) { return sum((predicted + line - values).square()); };
    const Kriged kriged = krige_others(d, flat, p.variogram);
    const double kriging = squared(kriged.mean),
                 kernel = squared(
                     weighted_others((-d.square() / (2 * options.kernel_km * options.kernel_km)).exp() + 1e-300, flat));
    const double kriging_nll = sum(normal_nll(flat, kriged));
    double log_nll = kriging_nll;
    if (p.scaling.root()) {
      const auto logs = values.log1p();
      const Kriged k = krige_others(d, logs, p.log_variogram);
      log_nll = sum(normal_nll(logs, k) + logs);
      log_kriging += sum(((k.mean + k.variance / 2).exp() - 1 - values).square());
    }
    inverse_distance += squared(weighted_others(d.pow(-2), flat)),
        mean += squared(weighted_others(torch::ones_like(d), flat));

    double fusion = 0, fusion_nll = 0;
    for (int64_t f = 0; f < int64_t(networks.size()); ++f) {
      std::vector<int64_t> targets;
      for (const int64_t s : here)
        if (fold_of[size_t(s)] == f) targets.push_back(s);
      if (targets.empty()) continue;
      const auto batch = ask_stations(p.table, p.scaling, t, here, targets);
      const auto a = answer_stations(p.scaling, batch, networks[size_t(f)](batch.measured, batch.targets));
      fusion += (a.mean - batch.truth).square().sum().item<double>(),
          fusion_nll += station_nll(p.scaling, batch, a).sum().item<double>();
      covered += ((a.low <= batch.truth) & (batch.truth <= a.high)).sum().item<double>();
      if (!options.each) continue;
      const auto told = kriged.mean + line;
      for (size_t b = 0; b < targets.size(); ++b) {
        const auto at = int64_t(b),
                   column = int64_t(std::lower_bound(here.begin(), here.end(), targets[b]) - here.begin());
        const auto number = [&](const torch::Tensor& each, int64_t place) { return each[place].item<double>(); };
        options.each->push_back({t, targets[b], number(batch.truth, at), number(a.mean, at), number(a.low, at),
                                 number(a.high, at), number(told, column)});
      }
    }
    const auto n = double(scored.size());
    with_kriging.push_back({fusion, kriging, n}), with_kernel.push_back({fusion, kernel, n});
    likelihoods.push_back({fusion_nll, kriging_nll, n}), log_likelihoods.push_back({fusion_nll, log_nll, n});
    ++r.times, r.values += int64_t(scored.size());
  }
  if (r.values == 0) return r;
  const auto n = double(r.values);
  const auto total = [](const std::vector<std::array<double, 3>>& sums, int which) {
    double sum = 0;
    for (const auto& s : sums) sum += s[size_t(which)];
    return sum;
  };
  r.fusion = std::sqrt(total(with_kriging, 0) / n), r.kriging = std::sqrt(total(with_kriging, 1) / n),
  r.kernel = std::sqrt(total(with_kernel, 1) / n);
  r.log_kriging = p.scaling.root() ? std::sqrt(log_kriging / n) : r.kriging,
  r.inverse_distance = std::sqrt(inverse_distance / n), r.mean = std::sqrt(mean / n);
  r.fusion_nll = total(likelihoods, 0) / n, r.kriging_nll = total(likelihoods, 1) / n,
  r.log_kriging_nll = total(log_likelihoods, 1) / n;
  r.covered = 100 * covered / n;
  const auto ratio = [](double a, double b, double) { return std::sqrt(a / b); };
  r.over_kriging = over_times(with_kriging, options.seed, ratio),
  r.over_kernel = over_times(with_kernel, options.seed, ratio);
  r.nll_gain = over_times(r.kriging_nll < r.log_kriging_nll ? likelihoods : log_likelihoods, options.seed,
                          [](double a, double b, double count) { return (b - a) / count; });
  return r;
}

std::vector<int64_t> station_folds(int64_t stations, int64_t folds, uint64_t seed) {
  std::vector<int64_t> order(static_cast<size_t>(stations)), fold_of(order.size());
  for (size_t s = 0; s < order.size(); ++s) order[s] = int64_t(s);
  Rng rng(seed, 0, 0);
  for (size_t i = 0; i < order.size(); ++i) std::swap(order[i], order[i + rng.below(order.size() - i)]);
  for (size_t i = 0; i < order.size(); ++i) fold_of[size_t(order[i])] = int64_t(i) % folds;
  return fold_of;
}

}  // namespace fovea::recipes
