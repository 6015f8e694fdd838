#include "fovea/data/labelled_images.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <fstream>

#include "fovea/core/error.h"
#include "scratch_folder.h"

namespace fovea::data {
namespace {

std::string idx(std::initializer_list<char> sizes, const std::string& bytes) {
  std::string text("\0\0\x08", 3);
  text += char(sizes.size());
  for (const char size : sizes) text += std::string(3, '\0') + size;
  return text + bytes;
}
void spill(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
}

TEST(LabelledImages, PixelsGetMeanZeroAndDeviationOneAndTestImagesThoseOfTraining) {
  const ScratchFolder folder;
  spill(folder / "images", idx({2, 1, 2}, std::string("\x00\x33\x66\xff", 4)));
  spill(folder / "labels", idx({2}, std::string("\x07\x02", 2)));
  const LabelledImages train = read_labelled_images(folder / "images", folder / "labels");
  EXPECT_EQ(train.images.sizes(), (std::vector<int64_t>{2, 1, 2}));
  EXPECT_NEAR(train.images.mean().item<float>(), 0, 1e-6);
  EXPECT_NEAR(train.images.std().item<float>(), 1, 1e-6);
  EXPECT_TRUE(train.labels.equal(torch::tensor({7, 2}, torch::kInt64)));
  spill(folder / "white", idx({1, 1, 2}, "\xff\xff"));
  spill(folder / "one", idx({1}, "\x01"));
  const LabelledImages test = read_labelled_images(folder / "white", folder / "one", &train);
  EXPECT_NEAR(test.images[0][0][0].item<float>(), (1 - train.mean) / train.deviation, 1e-6);
}

TEST(LabelledImages, RefusesFilesThatDoNotBelongTogether) {
  const ScratchFolder folder;
  spill(folder / "images", idx({2, 1, 2}, "abcd"));
  spill(folder / "labels", idx({3}, "abc"));
  const auto refusal = [&](const char* images, const char* labels) {
    try {
      read_labelled_images(folder / images, folder / labels);
    } catch (const IoError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_THAT(refusal("images", "labels"), testing::HasSubstr("has 3 labels, expected 2, one for each image of"));
  EXPECT_THAT(refusal("labels", "labels"), testing::HasSubstr("has 1 axes, expected 3"));
  EXPECT_THAT(refusal("images", "images"), testing::HasSubstr("has 3 axes, expected 1"));
}

TEST(LabelledImages, AMissingFashionMnistNamesItsPackage) {
  const ScratchFolder folder;
  std::filesystem::create_directory(folder / "fashion-mnist");
  const char* before = std::getenv("FOVEA_DATA");
  const std::string kept = before ? before : "";
  setenv("FOVEA_DATA", folder.path.c_str(), 1);
  try {
    read_fashion_mnist();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const IoError& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("install the Debian package dataset-fashion-mnist"));
  }
  before ? setenv("FOVEA_DATA", kept.c_str(), 1) : unsetenv("FOVEA_DATA");
}

}  // namespace
}  // namespace fovea::data
