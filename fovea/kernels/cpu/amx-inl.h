#pragma once
// Vector pieces of the AMX kernels: exp2, log2, transposes, and packing of bfloat16 rows into tiles.
//   Rows of channels lie anywhere in memory and arrive as pointers; a null pointer is a row of zeros (padding, masked
//   keys). Four packings serve all products; each fills whole tiles (512 numbers), with zeros behind the last:
//     pack_rows         X                 [row tile][depth]    left operand, summed over channels
//     pack_paired       X^T, paired       [lane tile][depth]   right operand, summed over channels
//     pack_transposed   X^T               [block][channels]    left operand, summed over 32 rows
//     pack_row_pairs    X, paired         [channels]           right operand, summed over 32 rows
//   "depth" counts 32 channels, "channels" 16 channels, "block" 32 rows. Reads are masked: never a byte beside a row.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "fovea/core/dtype.h"
#include "fovea/kernels/cpu/aligned_memory.h"
#include "fovea/kernels/cpu/amx_tile.h"
#include "fovea/kernels/cpu/targets.h"

FOVEA_AVX512_BEGIN
namespace fovea::kernels::amx {

constexpr int kRows = 16;          // of a tile
constexpr int kBlock = 32;         // queries of a block, keys of a block: two tiles each; numbers in a tile's row
constexpr int kTileNumbers = 512;  // bfloat16 numbers of a tile
constexpr int64_t kLaneBytes = kBlock * sizeof(float);  // a row of a block of float scores or sums
constexpr float kLog2e = 1.44269504f, kLn2 = 0.693147181f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNoWeight = 1e30f;  // as lse of a query: weight exactly 0

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
constexpr int64_t tiles_of(int64_t n) { return (n + kRows - 1) / kRows; }
constexpr int64_t blocks_of(int64_t n) { return (n + kBlock - 1) / kBlock; }

/// Memory on cache lines, zeros at first.
template <class T>
class Aligned {
 public:
  explicit Aligned(int64_t n) : data_(cpu::aligned_memory<T>(n)) { std::fill_n(data_.get(), n, T{}); }
  operator T*() const { return data_.get(); }

 private:
  cpu::AlignedMemory<T> data_;
};

inline __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << std::clamp<int64_t>(n, 0, 16)) - 1); }
inline __mmask32 first_words(int64_t n) {
  return static_cast<__mmask32>((uint64_t{1} << std::clamp<int64_t>(n, 0, 32)) - 1);
}

/// 2^(t + shift) for whole numbers `shift`, relative error 3e-6: a thousandth of what rounding to bfloat16 costs.
/// Exactly 0 for t = -inf. The polynomial sees t alone, so a shift changes no bit of the mantissa.
inline __m512 exp2_shifted(__m512 t, __m512 exponent) {
  const __m512 f = _mm512_reduce_ps(t, 1);  // t - floor(t)
  __m512 p = _mm512_fmadd_ps(f, _mm512_set1_ps(1.34266857e-2f), _mm512_set1_ps(5.22424728e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.241280213f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.693044841f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.f));
  return _mm512_scalef_ps(p, exponent);  // times 2^floor(exponent)
}
inline __m512 exp2(__m512 t) { return exp2_shifted(t, t); }
inline __m512 floor(__m512 t) { return _mm512_roundscale_ps(t, 1); }

