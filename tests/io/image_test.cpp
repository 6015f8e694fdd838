#include "fovea/io/image.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "fovea/core/rng.h"
#include "fovea/io/byte_source.h"
#include "fovea/io/sha256.h"
#include "tests/io/test_folder.h"

namespace fovea::io {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::slurp;
using testing::spill;
using testing::TestFolder;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

// 4 x 3 x 5 voxels (x, y, z) with an oblique affine that single precision holds exactly.
Volume example(DType dtype = DType::kI16, int64_t channels = 1) {
  Geometry g;
  g.shape = {5, 3, 4};
  g.affine = {{{0, -2, 0, 10.5}, {1.5, 0, 0, -20}, {0, 0, 3, 7.25}}};
  Volume v = Volume::zeros(g, dtype, channels);
  for (size_t i = 0; i < v.data.size(); ++i) v.data[i] = std::byte(i * 37 % 120);
  return v;
}

template <class T>
std::string patched(std::string bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
  return bytes;
}

void gzip_to(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  GzipWriter gzip(file, 6);
  gzip.write(std::as_bytes(std::span(bytes)));
  gzip.finish();
  file.commit();
}

struct Quiet {
  std::vector<std::string> notes;
  ReadOptions options() {
    ReadOptions o;
    o.notes = &notes;
    return o;
  }
};

class ImageTest : public ::testing::Test {
 protected:
  // The bytes of the example as written in a format.
  std::string good(const std::string& ending, const Volume& v = example(), int level = 1) {
    WriteOptions options;
    options.compression_level = level;
    write_image(folder_ / ("good." + ending), v, options);
    return slurp(folder_ / ("good." + ending));
  }
  std::string refusal(const std::string& bytes, const std::string& name = "bad.nii") {
    spill(folder_ / name, bytes);
    return message_of<IoError>([&] { read_image(folder_ / name, quiet_.options()); });
  }
  Volume load(const std::string& bytes, const std::string& name = "ok.nii") {
    spill(folder_ / name, bytes);
    return read_image(folder_ / name, quiet_.options());
  }

