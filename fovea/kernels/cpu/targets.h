#pragma once
// Which Highway targets the kernels are compiled for. Include before any hwy header.
//   AVX2, AVX3 (AVX-512 F, BW, CD, DQ, VL), NEON. Older x86 runs the reference kernels: kernels/cpu/*.cpp skip the
//   baseline target that Highway insists on. SVE stays off because its vectors cannot be elements of an array, and
//   arrays of vectors are our register tiles; SVE machines run the NEON code.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#define FOVEA_HAS_KERNELS (HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON)

#include "hwy/detect_targets.h"

// `return function(arguments)` of the best target that `isa` allows; goes on where there is none.
#if HWY_TARGETS & HWY_AVX3
#define FOVEA_RETURN_AVX3(isa, function, ...) \
  if ((isa) >= Isa::kAvx512) return N_AVX3::function(__VA_ARGS__);
#else
#define FOVEA_RETURN_AVX3(isa, function, ...)
#endif
#if HWY_TARGETS & HWY_AVX2
#define FOVEA_RETURN_AVX2(isa, function, ...) \
  if ((isa) >= Isa::kAvx2) return N_AVX2::function(__VA_ARGS__);
#else
#define FOVEA_RETURN_AVX2(isa, function, ...)
#endif
#if HWY_TARGETS & HWY_NEON
#define FOVEA_RETURN_NEON(isa, function, ...) \
  if ((isa) == Isa::kNeon) return N_NEON::function(__VA_ARGS__);
#else
#define FOVEA_RETURN_NEON(isa, function, ...)
#endif
#define FOVEA_RETURN_BEST(isa, function, ...)   \
  FOVEA_RETURN_AVX3(isa, function, __VA_ARGS__) \
  FOVEA_RETURN_AVX2(isa, function, __VA_ARGS__) \
  FOVEA_RETURN_NEON(isa, function, __VA_ARGS__)

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif
#include <cstdint>

namespace fovea::kernels::cpu {

/// Denormal numbers count as zero while this lives (on this thread): vanishing weights would otherwise cost hundreds of
/// cycles each. The caller's rounding state comes back at the end.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : kept_(_mm_getcsr()) { _mm_setcsr(static_cast<unsigned>(kept_) | 0x8040); }  // FTZ, DAZ
  ~FlushDenormals() { _mm_setcsr(static_cast<unsigned>(kept_)); }
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(kept_));
    asm volatile("msr fpcr, %0" ::"r"(kept_ | 1u << 24));  // FZ
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(kept_)); }
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  uint64_t kept_ = 0;
};

}  // namespace fovea::kernels::cpu
