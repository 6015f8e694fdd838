// Claims that no recipe of this version computes. A recipe takes its line from here to its own file and adds the
// function that computes it.
#include "fovea/recipes/claims.h"

namespace fovea::recipes {

std::vector<Claim> awaited_claims() {
  using enum ClaimCost;
  return {
      {"C41", "Hiding most blocks forces long-range dependencies", "forces", kTrained, {}, "A9"},
      {"C49", "MAE learns anatomy without labels", "learns it", kTrained, {}, "A9"},
  };
}

}  // namespace fovea::recipes