  TestFolder folder_;
  Quiet quiet_;
};

TEST_F(ImageTest, EveryFormatReturnsTheVolumeItWasGivenInEveryType) {
  for (const char* ending : {"nii", "nii.gz", "nrrd"})
    for (const DType t : {DType::kBool, DType::kU8, DType::kI8, DType::kU16, DType::kI16, DType::kU32, DType::kI32,
                          DType::kU64, DType::kI64, DType::kF32, DType::kF64})
      for (const int64_t channels : {1, 3}) {
        const Volume v = example(t, channels);
        const auto path = folder_ / (std::string("a.") + ending);
        write_image(path, v);
        const Volume back = read_image(path);
        EXPECT_EQ(back.dtype, t == DType::kBool ? DType::kU8 : t);
        EXPECT_EQ(back.channels, channels);
        EXPECT_EQ(back.geometry.shape, v.geometry.shape);
        EXPECT_EQ(back.geometry.affine, v.geometry.affine);
        EXPECT_EQ(back.data, v.data) << ending << " " << name_of(t);
      }
}

TEST_F(ImageTest, RefusesHeaderFieldsThatMakeNoSenseInNifti1) {
  const std::string ok = good("nii");
  EXPECT_THAT(refusal(patched<int16_t>(ok, 40, 0)), HasSubstr("dim[0] is 0, expected 1 to 7 axes"));
  EXPECT_THAT(refusal(patched<int16_t>(ok, 40, 8)), HasSubstr("dim[0] is 8"));
  EXPECT_THAT(refusal(patched<int16_t>(ok, 42, 0)), HasSubstr("dim[1] is 0, expected 1 to 32767"));
  EXPECT_THAT(refusal(patched<int16_t>(ok, 44, -5)), HasSubstr("dim[2] is -5"));
  EXPECT_THAT(refusal(patched<int16_t>(patched<int16_t>(ok, 40, 6), 52, 2)),
              HasSubstr("more than four axes longer than 1"));
  EXPECT_THAT(refusal(patched<int16_t>(ok, 70, 3)), HasSubstr("datatype 3 is no NIfTI type"));
  EXPECT_THAT(refusal(patched<int16_t>(ok, 70, 0)), HasSubstr("datatype 0 is no NIfTI type"));
  EXPECT_THAT(refusal(patched<int16_t>(ok, 72, 8)), HasSubstr("bitpix is 8, expected 16 for datatype 4"));
  const std::pair<int, const char*> unsupported[] = {
      {1, "binary (1 bit)"}, {32, "complex64"},    {128, "RGB"},   {1536, "128-bit float"},
      {1792, "complex128"},  {2048, "complex256"}, {2304, "RGBA"}, {16384, "f16"}};
  for (const auto& [code, name] : unsupported)
    EXPECT_THAT(refusal(patched<int16_t>(ok, 70, int16_t(code))),
                HasSubstr(std::string("voxel type ") + name + " is not supported"));
  for (const float offset : {kNan, kInf, -352.f, 0.f, 347.f, 352.5f, 1e30f})
    EXPECT_THAT(refusal(patched<float>(ok, 108, offset)), HasSubstr("vox_offset is ")) << offset;
  EXPECT_THAT(refusal(patched<float>(ok, 108, 1e6f)), HasSubstr("the file is truncated"));
  EXPECT_THAT(refusal(patched<float>(ok, 112, kNan)), HasSubstr("scl_slope is nan"));
  EXPECT_THAT(refusal(patched<float>(ok, 116, -kInf)), HasSubstr("scl_inter -inf"));
  for (const float value : {kNan, kInf, -kInf})
    EXPECT_THAT(refusal(patched<float>(ok, 288, value)), HasSubstr("the affine (sform) holds"));
  EXPECT_THAT(refusal(patched<int32_t>(ok, 344, 0)), HasSubstr("not its magic"));
  EXPECT_THAT(refusal(patched<int32_t>(ok, 344, 0x0031696e)), HasSubstr("header of a .hdr/.img pair"));
}

TEST_F(ImageTest, RefusesASingularAffineAndPrintsIt) {
  std::string bytes = good("nii");
  for (size_t i = 0; i < 4; ++i) std::memcpy(bytes.data() + 296 + 4 * i, bytes.data() + 280 + 4 * i, 4);
  EXPECT_THAT(refusal(bytes), HasSubstr("the affine (sform) is singular: [0 -2 0; 0 -2 0; 0 0 3]"));
}

TEST_F(ImageTest, RefusesAQformThatIsNoRotationOrHasNoSpacing) {
  const std::string ok = patched<int16_t>(good("nii"), 254, 0);  // sform_code 0: qform in use
  EXPECT_EQ(load(ok).geometry.shape, example().geometry.shape);
  EXPECT_THAT(refusal(patched<float>(ok, 256, 3.f)), HasSubstr("is no rotation"));
  EXPECT_THAT(refusal(patched<float>(ok, 260, kNan)), HasSubstr("is no rotation"));
  EXPECT_THAT(refusal(patched<float>(ok, 272, kNan)), HasSubstr("the affine (qform) holds nan"));
  EXPECT_THAT(refusal(patched<float>(ok, 80, 0.f)), HasSubstr("singular"));
  EXPECT_THAT(refusal(patched<float>(ok, 84, kInf)), HasSubstr("pixdim[2] is inf"));
  EXPECT_THAT(refusal(patched<float>(ok, 76, -kInf)), HasSubstr("pixdim[0], the handedness of the qform, is -inf"));
  load(patched<float>(ok, 84, -2.f));
  EXPECT_THAT(quiet_.notes.back(), HasSubstr("pixdim[2] is negative"));
}

TEST_F(ImageTest, TheQformOfAMadeVolumeIsItsAffine) {
  const Volume v = load(patched<int16_t>(good("nii"), 254, 0));
  for (size_t r = 0; r < 3; ++r)
    for (size_t c = 0; c < 4; ++c) EXPECT_NEAR(v.geometry.affine[r][c], example().geometry.affine[r][c], 1e-5);
}

TEST_F(ImageTest, TurnsMetresAndMicrometresToMillimetresAndSaysSo) {
  EXPECT_EQ(load(patched<uint8_t>(good("nii"), 123, 1)).geometry.affine[0][3], 10500);
  EXPECT_THAT(quiet_.notes.back(), HasSubstr("metres"));
  EXPECT_NEAR(load(patched<uint8_t>(good("nii"), 123, 3)).geometry.affine[2][2], 0.003, 1e-12);
  EXPECT_EQ(load(patched<uint8_t>(good("nii"), 123, 0)).geometry.affine[0][3], 10.5);
}

TEST_F(ImageTest, AppliesASlopeAndKeepsTheTypeWithoutOne) {
  const std::string ok = good("nii");
  EXPECT_EQ(load(patched<float>(ok, 112, 0.f)).dtype, DType::kI16) << "a slope of 0 means none";
  const Volume plain = load(ok), scaled = load(patched<float>(patched<float>(ok, 112, 0.5f), 116, -3.f));
  EXPECT_EQ(scaled.dtype, DType::kF32);
  for (size_t i = 0; i < size_t(plain.size()); ++i) EXPECT_EQ(scaled.as<float>()[i], 0.5f * plain.as<int16_t>()[i] - 3);
}

TEST_F(ImageTest, RefusesExtensionsOfImpossibleSize) {
  std::string bytes = good("nii");
  bytes.insert(352, 32, '\0');
  bytes = patched<float>(patched<uint8_t>(bytes, 348, 1), 108, 384.f);
  for (const int32_t size : {1, 15, 17, -16, 48, 1 << 30})
    EXPECT_THAT(refusal(patched<int32_t>(bytes, 352, size)),
                HasSubstr("extension at byte 352 has size " + std::to_string(size)));
  EXPECT_EQ(load(patched<int32_t>(bytes, 352, 32)).data, example().data);
  EXPECT_EQ(load(bytes).data, example().data) << "zeros are padding";
  EXPECT_EQ(inspect(folder_ / "ok.nii").extensions.size(), 0u);
}

TEST_F(ImageTest, RefusesVoxelsThatBeginWhereTheAnnouncedExtensionsStand) {
  const std::string ok = good("nii"), sloppy = patched<uint8_t>(ok, 348, 1);
  EXPECT_EQ(load(sloppy).data, example().data) << "announced, but not there: nothing is amiss with the voxels";
  std::string bytes = sloppy;
  bytes.insert(352, 32, '\0');  // vox_offset still says 352
  EXPECT_THAT(refusal(bytes), HasSubstr("32 bytes follow the voxels; vox_offset is wrong"));
}

TEST_F(ImageTest, TakesTrailingBytesWithARemark) {
  const std::string ok = good("nii");
  EXPECT_EQ(load(ok + "123").data, example().data);
  EXPECT_EQ(quiet_.notes.back(), "3 bytes follow the voxels and are ignored");
  gzip_to(folder_ / "t.nii.gz", ok + "123");
  EXPECT_EQ(load(slurp(folder_ / "t.nii.gz") + std::string("\x1f\x8a junk"), "t.nii.gz").data, example().data);
  EXPECT_EQ(quiet_.notes.back(), "7 bytes follow the gzip stream and are ignored");
}

TEST_F(ImageTest, ReadsGzipFilesOfSeveralMembers) {
  const std::string ok = good("nii");
  gzip_to(folder_ / "1", ok.substr(0, 200));
  gzip_to(folder_ / "2", ok.substr(200));
  EXPECT_EQ(load(slurp(folder_ / "1") + slurp(folder_ / "2"), "m.nii.gz").data, example().data);
}

TEST_F(ImageTest, RefusesASmallFileThatUnpacksToAHugeTail) {
  gzip_to(folder_ / "bomb.nii.gz", good("nii") + std::string((64 << 20) + 1, '\0'));
  EXPECT_THAT(message_of<IoError>([&] { read_image(folder_ / "bomb.nii.gz"); }), HasSubstr("bytes follow the voxels"));
}

TEST_F(ImageTest, NamesTheSettingWhenAnImageIsLargerThanTheLimit) {
  good("nii");
  ReadOptions options;
  options.max_decoded_bytes = 119;
  EXPECT_THAT(message_of<IoError>([&] { read_image(folder_ / "good.nii", options); }),
              HasSubstr("asks for 120 bytes of voxels, more than the limit of 119; if that is right, set the "
                        "environment variable FOVEA_MAX_DECODED_BYTES"));
  options.max_decoded_bytes = 120;
  EXPECT_NO_THROW(read_image(folder_ / "good.nii", options));
}

uint64_t kilobytes_of(const char* field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(field)) return std::stoull(line.substr(line.find_first_of("0123456789")));
  return 0;
}

