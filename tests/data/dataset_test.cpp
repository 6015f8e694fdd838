#include "fovea/data/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "fovea/core/error.h"
#include "tests/data/scratch_folder.h"

namespace fovea::data {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> ids_of(const std::vector<Case>& cases) {
  std::vector<std::string> ids;
  for (const auto& one : cases) ids.push_back(one.id);
  return ids;
}

constexpr const char* kNnunetJson =
    R"({"channel_names": {"0": "T1", "1": "CT"}, "labels": {"background": 0, "edema": 1, "core": [2, 3]},
  "numTraining": 2, "file_ending": ".nii.gz"})";

TEST(OpenDataset, ReadsAnNnunetFolderWithTwoChannelsAndMergedLabelValues) {
  const ScratchFolder folder;
  folder.write_text("Dataset017_Two/dataset.json", kNnunetJson);
  for (const char* name : {"b_0000", "b_0001", "a_0000", "a_0001"})
    folder.write_text(std::string("Dataset017_Two/imagesTr/") + name + ".nii.gz", "");
  for (const char* name : {"a", "b"}) folder.write_text(std::string("Dataset017_Two/labelsTr/") + name + ".nii.gz", "");
  folder.write_text("Dataset017_Two/imagesTs/t_0000.nii.gz", ""),
      folder.write_text("Dataset017_Two/imagesTr/._a_0000.nii.gz", "");
  const Dataset dataset = open_dataset(folder / "Dataset017_Two/");
  EXPECT_EQ(dataset.name, "Dataset017_Two");
  EXPECT_THAT(dataset.channels, ElementsAre("T1", "CT"));
  EXPECT_THAT(dataset.labels,
              ElementsAre(LabelClass{"background", {0}}, LabelClass{"edema", {1}}, LabelClass{"core", {2, 3}}));
  EXPECT_FALSE(dataset.has_regions());
  EXPECT_THAT(ids_of(dataset.training), ElementsAre("a", "b"));
  EXPECT_EQ(dataset.training[1].images[1].filename(), "b_0001.nii.gz");
  EXPECT_EQ(dataset.training[1].label.filename(), "b.nii.gz");
  EXPECT_THAT(ids_of(dataset.test), ElementsAre("t"));
}

TEST(OpenDataset, ListsACaseWhoseImageIsMissingWhereTheImageShouldBe) {
  const ScratchFolder folder;
  folder.write_text("dataset.json", kNnunetJson);
  folder.write_text("imagesTr/a_0000.nii.gz", ""), folder.write_text("labelsTr/lost.nii.gz", "");
  const Dataset dataset = open_dataset(folder.path);
  EXPECT_THAT(ids_of(dataset.training), ElementsAre("a", "lost"));
  EXPECT_EQ(dataset.training[1].images[0], folder / "imagesTr/lost_0000.nii.gz");
}

TEST(OpenDataset, ReadsADecathlonFolder) {
  const ScratchFolder folder;
  folder.write_text(
      "dataset.json",
      R"({"name": "Hippocampus", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "head", "2": "tail"},
    "numTraining": 2, "training": [{"image": "./imagesTr/h_2.nii.gz", "label": "./labelsTr/h_2.nii.gz"},
    {"image": "./imagesTr/h_1.nii.gz", "label": "./labelsTr/h_1.nii.gz"}], "test": ["./imagesTs/h_3.nii.gz"]})");
  const Dataset dataset = open_dataset(folder.path);
  EXPECT_EQ(dataset.name, "Hippocampus");
  EXPECT_THAT(ids_of(dataset.training), ElementsAre("h_1", "h_2"));
  EXPECT_EQ(dataset.training[0].label, folder / "labelsTr/h_1.nii.gz");
  EXPECT_EQ(dataset.labels[2], (LabelClass{"tail", {2}}));
  EXPECT_EQ(dataset.test.at(0).images.at(0), folder / "imagesTs/h_3.nii.gz");
  EXPECT_EQ(dataset.declared_training_cases, 2);
}

