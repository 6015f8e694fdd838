#include "fovea/recipes/slide_explain.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fovea/core/error.h"
#include "fovea/core/version.h"
#include "fovea/data/tile_statistics.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/json_file.h"
#include "fovea/recipes/slide_picture.h"
#include "fovea/report/deep_zoom.h"
#include "fovea/report/html.h"
#include "fovea/report/png.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

namespace {
constexpr size_t kTopTiles = 8;
constexpr double kShare = 0.5;      // of a colour over the tissue
constexpr double kPagePx = 420;     // longer side of a picture on the page

data::SlideFeatures features_of(const SlideModel& model, io::Slide& slide, const SlideExplainOptions& options) {
  if (!options.features.empty()) {
    const auto path = fs::is_directory(options.features) ? data::find_slide_features(options.features, slide.path().stem().string()) : options.features;
    auto features = data::read_slide_features(path);
    if (!features.coords.defined()) throw IoError(path, "has no coordinates, so its rows have no place on the slide; give the .h5 that holds them");
    if (!features.edge_level0) throw IoError(path, "does not say how large its tiles are, and its coordinates are all alike; give the attribute patch_size_level0");
    const auto& finest = slide.info().levels[0];
    const auto least = std::get<0>(features.coords.min(0)), most = std::get<0>(features.coords.max(0));
    if (least.min().item<int64_t>() < 0 || most[0].item<int64_t>() >= finest.width || most[1].item<int64_t>() >= finest.height)
      throw IoError(path, "has a tile at " + std::to_string(most[0].item<int64_t>()) + ", " + std::to_string(most[1].item<int64_t>()) + ", outside of " + slide.path().string() + " (" +
                              std::to_string(finest.width) + " x " + std::to_string(finest.height) + "); these are features of another slide");
    return features;
  }
  if (model.inputs.encoder != data::kTileStatistics)
    throw ArgumentError("explain: the model was trained on features of " + (model.inputs.encoder.empty() ? std::string("an encoder that the files do not name") : "'" + model.inputs.encoder + "'") +
                        ", which are not made here; give them with --features");
  return data::describe_slide(slide, {}, {.tile_px = model.inputs.tile_px, .um_per_pixel = model.inputs.um_per_pixel}).features;
}

SlideAttention attention_of(const data::SlideFeatures& features, const torch::Tensor& weights) {
  SlideAttention out;
  out.edge = *features.edge_level0;
  out.weight = data::to_doubles(weights);
  out.percentile = percentiles(out.weight);
  const auto coords = features.coords.accessor<int64_t, 2>();
  for (int64_t i = 0; i < coords.size(0); ++i) out.corners.push_back({coords[i][0], coords[i][1]});
  return out;
}

TileValues percentile_values(const SlideAttention& a) { return {a.corners, a.edge, a.percentile}; }

TileValues raw_values(const SlideAttention& a) {
  const double most = *std::max_element(a.weight.begin(), a.weight.end());
  TileValues values{a.corners, a.edge, a.weight};
  for (double& v : values.values) v /= most;
  return values;
}

std::string attention_csv(const SlideAttention& a) {
  std::string text = "x,y,edge,attention,percentile\n";
  char line[160];
  for (size_t i = 0; i < a.corners.size(); ++i) {
    std::snprintf(line, sizeof line, "%lld,%lld,%lld,%.9g,%.6g\n", static_cast<long long>(a.corners[i][0]), static_cast<long long>(a.corners[i][1]), static_cast<long long>(a.edge), a.weight[i], a.percentile[i]);
    text += line;
  }
  return text;
}

std::vector<report::HtmlReport::Panel> top_tiles(io::Slide& slide, const SlideAttention& a) {
  std::vector<size_t> order(a.weight.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return a.weight[i] > a.weight[j]; });
  order.resize(std::min(order.size(), kTopTiles));
  std::vector<report::HtmlReport::Panel> panels;
  const size_t level = slide.info().level_for(double(a.edge) / 256);
  const auto edge = std::max<int64_t>(1, std::lround(double(a.edge) / slide.info().levels[level].downsample));
  for (const size_t i : order) {
    const auto tile = io::resized(slide.read(level, a.corners[i][1], a.corners[i][0], edge, edge), 256, 256);
    const std::string place = std::to_string(a.corners[i][0]) + ", " + std::to_string(a.corners[i][1]);
    panels.push_back({picture_of(tile), "tile at " + place, "attention " + report::compact(a.weight[i], 3) + " at " + place});
  }
  return panels;
}

// The values' colours over a copy of the picture.
report::Image painted(report::Image picture, double pixel, const TileValues& values) {
  paint_values(picture, pixel, values, kShare);
  return picture;
}

