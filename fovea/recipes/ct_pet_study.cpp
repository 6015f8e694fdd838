#include "fovea/recipes/ct_pet_study.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/data/voxels.h"
#include "fovea/io/image.h"
#include "fovea/nn/volume_tokens.h"

namespace fovea::recipes {

namespace {
constexpr double kSearchMm = 20, kPetMm = 54, kCtMm = 30, kAskMm = 12, kSoftHu = -200;
constexpr int64_t kCtStride = 2;

/// Voxels of a volume no further than `reach_mm` from a point along each axis, every `stride`-th in plane.
struct Part {
  torch::Tensor voxels;  // [Z,Y,X] f32
  Geometry grid;
  torch::Tensor mm;  // [Z*Y*X,3] f64
};
Part part_around(const Volume& volume, const Point& mm, double reach_mm, int64_t stride, const std::filesystem::path& path) {
  const Geometry& g = volume.geometry;
  const Point at = g.to_index(mm);
  const auto spacing = g.spacing_mm();
  data::Box box;
  std::array<int64_t, 3> every{1, stride, stride};
  Part part;
  for (int axis = 0; axis < 3; ++axis) {
    const double middle = at[2 - axis], reach = reach_mm / spacing[axis];
    const int64_t begin = std::max<int64_t>(0, std::llround(middle - reach));
    const int64_t end = std::min(g.shape[axis], int64_t(std::llround(middle + reach)) + 1);
    if (end <= begin) throw IoError(path, "does not reach the focus at " + std::to_string(mm[0]) + " " + std::to_string(mm[1]) + " " +
                                              std::to_string(mm[2]) + " mm (RAS): " + to_string(g));
    box.begin[axis] = begin, box.shape[axis] = end - begin;
  }
  part.grid = data::cropped(g, box);
  for (int axis = 0; axis < 3; ++axis) {
    part.grid.shape[axis] = (box.shape[axis] + every[axis] - 1) / every[axis];
    for (int row = 0; row < 3; ++row) part.grid.affine[row][2 - axis] *= double(every[axis]);
  }
  part.voxels = torch::empty({part.grid.shape[0], part.grid.shape[1], part.grid.shape[2]});
  data::visit_channel(volume, 0, [&](auto view) {
    float* to = part.voxels.data_ptr<float>();
    for (int64_t z = 0; z < box.shape[0]; z += every[0])
      for (int64_t y = 0; y < box.shape[1]; y += every[1])
        for (int64_t x = 0; x < box.shape[2]; x += every[2])
          *to++ = static_cast<float>(view(box.begin[0] + z, box.begin[1] + y, box.begin[2] + x));
  });
  part.mm = nn::positions_mm(nn::cell_centres({part.grid.shape[0], part.grid.shape[1], part.grid.shape[2]}, {1, 1, 1}), part.grid);
  return part;
}
}  // namespace

CtPetStudy read_ct_pet_study(const std::filesystem::path& folder, const Point& near_mm) {
  const Volume ct = io::read_image(folder / "CT");
  io::ReadOptions in_suv;
  in_suv.suv = true;
  const Volume pet = io::read_image(folder / "PT_AC", in_suv);
  const Part search = part_around(pet, near_mm, kSearchMm, 1, folder / "PT_AC");
  const auto hottest = search.mm[search.voxels.flatten().argmax().item<int64_t>()];
  const Point focus{hottest[0].item<double>(), hottest[1].item<double>(), hottest[2].item<double>()};
  const Part uptake = part_around(pet, focus, kPetMm, 1, folder / "PT_AC"), anatomy = part_around(ct, focus, kCtMm, kCtStride, folder / "CT");
  const auto near = (anatomy.mm - hottest).norm(2, 1) <= kAskMm;
  CtPetStudy study;
  study.voxels = (near & (anatomy.voxels.flatten() > kSoftHu)).nonzero().squeeze(1);
  if (study.voxels.numel() == 0) throw IoError(folder / "CT", "no soft tissue within 12 mm of the hottest PET voxel");
  study.ct = ((anatomy.voxels.clamp(-1024, 500) + 850) / 900).unsqueeze(0).unsqueeze(0), study.ct_grid = anatomy.grid;
  study.pet = uptake.voxels.unsqueeze(0).unsqueeze(0), study.pet_grid = uptake.grid;
  return study;
}

}  // namespace fovea::recipes
