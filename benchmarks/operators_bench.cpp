// Time of pooling, deformable and tied axial attention on one thread, milliseconds of processor time, best of several
// runs with the instruction sets taking turns.
//   cmake --build --preset kernels --target fovea_operators_bench && taskset -c 1 build/kernels/fovea_operators_bench
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "fovea/core/isa.h"
#include "fovea/core/rng.h"
#include "fovea/kernels/attention_pool.h"
#include "fovea/kernels/axial_attention.h"
#include "fovea/kernels/deformable_attention.h"

namespace {

using namespace fovea;
using namespace fovea::kernels;

std::vector<float> normal(int64_t n) {
  std::vector<float> values(n);
  Rng rng(1, 0, 0);
  for (float& v : values) v = rng.normal();
  return values;
}

template <class Run>
double milliseconds(const Run& run) {
  const auto now = [] {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e3 * static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_nsec);
  };
  const double start = now();
  run();
  return now() - start;
}

std::vector<Isa> isas() {
  std::vector<Isa> all;
  for (Isa isa : {Isa::kNeon, Isa::kAvx2, Isa::kAvx512})
    if (best_isa() == isa || (best_isa() > isa && isa != Isa::kNeon)) all.push_back(isa);
  return all;
}

// `work`: multiplications and additions of the forward pass.
template <class Forward, class Backward>
void measure(const char* name, double work, int rounds, const Forward& forward, const Backward& backward) {
  for (Isa isa : isas()) {
    double best_forward = 1e9, best_backward = 1e9;
    for (int r = 0; r < rounds; ++r) {
      best_forward = std::min(best_forward, milliseconds([&] { forward(isa); }));
      best_backward = std::min(best_backward, milliseconds([&] { backward(isa); }));
    }
    std::printf("%-52s %-7s forward %8.2f ms %6.1f GFLOP/s   backward %8.2f ms\n", name, name_of(isa).c_str(),
                best_forward, work / best_forward * 1e-6, best_backward);
  }
}

void pool(int64_t N, int64_t H, int64_t E, int rounds) {
  const std::vector<float> scores = normal(N * H), values = normal(N * E), upstream = normal(H * E);
  const std::vector<int64_t> offsets = {0, N};
  std::vector<float> out(H * E), lse(H), grad_scores(scores.size()), grad_values(values.size());
  AttentionPoolBackwardParams<float> g;
  g.forward.scores = View<const float, 2>::contiguous(scores.data(), {N, H});
  g.forward.values = View<const float, 2>::contiguous(values.data(), {N, E});
  g.forward.offsets = View<const int64_t, 1>::contiguous(offsets.data(), {2});
  g.forward.out = View<float, 3>::contiguous(out.data(), {1, H, E});
  g.forward.lse = View<float, 2>::contiguous(lse.data(), {1, H});
  g.grad_out = View<const float, 3>::contiguous(upstream.data(), {1, H, E});
  g.grad_scores = View<float, 2>::contiguous(grad_scores.data(), {N, H});
  g.grad_values = View<float, 2>::contiguous(grad_values.data(), {N, E});
  char name[96];
  std::snprintf(name, sizeof name, "pool %ld rows, %ld heads, %ld channels", N, H, E);
  measure(
      name, 2.0 * N * H * E, rounds, [&](Isa isa) { cpu::attention_pool_forward(g.forward, serial_for, isa); },
      [&](Isa isa) { cpu::attention_pool_backward(g, serial_for, isa); });
}

