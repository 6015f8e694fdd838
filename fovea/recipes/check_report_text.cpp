// A7, text as query over a scan's regions: where sentences look, what left and right hang on, and a gate that says how
// much the image weighs.
#include <algorithm>
#include <cmath>
#include <filesystem>

#include "fovea/io/data_folder.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/report_reader.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

const std::vector<ReportArm> kArms = {ReportArm::kGated, ReportArm::kTextAlone, ReportArm::kImageAlone,
                                      ReportArm::kLateConcatenation};

double least(const ByLanguage& figure) { return std::min(figure[0], figure[1]); }

std::string shares(const std::array<double, kNoiseShares.size()>& figure) {
  std::string text;
  for (const double value : figure) text += printed(" %.3f", value);
  return text;
}

std::string pointing_at(const ReportReading& r, const Anatomy& anatomy) {
  std::string text = "pointing, " + anatomy.kinds[0].en + " and " + anatomy.kinds[1].en + " nodules:";
  for (int64_t q = 0; q < kRegions; ++q)
    text += printed(" %s %.2f, %.2f;", anatomy.regions[q].en.c_str(), r.pointing_at[q][0], r.pointing_at[q][1]);
  text.pop_back();
  return text + printed("; the strongest token or one beside it touches the nodule: %.3f", r.pointing_near);
}

std::vector<std::string> notes_on(const ReportReading& r, const Anatomy& anatomy) {
  std::vector<std::string> notes;
  notes.push_back(
      printed("English, Chinese: mass in the named region %.3f, %.3f; pointing %.3f, %.3f; absent nodule found with "
              "AUC %.3f, %.3f; "
              "retrieval %.3f, %.3f (chance 0.111)",
              r.mass[0], r.mass[1], r.pointing[0], r.pointing[1], r.absent_auc[0], r.absent_auc[1], r.retrieval[0],
              r.retrieval[1]));
  notes.push_back("noise 0, 25, 50, 75, 100 %: mean gate" + shares(r.gate) + "; accuracy" + shares(r.accuracy) +
                  "; with the gate held at 1" + shares(r.image_alone) + "; held at 0" + shares(r.text_at));
  notes.push_back(
      printed("affine swapped: %.3f of the answers change, %.3f are right for the mirrored region, %.3f of the "
              "attention lies in it; "
              "voxels in random order (never trained on): gate %.3f",
              r.flips, r.swapped_accuracy, r.swapped_mass, r.gate_of_shuffled));
  notes.push_back(pointing_at(r, anatomy));
  return notes;
}

// Nodules planted in organs of a real CT; what is learnt is this one body.
void add_real_background(CheckResult& result, const CheckOptions& options) {
  const auto folder = io::data_folder() / "totalsegmentator-ct";
  const auto ct = folder / "example_ct.nii.gz", labels = folder / "example_seg_fast_force_split.nii.gz";
  for (const auto& file : {ct, labels})
    if (!std::filesystem::is_regular_file(file)) {
      result.notes.push_back("nodules planted in a real CT not tried: " + file.string() +
                             " is not there (TotalSegmentator's example scan and labels)");
      return;
    }
  if (!options.full) {
    result.notes.push_back("nodules planted in a real CT: needs --full");
    return;
  }
  ReadingOptions reading;
  reading.arms = {ReportArm::kGated, ReportArm::kTextAlone};
  reading.bodies = {read_abdomen(ct, labels)};
  const ReportReading r = learn_to_read_reports(reading, options.seed);
  result.notes.push_back(
      printed("simulated nodules in six organs of one real CT, learnt and asked on that body, seed %llu: accuracy "
              "%.3f, text alone %.3f; on noise "
              "%.3f, %.3f",
              static_cast<unsigned long long>(options.seed), r.arms[0].clean, r.arms[1].clean, r.arms[0].noise,
              r.arms[1].noise));
  for (const auto& note : notes_on(r, abdomen_anatomy())) result.notes.push_back("real CT, " + note);
}
}  // namespace

