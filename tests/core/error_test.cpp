#include "fovea/core/error.h"

#include <gtest/gtest.h>

namespace fovea {
namespace {

TEST(Error, IoErrorStartsWithThePathAndIsBadInput) {
  const IoError e("scan.nii", "expected 348, found 12");
  EXPECT_STREQ(e.what(), "scan.nii: expected 348, found 12");
  EXPECT_EQ(e.code(), ExitCode::kBadInput);
}

TEST(Error, AFailedCheckIsABugOfOursAndSaysWhere) {
  try {
    FOVEA_CHECK(1 == 2, "numbers broke");
    FAIL();
  } catch (const InternalError& e) {
    EXPECT_EQ(e.code(), ExitCode::kBug);
    EXPECT_NE(std::string(e.what()).find("numbers broke"), std::string::npos);
  }
}

TEST(Error, AHostileNameCannotBreakTheLineOrSteerTheTerminal) {
  EXPECT_STREQ(IoError("a\nb.nii", "key \x1b[2J\r\t\x7f is unknown").what(), "a?b.nii: key ?[2J??? is unknown");
}

TEST(NearestName, FindsASlipOfTheFingerAndRefusesAStranger) {
  EXPECT_EQ(nearest_name("feature_sise", {"window", "feature_size"}), "feature_size");
  EXPECT_EQ(nearest_name("zzzz", {"window", "feature_size"}), "");
}

}  // namespace
}  // namespace fovea
