// P6, several heads: no more parameters than one, and the same function as single heads side by side.
#include "fovea/recipes/check.h"
#include "fovea/recipes/layer_experiments.h"

namespace fovea::recipes {

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
  result.notes.push_back("not part of this row yet: temperature of each head and the three-tissue experiment");
  return result;
}

}  // namespace fovea::recipes
