#pragma once
#include <torch/torch.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "fovea/core/geometry.h"

// Each sharp CT voxel asks a coarse, blurred, possibly misplaced PET whether its tumour lives. Row A5.
namespace fovea::recipes {

constexpr int64_t kLargestPetShift = 3;  // voxels of the PET, 6 mm each, along x

/// Made-up pairs. CT: 2 x 12 x 60 voxels of 2 mm with two tumours, sharp but noisy, viable and necrotic ones of the same
/// density. PET: 1 x 4 x 20 voxels of 4 x 6 x 6 mm; uptake 5 in viable tumour, 0.5 in necrosis, elsewhere one of 0.5 to 1.5 that
/// is the patient's, blurred by 6 mm FWHM, with Poisson noise of 20 counts a unit. The PET lies up to 3 of its voxels
/// beside where its affine says, as breathing makes it: far less than the tumours lie from each other and, so that
/// nothing moves out of sight, from the border.
struct CtPetPairs {
  torch::Tensor ct;      // [B,1,2,12,60] f32
  torch::Tensor pet;     // [B,1,1,4,20] f32
  torch::Tensor tumour;  // [B,2,12,60] f32: 1 in viable and necrotic tumour, as the CT shows it
  torch::Tensor viable;  // the part that is to be found; never empty
  torch::Tensor shift;   // [B] f32, PET voxels along x
};
/// shift: of all pairs; absent: whole, uniform in -3 ... 3.
CtPetPairs draw_ct_pet(int64_t count, at::Generator generator, std::optional<double> shift = {});

enum class CtPetNetwork {
  kCrossAttention,  ///< CT tokens ask PET tokens on the PET's own grid: nn::CrossAttention, 30 mm around
  kConcatenation,   ///< PET resampled to the CT grid as a second channel; four convolutions that see as far
  kCtAlone,         ///< the same convolutions on one channel
  kPetAlone,
};
std::string name_of(CtPetNetwork network);

/// On 1024 fresh pairs; means over the pairs.
struct CtPetScore {
  std::vector<double> dices, hd95s_mm;  // of each pair
  double dice = 0, hd95_mm = 0;  // of the viable tumour; nothing found counts as the grid's diagonal
  double auc = 0;                // viable against necrotic tumour voxels
  double dice_without_pet = 0;   // with the PET missing
  int64_t parameters = 0;
};

/// How the attention of viable tumour voxels follows a PET that is moved.
struct PetAttention {
  std::array<double, 2 * kLargestPetShift + 1> moved{};  // centroid along x by PET voxels of shift, from shift -3 on
  double slope = 0;                                      // of `moved` against the shift
  double gate = 0, gate_without_pet = 0;                 // nn::CrossAttended::gate of those voxels
  // One pair at `example_shift`: CT slice [12,60], PET slice [4,20], and one tumour voxel's attention on it.
  torch::Tensor ct, pet, attention;
  std::array<int64_t, 2> voxel{};  // y, x of that voxel
};

/// Part of a real study, in the simulator's units: CT about 0 around and 1 in what may be tumour, PET in SUV.
struct CtPetStudy {
  torch::Tensor ct, pet;         // [1,1,Z,Y,X] f32, each on its own grid
  Geometry ct_grid, pet_grid;
  torch::Tensor voxels;          // [R] int64: CT voxels that are looked at
};

/// Where those voxels look, and what that hangs on.
struct StudyAttention {
  double gate = 0, gate_elsewhere = 0;  // share that goes to the PET; the same, largest, with the PET a metre away
  double attended_suv = 0;              // that they read, mean
  double slope = 0;                     // of the attention's centre, by the PET affine's shifts of 4, 8 and 12 mm along x, y, z
  double moved_together_mm = 0;         // what the centre, seen from the asking voxel, moves by when both affines are: 0
  torch::Tensor attended_mm, asking_mm; // [R,3] f64, x y z
};

struct CtPetResult {
  std::vector<CtPetScore> scores;         // as the networks were given
  std::optional<PetAttention> attention;  // of kCrossAttention, if it is among them
  std::optional<StudyAttention> study;    // the same of a real study, if one was given
};

constexpr int64_t kCtPetSteps = 320;
constexpr double kSharpen = 0.05;

/// Trains the networks on the same pairs, drawn anew in each of `steps` steps; a seventh of the PETs is missing. Same
/// seed, same result, whichever other networks there are.
///   sharpen: weight of the entropy, in nats, of the attention of viable voxels in cross-attention's loss. The answers
///   leave open how sharply it looks: tumours are told apart just as well by a third of the weights on what is hot.
CtPetResult learn_ct_pet(const std::vector<CtPetNetwork>& networks, uint64_t seed, int64_t steps = kCtPetSteps,
                         double example_shift = 2, double sharpen = kSharpen, const CtPetStudy* study = nullptr);

}  // namespace fovea::recipes
