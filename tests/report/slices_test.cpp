#include "fovea/report/slices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>

#include "fovea/core/error.h"
#include "fovea/report/canvas.h"
#include "phantom.h"

namespace fovea::report {
namespace {

constexpr Colour kRed{255, 0, 0}, kBlue{0, 0, 255}, kBlack{0, 0, 0};

SliceOptions bare() {
  SliceOptions options;
  options.markers = false;
  return options;
}

/// A volume in which one voxel, given in mm (RAS), is bright, stored along the axes of `affine`.
Volume one_bright_voxel(const Geometry& g, const Point& mm) {
  Volume v = Volume::zeros(g, DType::kI16);
  const Point i = g.to_index(mm);
  const int64_t x = std::llround(i[0]), y = std::llround(i[1]), z = std::llround(i[2]);
  v.as<int16_t>()[static_cast<size_t>((z * g.shape[1] + y) * g.shape[2] + x)] = 100;
  return v;
}

std::vector<std::array<int64_t, 2>> pixels_of(const Image& image, Colour c) {
  std::vector<std::array<int64_t, 2>> out;
  for (int64_t y = 0; y < image.height; ++y) {
    for (int64_t x = 0; x < image.width; ++x) {
      if (image.colour_at(y, x) == c) out.push_back({y, x});
    }
  }
  return out;
}

TEST(DrawSlice, PutsSidesWhereTheConventionSaysWhateverTheStoredOrientation) {
  // The same 7 x 9 x 5 mm block of the patient (x, y, z) with a bright voxel at the right, front and bottom, stored in
  // four ways.
  const Point bright{2, 3, -2};
  std::vector<Geometry> stored(4);
  stored[0] = {{5, 9, 7}, {{{1, 0, 0, -3}, {0, 1, 0, -4}, {0, 0, 1, -2}}}};  // RAS
  stored[1] = {{5, 9, 7}, {{{-1, 0, 0, 3}, {0, -1, 0, 4}, {0, 0, 1, -2}}}};  // LPS
  stored[2] = {{7, 5, 9}, {{{0, 0, -1, 3}, {-1, 0, 0, 4}, {0, -1, 0, 2}}}};  // PIL: x runs back, y down, z left
  stored[3] = {{9, 7, 5}, {{{0, 1, 0, -3}, {0, 0, -1, 4}, {-1, 0, 0, 2}}}};  // IRP: x runs down, y right, z back
  for (const Geometry& g : stored) {
    const Volume volume = one_bright_voxel(g, bright);
    Scene scene(volume);
    scene.window = {0, 100};
    const Point i = g.to_index(bright);
    const std::array<int64_t, 3> voxel{std::llround(i[2]), std::llround(i[1]), std::llround(i[0])};
    const auto only_white = [&](Plane plane, Convention convention) {
      SliceOptions options = bare();
      options.convention = convention;
      const auto found = pixels_of(draw_slice(scene, plane, voxel, options), {255, 255, 255});
      EXPECT_EQ(found.size(), 1u) << g.axis_codes() << " " << to_string(plane);
      return found.empty() ? std::array<int64_t, 2>{-1, -1} : found[0];
    };
    using P = std::array<int64_t, 2>;  // row, column
    EXPECT_EQ(only_white(Plane::kAxial, Convention::kRadiological), (P{1, 1})) << g.axis_codes();
    EXPECT_EQ(only_white(Plane::kAxial, Convention::kNeurological), (P{1, 5})) << g.axis_codes();
    EXPECT_EQ(only_white(Plane::kCoronal, Convention::kRadiological), (P{4, 1})) << g.axis_codes();
    EXPECT_EQ(only_white(Plane::kCoronal, Convention::kNeurological), (P{4, 5})) << g.axis_codes();
    EXPECT_EQ(only_white(Plane::kSagittal, Convention::kRadiological), (P{4, 1})) << g.axis_codes();
    EXPECT_EQ(only_white(Plane::kSagittal, Convention::kNeurological), (P{4, 1})) << g.axis_codes();
  }
}

TEST(DrawSlice, IsTrueToScaleWhenSpacingDiffers) {
  const Phantom p = make_phantom({5, 1, 2});
  const Scene scene(p.image);
  const Image coronal = draw_slice(scene, Plane::kCoronal, {15, 90, 37}, bare());
  EXPECT_EQ(coronal.width, 150);
  EXPECT_EQ(coronal.height, 150);
  SliceOptions coarse = bare();
  coarse.pixel_mm = 0.5;
  const Image axial = draw_slice(scene, Plane::kAxial, {15, 90, 37}, coarse);
  EXPECT_EQ(axial.width, 300);
  EXPECT_EQ(axial.height, 360);
}

TEST(DrawSlice, AFlatImageStaysFlatAtAnyMagnification) {
  Geometry g;
  g.shape = {3, 4, 5};
  Volume v = Volume::zeros(g, DType::kU16);
  for (uint16_t& x : v.as<uint16_t>()) x = 50;
  Scene scene(v);
  scene.window = {0, 100};
  SliceOptions options = bare();
  options.pixel_mm = 0.3;
  for (Plane plane : {Plane::kAxial, Plane::kCoronal, Plane::kSagittal}) {
    const Image image = draw_slice(scene, plane, {1, 1, 1}, options);
    EXPECT_EQ(pixels_of(image, {128, 128, 128}).size(), static_cast<size_t>(image.height * image.width));
  }
}

TEST(DrawSlice, FillsLabelsAndDrawsAnOutlineOfOnePixelInsideThem) {
  Geometry g;
  g.shape = {1, 10, 12};
  const Volume image = Volume::zeros(g, DType::kF32);
  Volume labels = Volume::zeros(g, DType::kU8);
  for (int64_t y = 2; y < 8; ++y) {
    for (int64_t x = 3; x < 10; ++x) labels.as<uint8_t>()[static_cast<size_t>(y * 12 + x)] = x < 6 ? 1 : 7;
  }
  labels.as<uint8_t>()[0] = 9;  // no style: not drawn
  Scene scene(image);
  scene.labels.push_back({Voxels(labels), {{1, "one", kRed}, {7, "seven", kBlue}}, 0.5, true});
  SliceOptions options = bare();
  options.convention = Convention::kNeurological;
  const Image out = draw_slice(scene, Plane::kAxial, {0, 5, 5}, options);
  for (int64_t y = 0; y < 10; ++y) {
    for (int64_t x = 0; x < 12; ++x) {
      const int64_t row = 9 - y;  // front on top
      const bool one = y >= 2 && y < 8 && x >= 3 && x < 6, seven = y >= 2 && y < 8 && x >= 6 && x < 10;
      const bool edge = y == 2 || y == 7 || x == 3 || x == 5 || x == 6 || x == 9;
      const Colour expected = one ? edge ? kRed : Colour{128, 0, 0} : seven ? edge ? kBlue : Colour{0, 0, 128} : kBlack;
      EXPECT_EQ(to_hex(out.colour_at(row, x)), to_hex(expected)) << y << " " << x;
    }
  }
  // Twice as large, the outline is still one pixel.
  options.pixel_mm = 0.5;
  const Image large = draw_slice(scene, Plane::kAxial, {0, 5, 5}, options);
  EXPECT_EQ(pixels_of(large, kRed).size(), size_t{2 * 12 + 2 * 4});
}

TEST(DrawSlice, HeatGrowsWithTheWeightAndLeavesTheImageWhereThereIsNone) {
  Geometry g;
  g.shape = {1, 1, 3};
  Volume image = Volume::zeros(g, DType::kF32), heat = Volume::zeros(g, DType::kF32);
  for (float& v : image.as<float>()) v = 100;
  heat.as<float>()[1] = 0.5f, heat.as<float>()[2] = 1;
  Scene scene(image);
  scene.window = {0, 200};
  scene.heat = HeatLayer{Voxels(heat), 0, 1.0};
  SliceOptions options = bare();
  options.convention = Convention::kNeurological;
  const Image out = draw_slice(scene, Plane::kAxial, {0, 0, 0}, options);
  EXPECT_EQ(out.colour_at(0, 0), (Colour{128, 128, 128}));
  EXPECT_EQ(out.colour_at(0, 2), heat_colour(1));
  EXPECT_NE(out.colour_at(0, 1), out.colour_at(0, 0));
}

TEST(DrawSlice, NotANumberIsBlack) {
  Geometry g;
  g.shape = {1, 1, 3};
  Volume v = Volume::zeros(g, DType::kF32);
  v.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  v.as<float>()[2] = std::numeric_limits<float>::infinity();
  Scene scene(v);
  scene.window = {-1, 1};
  scene.heat = HeatLayer{Voxels(v), 0, 1};  // no finite weight above 0
  SliceOptions options = bare();
  options.convention = Convention::kNeurological;
  const Image out = draw_slice(scene, Plane::kAxial, {0, 0, 0}, options);
  EXPECT_EQ(out.colour_at(0, 0), kBlack);
  EXPECT_EQ(out.colour_at(0, 1), (Colour{128, 128, 128}));
  EXPECT_EQ(out.colour_at(0, 2), (Colour{255, 255, 255}));
}

TEST(DrawSlice, CropKeepsTheScaleAndTheRightPart) {
  const Phantom p = make_phantom({2, 2, 2});
  Scene scene(p.image);
  SliceOptions options = bare();
  options.crop_mm = {{{10, -20, -14}, {50, 40, 26}}};
  const Image part = draw_slice(scene, Plane::kAxial, {37, 45, 51}, options);
  EXPECT_EQ(part.width, 20);
  EXPECT_EQ(part.height, 30);
  const Image whole = draw_slice(scene, Plane::kAxial, {37, 45, 51}, bare());
  // Radiological: column of the whole picture = 74 - x index; x index of the part's last column lies at 10..12 mm.
  const int64_t column = 74 - static_cast<int64_t>((10 + 75) / 2.0 + 0.5),
                row = 89 - static_cast<int64_t>((40 + 90) / 2.0 - 0.5);
  EXPECT_EQ(part.colour_at(0, 19), whole.colour_at(row, column));
  EXPECT_EQ(part.colour_at(7, 12), whole.colour_at(row + 7, column - 7));
  options.crop_mm = {{{500, 0, 0}, {600, 1, 1}}};
  EXPECT_THROW(draw_slice(scene, Plane::kAxial, {37, 45, 51}, options), ArgumentError);
}

TEST(DrawSlice, CrosshairMeetsAtTheVoxelAndLeavesItFree) {
  Geometry g;
  g.shape = {1, 40, 50};
  const Volume v = Volume::zeros(g, DType::kU8);
  SliceOptions options = bare();
  options.crosshair = true;
  const Image out = draw_slice(Scene(v), Plane::kAxial, {0, 29, 9}, options);
  const int64_t row = 39 - 29, column = 49 - 9;
  EXPECT_EQ(out.colour_at(row, column), kBlack);
  EXPECT_NE(out.colour_at(row, 0), kBlack);
  EXPECT_NE(out.colour_at(0, column), kBlack);
  EXPECT_EQ(out.colour_at(row + 1, 0), kBlack);
}

TEST(DrawSlice, RefusesLayersOfAnotherShapeVoxelsOutsideAndHugePictures) {
  const Phantom a = make_phantom({5, 5, 5}), b = make_phantom({5, 5, 3});
  Scene scene(a.image);
  EXPECT_THROW(draw_slice(scene, Plane::kAxial, {30, 0, 0}), ArgumentError);
  EXPECT_THROW(draw_slice(scene, Plane::kAxial, {0, 0, -1}), ArgumentError);
  SliceOptions fine;
  fine.pixel_mm = 1e-3;
  EXPECT_THROW(draw_slice(scene, Plane::kAxial, {0, 0, 0}, fine), ArgumentError);
  scene.labels.push_back({Voxels(b.labels), {}, 0.5, true});
  EXPECT_THROW(draw_slice(scene, Plane::kAxial, {0, 0, 0}), ArgumentError);
  EXPECT_THROW(Voxels(a.image, 1), ArgumentError);
}

TEST(WindowFromPercentiles, IgnoresOutliersAndWhatIsNotFinite) {
  Geometry g;
  g.shape = {10, 10, 10};
  Volume v = Volume::zeros(g, DType::kF32);
  for (size_t i = 0; i < 1000; ++i) v.as<float>()[i] = static_cast<float>(i);
  v.as<float>()[999] = 1e9f, v.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  const IntensityWindow w = window_from_percentiles(Voxels(v), 1, 99);
  EXPECT_NEAR(w.low, 10, 2);
  EXPECT_NEAR(w.high, 990, 2);
  const Volume flat = Volume::zeros(g, DType::kF32);
  EXPECT_GT(window_from_percentiles(Voxels(flat)).high, window_from_percentiles(Voxels(flat)).low);
}

TEST(SlicesThrough, LiesWithinTheLabelledPartInOrder) {
  const Phantom p = make_phantom({2, 2, 2});
  Scene scene(p.image);
  const LabelLayer right_one{Voxels(p.labels), {{1, "right", kRed}}, 0.5, true};
  const auto voxels = slices_through(scene, right_one, Plane::kAxial, 5);
  ASSERT_EQ(voxels.size(), 5u);
  double before = -1e9;
  for (const auto& v : voxels) {
    const Point mm = p.image.geometry.to_mm({double(v[2]), double(v[1]), double(v[0])});
    EXPECT_GT(mm[2], before);
    EXPECT_LT(std::abs(mm[2] - 4), 15);
    EXPECT_NEAR(mm[0], 28, 2);
    EXPECT_NEAR(mm[1], 8, 2);
    before = mm[2];
  }
  EXPECT_EQ(slices_through(scene, {Voxels(p.labels), {}, 0.5, true}, Plane::kSagittal, 1)[0][2], 37)
      << "no style: the whole grid";
}

TEST(Colours, HeatLightnessRisesEvenlyAndCategoriesDiffer) {
  const auto luminance = [](Colour c) {
    const auto linear = [](uint8_t v) {
      const double s = v / 255.0;
      return s <= 0.04045 ? s / 12.92 : std::pow((s + 0.055) / 1.055, 2.4);
    };
    return 0.2126 * linear(c.r) + 0.7152 * linear(c.g) + 0.0722 * linear(c.b);
  };
  double last = -1;
  for (int i = 0; i <= 100; ++i) {
    const double lightness = std::cbrt(luminance(heat_colour(i / 100.0)));
    EXPECT_GT(lightness, last);
    if (i > 0) {
      EXPECT_LT(lightness - last, 0.02) << i;
    }
    last = lightness;
  }
  std::map<std::string, int> seen;
  for (int i = 0; i < 21; ++i) ++seen[to_hex(category_colour(i))];
  EXPECT_EQ(seen.size(), 21u);
  EXPECT_EQ(category_colour(21), category_colour(0));
  EXPECT_EQ(heat_colour(std::nan("")), heat_colour(0));
}

TEST(Canvas, ClipsWhatFallsOutsideAndMontagesInRows) {
  Image image = Image::filled(4, 4, kBlack);
  Canvas canvas(image);
  canvas.line(-5, -5, 10, 10, kRed);
  canvas.rectangle(-1, 2, 20, 20, kBlue);
  canvas.text(-3, -3, "LR 12", kRed, 3);
  const Image pieces[] = {Image::filled(2, 3, kRed), Image::filled(1, 1, kBlue), Image::filled(2, 3, kRed)};
  const Image grid = montage(pieces, 2, 1, kBlack);
  EXPECT_EQ(grid.height, 5);
  EXPECT_EQ(grid.width, 7);
  EXPECT_EQ(grid.colour_at(0, 5), kBlue);
  EXPECT_EQ(grid.colour_at(3, 0), kRed);
  EXPECT_EQ(grid.colour_at(2, 0), kBlack);
  EXPECT_THROW(montage({}, 2, 1, kBlack), ArgumentError);
}

}  // namespace
}  // namespace fovea::report
