#pragma once
// Tile registers behind one interface, so that a kernel is written once and runs on any machine with AVX-512.
//   A tile is 16 rows of 64 bytes: 16 x 16 floats, or 16 x 16 pairs of bfloat16. The only product is TDPBF16PS,
//     d[m][n] += sum_k a[m][2k] b[k][2n] + a[m][2k+1] b[k][2n+1],
//   so a holds rows of 32 numbers and b holds the other matrix with pairs of consecutive rows interleaved ("paired").
//   HardwareTiles issues the instructions. EmulatedTiles computes their definition (Intel SDM, TDPBF16PS): the even and
//   the odd terms are two chains of fused multiply-adds from 0, added to each other and then to d; every step rounds to
//   nearest even, denormals count as zero, MXCSR is neither read nor changed.
//   A kernel holds one of them for as long as it needs tiles: the constructor configures, the destructor releases.
#if !defined(__x86_64__)
#error "AMX is x86-64 only"
#endif
#include <immintrin.h>

#include <cstdint>
#include <cstring>

// What stands between these is compiled for AVX-512, whatever the rest of the file is compiled for. Keep code that the
// linker may merge with other files' (templates of the standard library) from growing vectors: raw loops only.
// clang-format off
#if defined(__clang__)
#define FOVEA_AVX512_BEGIN \
  _Pragma("clang attribute push(__attribute__((target(\"avx512f,avx512bw,avx512dq,avx512vl\"))), apply_to = function)")
#define FOVEA_AVX512_END _Pragma("clang attribute pop")
#else
#define FOVEA_AVX512_BEGIN _Pragma("GCC push_options") _Pragma("GCC target(\"avx512f,avx512bw,avx512dq,avx512vl,fma\")")
#define FOVEA_AVX512_END _Pragma("GCC pop_options")
#endif
// clang-format on

FOVEA_AVX512_BEGIN
namespace fovea::kernels::amx {

/// Memory operand of LDTILECFG, palette 1.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14]{};
  uint16_t row_bytes[16]{};
  uint8_t rows[16]{};
};
static_assert(sizeof(TileConfig) == 64);

/// All eight tiles whole: off-tile sizes are padded with zeros.
inline TileConfig whole_tiles() {
  TileConfig c;
  for (int t = 0; t < 8; ++t) c.row_bytes[t] = 64, c.rows[t] = 16;
  return c;
}

/// The processor's tiles, on the thread that constructs it.
class HardwareTiles {
 public:
  explicit HardwareTiles(const TileConfig& config = whole_tiles()) { asm volatile("ldtilecfg %0" ::"m"(config)); }
  ~HardwareTiles() { asm volatile("tilerelease"); }
  HardwareTiles(const HardwareTiles&) = delete;
  HardwareTiles& operator=(const HardwareTiles&) = delete;

  /// Rows at base + row * step; step counts bytes.
  template <int T>
  void load(const void* base, int64_t step) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(base), "r"(step), "i"(T) : "memory");
  }
  template <int T>
  void store(void* base, int64_t step) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(base), "r"(step), "i"(T) : "memory");
  }
  template <int T>
  void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
  }
  template <int D, int A, int B>
  void dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(D), "i"(A), "i"(B));
  }

  /// Words 0..15 = low, words 16..31 = high, both rounded to bfloat16. Processors with AMX have the instruction.
  static __m512i round_both(__m512 low, __m512 high) {
    __m512i words;
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(words) : "v"(low), "v"(high));
    return words;
  }
};

/// The same in plain C++.
class EmulatedTiles {
 public:
  explicit EmulatedTiles(const TileConfig& config = whole_tiles()) : config_(config) {}
  EmulatedTiles(const EmulatedTiles&) = delete;
  EmulatedTiles& operator=(const EmulatedTiles&) = delete;

  template <int T>
  void load(const void* base, int64_t step) {
    zero<T>();
    for (int r = 0; r < config_.rows[T]; ++r)
      std::memcpy(tile_[T][r], static_cast<const char*>(base) + r * step, config_.row_bytes[T]);
  }
  template <int T>
  void store(void* base, int64_t step) {
    for (int r = 0; r < config_.rows[T]; ++r)
      std::memcpy(static_cast<char*>(base) + r * step, tile_[T][r], config_.row_bytes[T]);
  }
  template <int T>
  void zero() {
    std::memset(tile_[T], 0, sizeof tile_[T]);
  }
  template <int D, int A, int B>
  void dot() {
    constexpr unsigned kFlushDenormalsRoundToNearest = 0x9fc0;
    const unsigned kept = _mm_getcsr();
    _mm_setcsr(kFlushDenormalsRoundToNearest);
    multiply(tile_[D], tile_[A], tile_[B], config_.rows[D], config_.row_bytes[A] / 4);
    _mm_setcsr(kept);
  }

  static __m512i round_both(__m512 low, __m512 high) {
    const __m256i a = _mm512_cvtepi32_epi16(rounded(low)), b = _mm512_cvtepi32_epi16(rounded(high));
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
  }

 private:
  using Row = uint32_t[16];

  static float low(uint32_t pair) { return __builtin_bit_cast(float, pair << 16); }
  static float high(uint32_t pair) { return __builtin_bit_cast(float, pair & 0xffff0000u); }

  // A function of its own, or the compiler could move arithmetic out of the changed rounding state.
  __attribute__((noinline)) static void multiply(Row* d, const Row* a, const Row* b, int rows, int pairs) {
    for (int m = 0; m < rows; ++m) {
      float even[16] = {}, odd[16] = {}, sum[16];
      for (int k = 0; k < pairs; ++k) {
        const float x = low(a[m][k]), y = high(a[m][k]);
        for (int n = 0; n < 16; ++n) even[n] = __builtin_fmaf(x, low(b[k][n]), even[n]);
        for (int n = 0; n < 16; ++n) odd[n] = __builtin_fmaf(y, high(b[k][n]), odd[n]);
      }
      std::memcpy(sum, d[m], sizeof sum);
      for (int n = 0; n < 16; ++n) sum[n] += even[n] + odd[n];
      std::memcpy(d[m], sum, sizeof sum);
    }
  }

  // Bits of the nearest bfloat16 (ties to even) in the low words; a NaN stays one.
  static __m512i rounded(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x), upper = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(_mm512_srli_epi32(sum, 16), nan, upper, _mm512_set1_epi32(0x40));
  }

  TileConfig config_;
  alignas(64) Row tile_[8][16] = {};
};

}  // namespace fovea::kernels::amx
FOVEA_AVX512_END
