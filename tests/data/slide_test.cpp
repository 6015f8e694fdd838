// Slides before a network sees them: tissue, tiles, features, tables.
#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cmath>
#include <fstream>
#include <set>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "fovea/data/slide_features.h"
#include "fovea/data/slide_phantom.h"
#include "fovea/data/slide_table.h"
#include "fovea/data/tile_statistics.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/io/feature_file.h"
#include "fovea/io/pyramid_tiff.h"
#include "tests/data/scratch_folder.h"

namespace fovea::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <class E, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

io::SlideRegion plain(int64_t height, int64_t width, std::array<uint8_t, 3> colour) {
  io::SlideRegion region{height, width, std::vector<uint8_t>(size_t(height * width * 3))};
  for (size_t i = 0; i < region.rgb.size(); ++i) region.rgb[i] = colour[i % 3];
  return region;
}

void paint(io::SlideRegion& region, int64_t y, int64_t x, int64_t height, int64_t width, std::array<uint8_t, 3> colour) {
  for (int64_t j = y; j < y + height; ++j)
    for (int64_t i = x; i < x + width; ++i) std::copy(colour.begin(), colour.end(), region.rgb.begin() + (j * region.width + i) * 3);
}

constexpr std::array<uint8_t, 3> kGlass{244, 244, 244}, kPink{220, 130, 180};
const SlidePhantomConfig kSmall{.height = 1400, .width = 1500, .um_per_pixel = 1, .tumour_radius_um = 150, .levels = 2};

TEST(Otsu, IsTheThresholdOfLargestVarianceBetweenTheClasses) {
  Rng rng(1, 0, 0);
  std::vector<uint8_t> values;
  for (int i = 0; i < 4000; ++i) values.push_back(uint8_t(std::clamp(rng.normal() * 12 + (i % 3 ? 30.f : 140.f), 0.f, 255.f)));
  const auto between = [&](int64_t t) {  // straight from the definition
    double n0 = 0, n1 = 0, s0 = 0, s1 = 0;
    for (const uint8_t v : values) v < t ? (n0 += 1, s0 += v) : (n1 += 1, s1 += v);
    return n0 == 0 || n1 == 0 ? 0 : n0 * n1 * std::pow(s0 / n0 - s1 / n1, 2);
  };
  double best = 0;
  for (int64_t t = 0; t < 256; ++t) best = std::max(best, between(t));
  EXPECT_NEAR(between(otsu_threshold(values)) / best, 1, 1e-9);
  EXPECT_EQ(otsu_threshold(std::vector<uint8_t>(100, 7)), 0);
  std::vector<uint8_t> two(50, 10);
  two.insert(two.end(), 50, 20);
  EXPECT_EQ(otsu_threshold(two), 16) << "the middle of the thresholds that part 10 from 20";
}

TEST(TissueMask, FindsWhatIsColouredDropsCrumbsAndFillsSmallHolesOnly) {
  auto picture = plain(300, 400, kGlass);
  paint(picture, 50, 60, 150, 200, kPink);
  paint(picture, 80, 90, 12, 12, kGlass);    // a small hole
  paint(picture, 120, 120, 50, 60, kGlass);  // a large one
  paint(picture, 260, 300, 12, 12, kPink);   // a crumb
  const TissueConfig config{.median = 3, .closing = 1, .min_region_mm2 = 0.02, .min_hole_mm2 = 0.02};
  const auto mask = find_tissue(picture, 10, config);  // 144 pixels are 0.0144 mm2, 3000 are 0.3
  const auto at = [&](int64_t y, int64_t x) { return mask.inside[size_t(y * mask.width + x)]; };
  EXPECT_EQ(at(60, 70), 1);
  EXPECT_EQ(at(86, 96), 1) << "the small hole is filled";
  EXPECT_EQ(at(140, 150), 0) << "the large one is not";
  EXPECT_EQ(at(265, 305), 0) << "a crumb is no tissue";
  EXPECT_EQ(at(10, 10), 0);
  EXPECT_NEAR(double(mask.pixels()), 150 * 200 - 50 * 60, 12) << "but for corners that the median rounds";
  auto keep = config;
  keep.min_region_mm2 = keep.min_hole_mm2 = 0;
  EXPECT_NEAR(double(find_tissue(picture, 10, keep).pixels()), 150 * 200 - 50 * 60 - 144 + 144, 30);
}

