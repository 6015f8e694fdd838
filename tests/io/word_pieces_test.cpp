#include "fovea/io/word_pieces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fovea/core/error.h"
#include "tests/io/test_folder.h"

namespace fovea::io {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kVocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nnod\n##ule\nin\nlung\n##s\n右\n肺\n.\n";

WordPieces small(testing::TestFolder& folder) {
  testing::spill(folder / "vocab.txt", kVocabulary);
  return WordPieces::read(folder / "vocab.txt");
}

TEST(SplitWords, LowersStripsAccentsAndSetsPunctuationAndChineseApart) {
  EXPECT_THAT(split_words("Rundherd, 8 mm im ÄPEX:\t右肺上叶 (v2)"),
              ElementsAre("rundherd", ",", "8", "mm", "im", "apex", ":", "右", "肺", "上", "叶", "(", "v2", ")"));
  EXPECT_THAT(split_words("naïve e\u0301 ÅNGSTRÖM"), ElementsAre("naive", "e", "angstrom"));
  EXPECT_THAT(split_words("右肺上叶见8毫米结节。"),
              ElementsAre("右", "肺", "上", "叶", "见", "8", "毫", "米", "结", "节", "。"));
}

TEST(SplitWords, DropsControlCharactersAndKeepsNothingOfBlankText) {
  EXPECT_THAT(split_words(std::string("a\0b\x01" "c\u200b" "d\r\ne\ufffd", 15)), ElementsAre("abcd", "e"));
  EXPECT_THAT(split_words(" \t\n\u3000"), IsEmpty());
  EXPECT_THAT(split_words(""), IsEmpty());
}

TEST(SplitWords, RefusesWhatIsNotUtf8AndNamesTheByte) {
  for (const char* bad : {"lung \xE8\x82", "lung \xFF", "lung \xC0\x80", "lung \xED\xA0\x80"})
    EXPECT_THAT(testing::message_of<ArgumentError>([&] { split_words(bad); }),
                HasSubstr("word_pieces: byte 5 of the text (0x"));
}

TEST(WordPieces, TakesTheLongestPieceFirst) {
  testing::TestFolder folder;
  const WordPieces words = small(folder);
  EXPECT_THAT(words.pieces("Nodules in LUNGS."), ElementsAre("nod", "##ule", "##s", "in", "lung", "##s", "."));
  EXPECT_THAT(words.encode("右肺 in"), ElementsAre(2, 9, 10, 6, 3));
  // No piece "##x": the whole word is unknown, not its rest.
  EXPECT_THAT(words.pieces("nodx lungs"), ElementsAre("[UNK]", "lung", "##s"));
  EXPECT_THAT(words.pieces(std::string(101, 's')), ElementsAre("[UNK]"));
}

TEST(WordPieces, SayNothingOfAnEmptyTextAndUnknownOfAnotherScript) {
  testing::TestFolder folder;
  const WordPieces words = small(folder);
  EXPECT_THAT(words.encode(""), ElementsAre(2, 3));
  EXPECT_THAT(words.pieces("узел в лёгком"), ElementsAre("[UNK]", "[UNK]", "[UNK]"));
  EXPECT_THAT(words.pieces("[SEP]"), ElementsAre("[UNK]", "[UNK]", "[UNK]"));  // a report cannot end itself
}

TEST(WordPieces, CutLongTextAndKeepTheEndMark) {
  testing::TestFolder folder;
  const WordPieces words = small(folder);
  EXPECT_THAT(words.encode("in in in in", 4), ElementsAre(2, 6, 6, 3));
  EXPECT_THAT(words.encode("in", 2), ElementsAre(2, 3));
  EXPECT_THAT(testing::message_of<ArgumentError>([&] { words.encode("in", 1); }), HasSubstr("expected 2 or more"));
}

TEST(WordPieces, BuildAVocabularyInWhichEveryTextIsKnownAndReadItBack) {
  const std::vector<std::string> texts = {"Nodule in the right upper lobe.", "右肺上叶见结节。", "the nodule"};
  const WordPieces made = WordPieces::from_texts(texts);
  for (const auto& text : texts)
    EXPECT_THAT(made.pieces(text), ElementsAreArray(split_words(text))) << "every word is a piece";
  EXPECT_THAT(made.pieces("node"), ElementsAre("n", "##o", "##d", "##e"));
  EXPECT_THAT(made.pieces("左"), ElementsAre("[UNK]"));
  testing::TestFolder folder;
  made.write(folder / "vocab.txt");
  const WordPieces read = WordPieces::read(folder / "vocab.txt");
  EXPECT_EQ(read.size(), made.size());
  EXPECT_EQ(read.encode(texts[1]), made.encode(texts[1]));
}

TEST(WordPieces, RefuseABadVocabularyInOneLine) {
  testing::TestFolder folder;
  const auto refusal = [&](const std::string& text) {
    testing::spill(folder / "v.txt", text);
    return testing::message_of<IoError>([&] { WordPieces::read(folder / "v.txt"); });
  };
  EXPECT_THAT(refusal("[PAD]\n[UNK]\n[CLS]\na\n"), HasSubstr("v.txt: no [SEP] among the 4 lines"));
  EXPECT_THAT(refusal(std::string(kVocabulary) + "lung\n"), HasSubstr("'lung' stands on line 8 and again on line 13"));
  EXPECT_THAT(refusal("[PAD]\n\n[UNK]\n"), HasSubstr("line 2 is empty"));
  EXPECT_THAT(refusal("[PAD]\n\xFF\n"), HasSubstr("byte 6 (0xFF) is not UTF-8"));
  EXPECT_THAT(testing::message_of<IoError>([&] { WordPieces::read(folder / "none.txt"); }), HasSubstr("none.txt"));
}

}  // namespace
}  // namespace fovea::io
