#pragma once
// Backward tiles of the AMX kernels: a block of up to 32 queries against up to kKeysKept keys at a time.
//   Lanes are queries, as in the forward pass, and S^T is recomputed the same way. Per chunk of keys:
//     1. S^T = K Q^T, dP^T = V dO^T to memory; P^T = 2^(scale s + bias - lse) in float, and each lane's sums of P, P dP
//     2. dS^T = P (dP - delta) in float, added to the bias gradient as it is; P and dS rounded to bfloat16, in rows of
//        32 queries: dV += P^T dO, dK += dS^T Q, in float memory, a block of 32 keys at a time
//     3. dQ^T += K^T dS^T over all keys of the chunk, dS paired; the accumulators stay in tiles
//   If the chunk holds all keys of the queries, delta = sum P dP / sum P and P is divided by its sum: both then come
//   from the numbers they are compared with, and neither lse's nor the output's roundings show. Otherwise delta =
//   <dO, O>. Every sum runs in an order fixed by the shapes. Source: Dao et al. 2022 (FlashAttention), algorithm 4.
#include "fovea/kernels/cpu/amx-inl.h"

FOVEA_AVX512_BEGIN
namespace fovea::kernels::amx {

constexpr int kKeysKept = 1024;  // scores and their gradients of one block of queries: 256 KiB

/// Up to kKeysKept keys and where their gradients go. Whole blocks of 32 are packed, zeros behind n.
struct BackwardKeys {
  const uint16_t *k, *v, *k_t;  // pack_rows, pack_rows, pack_transposed
  const float* bias;            // a row of 32 lanes a key, log2 units
  int64_t bias_step;            // floats; 0 repeats one row
  const uint32_t* open;         // lanes that see the key; null: all do
  float *grad_k, *grad_v;       // [blocks * 32][step], added to; grad_k lacks the softmax scale
  int64_t k_step, v_step;       // channels rounded up to 16
  float* grad_bias;             // a row of 32 lanes a key, added to; null: not wanted
  int64_t grad_bias_step;
  int n;
};

/// A packed block of queries, and what it works on.
struct BackwardMemory {
  int64_t C, Cv, depth, v_depth, channel_tiles, v_channel_tiles;
  Aligned<uint16_t> q, grad_out, q_pairs, grad_out_pairs;  // pack_paired twice, pack_row_pairs twice
  Aligned<float> lse, delta;  // a lane a query; lse in log2 units; delta only where keys come in several chunks
  Aligned<float> p, grad_p, grad_q_t;                   // [keys][32] twice, [channels][32]
  Aligned<uint16_t> p_rows, grad_s_rows, grad_s_pairs;  // of a block of keys twice; of all keys

  BackwardMemory(int64_t channels, int64_t value_channels, int64_t keys)
      : C(channels),
        Cv(value_channels),
        depth(blocks_of(C)),
        v_depth(blocks_of(Cv)),
        channel_tiles(tiles_of(C)),
        v_channel_tiles(tiles_of(Cv)),
        q(2 * depth * kTileNumbers),
        grad_out(2 * v_depth * kTileNumbers),
        q_pairs(channel_tiles * kTileNumbers),
        grad_out_pairs(v_channel_tiles * kTileNumbers),
        lse(kBlock),
        delta(kBlock),
        p(round_up(std::min<int64_t>(keys, kKeysKept), kBlock) * kBlock),
        grad_p(round_up(std::min<int64_t>(keys, kKeysKept), kBlock) * kBlock),
        grad_q_t(channel_tiles * kRows * kBlock),
        p_rows(2 * kTileNumbers),
        grad_s_rows(2 * kTileNumbers),
        grad_s_pairs(round_up(std::min<int64_t>(keys, kKeysKept), kBlock) * kBlock) {}

