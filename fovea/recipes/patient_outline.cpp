#include "fovea/recipes/patient_outline.h"

#include <torch/torch.h>

#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/data/resample.h"
#include "fovea/data/voxels.h"
#include "fovea/io/image.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

namespace {
void check_file_name(const std::string& id) {
  if (id.empty() || id == "." || id == ".." || id.find_first_of("/\\") != std::string::npos)
    throw ArgumentError("predict: patient '" + id + "' cannot name a file; outlines are written as FOLDER/ID.nii.gz");
}

// 1 on the voxels of `scan` where the map [Z,Y,X] on a grid over `box`, in canonical voxels of the scan, is above 1/2.
Volume carried_back(const torch::Tensor& map, const data::Box& box, const Volume& scan) {
  auto fine = torch::empty({box.shape[0], box.shape[1], box.shape[2]});
  data::resample_linear(
      View<const float, 3>::contiguous(map.data_ptr<float>(), {map.size(0), map.size(1), map.size(2)}),
      View<float, 3>::contiguous(fine.data_ptr<float>(), box.shape), data::Antialias::kOn);
  Volume out = Volume::zeros(scan.geometry, DType::kU8);
  out.header = scan.header;
  const auto canonical = reorient(View<uint8_t, 3>::contiguous(out.as<uint8_t>().data(), scan.geometry.shape),
                                  to_canonical(scan.geometry));
  const auto found = fine.accessor<float, 3>();
  for (int64_t z = 0; z < box.shape[0]; ++z)
    for (int64_t y = 0; y < box.shape[1]; ++y)
      for (int64_t x = 0; x < box.shape[2]; ++x) {
        const std::array<int64_t, 3> at = {z + box.begin[0], y + box.begin[1], x + box.begin[2]};
        bool inside = true;
        for (int a = 0; a < 3; ++a) inside &= at[a] >= 0 && at[a] < canonical.shape[a];
        if (inside) canonical(at[0], at[1], at[2]) = found[z][y][x] > 0.5f;
      }
  return out;
}
}  // namespace

std::vector<fs::path> write_outlines(const PatientModel& model, const data::PatientTable& table,
                                     const EncodedPatients& patients, const fs::path& folder) {
  if (!model.network->config().segment)
    throw ArgumentError("predict: the model was not trained to outline; train one with --set segmentation_weight=1");
  for (const data::Patient& one : table.patients) check_file_name(one.id);
  fs::create_directories(folder);
  const torch::NoGradGuard no_grad;
  auto network = model.network;
  network->eval();
  std::vector<fs::path> files;
  Progress bar("outline", int64_t(table.patients.size()));
  for (size_t r = 0; r < table.patients.size(); ++r) {
    const data::Patient& one = table.patients[r];
    bar.advance();
    if (!one.images[0]) continue;
    const auto answer = network->forward(patients.rows(torch::tensor({int64_t(r)}, torch::kLong)));
    const auto inside = answer.segmentation.softmax(1)[0][1].contiguous();
    files.push_back(folder / (one.id + ".nii.gz"));
    io::write_image(files.back(), carried_back(inside, patients.boxes[r], data::read_volume(*one.images[0], "image")));
  }
  return files;
}

}  // namespace fovea::recipes
