#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "fovea/recipes/slide_model.h"
#include "fovea/recipes/stages.h"

namespace fovea::recipes {

/// How much each tile of a slide was read.
struct SlideAttention {
  std::vector<std::array<int64_t, 2>> corners;  // x, y, level-0 pixels
  int64_t edge = 0;                             // of a tile, likewise
  std::vector<double> weight;                   // sums to 1
  std::vector<double> percentile;               // rank among the slide's tiles in (0, 1], equal weights share their mean rank
};

/// Ranks as CLAM draws them. Source: Lu et al. 2021, "interpretability and heatmaps".
std::vector<double> percentiles(const std::vector<double>& values);

/// A GeoJSON FeatureCollection for QuPath: each tile a square in level-0 pixels with the measurements "attention" and
/// "attention percentile".
std::string attention_geojson(const SlideAttention& attention);

struct SlideExplainOptions {
  std::filesystem::path features;      // a feature file, or a folder of them; empty: made anew, which only our own encoder can
  std::optional<double> um_per_pixel;  // of a slide that does not say it
  double deep_zoom_um = 2;             // of the finest level of the deep-zoom pyramid
  int64_t picture_px = 1600;           // longer side of the other pictures
};

struct ExplainedSlide {
  SlideAttention attention;
  SlideAnswer answer;
  int64_t deep_zoom_tiles = 0;
  Stages stages;
};

/// Reads a slide with a network and writes into `folder`: overview.png; heat_map.png (percentiles over the slide) and
/// heat_map_raw.png (weights over the largest one); attention.geojson; attention.csv; attention.dzi with its tiles; the
/// eight tiles with most attention; report.html and explain.json.
/// Errors   IoError: features without coordinates or of another slide, as data::describe_slide(); ArgumentError: a model
///          whose encoder is not ours, without `features`
ExplainedSlide explain_slide(const SlideModel& model, const std::filesystem::path& slide, const SlideExplainOptions& options, const std::filesystem::path& folder);

}  // namespace fovea::recipes
