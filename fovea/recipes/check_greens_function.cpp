// A12: attention that learns to solve differential equations, and the Green's functions in it.
#include <torch/torch.h>

#include <algorithm>

#include "fovea/nn/rotary.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/greens_function.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

// Largest change of a rotary score when both places move together, in double.
double rotary_drift(nn::RotaryPairing pairing, int64_t axes, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  const auto exact = torch::TensorOptions(torch::kFloat64);
  const nn::Rotary rotary(nn::RotaryOptions(24).axes(axes).pairing(pairing).scale(64));
  const auto q = torch::randn({1, 1, 5, 24}, generator, exact), k = torch::randn({1, 1, 5, 24}, generator, exact);
  const auto at = torch::rand({5, axes}, generator, exact);
  const auto scores = [&](double moved) {
    auto turn = rotary;
    return torch::matmul(turn->forward(q, at + moved), turn->forward(k, at + moved).transpose(2, 3));
  };
  return (scores(0.375) - scores(0)).abs().max().item<double>();
}

std::string told(const OperatorScore& s) {
  const std::string finer = s.at_points.empty() ? "" : printed(" (on 2 and 4 times the points %.3f, %.3f)", s.at_points[0], s.at_points[1]);
  return printed("relative L2 %.3f", s.relative_l2) + finer +
         printed("; correlation with Green's function: effective kernel %.4f, filtered by the forcing %.4f, best raw map of a head %.2f; %lld parameters", s.effective, s.filtered, s.raw,
                 static_cast<long long>(s.parameters));
}

void check_poisson(CheckResult& result, const CheckOptions& options) {
  for (const OperatorNetwork network : {OperatorNetwork::kPosition, OperatorNetwork::kFourier}) {
    double error = 0, effective = 1, filtered = 1;
    for (uint64_t seed = options.seed; seed < options.seed + (options.full ? 5 : 1); ++seed) {
      const auto s = learn_green(network, {}, seed);
      error = std::max(error, s.relative_l2), effective = std::min(effective, s.effective), filtered = std::min(filtered, s.filtered);
      result.notes.push_back("-u'' = f, " + name_of(network) + ", seed " + std::to_string(seed) + ": " + told(s));
    }
    result.at_most("-u'' = f, " + name_of(network) + ": relative L2, worst seed", error, 0.05);
    result.at_least("the same: correlation of the effective kernel with Green's function", effective, 0.98);
    result.at_least("the same: filtered by the forcing's covariance", filtered, 0.995);
  }
  const OperatorNetwork others[] = {OperatorNetwork::kGalerkin, OperatorNetwork::kSoftmax};
  for (const OperatorNetwork network : others)
    if (options.full || network == OperatorNetwork::kSoftmax)
      result.notes.push_back("-u'' = f, " + name_of(network) + ", seed " + std::to_string(options.seed) + ": " + told(learn_green(network, {}, options.seed)));
}

void check_other_problems(CheckResult& result, const CheckOptions& options) {
  OperatorOptions advection;
  advection.pde.equation = data::LinearEquation::kAdvectionDiffusion, advection.pde.advection = 20;
  const auto free = learn_green(OperatorNetwork::kPosition, advection, options.seed), tied = learn_green(OperatorNetwork::kSymmetricPosition, advection, options.seed);
  result.at_least("-u'' + 20 u' = f: correlation of the effective kernel", free.effective, 0.95);
  result.at_most("control, a symmetric kernel there: correlation", tied.effective, 0.95);
  result.at_least("control, a symmetric kernel there: relative L2 above the free one's", tied.relative_l2 - free.relative_l2, 0.1);
  result.notes.push_back("-u'' + 20 u' = f, position attention: " + told(free));
  result.notes.push_back("-u'' + 20 u' = f, symmetric position attention: " + told(tied));
  if (!options.full) return;
  struct Problem {
    const char* name;
    data::LinearPde pde;
    double forcing_length = 0.05;
  };
  const Problem problems[] = {{"-u'' = f, ends without flow", {data::LinearEquation::kPoisson, data::Boundary::kNeumann}},
                              {"-u'' = f, periodic", {data::LinearEquation::kPoisson, data::Boundary::kPeriodic}},
                              {"-u'' = f, Robin ends", {data::LinearEquation::kPoisson, data::Boundary::kRobin}},
                              {"-u'' - 20^2 u = f", {data::LinearEquation::kHelmholtz, data::Boundary::kDirichlet, 1, 64, 20}},
                              {"-u_xx - u_yy = f on 12 x 12 points", {data::LinearEquation::kPoisson, data::Boundary::kDirichlet, 2, 12}, 0.15}};
  for (const Problem& p : problems) {
    OperatorOptions problem;
    problem.pde = p.pde, problem.forcing_length = p.forcing_length;
    const auto s = learn_green(OperatorNetwork::kPosition, problem, options.seed);
    result.at_least(std::string(p.name) + ", position attention: correlation of the filtered kernel", s.filtered, 0.95);
    result.notes.push_back(std::string(p.name) + ", position attention: " + told(s));
  }
}

