#pragma once
#include <torch/torch.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

// Each sharp CT voxel asks a coarse, blurred, possibly misplaced PET whether its tumour lives. Row A5.
namespace fovea::recipes {

constexpr int64_t kLargestPetShift = 3;  // voxels of the PET, 4 mm each, along x

/// Made-up pairs. CT: 4 x 16 x 40 voxels of 2 mm with two tumours, sharp but noisy, viable and necrotic ones of the same
/// density. PET: 2 x 8 x 20 voxels of 4 mm; uptake 5 in viable tumour, 0.1 in necrosis, 1 elsewhere, blurred by 6 mm
/// FWHM, with Poisson noise of 20 counts a unit. The PET lies up to 3 of its voxels beside where its affine says, as
/// breathing makes it.
struct CtPetPairs {
  torch::Tensor ct;      // [B,1,4,16,40] f32
  torch::Tensor pet;     // [B,1,2,8,20] f32
  torch::Tensor tumour;  // [B,4,16,40] f32: 1 in viable and necrotic tumour, as the CT shows it
  torch::Tensor viable;  // the part that is to be found; never empty
  torch::Tensor shift;   // [B] f32, PET voxels along x
};
/// shift: of all pairs; absent: whole, uniform in -3 ... 3.
CtPetPairs draw_ct_pet(int64_t count, at::Generator generator, std::optional<double> shift = {});

enum class CtPetNetwork {
  kCrossAttention,  ///< CT tokens ask PET tokens on the PET's own grid: nn::CrossAttention, 20 mm around
  kConcatenation,   ///< PET resampled to the CT grid as a second channel; four convolutions that see 16 mm around
  kCtAlone,         ///< the same convolutions on one channel
  kPetAlone,
};
std::string name_of(CtPetNetwork network);

/// On 64 fresh pairs; means over the pairs.
struct CtPetScore {
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
  // One pair at `example_shift`: CT slice [16,40], PET slice [8,20], and one tumour voxel's attention on it.
  torch::Tensor ct, pet, attention;
  std::array<int64_t, 2> voxel{};  // y, x of that voxel
};

struct CtPetResult {
  std::vector<CtPetScore> scores;         // as the networks were given
  std::optional<PetAttention> attention;  // of kCrossAttention, if it is among them
};

/// Trains the networks on the same pairs, drawn anew in each of `steps` steps; a seventh of the PETs is missing. Same
/// seed, same result.
CtPetResult learn_ct_pet(const std::vector<CtPetNetwork>& networks, uint64_t seed, int64_t steps = 200,
                         double example_shift = 2);

}  // namespace fovea::recipes
