#include "fovea/recipes/greens_function.h"

#include <chrono>
#include <cmath>
#include <memory>

#include "fovea/core/error.h"
#include "fovea/data/burgers.h"
#include "fovea/data/darcy.h"
#include "fovea/models/fourier_operator.h"
#include "fovea/models/operator_transformer.h"
#include "fovea/models/seeded_generator.h"
#include "fovea/nn/position_attention.h"
#include "fovea/nn/primitive_attention.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
// u [B,N] of f [B,N] at coordinates [N,D].
struct Solver {
  std::function<torch::Tensor(const torch::Tensor&, const torch::Tensor&)> solve;
  std::shared_ptr<torch::nn::Module> module;
  models::OperatorTransformer transformer{nullptr};  // where there is one
};

Solver make_solver(OperatorNetwork kind, const data::LinearPde& pde) {
  const bool periodic = pde.boundary == data::Boundary::kPeriodic;
  if (kind == OperatorNetwork::kPosition || kind == OperatorNetwork::kSymmetricPosition) {
    nn::PositionAttention net(nn::PositionAttentionOptions(pde.axes, /*heads=*/4, /*channels=*/16).symmetric(kind == OperatorNetwork::kSymmetricPosition).periodic(periodic));
    return {[net](const torch::Tensor& f, const torch::Tensor& x) mutable { return net(f, x, x); }, net.ptr()};
  }
  models::OperatorTransformerConfig config;
  config.axes = pde.axes, config.periodic = periodic;
  config.layers = kind == OperatorNetwork::kFourier ? 1 : 2;
  config.kind = kind == OperatorNetwork::kFourier ? nn::FieldAttentionKind::kFourier : kind == OperatorNetwork::kGalerkin ? nn::FieldAttentionKind::kGalerkin : nn::FieldAttentionKind::kSoftmax;
  models::OperatorTransformer net(config);
  return {[net](const torch::Tensor& f, const torch::Tensor& x) mutable { return net(f.unsqueeze(2), x).squeeze(2); }, net.ptr(), net};
}

torch::Tensor relative_l2(const torch::Tensor& u, const torch::Tensor& exact) {
  return ((u - exact).norm(2, 1) / exact.norm(2, 1)).mean();
}

double correlation(const torch::Tensor& a, const torch::Tensor& b) {
  const auto both = torch::stack({a.to(torch::kFloat64).flatten(), b.to(torch::kFloat64).flatten()});
  return torch::corrcoef(both)[0][1].item<double>();
}

// Rate up for a fifth of the steps, then down to almost nothing, along a cosine.
double one_cycle(double highest, int64_t step, int64_t steps) {
  const double up = 0.2 * double(steps), at = double(step);
  const auto between = [](double from, double to, double share) { return to + (from - to) * (1 + std::cos(M_PI * share)) / 2; };
  return at < up ? between(highest / 25, highest, at / up) : between(highest, highest / 1e4, (at - up) / (double(steps) - up));
}

// Minimises the relative L2 error of draw(): pairs of a batch.
void train(torch::nn::Module& module, double rate, int64_t steps, const std::function<torch::Tensor()>& loss_of_batch) {
  torch::optim::Adam optimizer(module.parameters(), torch::optim::AdamOptions(rate));
  for (int64_t step = 0; step < steps; ++step) {
    static_cast<torch::optim::AdamOptions&>(optimizer.param_groups()[0].options()).lr(one_cycle(rate, step, steps));
    optimizer.zero_grad();
    loss_of_batch().backward();
    optimizer.step();
  }
}

int64_t count_parameters(const torch::nn::Module& module) {
  int64_t count = 0;
  for (const auto& p : module.parameters()) count += p.numel();
  return count;
}

// A problem with forcings: f [count,N] and u = cell G f.
struct Problem {
  data::LinearSystem system;
  torch::Tensor covariance, coordinates, green;  // f32 but the covariance
};

Problem make_problem(const OperatorOptions& options, int64_t points) {
  data::LinearPde pde = options.pde;
  pde.points = points;
  Problem problem{data::discretise(pde), {}, {}, {}};
  problem.covariance = data::squared_exponential(problem.system.coordinates, options.forcing_length, pde.boundary == data::Boundary::kPeriodic);
  problem.coordinates = problem.system.coordinates.to(torch::kFloat32), problem.green = problem.system.green.to(torch::kFloat32);
  return problem;
}

