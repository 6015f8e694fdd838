#include "fovea/recipes/hidden_patches.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "fovea/core/rng.h"
#include "fovea/infer/weights.h"
#include "fovea/models/seeded_generator.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/train/loss.h"
#include "fovea/train/schedule.h"

namespace fovea::recipes {

namespace {
constexpr uint32_t kMaskStream = 91, kOrderStream = 92, kMoveStream = 93, kSliceStream = 94, kTestStream = 95;
using Grid = std::array<int64_t, 3>;

Grid triple(const std::vector<int64_t>& v) { return {v[0], v[1], v[2]}; }

Grid grid_of(const ScanSet& scans) {
  return {scans.train.size(2) / scans.patch[0], scans.train.size(3) / scans.patch[1], scans.train.size(4) / scans.patch[2]};
}

std::vector<int64_t> shuffled(int64_t n, Rng rng) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) order[size_t(i)] = i;
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[size_t(rng.below(i))]);
  return order;
}

// Item `place` of an endless row of all n in one random order after the other.
int64_t of_epochs(int64_t n, int64_t place, uint64_t seed, uint32_t stream) { return shuffled(n, Rng(seed, uint32_t(place / n), 0, stream))[size_t(place % n)]; }

// A scan [C,Z,Y,X] moved by whole voxels, its border repeated.
torch::Tensor moved(const torch::Tensor& scan, const Grid& by) {
  auto out = scan;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t n = scan.size(axis + 1);
    out = out.index_select(axis + 1, (torch::arange(n) + by[axis]).clamp(0, n - 1));
  }
  return out;
}

Grid random_move(int64_t most, Rng& rng) {
  Grid by{};
  for (int axis = 0; axis < 3; ++axis) by[axis] = int64_t(rng.below(uint64_t(2 * most + 1))) - most;
  return by;
}

void set_rate(torch::optim::Optimizer& optimizer, double rate) {
  for (auto& group : optimizer.param_groups()) group.options().set_lr(rate);
}

// Places of a grid's patch centres in voxels: [N,3].
torch::Tensor centres(const Grid& grid, const std::vector<int64_t>& patch) {
  std::vector<torch::Tensor> axes;
  for (int axis = 0; axis < 3; ++axis) axes.push_back((torch::arange(grid[axis], torch::kFloat) + 0.5) * patch[axis] - 0.5);
  const auto mesh = torch::meshgrid(axes, "ij");
  return torch::stack({mesh[0].flatten(), mesh[1].flatten(), mesh[2].flatten()}, 1);
}

Grid patch_grid(const torch::Tensor& scan, const std::vector<int64_t>& patch) { return {scan.size(1) / patch[0], scan.size(2) / patch[1], scan.size(3) / patch[2]}; }

double mean_square(const torch::Tensor& rows, const torch::Tensor& truth, const torch::Tensor& which) {
  return (rows - truth).square().mean(1).masked_select(which).mean().item<double>();
}

torch::Tensor hidden_of(int64_t tokens, const torch::Tensor& kept) { return torch::ones({tokens}, torch::kBool).scatter(0, kept, false); }

// Hidden patches none of whose up to 26 neighbours is visible.
torch::Tensor lonely_of(const Grid& grid, const torch::Tensor& hidden) {
  const auto visible = (~hidden).to(torch::kFloat).view({1, 1, grid[0], grid[1], grid[2]});
  const auto near = torch::max_pool3d(visible, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}).flatten();
  return hidden.logical_and(near == 0);
}

struct Sum {
  double total = 0;
  int64_t n = 0;
  void add(double value) {
    if (!std::isnan(value)) total += value, ++n;
  }
  double mean() const { return n ? total / double(n) : std::numeric_limits<double>::quiet_NaN(); }
};

