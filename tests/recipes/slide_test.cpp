#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/io/json_file.h"
#include "fovea/recipes/planted_tumour.h"
#include "fovea/recipes/scratch_folder.h"
#include "fovea/recipes/slide_explain.h"
#include "fovea/recipes/slide_train.h"

namespace fovea::recipes {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(SlideAttention, PercentilesAreMeanRanksOverTheNumberOfTiles) {
  EXPECT_THAT(percentiles({0.3, 0.1, 0.3, 0.7}), ElementsAre(0.625, 0.25, 0.625, 1.0));
  EXPECT_THAT(percentiles({5}), ElementsAre(1.0));
}

TEST(SlideAttention, GeoJsonHasOneClosedSquareATileInLevelZeroPixels) {
  SlideAttention a;
  a.corners = {{512, 1024}, {0, 0}}, a.edge = 256, a.weight = {0.75, 0.25}, a.percentile = {1, 0.5};
  const auto json = io::parse_json(attention_geojson(a), "geojson");
  EXPECT_EQ(json["type"], "FeatureCollection");
  ASSERT_EQ(json["features"].size(), 2u);
  const auto& one = json["features"][0];
  EXPECT_EQ(one["geometry"]["type"], "Polygon");
  EXPECT_EQ(one["geometry"]["coordinates"][0].dump(), "[[512,1024],[768,1024],[768,1280],[512,1280],[512,1024]]");
  EXPECT_EQ(one["properties"]["objectType"], "tile");
  EXPECT_EQ(one["properties"]["measurements"]["attention"], 0.75);
  EXPECT_EQ(json["features"][1]["properties"]["measurements"]["attention percentile"], 0.5);
}

SlidePredictions predictions(int cases, int slides_a_case) {
  Rng rng(1, 0, 0);
  SlidePredictions p;
  std::vector<double> score;
  for (int c = 0; c < cases; ++c) {
    const double s = double(rng.normal()) + 0.8 * (c % 2);
    for (int k = 0; k < slides_a_case; ++k) {
      p.slide_ids.push_back(std::to_string(c) + "_" + std::to_string(k)), p.case_ids.push_back(std::to_string(c)), p.labels.push_back(c % 2);
      score.push_back(1 / (1 + std::exp(-s)));
    }
  }
  const auto column = torch::tensor(score, torch::kDouble);
  p.probabilities = torch::stack({1 - column, column}, 1).contiguous();
  return p;
}

TEST(SlideScores, CopiesOfASlideWithinItsCaseDoNotNarrowTheInterval) {
  const auto once = score_slides(predictions(40, 1)), thrice = score_slides(predictions(40, 3));
  EXPECT_DOUBLE_EQ(once[0].value, thrice[0].value);
  EXPECT_NEAR(once[0].interval.low, thrice[0].interval.low, 1e-12);
  EXPECT_NEAR(once[0].interval.high, thrice[0].interval.high, 1e-12);
  EXPECT_LT(once[0].interval.low, once[0].value);
}

TEST(SlideScores, OneClassAloneHasNoAuc) {
  auto p = predictions(10, 1);
  std::fill(p.labels.begin(), p.labels.end(), 1);
  EXPECT_TRUE(std::isnan(score_slides(p)[0].value));
}

// Feature files of made-up slides; a tile of a positive slide may hold the signal in its first number.
struct Study {
  ScratchFolder folder;
  data::SlideTable table;
  explicit Study(int slides, int64_t classes = 2) {
    table.file = folder.path() / "slides.csv";
    for (int64_t c = 0; c < classes; ++c) table.classes.push_back("class" + std::to_string(c));
    for (int i = 0; i < slides; ++i) {
      const int64_t label = i % classes;
      const auto generator = at::detail::createCPUGenerator(uint64_t(i) + 5);
      auto features = torch::randn({20 + i % 7, 6}, generator);
      if (label > 0) features.slice(0, 2, 6).select(1, label) += 4;
      io::write_safetensors(folder.path() / ("s" + std::to_string(i) + ".safetensors"), {{"", data::from_torch(features)}});
      table.slides.push_back({"s" + std::to_string(i), "c" + std::to_string(i), label});
    }
  }
};

class SlideNetworks : public ::testing::TestWithParam<SlideNetwork> {};

TEST_P(SlideNetworks, LearnWhichTilesMatterAndComeBackFromTheirFolder) {
  Study study(30, 3);
  auto config = resolve_slide_config(study.table, {}, {"width=16", "hidden=8", "heads=2", "landmarks=8", "dropout=0", "train.steps=500", "train.optimizer.learning_rate=3e-3", "subtyping=true"});
  config.network = GetParam();
  if (GetParam() == SlideNetwork::kTransmil) config.train.steps = 150;  // ten times as long a step
  data::SlideSplit split;
  for (int64_t i = 0; i < 30; ++i) (i < 21 ? split.train : split.held_out).push_back(i);
  SlideBags bags(study.table, study.folder.path());
  train::RunFolder run(study.folder.path() / "run");
  const auto fitted = fit_slides(study.table, bags, split, config, run);
  EXPECT_GE(score_slides(predict_slides(fitted.model, study.table, split.train, study.folder.path()))[0].value, 0.95);
  fitted.model.save(study.folder.path() / "model", "card");
  const auto again = SlideModel::load(study.folder.path() / "model");
  const auto rows = again.rows(bags.slide(29), "s29");
  EXPECT_TRUE(torch::equal(answer_slide(again, rows).probabilities, answer_slide(fitted.model, rows).probabilities));
  const auto answer = answer_slide(again, rows);
  EXPECT_NEAR(answer.weights.sum().item<double>(), 1, 1e-5);
  EXPECT_LE(answer.effective_tiles, double(rows.size(0)) * (1 + 1e-6));
  data::SlideFeatures narrow;
  narrow.features = torch::rand({4, 5});
  EXPECT_THROW(again.rows(narrow, "x"), ArgumentError);
}
INSTANTIATE_TEST_SUITE_P(All, SlideNetworks, ::testing::Values(SlideNetwork::kAbmil, SlideNetwork::kClamSb, SlideNetwork::kClamMb, SlideNetwork::kTransmil),
                         [](const auto& info) { return name_of(info.param); });

TEST(SlideTraining, FaultsAreOneLine) {
  Study study(8);
  const auto message = [](const auto& f) {
    try {
      f();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadInput);
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  const auto config = resolve_slide_config(study.table, {}, {"train.steps=5"});
  train::RunFolder run(study.folder.path() / "run");
  const auto fit = [&](const data::SlideSplit& split) {
    SlideBags bags(study.table, study.folder.path());
    fit_slides(study.table, bags, split, config, run);
  };
  EXPECT_THAT(message([&] { fit({{0, 2, 4}, {}, {}}); }), HasSubstr("no training slide is of class 'class1'"));
  io::write_safetensors(study.folder.path() / "s3.safetensors", {{"", data::from_torch(torch::rand({9, 4}))}});
  EXPECT_THAT(message([&] { fit({{0, 1, 2, 3}, {}, {}}); }), HasSubstr("has 4 features a tile"));
  EXPECT_THAT(message([&] { resolve_slide_config(study.table, {}, {"network=clam_xb"}); }), HasSubstr("clam_"));
  EXPECT_THAT(message([&] { resolve_slide_config(study.table, {}, {"train.batch_size=2"}); }), HasSubstr("expected 1: slides differ in length"));
  std::filesystem::remove(study.folder.path() / "s5.safetensors");
  EXPECT_THAT(message([&] { SlideBags(study.table, study.folder.path()); }), HasSubstr("has no features of slide 's5'"));
}

TEST(PlantedTumour, AttentionFindsItFromSlideLabelsAlone) {
  PlantedTumourRun run;
  run.seed = 100;
  learn_planted_tumour(run);
  EXPECT_GE(run.slide_auc, 0.9);
  EXPECT_GE(run.tile_auc, 0.9);
  EXPECT_GE(run.top_percent, 0.9);
}

}  // namespace
}  // namespace fovea::recipes