TEST(TissueMask, MedianAndClosingAreThoseOfTheDefinition) {
  Rng rng(3, 0, 0);
  auto picture = plain(23, 31, kGlass);
  for (int64_t y = 0; y < 23; ++y)
    for (int64_t x = 0; x < 31; ++x) paint(picture, y, x, 1, 1, {200, uint8_t(rng.below(201)), 100});
  const TissueConfig config{.median = 5, .closing = 3, .threshold = 120, .min_region_mm2 = 0, .min_hole_mm2 = 0};
  const auto mask = find_tissue(picture, 10, config);
  const auto saturation = [&](int64_t y, int64_t x) {
    const uint8_t* p = picture.at(std::clamp<int64_t>(y, 0, 22), std::clamp<int64_t>(x, 0, 30));
    const int most = std::max({p[0], p[1], p[2]}), least = std::min({p[0], p[1], p[2]});
    return (255 * (most - least) + most / 2) / most;
  };
  std::vector<int> seeded(23 * 31);
  for (int64_t y = 0; y < 23; ++y)
    for (int64_t x = 0; x < 31; ++x) {
      std::vector<int> all;
      for (int64_t j = -2; j <= 2; ++j)
        for (int64_t i = -2; i <= 2; ++i) all.push_back(saturation(y + j, x + i));
      std::sort(all.begin(), all.end());
      seeded[size_t(y * 31 + x)] = all[12] >= 120;
    }
  const auto around = [](const std::vector<int>& m, int64_t y, int64_t x, int wanted) {
    for (int64_t j = std::max<int64_t>(0, y - 1); j <= std::min<int64_t>(22, y + 1); ++j)
      for (int64_t i = std::max<int64_t>(0, x - 1); i <= std::min<int64_t>(30, x + 1); ++i)
        if (m[size_t(j * 31 + i)] == wanted) return true;
    return false;
  };
  std::vector<int> grown(seeded.size());
  for (int64_t y = 0; y < 23; ++y)
    for (int64_t x = 0; x < 31; ++x) grown[size_t(y * 31 + x)] = around(seeded, y, x, 1);
  for (int64_t y = 0; y < 23; ++y)
    for (int64_t x = 0; x < 31; ++x) ASSERT_EQ(int(mask.inside[size_t(y * 31 + x)]), int(!around(grown, y, x, 0))) << y << " " << x;
}

TEST(TissueMask, RefusesSettingsThatMeanNothing) {
  const auto picture = plain(20, 20, kPink);
  EXPECT_THAT(message_of<ArgumentError>([&] { find_tissue(picture, 1, {.median = 4}); }), HasSubstr("median = 4, expected odd"));
  EXPECT_THAT(message_of<ArgumentError>([&] { find_tissue(picture, 1, {.threshold = 300}); }), HasSubstr("threshold = 300"));
}