// Millimetres between hidden queries and the visible patches that they read, by the decoder's weights and by equal ones.
std::pair<double, double> reading_distance(models::MaskedAutoencoder& network, const ScanSet& scans, const torch::Tensor& hidden) {
  const auto mm = centres(grid_of(scans), scans.patch) * torch::tensor({scans.voxel_mm[0], scans.voxel_mm[1], scans.voxel_mm[2]}, torch::kFloat);
  const auto queries = hidden.nonzero().flatten(), keys = (~hidden).nonzero().flatten();
  const auto distance = torch::cdist(mm.index_select(0, queries), mm.index_select(0, keys));
  Sum read;
  const auto all = network->attention();
  for (size_t i = size_t(network->config().num_layers); i < all.size(); ++i) {
    const auto rows = all[i]->rows(queries + 1)[0].index_select(2, keys + 1);  // behind the class token: [H,Q,K]
    read.add((rows / rows.sum(2, true) * distance).sum(2).mean().item<double>());
  }
  return {read.mean(), distance.mean().item<double>()};
}
}  // namespace

double HiddenNeighbours::standard_errors() const {
  double worst = 0;
  for (int i = 0; i < 3; ++i) worst = std::max(worst, std::abs(mean[i] - exact[i]) / error[i]);
  return worst;
}

HiddenNeighbours hidden_neighbours(double ratio, int masks, uint64_t seed) {
  constexpr int64_t n = 16;
  HiddenNeighbours result;
  // Beside the hidden block itself.
  const int64_t others = n * n * n - 1, hidden = n * n * n - data::kept_patches(n * n * n, ratio) - 1;
  const auto all_hidden = [&](int neighbours) {
    double p = 1;
    for (int i = 0; i < neighbours; ++i) p *= double(hidden - i) / double(others - i);
    return p;
  };
  result.exact = {all_hidden(6), all_hidden(26), 26 * (1 - double(hidden) / double(others))};
  std::array<double, 3> sum{}, square{};
  std::vector<uint8_t> visible(n * n * n);
  for (int mask = 0; mask < masks; ++mask) {
    Rng rng(seed, 0, uint32_t(mask));
    std::fill(visible.begin(), visible.end(), 0);
    for (const int64_t patch : data::draw_kept_patches(n * n * n, ratio, rng)) visible[patch] = 1;
    double blocks = 0, six = 0, all = 0, seen = 0;
    for (int64_t z = 1; z < n - 1; ++z)
      for (int64_t y = 1; y < n - 1; ++y)
        for (int64_t x = 1; x < n - 1; ++x) {
          if (visible[(z * n + y) * n + x]) continue;
          int faces = 0, any = 0;
          for (int64_t dz = -1; dz <= 1; ++dz)
            for (int64_t dy = -1; dy <= 1; ++dy)
              for (int64_t dx = -1; dx <= 1; ++dx) {
                const int v = visible[((z + dz) * n + y + dy) * n + x + dx];
                any += v, faces += std::abs(dz) + std::abs(dy) + std::abs(dx) == 1 ? v : 0;
              }
          ++blocks, six += faces == 0, all += any == 0, seen += any;
        }
    const std::array<double, 3> means = {six / blocks, all / blocks, seen / blocks};
    for (int i = 0; i < 3; ++i) sum[i] += means[i], square[i] += means[i] * means[i];
  }
  for (int i = 0; i < 3; ++i) {
    result.mean[i] = sum[i] / masks;
    result.error[i] = std::sqrt(std::max(0.0, square[i] / masks - result.mean[i] * result.mean[i]) / (masks - 1));
  }
  return result;
}

models::MaskedAutoencoderConfig autoencoder_for(const ScanSet& scans, int64_t classes) {
  models::MaskedAutoencoderConfig config;
  config.img_size = {scans.train.size(2), scans.train.size(3), scans.train.size(4)}, config.patch_size = scans.patch;
  config.hidden_size = 96, config.mlp_dim = 192, config.num_layers = 4, config.num_heads = 4;
  config.decoder_hidden_size = 48, config.decoder_mlp_dim = 96, config.decoder_num_layers = 2, config.decoder_num_heads = 4;
  config.distance = true, config.out_channels = classes;
  return config;
}

