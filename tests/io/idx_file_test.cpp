#include "fovea/io/idx_file.h"

#include <gmock/gmock.h>
#include <zlib.h>

#include "test_folder.h"

namespace fovea::io {
namespace {

using testing::message_of;
using testing::spill;
using testing::TestFolder;
using ::testing::HasSubstr;

const std::string kTwoByThree = std::string("\0\0\x08\x02\0\0\0\x02\0\0\0\x03", 12) + "abcdef";

TEST(IdxFile, ReadsSizesAndBytesPlainAndGzip) {
  const TestFolder folder;
  spill(folder / "plain", kTwoByThree);
  gzFile out = gzopen((folder / "packed.gz").c_str(), "wb");
  gzwrite(out, kTwoByThree.data(), unsigned(kTwoByThree.size()));
  gzclose(out);
  for (const char* name : {"plain", "packed.gz"}) {
    const IdxArray array = read_idx(folder / name);
    EXPECT_EQ(array.shape, (std::vector<int64_t>{2, 3})) << name;
    EXPECT_EQ(testing::view(array.bytes), "abcdef") << name;
  }
}

TEST(IdxFile, RefusesWhatIsNoIdxFileOfBytes) {
  const TestFolder folder;
  const auto refusal = [&](const std::string& bytes) {
    spill(folder / "x", bytes);
    return message_of<IoError>([&] { read_idx(folder / "x"); });
  };
  EXPECT_THAT(refusal("PK\3\4 and more"), HasSubstr("begins with bytes 80 75, expected 0 0 of an IDX file"));
  EXPECT_THAT(refusal(std::string("\0\0\x0d\1\0\0\0\1abcd", 12)), HasSubstr("element type is 13, expected 8"));
  EXPECT_THAT(refusal(std::string("\0\0\x08\0", 4)), HasSubstr("number of axes is 0, expected 1 to 4"));
  EXPECT_THAT(refusal(std::string("\0\0\x08\2\xff\xff\xff\xff\xff\xff\xff\xff", 12)), HasSubstr("more than 2147483648 bytes"));
  EXPECT_THAT(message_of<IoError>([&] { read_idx(folder / "none"); }), HasSubstr("none"));
}

TEST(IdxFile, RefusesEveryTruncationAndAnyTail) {
  const TestFolder folder;
  for (size_t n = 0; n < kTwoByThree.size(); ++n) {
    spill(folder / "short", kTwoByThree.substr(0, n));
    EXPECT_NE(message_of<IoError>([&] { read_idx(folder / "short"); }), "") << n;
  }
  spill(folder / "long", kTwoByThree + "g");
  EXPECT_NE(message_of<IoError>([&] { read_idx(folder / "long"); }), "");
}

TEST(IdxFile, APromiseOfTwoGigabytesInAShortFileIsRefusedBeforeTheMemoryIsTaken) {
  const TestFolder folder;
  spill(folder / "lie", std::string("\0\0\x08\1\x7f\xff\xff\xff", 8) + "few");
  EXPECT_NE(message_of<IoError>([&] { read_idx(folder / "lie"); }), "");
}

}  // namespace
}  // namespace fovea::io
