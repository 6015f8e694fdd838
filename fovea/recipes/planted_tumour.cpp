#include "fovea/recipes/planted_tumour.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "fovea/core/rng.h"
#include "fovea/data/slide_phantom.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/io/pyramid_tiff.h"
#include "fovea/recipes/scratch_folder.h"
#include "fovea/recipes/slide_train.h"
#include "fovea/recipes/two_at_a_time.h"
#include "fovea/train/classification_metrics.h"

namespace fovea::recipes {

namespace {
constexpr data::TileConfig kTiles{.tile_px = 64, .um_per_pixel = 1};

data::SlidePhantomConfig slides(uint64_t seed) {
  data::SlidePhantomConfig config;
  config.height = 1536, config.width = 1792, config.tumour_radius_um = 220, config.seed = seed, config.levels = 2;
  return config;
}

// What of each tile is tumour.
std::vector<double> tumour_shares(const data::SlidePhantom& phantom, const data::SlideFeatures& features) {
  std::vector<double> shares;
  const auto coords = features.coords.accessor<int64_t, 2>();
  for (int64_t i = 0; i < coords.size(0); ++i) shares.push_back(phantom.tumour_share(coords[i][1], coords[i][0], *features.edge_level0));
  return shares;
}

double tile_auc_of(const std::vector<double>& score, const std::vector<double>& share) {
  std::vector<double> kept;
  std::vector<bool> inside;
  for (size_t i = 0; i < score.size(); ++i)
    if (share[i] == 0 || share[i] >= 0.5) kept.push_back(score[i]), inside.push_back(share[i] > 0);
  return train::roc_auc(kept, inside);
}

double top_share(const std::vector<double>& score, const std::vector<double>& share) {
  std::vector<size_t> order(score.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return score[a] > score[b]; });
  const size_t top = std::max<size_t>(1, size_t(std::lround(0.01 * double(score.size()))));
  double inside = 0;
  for (size_t i = 0; i < top; ++i) inside += share[order[i]] > 0;
  return inside / double(top);
}
}  // namespace

void learn_planted_tumour(PlantedTumourRun& run) {
  const auto start = std::chrono::steady_clock::now();
  const ScratchFolder scratch;
  const auto all = size_t(run.train + run.test);
  data::SlideTable table;
  table.file = scratch.path() / "slides.csv", table.name = "simulated slides", table.simulated = true, table.classes = {"normal", "tumour"};
  for (size_t i = 0; i < all; ++i) table.slides.push_back({"s" + std::to_string(i), "c" + std::to_string(i), int64_t(i % 2)});
  std::filesystem::create_directories(scratch.path() / "h5_files");
  // 1. Each slide goes through its file: what the network learns from is what OpenSlide read.
  std::vector<std::vector<double>> shares(all);
  two_at_a_time(all, [&](size_t i) {
    auto config = slides(run.seed);
    config.tumours = int64_t(i % 2), config.inflamed = 1 + int64_t(Rng(run.seed, 0, uint32_t(i), 95).below(4));
    const auto phantom = data::make_slide_phantom(config, uint32_t(i));
    const auto file = scratch.path() / (table.slides[i].slide_id + ".tif");
    io::write_pyramid_tiff(file, phantom.levels, config.um_per_pixel);
    io::Slide slide(file);
    const auto described = data::describe_slide(slide, {}, kTiles);
    data::write_slide_features(scratch.path() / "h5_files" / (table.slides[i].slide_id + ".h5"), described);
    shares[i] = tumour_shares(phantom, described.features);
    std::filesystem::remove(file);
  });
  // 2. Learning from slides' labels.
  data::SlideSplit split;
  for (int64_t i = 0; i < int64_t(all); ++i) (i < run.train ? split.train : split.held_out).push_back(i);
  auto learnt_from = table;
  if (run.shuffled) {
    Rng rng(run.seed, 0, 0, 94);
    for (size_t i = size_t(run.train); i > 1; --i) std::swap(learnt_from.slides[i - 1].label, learnt_from.slides[size_t(rng.below(i))].label);
  }
  auto config = resolve_slide_config(table, {}, {"train.steps=600", "hidden=32", "validation_share=0", "train.seed=" + std::to_string(run.seed)});
  config.network = run.network, config.heads = 4, config.landmarks = 32;
  SlideBags bags(table, scratch.path());
  train::RunFolder folder(scratch.path() / "run");
  const auto fitted = fit_slides(learnt_from, bags, split, config, folder);
  // 3. Slides that were not seen.
  const auto predictions = predict_slides(fitted.model, table, split.held_out, scratch.path());
  run.slide_auc = score_slides(predictions)[0].value;
  run.mean_auc = score_slides(simplest_slides(learnt_from, bags, split.train, split.held_out, /*maximum=*/false))[0].value;
  double with_tumour = 0;
  run.tile_auc = run.stain_auc = run.top_percent = 0, run.tiles = 0;
  for (const int64_t r : split.held_out) {
    const auto& features = bags.slide(r);
    run.tiles += features.features.size(0);
    if (table.slides[size_t(r)].label == 0) continue;
    const auto answer = answer_slide(fitted.model, fitted.model.rows(features, "slide"));
    const auto weights = data::to_doubles(answer.weights), stain = data::to_doubles(features.features.select(1, 0));
    run.tile_auc += tile_auc_of(weights, shares[size_t(r)]), run.stain_auc += tile_auc_of(stain, shares[size_t(r)]), run.top_percent += top_share(weights, shares[size_t(r)]);
    ++with_tumour;
  }
  run.tile_auc /= with_tumour, run.stain_auc /= with_tumour, run.top_percent /= with_tumour;
  run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace fovea::recipes
