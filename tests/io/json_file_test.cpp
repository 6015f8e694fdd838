#include "fovea/io/json_file.h"

#include <gmock/gmock.h>

#include "tests/io/test_folder.h"

namespace fovea::io {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using ::testing::StartsWith;
using testing::TestFolder;

std::string why(std::string_view text) {
  return message_of<ArgumentError>([&] { parse_json(text, "c.json"); });
}

TEST(JsonFile, AllowsCommentsAndKeepsTheOrderOfKeys) {
  EXPECT_EQ(parse_json("// top\n{\"b\": 1, // one\n \"a\": [true, null, -2, 1.5, \"x\"] /* two */}", "x").dump(),
            R"({"b":1,"a":[true,null,-2,1.5,"x"]})");
}

TEST(JsonFile, NamesLineAndColumnOfASyntaxError) {
  EXPECT_THAT(why("{\n  \"a\": 1,\n  \"b\" 2\n}"), StartsWith("c.json: line 3, column 7: "));
  EXPECT_THAT(why(""), StartsWith("c.json: line 1, column 1: "));
  EXPECT_THAT(why("{} x"), StartsWith("c.json: line 1, column 4: "));
  EXPECT_THAT(why("[1,]"), StartsWith("c.json: line 1, column 4: "));
}

TEST(JsonFile, RefusesAKeyThatIsThereTwice) {
  EXPECT_EQ(why("{\"a\": 1,\n \"b\": {\"a\": 2},\n \"a\": 3}"), "c.json: line 3, column 5: key \"a\" is there twice");
}

TEST(JsonFile, AWholeNumberIsNoOtherNumber) {
  EXPECT_EQ(whole_number(parse_json("-7", "x")), -7);
  EXPECT_EQ(whole_number(parse_json("9223372036854775807", "x")), INT64_MAX);
  for (const char* text : {"2.5", "1e3", "26009999999999999999", "\"7\"", "null", "[7]"})
    EXPECT_THROW(whole_number(parse_json(text, "x")), Json::type_error) << text;
}

TEST(JsonFile, RefusesNestingDeeperThan32AndTakes32) {
  EXPECT_NO_THROW(parse_json(std::string(32, '[') + std::string(32, ']'), "x"));
  EXPECT_EQ(why(std::string(33, '[') + std::string(33, ']')),
            "c.json: line 1, column 34: nested deeper than 32 levels");
  EXPECT_THAT(why(std::string(1'000'000, '[')), HasSubstr("nested deeper"));
}

TEST(JsonFile, RefusesBytesThatAreNotUtf8InStringsAndInComments) {
  EXPECT_EQ(why("{\"a\": \"\xff\"}"), "c.json: line 1, column 8: byte 7 is not UTF-8");
  EXPECT_THAT(why("// \xc0\xaf\n{}"), HasSubstr("byte 3 is not UTF-8"));
  EXPECT_EQ(invalid_utf8("\xed\xa0\x80"), 0u) << "a surrogate";
  EXPECT_EQ(invalid_utf8("\xf4\x90\x80\x80"), 0u) << "above U+10FFFF";
  EXPECT_EQ(invalid_utf8("a\xe2\x82"), 1u) << "cut short";
  EXPECT_EQ(invalid_utf8("\xe2\x82\xac \xf0\x9f\xa7\xa0 z\xc3\xbc"), std::string_view::npos);
}

TEST(JsonFile, TakesAnObjectOfManyKeysInTimeLinearInItsSize) {
  std::string text = "{";
  for (int i = 0; i < 100'000; ++i) text += (i ? ",\"" : "\"") + std::to_string(i) + "\":" + std::to_string(i);
  EXPECT_EQ(parse_json(text + "}", "x").size(), 100'000u);
}

TEST(JsonFile, WritesWhatItReads) {
  const TestFolder folder;
  const Json json =
      parse_json(R"({"z": 0.1, "name": "Größe \"x\"", "n": [1, 18446744073709551615, -9223372036854775808]})", "x");
  write_json(folder / "a.json", json);
  EXPECT_EQ(read_json(folder / "a.json"), json);
  EXPECT_EQ(testing::slurp(folder / "a.json").back(), '\n');
  EXPECT_EQ(folder.entries(), 1u);
}

TEST(JsonFile, SaysWhichFileIsMissingBrokenOrAFolder) {
  const TestFolder folder;
  testing::spill(folder / "a.json", "{");
  EXPECT_THAT(message_of<IoError>([&] { read_json(folder / "a.json"); }), HasSubstr("a.json: line 1, column 2: "));
  EXPECT_THAT(message_of<IoError>([&] { read_json(folder / "no.json"); }), HasSubstr("no.json: no such file"));
  EXPECT_THAT(message_of<IoError>([&] { read_json(folder.path()); }), HasSubstr("is a folder"));
}

}  // namespace
}  // namespace fovea::io
