#include "fovea/data/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "fovea/core/error.h"
#include "fovea/data/phantom.h"
#include "fovea/io/config.h"
#include "tests/data/scratch_folder.h"

namespace fovea::data {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// One case a defect; every pair (image, label) is written by name.
struct DefectFolder : ScratchFolder {
  void add(const std::string& id, const Volume& image, const Volume& label) const {
    write_volume("imagesTr/" + id + "_0000.nii.gz", image), write_volume("labelsTr/" + id + ".nii.gz", label);
  }
  Dataset open() const {
    write_text(
        "dataset.json",
        R"({"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": 1}, "numTraining": 99,
           "file_ending": ".nii.gz"})");
    return open_dataset(path);
  }
};

TEST(Verify, NamesEveryBrokenCaseOnALineInCaseOrder) {
  const DefectFolder folder;
  folder.add("a_good", ramp_volume(), box_label());
  Volume nan = ramp_volume();
  nan.as<float>()[7] = std::nanf(""), nan.as<float>()[50] = std::numeric_limits<float>::infinity();
  folder.add("b_nan", nan, box_label());
  Volume constant = ramp_volume();
  for (float& v : constant.as<float>()) v = 3;
  folder.add("c_constant", constant, box_label());
  folder.add("d_undeclared", ramp_volume(), box_label(5));
  Volume moved = box_label();
  moved.geometry.affine[0][3] += 0.5;
  folder.add("e_moved", ramp_volume(), moved);
  Volume small = Volume::zeros({{4, 5, 5}, moved.geometry.affine}, DType::kU8);
  folder.add("f_shape", ramp_volume(), small);
  folder.add("g_fourth_axis", ramp_volume(2), box_label());
  folder.add("h_missing_label", ramp_volume(), box_label());
  std::filesystem::remove(folder / "labelsTr/h_missing_label.nii.gz");
  folder.add("i_truncated", ramp_volume(), box_label());
  std::filesystem::resize_file(folder / "imagesTr/i_truncated_0000.nii.gz", 60);
  Volume fraction = ramp_volume();
  for (float& v : fraction.as<float>()) v = 0.5f;
  folder.add("j_fraction", ramp_volume(), fraction);
  folder.add("k_missing_image", ramp_volume(), box_label());
  std::filesystem::remove(folder / "imagesTr/k_missing_image_0000.nii.gz");

  const auto lines = verify(folder.open());
  EXPECT_THAT(
      lines,
      ElementsAre(HasSubstr("numTraining is 99, but 11 cases"),
                  AllOf(testing::StartsWith("b_nan: "),
                        HasSubstr("2 NaN or infinite voxels, the first at voxel (x, y, z) = (1, 1, 0)")),
                  AllOf(testing::StartsWith("c_constant: "), HasSubstr("constant")),
                  AllOf(testing::StartsWith("d_undeclared: "),
                        HasSubstr("label values 5 in 8 voxels are not declared; declared are 0, 1")),
                  AllOf(testing::StartsWith("e_moved: "), HasSubstr("label lies elsewhere")),
                  AllOf(testing::StartsWith("f_shape: "), HasSubstr("label has 5x5x4 voxels, expected 6x5x4")),
                  AllOf(testing::StartsWith("g_fourth_axis: "), HasSubstr("2 channels (4-D), expected a 3-D file")),
                  AllOf(testing::StartsWith("h_missing_label: "), HasSubstr("missing label file")),
                  testing::StartsWith("i_truncated: "),
                  AllOf(testing::StartsWith("j_fraction: "), HasSubstr("is no integer")),
                  AllOf(testing::StartsWith("k_missing_image: "), HasSubstr("missing image file"))));
}

TEST(Verify, ComparesTheGridsOfChannelsAndSeesDuplicateIds) {
  const ScratchFolder folder;
  folder.write_volume("x/i0.nii", ramp_volume());
  Volume shifted = ramp_volume();
  shifted.geometry.affine[2][3] = 4;
  folder.write_volume("x/i1.nii", shifted), folder.write_volume("l.nii", box_label()),
      folder.write_volume("y/i0.nii", ramp_volume());
  folder.write_text("list.json",
                    R"({"labels": {"0": "background", "1": "a"}, "modality": {"0": "a", "1": "b"}, "training": [
    {"image": ["x/i0.nii", "x/i1.nii"], "label": "l.nii"}, {"image": ["y/i0.nii", "y/i0.nii"]}]})");
  EXPECT_THAT(verify(open_dataset(folder / "list.json")),
              ElementsAre(HasSubstr("image lies elsewhere than i0.nii"), HasSubstr("the id occurs more than once"),
                          HasSubstr("has no label, but the dataset is labelled")));
}

TEST(Verify, HasNothingToSayAboutPhantoms) {
  const ScratchFolder folder;
  EXPECT_THAT(verify(open_dataset(write_phantom_dataset(folder.path, "Dataset900_Phantom", {}, 2))), ElementsAre());
}

struct PhantomPlan : testing::Test {
  static Dataset dataset() {
    static const ScratchFolder folder;
    static const Dataset opened = open_dataset(write_phantom_dataset(folder.path, "Dataset901_Phantom", {}, 3));
    return opened;
  }
};

