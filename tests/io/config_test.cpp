#include "fovea/io/config.h"

#include <gmock/gmock.h>

#include <limits>

#include "tests/io/test_folder.h"

namespace fovea::io {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::TestFolder;

enum class Blend { kConstant, kGaussian };
[[maybe_unused]] auto config_names(Blend) {
  return std::array{std::pair{Blend::kConstant, "constant"}, std::pair{Blend::kGaussian, "gaussian"}};
}

struct Optimizer {
  double learning_rate = 1e-3;
  float momentum = 0.1f;
  template <class V>
  void visit(V& v) {
    v("learning_rate", learning_rate, "step size at the start");
    v("momentum", momentum, "share of the last step");
  }
  void validate() const {
    if (learning_rate <= 0)
      throw ArgumentError("learning_rate is " + std::to_string(learning_rate) + ", expected more than 0");
  }
};

struct Everything {
  bool flag = true;
  int8_t tiny = -3;
  uint64_t large = std::numeric_limits<uint64_t>::max();
  std::string name = "swin";
  std::filesystem::path folder = "runs/a";
  std::array<int, 3> roi{96, 96, 64};
  std::vector<double> weights{0.5, 1};
  std::map<std::string, int> labels{{"liver", 1}, {"spleen", 2}};
  std::optional<float> mask_value;
  Blend blend = Blend::kGaussian;
  Optimizer optimizer;
  std::vector<Optimizer> stages{Optimizer{}};
  template <class V>
  void visit(V& v) {
    v("flag", flag, "a switch");
    v("tiny", tiny, "a small number");
    v("large", large, "a large number");
    v("name", name, "the network");
    v("folder", folder, "where results go");
    v("roi", roi, "voxels of a tile (z, y, x)");
    v("weights", weights, "one per class");
    v("labels", labels, "name to value");
    v("mask_value", mask_value, "null: true exclusion");
    v("blend", blend, "how tiles are weighted");
    v("optimizer", optimizer, "");
    v("stages", stages, "one after the other");
  }
};

Everything changed() {
  Everything c;
  c.flag = false, c.tiny = 7, c.large = 1, c.name = "a \"b\" \n c", c.folder = "x y", c.roi = {1, 2, 3}, c.weights = {},
  c.labels = {};
  c.mask_value = -100.f, c.blend = Blend::kConstant, c.optimizer.learning_rate = 0.25, c.stages.clear();
  return c;
}

std::string why(const std::string& text) {
  return message_of<ArgumentError>([&] { from_json<Everything>(parse_json(text, "c.json"), "c.json"); });
}

TEST(Config, SurvivesTheWayToJsonAndBackWithEveryMemberType) {
  for (const Everything& c : {Everything{}, changed()}) {
    const Json json = to_json(c);
    EXPECT_EQ(to_json(from_json<Everything>(parse_json(json.dump(), "x"), "x")), json);
  }
  EXPECT_EQ(to_json(changed())["mask_value"].dump(), "-100.0");
  EXPECT_EQ(to_json(Everything{})["mask_value"].dump(), "null");
}

TEST(Config, WritesAFloatWithItsShortestDecimals) { EXPECT_EQ(to_json(Optimizer{})["momentum"].dump(), "0.1"); }

TEST(Config, KeepsDefaultsForKeysThatTheFileLeavesOut) {
  const auto c = from_json<Everything>(parse_json(R"({"optimizer": {"learning_rate": 2}})", "x"), "x");
  EXPECT_EQ(c.optimizer.learning_rate, 2);
  EXPECT_EQ(c.optimizer.momentum, 0.1f);
  EXPECT_EQ(c.name, "swin");
}

TEST(Config, NamesTheNearestKnownKeyAndThePlaceOfAnUnknownOne) {
  EXPECT_EQ(why(R"({"optimizer": {"lerning_rate": 1}})"),
            "c.json: optimizer.lerning_rate: unknown key; did you mean \"learning_rate\"?");
  EXPECT_EQ(why(R"({"stages": [{"zzzzzzzzzzz": 1}]})"),
            "c.json: stages.0.zzzzzzzzzzz: unknown key; known keys: learning_rate momentum");
}

TEST(Config, SaysWhatTypeItExpectedAndWhatItFound) {
  EXPECT_EQ(why(R"({"flag": 1})"), "c.json: flag: expected true or false, found the number 1");
  EXPECT_EQ(why(R"({"tiny": 128})"), "c.json: tiny: expected an integer from -128 to 127, found the number 128");
  EXPECT_EQ(why(R"({"tiny": 1.5})"), "c.json: tiny: expected an integer from -128 to 127, found the number 1.5");
  EXPECT_THAT(why(R"({"large": -1})"),
              HasSubstr("expected an integer from 0 to 18446744073709551615, found the number -1"));
  EXPECT_EQ(why(R"({"name": null})"), "c.json: name: expected a string, found null");
  EXPECT_EQ(why(R"({"roi": [1, 2]})"), "c.json: roi: expected a list of 3, found a list of 2, [1,2]");
  EXPECT_EQ(why(R"({"weights": [1, "a"]})"), "c.json: weights.1: expected a number, found the string \"a\"");
  EXPECT_EQ(why(R"({"labels": [1]})"), "c.json: labels: expected an object {...}, found a list of 1, [1]");
  EXPECT_EQ(why(R"({"blend": "gauss"})"),
            "c.json: blend: expected one of \"constant\", \"gaussian\", found the string \"gauss\"");
  EXPECT_EQ(why(R"({"optimizer": {"momentum": 1e300}})"),
            "c.json: optimizer.momentum: expected a finite number that fits, found the number 1e+300");
  EXPECT_EQ(why("[]"), "c.json: expected an object {...}, found a list of 0, []");
}

TEST(Config, AsksTheStructItselfWhetherItsValuesMakeSense) {
  EXPECT_THAT(why(R"({"optimizer": {"learning_rate": -1}})"), HasSubstr("learning_rate is -1"));
}

TEST(Config, PrintsItsCommentsInAFormThatReadsBack) {
  for (const Everything& c : {Everything{}, changed()}) {
    const std::string text = print_with_comments(c);
    EXPECT_THAT(text, HasSubstr("  // voxels of a tile (z, y, x)\n  \"roi\": ["));
    EXPECT_THAT(text, HasSubstr("    // step size at the start\n    \"learning_rate\": "));
    EXPECT_EQ(to_json(from_json<Everything>(parse_json(text, "printed"), "printed")), to_json(c)) << text;
  }
}

TEST(Config, OverridesTakeJsonOrABareString) {
  Json json = to_json(Everything{});
  for (const char* assignment : {"optimizer.learning_rate=1e-2", "name=swin_unetr", "roi=[8,8,16]", "roi.1=4",
                                 "flag=false", "mask_value=null", "labels.kidney=3", "folder=\"12\"", "blend=constant"})
    apply_override(json, assignment);
  const auto c = from_json<Everything>(json, "--set");
  EXPECT_EQ(c.optimizer.learning_rate, 1e-2);
  EXPECT_EQ(c.name, "swin_unetr");
  EXPECT_EQ(c.roi, (std::array{8, 4, 16}));
  EXPECT_FALSE(c.flag);
  EXPECT_EQ(c.labels.at("kidney"), 3);
  EXPECT_EQ(c.folder, "12");
  EXPECT_EQ(c.blend, Blend::kConstant);
}

TEST(Config, RefusesOverridesThatLeadNowhere) {
  Json json = to_json(Everything{});
  const auto problem = [&](const char* assignment) {
    return message_of<ArgumentError>([&] { apply_override(json, assignment); });
  };
  EXPECT_THAT(problem("optimizer"), HasSubstr("expected key=value"));
  EXPECT_THAT(problem("=3"), HasSubstr("expected key=value"));
  EXPECT_THAT(problem("a..b=3"), HasSubstr("expected names between the dots"));
  EXPECT_THAT(problem("roi.3=1"), HasSubstr("expected the number of a list item from 0 to 2, found \"3\""));
  EXPECT_THAT(problem("name.x=1"), HasSubstr("\"x\" goes into the string \"swin\", expected an object"));
  EXPECT_THAT(problem("roi=[1,2"), HasSubstr("line 1, column"));
  apply_override(json, "optimzer.momentum=1");
  EXPECT_THAT(message_of<ArgumentError>([&] { from_json<Everything>(json, "c.json"); }),
              HasSubstr("did you mean \"optimizer\"?"));
}

TEST(Config, ReadsAFileWithOverridesOnTop) {
  const TestFolder folder;
  testing::spill(folder / "c.json", "{ // mine\n \"name\": \"a\" }");
  EXPECT_EQ(read_config<Everything>(folder / "c.json", {"name=b"}).name, "b");
}

}  // namespace
}  // namespace fovea::io
