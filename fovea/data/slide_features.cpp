#include "fovea/data/slide_features.h"

#include <torch/torch.h>

#include <algorithm>

#include "fovea/core/error.h"
#include "fovea/data/tile_statistics.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/io/feature_file.h"

namespace fovea::data {

namespace fs = std::filesystem;

namespace {
// The smallest step between different values of a column: the stride of a grid, and the edge of tiles that do not overlap.
std::optional<int64_t> smallest_step(const torch::Tensor& coords) {
  std::optional<int64_t> step;
  for (int64_t axis = 0; axis < 2; ++axis) {
    const auto values = std::get<0>(torch::_unique(coords.select(1, axis).contiguous()));
    if (values.size(0) < 2) continue;
    const int64_t own = values.diff().min().item<int64_t>();
    step = step ? std::min(*step, own) : own;
  }
  return step;
}
}  // namespace

SlideFeatures read_slide_features(const fs::path& path) {
  auto file = io::read_feature_file(path);
  if (!file.tensors.contains("features")) throw IoError(path, "holds coordinates but no features; expected dataset 'features'");
  SlideFeatures out;
  const auto stored = to_torch(file.tensors.at("features"), "features");
  if (stored.dim() != 2 || !stored.is_floating_point()) throw IoError(path, c10::str("its features are ", stored.sizes(), " of ", stored.dtype().name(), ", expected tiles x numbers of floating point"));
  if (stored.size(0) == 0) throw IoError(path, "has no tile: its slide held no tissue");
  if (stored.size(1) == 0) throw IoError(path, "has tiles of no numbers");
  out.features = stored.to(torch::kFloat32).contiguous();
  if (!torch::isfinite(out.features).all().item<bool>()) throw IoError(path, "row " + std::to_string(torch::isfinite(out.features).all(1).logical_not().nonzero()[0].item<int64_t>()) + " of its features holds a value that is not finite");
  out.encoder = file.encoder;
  if (const auto coords = file.tensors.find("coords"); coords != file.tensors.end()) {
    out.coords = to_torch(coords->second, "coords");
    if (out.coords.dim() != 2 || out.coords.size(1) != 2 || out.coords.is_floating_point()) throw IoError(path, c10::str("its coords are ", out.coords.sizes(), ", expected tiles x 2 whole numbers"));
    if (out.coords.size(0) != out.features.size(0))
      throw IoError(path, "has " + std::to_string(out.features.size(0)) + " rows of features and " + std::to_string(out.coords.size(0)) + " coordinates, expected as many; make both anew from one tiling");
    out.coords = out.coords.to(torch::kInt64).contiguous();
    const auto number = [&](const char* name) { return file.numbers.contains(name) ? file.numbers.at(name) : 0.0; };
    if (number("patch_size_level0") >= 1)
      out.edge_level0 = int64_t(number("patch_size_level0"));
    else if (number("patch_size") >= 1 && number("downsample") >= 1)
      out.edge_level0 = int64_t(number("patch_size") * number("downsample"));
    else
      out.edge_level0 = smallest_step(out.coords);
    if (number("patch_size") >= 1) out.tile_px = int64_t(number("patch_size"));
    if (number("um_per_pixel") > 0) out.um_per_pixel = number("um_per_pixel");
  }
  return out;
}

fs::path find_slide_features(const fs::path& folder, const std::string& slide_id) {
  std::vector<fs::path> places;
  for (const char* ending : {".h5", ".pt", ".safetensors"})
    for (const char* sub : {"h5_files", "pt_files", ""}) places.push_back(folder / sub / (slide_id + ending));
  std::error_code ignored;
  std::vector<fs::path> jobs;  // TRIDENT: one folder an encoder
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.is_directory(ignored) && entry.path().filename().string().starts_with("features_")) jobs.push_back(entry.path());
  if (jobs.size() == 1) places.push_back(jobs[0] / (slide_id + ".h5"));
  for (const fs::path& place : places)
    if (fs::is_regular_file(place, ignored)) return place;
  throw IoError(folder, "has no features of slide '" + slide_id + "'; looked for h5_files/" + slide_id + ".h5, pt_files/" + slide_id + ".pt, " + slide_id + ".h5, .pt, .safetensors and features_*/" +
                            slide_id + ".h5" + (jobs.size() > 1 ? " (there are several features_*; give one of them)" : ""));
}

DescribedSlide describe_slide(io::Slide& slide, const TissueConfig& tissue, const TileConfig& tiles, const std::function<void(int64_t, int64_t)>& progress) {
  DescribedSlide out;
  out.tissue = find_tissue(slide, tissue);
  out.grid = tile_slide(slide, out.tissue, tiles);
  const int64_t n = int64_t(out.grid.corners.size());
  out.features.features = torch::empty({n, int64_t(tile_statistics_names().size())});
  out.features.coords = torch::empty({n, 2}, torch::kInt64);
  read_tiles(slide, out.grid, [&](size_t i, const io::SlideRegion& tile) {
    const auto numbers = tile_statistics(tile);
    std::copy(numbers.begin(), numbers.end(), out.features.features[int64_t(i)].data_ptr<float>());
    std::copy(out.grid.corners[i].begin(), out.grid.corners[i].end(), out.features.coords[int64_t(i)].data_ptr<int64_t>());
    if (progress) progress(int64_t(i) + 1, n);
  });
  out.features.edge_level0 = out.grid.edge_level0, out.features.encoder = kTileStatistics;
  out.features.tile_px = tiles.tile_px, out.features.um_per_pixel = tiles.um_per_pixel;
  return out;
}

void write_slide_features(const fs::path& path, const DescribedSlide& slide) {
  io::FeatureFile file;
  file.tensors["features"] = from_torch(slide.features.features);
  file.tensors["coords"] = from_torch(slide.features.coords);
  file.encoder = slide.features.encoder;
  const TileGrid& grid = slide.grid;
  file.numbers = {{"patch_size", double(grid.config.tile_px)}, {"patch_size_level0", double(grid.edge_level0)}, {"overlap", double(grid.config.overlap_px)},
                  {"level0_width", double(grid.width)}, {"level0_height", double(grid.height)}, {"um_per_pixel", grid.config.um_per_pixel}};
  io::write_feature_file(path, file);
}

}  // namespace fovea::data
