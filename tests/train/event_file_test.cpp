#include "fovea/train/event_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "fovea/core/error.h"

namespace fovea::train {
namespace {

namespace fs = std::filesystem;

struct EventFolder : testing::Test {
  fs::path folder = fs::path(testing::TempDir()) /
                    ("fovea_events_" + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) + "_" +
                     ::testing::UnitTest::GetInstance()->current_test_info()->name());
  EventFolder() { fs::remove_all(folder), fs::create_directories(folder); }
  ~EventFolder() override { fs::remove_all(folder); }
};

std::string content_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(EventFile, ChecksumGivesThePublishedAnswers) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);            // the check value of CRC-32C
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
}

TEST_F(EventFolder, RecordsAreFramedByLengthAndTwoChecksums) {
  EventFile events(folder);
  events.add_scalar("loss", 300, 0.5);
  events.flush();
  const std::string bytes = content_of(events.path());
  std::vector<std::string> records;
  for (size_t at = 0; at < bytes.size();) {
    uint64_t length;
    std::memcpy(&length, bytes.data() + at, 8);
    ASSERT_LE(at + length + 16, bytes.size());
    const auto masked = [](std::string_view s) {
      const uint32_t c = crc32c(s);
      return uint32_t((c >> 15 | c << 17) + 0xa282ead8u);
    };
    uint32_t check;
    std::memcpy(&check, bytes.data() + at + 8, 4);
    EXPECT_EQ(check, masked({bytes.data() + at, 8}));
    records.emplace_back(bytes, at + 12, length);
    std::memcpy(&check, bytes.data() + at + 12 + length, 4);
    EXPECT_EQ(check, masked(records.back()));
    at += 16 + length;
  }
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].substr(9),
            "\x1a\x0d"
            "brain.Event:2");
  // step 300 as varint; summary { value { tag "loss", simple_value 0.5 } }
  EXPECT_EQ(records[1].substr(9), std::string("\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f", 18));
}

TEST_F(EventFolder, LaterFilesSortBehindOlderOnesEvenWithinOneSecondOrAfterAClockJump) {
  std::ofstream(folder / "events.out.tfevents.9000000000.fovea") << "";
  const EventFile a(folder), b(folder);
  EXPECT_LT(folder / "events.out.tfevents.9000000000.fovea", a.path());
  EXPECT_LT(a.path(), b.path());
}

TEST_F(EventFolder, MissingFolderIsNamed) {
  try {
    EventFile events(folder / "nowhere");
    FAIL();
  } catch (const IoError& error) {
    EXPECT_NE(std::string(error.what()).find("nowhere: is no folder"), std::string::npos);
  }
}

}  // namespace
}  // namespace fovea::train
