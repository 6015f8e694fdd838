// Attention of many windows against torch's scaled_dot_product_attention: dense tensors, and straight from the qkv
// volume; and our window kernel on two threads against itself on one.
#include <torch/torch.h>

#include "fovea/kernels/attention_cost.h"
#include "fovea/ops/attention.h"
#include "fovea/ops/window_attention.h"
#include "fovea/recipes/bench.h"

namespace fovea::recipes {

namespace {
using torch::Tensor;
using torch::indexing::Slice;

enum class Work { kForward, kLearnableBias, kFrozenBias };

struct Case {
  int64_t windows, heads, edge, channels;  // edge^3 tokens a window
  // Ratios to reach: float32 forward, forward + backward with learnable and with frozen bias; bfloat16 forward,
  // learnable.
  double forward, learnable, frozen, bf16_forward, bf16_learnable;
};
constexpr Case kCases[] = {
    {64, 3, 7, 16, 3.0, 9.5, 2.4, 3.7, 9},
    {32, 3, 7, 32, 2.1, 5.5, 1.75, 2.8, 5},
    {16, 4, 8, 32, 1.8, 5.0, 1.65, 2.4, 4.5},
    {16, 4, 8, 64, 1.5, 3.6, 1.45, 2.4, 3.5},
};

const char* name_of(Work work) {
  switch (work) {
    case Work::kForward:
      return "forward";
    case Work::kLearnableBias:
      return "forward + backward, learnable bias";
    default:
      return "forward + backward, frozen bias";
  }
}

double target(const Case& c, Work work, bool bf16) {
  switch (work) {
    case Work::kForward:
      return bf16 ? c.bf16_forward : c.forward;
    case Work::kLearnableBias:
      return bf16 ? c.bf16_learnable : c.learnable;
    default:
      return bf16 ? 0 : c.frozen;
  }
}

// Largest |a - b| over the largest |b|, at least 1.
double error_of(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto exact = b[i].to(torch::kFloat64);
    const double error =
        ((a[i].to(torch::kFloat64) - exact).abs().max() / exact.abs().max().clamp_min(1)).item<double>();
    worst = error <= worst ? worst : error;  // NaN stays
  }
  return worst;
}

// One of the two sides of a comparison: attention of fixed inputs, with gradients of those that want one.
struct Side {
  std::vector<Tensor> inputs;
  Tensor upstream;
  std::function<Tensor(const std::vector<Tensor>&)> attend;

  std::vector<Tensor> run(Work work) const {
    if (work == Work::kForward) {
      const torch::NoGradGuard no_grad;
      return {attend(inputs)};
    }
    std::vector<Tensor> leaves, wanted;
    for (const Tensor& t : inputs) leaves.push_back(t.detach());
    for (size_t i = 0; i < leaves.size(); ++i)
      if (i + 1 < leaves.size() || work == Work::kLearnableBias) wanted.push_back(leaves[i].requires_grad_());
    const Tensor out = attend(leaves);
    auto result = torch::autograd::grad({out}, wanted, {upstream});
    result.insert(result.begin(), out.detach());
    return result;
  }
  Side in(torch::Dtype dtype) const {
    Side other{{}, upstream.to(dtype), attend};
    for (const Tensor& t : inputs) other.inputs.push_back(t.to(dtype));
    return other;
  }
};

// Bounds of float32: R4.1's 2e-6 and 5e-6. bfloat16: the output's own rounding, 2^-8 of its size, and three times that
// where gradients pass through the rounded output.
double error_bound(Work work, bool bf16) {
  const bool forward = work == Work::kForward;
  return bf16 ? (forward ? 1.0 : 3.0) / 256 : forward ? 2e-6 : 5e-6;
}

// `small`: a part of the call small enough for float64.
void compare(BenchRow row, const Case& c, Work work, const Side& ours, const Side& peer, const Side& small,
             const BenchOptions& options, const BenchDone& done) {
  const bool bf16 = ours.upstream.scalar_type() == torch::kBFloat16;
  const int64_t n = c.edge * c.edge * c.edge;
  row.dtype = bf16 ? "bf16" : "f32";
  row.target = target(c, work, bf16);
  row.error = error_of(small.run(work), small.in(torch::kFloat64).run(work));
  row.error_bound = error_bound(work, bf16);
  row.workspace_bytes = measure_workspace([&] {
    int64_t bytes = 0;
    for (const Tensor& t : ours.run(work)) bytes += static_cast<int64_t>(t.nbytes());
    return bytes;
  });
  time_in_turns(
      row, options, [&] { ours.run(work); }, [&] { peer.run(work); });
  row.rate = 1e-6 * static_cast<double>(c.windows * c.heads * n * n) / row.ours_best_ms;
  const double forward = kernels::forward_roofline(options.peak_gflops, c.channels),
               backward = kernels::backward_roofline(options.peak_gflops, c.channels);
  row.roofline_share = row.rate / (work == Work::kForward ? forward : 1 / (1 / forward + 1 / backward));
  done(row);
}

constexpr Work kWorks[] = {Work::kForward, Work::kLearnableBias, Work::kFrozenBias};

std::string shape_of(const Case& c) {
  return c10::str("(", c.windows, ",", c.heads, ",", c.edge * c.edge * c.edge, ",", c.channels, ")");
}

// Our kernel on the qkv volume of a grid of windows / 4 by 2 by 2 windows.
Side window_side(const Case& c, torch::Dtype dtype, uint64_t seed) {
  torch::manual_seed(static_cast<int64_t>(seed));
  const int64_t w = c.edge, Z = c.windows / 4 * w, table = (2 * w - 1) * (2 * w - 1) * (2 * w - 1);
  return {
      {torch::randn({1, Z, 2 * w, 2 * w, 3, c.heads, c.channels}).to(dtype), torch::randn({table, c.heads}).to(dtype)},
      torch::randn({1, Z, 2 * w, 2 * w, c.heads * c.channels}).to(dtype),
      [w](const std::vector<Tensor>& t) {
        return std::get<0>(ops::window_attention(t[0], t[1], {w, w, w}, {0, 0, 0}));
      }};
}
}  // namespace