models::MaskedAutoencoder learn_to_rebuild(const ScanSet& scans, const HidingOptions& options, uint64_t seed) {
  const Grid grid = grid_of(scans);
  const OneThread one_thread;
  models::MaskedAutoencoder network{nullptr};
  {
    const models::SeededGenerator seeded(seed);
    network = models::MaskedAutoencoder(autoencoder_for(scans));
  }
  torch::optim::AdamW optimizer(network->parameters(), torch::optim::AdamWOptions(options.rate).betas({0.9, 0.95}).weight_decay(0.05));
  const train::ScheduleConfig schedule{.warmup = 0.1};
  for (int64_t step = 0; step < options.steps; ++step) {
    Rng rng(seed, uint32_t(step), 0, kMaskStream), move(seed, uint32_t(step), 0, kMoveStream);
    const double ratio = options.ratios[size_t(rng.below(options.ratios.size()))];
    std::vector<torch::Tensor> batch, masks;
    for (int64_t b = 0; b < options.batch; ++b) {
      const int64_t scan = of_epochs(scans.train.size(0), step * options.batch + b, seed, kOrderStream);
      batch.push_back(moved(scans.train[scan], random_move(options.move, move)));
      masks.push_back(torch::tensor(data::draw_kept_patches(grid, ratio, options.mask, rng)));
    }
    const auto x = torch::stack(batch), kept = torch::stack(masks);
    set_rate(optimizer, options.rate * train::schedule_factor_at_step(schedule, step, options.steps));
    optimizer.zero_grad();
    models::hidden_patch_loss(*network, x, network->rows(x, kept), kept).backward();
    optimizer.step();
  }
  network->eval();
  return network;
}

torch::Tensor nearest_visible(const torch::Tensor& scan, const torch::Tensor& kept, const std::vector<int64_t>& patch) {
  const auto centre = centres(patch_grid(scan, patch), patch);
  const auto nearest = kept.index_select(0, torch::cdist(centre, centre.index_select(0, kept)).argmin(1));  // [N]
  // Each voxel of a patch takes the closest voxel of the nearest visible patch.
  const auto rows = nn::patch_rows(scan.unsqueeze(0), triple(patch))[0];
  std::vector<torch::Tensor> at;  // of each patch, [N,p] an axis
  for (int axis = 0; axis < 3; ++axis) {
    const auto offset = torch::arange(patch[axis], torch::kFloat).unsqueeze(0);
    const auto place = centre.select(1, axis).unsqueeze(1) - (double(patch[axis]) - 1) / 2 + offset;
    const auto from = centre.index_select(0, nearest).select(1, axis).unsqueeze(1) - (double(patch[axis]) - 1) / 2;
    at.push_back((place - from).clamp(0, double(patch[axis] - 1)).to(torch::kLong));
  }
  const auto index = (at[0].unsqueeze(2).unsqueeze(3) * patch[1] + at[1].unsqueeze(1).unsqueeze(3)) * patch[2] + at[2].unsqueeze(1).unsqueeze(2);
  const auto filled = rows.index_select(0, nearest).gather(1, index.flatten(1));
  return nn::volume_of_rows(filled.unsqueeze(0), patch_grid(scan, patch), triple(patch))[0];
}

torch::Tensor trilinear_from_visible(const torch::Tensor& scan, const torch::Tensor& kept, const std::vector<int64_t>& patch) {
  const Grid grid = patch_grid(scan, patch);
  const auto centre = centres(grid, patch).index_select(0, kept);
  const auto means = nn::patch_rows(scan.unsqueeze(0), triple(patch))[0].index_select(0, kept).mean(1);
  auto sum = torch::zeros(scan.sizes().slice(1)), weight = torch::zeros_like(sum);
  const int64_t widest = std::max({grid[0], grid[1], grid[2]});
  for (int64_t wide = 1; wide <= widest && (weight == 0).any().item<bool>(); ++wide) {
    std::vector<torch::Tensor> tent;  // [K,n] an axis
    for (int axis = 0; axis < 3; ++axis) {
      const auto distance = (torch::arange(scan.size(axis + 1), torch::kFloat).unsqueeze(0) - centre.select(1, axis).unsqueeze(1)).abs();
      tent.push_back((1 - distance / double(wide * patch[axis])).clamp_min(0));
    }
    const auto here = torch::einsum("kz,ky,kx->zyx", {tent[0], tent[1], tent[2]});
    const auto values = torch::einsum("kz,ky,kx->zyx", {tent[0] * means.unsqueeze(1), tent[1], tent[2]});
    const auto fresh = (weight == 0).logical_and(here > 0);
    sum = torch::where(fresh, values, sum), weight = torch::where(fresh, here, weight);
  }
  return (sum / weight).unsqueeze(0);
}