TEST(SlideTiles, SamePhysicalTilesFromFineAndCoarseScansAndExactCoordinates) {
  ScratchFolder folder;
  const auto phantom = make_slide_phantom(kSmall, 0);
  io::write_pyramid_tiff(folder / "a.tif", phantom.levels, 1.0);
  io::Slide one(folder / "a.tif"), half(folder / "a.tif", 0.5);
  const TissueConfig tissue{.um_per_pixel = 4};
  const auto grid = tile_slide(one, find_tissue(one, tissue), {.tile_px = 100, .um_per_pixel = 1});
  const auto fine = tile_slide(half, find_tissue(half, {.um_per_pixel = 2, .min_region_mm2 = .0125, .min_hole_mm2 = 0.005}), {.tile_px = 100, .um_per_pixel = 0.5});
  EXPECT_EQ(grid.edge_level0, 100);
  EXPECT_EQ(fine.corners, grid.corners) << "half the size in micrometres, half the micrometres a pixel";
  for (const auto& [x, y] : grid.corners) EXPECT_TRUE(x % 100 == 0 && y % 100 == 0);
  size_t seen = 0;
  read_tiles(one, grid, [&](size_t i, const io::SlideRegion& tile) {
    ASSERT_EQ(i, seen++);
    const auto [x, y] = grid.corners[i];
    for (const int64_t at : {0, 57, 99})
      if (y + at < 1400 && x + at < 1500) {
        EXPECT_EQ(tile.at(at, at)[1], phantom.levels[0].at(y + at, x + at)[1]);
      }
  });
  EXPECT_EQ(seen, grid.corners.size());
}

TEST(SlideTiles, OverlapSetsTheStrideAndTheShareOfTissueIsTheMasksArea) {
  ScratchFolder folder;
  auto picture = plain(1000, 1000, kGlass);
  paint(picture, 200, 200, 400, 400, kPink);
  io::write_pyramid_tiff(folder / "a.tif", std::vector{picture}, 1.0);
  io::Slide slide(folder / "a.tif");
  const auto tissue = find_tissue(slide, {.um_per_pixel = 2, .median = 1, .closing = 1});
  const auto apart = tile_slide(slide, tissue, {.tile_px = 160, .um_per_pixel = 1, .min_tissue = 0.01});
  const auto dense = tile_slide(slide, tissue, {.tile_px = 160, .um_per_pixel = 1, .overlap_px = 80, .min_tissue = 0.01});
  EXPECT_EQ(apart.stride_level0, 160);
  EXPECT_EQ(dense.stride_level0, 80);
  for (size_t i = 0; i < dense.corners.size(); ++i) {
    const auto covered = [&](int64_t at) { return double(std::max<int64_t>(0, std::min<int64_t>(600, at + 160) - std::max<int64_t>(200, at))); };
    EXPECT_NEAR(dense.tissue[i], covered(dense.corners[i][0]) * covered(dense.corners[i][1]) / (160 * 160), 1e-6);
  }
  const auto strict = tile_slide(slide, tissue, {.tile_px = 160, .um_per_pixel = 1, .min_tissue = 1});
  EXPECT_THAT(strict.corners, ElementsAre(std::array<int64_t, 2>{320, 320}));
}

TEST(SlideTiles, ASlideWithoutTissueOrTooCoarseIsOneLine) {
  ScratchFolder folder;
  auto bare = kSmall;
  bare.tissue = false;
  io::write_pyramid_tiff(folder / "glass.tif", make_slide_phantom(bare, 0).levels, 1.0);
  io::Slide slide(folder / "glass.tif");
  const auto tissue = find_tissue(slide, {});
  EXPECT_EQ(tissue.pixels(), 0) << "the camera's noise is no tissue";
  EXPECT_THAT(message_of<IoError>([&] { tile_slide(slide, tissue, {.um_per_pixel = 1}); }), HasSubstr("holds no tissue"));
  EXPECT_THAT(message_of<IoError>([&] { tile_slide(slide, tissue, {.um_per_pixel = 0.5}); }), HasSubstr("give --tile-um 1.0"));
  EXPECT_THAT(message_of<ArgumentError>([&] { tile_slide(slide, tissue, {.overlap_px = 256}); }), HasSubstr("overlap_px = 256"));
}

