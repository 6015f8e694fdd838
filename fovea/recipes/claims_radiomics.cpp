// C38: whom a class token trusts.
#include "fovea/recipes/claims.h"
#include "fovea/recipes/whom_to_trust.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

ClaimResult decides_whom_to_trust(const ClaimOptions& options) {
  ClaimResult r;
  bool holds = true;
  for (const LesionTask task : {LesionTask::kTexture, LesionTask::kContext}) {
    const bool texture = task == LesionTask::kTexture;
    const Trust t = learn_whom_to_trust(task, options.seed);
    const std::string name = name_of(task);
    r.figures.emplace_back(name + "_attention_radiomics", t.on_radiomics);
    r.figures.emplace_back(name + "_attention_scan", t.on_scan);
    r.figures.emplace_back(name + "_ablation_radiomics", t.radiomics_ablation);
    r.figures.emplace_back(name + "_ablation_scan", t.scan_ablation);
    r.figures.emplace_back(name + "_accuracy", t.both.accuracy);
    r.figures.emplace_back(name + "_accuracy_radiomics", t.radiomics_alone.accuracy);
    r.figures.emplace_back(name + "_accuracy_scan", t.scan_alone.accuracy);
    holds &= (t.on_radiomics > t.on_scan) == texture && (t.radiomics_ablation > t.scan_ablation) == texture;
    r.computed += printed(
        "%s%s decides: attention %.2f on radiomics, %.2f on the scan, and %.2f and %.2f nats lost without; accuracy "
        "%.3f, "
        "alone %.3f and %.3f",
        r.computed.empty() ? "" : "; ", name.c_str(), t.on_radiomics, t.on_scan, t.radiomics_ablation, t.scan_ablation,
        t.both.accuracy, t.radiomics_alone.accuracy, t.scan_alone.accuracy);
  }
  r.verdict = holds ? Verdict::kHolds : Verdict::kFalse;
  r.inputs = "simulated lesions, 2048 to learn and 1024 fresh, seed " + std::to_string(options.seed);
  r.with = "data::radiomics, models::PatientNetwork, trained; exact rows of the class token";
  return r;
}
}  // namespace

std::vector<Claim> radiomics_claims() {
  return {{"C38", "The class token decides which features to trust, hand-crafted or learned", "decides",
           ClaimCost::kTrained, decides_whom_to_trust}};
}

}  // namespace fovea::recipes
