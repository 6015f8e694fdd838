// Bags of digits and of tables: how they are drawn, read, dealt and learnt.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "fovea/recipes/bag_tables.h"
#include "fovea/recipes/digit_bags.h"
#include "fovea/recipes/scratch_folder.h"
#include "fovea/recipes/two_at_a_time.h"
#include "tests/train/message_of.h"

namespace fovea::recipes {
namespace {

data::LabelledImages stripes() {  // ten classes, class k: row k bright
  data::LabelledImages pool;
  pool.labels = torch::arange(60, torch::kInt64).remainder(10);
  pool.images = torch::zeros({60, 28, 28});
  for (int64_t i = 0; i < 60; ++i) pool.images[i].slice(0, 2 * (i % 10), 2 * (i % 10) + 4) = 1 + 0.1 * double(i / 10);
  return pool;
}

TEST(DigitBags, PositiveBagsHoldTheTargetAndNegativeOnesDoNot) {
  const auto pool = stripes();
  const auto bags = draw_digit_bags(pool, {.bags = 40, .mean_length = 5, .deviation = 4, .target = 3}, 1);
  EXPECT_EQ(bags.labels.sum().item<int64_t>(), 20);
  std::set<int64_t> lengths;
  for (int64_t b = 0; b < 40; ++b) {
    const int64_t first = bags.offsets[b].item<int64_t>(), last = bags.offsets[b + 1].item<int64_t>();
    lengths.insert(last - first);
    EXPECT_GE(last - first, 1);
    const auto digits = pool.labels.index_select(0, bags.places.slice(0, first, last));
    EXPECT_EQ((digits == 3).any().item<bool>(), bags.labels[b].item<int64_t>() == 1);
    EXPECT_TRUE(torch::equal(digits == 3, bags.tells.slice(0, first, last)));
    EXPECT_EQ(bags.rows(b).sizes(), at::IntArrayRef({last - first, 1, 28, 28}));
  }
  EXPECT_GT(lengths.size(), 4u);
  EXPECT_TRUE(torch::equal(bags.places, draw_digit_bags(pool, {.bags = 40, .mean_length = 5, .deviation = 4, .target = 3}, 1).places));
  EXPECT_FALSE(torch::equal(bags.places.slice(0, 0, 20), draw_digit_bags(pool, {.bags = 40, .mean_length = 5, .deviation = 4, .target = 3}, 2).places.slice(0, 0, 20)));
}

TEST(DigitBags, AttentionFindsTheImageThatTellsAndRunsRepeatToTheBit) {
  const auto pool = stripes();
  std::vector<DigitBagRun> runs(3);
  for (auto& run : runs) run.bags.bags = 40, run.bags.mean_length = 4, run.bags.deviation = 1;
  runs[2].pooling = models::BagPooling::kMean;
  auto again = runs;
  learn_digit_bags(runs, pool, pool), learn_digit_bags(again, pool, pool);
  EXPECT_GT(runs[0].auc, 0.95);
  EXPECT_GT(runs[0].instance_auc, 0.9);
  EXPECT_NEAR(runs[2].instance_auc, 0.5, 1e-9);  // a mean says nothing of single images
  for (size_t i = 0; i < runs.size(); ++i) EXPECT_EQ(runs[i].auc, again[i].auc);
  EXPECT_EQ(runs[0].auc, runs[1].auc);
}

TEST(StratifiedFolds, DealEveryBagOnceWithLikeSharesOfBothClasses) {
  const auto labels = (torch::arange(47, torch::kInt64) % 3 == 0).to(torch::kInt64);
  const auto folds = stratified_folds(labels, 5, 9);
  std::set<int64_t> seen;
  for (const auto& fold : folds) {
    int64_t positive = 0;
    for (const int64_t b : fold) seen.insert(b), positive += labels[b].item<int64_t>();
    EXPECT_GE(positive, 3);
    EXPECT_LE(positive, 4);
    EXPECT_GE(fold.size(), 9u);
  }
  EXPECT_EQ(seen.size(), 47u);
}

TEST(TwoAtATime, RunsEachJobOnceAndThrowsWhatAJobThrew) {
  std::vector<int> done(7, 0);
  two_at_a_time(7, [&](size_t i) { ++done[i]; });
  EXPECT_EQ(done, std::vector<int>(7, 1));
  two_at_a_time(0, [&](size_t) { FAIL(); });
  EXPECT_EQ(message_of([] { two_at_a_time(3, [](size_t i) { if (i == 1) throw ArgumentError("job 1"); }); }), "job 1");
}

class BagTables : public testing::Test {
 protected:
  std::string refusal(const std::string& text) {
    std::ofstream(folder_.path() / "t.csv") << text;
    try {
      read_bag_table(folder_.path() / "t.csv");
    } catch (const IoError& error) {
      const std::string message = error.what();
      return message.substr(message.find("t.csv: ") + 7);
    }
    return "no IoError";
  }
  ScratchFolder folder_;
};

TEST_F(BagTables, RowsOfABagMayBeAnywhereAndKeepTheirOrder) {
  std::ofstream(folder_.path() / "t.csv") << "label,bag,f1,f2\n1,b,1,2\n0,a,3,4\n1,b,5,6\n";
  const auto table = read_bag_table(folder_.path() / "t.csv");
  EXPECT_TRUE(torch::equal(table.rows, torch::tensor({{1.f, 2.f}, {5.f, 6.f}, {3.f, 4.f}})));
  EXPECT_TRUE(torch::equal(table.offsets, torch::tensor({0, 2, 3})));
  EXPECT_TRUE(torch::equal(table.labels, torch::tensor({1, 0})));
}

TEST_F(BagTables, BadTablesAreRefusedWithOneLine) {
  EXPECT_EQ(refusal("label,bag,f1\n2,a,1\n"), "row 1 of bag 'a' has the label 2, expected 0 or 1");
  EXPECT_EQ(refusal("label,bag,f1\n1,a,1\n0,a,1\n"), "bag 'a' has rows of both labels, expected one label a bag");
  EXPECT_EQ(refusal("label,bag,f1\n1,a,\n"), "row 1, column f1 is no finite number");
  EXPECT_EQ(refusal("label,bag\n1,a\n"), "has 1 rows and 0 features, expected at least one of each");
}

}  // namespace
}  // namespace fovea::recipes