/// log2 of positive normal numbers, error 1e-7 relative to max(1, |log2|).
inline __m512 log2(__m512 s) {
  const __m512i bits = _mm512_castps_si512(s);
  const __m512i exponent =  // mantissa into [sqrt(1/2), sqrt(2))
      _mm512_srai_epi32(_mm512_sub_epi32(bits, _mm512_set1_epi32(0x3f3504f3)), 23);
  const __m512 m = _mm512_castsi512_ps(_mm512_sub_epi32(bits, _mm512_slli_epi32(exponent, 23)));
  const __m512 one = _mm512_set1_ps(1.f);
  const __m512 z = _mm512_div_ps(_mm512_sub_ps(m, one), _mm512_add_ps(m, one)), y = _mm512_mul_ps(z, z);
  __m512 p = _mm512_fmadd_ps(y, _mm512_set1_ps(0.3205989f), _mm512_set1_ps(0.4121986f));
  p = _mm512_fmadd_ps(p, y, _mm512_set1_ps(0.5770780f));
  p = _mm512_fmadd_ps(p, y, _mm512_set1_ps(0.9617967f));
  p = _mm512_fmadd_ps(p, y, _mm512_set1_ps(2.8853901f));
  return _mm512_fmadd_ps(p, z, _mm512_cvtepi32_ps(exponent));
}

/// 16 x 16 transpose of 32-bit elements, in registers if it is inlined.
__attribute__((always_inline)) inline void transpose(__m512i (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
    r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
  }
}

inline __m512 low_halves(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
inline __m512 high_halves(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

/// Words 0..15 and 16..31 (two rows' bfloat16) side by side in a lane: the two rows of a paired operand.
inline __m512i interleave(__m512i both) {
  const __m512i word = _mm512_set_epi32(0x1f000f, 0x1e000e, 0x1d000d, 0x1c000c, 0x1b000b, 0x1a000a, 0x190009, 0x180008,
                                        0x170007, 0x160006, 0x150005, 0x140004, 0x130003, 0x120002, 0x110001, 0x100000);
  return _mm512_permutexvar_epi16(word, both);
}

/// 32 channels of a row from channel c on, zeros behind the last.
inline __m512i load_row(const BFloat16* row, int64_t c, int64_t channels) {
  return row ? _mm512_maskz_loadu_epi16(first_words(channels - c), row + c) : _mm512_setzero_si512();
}

/// Whether a row holds an infinity or a NaN.
inline bool has_non_finite(const BFloat16* row, int64_t channels) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  for (int64_t c = 0; c < channels; c += kBlock)
    if (_mm512_cmpeq_epi16_mask(_mm512_and_si512(load_row(row, c, channels), exponent), exponent)) return true;
  return false;
}

/// Rows 2r and 2r + 1, 16 channels from c on, paired.
inline __m512i load_row_pair(const BFloat16* first, const BFloat16* second, int64_t c, int64_t channels) {
  const __mmask16 mask = first_lanes(channels - c);
  __m512i low = _mm512_setzero_si512(), high = low;
  if (first) low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, first + c));
  if (second) high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, second + c)), 16);
  return _mm512_or_si512(low, high);
}

/// n rows; whole blocks of 32 are written: 2 * blocks_of(n) * blocks_of(channels) tiles.
inline void pack_rows(const BFloat16* const* rows, int64_t n, int64_t channels, uint16_t* to) {
  for (int64_t i0 = 0; i0 < round_up(n, kBlock); i0 += kRows)
    for (int64_t c = 0; c < channels; c += kBlock)
      for (int64_t i = i0; i < i0 + kRows; ++i, to += kBlock)
        _mm512_store_si512(to, load_row(i < n ? rows[i] : nullptr, c, channels));
}

/// n <= 32 rows as lanes: 2 * blocks_of(channels) tiles.
inline void pack_paired(const BFloat16* const* rows, int64_t n, int64_t channels, uint16_t* to) {
  for (int64_t i0 = 0; i0 < kBlock; i0 += kRows)
    for (int64_t c = 0; c < channels; c += kBlock) {
      __m512i x[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) x[i] = load_row(i0 + i < n ? rows[i0 + i] : nullptr, c, channels);
      transpose(x);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i, to += kBlock) _mm512_store_si512(to, x[i]);
    }
}

