#include "fovea/io/label_table.h"

#include <gtest/gtest.h>

namespace fovea::io {
namespace {

using Names = std::map<int, std::string>;

TEST(LabelTable, ReadsBackEveryNameItWrote) {
  const Names names{{-1, "minus"},     {0, ""}, {1, "spleen"}, {2, "a ]]> b"}, {3, "]]>"}, {4, "x < y & \"z\" 'q'"},
                    {70'000, "größer"}};
  EXPECT_EQ(parse_label_table(label_table_xml(names)), names);
  EXPECT_EQ(label_table_xml(names), label_table_xml(names));
}

TEST(LabelTable, ReadsEscapedTextOtherOrdersOfAttributesAndLayout) {
  EXPECT_EQ(parse_label_table("<LabelTable>\n <Label Red=\"1\" Key='12'>a &lt;b&gt; &amp;amp;</Label> <Label Key = "
                              "\"3\"\n>\n  <![CDATA[c]]>\n </Label></LabelTable>"),
            (Names{{12, "a <b> &amp;"}, {3, "c"}}));
}

TEST(LabelTable, PassesOverWhatIsNoLabel) {
  for (const char* text :
       {"", "<Label", "<Label ", "<Label Key=", "<Label Key=\"", "<Label Key=\"1", "<Label Key=\"x\">a</Label>",
        "<LabelTable></LabelTable>", "<Label Key=\"1\"/>", "<Label Key=\"99999999999\">a</Label>",
        "<Label Red=\"1\">a</Label>", "<Label Key=\"1\"><![CDATA[never closed"})
    EXPECT_EQ(parse_label_table(text), Names{}) << text;
}

}  // namespace
}  // namespace fovea::io
