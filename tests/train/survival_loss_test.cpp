#include "fovea/train/survival_loss.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "fovea/train/cox_regression.h"
#include "message_of.h"

namespace fovea::train {
namespace {
using torch::Tensor;

struct Cohort {
  SurvivalTensors known;
  Tensor risk;
};

/// Whole months, so that many times are tied, events among them.
Cohort cohort(int64_t patients, uint64_t seed) {
  torch::manual_seed(static_cast<int64_t>(seed));
  return {{torch::randint(1, 9, {patients}).to(torch::kDouble), torch::rand({patients}) < 0.6}, torch::randn({patients}, torch::kDouble)};
}

/// The definition: for the l-th of d events at a time, log(sum over the risk set - l/d of the tied) - risk.
double by_definition(const Cohort& c, CoxTies ties) {
  const int64_t n = c.risk.size(0);
  const auto time = [&](int64_t i) { return c.known.time[i].item<double>(); };
  const auto event = [&](int64_t i) { return c.known.event[i].item<bool>(); };
  const auto hazard = [&](int64_t i) { return std::exp(c.risk[i].item<double>()); };
  double loss = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!event(i)) continue;
    double at_risk = 0, tied = 0, deaths = 0, earlier = 0;
    for (int64_t j = 0; j < n; ++j) {
      if (time(j) >= time(i)) at_risk += hazard(j);
      if (time(j) == time(i) && event(j)) tied += hazard(j), ++deaths, earlier += j < i;
    }
    loss += std::log(at_risk - (ties == CoxTies::kEfron ? earlier / deaths * tied : 0)) - std::log(hazard(i));
  }
  return loss;
}

TEST(CoxLoss, EqualsTheDefinitionWithTiedTimesAndItsGradientFiniteDifferences) {
  for (const auto ties : {CoxTies::kBreslow, CoxTies::kEfron})
    for (const int64_t n : {1, 2, 7, 40}) {
      Cohort c = cohort(n, 3 + n);
      c.known.event[0] = true;
      c.risk.requires_grad_();
      const Tensor loss = cox_loss(c.risk, c.known, ties);
      EXPECT_NEAR(loss.item<double>(), by_definition(c, ties), 1e-12 * n * n) << n;
      const Tensor gradient = torch::autograd::grad({loss}, {c.risk})[0];
      for (int64_t i = 0; i < n; ++i) {
        constexpr double kStep = 1e-5;
        Cohort up = c, down = c;
        up.risk = c.risk.detach().clone(), down.risk = c.risk.detach().clone();
        up.risk[i] += kStep, down.risk[i] -= kStep;
        EXPECT_NEAR(gradient[i].item<double>(), (by_definition(up, ties) - by_definition(down, ties)) / (2 * kStep), 1e-8) << i;
      }
    }
}

TEST(CoxLoss, ABatchOfCensoredPatientsHasLossZeroAndNoGradient) {
  const Tensor risk = torch::randn({5}).requires_grad_();
  const Tensor loss = cox_loss(risk, {torch::rand({5}), torch::zeros({5}, torch::kBool)});
  loss.backward();
  EXPECT_EQ(loss.item<float>(), 0);
  EXPECT_TRUE(risk.grad().equal(torch::zeros({5})));
}

TEST(CoxLoss, RisksOfHundredsStayFinite) {
  const Tensor risk = torch::tensor({600.f, -600.f, 0.f}).requires_grad_();
  const Tensor loss = cox_loss(risk, {torch::tensor({3.0, 2.0, 1.0}), torch::ones({3}, torch::kBool)});
  loss.backward();
  EXPECT_TRUE(std::isfinite(loss.item<float>()));
  EXPECT_TRUE(risk.grad().isfinite().all().item<bool>());
}