Rebuilding rebuild(models::MaskedAutoencoder& network, const ScanSet& scans, double ratio, uint64_t seed) {
  const torch::NoGradGuard no_grad;
  const Grid grid = grid_of(scans);
  const auto atlas = nn::patch_rows(scans.train.mean(0, true), triple(scans.patch))[0];
  constexpr int kFigures = 6;
  std::array<std::array<Sum, kFigures>, 2> sums;
  Sum distance, uniform;
  for (auto layer : network->attention()) layer->set_capture(true);
  const int64_t masks = std::max<int64_t>(1, 8 / scans.test.size(0));
  for (int64_t i = 0; i < masks * scans.test.size(0); ++i) {
    Rng rng(seed, uint32_t(i), 0, kTestStream);
    const auto scan = scans.test[i / masks];
    const auto kept = torch::tensor(data::draw_kept_patches(grid, ratio, data::PatchMask::kRandom, rng));
    const auto truth = nn::patch_rows(scan.unsqueeze(0), triple(scans.patch))[0];
    const auto rows = network->rows(scan.unsqueeze(0), kept.unsqueeze(0))[0];
    const auto rows_of = [&](const torch::Tensor& volume) { return nn::patch_rows(volume.unsqueeze(0), triple(scans.patch))[0]; };
    const auto nearest = rows_of(nearest_visible(scan, kept, scans.patch)), tents = rows_of(trilinear_from_visible(scan, kept, scans.patch));
    const auto mean = truth.index_select(0, kept).mean().expand_as(truth);
    const auto hidden = hidden_of(truth.size(0), kept), lonely = lonely_of(grid, hidden);
    for (int group = 0; group < 2; ++group) {
      const auto& which = group == 0 ? hidden : lonely;
      const double patches = which.sum().item<double>();
      sums[group][5].add(patches);
      if (patches == 0) continue;
      const torch::Tensor told[] = {rows, mean, nearest, tents, atlas};
      for (int f = 0; f < 5; ++f) sums[group][f].add(mean_square(told[f], truth, which));
    }
    const auto [read, equal] = reading_distance(network, scans, hidden);
    distance.add(read), uniform.add(equal);
  }
  for (auto layer : network->attention()) layer->set_capture(false);
  Rebuilding result;
  result.ratio = ratio, result.distance_mm = distance.mean(), result.uniform_mm = uniform.mean();
  for (int group = 0; group < 2; ++group) {
    const auto& s = sums[group];
    (group == 0 ? result.all : result.lonely) = {s[0].mean(), s[1].mean(), s[2].mean(), s[3].mean(), s[4].mean(), s[5].mean()};
  }
  return result;
}

