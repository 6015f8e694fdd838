// The tile shim: the emulation against a direct definition of each instruction, the processor against the emulation.
#include <gtest/gtest.h>

#if defined(__x86_64__)
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "fovea/core/isa.h"
#include "fovea/core/rng.h"
#include "fovea/kernels/attention.h"
#include "fovea/kernels/cpu/amx.h"
#include "fovea/kernels/cpu/amx_tile.h"

namespace fovea::kernels::amx {
namespace {

#define FOVEA_NEEDS(unit) \
  if (!available(unit)) GTEST_SKIP() << "this machine has " << name_of(best_isa()) << " at most"

float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.f, x) : x; }

float value(uint16_t bits) { return flushed(std::bit_cast<float>(static_cast<uint32_t>(bits) << 16)); }

struct Operands {
  std::vector<uint16_t> a, b;  // 16 x 32
  std::vector<float> d;        // 16 x 16
};

enum class Numbers { kNormal, kAnyBits };

Operands random_operands(int seed, Numbers numbers) {
  Rng rng(seed, 0, 0);
  Operands o{std::vector<uint16_t>(512), std::vector<uint16_t>(512), std::vector<float>(256)};
  for (auto* x : {&o.a, &o.b})
    for (uint16_t& bits : *x) {
      // Any bits: all exponents, so that products overflow, underflow and cancel; infinity and NaN stay out.
      bits = numbers == Numbers::kNormal ? BFloat16(static_cast<float>(rng.normal())).bits
                                         : static_cast<uint16_t>(rng.below(65536));
      if ((bits & 0x7f80) == 0x7f80) bits &= 0xbfff;
    }
  for (float& x : o.d) x = static_cast<float>(rng.normal()) * (numbers == Numbers::kNormal ? 1.f : 1e-38f);
  return o;
}

// d += a b for `rows` rows of d and `pairs` pairs of a; the first `columns` columns.
void define(const Operands& o, int rows, int pairs, int columns, std::vector<float>& d) {
  for (int m = 0; m < rows; ++m)
    for (int n = 0; n < columns; ++n) {
      float even = 0, odd = 0;
      for (int k = 0; k < pairs; ++k) {
        even = flushed(std::fma(value(o.a[m * 32 + 2 * k]), value(o.b[k * 32 + 2 * n]), even));
        odd = flushed(std::fma(value(o.a[m * 32 + 2 * k + 1]), value(o.b[k * 32 + 2 * n + 1]), odd));
      }
      d[m * 16 + n] = flushed(flushed(d[m * 16 + n]) + flushed(even + odd));
    }
}

