// Probes of the machine: multiply-adds on twelve independent sums, which cover the latency of two units, and a read of
// more memory than any cache holds.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fovea/kernels/cpu/peaks.cpp"
#include "fovea/kernels/cpu/targets.h"

#include "hwy/foreach_target.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include "fovea/kernels/cpu/vector-inl.h"
#include "fovea/kernels/peaks.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace peaks {

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Named variables: an array would live in memory. Different ones: equal sums would be computed once. Returns a sum that
// depends on all of them.
float MultiplyAdds(int64_t rounds, float factor) {
  const Floats d;
  const Vector x = hn::Set(d, factor), y = hn::Set(d, 1e-3f);
  Vector a = hn::Set(d, factor + 1), b = hn::Set(d, factor + 2), c = hn::Set(d, factor + 3), e = hn::Set(d, factor + 4);
  Vector f = hn::Set(d, factor + 5), g = hn::Set(d, factor + 6), h = hn::Set(d, factor + 7), i = hn::Set(d, factor + 8);
  Vector j = hn::Set(d, factor + 9), k = hn::Set(d, factor + 10), l = hn::Set(d, factor + 11),
         m = hn::Set(d, factor + 12);
  for (int64_t r = 0; r < rounds; ++r) {
    a = hn::MulAdd(a, x, y), b = hn::MulAdd(b, x, y), c = hn::MulAdd(c, x, y), e = hn::MulAdd(e, x, y);
    f = hn::MulAdd(f, x, y), g = hn::MulAdd(g, x, y), h = hn::MulAdd(h, x, y), i = hn::MulAdd(i, x, y);
    j = hn::MulAdd(j, x, y), k = hn::MulAdd(k, x, y), l = hn::MulAdd(l, x, y), m = hn::MulAdd(m, x, y);
  }
  const Vector sum = hn::Add(hn::Add(hn::Add(a, b), hn::Add(c, e)), hn::Add(hn::Add(f, g), hn::Add(h, i)));
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(sum, hn::Add(hn::Add(j, k), hn::Add(l, m)))));
}

float SumOf(const float* memory, int64_t n) {
  const Floats d;
  Vector a = hn::Zero(d), b = a, c = a, e = a;
  for (int64_t i = 0; i + 4 * L <= n; i += 4 * L) {
    a = hn::Add(a, hn::Load(d, memory + i)), b = hn::Add(b, hn::Load(d, memory + i + L));
    c = hn::Add(c, hn::Load(d, memory + i + 2 * L)), e = hn::Add(e, hn::Load(d, memory + i + 3 * L));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
}

double MeasureTogether(int threads) {
  constexpr int64_t kRounds = 4000000;
  double best = 0;
  for (int repeat = 0; repeat < 10; ++repeat) {
    std::vector<std::thread> all;
    const auto start = std::chrono::steady_clock::now();
    for (int t = 0; t < threads; ++t)
      all.emplace_back([t] {
        volatile float sink = 0;
        sink = MultiplyAdds(kRounds, 0.5f + t);
      });
    for (std::thread& t : all) t.join();
    best = std::max(best, 1e-9 * kRounds * 12 * L * 2 * threads / seconds_since(start));
  }
  return best;
}

Peaks Measure() {
  constexpr int64_t kRounds = 200000, kFloats = int64_t{64} << 20;
  volatile float sink = 0;
  Peaks best;
  for (int repeat = 0; repeat < 100; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    sink = sink + MultiplyAdds(kRounds, 0.5f + 0 * sink);
    best.fma_gflops = std::max(best.fma_gflops, 1e-9 * kRounds * 12 * L * 2 / seconds_since(start));
  }
  const auto memory = aligned_memory<float>(kFloats);
  Fill(memory.get(), kFloats, 1);
  for (int repeat = 0; repeat < 5; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    sink = sink + SumOf(memory.get(), kFloats);
    best.read_gb_per_s = std::max(best.read_gb_per_s, 1e-9 * kFloats * sizeof(float) / seconds_since(start));
  }
  return best;
}

}  // namespace peaks
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS

#if HWY_ONCE
namespace fovea::kernels {

Peaks measure_peaks([[maybe_unused]] Isa isa) {
  using namespace cpu;
  FOVEA_RETURN_BEST(isa, peaks::Measure)
  return {};
}

double measure_fma_gflops([[maybe_unused]] int threads, [[maybe_unused]] Isa isa) {
  using namespace cpu;
  FOVEA_RETURN_BEST(isa, peaks::MeasureTogether, threads)
  return 0;
}

}  // namespace fovea::kernels
#endif  // HWY_ONCE