TEST(OpenDataset, ReadsAMonaiDatalistWithFoldsAndADataRoot) {
  const ScratchFolder folder;
  folder.write_text("lists/list.json", R"({"labels": {"0": "background", "1": "x"}, "training": [
    {"image": ["a_0000.nii.gz", "a_0001.nii.gz"], "label": "a.nii.gz", "fold": 0},
    {"image": ["b_0000.nii.gz", "b_0001.nii.gz"], "label": "b.nii.gz", "fold": 1}]})");
  fs::create_directories(folder / "data");
  const Dataset dataset = open_dataset(folder / "lists/list.json", {folder / "data"});
  EXPECT_EQ(dataset.training.at(0).id, "a");
  EXPECT_EQ(dataset.training.at(0).images.at(1), folder / "data/a_0001.nii.gz");
  EXPECT_EQ(dataset.channels.size(), 2u);
  const auto folds = splits(dataset);
  ASSERT_EQ(folds.size(), 2u);
  EXPECT_THAT(folds[1].train, ElementsAre("a"));
  EXPECT_THAT(folds[1].val, ElementsAre("b"));
}

TEST(OpenDataset, FindsLabelValuesOfABareFolderAndSaysSo) {
  const ScratchFolder folder;
  folder.write_volume("imagesTr/one.nii.gz", ramp_volume()), folder.write_volume("labelsTr/one.nii.gz", box_label(7));
  const Dataset dataset = open_dataset(folder.path);
  EXPECT_THAT(dataset.labels, ElementsAre(LabelClass{"background", {0}}, LabelClass{"label_7", {7}}));
  EXPECT_THAT(dataset.note, HasSubstr("found by reading 1 label file"));
}

TEST(OpenDataset, RefusesPathsThatLeaveTheFolder) {
  const ScratchFolder folder;
  folder.write_text("outside.nii.gz", "");
  fs::create_directories(folder / "set/sub");
  fs::create_symlink(folder / "outside.nii.gz", folder / "set/link.nii.gz");
  fs::create_directory_symlink(folder.path, folder / "set/up");
  for (const std::string path : {"../outside.nii.gz", "sub/../../outside.nii.gz", "/etc/passwd", "link.nii.gz",
                                 "up/outside.nii.gz", "..", "", "./../outside.nii.gz", "a\\u0000b.nii.gz"}) {
    for (const std::string key : {"image", "label"}) {
      const std::string other = key == "image" ? "label" : "image";
      folder.write_text("set/dataset.json", R"({"labels": {"0": "background"}, "training": [{")" + key + R"(": ")" +
                                                path + R"(", ")" + other + R"(": "ok.nii.gz"}]})");
      EXPECT_THROW(open_dataset(folder / "set"), IoError) << key << " " << path;
    }
  }
}

TEST(OpenDataset, HostileNamesGiveOneShortLine) {
  const ScratchFolder folder;
  const auto complaint = [&](const std::string& path) {
    folder.write_text("dataset.json", R"({"labels": {"0": "background"}, "training": [{"image": ")" + path + R"("}]})");
    return message_of([&] { open_dataset(folder.path); });
  };
  EXPECT_THAT(complaint(std::string(5000, 'x')), HasSubstr("cannot be followed"));
  EXPECT_LT(complaint(std::string(5000, 'x')).size(), 500u);
  EXPECT_THAT(complaint(R"(/a\nb)"), testing::Not(HasSubstr("\n")));
  folder.write_text("dataset.json",
                    R"({"channel_names": {"0": "T1"}, "labels": {"background": 0}, "file_ending": ".nii",
                                        "dataset": {"../../up": {"images": ["a.nii"], "label": "b.nii"}}})");
  EXPECT_THAT(message_of([&] { open_dataset(folder.path); }), HasSubstr("cannot be part of a file name"));
}

TEST(OpenDataset, FollowsLinksOnlyWhenAsked) {
  const ScratchFolder folder;
  folder.write_text("outside.nii.gz", "");
  folder.write_text("set/dataset.json", R"({"labels": {"0": "background"}, "training": [{"image": "link.nii.gz"}]})");
  fs::create_symlink(folder / "outside.nii.gz", folder / "set/link.nii.gz");
  EXPECT_THAT(message_of([&] { open_dataset(folder / "set"); }), HasSubstr("symbolic link out of the dataset folder"));
  OpenOptions options;
  options.follow_links = true;
  EXPECT_EQ(open_dataset(folder / "set", options).training.size(), 1u);
}

