#include "fovea/recipes/kernel_regression.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "fovea/core/error.h"
#include "fovea/ops/attention.h"

namespace fovea::recipes {

namespace {
constexpr double kFlat = 1e-10;  // of h^2: a spread of samples below which a plane has no slope
constexpr double kAlone = 1e-7;  // of 1 - L_ii: below it the closed form has lost half of its digits

Bandwidth per_axis(const Bandwidth& h, int64_t axes) {
  if (int64_t(h.size()) != 1 && int64_t(h.size()) != axes)
    throw ArgumentError("kernel_regression: " + std::to_string(h.size()) + " bandwidths, expected 1 or " +
                        std::to_string(axes) + " (the axes of the points)");
  for (const double v : h)
    if (!(v > 0) || !std::isfinite(v))
      throw ArgumentError("kernel_regression: bandwidth " + std::to_string(v) + ", expected a positive number");
  return h.size() == 1 ? Bandwidth(axes, h[0]) : h;
}

void check_samples(const Samples& s) {
  const auto shape = [](const torch::Tensor& t) {
    std::string text = "[";
    for (int64_t i = 0; i < t.dim(); ++i) text += (i ? "," : "") + std::to_string(t.size(i));
    return text + "]";
  };
  if (s.points.dim() != 2 || s.values.dim() != 1 || s.points.size(0) != s.values.size(0) || s.points.size(1) < 1)
    throw ArgumentError("kernel_regression: points " + shape(s.points) + " and values " + shape(s.values) +
                        ", expected [M,D] and [M]");
  if (s.values.numel() < 2)
    throw ArgumentError("kernel_regression: " + std::to_string(s.values.numel()) + " samples, expected at least 2");
  if (!torch::isfinite(s.points).all().item<bool>() || !torch::isfinite(s.values).all().item<bool>())
    throw ArgumentError("kernel_regression: a coordinate or value is not finite; leave such samples out");
}

torch::Tensor tensor_of(const Bandwidth& h) { return torch::tensor(h, torch::kFloat64); }

// Coordinates about the mean of the points, in bandwidths: there the kernel is exp(-|u - u_i|^2 / 2).
struct Scaled {
  torch::Tensor points, x;
};
Scaled in_bandwidths(const torch::Tensor& points, const torch::Tensor& x, const Bandwidth& h) {
  const auto to = points.options().dtype(torch::kFloat64);
  const auto centre = points.to(to).mean(0), width = tensor_of(per_axis(h, points.size(1)));
  return {(points.to(to) - centre) / width, (x.to(to) - centre) / width};
}

// Attention of queries u [N,D] on keys u_i [M,D] with Gaussian weights of `times` the scale: [N,V] and lse [N] without
// the part that depends on the query. `own`: query n does not see key own[n].
struct Mean {
  torch::Tensor value, lse;
};
Mean gaussian_mean(const Scaled& s, const torch::Tensor& values, double times = 1,
                   const std::optional<torch::Tensor>& own = {}) {
  const int64_t N = s.x.size(0), M = s.points.size(0);
  const auto q = torch::cat({s.x, torch::ones({N, 1}, s.x.options())}, 1);
  const auto k = torch::cat({s.points, s.points.square().sum(1, true) / -2}, 1);
  if (!own) {
    const auto lift = [](const torch::Tensor& t) { return t.unsqueeze(0).unsqueeze(0); };
    const auto [out, lse] = ops::attention(lift(q), lift(k), lift(values), {}, {}, /*causal=*/false, times);
    return {out[0][0], lse[0][0]};
  }
  // A batch a query, so that each has its own mask; keys and values are one tensor seen N times.
  const auto many = [&](const torch::Tensor& t) { return t.unsqueeze(0).unsqueeze(0).expand({N, 1, M, t.size(1)}); };
  auto mask = torch::ones({N, M}, torch::kBool);
  mask.scatter_(1, own->unsqueeze(1), false);
  const auto [out, lse] =
      ops::attention(q.unsqueeze(1).unsqueeze(1), many(k), many(values), {}, mask, /*causal=*/false, times);
  return {out.select(1, 0).select(1, 0), lse.select(1, 0).select(1, 0)};
}

// Weighted means round each query: of u_i, of u_i u_i^T, and of y_i and u_i y_i where values are given.
struct Moments {
  torch::Tensor u, square, y, uy;  // [N,D], [N,D,D], [N], [N,D]
  torch::Tensor lse;
};
Moments moments(const Scaled& s, const torch::Tensor& y, double times = 1,
                const std::optional<torch::Tensor>& own = {}) {
  const int64_t D = s.points.size(1), M = s.points.size(0);
  const auto square = (s.points.unsqueeze(2) * s.points.unsqueeze(1)).reshape({M, D * D});
  const auto column = y.unsqueeze(1);
  const Mean mean = gaussian_mean(s, torch::cat({s.points, square, column, s.points * column}, 1), times, own);
  const auto part = [&](int64_t from, int64_t size) { return mean.value.slice(1, from, from + size); };
  return {part(0, D), part(D, D * D).reshape({-1, D, D}), part(D + D * D, 1).squeeze(1), part(D + D * D + 1, D),
          mean.lse};
}

// The plane through the weighted samples: how far the query lies from their mean, in units of their spread. The
// smoother's row is L_j = w_j (1 + <slope, u_j - mean>).
torch::Tensor plane_direction(const Scaled& s, const Moments& m) {
  const auto spread = m.square - m.u.unsqueeze(2) * m.u.unsqueeze(1) + kFlat * torch::eye(m.u.size(1), m.u.options());
  return torch::linalg_solve(spread, (s.x - m.u).unsqueeze(2)).squeeze(2);  // [N,D]
}

torch::Tensor regression(const Scaled& s, const torch::Tensor& y, LocalFit fit,
                         const std::optional<torch::Tensor>& own = {}) {
  if (fit == LocalFit::kConstant) return gaussian_mean(s, y.unsqueeze(1), 1, own).value.squeeze(1);
  const Moments m = moments(s, y, 1, own);
  return m.y + (plane_direction(s, m) * (m.uy - m.u * m.y.unsqueeze(1))).sum(1);
}

// L_ii of the smoother at its own samples.
torch::Tensor diagonal(const Scaled& s, LocalFit fit) {
  const auto own_score = s.x.square().sum(1) / 2;  // <[u,1], [u,-|u|^2/2]>
  if (fit == LocalFit::kConstant) return (own_score - gaussian_mean(s, torch::ones_like(s.x.slice(1, 0, 1))).lse).exp();
  const Moments m = moments(s, torch::zeros_like(own_score));
  return (own_score - m.lse).exp() * (1 + (plane_direction(s, m) * (s.x - m.u)).sum(1));
}

// What is common to the public functions: checked, in double.
Samples checked(const Samples& samples) {
  check_samples(samples);
  return {samples.points.to(torch::kFloat64), samples.values.to(torch::kFloat64)};
}

void check_places(const Samples& samples, const torch::Tensor& x) {
  if (x.dim() != 2 || x.size(1) != samples.points.size(1))
    throw ArgumentError("kernel_regression: places of " + std::to_string(x.dim() == 2 ? x.size(1) : x.dim()) +
                        (x.dim() == 2 ? " axes" : " dimensions") + ", expected [N," +
                        std::to_string(samples.points.size(1)) + "] as the points");
}

torch::Tensor squared_weights(const Scaled& s, LocalFit fit) {
  const auto one = torch::zeros({s.points.size(0)}, s.points.options());
  if (fit == LocalFit::kConstant) {
    const auto ones = torch::ones_like(s.points.slice(1, 0, 1));
    return (gaussian_mean(s, ones, 2).lse - 2 * gaussian_mean(s, ones).lse).exp();
  }
  // sum_j w_j^2 (1 + <a, u_j - mean>)^2, the mean of u being that of w and the sum over j one of w^2.
  const Moments w = moments(s, one), w2 = moments(s, one, 2);
  const auto a = plane_direction(s, w), shift = 1 - (a * w.u).sum(1);  // [N,D], [N]
  const auto quadratic = torch::matmul(a.unsqueeze(1), torch::matmul(w2.square, a.unsqueeze(2))).reshape({-1});
  return (w2.lse - 2 * w.lse).exp() * (shift.square() + 2 * shift * (a * w2.u).sum(1) + quadratic);
}
}  // namespace

KernelAttention kernel_attention(const torch::Tensor& points, const torch::Tensor& x, const Bandwidth& h) {
  const Bandwidth axes = per_axis(h, points.size(1));
  // All axes in units of the first one, whose bandwidth is the scale.
  Bandwidth relative = axes;
  for (double& v : relative) v /= axes[0];
  const Scaled s = in_bandwidths(points, x, relative);
  return {torch::cat({s.x, torch::ones({s.x.size(0), 1}, s.x.options())}, 1),
          torch::cat({s.points, s.points.square().sum(1, true) / -2}, 1), 1 / (axes[0] * axes[0])};
}

torch::Tensor kernel_regression(const Samples& samples, const torch::Tensor& x, const Bandwidth& h, LocalFit fit) {
  torch::NoGradGuard no_grad;
  const Samples s = checked(samples);
  check_places(s, x);
  return regression(in_bandwidths(s.points, x, h), s.values, fit);
}

torch::Tensor weight_norms(const Samples& samples, const torch::Tensor& x, const Bandwidth& h, LocalFit fit) {
  torch::NoGradGuard no_grad;
  const Samples s = checked(samples);
  check_places(s, x);
  return squared_weights(in_bandwidths(s.points, x, h), fit).sqrt();
}

torch::Tensor leave_one_out(const Samples& samples, const Bandwidth& h, LocalFit fit) {
  torch::NoGradGuard no_grad;
  const Samples s = checked(samples);
  const Scaled all = in_bandwidths(s.points, s.points, h);
  const auto rest = 1 - diagonal(all, fit);
  auto left_out = s.values - (s.values - regression(all, s.values, fit)) / rest;
  const auto alone = (rest < kAlone).nonzero().squeeze(1);
  if (alone.numel() > 0)
    left_out.index_put_({alone}, regression({all.points, all.x.index_select(0, alone)}, s.values, fit, alone));
  return left_out;
}

Band confidence_band(const Samples& samples, const torch::Tensor& x, const Bandwidth& h, LocalFit fit, double z) {
  torch::NoGradGuard no_grad;
  const Samples s = checked(samples);
  check_places(s, x);
  const Scaled own = in_bandwidths(s.points, s.points, h), there = in_bandwidths(s.points, x, h);
  const double residuals = (s.values - regression(own, s.values, fit)).square().sum().item<double>();
  const double freedom = double(s.values.numel()) - 2 * diagonal(own, fit).sum().item<double>() +
                         squared_weights(own, fit).sum().item<double>();
  if (freedom < 1)
    throw ArgumentError("confidence_band: the regression follows every sample, nothing is left to tell the noise by; " +
                        std::string("take a larger bandwidth"));
  Band band;
  band.noise_deviation = std::sqrt(residuals / freedom);
  band.middle = regression(there, s.values, fit);
  const auto half = z * band.noise_deviation * squared_weights(there, fit).sqrt();
  band.low = band.middle - half, band.high = band.middle + half;
  return band;
}

BandwidthChoice choose_bandwidth(const Samples& samples, LocalFit fit, const Bandwidth& axes) {
  const Samples s = checked(samples);
  const Bandwidth shape = axes.empty() ? Bandwidth(s.points.size(1), 1) : per_axis(axes, s.points.size(1));
  const auto points = s.points / tensor_of(shape);
  const double diagonal = (points.amax(0) - points.amin(0)).norm().item<double>();
  if (!(diagonal > 0)) throw ArgumentError("choose_bandwidth: all samples lie at one place, no bandwidth fits better");
  // Nearest neighbours of samples on a grid of M cells in a box of this diagonal lie about this far apart.
  const double nearest = diagonal / std::pow(double(s.values.numel()), 1.0 / double(points.size(1)));
  BandwidthChoice choice;
  const auto bandwidth = [&](double log_h) {
    Bandwidth h = shape;
    for (double& v : h) v *= std::exp(log_h);
    return h;
  };
  const auto error = [&](double log_h) {
    const double e = (leave_one_out(s, bandwidth(log_h), fit) - s.values).square().mean().sqrt().item<double>();
    choice.tried.push_back(std::exp(log_h)), choice.error_of.push_back(e);
    return e;
  };
  constexpr int kSteps = 25;
  const double first = std::log(nearest / 4), step = (std::log(diagonal) - first) / (kSteps - 1);
  int best = 0;
  for (int i = 0; i < kSteps; ++i)
    if (const double e = error(first + i * step); e < choice.error_of[best]) best = i;
  // Golden section round the best step.
  constexpr double kGolden = 0.6180339887498949;
  double low = first + (best - 1) * step, high = first + (best + 1) * step;
  double a = high - kGolden * (high - low), b = low + kGolden * (high - low), ea = error(a), eb = error(b);
  for (int i = 0; i < 20; ++i) {
    if (ea < eb)
      high = b, b = a, eb = ea, a = high - kGolden * (high - low), ea = error(a);
    else
      low = a, a = b, ea = eb, b = low + kGolden * (high - low), eb = error(b);
  }
  const size_t least = std::min_element(choice.error_of.begin(), choice.error_of.end()) - choice.error_of.begin();
  choice.h = bandwidth(std::log(choice.tried[least])), choice.error = choice.error_of[least];
  // The curve in order of bandwidth.
  std::vector<size_t> order(choice.tried.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t i, size_t j) { return choice.tried[i] < choice.tried[j]; });
  const auto sorted = [&](const std::vector<double>& v) {
    std::vector<double> out;
    for (const size_t i : order) out.push_back(v[i]);
    return out;
  };
  choice.tried = sorted(choice.tried), choice.error_of = sorted(choice.error_of);
  return choice;
}