TEST(TileStatistics, OfOnePlainColourAreItsStainsAndNoTexture) {
  const auto numbers = tile_statistics(plain(32, 40, {120, 80, 160}));
  const auto& names = tile_statistics_names();
  ASSERT_EQ(numbers.size(), names.size());
  const auto value = [&](const std::string& name) { return numbers[size_t(std::find(names.begin(), names.end(), name) - names.begin())]; };
  // Densities are haematoxylin x (.65,.70,.29) + eosin x (.07,.99,.11) + residual x their cross product, each of length 1.
  const auto unit = [](torch::Tensor v) { return v / v.norm(); };
  const auto h = unit(torch::tensor({.65, .70, .29}, torch::kDouble)), e = unit(torch::tensor({.07, .99, .11}, torch::kDouble));
  const auto stains = torch::stack({h, e, unit(torch::cross(h, e, 0))});
  const auto density = -torch::log10((torch::tensor({120., 80., 160.}, torch::kDouble) + 1) / 256);
  const auto amounts = torch::linalg_solve(stains.t(), density, true);
  EXPECT_NEAR(value("haematoxylin_mean"), amounts[0].item<double>(), 1e-5);
  EXPECT_NEAR(value("eosin_p50"), amounts[1].item<double>(), 1e-5);
  EXPECT_NEAR(value("eosin_deviation"), 0, 1e-3);
  EXPECT_NEAR(value("saturation_mean"), 0.5, 1e-6);
  EXPECT_NEAR(value("brightness_mean"), 160.0 / 255, 1e-6);
  EXPECT_EQ(value("gradient_2_mean"), 0);
  EXPECT_EQ(value("pattern_1_8"), 1) << "every neighbour is at least as high";
}

TEST(TileStatistics, TheAmountOfHaematoxylinTakesInflammationForTumour) {
  auto config = kSmall;
  config.inflamed = 1;
  const auto phantom = make_slide_phantom(config, 1);
  const auto& level = phantom.levels[0];
  const auto centre = [&](const SlidePhantom::Tumour& t) {
    io::SlideRegion tile = plain(96, 96, kGlass);
    for (int64_t j = 0; j < 96; ++j)
      for (int64_t i = 0; i < 96; ++i) std::copy_n(level.at(int64_t(t.y) - 48 + j, int64_t(t.x) - 48 + i), 3, tile.rgb.begin() + (j * 96 + i) * 3);
    return tile_statistics(tile);
  };
  const auto tumour = centre(phantom.tumours.at(0)), inflamed = centre(phantom.inflamed.at(0));
  EXPECT_GT(inflamed[0], 0.8f * tumour[0]);
  EXPECT_NE(phantom.inflamed.at(0).x, phantom.tumours.at(0).x);
}

TEST(TileStatistics, TellTumourFromTissueOfTheSimulatedSlide) {
  const auto phantom = make_slide_phantom(kSmall, 1);
  const auto& t = phantom.tumours.at(0);
  const auto crop = [&](double y, double x) {
    io::SlideRegion tile = plain(128, 128, kGlass);
    for (int64_t j = 0; j < 128; ++j)
      for (int64_t i = 0; i < 128; ++i) std::copy_n(phantom.levels[0].at(int64_t(y) - 64 + j, int64_t(x) - 64 + i), 3, tile.rgb.begin() + (j * 128 + i) * 3);
    return tile_statistics(tile);
  };
  const double away = t.x > 750 ? -350 : 350;
  EXPECT_GT(crop(t.y, t.x)[0], 1.5f * crop(700, t.x + away)[0]) << "more haematoxylin";
  EXPECT_THROW(tile_statistics(plain(8, 8, kPink)), ArgumentError);
}

DescribedSlide described(ScratchFolder& folder) {
  const auto phantom = make_slide_phantom(kSmall, 2);
  io::write_pyramid_tiff(folder / "a.tif", phantom.levels, 1.0);
  io::Slide slide(folder / "a.tif");
  return describe_slide(slide, {}, {.tile_px = 128, .um_per_pixel = 1});
}