TEST(OpenDataset, NamesWhatADescriptionLacks) {
  const ScratchFolder folder;
  fs::create_directories(folder / "imagesTr");
  const auto complaint = [&](const std::string& json) {
    folder.write_text("dataset.json", json);
    return message_of([&] { open_dataset(folder.path); });
  };
  EXPECT_THAT(complaint(R"({"labels": {"background": 0}, "file_ending": ".nii.gz"})"),
              HasSubstr("lacks channel_names"));
  EXPECT_THAT(complaint(R"({"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"})"), HasSubstr("lacks labels"));
  EXPECT_THAT(complaint(R"({"channel_names": {"0": "CT"}, "labels": {"background": 0}})"),
              HasSubstr("lacks file_ending"));
  EXPECT_THAT(complaint(R"({"channel_names": {"0": "CT"}, "labels": {"a": 1}, "file_ending": ".nii.gz"})"),
              HasSubstr("no name for value 0"));
  EXPECT_THAT(complaint(R"({"channel_names": {"0": "CT"}, "labels": {"background": 0}, "file_ending": ".png"})"),
              HasSubstr("'.png', expected .nii.gz"));
  EXPECT_THAT(complaint(R"({"channel_names": {"1": "CT"}, "labels": {"background": 0}, "file_ending": ".nii.gz"})"),
              HasSubstr("lacks channel 0"));
  EXPECT_THAT(
      complaint(R"({"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 70000}, "file_ending": ".nii.gz"})"),
      HasSubstr("0 to 65535"));
  EXPECT_THAT(complaint(R"({"labels": {"0": "background"}, "training": [{"picture": "a"}]})"),
              HasSubstr("training[0]"));
  EXPECT_THAT(message_of([&] { open_dataset(folder / "nothing"); }), HasSubstr("no such file or folder"));
}

TEST(OpenDataset, KnowsRegionsAndTheIgnoreLabel) {
  const ScratchFolder folder;
  folder.write_text(
      "dataset.json",
      R"({"channel_names": {"0": "T1"}, "labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
                                     "file_ending": ".nii.gz"})");
  folder.write_text("imagesTr/a_0000.nii.gz", "");
  const Dataset dataset = open_dataset(folder.path);
  EXPECT_TRUE(dataset.has_regions());
  EXPECT_EQ(dataset.ignore_label, 3);
}

Dataset numbered_dataset(int n) {
  Dataset dataset;
  dataset.root = "nowhere", dataset.labels = {{"background", {0}}, {"a", {1}}};
  for (int i = n - 1; i >= 0; --i) dataset.training.push_back({"case_" + std::to_string(i), {"i"}, "l"});
  return dataset;
}

TEST(Splits, EveryCaseValidatesOnceAndNeverTrainsInItsFold) {
  const auto folds = splits(numbered_dataset(13));
  ASSERT_EQ(folds.size(), 5u);
  std::multiset<std::string> validated;
  for (const auto& fold : folds) {
    EXPECT_EQ(fold.train.size() + fold.val.size(), 13u);
    for (const auto& id : fold.val) {
      validated.insert(id);
      EXPECT_EQ(std::count(fold.train.begin(), fold.train.end(), id), 0);
    }
  }
  EXPECT_EQ(validated.size(), 13u);
  EXPECT_EQ(std::set<std::string>(validated.begin(), validated.end()).size(), 13u);
}

TEST(Splits, DependOnTheSeedAndNotOnTheOrderOfCases) {
  Dataset dataset = numbered_dataset(20);
  const auto folds = splits(dataset);
  std::reverse(dataset.training.begin(), dataset.training.end());
  EXPECT_EQ(splits(dataset)[3].val, folds[3].val);
  EXPECT_NE(splits(dataset, 5, 7)[3].val, folds[3].val);
}

TEST(Splits, FewCasesGiveOneFoldEachAndOneCaseIsAnError) {
  EXPECT_EQ(splits(numbered_dataset(3)).size(), 3u);
  EXPECT_THAT(message_of([] { splits(numbered_dataset(1)); }), HasSubstr("expected at least 2"));
}

TEST(Splits, ReadsSplitsFinalAndRefusesLeaksAndStrangers) {
  const ScratchFolder folder;
  Dataset dataset = numbered_dataset(3);
  dataset.root = folder.path;
  folder.write_text("splits_final.json", R"([{"train": ["case_0", "case_2"], "val": ["case_1"]}])");
  EXPECT_THAT(splits(dataset).at(0).train, ElementsAre("case_0", "case_2"));
  folder.write_text("splits_final.json", R"([{"train": ["case_0", "case_1"], "val": ["case_1"]}])");
  EXPECT_THAT(message_of([&] { splits(dataset); }), HasSubstr("'case_1' twice"));
  folder.write_text("splits_final.json", R"([{"train": ["case_0", "case_9"], "val": ["case_1"]}])");
  EXPECT_THAT(message_of([&] { splits(dataset); }), HasSubstr("'case_9', which the dataset does not have"));
}

}  // namespace
}  // namespace fovea::data
