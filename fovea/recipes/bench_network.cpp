// The whole network: SwinUNETR of feature size 48 on 96^3 voxels, forward and one training step. Peers run in processes
// of their own: benchmarks/peers.py.
#include <ATen/autocast_mode.h>
#include <ATen/Parallel.h>
#include <torch/torch.h>

#include "fovea/models/swin_unetr.h"
#include "fovea/ops/conv3d.h"
#include "fovea/ops/instance_norm_act.h"
#include "fovea/recipes/bench.h"

namespace fovea::recipes {

namespace {
using torch::Tensor;
constexpr int64_t kEdge = 96, kClasses = 3;
constexpr const char* kShape = "SwinUNETR, feature size 48, 1 -> 3 channels";

models::SwinUnetr make_network(const BenchOptions& options) {
  torch::manual_seed(static_cast<int64_t>(options.seed));
  auto config = models::swin_unetr_48();
  config.out_channels = kClasses;
  return models::SwinUnetr(config);
}

// Mean over the classes of 2 |A and B| / (|A| + |B|), of the labels that two logit maps give.
double dice_between(const Tensor& a, const Tensor& b) {
  const Tensor first = a.argmax(1), second = b.argmax(1);
  double sum = 0;
  for (int64_t k = 0; k < kClasses; ++k) {
    const double both = ((first == k) & (second == k)).sum().item<double>();
    const double either = (first == k).sum().item<double>() + (second == k).sum().item<double>();
    sum += either > 0 ? 2 * both / either : 1;
  }
  return sum / kClasses;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  return ((a.to(torch::kDouble) - b).abs().max() / b.abs().max()).item<double>();
}

// The precision settings, put back at the end.
class Precision {
 public:
  Precision() : matmul_(at::globalContext().float32MatmulPrecision()), autocast_(at::autocast::is_autocast_enabled(at::kCPU)) {}
  ~Precision() {
    constexpr const char* kNames[] = {"highest", "high", "medium"};
    set(kNames[static_cast<int>(matmul_)], autocast_);
  }
  Precision(const Precision&) = delete;
  Precision& operator=(const Precision&) = delete;
  static void set(const char* matmul, bool autocast) {
    at::globalContext().setFloat32MatmulPrecision(matmul);
    at::autocast::set_autocast_enabled(at::kCPU, autocast);
  }

 private:
  at::Float32MatmulPrecision matmul_;
  bool autocast_;
};
}  // namespace

void bench_norm(const BenchOptions& options, const BenchDone& done) {
  torch::manual_seed(static_cast<int64_t>(options.seed));
  const torch::NoGradGuard no_grad;
  const Tensor x = torch::randn({1, 48, kEdge, kEdge, kEdge}).contiguous(at::MemoryFormat::ChannelsLast3d);
  const auto torchs = [&](const Tensor& t) {
    return torch::leaky_relu(torch::instance_norm(t, {}, {}, {}, {}, true, 0, 1e-5, false), 0.01);
  };
  BenchRow row{"instance norm + leaky ReLU 48 x 96^3", "channels last", "f32", "torch: instance_norm, leaky_relu"};
  row.target = 12, row.error_bound = 1e-6;
  row.error = largest_difference(ops::instance_norm_act(x, {}, {}, 0.01), torchs(x.to(torch::kDouble)));
  row.workspace_bytes = measure_workspace([&] { return static_cast<int64_t>(ops::instance_norm_act(x, {}, {}, 0.01).nbytes()); });
  time_in_turns(
      row, options, [&] { ops::instance_norm_act(x, {}, {}, 0.01); }, [&] { torchs(x); });
  done(row);

  // As behind a convolution of ours, which has taken the statistics: a network's norms are these.
  const auto [y, moments] = ops::conv3d_moments(x, torch::randn({48, 48, 3, 3, 3}) / 36);
  BenchRow behind{"the same, statistics taken by conv3d", "channels last", "f32", row.peer};
  behind.error_bound = 1e-6;
  const auto ours = [&, &y = y, &moments = moments] { return ops::instance_norm_act(y, {}, {}, 0.01, {}, 1e-5, moments); };
  behind.error = largest_difference(ours(), torchs(y.to(torch::kDouble)));
  time_in_turns(behind, options, ours, [&, &y = y] { torchs(y); });
  done(behind);
}

void bench_network(const BenchOptions& options, const BenchDone& done) {
  struct Mode {
    const char *name, *dtype, *precision;
    bool autocast;
    double error_bound;
  };
  constexpr Mode kModes[] = {{"network 96^3 forward", "f32", "high", false, 1e-4},
                             {"network 96^3 forward, precision highest", "f32", "highest", false, 1e-4},
                             {"network 96^3 forward, bf16 autocast", "bf16", "high", true, 5e-2}};
  const Precision kept;
  auto network = make_network(options);
  network->eval();
  for (Tensor& parameter : network->parameters()) parameter.requires_grad_(false);  // as predict does
  const torch::NoGradGuard no_grad;
  const Tensor x = torch::randn({1, 1, kEdge, kEdge, kEdge});
  Precision::set("highest", false);
  const Tensor exact = network->forward(x);
  for (const Mode& mode : kModes) {
    Precision::set(mode.precision, mode.autocast);
    const auto run = [&] {
      const Tensor logits = network->forward(x).to(torch::kFloat);
      at::autocast::clear_cache();
      return logits;
    };
    BenchRow row{mode.name, kShape, mode.dtype, "none in this process"};
    const Tensor logits = run();
    row.error = largest_difference(logits, exact), row.error_bound = mode.error_bound;
    row.dice = dice_between(logits, exact);
    row.workspace_bytes = measure_workspace([&] { return static_cast<int64_t>(run().nbytes()); });
    time_in_turns(row, options, run, {});
    done(row);
  }

  Precision::set("high", false);
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    return network->forward(x);
  };
  BenchRow row{"network 96^3 forward, 2 threads", kShape, "f32", "our own 1 thread"};
  row.target = has_two_cores(options.two_thread_speed) ? 1.8 : 0;
  row.error = largest_difference(run(2), run(1).to(torch::kDouble)), row.error_bound = 1e-6;  // oneDNN's part may round otherwise
  time_in_turns(
      row, options, [&] { run(2); }, [&] { run(1); });
  at::set_num_threads(1);
  done(row);
}

void bench_train_step(const BenchOptions& options, const BenchDone& done) {
  auto network = make_network(options);
  const Tensor x = torch::randn({1, 1, kEdge, kEdge, kEdge}), upstream = torch::randn({1, kClasses, kEdge, kEdge, kEdge});
  torch::optim::AdamW optimizer(network->parameters());
  const auto step = [&] {
    optimizer.zero_grad();
    network->forward(x).backward(upstream);
    optimizer.step();
  };
  BenchRow row{"network 96^3 train step", kShape, "f32", "none in this process"};
  time_in_turns(row, options, step, {});
  done(row);
}

}  // namespace fovea::recipes