/// n <= 32 rows: tiles_of(channels) tiles.
inline void pack_row_pairs(const BFloat16* const* rows, int64_t n, int64_t channels, uint16_t* to) {
  for (int64_t c = 0; c < channels; c += kRows)
    for (int64_t i = 0; i < kBlock; i += 2, to += kBlock)
      _mm512_store_si512(to, load_row_pair(i < n ? rows[i] : nullptr, i + 1 < n ? rows[i + 1] : nullptr, c, channels));
}

/// n rows: blocks_of(n) * channel_tiles tiles. A channel behind the last is zero.
inline void pack_transposed(const BFloat16* const* rows, int64_t n, int64_t channels, int64_t channel_tiles,
                            uint16_t* to) {
  for (int64_t i0 = 0; i0 < n; i0 += kBlock)
    for (int64_t c = 0; c < channel_tiles * kRows; c += kRows) {
      __m512i x[16];
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) {
        const int64_t i = i0 + 2 * r;
        x[r] = load_row_pair(i < n ? rows[i] : nullptr, i + 1 < n ? rows[i + 1] : nullptr, c, channels);
      }
      transpose(x);
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r, to += kBlock) _mm512_store_si512(to, x[r]);
    }
}

/// Sets one channel of what pack_transposed wrote to 1 for all rows: its sum over rows is the sum of the weights.
inline void set_ones_channel(int64_t n, int64_t channel, int64_t channel_tiles, uint16_t* packed) {
  for (int64_t block = 0; block < blocks_of(n); ++block)
    _mm512_store_si512(packed + (block * channel_tiles + channel / kRows) * kTileNumbers + channel % kRows * kBlock,
                       _mm512_set1_epi16(0x3f80));
}

inline __m256i to_bfloat16(__m512 x) { return _mm512_castsi512_si256(EmulatedTiles::round_both(x, x)); }