void check_burgers(CheckResult& result, const CheckOptions& options) {
  const int64_t steps = options.full ? 8000 : 1000;
  const auto tell = [&](FlowNetwork network, const FlowScore& s, uint64_t seed) {
    result.notes.push_back(printed("Burgers (our solver, 64 points, 1024 fields, %lld steps), seed %llu, ", static_cast<long long>(steps), static_cast<unsigned long long>(seed)) + name_of(network) +
                           printed(": relative L2 %.5f, %lld parameters, %.0f s of training", s.relative_l2, static_cast<long long>(s.parameters), s.seconds));
  };
  double worst = 0;
  for (uint64_t seed = options.seed; seed < options.seed + (options.full ? 5 : 1); ++seed) {
    const auto primitive = learn_burgers(FlowNetwork::kPrimitive, seed, steps), fno = learn_burgers(FlowNetwork::kFourierOperator, seed, steps);
    worst = std::max(worst, primitive.relative_l2 / fno.relative_l2);
    tell(FlowNetwork::kPrimitive, primitive, seed), tell(FlowNetwork::kFourierOperator, fno, seed);
  }
  result.at_most("Burgers: relative L2 of attention that reads the primitive over that of the Fourier neural operator, equal steps, worst seed", worst, 1);
  const auto general = learn_burgers(FlowNetwork::kAttention, options.seed, steps);
  tell(FlowNetwork::kAttention, general, options.seed);
  result.notes.push_back("attention that reads the primitive has the form of Burgers' solution (Cole and Hopf); attention without softmax and the Fourier neural operator know nothing of the equation");
  result.notes.push_back("published at 8192 points and 500 epochs (Cao 2021): FNO .0139, with one cycle .0042; attention .0011");
}

void check_darcy(CheckResult& result, const CheckOptions& options) {
  constexpr int64_t kSteps = 1500;
  for (uint64_t seed = options.seed; seed < options.seed + 3; ++seed)
    for (const FlowNetwork network : {FlowNetwork::kAttention, FlowNetwork::kFourierOperator}) {
      const auto s = learn_darcy(network, seed, kSteps);
      result.notes.push_back(printed("Darcy flow (our solver, 21 x 21 points, 1024 media, %lld steps), seed %llu, ", static_cast<long long>(kSteps), static_cast<unsigned long long>(seed)) + name_of(network) +
                             printed(": relative L2 %.4f, %lld parameters, %.0f s of training", s.relative_l2, static_cast<long long>(s.parameters), s.seconds));
    }
  result.notes.push_back("published on Darcy flow: FNO .0108 at 421 x 421 (Li 2021); Galerkin transformer .0084 at 141 x 141 (Cao 2021)");
}
}  // namespace

CheckResult check_greens_function(const CheckOptions& options) {
  CheckResult result;
  for (const int64_t axes : {1, 2, 3})
    for (const auto pairing : {nn::RotaryPairing::kHalf, nn::RotaryPairing::kInterleaved})
      result.at_most("rotary scores when both places move, " + std::to_string(axes) + "-D, " + (pairing == nn::RotaryPairing::kHalf ? "halves" : "interleaved"),
                     rotary_drift(pairing, axes, options.seed), 1e-12);
  const auto system = data::discretise({});
  const auto x = system.coordinates.squeeze(1);
  result.at_most("inverse of the differences against min(x, y) (1 - max(x, y))", (system.green - data::poisson_green(x, x)).abs().max().item<double>(), 1e-12);
  check_poisson(result, options);
  check_other_problems(result, options);
  check_burgers(result, options);
  if (options.full) check_darcy(result, options);
  return result;
}

}  // namespace fovea::recipes