  /// Queries in `apart`, whose q or dO is not finite, enter the products over queries as zeros. Keys that see them
  /// notice by a NaN for a weight or its gradient; only dV misses something, see BackwardBlock::add_query.
  void pack(const BFloat16* const* q_rows, const BFloat16* const* grad_out_rows, int n, uint32_t apart = 0) const {
    const BFloat16 *q_added[kBlock], *grad_out_added[kBlock];
    for (int u = 0; u < n; ++u) {
      q_added[u] = apart >> u & 1 ? nullptr : q_rows[u];
      grad_out_added[u] = apart >> u & 1 ? nullptr : grad_out_rows[u];
    }
    pack_paired(q_rows, n, C, q), pack_row_pairs(q_added, n, C, q_pairs);
    pack_paired(grad_out_rows, n, Cv, grad_out), pack_row_pairs(grad_out_added, n, Cv, grad_out_pairs);
    std::memset(grad_q_t, 0, static_cast<size_t>(channel_tiles * kRows * kLaneBytes));
  }
};

/// <a, b> of two rows.
inline float dot_rows(const BFloat16* a, const BFloat16* b, int64_t channels) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t c = 0; c < channels; c += kBlock) {
    const __m512i x = load_row(a, c, channels), y = load_row(b, c, channels);
    sum = _mm512_fmadd_ps(low_halves(x), low_halves(y), sum);
    sum = _mm512_fmadd_ps(high_halves(x), high_halves(y), sum);
  }
  return _mm512_reduce_add_ps(sum);
}

/// All that a block of packed queries adds to the gradients. `whole`: the chunk holds every key that they see.
template <class Tiles, int kLaneTiles, bool kMasked>
class BackwardBlock {
 public:
  BackwardBlock(Tiles& tiles, const BackwardMemory& memory, float factor)
      : tiles_(tiles), m_(memory), factor_(_mm512_set1_ps(factor)) {}

  void add(const BackwardKeys& keys, bool whole) {
    const int blocks = static_cast<int>(blocks_of(keys.n));
    for (int l = 0; l < kLaneTiles; ++l) sum_p_[l] = sum_pd_[l] = _mm512_setzero_ps();
    // The tiles of a block multiply beside the vector work of the block before.
    for (int b = 0; b < blocks; ++b) {
      score_block<Tiles, kLaneTiles>(tiles_, keys.k + b * 2 * m_.depth * kTileNumbers, m_.q, m_.depth,
                                     m_.p + b * kBlock * kBlock);
      score_block<Tiles, kLaneTiles>(tiles_, keys.v + b * 2 * m_.v_depth * kTileNumbers, m_.grad_out, m_.v_depth,
                                     m_.grad_p + b * kBlock * kBlock);
      if (b > 0) weigh(keys, b - 1);
    }
    if (blocks > 0) weigh(keys, blocks - 1);
    for (int l = 0; l < kLaneTiles; ++l) {
      const __m512 one = _mm512_set1_ps(1.f);
      const __mmask16 some = _mm512_cmp_ps_mask(sum_p_[l], _mm512_setzero_ps(), _CMP_NEQ_UQ);
      inverse_[l] = whole ? _mm512_maskz_div_ps(some, one, sum_p_[l]) : one;
      delta_[l] = whole ? _mm512_mul_ps(sum_pd_[l], inverse_[l]) : _mm512_load_ps(m_.delta + l * kRows);
    }
    for (int b = 0; b < blocks; ++b) {
      round_block(keys, b);
      const int64_t first = b * kBlock;
      add_to_keys(tiles_, m_.p_rows, m_.grad_out_pairs, m_.v_channel_tiles, keys.grad_v + first * keys.v_step,
                  keys.v_step);
      add_to_keys(tiles_, m_.grad_s_rows, m_.q_pairs, m_.channel_tiles, keys.grad_k + first * keys.k_step, keys.k_step);
    }
    add_weighted_rows<Tiles, kLaneTiles>(tiles_, keys.k_t, m_.channel_tiles, m_.grad_s_pairs, blocks, m_.grad_q_t);
  }

  /// dV of the last chunk from query u, for rows of dO that the tiles must not touch: weight 0 times NaN is NaN.
  void add_query(const BackwardKeys& keys, int u, const BFloat16* grad_out) {
    alignas(64) float inverse[kRows];
    _mm512_store_ps(inverse, inverse_[u / kRows]);
    for (int j = 0; j < keys.n; ++j)
      for (int64_t c = 0; keys.open[j] >> u & 1 && c < m_.Cv; ++c)
        keys.grad_v[j * keys.v_step + c] += m_.p[j * kBlock + u] * inverse[u % kRows] * static_cast<float>(grad_out[c]);
  }

