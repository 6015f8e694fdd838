#include "fovea/data/fixed_grid.h"

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <unistd.h>

#include "fovea/core/error.h"
#include "fovea/io/image.h"

namespace fovea::data {
namespace {

namespace fs = std::filesystem;

class FixedGrids : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("fovea_fixed_grid_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  // A bright ball of 6 mm radius at `at_mm`, on a grid whose x runs to the left where `left`.
  fs::path write_ball(const std::string& name, const Point& at_mm, bool left, DType dtype = DType::kF32) {
    Geometry g;
    g.shape = {20, 40, 48};
    g.affine = {{{left ? -1.0 : 1.0, 0, 0, left ? 47.0 : 0.0}, {0, 1, 0, 0}, {0, 0, 2, 0}}};
    Volume v = Volume::zeros(g, dtype);
    for (int64_t i = 0; i < g.voxels(); ++i) {
      const Point mm = g.to_mm({double(i % 48), double(i / 48 % 40), double(i / (48 * 40))});
      double d = 0;
      for (int a = 0; a < 3; ++a) d += (mm[a] - at_mm[a]) * (mm[a] - at_mm[a]);
      if (dtype == DType::kF32) v.as<float>()[i] = d < 36 ? 100.f : 1.f;
      else v.as<uint8_t>()[i] = d < 36;
    }
    io::write_image(folder_ / name, v);
    return folder_ / name;
  }

  fs::path folder_;
};

TEST_F(FixedGrids, TheFieldLiesRoundTheMaskInMillimetresWhicheverWayTheFileRuns) {
  for (const bool left : {false, true}) {
    const auto image = write_ball("a.nii.gz", {30, 20, 18}, left), mask = write_ball("m.nii.gz", {30, 20, 18}, left, DType::kU8);
    const auto out = read_fixed_grid(image, mask, {{16, 16, 16}, 16});
    const Point centre = out.grid.to_mm({7.5, 7.5, 7.5});
    EXPECT_NEAR(centre[0], 30, 1.01);
    EXPECT_NEAR(centre[1], 20, 1.01);
    EXPECT_NEAR(centre[2], 18, 1.01);
    EXPECT_EQ(out.grid.axis_codes(), "RAS");
    EXPECT_EQ(out.mask[8][8][8].item<int>(), 1);
    EXPECT_EQ(out.mask[0][0][0].item<int>(), 0);
    EXPECT_GT(out.voxels[8][8][8].item<float>(), out.voxels[0][0][0].item<float>());
  }
}

TEST_F(FixedGrids, ThePartBeyondTheScanIsItsSmallestValue) {
  const auto image = write_ball("a.nii.gz", {44, 20, 18}, false), mask = write_ball("m.nii.gz", {44, 20, 18}, false, DType::kU8);
  const auto out = read_fixed_grid(image, mask, {{8, 8, 8}, 40});
  EXPECT_NEAR(out.voxels[4][4][7].item<float>(), out.voxels.min().item<float>(), 1e-5);
  EXPECT_EQ(out.mask[4][4][7].item<int>(), 0);
}

TEST_F(FixedGrids, TheWholeScanIsStandardisedAndKeepsItsPlace) {
  const auto out = read_fixed_grid(write_ball("a.nii.gz", {20, 20, 20}, true), {}, {{10, 20, 24}, 0});
  EXPECT_FALSE(out.mask.defined());
  EXPECT_NEAR(out.voxels.mean().item<double>(), 0, 0.02);
  const Point first = out.grid.to_mm({-0.5, -0.5, -0.5});  // the corner of the first voxel
  EXPECT_NEAR(first[0], -0.5, 1e-9);
  EXPECT_NEAR(first[2], -1, 1e-9);
}

TEST_F(FixedGrids, AnEmptyMaskAndAMaskElsewhereAreRefused) {
  const auto image = write_ball("a.nii.gz", {30, 20, 18}, false);
  EXPECT_THROW(read_fixed_grid(image, write_ball("e.nii.gz", {500, 0, 0}, false, DType::kU8), {{8, 8, 8}, 16}), IoError);
  EXPECT_THROW(read_fixed_grid(image, write_ball("l.nii.gz", {30, 20, 18}, true, DType::kU8), {{8, 8, 8}, 16}), IoError);
}

}  // namespace
}  // namespace fovea::data
