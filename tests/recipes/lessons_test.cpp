// The bands of the lessons: what each computes, whatever the instruction set, and what a learner can get wrong.
#include "fovea/recipes/lessons.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "fovea/core/error.h"
#include "fovea/recipes/lesson_site.h"

namespace fovea::recipes {
namespace {

using testing::HasSubstr;
using Flags = std::map<std::string, std::string>;

LessonResult run(const std::string& name, const Flags& flags = {}) { return run_lesson(find_lesson(name), flags, 0); }

bool right(const std::string& name, const std::string& answer, const Flags& flags = {}) {
  const LessonResult result = run(name, flags);
  return judge(find_lesson(name), result, answer).right;
}

std::string refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const ArgumentError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Lessons, HaveBothLanguagesAnEquationAPageAndSteps) {
  std::set<std::string> names;
  for (const Lesson& lesson : lessons()) {
    EXPECT_TRUE(names.insert(lesson.name).second) << lesson.name << " is there twice";
    for (const Bilingual* text : {&lesson.title, &lesson.question})
      EXPECT_FALSE(text->en.empty() || text->zh.empty()) << lesson.name;
    EXPECT_FALSE(lesson.equation.empty() || lesson.steps.empty()) << lesson.name;
    EXPECT_TRUE(std::filesystem::exists(std::string(FOVEA_SOURCE_DIR) + "/docs/explanation/" + lesson.page))
        << lesson.name << " names the page " << lesson.page;
  }
}

TEST(Lessons, WriteAPictureAndAReasonInBothLanguages) {
  for (const Lesson& lesson : lessons()) {
    if (lesson.trains) continue;
    const LessonResult result = run_lesson(lesson, {}, 0);
    const std::string svg = lesson_picture(result);
    EXPECT_THAT(svg, testing::StartsWith("<svg ")) << lesson.name;
    EXPECT_GT(svg.size(), 1500u) << lesson.name;
    EXPECT_FALSE(result.reason.en.empty() || result.reason.zh.empty() || result.found.empty()) << lesson.name;
    EXPECT_FALSE(judge(lesson, result, result.answers[0].words.empty() ? "987654.25" : "no such word").right)
        << lesson.name;
  }
}

TEST(Lessons, FirstAttentionReadsV1AndV3) {
  const LessonResult r = run("first-attention");
  EXPECT_NEAR(r.answers[0].value, 1.447, 5e-4);
  EXPECT_NEAR(r.answers[1].value, 0.002, 5e-4);
  EXPECT_NEAR(r.answers[2].value, 4.104, 5e-4);
  EXPECT_THAT(r.found[0].en, HasSubstr("0.569 / 0.002 / 0.429"));
  EXPECT_THAT(r.found[0].en, HasSubstr("2.01 keys in effect"));
  EXPECT_THAT(r.found[1].en, HasSubstr("2.97 keys in effect"));
  EXPECT_TRUE(right("first-attention", "1.45,0.002,4.1"));
  EXPECT_FALSE(right("first-attention", "10"));
  // Values doubled: the outputs, too.
  EXPECT_NEAR(run("first-attention", {{"v", "2;20;4"}}).answers[0].value, 2 * r.answers[0].value, 1e-12);
}

TEST(Lessons, WhyScaleFindsVarianceDAndAWinner) {
  const LessonResult r = run("why-scale");
  EXPECT_NEAR(r.answers[0].value, 128, 0.02 * 128);
  EXPECT_NEAR(r.answers[1].value, 0.85, 0.02);
  EXPECT_NEAR(r.answers[2].value, 0.107, 0.005);
  EXPECT_TRUE(right("why-scale", "128,0.85,0.107"));
  EXPECT_FALSE(right("why-scale", "11.3"));  // the deviation, not the variance
  EXPECT_NEAR(run("why-scale", {{"d", "16"}}).answers[0].value, 16, 0.5);
}

TEST(Lessons, BudgetCountsKeysInEffect) {
  const LessonResult r = run("budget");
  EXPECT_NEAR(r.answers[0].value, 40, 1.5);
  EXPECT_NEAR(r.answers[1].value, 1.8, 0.1);
  EXPECT_FALSE(right("budget", "64"));
}

TEST(Lessons, CutAVolumePadsToWholePatches) {
  const LessonResult r = run("cut-a-volume");
  EXPECT_EQ(r.answers[0].value, 14812);
  EXPECT_EQ(r.answers[1].value, 4096);
  EXPECT_EQ(r.answers[2].value, 0);
  EXPECT_FALSE(right("cut-a-volume", "13310"));  // the rest cut off instead of padded
  EXPECT_EQ(run("cut-a-volume", {{"shape", "16,17,8"}, {"patch", "8"}}).answers[0].value, 2 * 3 * 1);
}

TEST(Lessons, QuadraticWallSavesTokensOverWindow) {
  const LessonResult r = run("quadratic-wall");
  EXPECT_EQ(r.answers[0].value, 4096);
  EXPECT_EQ(r.answers[1].value, 8);
  EXPECT_NEAR(r.answers[2].value, 3449, 1);
  EXPECT_FALSE(right("quadratic-wall", "8"));
  EXPECT_TRUE(right("quadratic-wall", "8", {{"grid", "16"}}));
}

TEST(Lessons, RipplesNeedTwiceAsLongInTheCorner) {
  const LessonResult r = run("ripples");
  EXPECT_EQ(r.answers[0].value, 15);
  EXPECT_EQ(r.answers[1].value, 8);
  EXPECT_EQ(r.answers[2].value, 8);
  EXPECT_EQ(run("ripples", {{"n", "16"}, {"window", "4"}}).answers[0].value, 7);
  EXPECT_EQ(run("ripples", {{"n", "16"}, {"window", "4"}}).answers[2].value, 4);
}

TEST(Lessons, HeadsAreFree) {
  const LessonResult r = run("free-heads");
  ASSERT_EQ(r.answers.size(), 5u);
  for (const LessonAnswer& answer : r.answers) EXPECT_EQ(answer.value, 2362368);
  EXPECT_TRUE(right("free-heads", "2362368"));
  EXPECT_FALSE(right("free-heads", "2360064"));
}

TEST(Lessons, WhereAmILearnsTheRightNeighbour) {
  EXPECT_TRUE(right("where-am-i", "0,0,+1"));
  EXPECT_FALSE(right("where-am-i", "0,0,-1"));
  EXPECT_FALSE(right("where-am-i", "1,0,0"));
}

TEST(Lessons, ImplicitTemperatureIsTheProductOfDeviations) {
  EXPECT_TRUE(right("implicit-temperature", "0,0.6"));
  EXPECT_FALSE(right("implicit-temperature", "100"));
  EXPECT_TRUE(right("implicit-temperature", "0,10", {{"sigma-q", "5"}, {"sigma-k", "2"}}));
}

TEST(Lessons, KernelRegressionTakesTheLeaveOneOutBandwidth) {
  const LessonResult r = run("kernel-regression");
  EXPECT_GT(r.answers[0].value, 0.1);
  EXPECT_LT(r.answers[0].value, 0.6);
  EXPECT_NEAR(r.answers[0].tolerance, 0.15 * r.answers[0].value, 1e-12);
  EXPECT_FALSE(right("kernel-regression", "2"));
}

TEST(Lessons, RingIsOneSigmaForPositionAndRootTwoForSize) {
  EXPECT_TRUE(right("ring", "1"));
  EXPECT_FALSE(right("ring", "1.41"));
  EXPECT_TRUE(right("ring", "1.414", {{"goal", "size"}, {"sigma", "3"}}));
  EXPECT_TRUE(right("ring", "0", {{"goal", "intensity"}}));
  EXPECT_THAT(refusal([] { run("ring", {{"goal", "colour"}}); }), HasSubstr("expected position, size or intensity"));
  EXPECT_THAT(refusal([] { run("ring", {{"sigma", "90"}}); }), HasSubstr("from 1.5 to 9"));
}

TEST(Lessons, TwoWeightsAreTwo) {
  EXPECT_TRUE(right("two-weights", "2,18,98,54,686"));
  EXPECT_FALSE(right("two-weights", "1"));
  EXPECT_THAT(refusal([] { run("two-weights", {{"kernel", "4"}}); }), HasSubstr("expected odd numbers"));
}

TEST(Lessons, RefuseWhatTheyCannotRun) {
  EXPECT_THAT(refusal([] { find_lesson("ripple"); }), HasSubstr("did you mean ripples?"));
  EXPECT_THAT(refusal([] { run("ripples", {{"heads", "2"}}); }), HasSubstr("takes no --heads; it takes --n, --window"));
  EXPECT_THAT(refusal([] { run("ripples", {{"n", "60"}}); }), HasSubstr("--n 60: expected a multiple of the window"));
  EXPECT_THAT(refusal([] { run("ripples", {{"n", "many"}}); }), HasSubstr("--n many: expected whole numbers"));
  EXPECT_THAT(refusal([] { run("free-heads", {{"heads", "5"}}); }), HasSubstr("expected divisors of the width 768"));
  EXPECT_THAT(refusal([] { run("first-attention", {{"k", "1,2;3"}}); }), HasSubstr("expected rows of equal length"));
  EXPECT_THAT(refusal([] {
                run("first-attention", {{"k", "1,2,3;3,4,5;1,1,1"}});
              }),
              HasSubstr("keys of as many numbers as the queries"));
  EXPECT_THAT(refusal([] { run("implicit-temperature", {{"sigma-q", "-1"}}); }), HasSubstr("a number above 0"));
  EXPECT_THAT(refusal([] { right("ripples", "many"); }), HasSubstr("'many' is no number"));
  EXPECT_THAT(refusal([] { right("ripples", "1,2,3,4"); }), HasSubstr("4 values, 3 can be answered"));
}

TEST(LessonAnswer, TakesWordsInAnyCaseAndNumbersWithinTheTolerance) {
  const LessonAnswer word{{"high or low", "高还是低"}, 0, 0, {"low", "低"}};
  EXPECT_TRUE(word.accepts(" Low ") && word.accepts("低"));
  EXPECT_FALSE(word.accepts("high"));
  const LessonAnswer number{{"a", "a"}, 128, 2.56};
  EXPECT_TRUE(number.accepts("130") && number.accepts("+125.5"));
  EXPECT_FALSE(number.accepts("131") || number.accepts("nan") || number.accepts(""));
  EXPECT_EQ(number.text(), "128 ± 2.6");
}

TEST(LessonSite, HasAPageALessonInBothLanguagesAndNothingFromElsewhere) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "lesson_site";
  std::filesystem::remove_all(folder);
  ASSERT_EQ(write_lesson_site(folder, {}), lessons().size());
  const auto read = [&](const std::string& name) {
    std::ifstream file(folder / name);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  const std::string index = read("index.html");
  for (const Lesson& lesson : lessons()) {
    EXPECT_THAT(index, HasSubstr("href=\"" + lesson.name + ".html\""));
    const std::string page = read(lesson.name + ".html");
    EXPECT_THAT(page, HasSubstr(lesson.title.zh));
    for (const char* fetched : {" src=\"http", "href=\"http", "@import", "url(http"})
      EXPECT_THAT(page, testing::Not(HasSubstr(fetched))) << lesson.name;
    if (lesson.trains) continue;
    EXPECT_THAT(page, HasSubstr("const answers=["));
    EXPECT_THAT(page, HasSubstr("<svg "));
  }
  EXPECT_THROW(write_lesson_site("/proc/no/such/folder", {}), IoError);
}

}  // namespace
}  // namespace fovea::recipes
