#include "fovea/infer/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "fovea/core/error.h"
#include "fovea/core/process_memory.h"

namespace fovea::infer {
namespace {

using testing::HasSubstr;

PredictionProblem large_problem() {
  PredictionProblem p;
  p.shape = {320, 320, 320};
  p.network = {64, 300 << 20};
  p.resident_bytes = 500 << 20;
  return p;
}

TEST(MemoryPlan, TakesOneStripeWithoutALimit) {
  const MemoryPlan plan = plan_prediction(large_problem(), nnunet_windows({96, 96, 96}));
  EXPECT_EQ(plan.stripes, Stripes{});
  EXPECT_EQ(plan.windows, plan.windows_uncut);
  EXPECT_EQ(plan.dense_score_bytes, int64_t{64} * 320 * 320 * 320 * 4);
}

TEST(MemoryPlan, CutsOnlyAsMuchAsTheLimitAsksFor) {
  PredictionProblem p = large_problem();
  const SlidingWindowConfig c = nnunet_windows({96, 96, 96});
  int64_t windows = 0;
  for (int64_t limit : {int64_t{4} << 30, int64_t{2} << 30, int64_t{1400} << 20, int64_t{1100} << 20}) {
    p.limit_bytes = limit;
    const MemoryPlan plan = plan_prediction(p, c);
    EXPECT_LE(plan.peak_bytes, limit);
    EXPECT_EQ(plan.windows, window_count(p.shape, c, plan.stripes));
    EXPECT_GE(plan.windows, windows);
    windows = plan.windows;
  }
}

TEST(MemoryPlan, RefusesWhatCannotFitAndSaysWhatWould) {
  PredictionProblem p = large_problem();
  p.limit_bytes = 700 << 20;
  SlidingWindowConfig c = nnunet_windows({96, 96, 96});
  c.batch = 4;
  try {
    plan_prediction(p, c);
    FAIL();
  } catch (const ResourceError& e) {
    EXPECT_EQ(e.code(), ExitCode::kOutOfResource);
    EXPECT_THAT(e.what(), HasSubstr("MiB, limit 700 MiB"));
    EXPECT_THAT(e.what(), HasSubstr("try batch 1 (now 4)"));
    EXPECT_THAT(e.what(), HasSubstr("or --max-ram "));
  }
}

TEST(MemoryPlan, TheAdvisedLimitIsEnough) {
  PredictionProblem p = large_problem();
  p.limit_bytes = 1;
  std::string advice;
  try {
    plan_prediction(p, nnunet_windows({96, 96, 96}));
  } catch (const ResourceError& e) {
    advice = e.what();
  }
  p.limit_bytes = parse_bytes(advice.substr(advice.find("--max-ram ") + 10));
  EXPECT_LE(plan_prediction(p, nnunet_windows({96, 96, 96})).peak_bytes, p.limit_bytes);
}

TEST(ProbeNetwork, SeesTheActivations) {
  constexpr int64_t kHidden = 64 << 20;
  const NetworkProbe probe = probe_network([](const torch::Tensor& x) {
    const auto hidden = torch::ones({kHidden}, torch::kByte);
    return torch::cat({x, x, x}, 1) + hidden[0];
  }, 1, nnunet_windows({16, 16, 16}, {}));
  EXPECT_EQ(probe.classes, 3);
  if (peak_resident_bytes() > 0) {
    EXPECT_GT(probe.peak_bytes, kHidden * 9 / 10);
    EXPECT_LT(probe.peak_bytes, kHidden * 2);
  }
}

TEST(ParseBytes, TakesUnitsAndRefusesNonsense) {
  EXPECT_EQ(parse_bytes("4G"), int64_t{4} << 30);
  EXPECT_EQ(parse_bytes("1.5GiB"), int64_t{3} << 29);
  EXPECT_EQ(parse_bytes("512m"), 512 << 20);
  EXPECT_EQ(parse_bytes("2000000000"), 2000000000);
  for (const char* bad : {"", "G", "-1G", "4X", "4GG", "nan", "1e30G"}) EXPECT_THROW(parse_bytes(bad), ArgumentError) << bad;
}

/// Output of the probe in a process of its own, whose peak memory is that of the prediction alone.
std::string probe(const std::string& arguments) {
  FILE* pipe = popen((std::string(FOVEA_BINARY_DIR) + "/fovea_infer_probe " + arguments + " 2>&1").c_str(), "r");
  std::string out;
  for (char part[256]; pipe && fgets(part, sizeof part, pipe);) out += part;
  if (pipe) pclose(pipe);
  return out;
}

int64_t number_after(const std::string& text, const std::string& word) {
  const size_t at = text.find(word);
  return at == std::string::npos ? -1 : std::atoll(text.c_str() + at + word.size());
}

TEST(PredictLabels, Of64ClassesAt320CubedStayUnder2GigabytesAndWhatWasPredicted) {
  if (resident_bytes() == 0) GTEST_SKIP() << "no /proc/self/status on this system";
  const bool full = std::getenv("FOVEA_FULL") != nullptr;
  const std::string out = probe(std::string("memory 64 320 320 320 ") + (full ? "96 0.5" : "64 0") + " 2000000000");
  const int64_t peak = number_after(out, "peak_rss "), predicted = number_after(out, "predicted ");
  EXPECT_GT(peak, 0) << out;
  EXPECT_LE(peak, 2000000000) << out;
  EXPECT_LE(peak, predicted) << out;
  EXPECT_GE(double(peak), 0.9 * double(predicted)) << out;
}

TEST(PredictLabels, RefuseAnImpossibleLimitBeforeTheyStart) {
  if (resident_bytes() == 0) GTEST_SKIP() << "no /proc/self/status on this system";
  const std::string out = probe("memory 64 128 128 128 64 0.5 100000000");
  EXPECT_THAT(out, HasSubstr("prediction needs"));
  EXPECT_THAT(out, HasSubstr("limit 95 MiB"));
}

}  // namespace
}  // namespace fovea::infer
