// Speed of the attention kernels on one thread: Gs/s = 1e9 scores (query-key pairs times heads) a second of processor
// time, best of several runs with the instruction sets taking turns, so that clock changes hit all of them.
//   cmake --build --preset kernels --target fovea_kernels_bench && taskset -c 1 build/kernels/fovea_kernels_bench
//   [ROUNDS] [PART OF A NAME]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include "fovea/core/isa.h"
#include "fovea/core/rng.h"
#include "fovea/kernels/attention.h"
#include "fovea/kernels/window_attention.h"

namespace {

using namespace fovea;
using namespace fovea::kernels;

// Floats that start at a cache line, as torch's tensors do: rows that straddle lines would cost up to a fifth.
template <class T>
struct LineAllocator {
  using value_type = T;
  T* allocate(size_t n) { return static_cast<T*>(std::aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64)); }
  void deallocate(T* p, size_t) { std::free(p); }
  bool operator==(const LineAllocator&) const { return true; }
};
using Floats = std::vector<float, LineAllocator<float>>;

Floats normal(int64_t n) {
  Floats values(n);
  Rng rng(1, 0, 0);
  for (float& v : values) v = rng.normal();
  return values;
}

// Processor time of this thread: other programs on the core do not count.
double thread_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

template <class Run>
double seconds(const Run& run) {
  const double start = thread_seconds();
  run();
  return thread_seconds() - start;
}

std::vector<Isa> isas() {
  std::vector<Isa> all;
  for (Isa isa : {Isa::kNeon, Isa::kAvx2, Isa::kAvx512})
    if (best_isa() == isa || (best_isa() > isa && isa != Isa::kNeon)) all.push_back(isa);
  return all;
}

const char* wanted = "";  // part of the names to measure

template <class Forward, class Backward>
void measure(const char* name, double scores, int rounds, const Forward& forward, const Backward& backward) {
  if (!std::strstr(name, wanted)) return;
  const std::vector<Isa> all = isas();
  std::vector<double> best_forward(all.size(), 1e9), best_backward(all.size(), 1e9);
  for (int r = 0; r < rounds; ++r)
    for (size_t i = 0; i < all.size(); ++i) {
      forward(all[i]);  // lets the clock settle on this vector width
      best_forward[i] = std::min(best_forward[i], seconds([&] { forward(all[i]); }));
      best_backward[i] = std::min(best_backward[i], seconds([&] { backward(all[i]); }));
    }
  for (size_t i = 0; i < all.size(); ++i)
    std::printf("%-44s %-7s forward %6.3f Gs/s   backward %6.3f Gs/s\n", name, name_of(all[i]).c_str(),
                scores / best_forward[i] * 1e-9, scores / best_backward[i] * 1e-9);
}

void window(int64_t grid, int64_t w, int64_t shift, int64_t H, int64_t C, int rounds) {
  const int64_t tokens = grid * grid * grid, n = w * w * w, table = (2 * w - 1) * (2 * w - 1) * (2 * w - 1);
  const Floats qkv = normal(tokens * 3 * H * C), bias = normal(table * H), upstream = normal(tokens * H * C);
  Floats out(upstream.size()), lse(tokens * H), grad(qkv.size()), grad_bias(bias.size());
  WindowAttentionBackwardParams<float> g;
  g.forward.qkv = View<const float, 7>::contiguous(qkv.data(), {1, grid, grid, grid, 3, H, C});
  g.forward.bias_table = View<const float, 2>::contiguous(bias.data(), {table, H});
  g.forward.window = {w, w, w}, g.forward.shift = {shift, shift, shift}, g.forward.scale = 1 / std::sqrt(double(C));
  g.forward.out = View<float, 6>::contiguous(out.data(), {1, grid, grid, grid, H, C});
  g.forward.lse = View<float, 5>::contiguous(lse.data(), {1, H, grid, grid, grid});
  g.grad_out = View<const float, 6>::contiguous(upstream.data(), g.forward.out.shape);
  g.grad_qkv = View<float, 7>::contiguous(grad.data(), g.forward.qkv.shape);
  g.grad_bias_table = View<float, 2>::contiguous(grad_bias.data(), g.forward.bias_table.shape);
  const Triple counts = window_counts({grid, grid, grid}, g.forward.window);
  const int64_t windows = counts[0] * counts[1] * counts[2];
  char name[96];
  std::snprintf(name, sizeof name, "window (%ld,%ld,%ld,%ld) grid %ld shift %ld", windows, H, n, C, grid, shift);
  measure(
      name, double(windows) * H * n * n, rounds,
      [&](Isa isa) { cpu::window_attention_forward(g.forward, serial_for, isa); },
      [&](Isa isa) { cpu::window_attention_backward(g, serial_for, isa); });
}

void dense(int64_t H, int64_t N, int64_t C, int rounds) {
  const Floats q = normal(H * N * C), upstream = normal(H * N * C);
  Floats out(q.size()), lse(H * N), grad_q(q.size()), grad_k(q.size()), grad_v(q.size());
  const std::array<int64_t, 4> shape{1, H, N, C};
  AttentionBackwardParams<float> g;
  g.forward.q = g.forward.k = g.forward.v = View<const float, 4>::contiguous(q.data(), shape);
  g.forward.scale = 1 / std::sqrt(double(C));
  g.forward.out = View<float, 4>::contiguous(out.data(), shape),
  g.forward.lse = View<float, 3>::contiguous(lse.data(), {1, H, N});
  g.grad_out = View<const float, 4>::contiguous(upstream.data(), shape);
  g.grad_q = View<float, 4>::contiguous(grad_q.data(), shape),
  g.grad_k = View<float, 4>::contiguous(grad_k.data(), shape);
  g.grad_v = View<float, 4>::contiguous(grad_v.data(), shape);
  char name[96];
  std::snprintf(name, sizeof name, "dense (1,%ld,%ld,%ld)", H, N, C);
  measure(
      name, double(H) * N * N, rounds, [&](Isa isa) { cpu::attention_forward(g.forward, serial_for, isa); },
      [&](Isa isa) { cpu::attention_backward(g, serial_for, isa); });
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 20;
  if (argc > 2) wanted = argv[2];
  std::printf("%s\n", cpu_model().c_str());
  window(28, 7, 0, 3, 16, rounds);
  window(28, 7, 3, 3, 16, rounds);
  window(24, 7, 3, 6, 16, rounds);
  window(6, 6, 0, 24, 16, rounds);
  window(16, 8, 0, 4, 32, rounds);
  window(16, 8, 0, 4, 64, rounds);
  window(48, 4, 2, 3, 12, rounds);
  dense(4, 1024, 64, rounds);
}
