#include "fovea/core/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

namespace fovea {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

struct FakeScreen {
  double now_s = 0;
  std::string text;
  ProgressOptions options(ProgressMode mode, int columns = 100) {
    ProgressOptions o;
    o.mode = mode, o.columns = columns, o.unit = "steps";
    o.clock_s = [this] { return now_s; };
    o.write = [this](std::string_view s) { text += s; };
    return o;
  }
};

TEST(Progress, BarShowsCountElapsedAndRemainingTimeAndRate) {
  FakeScreen screen;
  Progress bar("train", 100, screen.options(ProgressMode::kBar));
  bar.set_note("loss 0.5");
  screen.now_s = 10;
  bar.advance(20);
  EXPECT_THAT(screen.text, HasSubstr("train  20%|"));
  EXPECT_THAT(screen.text, HasSubstr("| 20/100 [00:10<00:40, 2 steps/s] loss 0.5"));
  EXPECT_THAT(screen.text, EndsWith("\x1b[K\r")) << "the cursor rests in column 0";
}

TEST(Progress, RemainingTimeFollowsTheFractionOfATimeBudget) {
  FakeScreen screen;
  Progress bar("train", 0, screen.options(ProgressMode::kBar));
  screen.now_s = 30;
  bar.set_fraction(0.25);
  bar.advance(3);
  EXPECT_THAT(screen.text, HasSubstr("25%|"));
  EXPECT_THAT(screen.text, HasSubstr("3 [00:30<01:30, 10 s/steps]"));
}

TEST(Progress, IsErasedWhenItEndsAndRedrawsAreLimited) {
  FakeScreen screen;
  {
    Progress bar("x", 1000, screen.options(ProgressMode::kBar));
    screen.now_s = 1;
    for (int i = 0; i < 500; ++i) bar.advance();
  }
  EXPECT_THAT(screen.text, EndsWith("\r\x1b[K"));
  EXPECT_LT(screen.text.size(), 300u) << "one drawing for 500 steps at the same moment";
}

TEST(Progress, LinesAreWrittenSeldomAndHoldNoControlCharacters) {
  FakeScreen screen;
  Progress bar("train", 100, screen.options(ProgressMode::kLines));
  for (int i = 0; i < 100; ++i) screen.now_s += 1, bar.advance();
  EXPECT_EQ(std::count(screen.text.begin(), screen.text.end(), '\n'), 3);
  EXPECT_THAT(screen.text, StartsWith("train  30% 30/100 [00:30<01:10, 1 steps/s]\n"));
  EXPECT_THAT(screen.text, Not(HasSubstr("\x1b")));
}

TEST(Progress, OffWritesNothing) {
  FakeScreen screen;
  {
    Progress bar("x", 3, screen.options(ProgressMode::kOff));
    screen.now_s = 100;
    bar.advance(3);
  }
  EXPECT_EQ(screen.text, "");
}

TEST(Progress, ALinePrintedMeanwhileStandsOnItsOwnAboveTheBar) {
  FakeScreen screen;
  Progress bar("x", 10, screen.options(ProgressMode::kBar));
  screen.now_s = 1;
  bar.advance();
  screen.text.clear();
  print_line("warning: something");
  EXPECT_THAT(screen.text, StartsWith("\r\x1b[Kwarning: something\n\rx "));
}

TEST(Progress, InnerBarReplacesTheOuterOneWhileItLives) {
  FakeScreen screen;
  Progress outer("outer", 10, screen.options(ProgressMode::kBar));
  {
    Progress inner("inner", 10, screen.options(ProgressMode::kBar));
    screen.now_s = 1;
    outer.advance();
    EXPECT_EQ(screen.text, "");
    inner.advance();
    EXPECT_THAT(screen.text, HasSubstr("inner"));
    screen.text.clear();
  }
  screen.now_s = 2;
  outer.advance();
  EXPECT_THAT(screen.text, HasSubstr("outer  20%"));
}

TEST(Progress, TextIsCutToANarrowTerminal) {
  FakeScreen screen;
  Progress bar("a rather long label", 10, screen.options(ProgressMode::kBar, 20));
  screen.now_s = 1;
  bar.advance();
  EXPECT_EQ(screen.text.size(), 19 + std::string("\r\x1b[K\r").size());
}

TEST(Progress, CountsEveryStepOfManyThreads) {
  FakeScreen screen;
  Progress bar("x", 4000, screen.options(ProgressMode::kBar));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) bar.advance();
    });
  for (std::thread& t : threads) t.join();
  screen.now_s = 1;
  bar.advance(0);
  EXPECT_THAT(screen.text, HasSubstr("4000/4000"));
}

}  // namespace
}  // namespace fovea
