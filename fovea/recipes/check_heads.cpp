// P6, several heads: no more parameters than one, the same function as single heads side by side, and specialists with
// temperatures of their own.
#include <algorithm>
#include <cmath>

#include "fovea/recipes/check.h"
#include "fovea/recipes/layer_experiments.h"
#include "fovea/recipes/three_tissues.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
void check_three_tissues(CheckResult& result, const CheckOptions& options) {
  int ordered = 0;
  double purity = 1, own = INFINITY, others = 0, ratio = 0;
  const int seeds = options.full ? 5 : 3;
  for (int i = 0; i < seeds; ++i) {
    const TissueHeads heads = learn_three_tissues(options.seed + i);
    const auto& beta = heads.beta;
    ordered += heads.each_has_its_own && beta[kTumour] > beta[kOedema] && beta[kOedema] > beta[kNormal];
    for (int h = 0; h < kTissues; ++h)
      for (int t = 0; t < kTissues; ++t) {
        if (h == t)
          purity = std::min(purity, heads.purity[h][t]), own = std::min(own, heads.ablation[h][t]);
        else
          others = std::max(others, heads.ablation[h][t]);
      }
    ratio = std::max(ratio, heads.three.mean_error() / heads.one.mean_error());
    result.notes.push_back(report::printed(
        "three tissues, seed %llu: beta of the tumour, oedema and normal head %.1f, %.1f, %.1f (tau %.3f, %.3f, %.3f); "
        "error %.3f with three heads, %.3f with three at the first temperature, %.3f with one head at its beta %.1f",
        static_cast<unsigned long long>(options.seed + i), beta[kTumour], beta[kOedema], beta[kNormal],
        heads.tau[kTumour], heads.tau[kOedema], heads.tau[kNormal], heads.three.mean_error(),
        heads.shared.mean_error(), heads.one.mean_error(), heads.beta_of_one));
  }
  result.equal("three tissues: seeds with beta_tumour > beta_oedema > beta_normal", ordered, seeds);
  result.at_most("three tissues: error of three heads over that of one at equal parameters, worst seed", ratio, 0.9);
  result.at_least("three tissues: attention of a head on its own tissue, worst head and seed", purity, 0.7);
  result.at_least("three tissues: error of its tissue added by a missing head (variance 1), smallest", own, 0.5);
  result.at_most("three tissues: error of the other tissues added by it, largest", others, 0.05);
}
}  // namespace

CheckResult check_heads(const CheckOptions& options) {
  CheckResult result;
  for (const int64_t heads : {1, 2, 4, 8, 12}) {
    result.equal("parameters, width 768, " + std::to_string(heads) + " heads, all biases",
                 double(attention_parameters(768, heads, /*qkv_bias=*/true)), 2362368);
    result.equal("the same without bias on q, k and v", double(attention_parameters(768, heads, /*qkv_bias=*/false)),
                 2360064);
  }
  for (const int64_t heads : {16, 24})
    result.equal("parameters, " + std::to_string(heads) + " heads, no bias on q, k and v",
                 double(attention_parameters(768, heads, false)), 2360064);
  for (const int64_t heads : {1, 3, 8})
    result.at_most(std::to_string(heads) + " heads against single runs, concatenated and projected: largest difference",
                   heads_against_single_runs(96, heads, options.seed), 1e-6);
  check_three_tissues(result, options);
  return result;
}

}  // namespace fovea::recipes