TEST_F(ImageTest, MemoryFollowsTheBytesPresentNotThoseDeclared) {
  std::string bytes = good("nii");
  for (const size_t axis : {42, 44, 46}) bytes = patched<int16_t>(bytes, axis, 1600);  // 8 GB of i16
  bytes.resize(377);
  const std::string huge = patched<int16_t>(patched<int16_t>(bytes, 40, 4), 48, 32767);
  gzip_to(folder_ / "g.nii.gz", bytes);
  // So much that cannot be packed, and the ratio alone gives nothing away.
  std::string noise(8 << 20, '\0');
  Rng rng(1, 0, 0);
  for (size_t i = 0; i < noise.size(); i += 4) noise = patched(std::move(noise), i, rng.next_u32());
  gzip_to(folder_ / "n.nii.gz", bytes + noise);
  noise = {};

  spill("/proc/self/clear_refs", "5");  // restarts the count of peak memory
  const uint64_t before = kilobytes_of("VmHWM");
  EXPECT_THAT(refusal(bytes),
              HasSubstr("the voxels need 8192000000 bytes from byte 352 on, found at most 25; the file is truncated"));
  EXPECT_THAT(message_of<IoError>([&] { read_image(folder_ / "g.nii.gz"); }),
              HasSubstr("the voxels need 8192000000 bytes"));
  EXPECT_THAT(refusal(huge), HasSubstr("more than the limit"));
  EXPECT_THAT(message_of<IoError>([&] { read_image(folder_ / "n.nii.gz"); }),
              HasSubstr("8388633; the file is truncated"));
  EXPECT_LT(kilobytes_of("VmHWM"), before + 5 * 8 * 1024) << "at most five times the file";
}