/// Row u of the result = from[channel][u] * factor[u], rounded: sums lie [channel][32 lanes]. n rows are written.
inline void write_transposed(const float* from, const __m512 (&factor)[2], int n, int64_t channels,
                             BFloat16* const* rows) {
  for (int64_t c = 0; c < channels; c += kRows)
    for (int u0 = 0; u0 < n; u0 += kRows) {
      __m512i x[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        x[i] = _mm512_castps_si512(_mm512_mul_ps(factor[u0 / kRows], _mm512_load_ps(from + (c + i) * kBlock + u0)));
      transpose(x);
      for (int i = 0; i < std::min(kRows, n - u0); ++i)
        _mm256_mask_storeu_epi16(rows[u0 + i] + c, first_lanes(channels - c), to_bfloat16(_mm512_castsi512_ps(x[i])));
    }
}

/// to[c] = from[c] * factor, rounded.
inline void write_row(const float* from, float factor, int64_t channels, BFloat16* to) {
  for (int64_t c = 0; c < channels; c += kRows)
    _mm256_mask_storeu_epi16(to + c, first_lanes(channels - c),
                             to_bfloat16(_mm512_mul_ps(_mm512_set1_ps(factor), _mm512_loadu_ps(from + c))));
}

// ------------------------------------------------------------------------------------------------------------ products
// Each works on 2 x 2 tiles: four accumulators, two left and two right operands are the eight tiles there are.

/// s[32 keys][32 lanes] = keys (pack_rows, one block) times lanes (pack_paired). kLaneTiles = 1: the first 16 lanes.
template <class Tiles, int kLaneTiles>
void score_block(Tiles& t, const uint16_t* keys, const uint16_t* lanes, int64_t depth, float* s) {
  t.template zero<0>(), t.template zero<1>();
  if (kLaneTiles == 2) t.template zero<2>(), t.template zero<3>();
  for (int64_t c = 0; c < depth; ++c) {
    t.template load<4>(keys + c * kTileNumbers, 64);
    t.template load<5>(keys + (depth + c) * kTileNumbers, 64);
    t.template load<6>(lanes + c * kTileNumbers, 64);
    t.template dot<0, 4, 6>(), t.template dot<1, 5, 6>();
    if (kLaneTiles == 1) continue;
    t.template load<7>(lanes + (depth + c) * kTileNumbers, 64);
    t.template dot<2, 4, 7>(), t.template dot<3, 5, 7>();
  }
  t.template store<0>(s, kLaneBytes);
  t.template store<1>(s + kRows * kBlock, kLaneBytes);
  if (kLaneTiles == 1) return;
  t.template store<2>(s + kRows, kLaneBytes);
  t.template store<3>(s + kRows * kBlock + kRows, kLaneBytes);
}

/// sum[channels][32 lanes] += x (pack_transposed) times weights ([block][2 lane tiles], paired).
template <class Tiles, int kLaneTiles>
void add_weighted_rows(Tiles& t, const uint16_t* x, int64_t channel_tiles, const uint16_t* weights, int64_t blocks,
                       float* sum) {
  for (int64_t c = 0; c < channel_tiles; c += 2) {
    const bool two = c + 1 < channel_tiles;
    float *first = sum + c * kRows * kBlock, *second = first + kRows * kBlock;
    t.template load<0>(first, kLaneBytes);
    if (kLaneTiles == 2) t.template load<1>(first + kRows, kLaneBytes);
    if (two) t.template load<2>(second, kLaneBytes);
    if (two && kLaneTiles == 2) t.template load<3>(second + kRows, kLaneBytes);
    for (int64_t b = 0; b < blocks; ++b) {
      const uint16_t* left = x + (b * channel_tiles + c) * kTileNumbers;
      t.template load<4>(left, 64);
      t.template load<6>(weights + b * 2 * kTileNumbers, 64);
      t.template dot<0, 4, 6>();
      if (kLaneTiles == 2) t.template load<7>(weights + (b * 2 + 1) * kTileNumbers, 64), t.template dot<1, 4, 7>();
      if (!two) continue;
      t.template load<5>(left + kTileNumbers, 64);
      t.template dot<2, 5, 6>();
      if (kLaneTiles == 2) t.template dot<3, 5, 7>();
    }
    t.template store<0>(first, kLaneBytes);
    if (kLaneTiles == 2) t.template store<1>(first + kRows, kLaneBytes);
    if (two) t.template store<2>(second, kLaneBytes);
    if (two && kLaneTiles == 2) t.template store<3>(second + kRows, kLaneBytes);
  }
}

/// sum[32 keys][step floats] += weights (two tiles: 32 keys x 32 queries) times x (pack_row_pairs of the queries).
template <class Tiles>
void add_to_keys(Tiles& t, const uint16_t* weights, const uint16_t* x, int64_t channel_tiles, float* sum,
                 int64_t step) {
  const int64_t bytes = step * static_cast<int64_t>(sizeof(float));
  t.template load<4>(weights, 64);
  t.template load<5>(weights + kTileNumbers, 64);
  for (int64_t c = 0; c < channel_tiles; c += 2) {
    const bool two = c + 1 < channel_tiles;
    float *upper = sum + c * kRows, *lower = upper + kRows * step;
    t.template load<0>(upper, bytes), t.template load<1>(lower, bytes);
    t.template load<6>(x + c * kTileNumbers, 64);
    t.template dot<0, 4, 6>(), t.template dot<1, 5, 6>();
    t.template store<0>(upper, bytes), t.template store<1>(lower, bytes);
    if (!two) continue;
    t.template load<2>(upper + kRows, bytes), t.template load<3>(lower + kRows, bytes);
    t.template load<7>(x + (c + 1) * kTileNumbers, 64);
    t.template dot<2, 4, 7>(), t.template dot<3, 5, 7>();
    t.template store<2>(upper + kRows, bytes), t.template store<3>(lower + kRows, bytes);
  }
}

}  // namespace fovea::kernels::amx
FOVEA_AVX512_END
