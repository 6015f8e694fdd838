#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <set>

#include "fovea/core/error.h"
#include "fovea/recipes/patient_baseline.h"
#include "fovea/recipes/patient_train.h"
#include "fovea/recipes/scratch_folder.h"
#include "fovea/recipes/tumour_prognosis.h"

namespace fovea::recipes {
namespace {

const double kNaN = std::nan("");

// 40 patients in memory: one number that makes the hazard, and one that is noise and often missing.
data::PatientTable table() {
  data::PatientTable t;
  t.columns.numbers = {"hazard", "noise"}, t.columns.categories = {{"sex", {"f", "m"}}};
  t.columns.time = "time", t.columns.event = "event";
  for (int i = 0; i < 40; ++i) {
    data::Patient p;
    p.id = "p" + std::to_string(i);
    p.numbers = {double(i * 7 % 40), i % 3 ? double(i % 5) : kNaN}, p.codes = {i % 4 == 0 ? -1 : i % 2};
    p.time = 100 - p.numbers[0], p.event = i % 5 != 0;
    t.patients.push_back(p);
  }
  return t;
}

std::vector<int64_t> values(const torch::Tensor& t) { return {t.data_ptr<int64_t>(), t.data_ptr<int64_t>() + t.numel()}; }

TEST(PatientSplit, FoldsHoldEveryoneOutOnceAndShareNobody) {
  std::set<int64_t> held_out;
  for (int64_t fold = 0; fold < 5; ++fold) {
    const auto split = split_patients(table(), fold, 0.25, 7);
    std::set<int64_t> all;
    for (const auto& part : {split.train, split.validation, split.held_out})
      for (const int64_t row : values(part)) EXPECT_TRUE(all.insert(row).second);
    EXPECT_EQ(all.size(), 40u);
    EXPECT_EQ(split.validation.size(0), 8);
    for (const int64_t row : values(split.held_out)) EXPECT_TRUE(held_out.insert(row).second);
  }
  EXPECT_EQ(held_out.size(), 40u);
  EXPECT_THROW(split_patients(table(), 5, 0.2, 7), ArgumentError);
}

TEST(PatientInputs, AreLearntFromTrainingRowsAloneAndLeaveMissingValuesMissing) {
  auto t = table();
  const auto inputs = PatientInputs::fit(t, {0, 1, 2, 3}, {}, 0);
  EXPECT_DOUBLE_EQ(inputs.numbers.mean[0], (0 + 7 + 14 + 21) / 4.0);
  EXPECT_DOUBLE_EQ(inputs.numbers.mean[1], 1.5);  // of rows 1 and 2: rows 0 and 3 have none
  t.patients[20].numbers[0] = 1e6;
  EXPECT_DOUBLE_EQ(PatientInputs::fit(t, {0, 1, 2, 3}, {}, 0).numbers.mean[0], inputs.numbers.mean[0]);
  const auto encoded = encode(t, inputs);
  EXPECT_TRUE(encoded.inputs.numbers[3][1].isnan().item<bool>());
  EXPECT_EQ(encoded.inputs.codes[4][0].item<int64_t>(), -1);
}

TEST(PatientInputs, AColumnThatNeverVariesIsCentredAndNotDividedByZero) {
  const auto scaling = ColumnScaling::of({{3, kNaN}, {3, kNaN}}, 2);
  EXPECT_EQ(scaling.apply({5, 1})[0], 2);
  EXPECT_EQ(scaling.apply({5, 1})[1], 1);
}

TEST(PatientFit, LearnsAHazardFromATableAndTheSameSeedGivesTheSameBits) {
  const auto t = table();
  PatientConfig config;
  config.columns = t.columns, config.outcome = PatientOutcome::kCox;
  config.network.width = 16, config.network.heads = 2, config.network.blocks = 1;
  config.train.steps = config.train.steps_per_epoch = 60, config.train.optimizer.learning_rate = 5e-3, config.modality_dropout = 0;
  const auto split = split_patients(t, {}, 0, 1);
  const auto inputs = PatientInputs::fit(t, values(split.train), {}, 0);
  inputs.describe(config.network);
  const auto patients = encode(t, inputs);
  torch::Tensor first;
  for (int run = 0; run < 2; ++run) {
    const ScratchFolder scratch;
    train::RunFolder folder(scratch.path() / "run");
    const auto fitted = fit_patients(patients, split, config, folder);
    const auto answers = answer_patients(*fitted.network.ptr(), patients, split.train);
    EXPECT_GT(main_score(fitted.head, answers.outcome, patients, split.train), 0.95);
    if (run == 0) first = answers.outcome;
    else EXPECT_TRUE(first.equal(answers.outcome));
  }
}

TEST(PatientBaseline, MissingValuesAreTheMeanAndTheFirstWord) {
  const auto t = table();
  const auto inputs = PatientInputs::fit(t, {0, 1, 2, 3, 4, 5}, {}, 0);
  const auto patients = encode(t, inputs);
  const auto x = table_matrix(patients, {2});
  EXPECT_EQ(x.sizes(), (std::vector<int64_t>{40, 3}));
  EXPECT_EQ(x[3][1].item<double>(), 0);
  EXPECT_EQ(x[4][2].item<double>(), 0);
  EXPECT_EQ(x[1][2].item<double>(), 1);
}

TEST(PatientModality, LeavingTheTableOutIsTheAnswerForNothing) {
  const auto t = table();
  const auto inputs = PatientInputs::fit(t, {0, 1, 2, 3}, {}, 0);
  const auto none = without_modality(encode(t, inputs), 0);
  EXPECT_TRUE(none.inputs.numbers.isnan().all().item<bool>());
  EXPECT_TRUE((none.inputs.codes == -1).all().item<bool>());
}

TEST(TumourPatients, TheMaskIsTheTumourWithTheDarkCoreAndItsVolumeAndRoughnessMakeTheHazard) {
  const auto t = draw_tumour_patients(200, 3);
  EXPECT_TRUE(t.patients.masks.flatten(1).sum(1).to(torch::kDouble).equal(t.volume));
  EXPECT_TRUE(draw_tumour_patients(200, 3).patients.inputs.images.equal(t.patients.inputs.images));
  const auto rows = torch::arange(200);
  const auto known = survival_of(t.patients, rows);
  const auto risk = ((t.volume - t.volume.mean()) / t.volume.std() + (t.roughness - t.roughness.mean()) / t.roughness.std()).contiguous();
  EXPECT_GT(train::harrell_concordance(known, {risk.data_ptr<double>(), risk.data_ptr<double>() + 200}).index, 0.75);
  const double events = t.patients.event.to(torch::kDouble).mean().item<double>();
  EXPECT_GT(events, 0.5);
  EXPECT_LT(events, 0.85);
}

}  // namespace
}  // namespace fovea::recipes