TEST_F(ImageTest, RefusesSizesWhoseProductOverflowsInNifti2) {
  Volume v = example();
  v.geometry.shape = {1, 1, 32768};
  v.data.resize(65536);
  write_image(folder_ / "two.nii", v);
  EXPECT_EQ(inspect(folder_ / "two.nii").format, "nifti2") << "an axis is too long for NIfTI-1";
  std::string bytes = slurp(folder_ / "two.nii");
  EXPECT_EQ(load(bytes).data, v.data);
  EXPECT_THAT(refusal(patched<int64_t>(bytes, 24, (int64_t{1} << 31) + 1)),
              HasSubstr("dim[1] is 2147483649, expected 1 to 2147483648"));
  for (const size_t axis : {24, 32, 40}) bytes = patched<int64_t>(bytes, axis, int64_t{1} << 31);
  EXPECT_THAT(refusal(bytes), HasSubstr("more than any file holds"));
  EXPECT_THAT(refusal(patched<int64_t>(bytes, 16, 200)), HasSubstr("dim[0] is 200"));
  EXPECT_THAT(refusal(patched<int64_t>(slurp(folder_ / "two.nii"), 168, std::numeric_limits<int64_t>::max())),
              HasSubstr("vox_offset"));
}

TEST_F(ImageTest, EveryCutOfAFileIsRefused) {
  Volume v = example(DType::kI16);
  v.geometry.shape = {8, 8, 8};
  v.data.resize(1024);
  for (size_t i = 0; i < v.data.size(); ++i) v.data[i] = std::byte(i * i >> 3);
  for (const char* ending : {"nii", "nii.gz", "nrrd", "raw.nrrd"}) {
    const std::string whole = good(ending, v, std::string_view(ending) == "raw.nrrd" ? 0 : 1);
    const size_t step = std::max<size_t>(1, whole.size() / 500);
    for (size_t cut = 0; cut < whole.size(); cut += step) {
      const std::string name = std::string("cut.") + ending;
      EXPECT_NE(refusal(whole.substr(0, cut), name), "") << ending << " cut at " << cut;
    }
    EXPECT_EQ(load(whole).data, v.data);
  }
}

