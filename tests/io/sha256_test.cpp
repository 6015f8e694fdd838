#include "fovea/io/sha256.h"

#include "tests/io/test_folder.h"

namespace fovea::io {
namespace {

std::string digest(std::string_view text) { return sha256_hex(std::as_bytes(std::span(text))); }

TEST(Sha256, MatchesThePublishedExamplesOfFips180) {
  EXPECT_EQ(digest(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, OfAFileEqualsThatOfItsBytesAcrossPieces) {
  const testing::TestFolder folder;
  for (const size_t n : {size_t{0}, size_t{1}, (size_t{1} << 20) - 1, size_t{1} << 20, (size_t{1} << 20) + 1}) {
    std::string bytes(n, '\0');
    for (size_t i = 0; i < n; ++i) bytes[i] = char(i * 31 >> 3);
    testing::spill(folder / "f", bytes);
    EXPECT_EQ(sha256_file(folder / "f"), digest(bytes)) << n;
  }
}

}  // namespace
}  // namespace fovea::io
