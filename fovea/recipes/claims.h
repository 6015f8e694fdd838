#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace fovea::recipes {

/// What a statement of the textbook turns out to be.
enum class Verdict { kExact, kHolds, kHoldsIf, kWordingInverted, kWordingLoose, kFalse };

/// How long finding out takes: no time, seconds, or a training of minutes that only --full starts.
enum class ClaimCost { kInstant, kSeconds, kTrained };

/// What was found. Everything here is computed when the claim is run; the verdict is a predicate on the figures.
struct ClaimResult {
  Verdict verdict = Verdict::kFalse;
  std::string condition = {};  // of kHoldsIf: "the tokens are voxels"
  std::string computed = {};   // the figures for people, one line
  std::vector<std::pair<std::string, double>> figures = {};
  std::string inputs = {};  // "2000 draws of 64 normal keys"
  std::string with = {};    // the ops, layers or planner that computed it

  /// Errors: std::out_of_range for a name that is not there.
  double figure(const std::string& name) const;
  /// "holds, if the tokens are voxels".
  std::string verdict_text() const;
};

struct ClaimOptions {
  bool full = false;  // the trainings and timings too
  uint64_t seed = 0;
  std::filesystem::path image;  // a scan to count voxels of; empty: a phantom
};

/// One statement of the textbook, what it claims, and how the program finds out.
struct Claim {
  std::string id;         // "C13"
  std::string statement;  // in our words, one line
  std::string claimed;    // the only figure that is written down
  ClaimCost cost = ClaimCost::kInstant;
  std::function<ClaimResult(const ClaimOptions&)> run = {};
  /// What has to be fetched first, "" when all is there; empty: it needs nothing.
  std::function<std::string()> lacks = {};
};

/// Every claim by number. A recipe adds its own: a function returning them, declared below and named in claims.cpp.
const std::vector<Claim>& claims();

/// What came of one claim: a result, or why there is none.
struct ClaimOutcome {
  const Claim* claim = nullptr;
  std::optional<ClaimResult> result;
  std::string not_evaluated;  // "needs --full", "needs scripts/data mnist"
  std::string failure;        // the computation threw: a bug
  double seconds = 0;
};

/// Runs the named claims (none: all) in order. Trained ones only with options.full.
/// Errors   ArgumentError for an unknown id, IoError for the image. A computation that throws is a failure of its
/// claim.
std::vector<ClaimOutcome> run_claims(const std::vector<std::string>& ids, const ClaimOptions& options,
                                     const std::function<void(const ClaimOutcome&)>& done = {});

std::vector<Claim> score_claims();
std::vector<Claim> cost_claims();
std::vector<Claim> window_claims();
std::vector<Claim> layer_claims();
std::vector<Claim> application_claims();
std::vector<Claim> fusion_claims();
std::vector<Claim> report_text_claims();
std::vector<Claim> radiomics_claims();
std::vector<Claim> prognosis_claims();
std::vector<Claim> science_claims();
std::vector<Claim> bag_claims();
std::vector<Claim> autoencoder_claims();

}  // namespace fovea::recipes