// `overview` in pixels of `pixel` level-0 pixels; the page shows it smaller.
void write_page(const fs::path& file, const SlideModel& model, io::Slide& slide, const ExplainedSlide& e, double pixel, const report::Image& overview) {
  const double shrink = std::max(1.0, double(std::max(overview.height, overview.width)) / kPagePx);
  const auto small = picture_of(io::resized({overview.height, overview.width, overview.pixels}, std::max<int64_t>(1, std::lround(double(overview.height) / shrink)), std::max<int64_t>(1, std::lround(double(overview.width) / shrink))));
  report::HtmlReport html("Slide " + slide.path().stem().string(), "model learnt on: " + model.inputs.name + "; Fovea " + std::string(kVersion));
  html.notice("Not a medical device: research only.");
  if (model.inputs.simulated) html.notice("The model was trained on simulated slides, and is of no use for real ones.", report::NoticeKind::kWarning);
  std::vector<report::Tile> tiles;
  for (size_t c = 0; c < model.inputs.classes.size(); ++c) tiles.push_back({"probability of " + model.inputs.classes[c], report::fixed(e.answer.probabilities[int64_t(c)].item<double>(), 3), ""});
  tiles.push_back({"tiles", std::to_string(e.attention.weight.size()), std::to_string(e.attention.edge) + " level-0 pixels wide"});
  tiles.push_back({"tiles that share the attention", report::fixed(e.answer.effective_tiles, 1), "exp of its entropy"});
  html.tiles(tiles);
  html.heading("Where the network looked");
  html.paragraph("Attention of the class '" + model.inputs.classes[size_t(e.answer.predicted)] + "'. It says which tiles the answer was read from, not that they hold what the class is named after.");
  const std::vector<report::HtmlReport::Panel> panels = {{small, "the slide", "The slide."},
                                                         {painted(small, pixel * shrink, percentile_values(e.attention)), "attention percentiles over the slide", "Percentile of each tile among the slide's tiles."},
                                                         {painted(small, pixel * shrink, raw_values(e.attention)), "attention over the slide", "Weight over the largest weight."}};
  html.gallery(panels);
  html.heat_legend("0", "most attention");
  html.heading("The tiles with most attention");
  html.gallery(top_tiles(slide, e.attention));
  html.write(file);
}
}  // namespace

std::vector<double> percentiles(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> out(values.size());
  for (size_t i = 0; i < order.size();) {
    size_t end = i;
    while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
    for (size_t k = i; k < end; ++k) out[order[k]] = (double(i + 1) + double(end)) / 2 / double(values.size());
    i = end;
  }
  return out;
}

std::string attention_geojson(const SlideAttention& a) {
  std::string text = "{\"type\":\"FeatureCollection\",\"features\":[";
  char one[600];
  for (size_t i = 0; i < a.corners.size(); ++i) {
    const long long x = a.corners[i][0], y = a.corners[i][1], x1 = x + a.edge, y1 = y + a.edge;
    const auto c = report::heat_colour(a.percentile[i]);
    std::snprintf(one, sizeof one,
                  "%s\n{\"type\":\"Feature\",\"geometry\":{\"type\":\"Polygon\",\"coordinates\":[[[%lld,%lld],[%lld,%lld],[%lld,%lld],[%lld,%lld],[%lld,%lld]]]},"
                  "\"properties\":{\"objectType\":\"tile\",\"color\":[%d,%d,%d],\"measurements\":{\"attention\":%.9g,\"attention percentile\":%.6g}}}",
                  i ? "," : "", x, y, x1, y, x1, y1, x, y1, x, y, c.r, c.g, c.b, a.weight[i], a.percentile[i]);
    text += one;
  }
  return text + "\n]}\n";
}

ExplainedSlide explain_slide(const SlideModel& model, const fs::path& path, const SlideExplainOptions& options, const fs::path& folder) {
  if (!(options.deep_zoom_um > 0)) throw ArgumentError("explain: --deep-zoom-um " + std::to_string(options.deep_zoom_um) + ", expected above 0");
  io::Slide slide(path, options.um_per_pixel);
  ExplainedSlide out;
  const auto features = out.stages.run("tiles", [&] { return features_of(model, slide, options); });
  out.answer = out.stages.run("network", [&] { return answer_slide(model, model.rows(features, path.string())); });
  out.attention = attention_of(features, out.answer.weights);
  fs::create_directories(folder);
  const auto& finest = slide.info().levels[0];
  out.stages.run("pictures", [&] {
    const double pixel = std::max(1.0, double(std::max(finest.height, finest.width)) / double(options.picture_px));
    const auto overview = picture_of(io::overview(slide, pixel));
    const auto heat = painted(overview, pixel, percentile_values(out.attention)), raw = painted(overview, pixel, raw_values(out.attention));
    report::write_png(folder / "overview.png", overview, report::PngEffort::kFast);
    report::write_png(folder / "heat_map.png", heat, report::PngEffort::kFast);
    report::write_png(folder / "heat_map_raw.png", raw, report::PngEffort::kFast);
    write_page(folder / "report.html", model, slide, out, pixel, overview);
  });
  out.stages.run("tables", [&] {
    io::write_file(folder / "attention.geojson", attention_geojson(out.attention));
    io::write_file(folder / "attention.csv", attention_csv(out.attention));
  });
  out.stages.run("deep zoom", [&] {
    // Without a pixel size, or where that would be too large a picture, as fine as 50 million pixels allow.
    const double wanted = slide.info().um_per_pixel ? options.deep_zoom_um / *slide.info().um_per_pixel : 1, at_most = std::sqrt(double(finest.height) * double(finest.width) / 5e7);
    const double pixel = std::max({1.0, wanted, at_most});
    out.deep_zoom_tiles = report::write_deep_zoom(folder / "attention.dzi", painted(picture_of(io::overview(slide, pixel)), pixel, percentile_values(out.attention)));
  });
  io::Json probabilities = io::Json::object(), seconds = io::Json::object();
  for (size_t c = 0; c < model.inputs.classes.size(); ++c) probabilities[model.inputs.classes[c]] = out.answer.probabilities[int64_t(c)].item<double>();
  for (const auto& [name, s] : out.stages.seconds()) seconds[name] = s;
  io::write_json(folder / "explain.json", {{"slide", path.filename().string()}, {"simulated_model", model.inputs.simulated}, {"probabilities", probabilities}, {"attention_of", model.inputs.classes[size_t(out.answer.predicted)]},
                                           {"tiles", out.attention.weight.size()}, {"effective_tiles", out.answer.effective_tiles}, {"tile_edge_level0", out.attention.edge}, {"deep_zoom_tiles", out.deep_zoom_tiles}, {"seconds", seconds}});
  return out;
}

}  // namespace fovea::recipes