void deformable(const std::vector<std::vector<int64_t>>& levels, int64_t Q, int64_t H, int64_t K, int64_t C,
                int rounds) {
  const int64_t Lv = static_cast<int64_t>(levels.size()), D = static_cast<int64_t>(levels[0].size());
  std::vector<int64_t> shapes;
  int64_t S = 0;
  for (const auto& level : levels) {
    int64_t size = 1;
    for (int64_t n : level) size *= n, shapes.push_back(n);
    S += size;
  }
  const std::vector<float> value = normal(S * H * C), upstream = normal(Q * H * C), weights = normal(Q * H * Lv * K);
  std::vector<float> locations(weights.size() * D), out(upstream.size()), grad_value(value.size()),
      grad_locations(locations.size()), grad_weights(weights.size());
  Rng rng(2, 0, 0);
  for (float& x : locations) x = rng.uniform();
  DeformableAttentionBackwardParams<float> g;
  g.forward.value = View<const float, 4>::contiguous(value.data(), {1, S, H, C});
  g.forward.spatial_shapes = View<const int64_t, 2>::contiguous(shapes.data(), {Lv, D});
  g.forward.locations = View<const float, 6>::contiguous(locations.data(), {1, Q, H, Lv, K, D});
  g.forward.weights = View<const float, 5>::contiguous(weights.data(), {1, Q, H, Lv, K});
  g.forward.out = View<float, 4>::contiguous(out.data(), {1, Q, H, C});
  g.grad_out = View<const float, 4>::contiguous(upstream.data(), {1, Q, H, C});
  g.grad_value = View<float, 4>::contiguous(grad_value.data(), {1, S, H, C});
  g.grad_locations = View<float, 6>::contiguous(grad_locations.data(), {1, Q, H, Lv, K, D});
  g.grad_weights = View<float, 5>::contiguous(grad_weights.data(), {1, Q, H, Lv, K});
  char name[96];
  std::snprintf(name, sizeof name, "deformable %ld-D, S %ld, %ld queries, %ldx%ldx%ld, C %ld", D, S, Q, H, Lv, K, C);
  measure(
      name, 2.0 * Q * H * Lv * K * (1 << D) * C, rounds,
      [&](Isa isa) { cpu::deformable_attention_forward(g.forward, serial_for, isa); },
      [&](Isa isa) { cpu::deformable_attention_backward(g, serial_for, isa); });
}

void axial(int64_t R, int64_t L, int64_t H, int64_t C, bool tied, AlignmentAxis axis, int rounds) {
  const int64_t n = axis == AlignmentAxis::kResidues ? L : R, m = R * L / n;
  const std::vector<float> qkv = normal(R * L * 3 * H * C), bias = normal(H * n * n), upstream = normal(R * L * H * C);
  std::vector<float> out(upstream.size()), lse(m * H * n), grad_qkv(qkv.size()), grad_bias(bias.size());
  AxialAttentionBackwardParams<float> g;
  g.forward.qkv = View<const float, 6>::contiguous(qkv.data(), {1, R, L, 3, H, C});
  g.forward.axis = axis, g.forward.tied = tied, g.forward.scale = 1 / std::sqrt(double(C) * (tied ? double(m) : 1));
  g.forward.pair_bias = {bias.data(), {1, H, n, n}, {0, n * n, n, 1}};
  g.forward.out = View<float, 5>::contiguous(out.data(), {1, R, L, H, C});
  g.forward.lse = View<float, 4>::contiguous(lse.data(), {1, tied ? 1 : m, H, n});
  g.grad_out = View<const float, 5>::contiguous(upstream.data(), {1, R, L, H, C});
  g.grad_qkv = View<float, 6>::contiguous(grad_qkv.data(), {1, R, L, 3, H, C});
  g.grad_pair_bias = {grad_bias.data(), {1, H, n, n}, {0, n * n, n, 1}};
  char name[96];
  std::snprintf(name, sizeof name, "axial %s %ld x %ld, along %s, H %ld C %ld", tied ? "tied" : "untied", R, L,
                axis == AlignmentAxis::kResidues ? "residues" : "sequences", H, C);
  measure(
      name, 4.0 * m * n * n * H * C, rounds, [&](Isa isa) { cpu::axial_attention_forward(g.forward, serial_for, isa); },
      [&](Isa isa) { cpu::axial_attention_backward(g, serial_for, isa); });
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 5;
  std::printf("%s\n", cpu_model().c_str());
  pool(100000, 1, 1024, rounds);
  pool(20000, 4, 512, rounds);
  deformable({{64, 64}, {32, 32}, {16, 16}, {8, 8}}, 5440, 8, 4, 32, rounds);
  deformable({{16, 16, 16}, {8, 8, 8}}, 4608, 8, 4, 32, rounds);
  axial(128, 256, 8, 32, /*tied=*/false, AlignmentAxis::kResidues, rounds);
  axial(128, 256, 8, 32, /*tied=*/false, AlignmentAxis::kSequences, rounds);
  axial(128, 256, 8, 32, /*tied=*/true, AlignmentAxis::kResidues, rounds);
}
