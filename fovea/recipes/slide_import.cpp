#include "fovea/recipes/slide_import.h"

#include <algorithm>
#include <chrono>

#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/recipes/slide_picture.h"
#include "fovea/report/png.h"

namespace fovea::recipes {

namespace fs = std::filesystem;

ImportedSlide import_slide(const fs::path& path, const fs::path& folder, const SlideImportOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  io::Slide slide(path, options.um_per_pixel);
  ImportedSlide out;
  out.id = path.stem().string();
  Progress bar(out.id, 0);
  const auto described = data::describe_slide(slide, options.tissue, options.tiles, [&](int64_t done, int64_t total) {
    bar.set_fraction(double(done) / double(total));
    bar.advance();
  });
  bar.finish();
  fs::create_directories(folder / "h5_files");
  fs::create_directories(folder / "previews");
  out.features = folder / "h5_files" / (out.id + ".h5"), out.preview = folder / "previews" / (out.id + ".png");
  data::write_slide_features(out.features, described);
  const auto& finest = slide.info().levels[0];
  const double pixel = std::max(1.0, double(std::max(finest.height, finest.width)) / 1200);
  auto preview = picture_of(io::overview(slide, pixel));
  outline_tiles(preview, pixel, described.tissue, described.grid);
  report::write_png(out.preview, preview, report::PngEffort::kFast);
  out.tiles = int64_t(described.grid.corners.size());
  out.tissue_share = double(described.tissue.pixels()) / double(described.tissue.inside.size());
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return out;
}

std::vector<fs::path> slides_of(const fs::path& folder) {
  std::vector<fs::path> all;
  for (const auto& entry : fs::directory_iterator(folder))
    if (io::is_slide_name(entry.path())) all.push_back(entry.path());
  if (all.empty()) throw IoError(folder, "holds no slide (.svs, .tif, .ndpi, .mrxs, ...)");
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace fovea::recipes