Bandwidth learn_bandwidth(const Samples& samples, bool axes, int steps) {
  const Samples s = checked(samples);
  const int64_t M = s.values.numel(), D = s.points.size(1);
  const auto centred = s.points - s.points.mean(0);
  const auto deviation = axes ? centred.std(0) : centred.std(0).mean().reshape({1});
  const auto bias = torch::zeros({1, 1, M, M}, torch::kFloat64);
  bias[0][0].fill_diagonal_(-std::numeric_limits<double>::infinity());
  const auto lift = [](const torch::Tensor& t) { return t.unsqueeze(0).unsqueeze(0); };
  const auto error = [&](const torch::Tensor& log_h) {
    const auto u = centred / log_h.exp();
    const auto q = torch::cat({u, torch::ones({M, 1}, u.options())}, 1),
               k = torch::cat({u, u.square().sum(1, true) / -2}, 1);
    const auto out = std::get<0>(
        ops::attention(lift(q), lift(k), lift(s.values.unsqueeze(1)), bias, {}, /*causal=*/false, /*scale=*/1.0));
    return (out.flatten() - s.values).square().mean();
  };
  torch::Tensor best;
  double least = std::numeric_limits<double>::infinity();
  // The error may have two valleys, so one start is wide and one narrow.
  for (const double part : {2, 16}) {
    auto log_h = (deviation / part).log().requires_grad_();
    torch::optim::Adam optimizer({log_h}, torch::optim::AdamOptions(0.05));
    for (int step = 0; step < steps; ++step) {
      optimizer.zero_grad();
      error(log_h).backward();
      optimizer.step();
      // The last third with a falling rate, so that the end does not swing.
      if (step > 2 * steps / 3)
        static_cast<torch::optim::AdamOptions&>(optimizer.param_groups()[0].options())
            .lr(0.05 * double(steps - step) / (steps / 3.0));
    }
    const double reached = error(log_h).item<double>();
    if (reached < least) least = reached, best = log_h.detach();
  }
  FOVEA_CHECK(best.defined(), "learn_bandwidth: the error was never finite");
  const auto h = best.exp().expand({axes ? D : 1}).contiguous();
  return Bandwidth(h.data_ptr<double>(), h.data_ptr<double>() + h.numel());
}

}  // namespace fovea::recipes