// Forcings and solutions; where constants are lost, forcings of mean 0.
std::pair<torch::Tensor, torch::Tensor> draw(const Problem& problem, const data::LinearPde& pde, int64_t count, at::Generator generator) {
  auto f = data::draw_gaussian_process(problem.covariance, count, generator);
  if (pde.boundary == data::Boundary::kNeumann || pde.boundary == data::Boundary::kPeriodic) f = f - f.mean(1, /*keepdim=*/true);
  return {f, problem.system.cell * torch::matmul(f, problem.green.t())};
}

// The mean of du_i / df_j over inputs f [B,N], by the cell.
torch::Tensor effective_kernel(const Solver& solver, const Problem& problem, const torch::Tensor& inputs, double scale) {
  const auto f = inputs.detach().clone().requires_grad_();
  const auto u = scale * solver.solve(f, problem.coordinates);
  std::vector<torch::Tensor> rows;
  for (int64_t i = 0; i < u.size(1); ++i)
    rows.push_back(torch::autograd::grad({u.select(1, i).sum()}, {f}, {}, /*retain_graph=*/true)[0].mean(0));
  return torch::stack(rows) / problem.system.cell;
}

// Learns `after` from `before`, [count,N] each, all but the last 100; the score is of those.
FlowScore learn_flow(Solver& solver, double rate, int64_t steps, const torch::Tensor& before, const torch::Tensor& after, const torch::Tensor& position, at::Generator generator) {
  constexpr int64_t kFresh = 100, kBatch = 16;
  const int64_t learnt = before.size(0) - kFresh;
  const double scale = after.std().item<double>();
  const auto begin = std::chrono::steady_clock::now();
  train(*solver.module, rate, steps, [&] {
    const auto of = torch::randint(learnt, {kBatch}, generator, torch::TensorOptions(torch::kInt64));
    return relative_l2(scale * solver.solve(before.index_select(0, of), position), after.index_select(0, of));
  });
  FlowScore score;
  score.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  score.parameters = count_parameters(*solver.module);
  torch::NoGradGuard no_grad;
  score.relative_l2 = relative_l2(scale * solver.solve(before.slice(0, learnt), position), after.slice(0, learnt)).item<double>();
  return score;
}

template <class Net>
Solver solver_of(Net net) {
  return {[net](const torch::Tensor& f, const torch::Tensor& x) mutable { return net(f.unsqueeze(2), x).squeeze(2); }, net.ptr()};
}

constexpr int64_t kPairs = 1024 + 100;
}  // namespace

std::string name_of(OperatorNetwork network) {
  switch (network) {
    case OperatorNetwork::kPosition: return "position attention";
    case OperatorNetwork::kSymmetricPosition: return "symmetric position attention";
    case OperatorNetwork::kFourier: return "rotary transformer, no softmax, 1 layer";
    case OperatorNetwork::kGalerkin: return "rotary transformer, Galerkin, 2 layers";
    default: return "rotary transformer, softmax, 2 layers";
  }
}

OperatorScore learn_green(OperatorNetwork network, const OperatorOptions& options, uint64_t seed) {
  const OneThread one_thread;
  const models::SeededGenerator seeded(seed);
  auto generator = at::detail::createCPUGenerator(seed);
  const Problem problem = make_problem(options, options.pde.points);
  const Solver solver = make_solver(network, options.pde);
  const double scale = draw(problem, options.pde, 1024, generator).second.std().item<double>();
  const bool position = network == OperatorNetwork::kPosition || network == OperatorNetwork::kSymmetricPosition;
  train(*solver.module, position ? 1e-2 : 3e-3, options.steps, [&] {
    const auto [f, u] = draw(problem, options.pde, 32, generator);
    return relative_l2(scale * solver.solve(f, problem.coordinates), u);
  });

  OperatorScore score;
  score.parameters = count_parameters(*solver.module);
  const auto error_on = [&](const Problem& p) {
    torch::NoGradGuard no_grad;
    const auto [f, u] = draw(p, options.pde, 256, generator);
    return relative_l2(scale * solver.solve(f, p.coordinates), u).item<double>();
  };
  score.relative_l2 = error_on(problem);
  if (options.pde.axes == 1)
    for (const int64_t times : {2, 4}) score.at_points.push_back(error_on(make_problem(options, times * options.pde.points)));
  const auto fresh = draw(problem, options.pde, 32, generator).first;
  score.kernel = effective_kernel(solver, problem, fresh, scale), score.green = problem.green;
  if (options.pde.boundary == data::Boundary::kNeumann || options.pde.boundary == data::Boundary::kPeriodic) {
    // What a constant forcing would do is not seen by data of mean 0, nor in Green's function of such problems.
    score.kernel = score.kernel - score.kernel.mean(1, true) - score.kernel.mean(0, true) + score.kernel.mean();
  }
  score.effective = correlation(score.kernel, problem.green);
  const auto seen = problem.covariance.to(torch::kFloat32);
  score.filtered = correlation(torch::matmul(score.kernel, seen), torch::matmul(problem.green, seen));
  if (solver.transformer)
    for (const auto& layer : models::OperatorTransformer(solver.transformer)->maps(fresh.unsqueeze(2), problem.coordinates))
      for (int64_t h = 0; h < layer.size(1); ++h) score.raw = std::max(score.raw, std::abs(correlation(layer.select(1, h).mean(0), problem.green)));
  else
    score.raw = score.effective;
  return score;
}

