#include "fovea/data/preprocess.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "fovea/data/phantom.h"
#include "fovea/data/resample.h"
#include "tests/data/scratch_folder.h"

namespace fovea::data {
namespace {

using testing::HasSubstr;

Plan plan_for(std::array<double, 3> spacing_mm, Normalisation scheme = Normalisation::kNone) {
  Plan plan;
  plan.spacing_mm = spacing_mm;
  plan.normalisation = {{"image", scheme}};
  plan.labels = {{"background", {0}}, {"a", {40}}, {"b", {300, 7}}};
  return plan;
}

// A grid whose x, y, z run along the given patient axes (0 right, 1 anterior, 2 superior) and signs, slightly tilted.
Geometry grid_along(const std::array<int, 3>& patient_axis, int signs) {
  Geometry g;
  g.shape = {4, 5, 6};
  const double spacing[3] = {1, 1.5, 2.5};
  for (int c = 0; c < 3; ++c)
    for (int r = 0; r < 3; ++r)
      g.affine[r][c] = spacing[c] * ((r == patient_axis[c] ? 1.0 : 0.02 * (r - c)) * (signs >> c & 1 ? -1 : 1));
  g.affine[0][3] = 11, g.affine[1][3] = -7, g.affine[2][3] = 3;
  return g;
}

TEST(Preprocess, EveryOneOf48OrientationsComesBackBitForBit) {
  std::array<int, 3> axes{0, 1, 2};
  int seen = 0;
  do {
    for (int signs = 0; signs < 8; ++signs, ++seen) {
      const Geometry g = grid_along(axes, signs);
      Volume image = Volume::zeros(g, DType::kF32), label = Volume::zeros(g, DType::kU16);
      Rng rng(1, 2, uint32_t(seen));
      for (float& v : image.as<float>()) v = rng.normal();
      for (uint16_t& v : label.as<uint16_t>()) v = std::array<uint16_t, 3>{0, 40, 300}[rng.below(3)];
      const Geometry canonical = reorient(g, to_canonical(g));
      const Preprocessed p = preprocess("case", {image}, &label, plan_for(canonical.spacing_mm()));
      EXPECT_EQ(p.canonical.axis_codes(), "RAS");
      EXPECT_TRUE(same_grid(p.grid, canonical, 1e-9));
      const Volume back = restore_labels(p.label, p);
      EXPECT_TRUE(same_grid(back.geometry, g, 0));
      EXPECT_EQ(back.dtype, DType::kU16);
      EXPECT_EQ(back.data, label.data) << "orientation " << seen;
      EXPECT_EQ(restore_map(p.image, p).data, image.data) << "orientation " << seen;
      // A voxel of the tensor lies where the same voxel of the file lies.
      const Point file = g.to_index(p.grid.to_mm({1, 2, 0}));
      EXPECT_EQ((p.image.index({0, 0, 2, 1}).item<float>()),
                image.as<float>()[(std::lround(file[2]) * g.shape[1] + std::lround(file[1])) * g.shape[2] +
                                  std::lround(file[0])]);
    }
  } while (std::next_permutation(axes.begin(), axes.end()));
  EXPECT_EQ(seen, 48);
}

TEST(Preprocess, NormalisesAsThePlanSays) {
  Geometry g;
  g.shape = {1, 1, 4};
  Volume image = Volume::zeros(g, DType::kI16);
  const int16_t values[] = {0, 2, 4, 6};
  std::copy_n(values, 4, image.as<int16_t>().data());
  const auto voxels = [&](Normalisation scheme) {
    Plan plan = plan_for({1, 1, 1}, scheme);
    plan.normalisation[0].lower = 1, plan.normalisation[0].upper = 5, plan.normalisation[0].mean = 3,
    plan.normalisation[0].deviation = 2;
    const auto t = preprocess("case", {image}, nullptr, plan).image.contiguous();
    return std::vector<float>(t.data_ptr<float>(), t.data_ptr<float>() + 4);
  };
  EXPECT_THAT(voxels(Normalisation::kNone), testing::ElementsAre(0, 2, 4, 6));
  EXPECT_THAT(voxels(Normalisation::kCt), testing::ElementsAre(-1, -0.5f, 0.5f, 1));
  const float z = std::sqrt(5.0f);  // mean 3, deviation sqrt(5)
  EXPECT_THAT(voxels(Normalisation::kZscore),
              testing::Pointwise(testing::FloatNear(1e-6f), std::vector<float>{-3 / z, -1 / z, 1 / z, 3 / z}));
  const float m = std::sqrt(8.0f / 3);  // of 2, 4, 6; zero stays zero
  EXPECT_THAT(voxels(Normalisation::kZscoreNonzero),
              testing::Pointwise(testing::FloatNear(1e-6f), std::vector<float>{0, -2 / m, 0, 2 / m}));
}

TEST(Preprocess, CropsToWhatIsNotZeroButNeverCutsALabelOff) {
  Geometry g;
  g.shape = {6, 7, 8};
  Volume image = Volume::zeros(g, DType::kU8), label = Volume::zeros(g, DType::kU16);
  image.as<uint8_t>()[(2 * 7 + 3) * 8 + 4] = 9;
  image.as<uint8_t>()[(3 * 7 + 3) * 8 + 5] = 9;
  label.as<uint16_t>()[(2 * 7 + 5) * 8 + 4] = 40;
  Plan plan = plan_for({1, 1, 1});
  plan.crop_to_nonzero = true;
  const Preprocessed p = preprocess("case", {image}, &label, plan);
  EXPECT_EQ(p.box.begin, (std::array<int64_t, 3>{2, 3, 4}));
  EXPECT_EQ(p.box.shape, (std::array<int64_t, 3>{2, 3, 2}));
  EXPECT_EQ(restore_labels(p.label, p).data, label.data);
  EXPECT_EQ(restore_map(p.image, p, -5).as<float>()[0], -5);
  const Point at = p.grid.to_mm({0, 0, 0}), there = g.to_mm({4, 3, 2});
  EXPECT_EQ(at, there);
}

TEST(Preprocess, AResampledVoxelHasTheValueOfItsPlaceInMillimetres) {
  // An image that is a linear function of the place: interpolation is exact wherever two neighbours exist.
  const auto value_at = [](const Point& mm) { return 2 * mm[0] - 3 * mm[1] + 0.5 * mm[2]; };
  for (int signs = 0; signs < 8; ++signs) {
    Geometry g = grid_along({2, 0, 1}, signs);
    g.shape = {12, 13, 14};
    Volume image = Volume::zeros(g, DType::kF32);
    const auto fill = [&](auto&& each) {
      for (int64_t i = 0; i < g.voxels(); ++i)
        each(i, value_at(g.to_mm({double(i % 14), double(i / 14 % 13), double(i / (14 * 13))})));
    };
    fill([&](int64_t i, double value) { image.as<float>()[i] = float(value); });
    Plan plan = plan_for({0.7, 2, 1.1});
    plan.image_resampling = ImageResampling::kLinear;
    const Preprocessed p = preprocess("case", {image}, nullptr, plan);
    const auto a = p.image.accessor<float, 4>();
    int64_t compared = 0;
    for (int64_t z = 2; z < p.grid.shape[0] - 2; ++z)
      for (int64_t y = 1; y < p.grid.shape[1] - 1; ++y)
        for (int64_t x = 1; x < p.grid.shape[2] - 1; ++x, ++compared)
          ASSERT_NEAR(a[0][z][y][x], value_at(p.grid.to_mm({double(x), double(y), double(z)})), 1e-3);
    EXPECT_GT(compared, 100);
    const Volume back = restore_map(p.image, p);
    fill([&](int64_t i, double value) {
      const int64_t x = i % 14, y = i / 14 % 13, z = i / (14 * 13);
      if (std::min({x, y, z, 13 - x, 12 - y, 11 - z}) >= 3) {
        EXPECT_NEAR(back.as<float>()[i], value, 1e-3);
      }
    });
  }
}

TEST(Preprocess, LabelsSurviveAResamplingThereAndBack) {
  PhantomConfig config;
  config.oblique_deg = 15, config.axes = "PIR", config.shape = {60, 60, 60}, config.spacing_mm = {1, 1, 1};
  const Phantom phantom = make_phantom(config, 0);
  Plan plan = plan_for({1.3, 1.3, 1.3});
  plan.labels = {{"background", {0}}, {"a", {1}}, {"b", {2}}};
  const Preprocessed p = preprocess("case", {phantom.image}, &phantom.label, plan);
  const auto spacing = p.grid.spacing_mm();
  for (int a = 0; a < 3; ++a) EXPECT_NEAR(spacing[a], 1.3, 0.02);
  EXPECT_EQ(p.label.sizes(), p.image[0].sizes());
  const Volume back = restore_labels(p.label, p);
  ASSERT_TRUE(same_grid(back.geometry, phantom.label.geometry, 0));
  // Nearest neighbour roughens the surface, but nothing may move: half a voxel of shift is 0.5 mm of the centre.
  const auto centre_mm = [](const Volume& v, int k) {
    Point sum{};
    double n = 0;
    const auto& shape = v.geometry.shape;
    for (int64_t i = 0; i < v.size(); ++i) {
      if (v.as<uint8_t>()[i] != k) continue;
      const Point mm =
          v.geometry.to_mm({double(i % shape[2]), double(i / shape[2] % shape[1]), double(i / (shape[2] * shape[1]))});
      for (int r = 0; r < 3; ++r) sum[r] += mm[r];
      n += 1;
    }
    return Point{sum[0] / n, sum[1] / n, sum[2] / n};
  };
  int64_t both = 0, either = 0;
  for (int64_t i = 0; i < back.size(); ++i) {
    const int a = back.as<uint8_t>()[i], b = phantom.label.as<uint8_t>()[i];
    both += a && a == b, either += (a > 0) + (b > 0);
  }
  EXPECT_GT(2.0 * double(both) / double(either), 0.9);
  for (int k = 1; k <= 2; ++k)
    for (int r = 0; r < 3; ++r) EXPECT_NEAR(centre_mm(back, k)[r], centre_mm(phantom.label, k)[r], 0.1);
}

TEST(Preprocess, SourceResolutionLabelsAreTakenToo) {
  const Volume image = ramp_volume();
  Plan plan = plan_for({0.5, 0.5, 0.5});
  const Preprocessed p = preprocess("case", {image}, nullptr, plan);
  EXPECT_EQ(p.grid.shape, (std::array<int64_t, 3>{8, 10, 12}));
  torch::Tensor native = torch::zeros({4, 5, 6}, torch::kLong);
  native[1][2][3] = 2;
  EXPECT_EQ(restore_labels(native, p).as<uint16_t>()[(1 * 5 + 2) * 6 + 3], 300);
  EXPECT_THAT(message_of([&] {
                restore_labels(torch::zeros({4, 5, 7}, torch::kLong), p);
              }),
              HasSubstr("expected [8, 10, 12]"));
  EXPECT_THAT(message_of([&] {
                restore_labels(torch::full({4, 5, 6}, 3, torch::kLong), p);
              }),
              HasSubstr("the plan has 0 to 2"));
  EXPECT_THAT(message_of([&] { restore_labels(torch::zeros({4, 5, 6}), p); }), HasSubstr("expected integers"));
}

TEST(Preprocess, NamesTheFileOfNaNVoxelsAndUndeclaredLabels) {
  const ScratchFolder folder;
  Volume nan = ramp_volume();
  nan.as<float>()[8] = std::nanf("");
  folder.write_volume("nan.nii.gz", nan), folder.write_volume("good.nii.gz", ramp_volume()),
      folder.write_volume("label.nii.gz", box_label(5));
  const Plan plan = plan_for({1, 1, 1});
  EXPECT_THAT(message_of([&] {
                preprocess({"c", {folder / "nan.nii.gz"}, {}}, plan);
              }),
              testing::AllOf(HasSubstr(
                  "nan.nii.gz: image has 1 NaN or infinite voxel, the first at voxel (x, y, z) = (2, 1, 0)")));
  EXPECT_THAT(message_of([&] {
                preprocess({"c", {folder / "good.nii.gz"}, folder / "label.nii.gz"}, plan);
              }),
              HasSubstr("label.nii.gz: label values 5 in 8 voxels are not declared"));
  EXPECT_THAT(message_of([&] {
                preprocess({"c", {folder / "good.nii.gz"}, folder / "gone.nii.gz"}, plan);
              }),
              HasSubstr("missing label file"));
}

TEST(Preprocess, ALabelWrittenWithTheSourceHeaderReadsBackOnTheSameGrid) {
  const ScratchFolder folder;
  const std::filesystem::path root = write_phantom_dataset(folder.path, "Dataset902_Phantom", {}, 1);
  const Dataset dataset = open_dataset(root);
  Plan plan = plan_for({2, 2, 2});
  plan.labels = dataset.labels;
  const Preprocessed p = preprocess(dataset.training.at(0), plan);
  ASSERT_NE(p.header, nullptr);
  folder.write_volume("out.nii.gz", restore_labels(p.label, p));
  EXPECT_TRUE(same_grid(io::read_image(folder / "out.nii.gz").geometry,
                        io::read_image(dataset.training[0].images[0]).geometry, 0));
}

std::filesystem::path shared_data() {
  if (const char* folder = std::getenv("FOVEA_SHARED")) return std::filesystem::path(folder) / "data";
  for (std::filesystem::path at = FOVEA_SOURCE_DIR; at != at.root_path(); at = at.parent_path())
    if (std::filesystem::is_directory(at / "shared" / "data")) return at / "shared" / "data";
  return {};
}

TEST(Preprocess, RealHippocampiGoThroughAndBack) {
  if (shared_data().empty()) GTEST_SKIP() << "no ../shared: real scans are not at hand";
  const Dataset dataset = open_dataset(shared_data() / "msd-hippocampus");
  ASSERT_EQ(dataset.training.size(), 260u);
  EXPECT_EQ(dataset.labels.size(), 3u);
  Plan plan = plan_for({1, 1, 1}, Normalisation::kZscore);
  plan.labels = dataset.labels;
  for (size_t i = 0; i < 260; i += 20) {
    const Preprocessed p = preprocess(dataset.training[i], plan);
    const Volume label = io::read_image(dataset.training[i].label), back = restore_labels(p.label, p);
    ASSERT_TRUE(same_grid(back.geometry, label.geometry));
    visit_channel(label, 0, [&](auto view) {
      for (int64_t v = 0; v < view.size(); ++v) ASSERT_EQ(int(view.data[v]), back.as<uint8_t>()[v]);
    });
    EXPECT_NEAR(p.image.mean().item<float>(), 0, 1e-4);
    EXPECT_NEAR(p.image.std(/*unbiased=*/false).item<float>(), 1, 1e-4);
  }
}

}  // namespace
}  // namespace fovea::data
