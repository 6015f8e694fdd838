#include "fovea/recipes/lobe_reports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "fovea/core/error.h"
#include "fovea/io/word_pieces.h"

namespace fovea::recipes {
namespace {

std::vector<Body> chests(int64_t count, at::Generator generator) {
  std::vector<Body> bodies;
  for (int64_t i = 0; i < count; ++i) bodies.push_back(draw_chest(generator));
  return bodies;
}

TEST(DrawChest, HasSixLobesOnTheirSidesOfThePatient) {
  const Body body = draw_chest(at::detail::createCPUGenerator(3));
  EXPECT_EQ(body.geometry.axis_codes(), "RAS");
  for (int64_t region = 0; region < kRegions; ++region) {
    const auto voxels = (body.region == region + 1).nonzero();
    ASSERT_GT(voxels.size(0), 10) << body.anatomy->regions[region].en;
    const auto middle = voxels.to(torch::kFloat64).mean(0);
    const Point mm = body.geometry.to_mm({middle[2].item<double>(), middle[1].item<double>(), middle[0].item<double>()});
    EXPECT_EQ(mm[0] > 0, region < 3) << body.anatomy->regions[region].en << ": x of RAS points to the patient's right here";
  }
}

TEST(DrawCases, PlantsFourNodulesWhereTheySayTheyAre) {
  auto generator = at::detail::createCPUGenerator(1);
  const auto bodies = chests(4, generator);
  const ReportCases cases = draw_cases(24, bodies, {.noise = 0}, generator);
  EXPECT_EQ(cases.question.size(), 24u * kRegions);
  EXPECT_EQ(cases.report.size(), 24u * kRegions);
  std::set<std::string> storage;
  for (int64_t b = 0; b < 24; ++b) {
    EXPECT_EQ((cases.kind[b] == 0).sum().item<int64_t>(), 2);
    EXPECT_EQ((cases.kind[b] == 1).sum().item<int64_t>(), 2);
    const Geometry& g = cases.geometry[size_t(b)];
    storage.insert(g.axis_codes());
    for (int64_t r = 0; r < kRegions; ++r) {
      const int64_t kind = cases.kind[b][r].item<int64_t>();
      EXPECT_EQ(cases.radius_mm[b][r].item<double>() > 0, kind >= 0);
      if (kind < 0) continue;
      // The voxel at its centre is of its region and has about its density.
      const Point at = g.to_index({cases.centre_mm[b][r][0].item<double>(), cases.centre_mm[b][r][1].item<double>(), cases.centre_mm[b][r][2].item<double>()});
      const int64_t z = std::lround(at[2]), y = std::lround(at[1]), x = std::lround(at[0]);
      EXPECT_EQ(cases.region[b][z][y][x].item<int64_t>(), r + 1);
      const double hu = cases.voxels[b][0][z][y][x].item<double>() * 500 - 500;
      EXPECT_GT(hu, -800) << "lungs without nodule have -850";
      if (kind == 0) {
        EXPECT_LT(hu, -300);
      }
    }
  }
  EXPECT_EQ(storage, (std::set<std::string>{"LAS", "RAS"}));
}

TEST(DrawCases, AreTheSameFromTheSameSeed) {
  const auto draw = [] {
    auto generator = at::detail::createCPUGenerator(7);
    const auto bodies = chests(2, generator);
    return draw_cases(5, bodies, {}, generator);
  };
  const ReportCases a = draw(), b = draw();
  EXPECT_TRUE(torch::equal(a.voxels, b.voxels));
  EXPECT_EQ(a.report, b.report);
  EXPECT_EQ(a.finding, b.finding);
}

TEST(DrawCases, WithNoiseAloneSayNothingOfTheScan) {
  auto generator = at::detail::createCPUGenerator(2);
  const auto bodies = chests(1, generator);
  const ReportCases cases = draw_cases(2, bodies, {.noise = 1}, generator);
  const auto one = cases.voxels[0].flatten(), other = cases.voxels[1].flatten();
  const double correlation = ((one - one.mean()) * (other - other.mean())).mean().item<double>() / (one.std() * other.std()).item<double>();
  EXPECT_LT(std::abs(correlation), 0.07);  // 3456 voxels: four standard errors
}

TEST(DrawCases, RefuseNoBodiesInOneLine) {
  EXPECT_THROW(draw_cases(1, {}, {}, at::detail::createCPUGenerator(0)), ArgumentError);
}

TEST(AllSentences, AreKnownToTheirOwnVocabularyInBothLanguages) {
  const auto texts = all_sentences(chest_anatomy());
  const auto words = io::WordPieces::from_texts(texts);
  int chinese = 0;
  for (const auto& text : texts) {
    EXPECT_EQ(text.find('{'), std::string::npos) << text;
    chinese += text.find("肺") != std::string::npos;
    for (const int64_t piece : words.encode(text)) EXPECT_NE(piece, words.unknown()) << text;
  }
  EXPECT_GT(chinese, 40);
  EXPECT_EQ(finding_sentence(chest_anatomy(), 0, 1, 0), "There is a solid nodule in the right upper lobe.");
  EXPECT_EQ(finding_sentence(chest_anatomy(), 4, 0, 1), "左肺舌叶见磨玻璃结节。");
}

TEST(LeftRightSwapped, MirrorsThePatientAboutTheMiddleAndUndoesItself) {
  const Body body = draw_chest(at::detail::createCPUGenerator(0));
  const Geometry swapped = left_right_swapped(body.geometry);
  EXPECT_EQ(swapped.axis_codes(), "LAS");
  const Point here = body.geometry.to_mm({3, 4, 5}), there = swapped.to_mm({3, 4, 5});
  EXPECT_NEAR(there[0], -here[0], 1e-9);  // the middle of the grid is 0
  EXPECT_NEAR(there[1], here[1], 1e-9);
  EXPECT_TRUE(same_grid(left_right_swapped(swapped), body.geometry));
}

TEST(ReadAbdomen, FindsSixOrgansOfARealScanOnTheirSides) {
  const auto folder = std::filesystem::path(FOVEA_SOURCE_DIR).parent_path() / "shared/data/totalsegmentator-ct";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder.string() << " is not there";
  const Body body = read_abdomen(folder / "example_ct.nii.gz", folder / "example_seg_fast_force_split.nii.gz");
  for (int64_t region = 0; region < kRegions; ++region) {
    const auto voxels = (body.region == region + 1).nonzero();
    ASSERT_GT(voxels.size(0), 5) << body.anatomy->regions[region].en;
    EXPECT_EQ(voxels.select(1, 2).to(torch::kFloat64).mean().item<double>() > 0.5 * double(body.geometry.shape[2] - 1), region < 3)
        << body.anatomy->regions[region].en;
  }
  auto generator = at::detail::createCPUGenerator(0);
  const ReportCases cases = draw_cases(3, {body}, {}, generator);
  EXPECT_TRUE(cases.voxels.isfinite().all().item<bool>());
  EXPECT_EQ(cases.voxels.size(0), 3);
}

}  // namespace
}  // namespace fovea::recipes