std::string name_of(FlowNetwork network) {
  return network == FlowNetwork::kAttention ? "attention without softmax" : network == FlowNetwork::kPrimitive ? "attention that reads the primitive" : "Fourier neural operator";
}

FlowScore learn_burgers(FlowNetwork network, uint64_t seed, int64_t steps) {
  const OneThread one_thread;
  const models::SeededGenerator seeded(seed);
  auto generator = at::detail::createCPUGenerator(seed);
  const data::BurgersOptions options;
  const auto pairs = data::solve_burgers(kPairs, options, generator);
  const auto position = (torch::arange(options.points, torch::kFloat32) / double(options.points)).unsqueeze(1);
  Solver solver;
  double rate = 3e-3;
  if (network == FlowNetwork::kPrimitive) {
    nn::PrimitiveAttention net(nn::PrimitiveAttentionOptions{});
    solver = {[net](const torch::Tensor& f, const torch::Tensor&) mutable { return net(f); }, net.ptr()};
    rate = 3e-2;
  } else if (network == FlowNetwork::kFourierOperator) {
    rate = 2e-3;
    solver = solver_of(models::FourierOperator(models::FourierOperatorConfig{}));
  } else {
    models::OperatorTransformerConfig config;
    config.width = 64, config.heads = 2, config.layers = 2, config.hidden = 128, config.periodic = true, config.reads_position = false;
    solver = solver_of(models::OperatorTransformer(config));
  }
  return learn_flow(solver, rate, steps, pairs.before, pairs.after, position, generator);
}

FlowScore learn_darcy(FlowNetwork network, uint64_t seed, int64_t steps) {
  if (network == FlowNetwork::kPrimitive) throw ArgumentError("darcy: the primitive of a field in 2-D is not defined; take another network");
  const OneThread one_thread;
  const models::SeededGenerator seeded(seed);
  auto generator = at::detail::createCPUGenerator(seed);
  const data::DarcyOptions options;
  const auto media = data::draw_darcy_media(kPairs, options, generator);
  const auto every_second = [](const torch::Tensor& field) { return field.slice(1, 0, field.size(1), 2).slice(2, 0, field.size(2), 2).flatten(1).to(torch::kFloat32); };
  const auto pressure = every_second(data::solve_darcy(media, torch::ones_like(media)));
  const auto material = every_second((media - (options.low + options.high) / 2) / ((options.high - options.low) / 2));  // -1 or 1
  const auto along = torch::linspace(0, 1, (options.points + 1) / 2);
  const auto position = torch::stack(torch::meshgrid({along, along}, "ij"), 2).view({-1, 2});
  Solver solver;
  if (network == FlowNetwork::kFourierOperator) {
    models::FourierOperatorConfig config;
    config.axes = 2, config.modes = 6;
    solver = solver_of(models::FourierOperator(config));
  } else {
    models::OperatorTransformerConfig config;
    config.axes = 2, config.width = 64, config.layers = 4, config.hidden = 128, config.kind = nn::FieldAttentionKind::kGalerkin;
    solver = solver_of(models::OperatorTransformer(config));
  }
  return learn_flow(solver, network == FlowNetwork::kFourierOperator ? 2e-3 : 3e-3, steps, material, pressure, position, generator);
}

}  // namespace fovea::recipes
