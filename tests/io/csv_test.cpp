#include "fovea/io/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "fovea/core/error.h"
#include "fovea/io/data_folder.h"
#include "tests/io/test_folder.h"

namespace fovea::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string refusal(const std::string& text) {
  return testing::message_of<IoError>([&] { parse_csv(text, "t.csv"); });
}

TEST(Csv, ACellIsReadBackAsItWasWritten) {
  for (const std::string cell : {"plain", "a,b", "\"quoted\"", "two\nlines", ""}) {
    const auto table = parse_csv("a,b\n" + csv_cell(cell) + ",x\n", "t.csv");
    EXPECT_EQ(table.cell(0, 0), cell);
  }
}

TEST(Csv, ReadsNamesCellsAndNumbers) {
  const CsvTable t = parse_csv("\xEF\xBB\xBFname,value\r\na,1.5\r\n\r\n\"b, \"\"c\"\"\",-2e3\nd,\ne,NA", "t.csv");
  EXPECT_THAT(t.columns(), ElementsAre("name", "value"));
  ASSERT_EQ(t.rows(), 4u);
  EXPECT_EQ(t.cell(1, 0), "b, \"c\"");
  const auto v = t.numbers(t.column("value"));
  EXPECT_EQ(v[0], 1.5);
  EXPECT_EQ(v[1], -2000);
  EXPECT_TRUE(std::isnan(v[2]) && std::isnan(v[3]));
}

TEST(Csv, RefusesWithTheLine) {
  EXPECT_THAT(refusal(""), HasSubstr("t.csv: expected a line of column names"));
  EXPECT_THAT(refusal("a,a\n1,2\n"), HasSubstr("line 1: two columns are called 'a'"));
  EXPECT_THAT(refusal("a,b\n1,2\n3\n"), HasSubstr("line 3: found 1 cells, expected 2"));
  EXPECT_THAT(refusal("a,b\n1,\"x\ny"), HasSubstr("line 2: a quote is opened and not closed"));
  EXPECT_THAT(refusal("a,b\n1,\"x\"y\n"), HasSubstr("line 2: text after a closing quote"));
  EXPECT_THAT(refusal("a,b\nM\xfcller,2\n"), HasSubstr("line 2: byte 5 is not UTF-8; save the table as UTF-8"));
  EXPECT_THAT(refusal(std::string(10'000, ',') + "\n"), HasSubstr("10001 columns, expected at most 10000"));
}

TEST(Csv, NamesCellAndColumnThatAreWrong) {
  const CsvTable t = parse_csv("a,b\n\"1\n\",2\nx,3\n", "t.csv");
  EXPECT_EQ(t.numbers(1)[1], 3);
  // A line end within quotes is part of no number.
  EXPECT_THAT(testing::message_of<IoError>([&] { t.numbers(0); }), HasSubstr("line 2, column a"));
  EXPECT_THAT(testing::message_of<IoError>([&] { t.column("c"); }), HasSubstr("no column 'c'; there are a, b"));
}

TEST(Csv, ColumnsAreToldFromTheFirstLineWhateverFollows) {
  const testing::TestFolder folder;
  const auto columns = [&](const std::string& text) {
    testing::spill(folder / "t.csv", text);
    return csv_columns(folder / "t.csv");
  };
  EXPECT_THAT(columns("\n\"a,\n1\",b\n1,2\n3\n"), ElementsAre("a,\n1", "b"));
  EXPECT_THAT(columns("a,b"), ElementsAre("a", "b"));
  EXPECT_THAT(columns(""), ::testing::IsEmpty());
  EXPECT_THAT(columns("a,\"b\n"), ::testing::IsEmpty());
  EXPECT_THAT(csv_columns(folder / "none.csv"), ::testing::IsEmpty());
  EXPECT_THAT(csv_columns(folder.path()), ::testing::IsEmpty());
}

TEST(DataFolder, IsTheOneNamedAndFindsWhatIsThere) {
  const testing::TestFolder folder;
  testing::spill(folder / "air.csv", "x\n");
  setenv("FOVEA_DATA", folder.path().c_str(), 1);
  EXPECT_EQ(find_data("air.csv"), folder / "air.csv");
  EXPECT_FALSE(find_data("wind.csv").has_value());
  unsetenv("FOVEA_DATA");
  setenv("XDG_DATA_HOME", "/nowhere", 1);
  EXPECT_EQ(data_folder(), "/nowhere/fovea");
  unsetenv("XDG_DATA_HOME");
}

}  // namespace
}  // namespace fovea::io
