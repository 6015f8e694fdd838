#include "fovea/io/slide.h"

#include <gmock/gmock.h>


#include "fovea/io/pyramid_tiff.h"
#include "tests/io/test_folder.h"

namespace fovea::io {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::slurp;
using testing::spill;
using testing::TestFolder;

// Every pixel says where it is.
SlideRegion picture(int64_t height, int64_t width) {
  SlideRegion region{height, width, std::vector<uint8_t>(size_t(height * width * 3))};
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) {
      uint8_t* p = region.rgb.data() + (y * width + x) * 3;
      p[0] = uint8_t(y % 251), p[1] = uint8_t(x % 241), p[2] = uint8_t((y / 251) * 16 + x / 241);
    }
  return region;
}

std::vector<SlideRegion> pyramid(int64_t height, int64_t width, int levels) {
  std::vector<SlideRegion> all{picture(height, width)};
  while (int(all.size()) < levels) all.push_back(halved(halved(all.back())));
  return all;
}

TEST(Slide, PyramidReadsBackPixelForPixelAtEveryLevelAndOffTheTiles) {
  TestFolder folder;
  const auto levels = pyramid(1300, 1033, 3);
  write_pyramid_tiff(folder / "a.tif", levels, 0.25);
  Slide slide(folder / "a.tif");
  EXPECT_EQ(slide.info().vendor, "generic-tiff");
  ASSERT_EQ(slide.info().levels.size(), 2u) << "the third is smaller than one tile";
  EXPECT_THAT(slide.info().notes, ::testing::ElementsAre(HasSubstr("level 2 is smaller than one tile")));
  EXPECT_EQ(slide.info().levels[0].height, 1300);
  EXPECT_EQ(slide.info().levels[1].width, 259);
  EXPECT_NEAR(slide.info().levels[1].downsample, 4, 0.02);
  EXPECT_NEAR(slide.um_per_pixel(), 0.25, 1e-6);
  const auto part = slide.read(0, 201, 307, 113, 257);
  for (int64_t y = 0; y < 113; ++y)
    for (int64_t x = 0; x < 257; ++x)
      for (int c = 0; c < 3; ++c) ASSERT_EQ(part.at(y, x)[c], levels[0].at(y + 201, x + 307)[c]) << y << " " << x;
  const auto whole = slide.read(1, 0, 0, levels[1].height, levels[1].width);
  EXPECT_EQ(whole.rgb, levels[1].rgb);
  EXPECT_EQ(slide.info().level_for(1), 0u);
  EXPECT_EQ(slide.info().level_for(15), 1u);
  EXPECT_EQ(slide.info().level_for(3.9), 0u);
}

TEST(Slide, OutsideOfTheSlideIsWhite) {
  TestFolder folder;
  write_pyramid_tiff(folder / "a.tif", pyramid(300, 300, 1), 0.5);
  const auto corner = Slide(folder / "a.tif").read(0, -2, 299, 4, 4);
  EXPECT_EQ(corner.at(0, 0)[0], 255);
  EXPECT_EQ(corner.at(3, 3)[2], 255);
  EXPECT_EQ(corner.at(2, 0)[1], 299 % 241);
}

TEST(Slide, MissingLevelAndMissingPixelSizeAreOneLineThatSaysWhatToDo) {
  TestFolder folder;
  write_pyramid_tiff(folder / "a.tif", pyramid(1300, 1310, 2), {});
  Slide slide(folder / "a.tif");
  EXPECT_THAT(message_of<IoError>([&] { slide.read(2, 0, 0, 10, 10); }), HasSubstr("has no level 2, there are levels 0 to 1"));
  EXPECT_THAT(message_of<IoError>([&] { slide.um_per_pixel(); }), HasSubstr("--um-per-pixel"));
  EXPECT_THAT(message_of<IoError>([&] { slide.read(0, 0, 0, 1 << 20, 1 << 20); }), HasSubstr("expected 1 to 2^26"));
  EXPECT_EQ(Slide(folder / "a.tif", 0.4).um_per_pixel(), 0.4);
  EXPECT_THAT(message_of<ArgumentError>([&] { Slide(folder / "a.tif", -1.0); }), HasSubstr("--um-per-pixel"));
}

TEST(Slide, AScreensResolutionIsNotTakenForAMicroscopes) {
  TestFolder folder;
  write_pyramid_tiff(folder / "a.tif", pyramid(300, 300, 1), 25400.0 / 72);
  Slide slide(folder / "a.tif");
  EXPECT_FALSE(slide.info().um_per_pixel);
  ASSERT_EQ(slide.info().notes.size(), 1u);
  EXPECT_THAT(slide.info().notes[0], HasSubstr("which no microscope has"));
}

TEST(Slide, WhatIsCutShortOrNoSlideIsRefusedInOneLine) {
  TestFolder folder;
  write_pyramid_tiff(folder / "a.tif", pyramid(1100, 700, 2), 0.5);
  const std::string whole = slurp(folder / "a.tif");
  for (const size_t keep : {size_t{0}, size_t{4}, size_t{50}, whole.size() / 2, whole.size() - 1}) {
    spill(folder / "cut.tif", whole.substr(0, keep));
    EXPECT_THAT(message_of<IoError>([&] {
                  Slide slide(folder / "cut.tif");
                  slide.read(0, 0, 0, 1100, 700), slide.read(1, 0, 0, 275, 175);
                }),
                HasSubstr("truncated"))
        << keep << " bytes";
  }
  spill(folder / "text.svs", "not a slide");
  EXPECT_THAT(message_of<IoError>([&] { Slide(folder / "text.svs"); }), HasSubstr("no slide that OpenSlide"));
  EXPECT_THAT(message_of<IoError>([&] { Slide(folder / "none.svs"); }), HasSubstr("no such file"));
  EXPECT_THAT(message_of<IoError>([&] { Slide(folder.path()); }), HasSubstr("is a folder"));
}

TEST(Slide, FlippedBytesEndInAPictureOrInOneLineNeverElse) {
  TestFolder folder;
  write_pyramid_tiff(folder / "a.tif", pyramid(1100, 300, 2), 0.5);
  const std::string whole = slurp(folder / "a.tif");
  for (size_t at = 0; at < 400; at += 7) {  // header and directories
    std::string bytes = whole;
    bytes[at] = char(bytes[at] ^ 0x5b);
    spill(folder / "b.tif", bytes);
    try {
      Slide slide(folder / "b.tif");
      slide.read(0, 0, 0, 64, 64);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadInput) << at << ": " << error.what();
    }
  }
}

TEST(Slide, TheRealSlideHasItsKnownSizeAndItsIdentifiersStayInTheFile) {
  const auto path = std::filesystem::path(FOVEA_SOURCE_DIR).parent_path() / "shared/data/openslide-histology/CMU-1-Small-Region.svs";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
  Slide slide(path);
  EXPECT_EQ(slide.info().vendor, "aperio");
  ASSERT_EQ(slide.info().levels.size(), 1u);
  EXPECT_EQ(slide.info().levels[0].height, 2967);
  EXPECT_EQ(slide.info().levels[0].width, 2220);
  EXPECT_DOUBLE_EQ(slide.um_per_pixel(), 0.499);
  const auto region = slide.read(0, 1000, 1000, 32, 32);
  EXPECT_NE(std::count(region.rgb.begin(), region.rgb.end(), 255), int64_t(region.rgb.size()));
}

}  // namespace
}  // namespace fovea::io
