#include <torch/torch.h>

#include <cmath>

#include "fovea/data/torch_tensor.h"
#include "fovea/io/data_folder.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/recipes/patient_baseline.h"
#include "fovea/recipes/scratch_folder.h"
#include "fovea/recipes/tumour_prognosis.h"
#include "fovea/report/text.h"
#include "fovea/train/cox_regression.h"

namespace fovea::recipes {

namespace {
using report::printed;

// Cox's model on the 1546 patients of Rotterdam against what R's survival gives for them (Efron): null and fitted
// log-likelihood, C-index, and on GBSG without the terms of the size. Columns of table_matrix: age, nodes, pgr, er, hormones, menopause, size (2).
void check_cox(CheckResult& result, const EncodedPatients& patients, const std::vector<int64_t>& categories, const PatientSplit& split) {
  const auto x = table_matrix(patients, categories);
  const auto of = [&](const torch::Tensor& rows) { return train::SurvivalTensors{patients.time.index_select(0, rows), patients.event.index_select(0, rows)}; };
  const auto known = x.index_select(0, split.train);
  const auto fit = train::fit_cox(known, of(split.train), train::CoxTies::kEfron);
  result.at_most("Cox on Rotterdam, null log-likelihood, off R's -7283.996", std::abs(fit.null_log_likelihood + 7283.996), 1e-3);
  result.at_most("Cox on Rotterdam, log-likelihood, off R's -7165.860", std::abs(fit.log_likelihood + 7165.860), 1e-3);
  const double own = train::harrell_concordance(survival_of(patients, split.train), data::to_doubles(fit.risk(known))).index;
  result.at_most("C-index of that fit, off R's .6605", std::abs(own - 0.6605), 5e-5);
  const auto without_size = torch::matmul(x.index_select(0, split.held_out).slice(1, 0, 6), fit.coefficients.slice(0, 0, 6));
  const double transferred = train::harrell_concordance(survival_of(patients, split.held_out), data::to_doubles(without_size)).index;
  result.at_most("C-index on GBSG, the terms of the size left out, off R's .6518", std::abs(transferred - 0.6518), 5e-5);
}

void check_transfer(CheckResult& result, const CheckOptions& options) {
  const auto file = io::find_data("rotterdam/patients.csv");
  if (!file) {
    result.notes.push_back("Rotterdam to GBSG not checked: " + (io::data_folder() / "rotterdam").string() + " is not there; scripts/data rotterdam fetches it");
    return;
  }
  const auto table = data::open_patients(*file);
  const auto all = split_patients(table, {}, 0, 0);
  const auto inputs = PatientInputs::fit(table, {all.train.data_ptr<int64_t>(), all.train.data_ptr<int64_t>() + all.train.numel()}, {}, 0);
  const auto patients = encode(table, inputs);
  auto config = resolve_patient_config(table, {}, {});
  inputs.describe(config.network);
  check_cox(result, patients, config.network.categories, all);

  double sum = 0;
  train::BootstrapInterval interval;
  const int64_t seeds = options.full ? 5 : 1;
  for (int64_t s = 0; s < seeds; ++s) {
    config.train.seed = options.seed + uint64_t(s);
    const auto split = split_patients(table, {}, config.validation_share, config.train.seed);
    const ScratchFolder scratch;
    train::RunFolder folder(scratch.path() / "run");
    const auto fitted = fit_patients(patients, split, config, folder);
    const auto score = score_outcome(fitted.head, answer_patients(*fitted.network.ptr(), patients, split.held_out).outcome, patients, split.held_out).front();
    result.notes.push_back(printed("Rotterdam to GBSG, attention over table tokens, seed %d: C-index %.4f (95 %% of resamples %.4f to %.4f)", int(config.train.seed), score.value, score.interval.low, score.interval.high));
    sum += score.value / double(seeds);
    if (s == 0) interval = score.interval;
  }
  result.at_most("Rotterdam to GBSG: lower end of the interval, below DeepSurv's published .668", interval.low, 0.668);
  result.at_least("Rotterdam to GBSG: upper end, above it", interval.high, 0.668);
  const auto cox = fit_baseline(patients, config.network.categories, PatientHead::fit(config, patients, all.train), all.train, all.held_out);
  const double baseline = main_score(cox.head, cox.outcome, patients, all.held_out);
  result.notes.push_back(printed("baseline, Cox on the same seven columns: %.4f", baseline));
  result.at_least("Rotterdam to GBSG: C-index of the network less Cox's", sum - baseline, 0);
}

// Simulated tumours: both losses against each alone.
void check_joint(CheckResult& result, const CheckOptions& options) {
  const std::vector<int64_t> sizes = options.full ? std::vector<int64_t>{100, 150, 200} : std::vector<int64_t>{150};
  const int64_t seeds = options.full ? 5 : 1;
  double gain = 0, least_norm = INFINITY, dice = 0;
  std::vector<double> gains;
  for (const int64_t n : sizes)
    for (int64_t s = 0; s < seeds; ++s) {
      const auto r = learn_tumour_prognosis(n, options.seed + uint64_t(s));
      result.notes.push_back(printed("%d simulated patients, seed %d: C-index joint %.3f, outcome alone %.3f (gain, 95 %% of resamples %.3f to %.3f); Cox on the true volume %.3f, on volume and roughness %.3f; "
                                     "Dice joint %.3f, outline alone %.3f; gradient norms %.3g and %.3g, cosine %.3f",
                                     int(n), int(options.seed) + int(s), r.joint.concordance, r.outcome_alone.concordance, r.gain.low, r.gain.high, r.cox_volume, r.cox_both, r.joint.dice,
                                     r.outline_alone.dice, r.agreement.first_norm, r.agreement.second_norm, r.agreement.cosine));
      gains.push_back(r.joint.concordance - r.outcome_alone.concordance);
      gain += gains.back(), dice += r.joint.dice - r.outline_alone.dice;
      least_norm = std::min({least_norm, r.agreement.first_norm, r.agreement.second_norm});
    }
  const double runs = double(gains.size());
  double squares = 0;
  for (const double g : gains) squares += (g - gain / runs) * (g - gain / runs);
  // Of the mean over runs; a single run has no spread.
  const double error = runs > 1 ? std::sqrt(squares / (runs - 1) / runs) : 0;
  result.at_least("simulated tumours: smaller of both losses' gradient norms in the shared attention", least_norm, 1e-6);
  result.at_least(runs > 1 ? "simulated tumours: C-index of joint training less prognosis alone, mean less two standard errors" : "simulated tumours: C-index of joint training less prognosis alone", gain / runs - 2 * error, 0);
  result.at_least("simulated tumours: Dice of joint training less outline alone", dice / runs, -0.01);
}
}  // namespace

CheckResult check_prognosis(const CheckOptions& options) {
  const OneThread one_thread;
  CheckResult result;
  check_transfer(result, options);
  check_joint(result, options);
  return result;
}

}  // namespace fovea::recipes
