#pragma once
#include <torch/torch.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

// Is the answer in how a scan and a table go together? A lesion's side XOR a clinical flag. Row A6.
namespace fovea::recipes {

constexpr int64_t kFlagToken = 2;  // among the table's four: age, marker, flag, smoker

/// Made-up patients: a noisy scan of 4 x 8 x 48 voxels with one lesion, in the left or the right half along x, and a row of
/// a table. The answer is the lesion's side XOR the flag, so that neither says anything alone. Each half is covered for 16
/// to 24 voxels from the middle, drawn for each: how much of a half holds no lesion tells nothing of where it is.
struct SidedLesions {
  torch::Tensor voxels;   // [B,1,4,8,48] f32, 0 where not covered
  torch::Tensor covered;  // [B,48] bool: voxels along x that the scan covers; even counts on both sides
  torch::Tensor numbers;  // [B,2] f32: age and marker, NaN in a fifth of the cells; they mean nothing
  torch::Tensor codes;    // [B,2] int64: flag (2 values) and smoker (3, meaningless), -1 where missing
  torch::Tensor answer;   // [B] f32: 0 or 1
  torch::Tensor side;     // [B] int64: 0 where the lesion lies at small x
};
/// missing: the share of cells of `codes` that are -1.
SidedLesions draw_sided_lesions(int64_t count, double missing, at::Generator generator);

/// Who may look at what. In the end every one of them averages the tokens of each side and reads the means linearly, so
/// that no sum of a word on the scan and one on the table gives the answer. In kTwoWay each side's mean answers for itself.
enum class SideFlagNetwork {
  kTwoWay,      ///< nn::CoAttention: each side asks the other, features with their names; then a perceptron on each token
  kParallel,    ///< nn::ParallelCoAttention; its two vectors in place of the means
  kImageAlone,  ///< kTwoWay, the flag always missing
  kTableAlone,  ///< kTwoWay, the scan always missing
  kLate,        ///< no attention: a wider perceptron on each token, the means concatenated
  kLateHidden,  ///< kLate, and a hidden layer behind the concatenation: what a sum lacks, without attention
};
std::string name_of(SideFlagNetwork network);
/// The scan's tokens and the table's can act on each other before the linear end.
bool joins_both(SideFlagNetwork network);

/// On 1024 fresh patients whose flag is known. Chance: accuracy 1/2, cross-entropy ln 2.
struct SideFlagScore {
  double accuracy = 0, cross_entropy_nats = 0;
  int64_t parameters = 0;
  std::vector<double> right;  // 1 or 0 of each patient
};

/// What the two-way form attends to on the same patients, and what it says when a side is missing.
struct SideFlagAttention {
  double on_lesion_side = 0;     // of the flag's attention on the scan, mean over heads: share on the lesion's half
  double before_training = 0;    // the same of untrained weights, which lean to bright cells
  std::array<double, 2> by_flag{};  // the same, of patients whose flag is 0 and 1
  double points_to_side = 0;     // share of patients where more than half of it lies there
  double lesion_on_flag = 0;     // of the attention of the tokens of the lesion's half on the table: share on the flag
  double doubt_without_flag = 0;   // mean |p - 1/2| with the flag missing, 0 is not knowing
  double doubt_without_image = 0;  // and with the scan missing
  torch::Tensor example_voxels, example_rows;  // [4,8,48] of one patient and its flag's attention [4,24] (y, x of tokens)
};

struct SideFlagResult {
  std::vector<SideFlagScore> scores;           // as the networks were given
  std::optional<SideFlagAttention> attention;  // of kTwoWay, if it is among them
};

constexpr int64_t kSideFlagStarts = 2;

/// Trains the networks on the same patients, drawn anew in each of `steps` steps; a quarter of the flags and of the scans is
/// missing. Networks that join both sides begin from kSideFlagStarts random weights; after three fifths of the steps the
/// one that answers 512 other patients best goes on. Same seed, same result.
SideFlagResult learn_side_and_flag(const std::vector<SideFlagNetwork>& networks, uint64_t seed, int64_t steps = 800);

}  // namespace fovea::recipes
