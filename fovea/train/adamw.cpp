#include "fovea/train/adamw.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "fovea/core/error.h"

namespace fovea::train {
namespace {

constexpr int64_t kChunk = 1 << 16, kLanes = 16;

struct Step {
  double beta1, beta2, learning_rate, shrink, gradient_scale, correct1, correct2, epsilon;
};

template <class T>
inline __attribute__((always_inline)) void update_one(T& p, T& m, T& v, T g, const Step& s) {
  g *= T(s.gradient_scale);
  m = T(s.beta1) * m + T(1 - s.beta1) * g;
  v = T(s.beta2) * v + T(1 - s.beta2) * g * g;
  p = p * T(s.shrink) - T(s.learning_rate) * (m * T(s.correct1)) / (std::sqrt(v * T(s.correct2)) + T(s.epsilon));
}

template <class T>
void update_range(T* __restrict p, T* __restrict m, T* __restrict v, const T* __restrict g, int64_t n,
                  const Step& step) {
  const Step s = step;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = i; j < i + kLanes; ++j) update_one(p[j], m[j], v[j], g[j], s);
  }
  for (; i < n; ++i) update_one(p[i], m[i], v[i], g[i], s);
}

template <class T>
double sum_of_squares(const T* g, int64_t n) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += double(g[i + j]) * double(g[i + j]);
  }
  double total = 0;
  for (; i < n; ++i) total += double(g[i]) * double(g[i]);
  for (const double lane : lanes) total += lane;
  return total;
}

/// The gradient in the memory order of its parameter.
torch::Tensor aligned_gradient(const torch::Tensor& p) {
  const torch::Tensor g = p.grad().detach();
  return g.strides() == p.strides() && g.scalar_type() == p.scalar_type() ? g : torch::empty_like(p).copy_(g);
}

template <class F>
void for_each_chunk(int64_t n, const F& body) {
  at::parallel_for(0, (n + kChunk - 1) / kChunk, 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) body(c, c * kChunk, std::min(kChunk, n - c * kChunk));
  });
}

}  // namespace

void AdamWConfig::validate() const {
  const auto require = [](bool ok, const char* name, double value, const char* rule) {
    if (!ok)
      throw ArgumentError(std::string("optimizer: ") + name + " is " + std::to_string(value) + ", expected " + rule);
  };
  require(learning_rate > 0, "learning_rate", learning_rate, "> 0");
  require(beta1 >= 0 && beta1 < 1, "beta1", beta1, "in [0, 1)");
  require(beta2 >= 0 && beta2 < 1, "beta2", beta2, "in [0, 1)");
  require(epsilon > 0, "epsilon", epsilon, "> 0");
  require(weight_decay >= 0, "weight_decay", weight_decay, ">= 0");
}

bool is_exempt_from_decay(const NamedParameter& parameter) {
  return parameter.value.dim() <= 1 || parameter.name.find("position") != std::string::npos ||
         parameter.name.find("pos_embed") != std::string::npos || parameter.name.find("token") != std::string::npos ||
         parameter.name.find("logit_scale") != std::string::npos || parameter.name.find("cpb_mlp") != std::string::npos;
}

AdamW::AdamW(std::vector<NamedParameter> parameters, const AdamWConfig& config)
    : config_(config), parameters_(std::move(parameters)) {
  config_.validate();
  for (const NamedParameter& p : parameters_) {
    const bool fits = p.value.device().is_cpu() && p.value.is_non_overlapping_and_dense() &&
                      (p.value.scalar_type() == at::kFloat || p.value.scalar_type() == at::kDouble);
    if (!fits)
      throw ArgumentError("AdamW: parameter " + p.name + " is " + p.value.toString() +
                          ", expected a dense f32 or f64 CPU tensor");
    m_.push_back(torch::zeros_like(p.value.detach()));
    v_.push_back(torch::zeros_like(p.value.detach()));
    exempt_.push_back(!config_.decay_all && is_exempt_from_decay(p));
  }
}

double AdamW::gradient_norm() const {
  double total = 0;
  std::vector<double> parts;
  for (const NamedParameter& p : parameters_) {
    if (!p.value.grad().defined()) continue;
    const torch::Tensor g = aligned_gradient(p.value);
    parts.assign(size_t((g.numel() + kChunk - 1) / kChunk), 0);
    AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "gradient_norm", [&] {
      for_each_chunk(g.numel(), [&](int64_t c, int64_t begin, int64_t n) {
        parts[size_t(c)] = sum_of_squares(g.const_data_ptr<scalar_t>() + begin, n);
      });
    });
    for (const double part : parts) total += part;
  }
  return std::sqrt(total);
}

void AdamW::step(double learning_rate, double gradient_scale) {
  ++updates_;
  Step s{config_.beta1, config_.beta2, learning_rate, 1, gradient_scale, 0, 0, config_.epsilon};
  s.correct1 = 1 / (1 - std::pow(config_.beta1, double(updates_)));
  s.correct2 = 1 / (1 - std::pow(config_.beta2, double(updates_)));
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const torch::Tensor p = parameters_[i].value.detach();
    if (!parameters_[i].value.grad().defined()) continue;
    const torch::Tensor g = aligned_gradient(parameters_[i].value);
    s.shrink = exempt_[i] ? 1 : 1 - learning_rate * config_.weight_decay;
    AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), "adamw", [&] {
      for_each_chunk(p.numel(), [&](int64_t, int64_t begin, int64_t n) {
        update_range(p.mutable_data_ptr<scalar_t>() + begin, m_[i].mutable_data_ptr<scalar_t>() + begin,
                     v_[i].mutable_data_ptr<scalar_t>() + begin, g.const_data_ptr<scalar_t>() + begin, n, s);
      });
    });
  }
}

void AdamW::zero_grad() {
  for (const NamedParameter& p : parameters_) p.value.mutable_grad().reset();
}

}  // namespace fovea::train
