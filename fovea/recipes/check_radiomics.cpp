// A8, radiomics beside a scan's tokens: features equal to published ones, and a class token that turns to the side that
// knows the answer.
#include <algorithm>
#include <filesystem>

#include "fovea/data/ibsi_phantom.h"
#include "fovea/data/radiomics.h"
#include "fovea/io/data_folder.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/pyradiomics_baselines.h"
#include "fovea/recipes/whom_to_trust.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

void check_features(CheckResult& result) {
  const data::IbsiPhantom phantom = data::ibsi_phantom();
  data::RadiomicsOptions options;
  options.bin_width = 1;
  const auto features = data::radiomics(phantom.image, phantom.mask, options);
  result.equal("radiomic features", double(features.size()), 107);
  int agree = 0;
  for (const auto& [name, value] : data::ibsi_reference())
    for (const auto& feature : features)
      agree += feature.name == "original_" + name && data::agrees_with_printed(feature.value, value);
  result.equal("IBSI digital phantom: features equal to all printed digits", agree,
               double(data::ibsi_reference().size()));

  const auto tumours = io::data_folder() / "pyradiomics-tumour";
  if (!std::filesystem::is_directory(tumours)) {
    result.notes.push_back("pyradiomics' reference values not checked: " + tumours.string() +
                           " is not there (its data folder: *_image.nrrd, *_label.nrrd, baseline/*.csv)");
    return;
  }
  const BaselineComparison found = compare_with_baselines(tumours);
  result.at_least("pyradiomics' reference values compared", double(found.values), 1);
  result.at_most("largest relative difference from them", found.worst, 1e-6);
  result.notes.push_back(printed("%lld reference values, the furthest is %s; %lld come from another mesh: %s",
                                 static_cast<long long>(found.values), found.worst_name.c_str(),
                                 static_cast<long long>(found.other_mesh), kOtherMesh));
}

void check_trust(CheckResult& result, const CheckOptions& options) {
  const int seeds = options.full ? 5 : 1;
  for (const LesionTask task : {LesionTask::kTexture, LesionTask::kContext}) {
    const bool texture = task == LesionTask::kTexture;
    double worst_gain = 1, worst_turn = 1, worst_ablation = 1e9, other_ablation = 0, blind = 0, accuracy = 1;
    for (int i = 0; i < seeds; ++i) {
      const Trust t = learn_whom_to_trust(task, options.seed + uint64_t(i));
      const double best_alone = std::max(t.radiomics_alone.accuracy, t.scan_alone.accuracy);
      worst_gain = std::min(worst_gain, t.both.accuracy - best_alone);
      accuracy = std::min(accuracy, t.both.accuracy);
      worst_turn = std::min(worst_turn, (texture ? 1 : -1) * (t.on_radiomics - t.on_scan));
      worst_ablation = std::min(worst_ablation, texture ? t.radiomics_ablation : t.scan_ablation);
      other_ablation = std::max(other_ablation, texture ? t.scan_ablation : t.radiomics_ablation);
      blind = std::max(blind, texture ? t.scan_alone.accuracy : t.radiomics_alone.accuracy);
      result.notes.push_back(
          printed("simulated lesions, %s decides, seed %llu: accuracy of both sides %.3f, radiomics alone %.3f, scan "
                  "alone %.3f, "
                  "concatenation %.3f; class token on radiomics %.2f, on the scan's 27 cells %.2f, on itself %.2f; "
                  "cross-entropy "
                  "added by another lesion's radiomics %.2f, by another's scan %.2f nats",
                  name_of(task).c_str(), static_cast<unsigned long long>(options.seed + uint64_t(i)), t.both.accuracy,
                  t.radiomics_alone.accuracy, t.scan_alone.accuracy, t.concatenation.accuracy, t.on_radiomics,
                  t.on_scan, t.on_itself, t.radiomics_ablation, t.scan_ablation));
      if (texture && i == 0)
        result.notes.push_back(printed("parameters: class token %lld, concatenation %lld",
                                       static_cast<long long>(t.parameters),
                                       static_cast<long long>(t.concatenation_parameters)));
    }
    const std::string name = "simulated, " + name_of(task) + " decides: ";
    const std::string side = texture ? "radiomics" : "the scan", other = texture ? "the scan" : "radiomics";
    result.at_least(name + "accuracy of both sides, worst seed", accuracy, 0.95);
    result.at_least(name + "accuracy of both less the better side alone, worst seed", worst_gain, 0);
    result.at_most(name + "accuracy of " + other + " alone (chance 0.5), best seed", blind, 0.65);
    result.at_least(name + "class token's attention on " + side + " less that on " + other + ", worst seed", worst_turn,
                    0);
    result.at_least(name + "cross-entropy added by another lesion's " + (texture ? "radiomics" : "scan"),
                    worst_ablation, 0.69);
    result.at_most(name + "cross-entropy added by another lesion's " + (texture ? "scan" : "radiomics"), other_ablation,
                   0.1);
  }
}
}  // namespace

CheckResult check_radiomics(const CheckOptions& options) {
  CheckResult result;
  check_features(result);
  check_trust(result, options);
  return result;
}

}  // namespace fovea::recipes