TEST(SlideFeatures, GoThroughHdf5UnchangedWithTheirCoordinates) {
  ScratchFolder folder;
  const auto made = described(folder);
  std::filesystem::create_directories(folder / "h5_files");
  write_slide_features(folder / "h5_files/a.h5", made);
  const auto path = find_slide_features(folder.path, "a");
  EXPECT_EQ(path, folder / "h5_files/a.h5");
  const auto read = read_slide_features(path);
  EXPECT_TRUE(torch::equal(read.features, made.features.features));
  EXPECT_TRUE(torch::equal(read.coords, made.features.coords));
  EXPECT_EQ(read.edge_level0, 128);
  EXPECT_EQ(read.tile_px, 128);
  EXPECT_EQ(read.um_per_pixel, 1.0);
  EXPECT_EQ(read.encoder, kTileStatistics);
}

TEST(SlideFeatures, WithoutAttributesTheEdgeIsTheSmallestStep) {
  ScratchFolder folder;
  io::FeatureFile file;
  file.tensors["features"] = from_torch(torch::rand({4, 3}));
  file.tensors["coords"] = from_torch(torch::tensor({{0, 512}, {512, 512}, {2048, 0}, {512, 1024}}, torch::kInt64));
  io::write_feature_file(folder / "b.h5", file);
  EXPECT_EQ(read_slide_features(folder / "b.h5").edge_level0, 512);
}

