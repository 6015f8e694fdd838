#include "fovea/report/slices.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <utility>

#include "fovea/core/error.h"
#include "fovea/report/canvas.h"

namespace fovea::report {
namespace {

constexpr int64_t kLongestSide = 4096;
constexpr Colour kMarker{255, 255, 255}, kCross{90, 230, 120};

std::string list(const std::array<int64_t, 3>& v) {
  return std::to_string(v[0]) + " " + std::to_string(v[1]) + " " + std::to_string(v[2]);
}

/// A layer with its arrays turned so that Z, Y, X point up, to the front and to the right.
Voxels turned(const Voxels& v, const Orientation& o) {
  Voxels out = v;
  out.bytes = reorient(v.bytes, o);
  return out;
}

/// How a plane lies on the page, in canonical axes (0 = Z up, 1 = Y front, 2 = X right). Pages run left to right and
/// top to bottom; `reversed` says that the index falls along the page.
struct PageAxis {
  int axis;
  bool reversed;
  const char* low_side;   // letter at the start of the page direction (left or top)
  const char* high_side;  // letter at its end
};
struct Page {
  int normal;
  PageAxis across, down;
  const char* normal_name;  // of the RAS axis
};

Page page_of(Plane plane, Convention convention) {
  const bool radiological = convention == Convention::kRadiological;
  const PageAxis right_left{2, radiological, radiological ? "R" : "L", radiological ? "L" : "R"};
  const PageAxis front_back{1, true, "A", "P"};
  const PageAxis up_down{0, true, "S", "I"};
  switch (plane) {
    case Plane::kAxial:
      return {0, right_left, front_back, "z"};
    case Plane::kCoronal:
      return {1, right_left, up_down, "y"};
    default:
      return {2, front_back, up_down, "x"};
  }
}

/// Where the pixels of one page direction fall on the grid: pixel p is at index first + step * p, both in voxels.
struct Sampling {
  int64_t pixels;
  double first, step;
  double at(int64_t p) const { return first + step * static_cast<double>(p); }
};

/// Covers voxel edges [low, high] (index units) by pixels of `pixel_mm`, centred.
Sampling sample_axis(double low, double high, double spacing_mm, double pixel_mm, bool reversed) {
  const int64_t pixels = std::max<int64_t>(1, std::llround((high - low) * spacing_mm / pixel_mm));
  const double step = pixel_mm / spacing_mm, middle = (low + high) / 2;
  const double first = middle - step * static_cast<double>(pixels - 1) / 2;
  return reversed ? Sampling{pixels, 2 * middle - first, -step} : Sampling{pixels, first, step};
}

/// Index of the nearest voxel, or -1 outside the grid.
int64_t nearest(double index, int64_t size) {
  const int64_t i = static_cast<int64_t>(std::floor(index + 0.5));
  return i < 0 || i >= size ? -1 : i;
}

/// One slice of a layer, read at page pixels.
class SliceReader {
 public:
  SliceReader(const Voxels& canonical, const Page& page, int64_t position)
      : voxels_(canonical), page_(page), position_(position) {}

  double nearest_voxel(double down, double across) const {
    const int64_t d = nearest(down, size(page_.down)), a = nearest(across, size(page_.across));
    return d < 0 || a < 0 ? 0 : read(d, a);
  }

  double between_voxels(double down, double across) const {
    const auto [d0, d1, fd] = bracket(down, size(page_.down));
    const auto [a0, a1, fa] = bracket(across, size(page_.across));
    const double top = fa > 0 ? read(d0, a0) * (1 - fa) + read(d0, a1) * fa : read(d0, a0);
    if (fd <= 0) return top;
    const double bottom = fa > 0 ? read(d1, a0) * (1 - fa) + read(d1, a1) * fa : read(d1, a0);
    return top * (1 - fd) + bottom * fd;
  }