double learn_labels(const ScanSet& scans, const models::MaskedAutoencoderImpl* start, const LabelOptions& options, uint64_t seed) {
  const OneThread one_thread;
  models::MaskedAutoencoder network{nullptr};
  {
    const models::SeededGenerator seeded(seed);
    network = models::MaskedAutoencoder(autoencoder_for(scans, scans.classes));
  }
  if (start) infer::load_weights(*network, infer::encoder_weights(infer::network_weights(*start)), "pretrained", infer::Coverage::kAny);
  // One slice of each of a few scans, as near the middle as chance has it: every structure is met there.
  const int64_t depth = scans.train.size(2);
  std::vector<torch::Tensor> images, labels;
  Rng rng(seed, 0, 0, kSliceStream);
  const auto order = shuffled(scans.train.size(0), Rng(seed, 1, 0, kSliceStream));
  for (int64_t s = 0; s < options.slices; ++s) {
    const int64_t scan = order[size_t(s)], slice = depth / 4 + int64_t(rng.below(uint64_t(depth / 2)));
    auto label = torch::full_like(scans.train_labels[scan], -1);
    label[slice].copy_(scans.train_labels[scan][slice]);
    images.push_back(scans.train[scan]), labels.push_back(label);
  }
  torch::optim::AdamW optimizer(network->parameters(), torch::optim::AdamWOptions(options.rate).weight_decay(0.05));
  const train::ScheduleConfig schedule{.warmup = 0.1};
  train::SegmentationLossConfig loss;
  loss.ignore_label = -1;
  for (int64_t step = 0; step < options.steps; ++step) {
    Rng move(seed, uint32_t(step), 1, kMoveStream);
    std::vector<torch::Tensor> x, y;
    for (size_t s = 0; s < images.size(); ++s) {
      const Grid by = random_move(options.move, move);
      const float scale = move.uniform(0.8f, 1.25f), shift = move.uniform(-0.2f, 0.2f);
      x.push_back(moved(images[s], by) * scale + shift), y.push_back(moved(labels[s].unsqueeze(0), by)[0]);
    }
    set_rate(optimizer, options.rate * train::schedule_factor_at_step(schedule, step, options.steps));
    optimizer.zero_grad();
    train::dice_cross_entropy(network->forward(torch::stack(x)), torch::stack(y), loss).backward();
    optimizer.step();
  }
  network->eval();
  const torch::NoGradGuard no_grad;
  std::vector<double> both(size_t(scans.classes)), sum(size_t(scans.classes));
  for (int64_t i = 0; i < scans.test.size(0); ++i) {
    const auto told = network->forward(scans.test.slice(0, i, i + 1))[0].argmax(0);
    for (int64_t k = 1; k < scans.classes; ++k) {
      const auto a = told == k, b = scans.test_labels[i] == k;
      both[size_t(k)] += a.logical_and(b).sum().item<double>(), sum[size_t(k)] += (a.sum() + b.sum()).item<double>();
    }
  }
  double dice = 0;
  for (size_t k = 1; k < both.size(); ++k) dice += 2 * both[k] / std::max(sum[k], 1.0) / double(both.size() - 1);
  return dice;
}

namespace {
models::MaskedAutoencoderConfig encoder_of_4096() {
  models::MaskedAutoencoderConfig config;
  config.img_size = {64, 64, 64}, config.patch_size = {4, 4, 4};
  config.hidden_size = 192, config.mlp_dim = 768, config.num_layers = 2, config.num_heads = 6;
  config.decoder_hidden_size = 48, config.decoder_num_heads = 4, config.decoder_num_layers = 1;
  return config;
}
}  // namespace

double encoder_seconds(double ratio, int repeats) {
  const OneThread one_thread;
  const models::SeededGenerator seeded(0);
  models::MaskedAutoencoder network(encoder_of_4096());
  const auto x = torch::randn({1, 1, 64, 64, 64});
  Rng rng(0, 0, 0, kMaskStream);
  const auto kept = torch::tensor(data::draw_kept_patches(4096, ratio, rng)).unsqueeze(0);
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repeats + 1; ++i) {  // the first is for the machine
    const auto begin = std::chrono::steady_clock::now();
    network->encode(x, kept).sum().backward();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (i > 0) least = std::min(least, seconds);
  }
  return least;
}

double encoder_multiplications(double ratio) {
  const auto c = encoder_of_4096();
  const double n = double(data::kept_patches(4096, ratio)) + 1, E = double(c.hidden_size), mlp = double(c.mlp_dim);
  // Forward; backward does each product twice, and scores once more.
  const double linear = 3 * n * (4 * E * E + 2 * E * mlp), attention = n * n * E * (2 + 5);
  return double(c.num_layers) * (linear + attention);
}

}  // namespace fovea::recipes
