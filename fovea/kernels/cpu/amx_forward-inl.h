#pragma once
// Forward tiles of the AMX kernels: a block of up to 32 queries against any number of keys.
//   Lanes are queries, as in the float kernels: S^T = K Q^T, so maximum, sum and scale of a query stay in its lane.
//     queries  2 tiles of 16 lanes   Q^T paired (right operand), packed once
//     keys     chunks of 128         K rows (left operand)
//   Per chunk: 1. S^T, four tiles at a time, to L1 (16 KiB); 2. t = scale * s + bias in float, P^T = 2^t rounded to
//   bfloat16 and paired (8 KiB); 3. O^T += V^T P^T. V^T has one channel of ones behind the last, so that the sums of
//   the rounded weights, which divide the output, come out of the same product; lse is of the sums before rounding.
//   Scores are in log2 units, and scale and bias are applied in float: nothing but the inputs, P and the output is ever
//   rounded to bfloat16.
//   Two versions: plain, if a bound says that nothing can overflow or vanish, and online with a running maximum a lane.
//   The maximum is a whole number, so both give the same output: rescaling by a power of two is exact.
#include "fovea/kernels/cpu/amx-inl.h"

FOVEA_AVX512_BEGIN
namespace fovea::kernels::amx {

constexpr int kChunk = 128;        // keys between two passes over the output
constexpr float kSafeScore = 100;  // |score| below this, in log2 units, needs no maximum: 2^100 * 2^24 keys < FLT_MAX
constexpr float kLazyGrowth = 16;  // the running maximum may be exceeded by 2^16 before sums are rescaled

/// Up to kChunk keys as the tiles want them.
struct ForwardKeys {
  const uint16_t *k, *values;  // pack_rows; pack_transposed with the channel of ones
  const float* bias;           // a row of 32 lanes a key, log2 units
  int64_t bias_step;           // floats; 0 repeats one row
  const uint32_t* open;        // lanes that see the key; null: all do
  int n;
};

struct ForwardMemory {
  int64_t depth, channel_tiles;  // of q and k; of v and the ones
  Aligned<uint16_t> q, p;
  Aligned<float> s, out_t;  // [kChunk][32], [channels][32]
  ForwardMemory(int64_t C, int64_t Cv)
      : depth(blocks_of(C)),
        channel_tiles(tiles_of(Cv + 1)),
        q(2 * depth * kTileNumbers),
        p(kChunk * kBlock),
        s(kChunk * kBlock),
        out_t(channel_tiles * kRows * kBlock) {}
};

/// Scores t of key j against 16 lanes; those that do not see it get -inf. s and bias are the key's rows.
template <bool kMasked>
inline __m512 biased_score(const float* s, __m512 factor, const float* bias, const uint32_t* open, int j, int lane) {
  const __m512 t = _mm512_fmadd_ps(_mm512_load_ps(s + lane), factor, _mm512_loadu_ps(bias + lane));
  if (!kMasked) return t;
  return _mm512_mask_mov_ps(_mm512_set1_ps(-kInfinity), static_cast<__mmask16>(open[j] >> lane), t);
}

/// What a block of queries carries from chunk to chunk. Queries are packed into memory.q before.
template <class Tiles, int kLaneTiles>
class ForwardBlock {
 public:
  ForwardBlock(Tiles& tiles, const ForwardMemory& memory, float factor)
      : tiles_(tiles), m_(memory), factor_(_mm512_set1_ps(factor)) {
    std::memset(m_.out_t, 0, static_cast<size_t>(m_.channel_tiles * kRows * kLaneBytes));
    for (int l = 0; l < 2; ++l) {
      maximum_[l] = _mm512_set1_ps(std::numeric_limits<float>::lowest());
      sum_[l] = chunk_sum_[l] = _mm512_setzero_ps();
    }
  }

  /// All chunks of a block are added with the same kOnline.
  template <bool kOnline, bool kMasked>
  void add(const ForwardKeys& keys) {
    const int blocks = static_cast<int>(blocks_of(keys.n));
    // The tiles of a block multiply beside the vector work of the block before.
    for (int b = 0; b < blocks; ++b) {
      score_block<Tiles, kLaneTiles>(tiles_, keys.k + b * 2 * m_.depth * kTileNumbers, m_.q, m_.depth,
                                     m_.s + b * kBlock * kBlock);
      if (!kOnline && b > 0) weigh<kOnline, kMasked>(keys, b - 1);
    }
    if (kOnline) {
      raise_maximum<kMasked>(keys);
      for (int b = 0; b < blocks; ++b) weigh<kOnline, kMasked>(keys, b);
    } else if (blocks > 0) {
      weigh<kOnline, kMasked>(keys, blocks - 1);
    }
    for (int l = 0; l < kLaneTiles; ++l)
      sum_[l] = _mm512_add_ps(sum_[l], chunk_sum_[l]), chunk_sum_[l] = _mm512_setzero_ps();
    add_weighted_rows<Tiles, kLaneTiles>(tiles_, keys.values, m_.channel_tiles, m_.p, blocks, m_.out_t);
  }