CheckResult check_report_text(const CheckOptions& options) {
  CheckResult result;
  const int seeds = options.full ? 5 : 1;
  double mass = 1, pointing = 1, absent = 1, retrieval = 1, swapped_mass = 1, swapped_accuracy = 1, flips = 1, gate = 1,
         gain = 1;
  double gate_of_noise = 0, off_text = 0, rise = 0, below_text = 0;
  for (int i = 0; i < seeds; ++i) {
    ReadingOptions reading;
    reading.arms = kArms;
    const ReportReading r = learn_to_read_reports(reading, options.seed + uint64_t(i));
    mass = std::min(mass, least(r.mass)), pointing = std::min(pointing, least(r.pointing));
    absent = std::min(absent, least(r.absent_auc)), retrieval = std::min(retrieval, least(r.retrieval));
    swapped_mass = std::min(swapped_mass, r.swapped_mass),
    swapped_accuracy = std::min(swapped_accuracy, r.swapped_accuracy);
    flips = std::min(flips, r.flips);
    gate = std::min(gate, r.gate.front()), gate_of_noise = std::max(gate_of_noise, r.gate.back());
    for (size_t n = 1; n < r.gate.size(); ++n) rise = std::max(rise, r.gate[n] - r.gate[n - 1]);
    for (size_t n = 0; n < r.gate.size(); ++n) below_text = std::max(below_text, r.text_at[n] - r.accuracy[n]);
    off_text = std::max(off_text, std::abs(r.arms[0].noise - r.arms[1].noise));
    std::string line = "simulated chests, seed " + std::to_string(options.seed + uint64_t(i)) +
                       ", kind of nodule, accuracy on scans and on noise:";
    double best_other = 0;
    for (size_t n = 0; n < kArms.size(); ++n) {
      if (n > 0) best_other = std::max(best_other, r.arms[n].clean);
      line += printed(" %s %.3f, %.3f (%lld parameters);", name_of(kArms[n]).c_str(), r.arms[n].clean, r.arms[n].noise,
                      static_cast<long long>(r.arms[n].parameters));
    }
    line.pop_back();
    gain = std::min(gain, r.arms[0].clean - best_other);
    result.notes.push_back(line);
    for (auto& note : notes_on(r, chest_anatomy())) result.notes.push_back(std::move(note));
  }
  const std::string worst = ", English or Chinese, worst seed";
  result.at_least("simulated: attention in the named lobe" + worst, mass, 0.8);
  result.at_least("simulated: strongest token touches the named nodule" + worst, pointing, 0.9);
  result.at_least("simulated: a true sentence beats all false ones (chance 0.111)" + worst, retrieval, 0.5);
  result.at_least("simulated: sentences about absent nodules found, AUC" + worst, absent, 0.9);
  result.at_least("simulated: affine swapped, answers that change, worst seed", flips, 0.9);
  result.at_least("simulated: affine swapped, answers right for the mirrored lobe, worst seed", swapped_accuracy, 0.9);
  result.at_least("simulated: affine swapped, attention in the mirrored lobe, worst seed", swapped_mass, 0.8);
  result.at_least("simulated: mean gate on scans, worst seed", gate, 0.7);
  result.at_most("simulated: mean gate on noise, worst seed", gate_of_noise, 0.2);
  result.at_most("simulated: largest rise of the mean gate from one share of noise to the next", rise, 0);
  result.at_most("simulated: on noise, accuracy off that of text alone, worst seed", off_text, 0.03);
  result.at_most("simulated: accuracy below that with the gate held at 0, worst share of noise, worst seed", below_text, 0.03);
  result.at_least("simulated: accuracy less the best of text alone, image alone, late concatenation, worst seed", gain,
                  0.1);
  add_real_background(result, options);
  return result;
}

}  // namespace fovea::recipes