 private:
  // s_ij = scale <q_i, k_j> + bias_ij;   P_ij = exp(s_ij - lse_i), in place of s. Sums for delta.
  void weigh(const BackwardKeys& keys, int block) {
    const int64_t first = block * kBlock, step = keys.bias_step;
    const int n = static_cast<int>(std::min<int64_t>(kBlock, keys.n - first));
    const __m512 factor = factor_;
    for (int l = 0; l < kLaneTiles; ++l) {
      const __m512 lse = _mm512_load_ps(m_.lse + l * kRows);
      const float *bias = keys.bias + first * step + l * kRows, *grad_p_in = m_.grad_p + first * kBlock + l * kRows;
      const uint32_t* open = kMasked ? keys.open + first : nullptr;
      float* p_out = m_.p + first * kBlock + l * kRows;
      __m512 sum_p = sum_p_[l], sum_pd = sum_pd_[l];
      for (int j = 0; j < n; ++j, bias += step) {
        const __m512 t = _mm512_fmadd_ps(_mm512_load_ps(p_out + j * kBlock), factor, _mm512_loadu_ps(bias));
        // s - lse is at most 0 but for the rounding of both, which has no bound where scores are large. Keeps NaN.
        const __m512 exponent = _mm512_min_ps(_mm512_setzero_ps(), _mm512_sub_ps(t, lse));
        __m512 p = exp2(exponent), grad_p = _mm512_load_ps(grad_p_in + j * kBlock);
        if (kMasked) {  // what a query does not see may be NaN
          const auto seen = static_cast<__mmask16>(open[j] >> (l * kRows));
          p = _mm512_maskz_mov_ps(seen, p), grad_p = _mm512_maskz_mov_ps(seen, grad_p);
        }
        _mm512_store_ps(p_out + j * kBlock, p);
        sum_p = _mm512_add_ps(sum_p, p), sum_pd = _mm512_fmadd_ps(p, grad_p, sum_pd);
      }
      sum_p_[l] = sum_p, sum_pd_[l] = sum_pd;
    }
  }

  // out_i = sum_j P_ij v_j   =>   dP_ij = <dO_i, v_j>,   dS_ij = P_ij (dP_ij - delta_i)
  // P and dS of a block of keys as the three products want them. What is loaded in the loop is named before it, or the
  // stores would make the compiler load pointers again and again.
  void round_block(const BackwardKeys& keys, int block) {
    const int64_t first = block * kBlock, bias_step = keys.grad_bias_step;
    const int n = static_cast<int>(std::min<int64_t>(kBlock, keys.n - first));
    const float *p_in = m_.p + first * kBlock, *grad_p = m_.grad_p + first * kBlock;
    const uint32_t* open = kMasked ? keys.open + first : nullptr;
    float* grad_bias = keys.grad_bias ? keys.grad_bias + first * bias_step : nullptr;
    uint16_t *p_rows = m_.p_rows, *rows = m_.grad_s_rows, *pairs = m_.grad_s_pairs + block * 2 * kTileNumbers;
    __m512 inverse[2], delta[2];
#pragma GCC unroll 2
    for (int l = 0; l < kLaneTiles; ++l) inverse[l] = inverse_[l], delta[l] = delta_[l];
    for (int r = 0; r < kBlock; r += 2) {
      __m512 p[2][2] = {}, grad_s[2][2] = {};
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const int j = r + half;
#pragma GCC unroll 2
        for (int l = 0; l < kLaneTiles && j < n; ++l) {
          const int64_t at = j * kBlock + l * kRows;
          const auto seen = static_cast<__mmask16>(kMasked ? open[j] >> (l * kRows) : 0xffff);
          p[half][l] = _mm512_maskz_mul_ps(seen, _mm512_load_ps(p_in + at), inverse[l]);
          grad_s[half][l] = _mm512_maskz_mul_ps(seen, p[half][l], _mm512_sub_ps(_mm512_load_ps(grad_p + at), delta[l]));
          if (!grad_bias) continue;
          float* sum = grad_bias + j * bias_step + l * kRows;
          _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), grad_s[half][l]));
        }
        _mm512_store_si512(p_rows + j * kBlock, Tiles::round_both(p[half][0], p[half][1]));
        _mm512_store_si512(rows + j * kBlock, Tiles::round_both(grad_s[half][0], grad_s[half][1]));
      }
#pragma GCC unroll 2
      for (int l = 0; l < kLaneTiles; ++l)
        _mm512_store_si512(pairs + l * kTileNumbers + r / 2 * kBlock,
                           interleave(Tiles::round_both(grad_s[0][l], grad_s[1][l])));
    }
  }

  Tiles& tiles_;
  const BackwardMemory& m_;
  __m512 factor_, sum_p_[2], sum_pd_[2], inverse_[2], delta_[2];
};

}  // namespace fovea::kernels::amx
FOVEA_AVX512_END