// Flips 1 to 16 random bits of the header or, when packed, of the whole file.
TEST_F(ImageTest, FlippedBitsGiveAnIoErrorOrAVolumeThatAddsUp) {
  Volume v = example(DType::kI16);
  v.geometry.shape = {8, 8, 8};
  v.data.resize(1024);
  const int rounds = std::getenv("FOVEA_FULL") ? 20'000 : 300;
  for (const char* ending : {"nii", "nii.gz", "nrrd", "raw.nrrd"}) {
    const bool packed = std::string_view(ending) == "nii.gz";
    const std::string whole = good(ending, v, std::string_view(ending) == "raw.nrrd" ? 0 : 1);
    const size_t range = packed ? whole.size() : std::min<size_t>(whole.size(), 400);
    int refused = 0;
    for (int round = 0; round < rounds; ++round) {
      Rng rng(7, 0, uint32_t(round));
      std::string bytes = whole;
      for (uint64_t n = 1 + rng.below(16); n > 0; --n) bytes[rng.below(range)] ^= char(1u << rng.below(8));
      spill(folder_ / "flip", bytes);
      try {
        const Volume got = read_image(folder_ / "flip", quiet_.options());
        EXPECT_EQ(got.data.size(), size_t(got.size()) * size_of(got.dtype));
        if (packed) {
          EXPECT_EQ(got.data, v.data) << "the checksum lets nothing else through";
        }
      } catch (const IoError& e) {
        ++refused;
        EXPECT_EQ(std::string_view(e.what()).find('\n'), std::string_view::npos) << e.what();
      }
    }
    EXPECT_GT(refused, rounds / 5) << ending << ": the rest fell on bytes without meaning";
  }
}

// One to three fields at values that programs choke on.
TEST_F(ImageTest, ExtremeHeaderValuesGiveAnIoErrorOrAVolumeThatAddsUp) {
  const std::string whole = good("nii");
  const int rounds = std::getenv("FOVEA_FULL") ? 20'000 : 1000;
  for (int round = 0; round < rounds; ++round) {
    Rng rng(11, 0, uint32_t(round));
    std::string bytes = whole;
    for (uint64_t n = 1 + rng.below(3); n > 0; --n) {
      constexpr int16_t shorts[] = {-1, 0, 1, 9, 255, 32767, -32768};
      const float floats[] = {kNan, kInf, -kInf, 1e30f, -1e30f, 0.f, 1e-40f, -1.f};
      if (rng.below(2) == 0)
        bytes = patched(bytes, 40 + 2 * (rng.below(17)), shorts[rng.below(7)]);
      else
        bytes = patched(bytes, 76 + 4 * (rng.below(11)), floats[rng.below(8)]);
      if (rng.below(3) == 0) bytes = patched(bytes, 252 + 2 * (rng.below(2)), shorts[rng.below(7)]);
      if (rng.below(3) == 0) bytes = patched(bytes, 256 + 4 * (rng.below(18)), floats[rng.below(8)]);
    }
    spill(folder_ / "extreme.nii", bytes);
    try {
      const Volume got = read_image(folder_ / "extreme.nii", quiet_.options());
      EXPECT_EQ(got.data.size(), size_t(got.size()) * size_of(got.dtype));
      EXPECT_FALSE(got.geometry.is_singular());
      write_image(folder_ / "again.nii", got);
      EXPECT_EQ(read_image(folder_ / "again.nii", quiet_.options()).geometry.affine, got.geometry.affine) << round;
    } catch (const IoError&) {
    }
  }
}

TEST_F(ImageTest, AResultOnTheSourcesGridKeepsTheGridBytesAndAMovedOneDoesNot) {
  std::string source = good("nii");
  source = patched<int16_t>(patched<int16_t>(source, 252, 2), 254, 4);   // codes of our choice
  source = patched<float>(patched<float>(source, 268, 99.f), 92, 2.5f);  // a qform that differs from the sform; TR
  const Volume scan = load(source);
  Volume labels = scan;
  labels.dtype = DType::kU8;
  labels.data.resize(size_t(labels.size()));
  write_image(folder_ / "labels.nii", labels);
  const std::string written = slurp(folder_ / "labels.nii");
  EXPECT_EQ(written.substr(252, 76), source.substr(252, 76)) << "codes, quaternion, offsets, srows";
  EXPECT_EQ(written.substr(76, 16), source.substr(76, 16)) << "pixdim";
  EXPECT_EQ(read_image(folder_ / "labels.nii").geometry.affine, scan.geometry.affine);

  labels.geometry.affine[0][3] += 1;
  write_image(folder_ / "moved.nii", labels);
  const ImageInfo moved = inspect(folder_ / "moved.nii");
  EXPECT_EQ(moved.geometry.affine, labels.geometry.affine);
  EXPECT_EQ(slurp(folder_ / "moved.nii")[254], 1) << "sform_code of a made volume";
}

