#include "fovea/data/phantom.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "fovea/core/error.h"
#include "tests/data/scratch_folder.h"

namespace fovea::data {
namespace {

TEST(Phantom, DependsOnConfigAndIndexAlone) {
  PhantomConfig config;
  EXPECT_EQ(make_phantom(config, 3).image.data, make_phantom(config, 3).image.data);
  EXPECT_NE(make_phantom(config, 3).image.data, make_phantom(config, 4).image.data);
  config.seed = 2;
  EXPECT_NE(make_phantom(config, 3).image.data, make_phantom(PhantomConfig{}, 3).image.data);
}

TEST(Phantom, HoldsEveryClassOnAnObliqueAnisotropicGridOfTheAskedAxes) {
  PhantomConfig config;
  config.structures = 4, config.axes = "PIR", config.shape = {30, 40, 50};
  const Phantom phantom = make_phantom(config, 1);
  for (int k = 0; k <= 4; ++k)
    EXPECT_GT(std::count(phantom.label.data.begin(), phantom.label.data.end(), std::byte(k)), 50) << k;
  EXPECT_EQ(phantom.image.geometry.axis_codes(), "PIR");
  EXPECT_NEAR(phantom.image.geometry.spacing_mm()[0], 2, 1e-9);
  EXPECT_NE(phantom.image.geometry.affine[0][0], 0);
}

TEST(Phantom, StructuresLieAtTheSamePatientPlaceWhateverTheArrayAxes) {
  // The first structure lies to the patient's right of the centre.
  for (const char* axes : {"RAS", "LPS", "PIR", "SAL"}) {
    PhantomConfig config;
    config.axes = axes, config.oblique_deg = 0, config.shape = {40, 40, 40}, config.spacing_mm = {1, 1, 1};
    const Phantom phantom = make_phantom(config, 0);
    const Geometry& g = phantom.label.geometry;
    double right = 0, n = 0;
    for (int64_t i = 0; i < g.voxels(); ++i)
      if (phantom.label.as<uint8_t>()[i] == 1)
        right += g.to_mm(
            {double(i % g.shape[2]), double(i / g.shape[2] % g.shape[1]), double(i / (g.shape[1] * g.shape[2]))})[0],
            n += 1;
    const double centre =
        g.to_mm({double(g.shape[2] - 1) / 2, double(g.shape[1] - 1) / 2, double(g.shape[0] - 1) / 2})[0];
    EXPECT_GT(right / n - centre, 4) << axes;
  }
}

TEST(Phantom, RefusesImpossibleAxes) {
  PhantomConfig config;
  config.axes = "RLS";
  EXPECT_THAT(message_of([&] { make_phantom(config, 0); }), testing::HasSubstr("one letter each"));
}

TEST(Phantom, DatasetHasTheNnunetLayout) {
  const ScratchFolder folder;
  PhantomConfig config;
  config.channels = 2;
  const Dataset dataset = open_dataset(write_phantom_dataset(folder.path, "Dataset904_Phantom", config, 2, 1));
  EXPECT_EQ(dataset.training.size(), 2u);
  EXPECT_EQ(dataset.test.size(), 1u);
  EXPECT_EQ(dataset.channels.size(), 2u);
  EXPECT_EQ(dataset.labels.at(2).name, "structure_2");
}

TEST(CutBox, KeepsVoxelsInTheirPlace) {
  const Volume volume = ramp_volume(2);
  const Volume part = cut_box(volume, {1, 2, 3}, {2, 2, 3});
  EXPECT_EQ(part.geometry.to_mm({0, 0, 0}), volume.geometry.to_mm({3, 2, 1}));
  EXPECT_EQ(part.as<float>()[0], float((1 * 5 + 2) * 6 + 3));
  EXPECT_EQ(part.as<float>()[12], float(120 + (1 * 5 + 2) * 6 + 3));
  EXPECT_THROW(cut_box(volume, {1, 2, 3}, {2, 2, 4}), ArgumentError);
}

}  // namespace
}  // namespace fovea::data
