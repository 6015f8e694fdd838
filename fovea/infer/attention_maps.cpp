#include "fovea/infer/attention_maps.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "fovea/nn/window_attention.h"

namespace fovea::infer {
namespace {

constexpr uint32_t kWindowStream = 1, kQueryStream = 2;

struct NamedLayer {
  std::string name;
  nn::WindowAttentionImpl* attention;
};

/// The attention layers of a network, capturing while this lives.
class Capture {
 public:
  explicit Capture(models::NetworkImpl& network) {
    for (const auto& item : network.named_modules())
      if (auto* attention = dynamic_cast<nn::WindowAttentionImpl*>(item.value().get())) layers_.push_back({item.key(), attention});
    if (layers_.empty()) throw ArgumentError("attention maps: the network has no window attention layers");
    for (const NamedLayer& l : layers_) l.attention->set_capture(true);
  }
  ~Capture() {
    for (const NamedLayer& l : layers_) l.attention->set_capture(false);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  const std::vector<NamedLayer>& layers() const { return layers_; }

 private:
  std::vector<NamedLayer> layers_;
};

std::string text(const Triple& t) { return std::to_string(t[0]) + ", " + std::to_string(t[1]) + ", " + std::to_string(t[2]); }

void check(const torch::Tensor& image, const Geometry& grid, const models::NetworkImpl& network, const SlidingWindowConfig& config) {
  config.validate();
  if (image.dim() != 4 || image.size(1) != grid.shape[0] || image.size(2) != grid.shape[1] || image.size(3) != grid.shape[2])
    throw ArgumentError("attention maps: image has shape " + c10::str(image.sizes()) + ", expected [C," + text(grid.shape) + "] as its grid");
  const Triple multiple = network.size_multiple();
  for (int a = 0; a < 3; ++a)
    if (config.patch_size[a] % multiple[a] != 0)
      throw ArgumentError("attention maps: patch (" + text(config.patch_size) + "), expected multiples of (" + text(multiple) + ") so that tokens are whole voxels");
}

/// Runs the network on the window at `start` of the image, zeros outside it.
void run_window(const torch::Tensor& image, models::NetworkImpl& network, const Triple& start, const Triple& patch) {
  auto window = torch::zeros({1, image.size(0), patch[0], patch[1], patch[2]}, torch::kFloat);
  auto from = image, to = window[0];
  for (int a = 0; a < 3; ++a) {
    const int64_t low = std::max<int64_t>(start[a], 0), high = std::min(start[a] + patch[a], image.size(a + 1));
    from = from.narrow(a + 1, low, high - low), to = to.narrow(a + 1, low - start[a], high - low);
  }
  to.copy_(from);
  const auto parameters = network.parameters();
  network.forward(parameters.empty() ? window : window.to(parameters[0].device()));
}

/// Voxels of a window in each token of a layer.
Triple token_size(const Triple& patch, const Triple& grid) {
  Triple size;
  for (int a = 0; a < 3; ++a) {
    FOVEA_CHECK(patch[a] % grid[a] == 0, "tokens of a layer are not whole voxels: patch " + text(patch) + ", grid " + text(grid));
    size[a] = patch[a] / grid[a];
  }
  return size;
}

/// First voxels of all windows, in image coordinates, in Z, Y, X order.
std::vector<Triple> all_windows(const Triple& shape, const SlidingWindowConfig& config) {
  const auto starts = window_starts(shape, config);
  const Triple before = padding_before(shape, config);
  std::vector<Triple> windows;
  for (int64_t z : starts[0])
    for (int64_t y : starts[1])
      for (int64_t x : starts[2]) windows.push_back({z - before[0], y - before[1], x - before[2]});
  return windows;
}

Geometry window_geometry(const Geometry& grid, const Triple& start, const Triple& patch) {
  Geometry g = grid;
  g.shape = patch;
  const Point origin = grid.to_mm({double(start[2]), double(start[1]), double(start[0])});
  for (int i = 0; i < 3; ++i) g.affine[i][3] = origin[i];
  return g;
}

LayerAttention layer_attention(const NamedLayer& layer, const Triple& in_window, const Triple& patch) {
  LayerAttention found;
  found.layer = layer.name, found.grid = layer.attention->captured_grid();
  found.token_voxels = token_size(patch, found.grid);
  for (int a = 0; a < 3; ++a) found.query[a] = in_window[a] / found.token_voxels[a];
  const auto [gz, gy, gx] = found.grid;
  const int64_t flat = (found.query[0] * gy + found.query[1]) * gx + found.query[2];
  auto [weights, keys] = layer.attention->rows(torch::tensor({flat}));
  weights = weights.to(torch::kCPU, torch::kFloat).select(2, 0)[0], keys = keys.to(torch::kCPU)[0];  // [H,n], [n]
  const auto real = keys >= 0;
  auto tokens = torch::zeros({weights.size(0), gz * gy * gx}, torch::kFloat);
  tokens.index_add_(1, keys.masked_select(real), weights.index({torch::indexing::Slice(), real}));
  found.padded_share = weights.masked_fill(real, 0).sum(1);
  // [H,gz,gy,gx] -> [H,gz,1,gy,1,gx,1] -> each token's voxels
  const auto [vz, vy, vx] = found.token_voxels;
  found.map = tokens.view({-1, gz, 1, gy, 1, gx, 1}).expand({-1, gz, vz, gy, vy, gx, vx}).reshape({-1, patch[0], patch[1], patch[2]});
  return found;
}

/// Region shares of a layer's tokens: share[r][t] of token t's voxels that have label r of `present`.
struct TokenRegions {
  torch::Tensor share;  // [R,tokens] f64, or undefined
  torch::Tensor own;    // [tokens] index of the region that most of its voxels have
  torch::Tensor known;  // [tokens] f64, 1 where a token has any voxel in the image
};

TokenRegions token_regions(const torch::Tensor& regions, const Triple& start, const Triple& patch, const Triple& token_voxels) {
  if (!regions.defined()) return {};
  // Outside the image nothing has a region: -1.
  const auto window = placed_in_image(regions.to(torch::kDouble).unsqueeze(0) + 1, {-start[0], -start[1], -start[2]}, patch) - 1;
  const auto present = std::get<0>(at::_unique(window.masked_select(window >= 0)));
  TokenRegions t;
  std::vector<torch::Tensor> shares;
  for (int64_t i = 0; i < present.size(0); ++i)
    shares.push_back(torch::avg_pool3d((window == present[i]).to(torch::kDouble), token_voxels, token_voxels).flatten());
  if (shares.empty()) return {};
  t.share = torch::stack(shares), t.own = t.share.argmax(0);
  t.known = (t.share.sum(0) > 0).to(torch::kDouble);
  return t;
}

struct HeadSums {
  double entropy = 0, distance = 0, own = 0, uniform = 0, padded = 0;
  int64_t queries = 0, with_region = 0;
};

/// Adds the rows of sampled queries of one layer in the window at `start`.
void add_rows(const NamedLayer& layer, const Triple& start, const Triple& patch, const Geometry& grid, const torch::Tensor& regions,
              const std::vector<int64_t>& queries, std::vector<HeadSums>& heads) {
  const Triple tokens = layer.attention->captured_grid(), voxels = token_size(patch, tokens);
  auto [weights, keys] = layer.attention->rows(torch::tensor(queries));
  weights = weights.to(torch::kCPU, torch::kDouble)[0], keys = keys.to(torch::kCPU);  // [H,R,n], [R,n]
  const auto flat = torch::tensor(queries);
  const auto real = keys >= 0, at = keys.clamp_min(0);
  const auto entropy = -torch::xlogy(weights, weights).sum(2);  // [H,R]
  const auto padded = weights.masked_fill(real, 0).sum(2);

  // Distance of token centres in mm, [R,n]: axes of a grid are orthogonal but for a shear that spacing does not see.
  const auto spacing = grid.spacing_mm();
  auto squared = torch::zeros_like(keys, torch::kDouble);
  int64_t below = 1;
  for (int a = 2; a >= 0; --a) {
    const auto step = at.div(below, "floor").remainder(tokens[a]) - flat.div(below, "floor").remainder(tokens[a]).unsqueeze(1);
    squared += (step.to(torch::kDouble) * (double(voxels[a]) * spacing[a])).square();
    below *= tokens[a];
  }
  const auto distance = (weights * squared.sqrt().masked_fill(~real, 0)).sum(2);

  const TokenRegions region = token_regions(regions, start, patch, voxels);
  torch::Tensor own, uniform, known;
  if (region.share.defined()) {
    // share of each key's voxels in the region of its query, [R,n]
    const auto share = region.share.index({region.own.index_select(0, flat).unsqueeze(1), at}).masked_fill(~real, 0);
    known = region.known.index_select(0, flat);
    own = (weights * share).sum(2) * known, uniform = share.sum(1) / real.sum(1) * known;
  }
  for (int64_t h = 0; h < weights.size(0); ++h) {
    HeadSums& s = heads[size_t(h)];
    s.queries += int64_t(queries.size());
    s.entropy += entropy[h].sum().item<double>(), s.distance += distance[h].sum().item<double>(), s.padded += padded[h].sum().item<double>();
    if (!own.defined()) continue;
    s.with_region += known.sum().item<int64_t>();
    s.own += own[h].sum().item<double>(), s.uniform += uniform.sum().item<double>();
  }
}

/// Flat indices of the tokens whose first voxel lies in the image: a window may hang over its end.
std::vector<int64_t> tokens_in_image(const Triple& tokens, const Triple& voxels, const Triple& start, const Triple& shape) {
  std::vector<int64_t> inside;
  const auto in = [&](int a, int64_t i) { const int64_t v = start[a] + i * voxels[a]; return v >= 0 && v < shape[a]; };
  for (int64_t z = 0; z < tokens[0]; ++z)
    for (int64_t y = 0; y < tokens[1]; ++y)
      for (int64_t x = 0; x < tokens[2]; ++x)
        if (in(0, z) && in(1, y) && in(2, x)) inside.push_back((z * tokens[1] + y) * tokens[2] + x);
  return inside;
}

/// `count` different numbers of [0, n), ascending; all of them if there are no more.
std::vector<int64_t> sample(int64_t n, int64_t count, Rng rng) {
  std::set<int64_t> chosen;
  if (count >= n)
    for (int64_t i = 0; i < n; ++i) chosen.insert(i);
  while (int64_t(chosen.size()) < std::min(n, count)) chosen.insert(int64_t(rng.below(uint64_t(n))));
  return {chosen.begin(), chosen.end()};
}

}  // namespace

std::vector<WindowAttentionMaps> attention_maps(const torch::Tensor& image, const Geometry& grid, models::NetworkImpl& network,
                                                const SlidingWindowConfig& config, const Triple& voxel, WindowChoice windows) {
  torch::NoGradGuard no_grad;
  check(image, grid, network, config);
  for (int a = 0; a < 3; ++a)
    if (voxel[a] < 0 || voxel[a] >= grid.shape[a])
      throw ArgumentError("attention maps: voxel (z, y, x) = (" + text(voxel) + ") is outside the image of (" + text(grid.shape) + ") voxels");
  const Triple& patch = config.patch_size;
  const auto weights = window_weights(config);
  std::vector<WindowAttentionMaps> found;
  for (const Triple& start : all_windows(grid.shape, config)) {
    const Triple in{voxel[0] - start[0], voxel[1] - start[1], voxel[2] - start[2]};
    if (in[0] < 0 || in[1] < 0 || in[2] < 0 || in[0] >= patch[0] || in[1] >= patch[1] || in[2] >= patch[2]) continue;
    found.push_back({start, window_geometry(grid, start, patch), weights[in[0]][in[1]][in[2]].item<double>(), {}});
  }
  if (windows == WindowChoice::kMostCentral) {
    // With constant weights all are equal: the one whose middle is nearest decides.
    const auto rank = [&](const WindowAttentionMaps& w) {
      double off = 0;
      for (int a = 0; a < 3; ++a) off += std::pow(double(voxel[a] - w.start[a]) - double(patch[a]) / 2, 2);
      return std::pair(w.blend_weight, -off);
    };
    found = {*std::max_element(found.begin(), found.end(), [&](const auto& a, const auto& b) { return rank(a) < rank(b); })};
  }
  network.eval();
  const Capture capture(network);
  for (WindowAttentionMaps& w : found) {
    run_window(image, network, w.start, patch);
    for (const NamedLayer& layer : capture.layers())
      w.layers.push_back(layer_attention(layer, {voxel[0] - w.start[0], voxel[1] - w.start[1], voxel[2] - w.start[2]}, patch));
  }
  return found;
}

Triple voxel_at(const Geometry& grid, const Point& mm) {
  const Point index = grid.to_index(mm);
  const Triple voxel{std::llround(index[2]), std::llround(index[1]), std::llround(index[0])};
  for (int a = 0; a < 3; ++a)
    if (voxel[a] < 0 || voxel[a] >= grid.shape[a])
      throw ArgumentError("point (" + std::to_string(mm[0]) + ", " + std::to_string(mm[1]) + ", " + std::to_string(mm[2]) +
                          ") mm is outside the image: " + to_string(grid));
  return voxel;
}

torch::Tensor placed_in_image(const torch::Tensor& map, const Triple& start, const Triple& shape) {
  auto image = torch::zeros({map.size(0), shape[0], shape[1], shape[2]}, map.options());
  auto from = map, to = image;
  for (int a = 0; a < 3; ++a) {
    const int64_t low = std::max<int64_t>(start[a], 0), high = std::min(start[a] + map.size(a + 1), shape[a]);
    if (low >= high) return image;
    from = from.narrow(a + 1, low - start[a], high - low), to = to.narrow(a + 1, low, high - low);
  }
  to.copy_(from);
  return image;
}

std::vector<HeadReport> head_report(const torch::Tensor& image, const Geometry& grid, models::NetworkImpl& network,
                                    const SlidingWindowConfig& config, const torch::Tensor& regions, const HeadReportOptions& options) {
  torch::NoGradGuard no_grad;
  check(image, grid, network, config);
  if (regions.defined() && regions.sizes() != image.sizes().slice(1))
    throw ArgumentError("head report: regions have shape " + c10::str(regions.sizes()) + ", expected that of the image " + c10::str(image.sizes().slice(1)));
  network.eval();
  const Capture capture(network);
  const auto windows = all_windows(grid.shape, config);
  std::vector<std::vector<HeadSums>> sums;
  for (const auto& layer : capture.layers()) sums.emplace_back(size_t(layer.attention->options().heads()));
  for (int64_t w : sample(int64_t(windows.size()), options.windows, Rng(options.seed, 0, 0, kWindowStream))) {
    run_window(image, network, windows[size_t(w)], config.patch_size);
    for (size_t l = 0; l < sums.size(); ++l) {
      const Triple tokens = capture.layers()[l].attention->captured_grid();
      const auto inside = tokens_in_image(tokens, token_size(config.patch_size, tokens), windows[size_t(w)], grid.shape);
      auto queries = sample(int64_t(inside.size()), options.queries_per_window, Rng(options.seed, uint32_t(l), uint32_t(w), kQueryStream));
      for (int64_t& q : queries) q = inside[size_t(q)];
      if (!queries.empty()) add_rows(capture.layers()[l], windows[size_t(w)], config.patch_size, grid, regions, queries, sums[l]);
    }
  }
  std::vector<HeadReport> report;
  for (size_t l = 0; l < sums.size(); ++l)
    for (size_t h = 0; h < sums[l].size(); ++h) {
      const HeadSums& s = sums[l][h];
      const double n = double(s.queries), r = s.with_region > 0 ? double(s.with_region) : std::numeric_limits<double>::quiet_NaN();
      report.push_back({capture.layers()[l].name, int64_t(h), s.queries, s.entropy / n, std::exp(s.entropy / n), s.distance / n, s.own / r,
                        s.uniform / r, s.padded / n});
    }
  return report;
}

}  // namespace fovea::infer
