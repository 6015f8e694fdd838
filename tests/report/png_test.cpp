#include "fovea/report/png.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <png.h>

#include <cstring>
#include <fstream>
#include <string>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "fovea/report/save_file.h"

namespace fovea::report {
namespace {

namespace fs = std::filesystem;

Image noise(int64_t height, int64_t width, int channels) {
  Rng rng(7, 0, static_cast<uint32_t>(height * width), static_cast<uint32_t>(channels));
  Image image{height, width, channels, std::vector<uint8_t>(static_cast<size_t>(height * width * channels))};
  for (uint8_t& v : image.pixels) v = static_cast<uint8_t>(rng.below(256));
  return image;
}

Image decode(const std::vector<std::byte>& bytes) {
  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  EXPECT_TRUE(png_image_begin_read_from_memory(&header, bytes.data(), bytes.size())) << header.message;
  const int channels = static_cast<int>(PNG_IMAGE_SAMPLE_CHANNELS(header.format));
  Image image{header.height, header.width, channels, std::vector<uint8_t>(PNG_IMAGE_SIZE(header))};
  EXPECT_TRUE(png_image_finish_read(&header, nullptr, image.pixels.data(), 0, nullptr)) << header.message;
  return image;
}

class TemporaryFolder {
 public:
  TemporaryFolder() : path_(fs::temp_directory_path() / "fovea-report-XXXXXX") {
    std::string name = path_.string();
    if (!mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string contents(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Png, DecodesToTheSamePixelsForGreyColourAndTransparency) {
  for (int channels : {1, 3, 4}) {
    for (const auto& [height, width] : {std::pair{1, 1}, {3, 5}, {64, 63}}) {
      const Image image = noise(height, width, channels);
      const Image back = decode(encode_png(image));
      EXPECT_EQ(back.height, height);
      EXPECT_EQ(back.width, width);
      EXPECT_EQ(back.channels, channels);
      EXPECT_EQ(back.pixels, image.pixels);
    }
  }
}

TEST(Png, TheSameImageGivesTheSameBytes) { EXPECT_EQ(encode_png(noise(20, 31, 3)), encode_png(noise(20, 31, 3))); }

TEST(Png, RefusesAnImageWhosePixelsDoNotFitItsSize) {
  for (Image bad : {Image{2, 2, 3, std::vector<uint8_t>(11)}, Image{0, 2, 3, {}}, Image{-1, -1, 1, {0}},
                    Image{1, 1, 2, {0, 0}}, Image{1, 40000, 1, std::vector<uint8_t>(40000)}}) {
    EXPECT_THROW(encode_png(bad), ArgumentError);
  }
}

TEST(Png, Base64MatchesTheExamplesOfTheStandard) {
  const std::string texts[] = {"", "f", "fo", "foo", "foob", "fooba", "foobar"};
  const char* expected[] = {"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
  for (int i = 0; i < 7; ++i) {
    std::vector<std::byte> bytes;
    for (char c : texts[i]) bytes.push_back(static_cast<std::byte>(c));
    EXPECT_EQ(base64(bytes), expected[i]);
  }
}

TEST(Png, WritesTheWholeFileAndLeavesNothingElse) {
  const TemporaryFolder folder;
  const Image image = noise(9, 9, 3);
  write_png(folder.path() / "a.png", image);
  const std::string file = contents(folder.path() / "a.png");
  const auto bytes = encode_png(image);
  ASSERT_EQ(file.size(), bytes.size());
  EXPECT_EQ(std::memcmp(file.data(), bytes.data(), bytes.size()), 0);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(SaveFile, AFailedWriteNamesThePathAndLeavesNoTemporaryFile) {
  const TemporaryFolder folder;
  fs::create_directory(folder.path() / "taken");  // a folder cannot be replaced by a file
  try {
    save_file(folder.path() / "taken", "x");
    FAIL() << "wrote over a folder";
  } catch (const IoError& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("taken: cannot be written: "));
  }
  EXPECT_THROW(save_file(folder.path() / "missing" / "a.txt", "x"), IoError);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(SaveFile, ReplacesAnEarlierFile) {
  const TemporaryFolder folder;
  save_file(folder.path() / "a.txt", "a long earlier text");
  save_file(folder.path() / "a.txt", "short");
  EXPECT_EQ(contents(folder.path() / "a.txt"), "short");
}

}  // namespace
}  // namespace fovea::report
