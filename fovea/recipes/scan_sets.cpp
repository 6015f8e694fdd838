// The real scans of row A9.
#include "fovea/data/dataset.h"
#include "fovea/data/fixed_grid.h"
#include "fovea/data/voxels.h"
#include "fovea/io/data_folder.h"
#include "fovea/recipes/hidden_patches.h"

namespace fovea::recipes {

namespace {
// The middle of an array, `shape` voxels of it; where it is smaller, its border is repeated.
torch::Tensor middle(const torch::Tensor& volume, const std::array<int64_t, 3>& shape) {
  auto out = volume;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t n = volume.size(axis), first = (n - shape[axis]) / 2 - (n < shape[axis] && (shape[axis] - n) % 2 ? 1 : 0);
    out = out.index_select(axis, (torch::arange(shape[axis]) + first).clamp(0, n - 1));
  }
  return out.contiguous();
}

torch::Tensor tensor_of(const Volume& volume) {
  torch::Tensor out;
  data::visit_channel(volume, 0, [&](const auto& view) {
    const auto& shape = volume.geometry.shape;
    out = torch::empty({shape[0], shape[1], shape[2]});
    float* to = out.data_ptr<float>();
    for (int64_t i = 0; i < volume.geometry.voxels(); ++i) to[i] = float(view.data[i]);
  });
  return out;
}

// Voxels of twice the edge: [Z,Y,X] or [C,Z,Y,X] -> [C,Z/2,Y/2,X/2].
torch::Tensor halved(const torch::Tensor& volume) {
  const auto x = volume.dim() == 3 ? volume.unsqueeze(0) : volume;
  return torch::avg_pool3d(x, {2, 2, 2});
}

torch::Tensor standardised(const torch::Tensor& x) { return (x - x.mean()) / x.std(); }
}  // namespace

std::optional<ScanSet> hippocampus_scans() {
  const auto folder = io::find_data("Task04_Hippocampus");
  if (!folder) return {};
  constexpr std::array<int64_t, 3> kShape{30, 48, 30};
  const auto dataset = data::open_dataset(*folder);
  ScanSet set;
  set.name = "hippocampus", set.classes = int64_t(dataset.labels.size()), set.voxel_mm = {2, 2, 2}, set.patch = {3, 3, 3};
  std::vector<torch::Tensor> images[2], labels[2];
  for (size_t i = 0; i < dataset.training.size(); ++i) {
    const auto& one = dataset.training[i];
    const int to = i % 4 == 3;
    images[to].push_back(standardised(halved(middle(tensor_of(data::read_images(one, 1).front()), kShape))));
    const auto label = middle(tensor_of(data::read_volume(one.label, "label")), kShape).to(torch::kLong);
    labels[to].push_back(halved(torch::one_hot(label, set.classes).permute({3, 0, 1, 2}).to(torch::kFloat)).argmax(0));
  }
  set.train = torch::stack(images[0]), set.test = torch::stack(images[1]);
  set.train_labels = torch::stack(labels[0]), set.test_labels = torch::stack(labels[1]);
  return set;
}

std::optional<ScanSet> head_scans() {
  const std::filesystem::path colin = "/usr/share/mricron/templates/ch2.nii.gz";
  const auto average = io::find_data("mni152/t1.nii.gz");
  if (!average || !std::filesystem::exists(colin)) return {};
  constexpr int64_t kEdge = 36;
  constexpr double kFieldMm = 209;
  const auto read = [&](const std::filesystem::path& file) { return data::read_fixed_grid(file, std::nullopt, {{kEdge, kEdge, kEdge}, kFieldMm}).voxels.view({1, 1, kEdge, kEdge, kEdge}); };
  ScanSet set;
  set.name = "heads", set.voxel_mm = {kFieldMm / kEdge, kFieldMm / kEdge, kFieldMm / kEdge}, set.patch = {6, 6, 6};
  set.train = read(colin), set.test = read(*average);
  return set;
}

}  // namespace fovea::recipes
