#pragma once
#include <torch/torch.h>

#include <array>
#include <string>
#include <vector>

#include "fovea/recipes/lobe_reports.h"

// A sentence asks a scan: which kind is the nodule of this lobe, and is there one at all? Row A7.
namespace fovea::recipes {

/// How a network may use a scan and a sentence. All read the scan by the same small encoder and the text by the same
/// small BERT, and answer from one vector of a case.
enum class ReportArm {
  kGated,              ///< the sentence attends to the scan; a gate weighs what it found against what it says
  kImageAlone,         ///< attention of a learned query, no sentence
  kTextAlone,          ///< the sentence, no scan
  kLateConcatenation,  ///< mean of the scan's tokens beside the sentence's vector, a perceptron of as many weights
};
std::string name_of(ReportArm arm);

/// On fresh scans, of sentences about regions with a nodule: share whose kind is told rightly, chance 1/2.
struct ArmScore {
  double clean = 0, noise = 0;  // the scan as it is; replaced by noise of its mean and spread
  double absent_auc = 0;        // sentences about regions without nodule told from others, clean scans
  int64_t parameters = 0;
};

constexpr std::array<double, 5> kNoiseShares = {0, 0.25, 0.5, 0.75, 1};

/// A figure for English and for Chinese sentences.
using ByLanguage = std::array<double, 2>;

/// What the gated network does on fresh scans.
struct ReportReading {
  std::vector<ArmScore> arms;  // in the order asked for
  // The rest is of ReportArm::kGated, which must be among them.
  ByLanguage mass{};      // attention within the named region, mean over regions with a nodule; a token belongs to the
                          // region of most of its voxels that have one
  ByLanguage pointing{};  // share of sentences whose strongest token touches the named nodule
  std::array<std::array<double, kKinds>, kRegions> pointing_at{};  // the same of each region and kind of nodule
  double pointing_near = 0;  // whose strongest token or one beside it touches it
  ByLanguage absent_auc{};  // sentences about regions without nodule told from others
  ByLanguage retrieval{};   // share of true findings that score higher than all eight false ones; chance 1/9
  std::array<std::array<double, kRegions>, kRegions> map{};  // [asked][region]: mean attention
  std::array<double, kNoiseShares.size()> gate{}, accuracy{},
      image_alone{}, text_at{};  // at kNoiseShares; image_alone: gate held at 1; text_at: held at 0, the same cases
  double text_alone = 0;        // gate held at 0, clean scans
  double swapped_mass = 0;      // attention in the mirror image of the named region after left and right are swapped
  double swapped_accuracy = 0;  // answers are those of the mirrored region
  double flips = 0;             // where it holds the other kind and the answer was right: share of answers that change
  double gate_of_shuffled = 0;  // voxels in random order: a corruption that was never trained on

  /// One question and where it looked, before and after left and right are swapped.
  struct Example {
    std::string question;
    torch::Tensor voxels;            // [Z,Y,X] as stored, x from the patient's left to the right
    torch::Tensor weights, swapped;  // [z,y,x] of tokens
  } example;
};

struct ReadingOptions {
  std::vector<ReportArm> arms = {ReportArm::kGated};
  std::vector<Body> bodies = {};  // train and test on these; empty: made-up chests, other ones in the test
  int64_t steps = 1000;
};

/// Trains the networks on the same scans, drawn anew in each step: kind of nodule, nodule or none; the gated network
/// also answers with the gate held at 1 and at 0, so that each modality learns to speak for itself and the gate learns
/// which to trust, and tells which of the batch's findings are true of which scan. For the first three fifths of the
/// steps scans are clean and the gated network is shown where the six regions lie (not the nodules): its attention
/// outside of the named one is a loss. Then attention is left to itself, and 45 % of the scans are wholly or partly
/// noise: a gate that never met noise could not close. Then the gated fusion alone learns for 15 % more steps, on
/// every share of noise: its gate would otherwise stand in the middle where half is noise. Same seed, same result.
/// Cost     about 30 ms a step for the gated network on one thread, 75 ms for all four
ReportReading learn_to_read_reports(const ReadingOptions& options, uint64_t seed);

}  // namespace fovea::recipes
