#pragma once
#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace fovea::train {

struct AdamWConfig {
  double learning_rate = 4e-4;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 1e-2;
  bool decay_all = false;

  template <class V>
  void visit(V& v) {
    v("learning_rate", learning_rate, "peak of the schedule");
    v("beta1", beta1, "decay of the gradient's running mean");
    v("beta2", beta2, "decay of the running mean of its square");
    v("epsilon", epsilon, "added to the root of the second moment");
    v("weight_decay", weight_decay, "decoupled: weights shrink by learning_rate * weight_decay a step");
    v("decay_all", decay_all, "decay biases, norms and position tables as well");
  }
  void validate() const;
};

struct NamedParameter {
  std::string name;
  torch::Tensor value;
};

/// True if weight decay should leave the parameter alone: vectors and scalars (biases, norms), position tables and the
/// perceptrons that make them, temperatures of heads.
bool is_exempt_from_decay(const NamedParameter& parameter);

/// AdamW with its state in plain tensors, so that a checkpoint holds all of it. One pass over memory a step; every
/// element is computed alone and norms are summed in f64 in a fixed order, so bits do not depend on the number of
/// threads.
///   m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  p <- p (1 - lr wd) - lr m' / (sqrt(v') + eps),  m', v'
///   unbiased
/// Parameters f32 or f64, dense, on the CPU. A parameter without gradient is left as it is.
/// Source   Loshchilov & Hutter 2019, algorithm 2; equal to torch.optim.AdamW up to rounding (tested).
class AdamW {
 public:
  AdamW(std::vector<NamedParameter> parameters, const AdamWConfig& config);

  /// Global L2 norm of all gradients; not finite exactly when some gradient is not.
  double gradient_norm() const;
  /// One update; gradients are multiplied by `gradient_scale` on the way (clipping, accumulation).
  void step(double learning_rate, double gradient_scale = 1);
  void zero_grad();

  const std::vector<NamedParameter>& parameters() const { return parameters_; }
  /// First and second moments in the order of the parameters, and the number of updates done: the whole state.
  std::vector<torch::Tensor>& first_moments() { return m_; }
  std::vector<torch::Tensor>& second_moments() { return v_; }
  int64_t updates() const { return updates_; }
  void set_updates(int64_t updates) { updates_ = updates; }

 private:
  AdamWConfig config_;
  std::vector<NamedParameter> parameters_;
  std::vector<torch::Tensor> m_, v_;
  std::vector<bool> exempt_;
  int64_t updates_ = 0;
};

}  // namespace fovea::train