TEST_F(ImageTest, ReadsBothByteOrders) {
  std::string bytes = good("nii");
  const std::string little = bytes;
  const auto swap = [&](size_t from, size_t count, size_t width) {
    for (size_t i = 0; i < count; ++i)
      std::reverse(bytes.begin() + std::ptrdiff_t(from + i * width),
                   bytes.begin() + std::ptrdiff_t(from + (i + 1) * width));
  };
  swap(0, 1, 4), swap(40, 8, 2), swap(68, 4, 2), swap(76, 11, 4), swap(252, 2, 2), swap(256, 18, 4), swap(352, 60, 2);
  const Volume big = load(bytes);
  EXPECT_EQ(big.data, example().data);
  EXPECT_EQ(big.geometry.affine, example().geometry.affine);
  EXPECT_TRUE(inspect(folder_ / "ok.nii").big_endian);
  write_image(folder_ / "back.nii", big);
  EXPECT_EQ(slurp(folder_ / "back.nii"), little) << "we write little-endian";
}

TEST_F(ImageTest, WhatCannotBeWrittenIsAnArgumentErrorAndLeavesNothing) {
  const auto problem = [&](const std::string& name, const Volume& v, WriteOptions options = {}) {
    return message_of<ArgumentError>([&] { write_image(folder_ / name, v, options); });
  };
  EXPECT_THAT(problem("a.mha", example()), HasSubstr("unknown image ending, expected .nii.gz, .nii or .nrrd"));
  EXPECT_THAT(problem("a.nii", example(DType::kF16)), HasSubstr("NIfTI has no voxel type f16"));
  EXPECT_THAT(problem("a.nrrd", example(DType::kBF16)), HasSubstr("NRRD has no voxel type bf16"));
  Volume v = example();
  v.data.pop_back();
  EXPECT_THAT(problem("a.nii", v), HasSubstr("119 bytes of voxels do not fit 1 channel(s) of 4x3x5 voxels"));
  v = example();
  v.geometry.affine[2] = {0, 0, 0, 0};
  EXPECT_THAT(problem("a.nii.gz", v), HasSubstr("singular"));
  EXPECT_THAT(problem("a.nii.gz", example(), {.compression_level = 0, .label_names = {}}),
              HasSubstr("compression level 0, expected 1 to 9"));
  EXPECT_EQ(folder_.entries(), 0u);
}

class NrrdTest : public ImageTest {
 protected:
  std::string header(const std::string& change_from = "", const std::string& change_to = "") {
    std::string text =
        "NRRD0005\n# made by hand\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 2 3 4\nspace "
        "directions: (1.5,0,0) (0,2,0) (0,0,3)\n"
        "kinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: (-1,2,3)\nMustermann:=Erika\n";
    if (const size_t at = text.find(change_from); !change_from.empty() && at != text.npos)
      text.replace(at, change_from.size(), change_to);
    return text;
  }
  std::string bytes(const std::string& from = "", const std::string& to = "") {
    return header(from, to) + "\n" + std::string(48, '\x05');
  }
  std::string why(const std::string& from, const std::string& to) { return refusal(bytes(from, to), "bad.nrrd"); }
};

