// The planner of attention: counts against brute force over every pair, published figures, and when a plan is refused.
#include "fovea/kernels/attention_cost.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/error.h"

namespace fovea::kernels {
namespace {

constexpr double kMiB = 1 << 20, kGiB = 1 << 30, kTiB = kGiB * 1024;

AttentionLayer cube(int64_t edge, int64_t window = 8, int64_t width = 48, int64_t heads = 3) {
  return {{edge, edge, edge}, {window, window, window}, width, heads, DType::kF32};
}

// Two threads of 250 GFLOP/s and 40 GB/s with 24 GiB.
Machine desk() { return {{250, 40}, 2, 24 * kGiB}; }

// Pairs of tokens that share a window and a region, one by one.
int64_t counted_pairs(const Triple& grid, const Triple& window, const Triple& shift) {
  const Triple counts = window_counts(grid, window);
  const int64_t n = window[0] * window[1] * window[2];
  std::vector<int32_t> token(n), region(n);
  int64_t pairs = 0;
  for (int64_t z = 0; z < counts[0]; ++z)
    for (int64_t y = 0; y < counts[1]; ++y)
      for (int64_t x = 0; x < counts[2]; ++x) {
        window_tokens(grid, window, shift, {z, y, x}, token.data(), region.data());
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < n; ++j) pairs += token[i] >= 0 && token[j] >= 0 && region[i] == region[j];
      }
  return pairs;
}

TEST(TokenGrid, CountsPatchesAndPadsTheLastOne) {
  EXPECT_EQ(token_grid({128, 128, 128}, {8, 8, 8}), (Triple{16, 16, 16}));
  EXPECT_EQ(token_grid({181, 217, 181}, {8, 8, 8}), (Triple{23, 28, 23}));
  EXPECT_EQ(token_grid({5, 1, 9}, {8, 1, 3}), (Triple{1, 1, 3}));
}

TEST(AttentionCost, OfAVoxelEachIsWhatTheTextbookCallsInfeasible) {
  const AttentionCost c = attention_cost(AttentionReach::kGlobal, cube(128, 8, 16, 1));
  EXPECT_EQ(c.tokens, 2097152);
  EXPECT_EQ(c.pairs, 4398046511104);
  EXPECT_EQ(c.plain_bytes, 16 * kTiB);
  EXPECT_EQ(c.lse_bytes, 8 * kMiB);
}

TEST(AttentionCost, Of4096PatchesIs16777216ProductsAnd64MiBAHead) {
  const AttentionCost c = attention_cost(AttentionReach::kGlobal, cube(16, 8, 64, 1));
  EXPECT_EQ(c.pairs, 16777216);
  EXPECT_EQ(c.plain_bytes, 64 * kMiB);
  EXPECT_EQ(c.score_flops, 4.0 * 64 * 16777216);
}

TEST(AttentionCost, WindowsOf8SaveAFactor4096OnVoxels8OnPatchesAnd3449WithProjections) {
  const AttentionCost global = attention_cost(AttentionReach::kGlobal, cube(128));
  const AttentionCost windows = attention_cost(AttentionReach::kWindows, cube(128));
  EXPECT_EQ(windows.pairs, 1073741824);
  EXPECT_EQ(global.pairs / windows.pairs, 4096);
  EXPECT_EQ(windows.plain_bytes, 3 * 4 * kGiB);
  EXPECT_EQ(std::floor(global.multiply_adds() / windows.multiply_adds()), 3449);
  EXPECT_EQ(attention_cost(AttentionReach::kGlobal, cube(16)).pairs /
                attention_cost(AttentionReach::kWindows, cube(16)).pairs,
            8);
}

TEST(AttentionCost, PlainSwinBlockAt96Stores484MegabytesOfPaddedWindows) {
  const AttentionCost c = attention_cost(AttentionReach::kWindows, cube(48, 7));
  EXPECT_NEAR(c.plain_bytes, 484e6, 0.5e6);
  EXPECT_LT(c.pairs, c.plain_pairs);  // 48 is padded to 49: ours leaves the padding out
}

TEST(AttentionCost, CountsEveryPairThatSharesAWindowAndARegion) {
  struct Case {
    Triple grid, window;
  };
  for (const Case& c :
       {Case{{16, 16, 16}, {4, 4, 4}}, {{13, 9, 17}, {4, 3, 5}}, {{5, 6, 7}, {5, 4, 2}}, {{1, 1, 9}, {1, 1, 1}}}) {
    const AttentionLayer layer{c.grid, c.window, 6, 3, DType::kF32};
    Triple shift;
    for (int a = 0; a < 3; ++a) shift[a] = c.grid[a] > c.window[a] ? c.window[a] / 2 : 0;
    EXPECT_EQ(attention_cost(AttentionReach::kWindows, layer).pairs, counted_pairs(c.grid, c.window, {0, 0, 0}));
    EXPECT_EQ(attention_cost(AttentionReach::kShiftedWindows, layer).pairs, counted_pairs(c.grid, c.window, shift));
  }
}

TEST(AttentionCost, ShiftedWindowsMaskAThirdOfThePairsAtFourWindowsAnAxis) {
  const double plain = double(attention_cost(AttentionReach::kWindows, cube(16, 4)).pairs);
  const double shifted = double(attention_cost(AttentionReach::kShiftedWindows, cube(16, 4)).pairs);
  EXPECT_NEAR(1 - shifted / plain, 0.330, 0.0005);
}

TEST(AttentionCost, AWindowLargerThanTheGridIsGlobalAttention) {
  for (const auto reach : {AttentionReach::kWindows, AttentionReach::kShiftedWindows})
    EXPECT_EQ(attention_cost(reach, cube(6, 50)).pairs, attention_cost(AttentionReach::kGlobal, cube(6)).pairs);
}

TEST(AttentionCost, AxesOfAnAlignmentSaveNLOverNPlusL) {
  const auto ratio = [](int64_t sequences, int64_t residues) {
    const AttentionLayer layer{{1, sequences, residues}, {1, 1, 1}, 8, 1, DType::kF32};
    return double(attention_cost(AttentionReach::kGlobal, layer).pairs) /
           double(attention_cost(AttentionReach::kAxes, layer).pairs);
  };
  EXPECT_NEAR(ratio(128, 256), 85, 0.5);
  EXPECT_NEAR(ratio(512, 256), 171, 0.5);
  EXPECT_DOUBLE_EQ(ratio(1024, 1024), 512);
}

TEST(AttentionCost, HeadsChangeNothingButTheExponentials) {
  const AttentionCost one = attention_cost(AttentionReach::kGlobal, cube(16, 8, 768, 1));
  const AttentionCost twelve = attention_cost(AttentionReach::kGlobal, cube(16, 8, 768, 12));
  EXPECT_EQ(one.multiply_adds(), twelve.multiply_adds());
  EXPECT_EQ(twelve.exponentials, 12 * one.exponentials);
  EXPECT_NEAR(one.exponentials / one.multiply_adds(), 0.0005, 0.00005);
  EXPECT_NEAR(twelve.exponentials / twelve.multiply_adds(), 0.0057, 0.00005);
}

TEST(AttentionCost, TwiceTheEdgeIs8TimesTheVoxels64TimesGlobalAnd8TimesWindowedPairs) {
  const auto grow = [](AttentionReach reach) {
    return double(attention_cost(reach, cube(64)).pairs) / double(attention_cost(reach, cube(32)).pairs);
  };
  EXPECT_EQ(grow(AttentionReach::kGlobal), 64);
  EXPECT_EQ(grow(AttentionReach::kWindows), 8);
}

TEST(AttentionCost, Bfloat16HalvesWhatIsStoredExceptLse) {
  AttentionLayer layer = cube(16);
  const AttentionCost f32 = attention_cost(AttentionReach::kGlobal, layer);
  layer.dtype = DType::kBF16;
  const AttentionCost bf16 = attention_cost(AttentionReach::kGlobal, layer);
  EXPECT_EQ(bf16.plain_bytes * 2, f32.plain_bytes);
  EXPECT_EQ(bf16.tensor_bytes * 2, f32.tensor_bytes);
  EXPECT_EQ(bf16.lse_bytes, f32.lse_bytes);
}

TEST(AttentionCost, RefusesWhatIsNoLayer) {
  const auto message = [](AttentionLayer layer) {
    try {
      attention_cost(AttentionReach::kGlobal, layer);
    } catch (const ArgumentError& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(message({{0, 4, 4}, {1, 1, 1}, 4, 2}), testing::HasSubstr("at least 1, found 0"));
  EXPECT_THAT(message({{4, 4, 4}, {1, -2, 1}, 4, 2}), testing::HasSubstr("at least 1, found -2"));
  EXPECT_THAT(message({{4, 4, 4}, {1, 1, 1}, 48, 5}),
              testing::HasSubstr("width is 48, expected a multiple of the 5 heads"));
  EXPECT_THAT(message({{4096, 4096, 4096}, {1, 1, 1}, 4, 2}),
              testing::HasSubstr("6.87e+10 tokens, expected at most 2147483648"));
  EXPECT_THAT(message({{1, 1, int64_t{1} << 21}, {1, 1, 1}, 4, 2}), testing::HasSubstr("an axis has 2097152 tokens"));
}

TEST(PredictedTime, IsComputeBoundForGlobalAndAddsTheScoresTraffic) {
  const AttentionLayer layer = cube(16, 8, 48, 3);
  const AttentionCost c = attention_cost(AttentionReach::kGlobal, layer);
  const double scores_s = 3.0 * 16777216 / (1e9 * forward_roofline(500, 16)),
               projections_s = 8.0 * 4096 * 48 * 48 / 500e9;
  EXPECT_DOUBLE_EQ(fused_seconds(c, layer, desk()), scores_s + projections_s);
  EXPECT_DOUBLE_EQ(plain_seconds(c, layer, desk()),
                   scores_s + projections_s + (4 * c.plain_bytes + c.tensor_bytes) / 80e9);
}

TEST(PredictedTime, IsBoundByMemoryWhereThereIsLittleToCompute) {
  const AttentionLayer layer = cube(64, 1, 16, 1);
  const AttentionCost c = attention_cost(AttentionReach::kWindows, layer);
  Machine machine = desk();
  machine.peaks.read_gb_per_s = 0.5;
  EXPECT_DOUBLE_EQ(fused_seconds(c, layer, machine), (c.tensor_bytes + c.lse_bytes) / 1e9);
}

TEST(PredictedTime, IsUnknownWithoutPeaks) {
  const AttentionLayer layer = cube(16);
  const AttentionCost c = attention_cost(AttentionReach::kGlobal, layer);
  EXPECT_TRUE(std::isnan(fused_seconds(c, layer, {})));
  EXPECT_EQ(format_seconds(fused_seconds(c, layer, {})), "?");
}

TEST(WhyRefused, NamesTokensProductsBytesAndTimeOfTheVoxelEachPlan) {
  const AttentionLayer layer = cube(128);
  const std::string why = why_refused(attention_cost(AttentionReach::kGlobal, layer), layer, desk(), 60);
  for (const char* part :
       {"2097152 tokens", "4398046511104 dot products a head", "16 TiB of scores a head", "24.0 GiB", "at best"})
    EXPECT_THAT(why, testing::HasSubstr(part));
  EXPECT_EQ(why.find('\n'), std::string::npos);
}

TEST(WhyRefused, TakesLongRowsThatAreNeverStored) {
  // 48^3 tokens: 46 GiB a head stored, which this machine lacks; ours runs it in seconds.
  const AttentionLayer layer = cube(48);
  const AttentionCost c = attention_cost(AttentionReach::kGlobal, layer);
  EXPECT_GT(c.plain_bytes, desk().memory_bytes);
  EXPECT_EQ(why_refused(c, layer, desk(), 60), "");
  EXPECT_THAT(why_refused(c, layer, desk(), 1), testing::HasSubstr("more than 1 s"));
  EXPECT_EQ(why_refused(attention_cost(AttentionReach::kWindows, cube(128)), cube(128), desk(), 60), "");
}

TEST(WhyRefused, TensorsThatDoNotFitNeedNoTime) {
  const AttentionLayer layer = cube(1024, 8, 768, 12);
  EXPECT_THAT(why_refused(attention_cost(AttentionReach::kWindows, layer), layer, desk(), 1e9),
              testing::HasSubstr("output alone are 12 TiB"));
}

TEST(FormatSeconds, ChoosesTheUnit) {
  EXPECT_EQ(format_seconds(4e-5), "40 us");
  EXPECT_EQ(format_seconds(0.0403), "40.3 ms");
  EXPECT_EQ(format_seconds(3.21), "3.21 s");
  EXPECT_EQ(format_seconds(600), "10 min");
  EXPECT_EQ(format_seconds(5400 * 2), "3.0 h");
  EXPECT_EQ(format_seconds(86400 * 12), "12 days");
}

}  // namespace
}  // namespace fovea::kernels