 private:
  struct Bracket {
    int64_t below, above;
    double share;
  };
  static Bracket bracket(double index, int64_t size) {
    index = std::clamp(index, 0.0, static_cast<double>(size - 1));
    const int64_t below = static_cast<int64_t>(index);
    return {below, std::min(below + 1, size - 1), index - static_cast<double>(below)};
  }
  int64_t size(const PageAxis& a) const { return voxels_.bytes.shape[a.axis]; }
  double read(int64_t down, int64_t across) const {
    std::array<int64_t, 3> i{};
    i[page_.normal] = position_, i[page_.down.axis] = down, i[page_.across.axis] = across;
    return voxels_.at(i[0], i[1], i[2]);
  }

  Voxels voxels_;
  Page page_;
  int64_t position_;
};

void check_layer(const char* what, const Voxels& layer, const Scene& scene) {
  if (layer.bytes.shape == scene.geometry.shape) return;
  throw ArgumentError(std::string("draw_slice: ") + what + " has shape " + list(layer.bytes.shape) + ", expected " +
                      list(scene.geometry.shape) + " (Z, Y, X of the scene's geometry)");
}

void check_scene(const Scene& scene, const std::array<int64_t, 3>& voxel) {
  check_layer("the image", scene.image, scene);
  for (const LabelLayer& layer : scene.labels) check_layer("a label layer", layer.labels, scene);
  if (scene.heat) check_layer("the heat layer", scene.heat->values, scene);
  for (int a = 0; a < 3; ++a) {
    if (voxel[a] >= 0 && voxel[a] < scene.geometry.shape[a]) continue;
    throw ArgumentError("draw_slice: voxel " + list(voxel) + " lies outside the grid " + list(scene.geometry.shape) +
                        " (Z, Y, X)");
  }
}

double largest_finite(const Voxels& v) {
  double most = 0;
  for (int64_t z = 0; z < v.bytes.shape[0]; ++z) {
    for (int64_t y = 0; y < v.bytes.shape[1]; ++y) {
      for (int64_t x = 0; x < v.bytes.shape[2]; ++x) {
        const double value = v.at(z, y, x);
        if (std::isfinite(value)) most = std::max(most, value);
      }
    }
  }
  return most;
}

/// Index of the style of each pixel, -1 where nothing is drawn.
std::vector<int> styles_of_page(const LabelLayer& layer, const SliceReader& reader, const Sampling& down,
                                const Sampling& across) {
  std::vector<int> out(static_cast<size_t>(down.pixels * across.pixels), -1);
  for (int64_t r = 0; r < down.pixels; ++r) {
    for (int64_t k = 0; k < across.pixels; ++k) {
      const double value = reader.nearest_voxel(down.at(r), across.at(k));
      if (value == 0) continue;
      for (size_t s = 0; s < layer.styles.size(); ++s) {
        if (value == static_cast<double>(layer.styles[s].value))
          out[static_cast<size_t>(r * across.pixels + k)] = static_cast<int>(s);
      }
    }
  }
  return out;
}

void draw_labels(Canvas& canvas, const LabelLayer& layer, const std::vector<int>& styles, int64_t height,
                 int64_t width) {
  const auto style_at = [&](int64_t r, int64_t k) {
    return r < 0 || r >= height || k < 0 || k >= width ? -1 : styles[static_cast<size_t>(r * width + k)];
  };
  for (int64_t r = 0; r < height; ++r) {
    for (int64_t k = 0; k < width; ++k) {
      const int s = style_at(r, k);
      if (s < 0) continue;
      const bool edge =
          style_at(r - 1, k) != s || style_at(r + 1, k) != s || style_at(r, k - 1) != s || style_at(r, k + 1) != s;
      canvas.blend(r, k, layer.styles[static_cast<size_t>(s)].colour, edge && layer.outline ? 1.0 : layer.alpha);
    }
  }
}

void draw_markers(Canvas& canvas, const Page& page, int64_t height, int64_t width, double position_mm) {
  const int scale = std::min(height, width) >= 400 ? 2 : 1;
  const int64_t tall = text_height(scale), wide = text_width("A", scale), margin = 3 * scale;
  canvas.text((height - tall) / 2, margin, page.across.low_side, kMarker, scale);
  canvas.text((height - tall) / 2, width - margin - wide, page.across.high_side, kMarker, scale);
  canvas.text(margin, (width - wide) / 2, page.down.low_side, kMarker, scale);
  canvas.text(height - margin - tall, (width - wide) / 2, page.down.high_side, kMarker, scale);
  char place[64];
  std::snprintf(place, sizeof place, "%s = %+.*f mm", page.normal_name,
                std::abs(position_mm - std::round(position_mm)) < 0.05 ? 0 : 1, position_mm + 0.0);
  if (text_width(place, scale) + 2 * margin < (width - wide) / 2) {
    canvas.text(height - margin - tall, margin, place, kMarker, scale);
  } else if (text_width(place, 1) + 2 * margin < (width - wide) / 2) {
    canvas.text(height - margin - text_height(1), margin, place, kMarker, 1);
  }
}

}  // namespace

Voxels::Voxels(const Volume& volume, int64_t channel) : dtype(volume.dtype) {
  const bool half = dtype == DType::kF16 || dtype == DType::kBF16;
  const int64_t bytes_needed = volume.size() * static_cast<int64_t>(size_of(dtype));
  if (half || channel < 0 || channel >= volume.channels || static_cast<int64_t>(volume.data.size()) != bytes_needed) {
    throw ArgumentError("Voxels: volume of " + std::to_string(volume.channels) + " channels of " +
                        std::string(name_of(dtype)) + " with " + std::to_string(volume.data.size()) +
                        " bytes, expected channel " + std::to_string(channel) + " and no half-precision type");
  }
  const int64_t element = static_cast<int64_t>(size_of(dtype));
  bytes = View<const std::byte, 3>::contiguous(volume.data.data() + channel * volume.geometry.voxels() * element,
                                               volume.geometry.shape);
  for (int64_t& s : bytes.stride) s *= element;
}

double Voxels::at(int64_t z, int64_t y, int64_t x) const {
  const std::byte* p = &bytes(z, y, x);
  return visit_dtype(dtype, [p](auto zero) {
    decltype(zero) value;
    std::memcpy(&value, p, sizeof value);
    return static_cast<double>(value);
  });
}

IntensityWindow window_from_percentiles(const Voxels& image, double low_percent, double high_percent) {
  const auto& shape = image.bytes.shape;
  // A step along every axis keeps the sample regular in space; about a million voxels give percentiles to 0.1 %.
  const int64_t step =
      std::max<int64_t>(1, static_cast<int64_t>(std::cbrt(static_cast<double>(image.bytes.size()) / 1e6)));
  std::vector<double> values;
  for (int64_t z = 0; z < shape[0]; z += step) {
    for (int64_t y = 0; y < shape[1]; y += step) {
      for (int64_t x = 0; x < shape[2]; x += step) {
        if (const double v = image.at(z, y, x); std::isfinite(v)) values.push_back(v);
      }
    }
  }
  if (values.empty()) return {0, 1};
  const auto percentile = [&](double percent) {
    const double share = std::clamp(percent, 0.0, 100.0) / 100;
    const auto at =
        values.begin() + static_cast<std::ptrdiff_t>(std::lround(share * static_cast<double>(values.size() - 1)));
    std::nth_element(values.begin(), at, values.end());
    return *at;
  };
  const double low = percentile(low_percent), high = percentile(high_percent);
  return high > low ? IntensityWindow{low, high} : IntensityWindow{low, low + 1};
}

std::vector<LabelStyle> label_styles(const std::vector<std::string>& names) {
  std::vector<LabelStyle> out;
  for (const std::string& name : names) {
    const int index = static_cast<int>(out.size());
    out.push_back({index + 1, name, category_colour(index)});
  }
  return out;
}

std::string to_string(Plane plane) {
  return plane == Plane::kAxial ? "axial" : plane == Plane::kCoronal ? "coronal" : "sagittal";
}

std::string to_string(Convention convention) {
  return convention == Convention::kRadiological
             ? "radiological convention: the patient's right is on the left of the picture"
             : "neurological convention: the patient's right is on the right of the picture";
}

Scene::Scene(const Volume& volume) : Scene(Voxels(volume), volume.geometry) {}

Scene::Scene(const Voxels& voxels, const Geometry& grid)
    : image(voxels), geometry(grid), window(window_from_percentiles(voxels)) {}

Image draw_slice(const Scene& scene, Plane plane, const std::array<int64_t, 3>& voxel, const SliceOptions& options) {
  check_scene(scene, voxel);
  const Page page = page_of(plane, options.convention);
  const Orientation turn = to_canonical(scene.geometry);
  const Geometry grid = reorient(scene.geometry, turn);
  std::array<int64_t, 3> at{};
  for (int a = 0; a < 3; ++a) at[a] = turn.flip[a] ? grid.shape[a] - 1 - voxel[turn.axis[a]] : voxel[turn.axis[a]];

  // 1. Where the pixels fall on the grid.
  const auto spacing = grid.spacing_mm();
  const double pixel_mm = options.pixel_mm > 0 ? options.pixel_mm : *std::min_element(spacing.begin(), spacing.end());
  const Point centre = grid.to_mm({static_cast<double>(at[2]), static_cast<double>(at[1]), static_cast<double>(at[0])});
  const auto range = [&](const PageAxis& a) {
    const std::pair<double, double> edges{-0.5, static_cast<double>(grid.shape[a.axis]) - 0.5};
    if (!options.crop_mm) return edges;
    const int world = 2 - a.axis;
    const auto index_of = [&](double mm) {
      Point p = centre;
      p[world] = mm;
      return grid.to_index(p)[world];
    };
    const double low = std::max(edges.first, index_of((*options.crop_mm)[0][world]));
    const double high = std::min(edges.second, index_of((*options.crop_mm)[1][world]));
    if (!(high > low)) throw ArgumentError("draw_slice: crop_mm leaves nothing of the " + to_string(plane) + " plane");
    return std::pair{low, high};
  };
  const auto across_range = range(page.across), down_range = range(page.down);
  for (const auto& [axis, r] : {std::pair{page.across, across_range}, std::pair{page.down, down_range}}) {
    if (const double pixels = (r.second - r.first) * spacing[axis.axis] / pixel_mm; !(pixels <= kLongestSide)) {
      throw ArgumentError("draw_slice: a side of " + std::to_string(pixels) + " pixels at pixel_mm " +
                          std::to_string(pixel_mm) + ", expected at most " + std::to_string(kLongestSide) +
                          "; take larger pixels");
    }
  }
  const Sampling across =
      sample_axis(across_range.first, across_range.second, spacing[page.across.axis], pixel_mm, page.across.reversed);
  const Sampling down =
      sample_axis(down_range.first, down_range.second, spacing[page.down.axis], pixel_mm, page.down.reversed);

  // 2. Grey values.
  Image out = Image::filled(down.pixels, across.pixels, {0, 0, 0});
  Canvas canvas(out);
  const SliceReader grey(turned(scene.image, turn), page, at[page.normal]);
  const double width = std::max(scene.window.high - scene.window.low, std::numeric_limits<double>::min());
  for (int64_t r = 0; r < down.pixels; ++r) {
    for (int64_t k = 0; k < across.pixels; ++k) {
      const double t = (grey.between_voxels(down.at(r), across.at(k)) - scene.window.low) / width;
      const auto v = static_cast<uint8_t>(t > 0 ? std::lround(255 * std::min(t, 1.0)) : 0);  // NaN is black
      canvas.blend(r, k, {v, v, v});
    }
  }

  // 3. Heat, then labels.
  if (scene.heat) {
    const SliceReader heat(turned(scene.heat->values, turn), page, at[page.normal]);
    const double high = scene.heat->high != 0 ? scene.heat->high : largest_finite(scene.heat->values);
    for (int64_t r = 0; high > 0 && r < down.pixels; ++r) {
      for (int64_t k = 0; k < across.pixels; ++k) {
        const double t = std::min(heat.nearest_voxel(down.at(r), across.at(k)) / high, 1.0);
        if (t > 0) canvas.blend(r, k, heat_colour(t), scene.heat->alpha * std::sqrt(t));
      }
    }
  }
  for (const LabelLayer& layer : scene.labels) {
    const SliceReader reader(turned(layer.labels, turn), page, at[page.normal]);
    draw_labels(canvas, layer, styles_of_page(layer, reader, down, across), out.height, out.width);
  }

  // 4. Crosshair and letters.
  if (options.crosshair) {
    const int64_t row = std::llround((static_cast<double>(at[page.down.axis]) - down.first) / down.step);
    const int64_t column = std::llround((static_cast<double>(at[page.across.axis]) - across.first) / across.step);
    const int64_t gap = std::max<int64_t>(3, std::min(out.height, out.width) / 40);
    canvas.line(row, 0, row, column - gap, kCross, 0.8),
        canvas.line(row, column + gap, row, out.width - 1, kCross, 0.8);
    canvas.line(0, column, row - gap, column, kCross, 0.8),
        canvas.line(row + gap, column, out.height - 1, column, kCross, 0.8);
  }
  if (options.markers) draw_markers(canvas, page, out.height, out.width, centre[2 - page.normal]);
  return out;
}

std::vector<std::array<int64_t, 3>> slices_through(const Scene& scene, const LabelLayer& layer, Plane plane,
                                                   int count) {
  if (count < 1) throw ArgumentError("slices_through: count is " + std::to_string(count) + ", expected at least 1");
  check_layer("the label layer", layer.labels, scene);
  const auto& shape = scene.geometry.shape;
  std::array<int64_t, 3> low = shape, high{-1, -1, -1};
  for (int64_t z = 0; z < shape[0]; ++z) {
    for (int64_t y = 0; y < shape[1]; ++y) {
      for (int64_t x = 0; x < shape[2]; ++x) {
        const double value = layer.labels.at(z, y, x);
        const bool styled =
            value != 0 && std::any_of(layer.styles.begin(), layer.styles.end(),
                                      [value](const LabelStyle& s) { return static_cast<double>(s.value) == value; });
        if (!styled) continue;
        const std::array<int64_t, 3> i{z, y, x};
        for (int a = 0; a < 3; ++a) low[a] = std::min(low[a], i[a]), high[a] = std::max(high[a], i[a]);
      }
    }
  }
  if (high[0] < 0) low = {0, 0, 0}, high = {shape[0] - 1, shape[1] - 1, shape[2] - 1};

  // The scene's own axis that runs along the plane's normal, low to high in patient terms.
  const Orientation turn = to_canonical(scene.geometry);
  const int canonical = page_of(plane, Convention::kRadiological).normal, normal = turn.axis[canonical];
  std::vector<std::array<int64_t, 3>> out;
  for (int i = 0; i < count; ++i) {
    std::array<int64_t, 3> voxel;
    for (int a = 0; a < 3; ++a) voxel[a] = (low[a] + high[a]) / 2;
    const double share = (i + 0.5) / count;  // not the first and last slice, where little is to be seen
    const auto offset = static_cast<int64_t>(std::floor(share * static_cast<double>(high[normal] - low[normal] + 1)));
    voxel[normal] = turn.flip[canonical] ? high[normal] - offset : low[normal] + offset;
    out.push_back(voxel);
  }
  return out;
}

Image draw_three_planes(const Scene& scene, const std::array<int64_t, 3>& voxel, const SliceOptions& options) {
  std::vector<Image> planes;
  for (Plane plane : {Plane::kAxial, Plane::kCoronal, Plane::kSagittal})
    planes.push_back(draw_slice(scene, plane, voxel, options));
  return montage(planes, 3, 4, {0, 0, 0});
}

Image heat_bar(int64_t width, int64_t height) {
  Image out = Image::filled(height, width, {0, 0, 0});
  Canvas canvas(out);
  for (int64_t x = 0; x < width; ++x) {
    canvas.fill(0, x, height, 1, heat_colour(width > 1 ? static_cast<double>(x) / static_cast<double>(width - 1) : 1));
  }
  return out;
}

}  // namespace fovea::report