TEST(CoxLoss, RefusalsNameTheArgument) {
  const Tensor event = torch::ones({3}, torch::kBool);
  EXPECT_THAT(message_of([&] { cox_loss(torch::zeros({3, 1}), {torch::ones({3}), event}); }), testing::HasSubstr("risk has shape [3, 1], expected [B]"));
  EXPECT_THAT(message_of([&] { cox_loss(torch::zeros({3}), {torch::ones({2}), event}); }), testing::HasSubstr("time has shape [2], expected [3]"));
  EXPECT_THAT(message_of([&] { cox_loss(torch::zeros({3}), {torch::ones({3}), torch::ones({3})}); }), testing::HasSubstr("expected bool [3]"));
  EXPECT_THAT(message_of([&] { cox_loss(torch::zeros({3}), {torch::ones({3}) / 0, event}); }), testing::HasSubstr("a time is not finite"));
}

TEST(TimeIntervals, CutAtEventsSoThatEachHasAboutAsMany) {
  const SurvivalTensors known{torch::arange(1, 101).to(torch::kDouble), torch::ones({100}, torch::kBool)};
  const auto intervals = TimeIntervals::of_equal_events(known, 4);
  const Tensor counts = torch::bincount(intervals.of(known.time));
  EXPECT_EQ(intervals.count(), 4);
  EXPECT_GE(counts.min().item<int64_t>(), 24);
  EXPECT_LE(counts.max().item<int64_t>(), 26);
  EXPECT_THAT(message_of([] { TimeIntervals({2, 1}); }), testing::HasSubstr("cut 1 is 1, expected more than 2"));
}

TEST(IntervalLosses, SurvivalFallsFromOneAndAnEmptyBatchIsZero) {
  const Tensor logits = torch::randn({6, 5}, torch::kDouble), none = torch::zeros({0, 5}, torch::kDouble);
  const Tensor no_interval = torch::zeros({0}, torch::kLong), no_event = torch::zeros({0}, torch::kBool);
  for (const auto survival : {logistic_hazard_survival, mtlr_survival, deephit_survival}) {
    const Tensor s = survival(logits);
    EXPECT_LE(s.max().item<double>(), 1);
    EXPECT_GE(s.min().item<double>(), 0);
    EXPECT_LT(torch::diff(s, 1, 1).max().item<double>(), 0);
  }
  EXPECT_EQ(logistic_hazard_loss(none, no_interval, no_event).item<double>(), 0);
  EXPECT_EQ(mtlr_loss(none, no_interval, no_event).item<double>(), 0);
  EXPECT_EQ(deephit_loss(none, no_interval, no_event).item<double>(), 0);
  EXPECT_THAT(message_of([&] { mtlr_loss(logits, torch::full({6}, 5), torch::ones({6}, torch::kBool)); }), testing::HasSubstr("interval 5, expected 0 to 4"));
}

TEST(CoxRegression, FindsTheMinimumAndRefusesWhatHasNone) {
  const Cohort c = cohort(200, 1);
  const Tensor x = torch::randn({200, 3}, torch::kDouble) * torch::tensor({1.0, 100.0, 0.01}, torch::kDouble);
  for (const auto ties : {CoxTies::kBreslow, CoxTies::kEfron}) {
    const auto fit = fit_cox(x, c.known, ties);
    const Tensor b = fit.coefficients.clone().requires_grad_();
    const Tensor gradient = torch::autograd::grad({cox_loss(x.matmul(b), c.known, ties)}, {b})[0];
    EXPECT_LT((gradient * x.std(0)).abs().max().item<double>() / x.std(0).max().item<double>(), 1e-8);
    EXPECT_GE(fit.log_likelihood, fit.null_log_likelihood);
  }
  EXPECT_THAT(message_of([&] { fit_cox(torch::cat({x, x}, 1), c.known); }), testing::HasSubstr("depend on each other"));
  EXPECT_THAT(message_of([&] { fit_cox(x / 0, c.known); }), testing::HasSubstr("not finite"));
  EXPECT_THAT(message_of([&] { fit_cox(x, {c.known.time, torch::zeros({200}, torch::kBool)}); }), testing::HasSubstr("nobody had the event"));
}

}  // namespace
}  // namespace fovea::train
