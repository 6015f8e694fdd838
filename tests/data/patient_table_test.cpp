#include "fovea/data/patient_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>

#include "fovea/core/error.h"

namespace fovea::data {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr const char* kColumns = R"({
  "id": "id", "images": ["ct"], "numbers": ["age", "crp"], "categories": {"sex": ["f", "m"]}, "texts": ["report"],
  "time": "days", "event": "dead", "split": "split"})";

class PatientTables : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("fovea_patients_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    write("a.nii", "not read here");
    write("patients.json", kColumns);
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) { std::ofstream(folder_ / name) << text; }
  PatientTable open(const std::string& rows) {
    write("patients.csv", "id,ct,age,crp,sex,report,days,dead,split\n" + rows);
    return open_patients(folder_);
  }
  std::string message_of(const std::string& rows) {
    try {
      open(rows);
    } catch (const IoError& error) {
      return error.what();
    }
    return "nothing was thrown";
  }
  fs::path folder_;
};

TEST_F(PatientTables, EmptyCellsAreMissingAndNothingIsMadeUpForThem) {
  const auto table = open("p1,a.nii,63,,m,\"nodule, right\",120,1,train\np2,,NA,2.5,,,300,0,test\n");
  ASSERT_EQ(table.patients.size(), 2u);
  const auto &p1 = table.patients[0], &p2 = table.patients[1];
  EXPECT_TRUE(p1.images[0].has_value());
  EXPECT_TRUE(std::isnan(p1.numbers[1]));
  EXPECT_EQ(p1.codes[0], 1);
  EXPECT_EQ(p1.texts[0], "nodule, right");
  EXPECT_EQ(*p1.time, 120);
  EXPECT_TRUE(*p1.event);
  EXPECT_FALSE(p1.test);
  EXPECT_FALSE(p2.images[0].has_value());
  EXPECT_TRUE(std::isnan(p2.numbers[0]));
  EXPECT_EQ(p2.codes[0], -1);
  EXPECT_TRUE(p2.texts[0].empty());
  EXPECT_TRUE(p2.test);
}

TEST_F(PatientTables, OneLineSaysWhichPatientAndColumnIsWrong) {
  EXPECT_THAT(message_of("p1,a.nii,63,1,male,x,120,1,train\n"), HasSubstr("patient 'p1', column sex: 'male' is not among f, m"));
  EXPECT_THAT(message_of("p1,b.nii,63,1,m,x,120,1,train\n"), HasSubstr("column ct: no file"));
  EXPECT_THAT(message_of("p1,../a.nii,63,1,m,x,120,1,train\n"), HasSubstr("leaves the folder"));
  EXPECT_THAT(message_of("p1,a.nii,inf,1,m,x,120,1,train\n"), HasSubstr("column age: is infinite"));
  EXPECT_THAT(message_of("p1,a.nii,old,1,m,x,120,1,train\n"), HasSubstr("'old' is no number"));
  EXPECT_THAT(message_of("p1,a.nii,63,1,m,x,-3,1,train\n"), HasSubstr("column days: is negative"));
  EXPECT_THAT(message_of("p1,a.nii,63,1,m,x,120,2,train\n"), HasSubstr("expected 1 (the event happened) or 0"));
  EXPECT_THAT(message_of("p1,a.nii,63,1,m,x,,1,train\n"), HasSubstr("time and event must both be there"));
  EXPECT_THAT(message_of("p1,a.nii,63,1,m,x,,,train\n"), HasSubstr("time or event is empty"));
  EXPECT_THAT(message_of("p1,a.nii,63,1,m,x,1,1,train\np1,a.nii,63,1,m,x,1,1,train\n"), HasSubstr("two rows are called 'p1'"));
  EXPECT_THAT(message_of(",a.nii,63,1,m,x,1,1,train\n"), HasSubstr("column id is empty"));
  EXPECT_THAT(message_of("p1,a.nii,63,1,m,x,1,1,validate\n"), HasSubstr("is not among train, test"));
  EXPECT_THAT(message_of(""), HasSubstr("has no rows"));
}

TEST_F(PatientTables, PredictionNeedsNoOutcome) {
  write("patients.csv", "id,ct,age,crp,sex,report\np9,,50,1,f,\n");
  const auto table = open_patients(folder_, {.need_outcome = false});
  EXPECT_FALSE(table.patients[0].time.has_value());
  EXPECT_THROW(open_patients(folder_), IoError);
}

TEST_F(PatientTables, AFolderWithoutDescriptionSaysWhatToWrite) {
  fs::remove(folder_ / "patients.json");
  EXPECT_THAT(message_of("p1,a.nii,63,1,m,x,120,1,train\n"), HasSubstr("it says what the columns are"));
}

}  // namespace
}  // namespace fovea::data
