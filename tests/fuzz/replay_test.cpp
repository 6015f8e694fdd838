// Every file of tests/fuzz/corpus through its target: seeds, and each input that once broke a parser.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <set>

#include "tests/fuzz/target.h"

namespace fovea::fuzz {
namespace {

namespace fs = std::filesystem;

const fs::path kCorpus = fs::path(FOVEA_SOURCE_DIR) / "tests/fuzz/corpus";

std::vector<std::byte> bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const Bytes bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

class FuzzCorpus : public testing::TestWithParam<size_t> {};

TEST_P(FuzzCorpus, IsRefusedInOneLineOrReadWithoutAFinding) {
  const Target target = targets()[GetParam()];
  int files = 0;
  for (const auto& entry : fs::directory_iterator(kCorpus / target.name)) {
    SCOPED_TRACE(entry.path().filename().string());
    const std::vector<std::byte> input = bytes_of(entry.path());
    EXPECT_NO_THROW(target.run(input));
    // What each seed becomes with its end cut off and with single bits flipped: a little of what the fuzzer does at length.
    for (size_t cut = 0; cut < 16; ++cut) EXPECT_NO_THROW(target.run(Bytes(input).first(input.size() * cut / 16)));
    for (size_t flip = 0; flip < 64 && !input.empty(); ++flip) {
      std::vector<std::byte> bad = input;
      bad[(flip * 2654435761u) % bad.size()] ^= std::byte(1 << flip % 8);
      EXPECT_NO_THROW(target.run(bad)) << "flip " << flip;
    }
    ++files;
  }
  EXPECT_GT(files, 0) << "no corpus in " << kCorpus / target.name;
}

INSTANTIATE_TEST_SUITE_P(All, FuzzCorpus, testing::Range(size_t{0}, targets().size()), [](const auto& info) { return std::string(targets()[info.param].name); });

}  // namespace
}  // namespace fovea::fuzz
