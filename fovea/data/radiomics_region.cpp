#include "fovea/data/radiomics_region.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "fovea/core/error.h"
#include "fovea/data/cubic_spline.h"
#include "fovea/data/voxels.h"

namespace fovea::data {

namespace {
constexpr int64_t kMostLevels = 4096;  // filled: a GLCM is a square of them
constexpr double kHighestLevel = 1e6;  // of any
constexpr int64_t kPaddingVoxels = 5;  // around the mask's box when resampling: pyradiomics' padDistance

// A whole image on a grid of given spacing.
struct Grid {
  std::array<int64_t, 3> shape{};
  std::array<double, 3> spacing_mm{};
  std::vector<double> intensity;
  std::vector<uint8_t> inside;
};

void check_options(const RadiomicsOptions& o) {
  const auto refuse = [](const std::string& what) { throw ArgumentError("radiomics: " + what); };
  if (o.bin_count < 0 || o.bin_count > kMostLevels)
    refuse("bin_count " + std::to_string(o.bin_count) + ", expected 0 to " + std::to_string(kMostLevels));
  if (!(o.bin_width > 0) || !std::isfinite(o.bin_width))
    refuse("bin_width " + std::to_string(o.bin_width) + ", expected more than 0");
  if (o.distances.empty()) refuse("no distances, expected at least one");
  for (const int64_t d : o.distances)
    if (d < 1 || d > 16) refuse("distance " + std::to_string(d) + ", expected 1 to 16");
  if (o.plane_axis < -1 || o.plane_axis > 2)
    refuse("plane_axis " + std::to_string(o.plane_axis) + ", expected 0, 1, 2 or -1");
  if (o.dependence < 0) refuse("dependence " + std::to_string(o.dependence) + ", expected at least 0");
  if (!(o.normalise_scale >= 0) || !std::isfinite(o.normalise_scale))
    refuse("normalise_scale " + std::to_string(o.normalise_scale) + ", expected at least 0");
  for (const double s : o.spacing_mm)
    if (!(s >= 0) || !std::isfinite(s)) refuse("spacing_mm " + std::to_string(s) + ", expected at least 0");
  if (o.resegment != Resegment::kOff && (o.resegment_range.empty() || o.resegment_range.size() > 2))
    refuse("resegment_range has " + std::to_string(o.resegment_range.size()) + " numbers, expected 1 or 2");
}

// The smallest box that holds every voxel of which f(place in the array) is true.
template <class F>
Box box_of(const std::array<int64_t, 3>& shape, F&& f) {
  std::array<int64_t, 3> least = shape, most{-1, -1, -1};
  for (int64_t z = 0, i = 0; z < shape[0]; ++z)
    for (int64_t y = 0; y < shape[1]; ++y)
      for (int64_t x = 0; x < shape[2]; ++x, ++i)
        if (f(i)) {
          const std::array<int64_t, 3> at = {z, y, x};
          for (int a = 0; a < 3; ++a) least[a] = std::min(least[a], at[a]), most[a] = std::max(most[a], at[a]);
        }
  Box box;
  if (most[0] < 0) return box;
  for (int a = 0; a < 3; ++a) box.begin[a] = least[a], box.shape[a] = most[a] - least[a] + 1;
  return box;
}

// whole: the whole image, else the mask's box.
Grid read_grid(const Volume& image, const Volume& mask, const RadiomicsOptions& options, bool whole) {
  for (const Volume* v : {&image, &mask})
    if (v->channels != 1)
      throw ArgumentError(std::string("radiomics: ") + (v == &image ? "image" : "mask") + " has " +
                          std::to_string(v->channels) + " channels, expected one");
  if (!same_place(image.geometry, mask.geometry))
    throw ArgumentError("radiomics: mask has " + to_string(mask.geometry) + ", expected the image's grid, " +
                        to_string(image.geometry) + "; resample the mask first");
  Grid grid;
  grid.spacing_mm = image.geometry.spacing_mm();
  Box box{{0, 0, 0}, image.geometry.shape};
  visit_channel(mask, 0, [&](auto v) {
    const auto inside = [&](int64_t i) { return double(v.data[i]) == double(options.label); };
    if (!whole) box = box_of(v.shape, inside);
    grid.shape = box.shape;
    grid.inside.reserve(size_t(box.voxels()));
    for (int64_t z = 0; z < box.shape[0]; ++z)
      for (int64_t y = 0; y < box.shape[1]; ++y)
        for (int64_t x = 0; x < box.shape[2]; ++x)
          grid.inside.push_back(
              inside(((box.begin[0] + z) * v.shape[1] + box.begin[1] + y) * v.shape[2] + box.begin[2] + x));
  });
  visit_channel(image, 0, [&](auto v) {
    grid.intensity.reserve(size_t(box.voxels()));
    for (int64_t z = 0; z < box.shape[0]; ++z)
      for (int64_t y = 0; y < box.shape[1]; ++y) {
        const auto* row = v.data + ((box.begin[0] + z) * v.shape[1] + box.begin[1] + y) * v.shape[2] + box.begin[2];
        grid.intensity.insert(grid.intensity.end(), row, row + box.shape[2]);
      }
  });
  return grid;
}

void check_finite(const Grid& grid, bool everywhere) {
  int64_t bad = 0;
  for (size_t i = 0; i < grid.intensity.size(); ++i)
    bad += (everywhere || grid.inside[i]) && !std::isfinite(grid.intensity[i]);
  if (bad)
    throw ArgumentError("radiomics: " + std::to_string(bad) + " NaN or infinite voxels " +
                        (everywhere ? "in the image" : "under the mask") + ", expected finite intensities");
}

// Mean 0 and deviation 1 (of a sample) over the whole image, times scale.
void normalise(std::vector<double>& intensity, double scale) {
  double mean = 0, square = 0;
  for (const double v : intensity) mean += v;
  mean /= double(intensity.size());
  for (const double v : intensity) square += (v - mean) * (v - mean);
  const double deviation = std::sqrt(square / double(intensity.size() - 1));
  for (double& v : intensity) v = (deviation > 0 ? (v - mean) / deviation : 0) * scale;
}

// The box of the mask and a margin at another spacing. Grids share the outer border of the first voxel.
// integers: intensities are of a type of whole numbers and stay so, cut off as a cast does.
Grid resample(const Grid& in, const Box& box, const std::array<double, 3>& wanted_mm, bool integers) {
  Grid out;
  std::array<double, 3> ratio, first;  // new voxels per old; old index of new voxel 0
  bool same = true;
  for (int a = 0; a < 3; ++a) {
    out.spacing_mm[a] = wanted_mm[a] > 0 && box.shape[a] > 1 ? wanted_mm[a] : in.spacing_mm[a];
    same &= std::abs(in.spacing_mm[a] - out.spacing_mm[a]) <= 1e-8 + 1e-5 * out.spacing_mm[a];
    ratio[a] = in.spacing_mm[a] / out.spacing_mm[a];
    const double low = std::floor((double(box.begin[a]) - 0.5) * ratio[a] - kPaddingVoxels);
    const double high = std::ceil((double(box.begin[a] + box.shape[a]) - 0.5) * ratio[a] + kPaddingVoxels);
    const double begin = std::max(low, 0.0), end = std::min(high, std::ceil(double(in.shape[a]) * ratio[a]) - 1);
    out.shape[a] = int64_t(end - begin) + 1;
    first[a] = 0.5 * (out.spacing_mm[a] - in.spacing_mm[a]) / in.spacing_mm[a] + begin / ratio[a];
  }
  if (same) return in;
  if (out.shape[0] * out.shape[1] * out.shape[2] > int64_t{1} << 30)
    throw ArgumentError("radiomics: more than 2^30 voxels at the asked spacing, take a larger one");
  const CubicSpline spline(in.intensity, in.shape);
  out.intensity.reserve(size_t(out.shape[0] * out.shape[1] * out.shape[2]));
  out.inside.reserve(out.intensity.capacity());
  for (int64_t z = 0; z < out.shape[0]; ++z)
    for (int64_t y = 0; y < out.shape[1]; ++y)
      for (int64_t x = 0; x < out.shape[2]; ++x) {
        const std::array<int64_t, 3> place = {z, y, x};
        std::array<double, 3> at;
        std::array<int64_t, 3> nearest;
        bool within = true;
        for (int a = 0; a < 3; ++a) {
          at[a] = first[a] + double(place[a]) / ratio[a];
          nearest[a] = int64_t(std::floor(at[a] + 0.5));
          within &= at[a] >= -0.5 && at[a] < double(in.shape[a]) - 0.5;
        }
        const double value = within ? spline.at(at) : 0;
        out.intensity.push_back(integers ? std::trunc(value) : value);
        out.inside.push_back(within ? in.inside[(nearest[0] * in.shape[1] + nearest[1]) * in.shape[2] + nearest[2]]
                                    : 0);
      }
  return out;
}

Region cut(const Grid& grid) {
  const Box box = box_of(grid.shape, [&](int64_t i) { return grid.inside[i] != 0; });
  Region region{box.shape, grid.spacing_mm, {}, {}, 0};
  region.inside.reserve(size_t(box.voxels())), region.intensity.reserve(size_t(box.voxels()));
  for (int64_t z = 0; z < box.shape[0]; ++z)
    for (int64_t y = 0; y < box.shape[1]; ++y)
      for (int64_t x = 0; x < box.shape[2]; ++x) {
        const size_t i =
            size_t(((box.begin[0] + z) * grid.shape[1] + box.begin[1] + y) * grid.shape[2] + box.begin[2] + x);
        region.inside.push_back(grid.inside[i]), region.intensity.push_back(grid.intensity[i]);
        region.voxels += grid.inside[i];
      }
  return region;
}

// `when` ends the sentence "the mask has ...".
void check_extent(const Region& region, const RadiomicsOptions& options, const std::string& when) {
  const std::string mask = "radiomics: the mask of label " + std::to_string(options.label);
  if (region.voxels == 0) throw ArgumentError(mask + " is empty" + when + ", expected voxels of that value");
  if (region.voxels == 1) throw ArgumentError(mask + " has one voxel" + when + ", expected at least two");
  const auto extent = std::count_if(region.shape.begin(), region.shape.end(), [](int64_t n) { return n > 1; });
  if (extent < options.minimum_dimensions)
    throw ArgumentError(mask + " extends along " + std::to_string(extent) + " axis" + (extent == 1 ? "" : "es") + when +
                        ", expected at least " + std::to_string(options.minimum_dimensions));
}

void resegment(Grid& grid, const RadiomicsOptions& options) {
  double sum = 0, square = 0, largest = -INFINITY, count = 0;
  const auto each = [&](auto&& f) {
    for (size_t i = 0; i < grid.inside.size(); ++i)
      if (grid.inside[i]) f(grid.intensity[i], grid.inside[i]);
  };
  each([&](double v, uint8_t) { sum += v, ++count, largest = std::max(largest, v); });
  const double mean = sum / count;
  each([&](double v, uint8_t) { square += (v - mean) * (v - mean); });
  std::vector<double> range = options.resegment_range;
  std::sort(range.begin(), range.end());
  for (double& r : range) {
    if (options.resegment == Resegment::kRelative) r *= largest;
    if (options.resegment == Resegment::kSigma) r = mean + std::sqrt(square / count) * r;
  }
  each([&](double v, uint8_t& in) { in = v >= range[0] && (range.size() < 2 || v <= range[1]); });
}
}  // namespace

Regions cut_regions(const Volume& image, const Volume& mask, const RadiomicsOptions& options) {
  check_options(options);
  const bool resampled =
      std::any_of(options.spacing_mm.begin(), options.spacing_mm.end(), [](double s) { return s > 0; });
  const bool whole = resampled || options.normalise_scale > 0;
  Grid grid = read_grid(image, mask, options, whole);
  check_finite(grid, whole);
  Regions regions;
  regions.shape = cut(grid);
  check_extent(regions.shape, options, "");
  if (options.normalise_scale > 0) normalise(grid.intensity, options.normalise_scale);
  if (resampled) {
    const bool integers = !is_floating(image.dtype) && options.normalise_scale == 0;
    grid = resample(grid, box_of(grid.shape, [&](int64_t i) { return grid.inside[i] != 0; }), options.spacing_mm,
                    integers);
    regions.shape = cut(grid);
    check_extent(regions.shape, options, " after resampling");
  } else if (options.normalise_scale > 0) {
    regions.shape = cut(grid);
  }
  if (options.resegment == Resegment::kOff) {
    regions.texture = regions.shape;
    return regions;
  }
  resegment(grid, options);
  regions.texture = cut(grid);
  check_extent(regions.texture, options, " within the resegmentation's range");
  return regions;
}

std::vector<double> bin_edges(double smallest, double largest, const RadiomicsOptions& options) {
  std::vector<double> edges;
  if (const int64_t bins = options.bin_count; bins > 0) {
    if (smallest == largest) smallest -= 0.5, largest += 0.5;
    for (int64_t b = 0; b <= bins; ++b) edges.push_back(smallest + (largest - smallest) / double(bins) * double(b));
    edges.back() = largest + 1;
    return edges;
  }
  const double width = options.bin_width, low = std::floor(smallest / width) * width;
  const double bins = std::ceil((largest + 2 * width - low) / width);
  if (!(bins <= kHighestLevel))
    throw ArgumentError("radiomics: bins of width " + std::to_string(width) + " from " + std::to_string(smallest) +
                        " to " + std::to_string(largest) + " are more than a million, take a larger bin_width");
  for (int64_t b = 0; b < int64_t(bins); ++b) edges.push_back(low + double(b) * width);
  return edges;
}

LevelGrid level_grid(const Region& region, const RadiomicsOptions& options) {
  double smallest = INFINITY, largest = -INFINITY;
  for (size_t i = 0; i < region.inside.size(); ++i)
    if (region.inside[i])
      smallest = std::min(smallest, region.intensity[i]), largest = std::max(largest, region.intensity[i]);
  const std::vector<double> edges = bin_edges(smallest, largest, options);
  const int64_t margin = *std::max_element(options.distances.begin(), options.distances.end());
  LevelGrid grid;
  for (int a = 0; a < 3; ++a) grid.shape[a] = region.shape[a] + 2 * margin;
  grid.stride = {grid.shape[1] * grid.shape[2], grid.shape[2], 1};
  grid.spacing_mm = region.spacing_mm;
  grid.index.assign(size_t(grid.shape[0] * grid.stride[0]), 0);
  grid.voxels.reserve(size_t(region.voxels));
  std::vector<int32_t> place(edges.size() + 1, 0);  // of a level in `levels`
  for (int64_t z = 0, i = 0; z < region.shape[0]; ++z)
    for (int64_t y = 0; y < region.shape[1]; ++y)
      for (int64_t x = 0; x < region.shape[2]; ++x, ++i)
        if (region.inside[i]) {
          const auto level = int32_t(std::upper_bound(edges.begin(), edges.end(), region.intensity[i]) - edges.begin());
          const int64_t at = (z + margin) * grid.stride[0] + (y + margin) * grid.stride[1] + x + margin;
          grid.index[at] = level, place[level] = 1;
          grid.voxels.push_back(at);
        }
  for (size_t level = 0; level < place.size(); ++level)
    if (place[level]) grid.levels.push_back(double(level)), place[level] = int32_t(grid.levels.size());
  if (int64_t(grid.levels.size()) > kMostLevels)
    throw ArgumentError("radiomics: " + std::to_string(grid.levels.size()) + " filled bins, expected at most " +
                        std::to_string(kMostLevels) + "; take a larger bin_width");
  for (const int64_t at : grid.voxels) grid.index[at] = place[grid.index[at]];
  return grid;
}

std::vector<Step> directions(const std::vector<int64_t>& distances, int plane_axis) {
  std::vector<Step> steps;
  for (const int64_t d : distances)
    for (int64_t z = 0; z <= d; ++z)
      for (int64_t y = -d; y <= d; ++y)
        for (int64_t x = -d; x <= d; ++x) {
          const Step step = {z, y, x};
          if (std::max({z, std::abs(y), std::abs(x)}) != d || (plane_axis >= 0 && step[plane_axis] != 0)) continue;
          if (z == 0 && (y < 0 || (y == 0 && x < 0))) continue;  // the opposite step is there
          steps.push_back(step);
        }
  return steps;
}

}  // namespace fovea::data
