#include "fovea/recipes/report_reader.h"

#include <gtest/gtest.h>

namespace fovea::recipes {
namespace {

// A few steps teach nothing: this is about what is measured and how, not about what is learnt.
TEST(ReportReader, MeasuresSharesAndGivesTheSameFromTheSameSeed) {
  ReadingOptions options;
  options.arms = {ReportArm::kGated, ReportArm::kImageAlone, ReportArm::kTextAlone, ReportArm::kLateConcatenation};
  options.steps = 4;
  const ReportReading one = learn_to_read_reports(options, 5), again = learn_to_read_reports(options, 5);
  ASSERT_EQ(one.arms.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(one.arms[i].clean, again.arms[i].clean) << name_of(options.arms[i]);
    EXPECT_TRUE(one.arms[i].noise >= 0 && one.arms[i].noise <= 1);
  }
  // Two of four nodules are of each kind and one answer serves all: counting tells nothing.
  EXPECT_NEAR(one.arms[1].clean, 0.5, 1e-12);
  std::vector<double> shares = {one.text_alone, one.swapped_mass, one.swapped_accuracy, one.flips, one.gate_of_shuffled};
  for (const ByLanguage& figure : {one.mass, one.pointing, one.absent_auc, one.retrieval})
    shares.insert(shares.end(), figure.begin(), figure.end());
  for (const double share : shares) {
    EXPECT_GE(share, 0);
    EXPECT_LE(share, 1);
  }
  EXPECT_EQ(one.mass, again.mass);
  EXPECT_EQ(one.gate, again.gate);
  double mean = 0;
  for (int64_t region = 0; region < kRegions; ++region) mean += one.map[region][region] / kRegions;
  EXPECT_NEAR(mean, 0.5 * (one.mass[0] + one.mass[1]), 0.1) << "the diagonal of the map is the attention in the named regions";
  EXPECT_EQ(one.example.voxels.dim(), 3);
  EXPECT_NEAR(one.example.weights.sum().item<double>(), 1, 1e-5);
  EXPECT_NEAR(one.example.swapped.sum().item<double>(), 1, 1e-5);
  // As many weights as late concatenation has, within a quarter.
  EXPECT_NEAR(double(one.arms[0].parameters) / double(one.arms[3].parameters), 1, 0.25);
}

}  // namespace
}  // namespace fovea::recipes
