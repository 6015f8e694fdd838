#include "fovea/recipes/segment_explain.h"

#include <torch/torch.h>

#include <cmath>
#include <cstdio>

#include "fovea/core/error.h"
#include "fovea/data/preprocess.h"
#include "fovea/infer/attention_maps.h"
#include "fovea/io/image.h"
#include "fovea/io/json_file.h"
#include "fovea/ops/parallel.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

namespace {
using infer::Triple;

// The voxel of the scan's own array (Z, Y, X) that is asked for.
Triple asked_voxel(const ExplainOptions& options, const Geometry& source) {
  if (options.at_mm.has_value() == options.at_xyz.has_value())
    throw ArgumentError("explain: give the voxel either in millimetres (--mm R,A,S) or as index (--voxel x,y,z)");
  if (options.at_mm) return infer::voxel_at(source, *options.at_mm);
  const auto& v = *options.at_xyz;
  const Triple zyx{v[2], v[1], v[0]};
  for (int a = 0; a < 3; ++a)
    if (zyx[a] < 0 || zyx[a] >= source.shape[a])
      throw ArgumentError("explain: voxel " + std::to_string(v[0]) + "," + std::to_string(v[1]) + "," + std::to_string(v[2]) + " is outside the scan: " + to_string(source));
  return zyx;
}

// Entropy, effective keys and mean distance of each head at the asked token, from the weight of each token.
io::Json heads_of(const infer::LayerAttention& layer, const std::array<double, 3>& spacing_mm) {
  // Every token_voxels-th voxel of the map carries the weight of one token.
  const auto tokens = layer.map.slice(1, 0, {}, layer.token_voxels[0]).slice(2, 0, {}, layer.token_voxels[1]).slice(3, 0, {}, layer.token_voxels[2]).contiguous();
  const auto w = tokens.accessor<float, 4>();
  io::Json heads = io::Json::array();
  for (int64_t h = 0; h < tokens.size(0); ++h) {
    double entropy = 0, distance = 0, sum = 0;
    int64_t keys = 0;
    for (int64_t z = 0; z < tokens.size(1); ++z)
      for (int64_t y = 0; y < tokens.size(2); ++y)
        for (int64_t x = 0; x < tokens.size(3); ++x) {
          const double p = w[h][z][y][x];
          if (p <= 0) continue;
          const double dz = double(z - layer.query[0]) * double(layer.token_voxels[0]) * spacing_mm[0];
          const double dy = double(y - layer.query[1]) * double(layer.token_voxels[1]) * spacing_mm[1];
          const double dx = double(x - layer.query[2]) * double(layer.token_voxels[2]) * spacing_mm[2];
          entropy -= p * std::log(p), distance += p * std::sqrt(dz * dz + dy * dy + dx * dx), sum += p, ++keys;
        }
    heads.push_back({{"entropy_nats", entropy}, {"effective_keys", std::exp(entropy)}, {"keys", keys}, {"mean_distance_mm", sum > 0 ? distance / sum : 0},
                     {"padded_share", layer.padded_share[h].item<double>()}});
  }
  return heads;
}

io::Json report_of(const std::vector<infer::HeadReport>& heads) {
  io::Json list = io::Json::array();
  for (const auto& h : heads)
    list.push_back({{"layer", h.layer}, {"head", h.head}, {"queries", h.queries}, {"entropy_nats", h.entropy_nats}, {"effective_keys", h.effective_keys},
                    {"mean_distance_mm", h.distance_mm}, {"own_region_share", h.own_region_share}, {"own_region_uniform", h.own_region_uniform}});
  return list;
}
// Files are written beside the folder that is asked for; it takes their place when all are there, or they go.
class PartialFolder {
 public:
  explicit PartialFolder(const fs::path& target) : target_(target), partial_(target.string() + ".partial") {
    fs::remove_all(partial_);
    fs::create_directories(partial_);
  }
  ~PartialFolder() {
    std::error_code ignored;
    fs::remove_all(partial_, ignored);
  }
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  const fs::path& partial() const { return partial_; }
  void replace() const {
    fs::remove_all(target_);
    fs::rename(partial_, target_);
  }

 private:
  fs::path target_, partial_;
};
}  // namespace

void explain_voxel(const Segmenter& segmenter, const PredictInput& input, const ExplainOptions& options, const fs::path& folder) {
  if (fs::exists(folder) && !fs::exists(folder / "explain.json") && !fs::is_empty(folder))
    throw ArgumentError("explain: " + folder.string() + " exists and holds something else; choose another --output");
  const ParallelFor parallel = ops::torch_parallel_for;
  auto p = data::preprocess({input.id, input.images, {}}, segmenter.plan, parallel);
  const Triple source_voxel = asked_voxel(options, p.source);
  const Point mm = p.source.to_mm({double(source_voxel[2]), double(source_voxel[1]), double(source_voxel[0])});
  Triple voxel = infer::voxel_at(p.grid, mm);
  if (options.mirror_left_right) p.image = p.image.flip({3}).contiguous(), voxel[2] = p.grid.shape[2] - 1 - voxel[2];

  torch::NoGradGuard no_grad;
  const auto windows = infer::attention_maps(p.image, p.grid, *segmenter.network, segmenter.windows, voxel);
  const auto regions = infer::predict_labels(p.image, segmenter.window_network(), segmenter.windows);
  const auto heads = infer::head_report(p.image, p.grid, *segmenter.network, segmenter.windows, regions);

  const PartialFolder whole(folder);
  const fs::path& partial = whole.partial();
  io::Json blocks = io::Json::array();
  for (const auto& layer : windows.front().layers) {
    const std::string name = layer.layer.ends_with(".attn") ? layer.layer.substr(0, layer.layer.size() - 5) : layer.layer;
    auto map = infer::placed_in_image(layer.map, windows.front().start, p.grid.shape);
    if (options.mirror_left_right) map = map.flip({3}).contiguous();
    io::write_image(partial / (name + ".nii.gz"), data::restore_map(map, p, 0, parallel));
    blocks.push_back({{"name", name}, {"file", name + ".nii.gz"}, {"tokens_zyx", layer.grid}, {"voxels_a_token", layer.token_voxels}, {"heads", heads_of(layer, p.grid.spacing_mm())}});
  }
  io::write_json(partial / "explain.json", {{"image", fs::absolute(input.images.front()).string()}, {"voxel_zyx", source_voxel}, {"voxel_mm", mm},
                                            {"mirrored", options.mirror_left_right}, {"blocks", blocks}, {"sampled_heads", report_of(heads)}});
  whole.replace();
}

}  // namespace fovea::recipes