template <class Tiles>
std::vector<float> product(const Operands& o, const TileConfig& config = whole_tiles()) {
  Tiles tiles(config);
  std::vector<float> d = o.d;
  tiles.template load<3>(d.data(), 64);
  tiles.template load<1>(o.a.data(), 64);
  tiles.template load<6>(o.b.data(), 64);
  tiles.template dot<3, 1, 6>();
  tiles.template store<3>(d.data(), 64);
  return d;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(AmxTile, EmulationMultipliesAsTheInstructionIsDefined) {
  FOVEA_NEEDS(TileUnit::kEmulated);
  for (Numbers numbers : {Numbers::kNormal, Numbers::kAnyBits})
    for (int seed = 0; seed < 20; ++seed) {
      const Operands o = random_operands(seed, numbers);
      std::vector<float> expected = o.d;
      define(o, 16, 16, 16, expected);
      EXPECT_TRUE(same_bits(product<EmulatedTiles>(o), expected)) << "seed " << seed;
    }
}

TEST(AmxTile, DenormalsCountAsZeroAndTheCallersModeSurvives) {
  FOVEA_NEEDS(TileUnit::kEmulated);
  Operands o{std::vector<uint16_t>(512), std::vector<uint16_t>(512), std::vector<float>(256, 0.f)};
  o.a[0] = 1, o.b[0] = 0x7f00;  // the smallest denormal times 1.7e38
  o.d[1] = std::numeric_limits<float>::denorm_min();
  const unsigned mode = _mm_getcsr();
  EXPECT_EQ(product<EmulatedTiles>(o), std::vector<float>(256, 0.f));
  EXPECT_EQ(_mm_getcsr(), mode);
}

TEST(AmxTile, SmallerTilesLeaveTheRestZero) {
  FOVEA_NEEDS(TileUnit::kEmulated);
  TileConfig config = whole_tiles();  // d 5 x 7, a 5 x 9 pairs, b 9 pairs x 7
  config.rows[3] = 5, config.row_bytes[3] = 28;
  config.rows[1] = 5, config.row_bytes[1] = 36;
  config.rows[6] = 9, config.row_bytes[6] = 28;
  const Operands o = random_operands(1, Numbers::kNormal);
  std::vector<float> expected = o.d;
  define(o, 5, 9, 7, expected);
  EXPECT_TRUE(same_bits(product<EmulatedTiles>(o, config), expected));  // beyond it d keeps what it had
}

TEST(AmxTile, LoadsAndStoresStridedRowsAndNothingBeside) {
  FOVEA_NEEDS(TileUnit::kEmulated);
  std::vector<uint8_t> from(16 * 100), to(16 * 80, 0xee);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint8_t>(i * 7);
  EmulatedTiles tiles;
  tiles.load<2>(from.data(), 100);
  tiles.store<2>(to.data(), 80);
  for (int r = 0; r < 16; ++r)
    for (int i = 0; i < 80; ++i) ASSERT_EQ(to[r * 80 + i], i < 64 ? from[r * 100 + i] : 0xee);
  tiles.zero<2>();
  tiles.store<2>(to.data(), 80);
  for (int i = 0; i < 64; ++i) ASSERT_EQ(to[i], 0);
}

FOVEA_AVX512_BEGIN
template <class Tiles>
void round_both(const float* low, const float* high, uint16_t* words) {
  _mm512_storeu_si512(words, Tiles::round_both(_mm512_loadu_ps(low), _mm512_loadu_ps(high)));
}
FOVEA_AVX512_END

std::vector<float> hard_to_round() {
  std::vector<float> all;
  for (uint32_t bits : {0x3f808000u, 0x3f818000u, 0x3f807fffu, 0x3f808001u, 0x7f7fffffu, 0xff7f8000u, 0x00800000u,
                        0x80000000u, 0x7f800000u, 0xff800000u})
    all.push_back(std::bit_cast<float>(bits));
  Rng rng(3, 0, 0);
  while (all.size() < 320) all.push_back(static_cast<float>(rng.normal()));
  return all;
}

TEST(AmxTile, EmulationRoundsToTheNearestTiesToEvenAndKeepsNaN) {
  FOVEA_NEEDS(TileUnit::kEmulated);
  const std::vector<float> x = hard_to_round();
  uint16_t words[32];
  for (size_t i = 0; i + 32 <= x.size(); i += 32) {
    round_both<EmulatedTiles>(&x[i], &x[i + 16], words);
    for (int w = 0; w < 32; ++w) ASSERT_EQ(words[w], BFloat16(x[i + w]).bits) << x[i + w];
  }
  const std::vector<float> nan(16, std::bit_cast<float>(0x7f800001u));
  round_both<EmulatedTiles>(nan.data(), nan.data(), words);
  for (uint16_t w : words) EXPECT_TRUE(std::isnan(std::bit_cast<float>(static_cast<uint32_t>(w) << 16)));
}

TEST(AmxTile, TheRoundingInstructionAgreesWithTheEmulation) {
  if (!__builtin_cpu_supports("avx512bf16")) GTEST_SKIP() << "this machine has no AVX512_BF16";
  const std::vector<float> x = hard_to_round();
  uint16_t a[32], b[32];
  for (size_t i = 0; i + 32 <= x.size(); i += 32) {
    round_both<EmulatedTiles>(&x[i], &x[i + 16], a);
    round_both<HardwareTiles>(&x[i], &x[i + 16], b);
    ASSERT_EQ(std::memcmp(a, b, sizeof a), 0);
  }
}

// Which NaN comes out of inf - inf is nobody's business.
void one_nan(std::vector<float>& values) {
  for (float& x : values)
    if (std::isnan(x)) x = std::numeric_limits<float>::quiet_NaN();
}

TEST(AmxTile, TheProcessorAgreesWithTheEmulationBitForBit) {
  FOVEA_NEEDS(TileUnit::kHardware);
  for (Numbers numbers : {Numbers::kNormal, Numbers::kAnyBits})
    for (int seed = 0; seed < 200; ++seed) {
      const Operands o = random_operands(seed, numbers);
      std::vector<float> a = product<HardwareTiles>(o), b = product<EmulatedTiles>(o);
      one_nan(a), one_nan(b);
      ASSERT_TRUE(same_bits(a, b)) << "seed " << seed;
    }
}

}  // namespace
}  // namespace fovea::kernels::amx
#endif