  /// Adds the value of key j of the last chunk to the lanes that see it: for rows that the tiles must not touch,
  /// because weight 0 times NaN is NaN.
  void add_value(int j, uint32_t lanes, const BFloat16* v, int64_t Cv) {
    for (int l = 0; l < kLaneTiles; ++l) {
      const auto open = static_cast<__mmask16>(lanes >> (l * kRows));
      const __m512i pairs = _mm512_load_si512(m_.p + (j / kBlock * 2 + l) * kTileNumbers + j % kBlock / 2 * kBlock);
      const __m512 p = j % 2 ? high_halves(pairs) : low_halves(pairs);
      for (int64_t c = 0; c < Cv; ++c) {
        float* sum = m_.out_t + c * kBlock + l * kRows;
        const __m512 before = _mm512_load_ps(sum);
        _mm512_store_ps(sum, _mm512_mask3_fmadd_ps(p, _mm512_set1_ps(static_cast<float>(v[c])), before, open));
      }
    }
  }

  /// Output rows of n queries; lse, if wanted, in natural units for all lanes.
  void end(bool online, int64_t Cv, int n, BFloat16* const* rows, float* lse) {
    __m512 inverse[2] = {};
    for (int l = 0; l < kLaneTiles; ++l) {
      const __m512 total = _mm512_load_ps(m_.out_t + Cv * kBlock + l * kRows), one = _mm512_set1_ps(1.f);
      const __mmask16 none = _mm512_cmp_ps_mask(total, _mm512_setzero_ps(), _CMP_EQ_OQ);  // no key took part
      const __mmask16 number = _mm512_cmp_ps_mask(total, total, _CMP_ORD_Q);
      inverse[l] = _mm512_maskz_div_ps(static_cast<__mmask16>(~none), one, total);
      __m512 log = _mm512_mask_mov_ps(total, number, log2(_mm512_mask_mov_ps(sum_[l], none, one)));
      if (online) log = _mm512_add_ps(log, maximum_[l]);
      _mm512_storeu_ps(lse + l * kRows,
                       _mm512_mask_mov_ps(_mm512_mul_ps(log, _mm512_set1_ps(kLn2)), none, _mm512_set1_ps(-kInfinity)));
    }
    write_transposed(m_.out_t, inverse, n, Cv, rows);
  }

 private:
  // Scores of the chunk in place, with bias; the maximum follows where it would be exceeded by too much.
  template <bool kMasked>
  void raise_maximum(const ForwardKeys& keys) {
    for (int l = 0; l < kLaneTiles; ++l) {
      __m512 largest = _mm512_set1_ps(std::numeric_limits<float>::lowest());
      for (int j = 0; j < keys.n; ++j) {
        const __m512 t =
            biased_score<kMasked>(m_.s + j * kBlock, factor_, keys.bias + j * keys.bias_step, keys.open, j, l * kRows);
        _mm512_store_ps(m_.s + j * kBlock + l * kRows, t);
        largest = _mm512_max_ps(largest, t);
      }
      const __mmask16 grown =
          _mm512_cmp_ps_mask(largest, _mm512_add_ps(maximum_[l], _mm512_set1_ps(kLazyGrowth)), _CMP_GT_OQ);
      if (!grown) continue;
      const __m512 raised = _mm512_mask_roundscale_ps(maximum_[l], grown, largest, 2);  // ceil
      const __m512 shift = _mm512_sub_ps(maximum_[l], raised);
      for (int64_t c = 0; c < m_.channel_tiles * kRows; ++c) {
        float* sum = m_.out_t + c * kBlock + l * kRows;
        _mm512_store_ps(sum, _mm512_scalef_ps(_mm512_load_ps(sum), shift));
      }
      sum_[l] = _mm512_scalef_ps(sum_[l], shift);
      maximum_[l] = raised;
    }
  }

  // P^T of one block of keys, paired; keys behind the last weigh 0.
  template <bool kOnline, bool kMasked>
  void weigh(const ForwardKeys& keys, int block) {
    const int first = block * kBlock, n = std::min(kBlock, keys.n - first);
    const __m512 factor = factor_;
    for (int l = 0; l < kLaneTiles; ++l) {
      const __m512 maximum = maximum_[l];
      const float *s = m_.s + first * kBlock, *bias = keys.bias + first * keys.bias_step;
      const uint32_t* open = keys.open;
      const int64_t step = keys.bias_step;
      __m512 sum = chunk_sum_[l], w[2];
      uint16_t* p = m_.p + (block * 2 + l) * kTileNumbers;
      for (int j = 0; j < kBlock; j += 2, p += kBlock) {
#pragma GCC unroll 2
        for (int row = 0; row < 2; ++row, s += kBlock, bias += step) {
          w[row] = _mm512_setzero_ps();
          if (j + row >= n) continue;
          const __m512 t = kOnline ? _mm512_load_ps(s + l * kRows)
                                   : biased_score<kMasked>(s, factor, bias, open, first + j + row, l * kRows);
          w[row] = kOnline ? exp2_shifted(t, _mm512_sub_ps(floor(t), maximum)) : exp2(t);
          sum = _mm512_add_ps(sum, w[row]);
        }
        _mm512_store_si512(p, interleave(Tiles::round_both(w[0], w[1])));
      }
      chunk_sum_[l] = sum;
    }
  }

  Tiles& tiles_;
  const ForwardMemory& m_;
  __m512 factor_, maximum_[2], sum_[2], chunk_sum_[2];
};

}  // namespace fovea::kernels::amx
FOVEA_AVX512_END
