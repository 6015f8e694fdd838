// C37: a sentence and the region that it names.
#include <algorithm>

#include "fovea/recipes/claims.h"
#include "fovea/recipes/report_reader.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
ClaimResult sentence_finds_its_region(const ClaimOptions& options) {
  ReadingOptions reading;
  reading.arms = {ReportArm::kGated, ReportArm::kTextAlone};
  const ReportReading r = learn_to_read_reports(reading, options.seed);
  const double mass = std::min(r.mass[0], r.mass[1]), pointing = std::min(r.pointing[0], r.pointing[1]);
  ClaimResult c;
  c.figures = {{"mass", mass},
               {"pointing", pointing},
               {"absent_auc", std::min(r.absent_auc[0], r.absent_auc[1])},
               {"gate", r.gate.front()},
               {"gate_of_noise", r.gate.back()},
               {"accuracy", r.arms[0].clean},
               {"accuracy_of_noise", r.arms[0].noise},
               {"accuracy_text_alone", r.arms[1].clean},
               {"flips", r.flips},
               {"swapped_mass", r.swapped_mass}};
  const bool finds = mass > 0.8 && pointing > 0.9 && r.swapped_mass > 0.8 && r.flips > 0.9;
  c.verdict = finds && r.gate.front() > 0.7 && r.gate.back() < 0.2 ? Verdict::kHolds : Verdict::kFalse;
  c.computed = report::printed(
      "attention in the named lobe %.2f, strongest token on the nodule %.2f; image replaced by noise: gate %.2f to "
      "%.2f, accuracy %.3f to %.3f (text "
      "alone %.3f); affine swapped: %.2f of the answers change",
      mass, pointing, r.gate.front(), r.gate.back(), r.arms[0].clean, r.arms[0].noise, r.arms[1].clean, r.flips);
  c.inputs = "simulated chests, English and Chinese sentences, seed " + std::to_string(options.seed);
  c.with = "nn::FindingAttention, nn::GatedFusion, models::TextEncoder, nn::VolumeTokens";
  return c;
}
}  // namespace

std::vector<Claim> report_text_claims() {
  return {{"C37", "A sentence finds its region and a gate sets the image's weight", "finds it", ClaimCost::kTrained,
           sentence_finds_its_region}};
}

}  // namespace fovea::recipes