void bench_attention(const BenchOptions& options, const BenchDone& done) {
  for (const Case& c : kCases)
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
      torch::manual_seed(static_cast<int64_t>(options.seed));
      const int64_t n = c.edge * c.edge * c.edge;
      const std::vector<int64_t> shape = {c.windows, c.heads, n, c.channels};
      std::vector<Tensor> inputs;
      for (int i = 0; i < 3; ++i) inputs.push_back(torch::randn(shape).to(dtype));
      inputs.push_back(torch::randn({1, c.heads, n, n}).to(dtype));
      const Side ours{inputs, torch::randn(shape).to(dtype),
                      [](const std::vector<Tensor>& t) { return std::get<0>(ops::attention(t[0], t[1], t[2], t[3])); }};
      Side peer = ours, small = ours;
      peer.attend = [](const std::vector<Tensor>& t) {
        return at::scaled_dot_product_attention(t[0], t[1], t[2], t[3]);
      };
      const auto first_window = Slice(0, 1), first_head = Slice(0, 1);
      for (Tensor& t : small.inputs) t = t.index({first_window, first_head});
      small.upstream = small.upstream.index({first_window, first_head});
      for (const Work work : kWorks)
        compare({std::string("attention ") + name_of(work), shape_of(c), "", "torch SDPA"}, c, work, ours, peer, small,
                options, done);
    }
}

void bench_window(const BenchOptions& options, const BenchDone& done) {
  for (const Case& c : kCases)
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
      const int64_t w = c.edge, n = w * w * w, H = c.heads, C = c.channels, wz = c.windows / 4;
      const Side ours = window_side(c, dtype, options.seed);
      Side peer = ours, small = ours;
      // Rows of the table for each pair of tokens, as a Swin layer keeps them.
      const auto axis = torch::arange(w);
      const auto grid = torch::meshgrid({axis, axis, axis}, "ij");
      Tensor index = torch::zeros({n, n}, torch::kLong);
      for (const Tensor& position : grid) {
        const auto p = position.flatten();
        index = index * (2 * w - 1) + (p.unsqueeze(1) - p.unsqueeze(0) + w - 1);
      }
      peer.attend = [=](const std::vector<Tensor>& t) {
        const auto bias = t[1].index({index.flatten()}).reshape({n, n, H}).permute({2, 0, 1}).unsqueeze(0);
        // [1, (z wz), (y wy), (x wx), 3, H, C] -> [3, windows, H, n, C]
        const auto parts = t[0].reshape({wz, w, 2, w, 2, w, 3, H, C})
                               .permute({6, 0, 2, 4, 7, 1, 3, 5, 8})
                               .reshape({3, wz * 4, H, n, C});
        const auto out = at::scaled_dot_product_attention(parts[0], parts[1], parts[2], bias);
        return out.reshape({wz, 2, 2, H, w, w, w, C})
            .permute({0, 4, 1, 5, 2, 6, 3, 7})
            .reshape({1, wz * w, 2 * w, 2 * w, H * C});
      };
      const auto first = Slice(0, w);
      small.inputs[0] = ours.inputs[0].index({Slice(), first, first, first});
      small.upstream = small.upstream.index({Slice(), first, first, first});
      for (const Work work : kWorks)
        compare(
            {std::string("window_attention ") + name_of(work), shape_of(c), "", "torch: permute, SDPA, permute back"},
            c, work, ours, peer, small, options, done);
    }
}

void bench_threads(const BenchOptions& options, const BenchDone& done) {
  const Case& c = kCases[0];
  const Side side = window_side(c, torch::kFloat32, options.seed);
  for (const Work work : {Work::kForward, Work::kLearnableBias}) {
    const auto run = [&](int threads) {
      at::set_num_threads(threads);
      return side.run(work);
    };
    BenchRow row{std::string("window_attention ") + name_of(work) + ", 2 threads", shape_of(c), "f32",
                 "our own 1 thread"};
    row.target = has_two_cores(options.two_thread_speed) ? 1.85 : 0;
    row.error = error_of(run(2), run(1));  // the same bits
    time_in_turns(
        row, options, [&] { run(2); }, [&] { run(1); });
    done(row);
  }
  at::set_num_threads(1);
}

}  // namespace fovea::recipes
