#include "fovea/train/segmentation_metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"

namespace fovea::train {
namespace {

View<const int32_t, 1> view(const std::vector<int32_t>& v) { return View<const int32_t, 1>::contiguous(v.data(), {int64_t(v.size())}); }
View<const uint8_t, 3> view(const std::vector<uint8_t>& v, std::array<int64_t, 3> shape) { return View<const uint8_t, 3>::contiguous(v.data(), shape); }

TEST(OverlapCounts, OfAHandCountedCase) {
  const auto counts = overlap_counts(view({0, 1, 1, 2, 0, 2}), view({0, 1, 2, 2, 1, 0}), 3);
  EXPECT_EQ(counts[0], (OverlapCounts{1, 1, 1, 3}));
  EXPECT_EQ(counts[1], (OverlapCounts{1, 1, 1, 3}));
  EXPECT_EQ(counts[2], (OverlapCounts{1, 1, 1, 3}));
  EXPECT_DOUBLE_EQ(counts[2].dice(), 0.5);
  EXPECT_DOUBLE_EQ(counts[2].iou(), 1.0 / 3);
}

TEST(OverlapCounts, LeaveOutWhatTheReferenceIgnores) {
  const auto counts = overlap_counts(view({0, 1, 1, 1}), view({0, 1, 3, 3}), 2, 3);
  EXPECT_EQ(counts[1], (OverlapCounts{1, 0, 0, 1}));
}

TEST(OverlapCounts, RefuseALabelOutsideTheSetAndSayWhere) {
  try {
    overlap_counts(view({0, 1, 7}), view({0, 1, 1}), 2);
    FAIL();
  } catch (const ArgumentError& e) {
    EXPECT_STREQ(e.what(), "overlap_counts: prediction has label 7 at voxel 2, expected 0 to 1");
  }
  EXPECT_THROW(overlap_counts(view({0}), view({-1}), 2), ArgumentError);
  EXPECT_THROW(overlap_counts(view({0}), view({0, 0}), 2), ArgumentError);
}

TEST(SegmentationMetrics, CountTheSameAsTheOnePassCounts) {
  std::vector<uint8_t> p(4 * 5 * 6), r(p.size());
  Rng rng(1, 0, 0);
  for (size_t i = 0; i < p.size(); ++i) p[i] = rng.chance(0.4f), r[i] = rng.chance(0.5f);
  const auto m = segmentation_metrics(view(p, {4, 5, 6}), view(r, {4, 5, 6}), {2, 1, 1});
  const auto one_pass = overlap_counts(view(std::vector<int32_t>(p.begin(), p.end())), view(std::vector<int32_t>(r.begin(), r.end())), 2);
  EXPECT_EQ(m.counts, one_pass[1]);
  EXPECT_DOUBLE_EQ(m.volume_ref_ml, 0.002 * double(m.counts.n_ref()));
  EXPECT_EQ(m.nsd.size(), 2u);
  EXPECT_LE(m.hd95_mm, m.hd_mm);
  EXPECT_LE(m.nsd[0], m.nsd[1]);
}

TEST(SegmentationMetrics, DoNotSeeIgnoredVoxels) {
  std::vector<uint8_t> p(60), r(60), ignored(60);
  p[3] = r[3] = p[40] = 1, ignored[40] = 1;
  const auto m = segmentation_metrics(view(p, {3, 4, 5}), view(r, {3, 4, 5}), {1, 1, 1}, {}, serial_for, view(ignored, {3, 4, 5}));
  EXPECT_EQ(m.counts, (OverlapCounts{1, 0, 0, 58}));
  EXPECT_EQ(m.hd_mm, 0);
}

struct Empty : testing::TestWithParam<std::pair<bool, bool>> {};  // prediction has it, reference has it

TEST_P(Empty, IsUndefinedOrPenalisedAsThePolicySays) {
  const auto [in_pred, in_ref] = GetParam();
  std::vector<uint8_t> p(27), r(27);
  p[4] = in_pred, r[5] = in_ref;
  const auto raw = segmentation_metrics(view(p, {3, 3, 3}), view(r, {3, 3, 3}), {1, 1, 1});
  const double diagonal = diagonal_mm({3, 3, 3}, {1, 1, 1});
  EXPECT_NEAR(diagonal, std::sqrt(27.0), 1e-12);
  const auto excluded = with_policy(raw, EmptyPolicy::kNanExcluded, diagonal), penalised = with_policy(raw, EmptyPolicy::kPenalised, diagonal);
  if (in_pred && in_ref) {
    EXPECT_EQ(excluded.hd_mm, penalised.hd_mm);
    EXPECT_EQ(excluded.dice, penalised.dice);
    return;
  }
  for (double v : {excluded.hd_mm, excluded.hd95_mm, excluded.assd_mm, excluded.nsd[0]}) EXPECT_TRUE(std::isnan(v));
  const bool neither = !in_pred && !in_ref;
  if (neither) {
    EXPECT_TRUE(std::isnan(excluded.dice));
  } else {
    EXPECT_EQ(excluded.dice, 0);
  }
  for (double v : {penalised.dice, penalised.iou, penalised.volumetric_similarity, penalised.nsd[0], penalised.nsd[1]}) EXPECT_EQ(v, neither ? 1 : 0);
  for (double v : {penalised.hd_mm, penalised.hd95_mm, penalised.assd_mm}) EXPECT_EQ(v, neither ? 0 : diagonal);
}
INSTANTIATE_TEST_SUITE_P(Structures, Empty,
                         testing::Values(std::pair{false, false}, std::pair{true, false}, std::pair{false, true}, std::pair{true, true}));

TEST(PresenceCounts, PutEveryCaseInOneOfFour) {
  PresenceCounts c;
  for (const OverlapCounts& o : {OverlapCounts{1, 0, 0, 0}, {0, 2, 0, 0}, {0, 0, 3, 0}, {0, 0, 0, 4}, {0, 1, 1, 0}}) c.add(o);
  EXPECT_EQ(c.in_both, 2);
  EXPECT_EQ(c.only_in_prediction, 1);
  EXPECT_EQ(c.only_in_reference, 1);
  EXPECT_EQ(c.in_neither, 1);
}

TEST(MeanOf, CountsWhatItLeavesOut) {
  const MetricMean m = mean_of({1, std::nan(""), 3});
  EXPECT_EQ(m.mean, 2);
  EXPECT_EQ(m.used, 2);
  EXPECT_EQ(m.excluded, 1);
  EXPECT_TRUE(std::isnan(mean_of({std::nan("")}).mean));
}

}  // namespace
}  // namespace fovea::train
