#include "fovea/data/contact_prediction.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"

namespace fovea::data {
namespace {

io::Alignment make(const std::vector<std::string>& rows) {
  io::Alignment a;
  a.columns = int64_t(rows[0].size());
  for (const std::string& row : rows) {
    a.names.push_back("s");
    for (const char letter : row) a.residues.push_back(uint8_t(io::kResidues.find(letter)));
  }
  return a;
}

// Columns i and i + 6 copy each other in four of five sequences; the rest is noise.
io::Alignment coupled(int64_t n, int64_t columns) {
  Rng rng(5, 0, 0);
  std::vector<std::string> rows(size_t(n), std::string(size_t(columns), 'A'));
  for (auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) row[i] = i >= 6 && i < 12 && rng.chance(0.8f) ? row[i - 6] : io::kResidues[rng.below(20)];
  return make(rows);
}

TEST(SequenceWeights, ShareWhatSequencesHaveInCommon) {
  const auto w = sequence_weights(make({"ACDEF", "ACDEF", "ACDEG", "WYWYW"}));
  EXPECT_TRUE(torch::allclose(w, torch::tensor({1.0 / 3, 1.0 / 3, 1.0 / 3, 1.0}, torch::kFloat64)));
  EXPECT_TRUE(torch::equal(sequence_weights(make({"ACDEF", "ACDEG"}), 0.9), torch::ones({2}, torch::kFloat64)));
}

// Rows longer than the lanes of one word count in one go, a length that is no multiple of eight, a letter that names no residue.
TEST(SequenceWeights, CountWholeRowsOfAnyLength) {
  for (const int64_t columns : {1, 8, 13, 248, 249, 1003}) {
    Rng rng(3, 0, 0);
    std::vector<std::string> rows(40, std::string(size_t(columns), 'A'));
    for (size_t n = 0; n < rows.size(); ++n)
      for (char& letter : rows[n])
        if (rng.chance(float(n) / 60)) letter = io::kResidues[rng.below(22)];
    const auto a = make(rows);
    const auto weights = sequence_weights(a, 0.7);
    for (int64_t i = 0; i < a.rows(); ++i) {
      int64_t neighbours = 0;
      for (int64_t j = 0; j < a.rows(); ++j) {
        int64_t same = 0;
        for (int64_t c = 0; c < columns; ++c) same += std::min(a.row(i)[c], io::kGap) == std::min(a.row(j)[c], io::kGap);
        neighbours += double(same) >= 0.7 * double(columns) - 1e-6;
      }
      EXPECT_EQ(weights[i].item<double>(), 1 / double(neighbours)) << columns << " columns, row " << i;
    }
  }
}

TEST(MutualInformation, IsTheEntropyOfACopyAndZeroForIndependentColumns) {
  const auto a = make({"AA-", "CC-", "AAC", "CCC"});
  const auto mi = mutual_information(a, torch::ones({4}, torch::kFloat64));
  EXPECT_NEAR(mi[0][1].item<double>(), std::log(2), 1e-6);
  EXPECT_NEAR(mi[0][2].item<double>(), 0, 1e-6);
}

TEST(ContactPrediction, BothStatisticsPutCoupledColumnsFirst) {
  const auto a = coupled(800, 20);
  const auto weights = sequence_weights(a);
  auto distances = torch::full({20, 20}, 20, torch::kFloat64);
  for (int64_t i = 0; i < 6; ++i) distances[i][i + 6] = distances[i + 6][i] = 3;
  for (const auto& scores : {mutual_information(a, weights), inverse_covariance(a, weights)}) {
    EXPECT_TRUE(torch::allclose(scores, scores.t()));
    EXPECT_EQ(contact_precision(average_product_correction(scores), distances, 6, 1), 1.0);
  }
  EXPECT_NEAR(contact_precision(torch::zeros({20, 20}), distances, 0, 6), 6.0 / 105, 1e-12);
}

TEST(AverageProductCorrection, TakesAwayWhatAColumnHasWithAllOthers) {
  auto strength = torch::tensor({1.0, 2.0, 3.0, 4.0, 5.0}, torch::kFloat64);
  const auto product = (strength.unsqueeze(1) * strength.unsqueeze(0)).fill_diagonal_(0);
  EXPECT_LE(average_product_correction(product).abs().max().item<double>(), 0.35 * product.max().item<double>());
  EXPECT_LE(average_product_correction(torch::ones({5, 5}).fill_diagonal_(0)).abs().max().item<double>(), 1e-12);
}

TEST(AverageProductCorrection, LeavesScoresThatAreAllZero) {
  EXPECT_TRUE(torch::equal(average_product_correction(torch::zeros({4, 4})), torch::zeros({4, 4}, torch::kFloat64)));
}

TEST(ContactPrediction, RefusesWeightsOfOtherSequencesAndPairsWithoutDistance) {
  const auto a = make({"AC", "CA"});
  EXPECT_THROW(mutual_information(a, torch::ones({3}, torch::kFloat64)), ArgumentError);
  EXPECT_THROW(contact_precision(torch::zeros({4, 4}), torch::full({4, 4}, NAN), 1, 1), ArgumentError);
}

// Published alignments and distances: the figures that this data gives elsewhere, from sources with their own code.
TEST(ContactPrediction, FindsTheContactsOfARealFamily) {
  const auto folder = std::filesystem::path(FOVEA_SOURCE_DIR) / "../shared/data/ardca-msa/PF00014";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "the example alignments are not here";
  const auto a = io::read_alignment(folder / "PF00014_mgap6.fasta.gz");
  const auto weights = sequence_weights(a);
  const auto distances = read_distances(folder / "PF00014_struct.dat", a.columns);
  EXPECT_NEAR(weights.sum().item<double>(), 4364, 1);
  EXPECT_NEAR(contact_precision(weights.sum() * torch::zeros({53, 53}), distances, 0, 6), 0.389, 5e-4);
  const auto mi = average_product_correction(mutual_information(a, weights)), inverse = average_product_correction(inverse_covariance(a, weights));
  EXPECT_NEAR(contact_precision(mi, distances, 53, 6), 0.943, 0.02);
  EXPECT_NEAR(contact_precision(inverse, distances, 53, 6), 1, 0.02);
  EXPECT_GE(contact_precision(inverse, distances, 10, 24), 0.9);
}

}  // namespace
}  // namespace fovea::data
