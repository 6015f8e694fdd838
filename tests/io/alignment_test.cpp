#include "fovea/io/alignment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fovea/core/rng.h"
#include "tests/io/test_folder.h"

namespace fovea::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class AlignmentFile : public ::testing::Test {
 protected:
  std::filesystem::path write(const std::string& text, const std::string& name = "family.txt") {
    const auto path = folder / name;
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  std::string refusal(const std::string& text, const std::string& name = "family.txt") {
    const auto path = write(text, name);
    return testing::message_of<IoError>([&] { read_alignment(path); });
  }
  testing::TestFolder folder;
};

std::string letters(const Alignment& a, int64_t n) {
  std::string text;
  for (int64_t i = 0; i < a.columns; ++i) text += kResidues[a.row(n)[i]];
  return text;
}

TEST_F(AlignmentFile, ReadsFastaOverSeveralLinesWithGapsAndForeignLetters) {
  const auto a = read_alignment(write("; a remark\n>one first of two\r\nACD-\r\nefg\r\n>two\nAXB.\nWY~*\n"));
  EXPECT_EQ(a.format, "fasta");
  EXPECT_THAT(a.names, ElementsAre("one", "two"));
  EXPECT_EQ(letters(a, 0), "ACD-EFG");
  EXPECT_EQ(letters(a, 1), "AXX-WY-");
}

TEST_F(AlignmentFile, LeavesOutTheInsertionsOfA3m) {
  const std::string text = ">query\nACDE\n>hit\nAccC-dE\n>other\n.A-DE\n";
  for (const char* name : {"family.a3m", "family.fasta"}) {
    const auto a = read_alignment(write(text, name));
    EXPECT_EQ(a.format, "a3m") << "lengths agree only without insertions";
    EXPECT_EQ(letters(a, 1), "AC-E");
    EXPECT_EQ(letters(a, 2), "A-DE");
    EXPECT_THAT(a.notes, ElementsAre("4 inserted residues are left out"));
  }
}

TEST_F(AlignmentFile, PutsTheBlocksOfStockholmAndClustalTogether) {
  const auto s = read_alignment(write("# STOCKHOLM 1.0\n#=GF ID x\n\none/1-4  ACD\ntwo/1-4  a-d\n#=GR two SS HHH\n\none/1-4  EF\ntwo/1-4  .F\n//\n# STOCKHOLM 1.0\n"));
  EXPECT_EQ(s.format, "stockholm");
  EXPECT_EQ(letters(s, 0), "ACDEF");
  EXPECT_EQ(letters(s, 1), "A-D-F");
  EXPECT_EQ(s.notes.size(), 1u);
  const auto c = read_alignment(write("CLUSTAL W (1.83) multiple sequence alignment\n\none   ACD 3\ntwo   A-D 2\n      * *\n\none   EF 5\ntwo   EF 4\n      **\n"));
  EXPECT_EQ(c.format, "clustal");
  EXPECT_EQ(letters(c, 1), "A-DEF");
}

TEST_F(AlignmentFile, SaysInOneLineWhatIsWrongAndWhere) {
  EXPECT_THAT(refusal(">a\nACDE\n>b\nACD\n"), HasSubstr("sequence 2 (\"b\") has 3 columns, expected 4"));
  EXPECT_THAT(refusal(">a\nACDE\n>b\nACd\n", "x.a3m"), HasSubstr("2 columns without insertions, expected 4"));
  EXPECT_THAT(refusal(">a\nAC1E\n"), HasSubstr("line 2, column 3: '1' is no residue"));
  EXPECT_THAT(refusal(">a\n>b\nAC\n"), HasSubstr("sequence 1 (\"a\") is empty"));
  EXPECT_THAT(refusal(""), HasSubstr("is empty"));
  EXPECT_THAT(refusal("hello\n"), HasSubstr("begins with \"hello\""));
  EXPECT_THAT(refusal("# STOCKHOLM 1.0\na ACD\n"), HasSubstr("ends without \"//\""));
  EXPECT_THAT(refusal("# STOCKHOLM 1.0\na ACD\nb AC\n//\n"), HasSubstr("sequence 2 (\"b\") has 2 columns"));
  EXPECT_THAT(refusal("CLUSTAL\n\nname\n"), HasSubstr("line 3: a name without residues"));
  EXPECT_THAT(refusal(std::string(">a\nA\0C\n", 7)), HasSubstr("line 2, column 2 is a NUL byte"));
  EXPECT_THAT(refusal(">" + std::string(70, 'n') + "\nA\n>b\nAC\n"), HasSubstr("sequence 2"));
}

TEST_F(AlignmentFile, NoCutOrFlippedByteBringsItDown) {
  const std::string whole = "# STOCKHOLM 1.0\none ACDEFG\ntwo AC-EFG\n\none HIK\ntwo HIK\n//\n";
  for (size_t cut = 0; cut + 3 < whole.size(); ++cut) EXPECT_NE(refusal(whole.substr(0, cut)), "") << cut;
  Rng rng(1, 0, 0);
  for (int i = 0; i < 300; ++i) {
    std::string text = i % 2 ? whole : ">one\nACDEFG\n>two\nAC-EfG\n";
    for (int k = 0; k < 3; ++k) text[rng.below(text.size())] ^= char(1 << rng.below(8));
    try {
      const auto a = read_alignment(write(text));
      EXPECT_EQ(a.residues.size(), size_t(a.rows() * a.columns));
    } catch (const IoError& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
}

TEST_F(AlignmentFile, ReadsRealFamilies) {
  const std::filesystem::path data = std::filesystem::path(FOVEA_SOURCE_DIR) / "../shared/data/ardca-msa/PF13354";
  if (!std::filesystem::exists(data)) GTEST_SKIP() << "the example alignments are not here";
  for (const auto& entry : std::filesystem::directory_iterator(data)) {
    if (entry.path().string().find(".fasta.gz") == std::string::npos) continue;
    const auto a = read_alignment(entry.path());
    EXPECT_EQ(a.rows(), 7515);
    EXPECT_EQ(a.columns, 202);
  }
}

}  // namespace
}  // namespace fovea::io
