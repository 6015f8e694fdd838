// The 3x3x3 convolution against oneDNN's direct one, both channels last: forward, and forward with both backward
// passes.
#include <torch/torch.h>

#include "fovea/ops/conv3d.h"
#include "fovea/recipes/bench.h"

namespace fovea::recipes {

namespace {
using torch::Tensor;

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast3d;
const std::vector<int64_t> kOnes(3, 1);

struct Case {
  int64_t in, out, edge;
  double forward_target, training_target;  // 0: none
};
constexpr Case kCases[] = {{48, 48, 96, 3.5, 2.5}, {96, 48, 96, 3.5, 2.5}, {192, 96, 24, 3.5, 2.5},
                           {48, 48, 48, 0, 0},     {96, 96, 48, 0, 0},     {384, 192, 12, 0, 0}};

Tensor one_dnn(const Tensor& x, const Tensor& weight) {
  return at::mkldnn_convolution(x, weight, {}, kOnes, kOnes, kOnes, 1);
}

void one_dnn_backward(const Tensor& grad, const Tensor& x, const Tensor& weight) {
  // An oneDNN tensor leaves torch no choice of a slower backend.
  at::convolution_backward(grad, x.numel() < (1 << 22) ? x.to_mkldnn() : x, weight, at::OptionalIntArrayRef(), kOnes,
                           kOnes, kOnes, false, {0, 0, 0}, 1, {true, true, false});
}

void our_backward(const Tensor& grad, const Tensor& x, const Tensor& weight) {
  using Backward = std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, std::array<bool, 3>);
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("fovea::conv3d_backward", "").typed<Backward>();
  op.call(grad, x, weight, {true, true, false});
}

// Relative L2 error against float64 on cubes at two corners and in the middle.
double error_of(const Tensor& out, const Tensor& x, const Tensor& weight) {
  constexpr int64_t kEdge = 5;
  const int64_t edge = x.size(2);
  double error = 0, size = 0;
  for (const int64_t first : {int64_t{0}, (edge - kEdge) / 2, edge - kEdge}) {
    const int64_t from = std::max<int64_t>(0, first - 1), to = std::min(edge, first + kEdge + 1);
    const auto cube = [](const Tensor& t, int64_t begin, int64_t end) {
      return t.slice(2, begin, end).slice(3, begin, end).slice(4, begin, end).to(torch::kDouble);
    };
    const Tensor exact =
        cube(torch::conv3d(cube(x, from, to), weight.to(torch::kDouble), {}, 1, 1), first - from, first - from + kEdge);
    error += (cube(out, first, first + kEdge) - exact).square().sum().item<double>();
    size += exact.square().sum().item<double>();
  }
  return std::sqrt(error / size);
}
}  // namespace

void bench_conv(const BenchOptions& options, const BenchDone& done) {
  const auto before = at::globalContext().float32MatmulPrecision();
  at::globalContext().setFloat32MatmulPrecision("high");
  const torch::NoGradGuard no_grad;
  torch::manual_seed(static_cast<int64_t>(options.seed));
  for (const Case& c : kCases) {
    const Tensor x = torch::randn({1, c.in, c.edge, c.edge, c.edge}).contiguous(kChannelsLast);
    const Tensor grad = torch::randn({1, c.out, c.edge, c.edge, c.edge}).contiguous(kChannelsLast);
    const Tensor weight = torch::randn({c.out, c.in, 3, 3, 3}) / std::sqrt(27.0 * static_cast<double>(c.in));
    const std::string shape = c10::str(c.in, " -> ", c.out, " channels, ", c.edge, "^3");
    const std::string name = "conv3d " + shape + ", " + ops::conv3d_form(x, weight);
    BenchRow row{name, shape, "f32", "oneDNN direct, channels last"};
    row.error = error_of(ops::conv3d(x, weight), x, weight), row.error_bound = 1e-5;
    row.target = c.forward_target;
    // As a network runs it: transformed weights are kept between calls without gradient, and made anew in training.
    ops::KeptConv3dWeights kept;
    time_in_turns(
        row, options, [&] { kept.conv3d(x, weight); }, [&] { one_dnn(x, weight); });
    done(row);
    BenchRow both{name + " + backward", shape, "f32", row.peer};
    both.error = row.error, both.error_bound = row.error_bound, both.target = c.training_target;
    time_in_turns(
        both, options,
        [&] {
          ops::conv3d(x, weight);
          our_backward(grad, x, weight);
        },
        [&] {
          one_dnn(x, weight);
          one_dnn_backward(grad, x, weight);
        });
    done(both);
  }
  if (before == at::Float32MatmulPrecision::HIGHEST) at::globalContext().setFloat32MatmulPrecision("highest");
}

}  // namespace fovea::recipes
