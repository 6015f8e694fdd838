#include "fovea/recipes/claims.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "fovea/core/error.h"

namespace fovea::recipes {

double ClaimResult::figure(const std::string& name) const {
  for (const auto& [key, value] : figures)
    if (key == name) return value;
  throw std::out_of_range("claim has no figure " + name);
}

std::string ClaimResult::verdict_text() const {
  switch (verdict) {
    case Verdict::kExact:
      return "exact";
    case Verdict::kHolds:
      return "holds";
    case Verdict::kHoldsIf:
      return "holds, if " + condition;
    case Verdict::kWordingInverted:
      return "wording inverted";
    case Verdict::kWordingLoose:
      return "wording loose";
    default:
      return "false";
  }
}

const std::vector<Claim>& claims() {
  static const std::vector<Claim> all = [] {
    std::vector<Claim> list;
    for (const auto group :
         {score_claims, cost_claims, window_claims, layer_claims, application_claims, fusion_claims, report_text_claims,
          radiomics_claims, prognosis_claims, science_claims, bag_claims, autoencoder_claims})
      for (Claim& claim : group()) list.push_back(std::move(claim));
    const auto number = [](const Claim& c) { return std::stoi(c.id.substr(1)); };
    std::stable_sort(list.begin(), list.end(), [&](const Claim& a, const Claim& b) { return number(a) < number(b); });
    return list;
  }();
  return all;
}

namespace {
const Claim& find_claim(const std::string& id) {
  std::vector<std::string> known;
  for (const Claim& claim : claims()) {
    if (claim.id == id) return claim;
    known.push_back(claim.id);
  }
  const std::string near = nearest_name(id, known);
  throw ArgumentError("claims: no claim is called '" + id + "'" + (near.empty() ? "" : ", did you mean " + near + "?") +
                      "; there are " + known.front() + " to " + known.back());
}

ClaimOutcome run_claim(const Claim& claim, const ClaimOptions& options) {
  ClaimOutcome outcome{&claim, {}, "", "", 0};
  if (claim.cost == ClaimCost::kTrained && !options.full) {
    outcome.not_evaluated = "needs --full";
  } else if (const std::string lacks = claim.lacks ? claim.lacks() : ""; !lacks.empty()) {
    outcome.not_evaluated = lacks;
  } else {
    const auto start = std::chrono::steady_clock::now();
    try {
      outcome.result = claim.run(options);
    } catch (const Error& e) {
      if (e.code() != ExitCode::kBug) throw;
      outcome.failure = e.what();
    } catch (const std::exception& e) {
      outcome.failure = e.what();
    }
    outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return outcome;
}
}  // namespace

std::vector<ClaimOutcome> run_claims(const std::vector<std::string>& ids, const ClaimOptions& options,
                                     const std::function<void(const ClaimOutcome&)>& done) {
  std::vector<const Claim*> chosen;
  for (const std::string& id : ids) chosen.push_back(&find_claim(id));
  if (ids.empty())
    for (const Claim& claim : claims()) chosen.push_back(&claim);
  std::vector<ClaimOutcome> outcomes;
  for (const Claim* claim : chosen) {
    outcomes.push_back(run_claim(*claim, options));
    if (done) done(outcomes.back());
  }
  return outcomes;
}

}  // namespace fovea::recipes