TEST_F(NrrdTest, ReadsAHandMadeFileInEachSpace) {
  const Volume ras = load(bytes(), "a.nrrd");
  EXPECT_EQ(ras.geometry.shape, (std::array<int64_t, 3>{4, 3, 2}));
  EXPECT_EQ(ras.geometry.affine, (Affine{{{1.5, 0, 0, -1}, {0, 2, 0, 2}, {0, 0, 3, 3}}}));
  EXPECT_EQ(load(bytes("right-anterior-superior", "LPS"), "a.nrrd").geometry.affine,
            (Affine{{{-1.5, 0, 0, 1}, {0, -2, 0, -2}, {0, 0, 3, 3}}}));
  EXPECT_EQ(load(bytes("right-anterior-superior", "Left-Anterior-Superior"), "a.nrrd").geometry.affine,
            (Affine{{{-1.5, 0, 0, 1}, {0, 2, 0, 2}, {0, 0, 3, 3}}}));
  EXPECT_TRUE(quiet_.notes.empty());
  load(bytes("right-anterior-superior", "scanner-xyz"), "a.nrrd");
  EXPECT_THAT(quiet_.notes.back(), HasSubstr("names no anatomical directions"));
}

TEST_F(NrrdTest, RefusesHeadersThatDoNotAddUp) {
  EXPECT_THAT(why("NRRD0005", "NRRD0006"), HasSubstr("begins with \"NRRD0006\", expected NRRD0001 to NRRD0005"));
  EXPECT_THAT(why("type: short", "type: float3"),
              HasSubstr("field \"type\" is \"float3\", expected an integer type, float or double"));
  EXPECT_THAT(why("type: short\n", ""), HasSubstr("lacks the field \"type\""));
  EXPECT_THAT(why("type: short", "type: short\ntype: int"), HasSubstr("line 4: field \"type\" is there twice"));
  EXPECT_THAT(why("type: short", "tpye: short"), HasSubstr("\"tpye\" is no NRRD field; did you mean \"type\"?"));
  EXPECT_THAT(why("type: short", "Erika Mustermann: short"), HasSubstr("line 3: what stands before the colon is no NRRD field"));
  EXPECT_THAT(why("type: short", "type short"), HasSubstr("line 3 has no colon, expected \"field: value\""));
  EXPECT_THAT(why("dimension: 3", "dimension: 17"), HasSubstr("expected 1 to 16"));
  EXPECT_THAT(why("dimension: 3", "dimension: 4"), HasSubstr("field \"sizes\" is \"2 3 4\", expected 4 numbers"));
  EXPECT_THAT(why("sizes: 2 3 4", "sizes: 2 0 4"), HasSubstr("whole numbers from 1 to 2147483648"));
  EXPECT_THAT(why("sizes: 2 3 4", "sizes: 2 -3 4"), HasSubstr("whole numbers"));
  EXPECT_THAT(why("sizes: 2 3 4", "sizes: 2147483648 2147483648 2147483648"), HasSubstr("more than any file holds"));
  EXPECT_THAT(why("sizes: 2 3 4", "sizes: 99999999999999999999 3 4"), HasSubstr("whole numbers"));
  EXPECT_THAT(why("encoding: raw", "encoding: bzip2"),
              HasSubstr("field \"encoding\" is \"bzip2\", expected raw or gzip"));
  EXPECT_THAT(why("endian: little\n", ""), HasSubstr("lacks the field \"endian\""));
  EXPECT_THAT(why("endian: little", "endian: middle"), HasSubstr("expected little or big"));
  EXPECT_THAT(why("(0,2,0)", "(0,nan,0)"), HasSubstr("three finite numbers"));
  EXPECT_THAT(why("(0,2,0)", "(0,2)"), HasSubstr("three finite numbers"));
  EXPECT_THAT(why("(0,2,0)", "0,2,0"), HasSubstr("vectors like (1,0,0) or none"));
  EXPECT_THAT(why("(0,2,0)", "none"), HasSubstr("expected three axes in space"));
  EXPECT_THAT(why("(0,2,0)", "(1.5,0,0)"), HasSubstr("singular"));
  EXPECT_THAT(why("(-1,2,3)", "(-1,2,inf)"), HasSubstr("finite"));
  EXPECT_THAT(why("right-anterior-superior", "right-up"), HasSubstr("field \"space\" is \"right-up\""));
  EXPECT_THAT(why("domain domain domain", "domain domain"), HasSubstr("3 words, one per axis"));
  EXPECT_THAT(why("encoding: raw", "encoding: raw\nline skip: 3"), HasSubstr("\"line skip\""));
  EXPECT_THAT(why("encoding: raw", "encoding: raw\nbyte skip: 3"), HasSubstr("\"byte skip\""));
  EXPECT_THAT(why("# made by hand", "# " + std::string(70'000, 'x')),
              HasSubstr("line 2 has 70002 bytes, expected at most 65536"));
  EXPECT_THAT(why("# made by hand", std::string("a\0b", 3)), HasSubstr("zero byte"));
  EXPECT_THAT(why("sizes: 2 3 4", "sizes: 2 3 5"), HasSubstr("the voxels need 60 bytes"));
}

TEST_F(NrrdTest, ADetachedFileIsReadFromItsOwnFolderOnly) {
  const auto attempt = [&](const std::string& name) {
    return refusal(header("encoding: raw", "encoding: raw\ndata file: " + name), "a.nhdr");
  };
  spill(folder_ / "voxels.raw", std::string(48, '\x05'));
  std::filesystem::create_directory(folder_ / "sub");
  spill(folder_ / "sub/v.raw", "xx" + std::string(48, '\x06'));
  EXPECT_EQ(load(header("encoding: raw", "encoding: raw\ndata file: voxels.raw"), "a.nhdr").data,
            std::vector(48, std::byte{5}));
  EXPECT_EQ(load(header("encoding: raw", "encoding: raw\ndata file: ./sub/v.raw\nbyte skip: -1"), "a.nhdr").data,
            std::vector(48, std::byte{6}));
  EXPECT_EQ(load(header("encoding: raw", "encoding: raw\ndata file: sub/v.raw\nbyte skip: 2"), "a.nhdr").data,
            std::vector(48, std::byte{6}));
  const TestFolder outside;
  spill(outside / "secret.raw", std::string(48, 's'));
  std::filesystem::create_symlink(outside / "secret.raw", folder_ / "link.raw");
  std::filesystem::create_directory_symlink(outside.path(), folder_ / "dir");
  for (const std::string& name : {std::string("../x"), std::string("sub/../../x"), std::string(".."),
                                  (outside / "secret.raw").string(), std::string("/etc/passwd")})
    EXPECT_THAT(attempt(name), HasSubstr("leaves the folder")) << name;
  EXPECT_THAT(attempt("link.raw"), HasSubstr("is a link that leaves the folder"));
  EXPECT_THAT(attempt("dir/secret.raw"), HasSubstr("is a link that leaves the folder"));
  EXPECT_THAT(attempt("sub"), HasSubstr("is a folder"));
  EXPECT_THAT(attempt("no.raw"), HasSubstr("is not there"));
  EXPECT_THAT(attempt("LIST"), HasSubstr("the name of one file"));
  EXPECT_THAT(attempt("v%03d.raw 1 3 1"), HasSubstr("the name of one file"));
}

TEST_F(NrrdTest, WritingRestoresTheSourcesWordsForTheGridAndDropsTheRest) {
  Volume v = load(bytes("(1.5,0,0)", "(1.50000,0,0.0)"), "a.nrrd");
  write_image(folder_ / "b.nrrd", v, {.compression_level = 0, .label_names = {{1, "liver"}}});
  const std::string text = slurp(folder_ / "b.nrrd");
  EXPECT_THAT(text, HasSubstr("space: right-anterior-superior\n"));
  EXPECT_THAT(text, HasSubstr("space directions: (1.50000,0,0.0) (0,2,0) (0,0,3)\n"));
  EXPECT_THAT(text, HasSubstr("space origin: (-1,2,3)\n"));
  EXPECT_EQ(text.find("Erika"), text.npos);
  EXPECT_EQ(inspect(folder_ / "b.nrrd").label_names, (std::map<int, std::string>{{1, "liver"}}));
  const Volume spaced = load(bytes("space directions: (1.5,0,0) (0,2,0) (0,0,3)", "spacings: 1.250 2 -3"), "a.nrrd");
  write_image(folder_ / "c.nrrd", spaced);
  EXPECT_THAT(slurp(folder_ / "c.nrrd"), HasSubstr("spacings: 1.250 2 -3\n"));
  EXPECT_EQ(read_image(folder_ / "c.nrrd").geometry.affine, spaced.geometry.affine);
}

}  // namespace
}  // namespace fovea::io