TEST(SlideFeatures, RowsThatDoNotFitTheirCoordinatesAndOtherFaultsAreOneLine) {
  ScratchFolder folder;
  const auto write = [&](const torch::Tensor& features, const torch::Tensor& coords) {
    io::write_safetensors(folder / "b.safetensors", {{"features", from_torch(features)}, {"coords", from_torch(coords)}});
    return message_of<IoError>([&] { read_slide_features(folder / "b.safetensors"); });
  };
  const auto coords = torch::zeros({5, 2}, torch::kInt64);
  EXPECT_THAT(write(torch::rand({4, 3}), coords), HasSubstr("has 4 rows of features and 5 coordinates, expected as many"));
  EXPECT_THAT(write(torch::rand({0, 3}), coords), HasSubstr("held no tissue"));
  auto holes = torch::rand({5, 3});
  holes[3][1] = NAN;
  EXPECT_THAT(write(holes, coords), HasSubstr("row 3 of its features holds a value that is not finite"));
  EXPECT_THAT(write(torch::rand({5, 3}), torch::zeros({5, 3}, torch::kInt64)), HasSubstr("expected tiles x 2 whole numbers"));
  std::ofstream(folder / "c.h5") << "no HDF5";
  EXPECT_THAT(message_of<IoError>([&] { read_slide_features(folder / "c.h5"); }), HasSubstr("is no HDF5 file, or truncated"));
  EXPECT_THAT(message_of<IoError>([&] { read_slide_features(folder / "none.h5"); }), HasSubstr("no such file"));
  EXPECT_THAT(message_of<IoError>([&] { read_slide_features(folder / "c.csv"); }), HasSubstr("expected .h5, .pt or .safetensors"));
  EXPECT_THAT(message_of<IoError>([&] { find_slide_features(folder.path, "x"); }), HasSubstr("has no features of slide 'x'"));
  const auto made = described(folder);
  write_slide_features(folder / "d.h5", made);
  const auto size = std::filesystem::file_size(folder / "d.h5");
  for (const auto keep : {size / 2, size - 1}) {
    std::filesystem::copy_file(folder / "d.h5", folder / "e.h5", std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(folder / "e.h5", keep);
    EXPECT_THAT(message_of<IoError>([&] { read_slide_features(folder / "e.h5"); }), HasSubstr("truncated"));
  }
}

std::string rows(int n) {
  std::string text = "case_id,slide_id,label\n";
  for (int i = 0; i < n; ++i) text += "c" + std::to_string(i / 2) + ",s" + std::to_string(i) + "," + (i / 2 % 2 ? "tumor" : "normal") + "\n";
  return text;
}

TEST(SlideTable, SplitsKeepTheSlidesOfACaseTogetherAndItsClassesInLikeShares) {
  ScratchFolder folder;
  std::ofstream(folder / "slides.csv") << rows(60);
  std::ofstream(folder / "slides.json") << R"({"name": "made up", "simulated": true})";
  ASSERT_TRUE(is_slide_table(folder.path));
  const auto table = open_slides(folder.path);
  EXPECT_THAT(table.classes, ElementsAre("normal", "tumor"));
  EXPECT_TRUE(table.simulated);
  std::set<int64_t> held_out;
  for (int64_t fold = 0; fold < 5; ++fold) {
    const auto split = draw_slide_split(table, fold, 0.25, 7);
    EXPECT_EQ(split.held_out.size(), 12u);
    EXPECT_EQ(split.validation.size(), 12u);
    EXPECT_EQ(split.train.size(), 36u);
    std::set<std::string> cases;
    for (const int64_t r : split.train) cases.insert(table.slides[size_t(r)].case_id);
    for (const auto* part : {&split.validation, &split.held_out})
      for (const int64_t r : *part) EXPECT_FALSE(cases.contains(table.slides[size_t(r)].case_id));
    int64_t tumours = 0;
    for (const int64_t r : split.held_out) tumours += table.slides[size_t(r)].label, held_out.insert(r);
    EXPECT_EQ(tumours, 6);
  }
  EXPECT_EQ(held_out.size(), 60u) << "every slide is held out once";
}

TEST(SlideTable, ReadsClamsSplitsAndRefusesACaseInTwoParts) {
  ScratchFolder folder;
  std::ofstream(folder / "slides.csv") << rows(8);
  const auto table = open_slides(folder.path);
  std::ofstream(folder / "splits_0.csv") << ",train,val,test\n0,s0,s4,s6\n1,s1,,s7\n2,s2,,\n";
  const auto split = read_slide_split(folder / "splits_0.csv", table);
  EXPECT_THAT(split.train, ElementsAre(0, 1, 2));
  EXPECT_THAT(split.validation, ElementsAre(4));
  EXPECT_THAT(split.held_out, ElementsAre(6, 7));
  std::ofstream(folder / "bad.csv") << ",train,val,test\n0,s0,s1,s6\n";
  EXPECT_THAT(message_of<IoError>([&] { read_slide_split(folder / "bad.csv", table); }), HasSubstr("case 'c0' is in train and in val"));
  std::ofstream(folder / "none.csv") << ",train,val,test\n0,s0,x9,s6\n";
  EXPECT_THAT(message_of<IoError>([&] { read_slide_split(folder / "none.csv", table); }), HasSubstr("slide 'x9' of column val is not in"));
}

TEST(SlideTable, FaultsAreNamedWithTheirRow) {
  ScratchFolder folder;
  const auto refusal = [&](const std::string& text) {
    std::ofstream(folder / "slides.csv") << text;
    return message_of<IoError>([&] { open_slides(folder.path); });
  };
  EXPECT_THAT(refusal("case_id,slide_id,label\nc,s,a\nc,s,b\n"), HasSubstr("row 2: slide 's' is there twice"));
  EXPECT_THAT(refusal("case_id,slide_id,label\nc,s,a\nc,t,\n"), HasSubstr("row 2: slide 't' has no label"));
  EXPECT_THAT(refusal("case_id,slide_id,label\nc,s,a\nc,t,a\n"), HasSubstr("expected two or more"));
  EXPECT_THAT(refusal("case_id,slide_id,label\nc,../s,a\nc,t,a\n"), HasSubstr("is no file name"));
  EXPECT_THAT(refusal("case_id,slide_id,label\n"), HasSubstr("has no slides"));
  EXPECT_THAT(refusal("case_id,slide\nc,s\n"), HasSubstr("slide_id"));
}

}  // namespace
}  // namespace fovea::data