TEST_F(PhantomPlan, TakesTheMedianSpacingAndAPatchAboutAsLargeAsAScan) {
  PlanOptions options;
  const Plan plan = make_plan(dataset(), options);
  // The array's axes are L, P, S with 2 mm slices; the canonical grid has the same order.
  EXPECT_NEAR(plan.spacing_mm[0], 2, 1e-3);
  EXPECT_NEAR(plan.spacing_mm[1], 1, 1e-3);
  EXPECT_EQ(plan.patch_size, (std::array<int64_t, 3>{32, 64, 32}));  // about 24 x 40 x 36, but not one multiple everywhere
  EXPECT_GE(plan.batch_size, 2);
  EXPECT_EQ(plan.labels, dataset().labels);
  EXPECT_EQ(plan.normalisation.at(0).scheme, Normalisation::kZscore);
  EXPECT_EQ(plan.fingerprint.cases, 3);
  EXPECT_LE(plan.estimated_bytes, options.max_ram_bytes);
}

TEST_F(PhantomPlan, ShrinksThePatchUntilTheStatedMemorySuffices) {
  PlanOptions options;
  options.spacing_mm = {{1, 0.25, 0.25}};
  options.memory_bytes = [](const TrainingSize& size) { return int64_t(size.step_voxels()) * 1000; };
  options.max_ram_bytes = 2 * 32 * 64 * 64 * 1000;
  options.max_step_voxels = int64_t{1} << 30;
  const Plan plan = make_plan(dataset(), options);
  EXPECT_LE(plan.estimated_bytes, options.max_ram_bytes);
  EXPECT_EQ(plan.patch_size, (std::array<int64_t, 3>{32, 64, 64}));
  PlanOptions roomy = options;
  roomy.max_ram_bytes = int64_t{1} << 40;
  EXPECT_GE(make_plan(dataset(), roomy).patch_size[1], 128);  // so it was shrunk above
  options.max_ram_bytes = 1000;
  EXPECT_THAT(message_of([&] { make_plan(dataset(), options); }),
              HasSubstr("a 32x32x64 patch with batch 1 needs about"));  // two multiples along one axis at least
  EXPECT_THROW(make_plan(dataset(), options), ResourceError);
}

TEST_F(PhantomPlan, RefusesAPatchThatTheNetworkCannotTakeAndNamesOneItCan) {
  PlanOptions options;
  options.patch_size = {{32, 48, 64}};
  EXPECT_THAT(message_of([&] { make_plan(dataset(), options); }), HasSubstr("48 could be 64"));
  options.patch_multiple = 16;
  EXPECT_EQ(make_plan(dataset(), options).patch_size[1], 48);
}

TEST_F(PhantomPlan, RefusesRegionsAndIgnoreLabels) {
  Dataset regions = dataset();
  regions.labels[1].values = {1, 2};
  EXPECT_THAT(message_of([&] { make_plan(regions); }), HasSubstr("share a voxel value"));
  Dataset ignoring = dataset();
  ignoring.ignore_label = 9;
  EXPECT_THAT(message_of([&] { make_plan(ignoring); }), HasSubstr("ignore label"));
}

TEST_F(PhantomPlan, SurvivesJson) {
  PlanOptions options;
  options.network_config["feature_size"] = 24;
  const Plan plan = make_plan(dataset(), options);
  const auto json = io::to_json(plan);
  const Plan back = io::from_json<Plan>(json, "plan.json");
  EXPECT_EQ(io::to_json(back), json);
  EXPECT_EQ(back.network_config["feature_size"], 24);
  auto wrong = json;
  wrong["spacing_mm"][0] = -1;
  EXPECT_THAT(message_of([&] { io::from_json<Plan>(wrong, "plan.json"); }), HasSubstr("spacing_mm"));
}

TEST(MakePlan, CtStatisticsComeFromTheForeground) {
  const ScratchFolder folder;
  Volume image = ramp_volume();
  Volume label = box_label();
  for (int64_t i = 0; i < image.size(); ++i)
    image.as<float>()[i] = label.as<uint8_t>()[i] ? float(10 + i % 2) : -1000.0f - float(i);
  folder.write_volume("imagesTr/a_0000.nii.gz", image), folder.write_volume("labelsTr/a.nii.gz", label);
  folder.write_text("dataset.json",
                    R"({"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"})");
  const Plan plan = make_plan(open_dataset(folder.path));
  EXPECT_EQ(plan.normalisation.at(0).scheme, Normalisation::kCt);
  EXPECT_DOUBLE_EQ(plan.normalisation[0].mean, 10.5);
  EXPECT_DOUBLE_EQ(plan.normalisation[0].deviation, 0.5);
  EXPECT_EQ(plan.normalisation[0].lower, 10);
  EXPECT_EQ(plan.normalisation[0].upper, 11);
  EXPECT_EQ(plan.fingerprint.class_voxels, (std::vector<int64_t>{112, 8}));
  EXPECT_FALSE(plan.crop_to_nonzero);
}

TEST(MakePlan, CropsWhenMostOfTheScanIsZero) {
  const ScratchFolder folder;
  Volume image = ramp_volume();
  const Volume label = box_label();
  for (int64_t i = 0; i < image.size(); ++i) image.as<float>()[i] = label.as<uint8_t>()[i] ? float(i) : 0;
  folder.write_volume("imagesTr/a_0000.nii.gz", image), folder.write_volume("labelsTr/a.nii.gz", label);
  folder.write_text("dataset.json",
                    R"({"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"})");
  const Plan plan = make_plan(open_dataset(folder.path));
  EXPECT_TRUE(plan.crop_to_nonzero);
  EXPECT_EQ(plan.normalisation.at(0).scheme, Normalisation::kZscoreNonzero);
  EXPECT_EQ(plan.fingerprint.median_shape, (std::array<int64_t, 3>{2, 2, 2}));
}

}  // namespace
}  // namespace fovea::data
