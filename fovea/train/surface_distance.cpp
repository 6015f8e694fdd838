#include "fovea/train/surface_distance.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "fovea/core/error.h"

namespace fovea::train {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

using Corner = std::array<int, 3>;  // Z, Y, X in half voxels: voxels at 0 and 2, midpoints of edges have one 1
using Loop = std::vector<Corner>;
using Normal = std::array<double, 3>;  // area vector in the unit cube
using Normals = std::vector<Normal>;

Normal area_vector(const Corner& a, const Corner& b, const Corner& c) {
  double u[3], v[3];
  for (int i = 0; i < 3; ++i) u[i] = 0.5 * (b[i] - a[i]), v[i] = 0.5 * (c[i] - a[i]);
  return {0.5 * (u[1] * v[2] - u[2] * v[1]), 0.5 * (u[2] * v[0] - u[0] * v[2]), 0.5 * (u[0] * v[1] - u[1] * v[0])};
}

double area(const Normals& normals) {
  double sum = 0;
  for (const Normal& n : normals) sum += std::hypot(n[0], n[1], n[2]);
  return sum;
}

/// Triangles of the polygon loop[first..last], of all triangulations the one of largest area in the unit cube.
Normals largest_triangulation(const Loop& loop, size_t first, size_t last) {
  Normals best;
  double best_area = -1;
  for (size_t k = first + 1; k < last; ++k) {
    Normals found = largest_triangulation(loop, first, k);
    const Normals right = largest_triangulation(loop, k, last);
    found.insert(found.end(), right.begin(), right.end());
    found.push_back(area_vector(loop[first], loop[k], loop[last]));
    const double a = area(found);
    if (a > best_area + 1e-9) best_area = a, best = std::move(found);
  }
  return best;
}

/// Closed loops of edge midpoints that separate the corners in `code` from the rest: on each face of the cube, segments
/// join the midpoints round each corner or pair of corners that is inside.
std::vector<Loop> surface_loops(unsigned code) {
  if (std::popcount(code) > 4) code = ~code & 255;  // a neighbourhood and its complement share their surface
  const auto inside = [code](const Corner& c) { return code >> (7 - (2 * c[0] + c[1] + c[2] / 2)) & 1; };
  std::map<Corner, std::vector<Corner>> next;
  for (int axis = 0; axis < 3; ++axis)
    for (int side : {0, 2}) {
      std::array<Corner, 4> face;
      for (int i = 0; i < 4; ++i) {
        face[i][axis] = side;
        face[i][(axis + 1) % 3] = i == 1 || i == 2 ? 2 : 0;
        face[i][(axis + 2) % 3] = i >= 2 ? 2 : 0;
      }
      std::vector<Corner> crossings;  // midpoints in order round the face, starting before an inside corner
      int start = 0;
      while (start < 4 && !(inside(face[start]) && !inside(face[(start + 3) % 4]))) ++start;
      if (start == 4) continue;  // all inside or all outside
      for (int i = 0; i < 4; ++i) {
        const Corner &a = face[(start + i + 3) % 4], &b = face[(start + i) % 4];
        if (inside(a) != inside(b)) crossings.push_back({(a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2});
      }
      for (size_t i = 0; i + 1 < crossings.size(); i += 2) {
        next[crossings[i]].push_back(crossings[i + 1]);
        next[crossings[i + 1]].push_back(crossings[i]);
      }
    }
  std::vector<Loop> loops;
  std::set<Corner> used;
  for (const auto& [corner, neighbours] : next) {
    Loop loop;
    for (const Corner* at = &corner; at && used.insert(*at).second;) {
      loop.push_back(*at);
      const std::vector<Corner>& out = next.at(*at);
      at = !used.contains(out[0]) ? &out[0] : !used.contains(out[1]) ? &out[1] : nullptr;
    }
    if (!loop.empty()) loops.push_back(std::move(loop));
  }
  return loops;
}

struct Box {
  std::array<int64_t, 3> low{}, size{};
};

/// Bounding box of the nonzero voxels of either mask; size 0 when there are none.
Box bounding_box(const View<const uint8_t, 3>& a, const View<const uint8_t, 3>& b) {
  std::array<int64_t, 3> low = a.shape, high{-1, -1, -1};
  for (int64_t z = 0; z < a.shape[0]; ++z)
    for (int64_t y = 0; y < a.shape[1]; ++y)
      for (int64_t x = 0; x < a.shape[2]; ++x)
        if (a(z, y, x) || b(z, y, x)) {
          low = {std::min(low[0], z), std::min(low[1], y), std::min(low[2], x)};
          high = {std::max(high[0], z), std::max(high[1], y), std::max(high[2], x)};
        }
  if (high[0] < 0) return {};
  return {low, {high[0] - low[0] + 1, high[1] - low[1] + 1, high[2] - low[2] + 1}};
}

/// Surface elements of a mask on a grid of their own: where they are and their weights.
struct Elements {
  std::array<int64_t, 3> shape{};
  std::vector<uint8_t> present;
  std::vector<uint8_t> code;  // kSurfaceArea: neighbourhood code, else empty
};

Elements surface_elements(const View<const uint8_t, 3>& mask, const Box& box, SurfaceConvention convention) {
  // Outside the box, and so outside the grid, is outside the mask.
  const auto inside = [&](int64_t z, int64_t y, int64_t x) {
    return z >= 0 && y >= 0 && x >= 0 && z < box.size[0] && y < box.size[1] && x < box.size[2] &&
           mask(box.low[0] + z, box.low[1] + y, box.low[2] + x) != 0;
  };
  Elements e;
  const bool corners = convention == SurfaceConvention::kSurfaceArea;
  for (int a = 0; a < 3; ++a) e.shape[a] = box.size[a] + (corners ? 1 : 0);
  const size_t n = size_t(e.shape[0] * e.shape[1] * e.shape[2]);
  e.present.resize(n);
  if (corners) e.code.resize(n);
  size_t i = 0;
  for (int64_t z = 0; z < e.shape[0]; ++z)
    for (int64_t y = 0; y < e.shape[1]; ++y)
      for (int64_t x = 0; x < e.shape[2]; ++x, ++i) {
        if (corners) {  // corner (z, y, x) lies between voxels z-1 and z, and so on
          unsigned code = 0;
          for (int b = 0; b < 8; ++b) code = code << 1 | unsigned(inside(z - 1 + (b >> 2), y - 1 + (b >> 1 & 1), x - 1 + (b & 1)));
          e.code[i] = uint8_t(code), e.present[i] = code != 0 && code != 255;
        } else if (convention == SurfaceConvention::kBorderVoxels) {
          e.present[i] = inside(z, y, x) && !(inside(z - 1, y, x) && inside(z + 1, y, x) && inside(z, y - 1, x) &&
                                              inside(z, y + 1, x) && inside(z, y, x - 1) && inside(z, y, x + 1));
        } else {
          e.present[i] = inside(z, y, x);
        }
      }
  return e;
}

DirectedDistances directed(const Elements& from, const std::vector<double>& squared, const std::array<double, 256>& areas) {
  std::vector<std::pair<double, double>> pairs;
  for (size_t i = 0; i < from.present.size(); ++i)
    if (from.present[i]) pairs.emplace_back(std::sqrt(squared[i]), from.code.empty() ? 1.0 : areas[from.code[i]]);
  std::sort(pairs.begin(), pairs.end());
  DirectedDistances d;
  d.distance_mm.reserve(pairs.size()), d.weight.reserve(pairs.size());
  for (const auto& [distance, weight] : pairs) d.distance_mm.push_back(distance), d.weight.push_back(weight);
  return d;
}

double total(const std::vector<double>& v) { return std::accumulate(v.begin(), v.end(), 0.0); }

double percentile_mm(const DirectedDistances& d, double percentile, SurfaceConvention convention) {
  const size_t n = d.distance_mm.size();
  if (n == 0 || percentile >= 100) return n == 0 ? kInfinity : d.distance_mm.back();
  if (convention == SurfaceConvention::kSurfaceArea) {  // first element at which the share of the area reaches it
    const double wanted = percentile / 100, all = total(d.weight);
    double sum = 0;
    for (size_t i = 0; i < n; ++i)
      if ((sum += d.weight[i]) / all >= wanted) return d.distance_mm[i];
    return d.distance_mm.back();
  }
  const double at = percentile / 100 * double(n - 1);
  const size_t below = size_t(at);
  const double low = d.distance_mm[below], high = d.distance_mm[std::min(below + 1, n - 1)];
  return low == high ? low : low + (at - double(below)) * (high - low);
}

/// Squared distances along one axis: in place, values f -> min_q (f[q] + ((p - q) spacing)^2), for `lines` lines.
/// `offset(line)` is where a line starts, `stride` its step.
template <class Offset>
void lower_envelopes(std::vector<double>& f, int64_t lines, int64_t n, int64_t stride, double spacing, const Offset& offset,
                     const ParallelFor& parallel) {
  parallel(lines, 16, [&](int64_t begin, int64_t end) {
    std::vector<double> line(n), where(n + 1);  // where[k]: parabola k is lowest from here on
    std::vector<int64_t> vertex(n);
    for (int64_t l = begin; l < end; ++l) {
      double* data = f.data() + offset(l);
      int64_t k = -1;
      for (int64_t q = 0; q < n; ++q) {
        const double value = line[q] = data[q * stride];
        if (value == kInfinity) continue;
        const double at = double(q) * spacing;
        double from = -kInfinity;
        while (k >= 0) {
          const double other = double(vertex[k]) * spacing;
          from = ((value + at * at) - (line[vertex[k]] + other * other)) / (2 * (at - other));
          if (from > where[k]) break;
          --k, from = -kInfinity;
        }
        vertex[++k] = q, where[k] = from;
      }
      if (k < 0) continue;  // nothing on this line yet
      int64_t lowest = 0;
      for (int64_t p = 0; p < n; ++p) {
        const double at = double(p) * spacing;
        while (lowest < k && where[lowest + 1] < at) ++lowest;
        const double step = double(p - vertex[lowest]) * spacing;
        data[p * stride] = line[vertex[lowest]] + step * step;
      }
    }
  });
}

void check_spacing(const std::array<double, 3>& spacing_mm) {
  for (double s : spacing_mm)
    if (!(s > 0) || !std::isfinite(s)) throw ArgumentError("surface_distances: spacing " + std::to_string(s) + " mm, expected a positive number");
}

}  // namespace

std::string name_of(SurfaceConvention convention) {
  switch (convention) {
    case SurfaceConvention::kSurfaceArea: return "surface-distance";
    case SurfaceConvention::kBorderVoxels: return "monai";
    case SurfaceConvention::kVoxelSets: return "simpleitk";
  }
  return "";
}

SurfaceConvention surface_convention(std::string_view name) {
  std::vector<std::string> names;
  for (auto c : {SurfaceConvention::kSurfaceArea, SurfaceConvention::kBorderVoxels, SurfaceConvention::kVoxelSets}) {
    if (name == name_of(c)) return c;
    names.push_back(name_of(c));
  }
  const std::string near = nearest_name(name, names);
  throw ArgumentError("unknown surface convention '" + std::string(name) + "', expected surface-distance, monai or simpleitk" +
                      (near.empty() ? "" : "; did you mean " + near + "?"));
}

std::array<double, 256> surface_area_table_mm2(const std::array<double, 3>& spacing_mm) {
  static const std::array<Normals, 256> unit = [] {
    std::array<Normals, 256> table;
    for (unsigned code = 1; code < 255; ++code)
      for (const Loop& loop : surface_loops(code)) {
        const Normals found = largest_triangulation(loop, 0, loop.size() - 1);
        table[code].insert(table[code].end(), found.begin(), found.end());
      }
    return table;
  }();
  const auto [sz, sy, sx] = spacing_mm;
  std::array<double, 256> table{};
  for (int code = 0; code < 256; ++code)
    for (const Normal& n : unit[code]) table[code] += std::hypot(n[0] * sy * sx, n[1] * sz * sx, n[2] * sz * sy);
  return table;
}

std::vector<double> squared_distance_mm2(const View<const uint8_t, 3>& features, const std::array<double, 3>& spacing_mm,
                                         const ParallelFor& parallel) {
  check_spacing(spacing_mm);
  const auto [nz, ny, nx] = features.shape;
  std::vector<double> f(size_t(nz * ny * nx), kInfinity);
  for (int64_t z = 0, i = 0; z < nz; ++z)
    for (int64_t y = 0; y < ny; ++y)
      for (int64_t x = 0; x < nx; ++x, ++i)
        if (features(z, y, x)) f[i] = 0;
  const int64_t plane = ny * nx, row = nx, rows = ny;
  lower_envelopes(f, nz * ny, nx, 1, spacing_mm[2], [row](int64_t l) { return l * row; }, parallel);
  lower_envelopes(f, nz * nx, ny, row, spacing_mm[1], [=](int64_t l) { return l / row * plane + l % row; }, parallel);
  lower_envelopes(f, rows * row, nz, plane, spacing_mm[0], [](int64_t l) { return l; }, parallel);
  return f;
}

SurfaceDistances surface_distances(const View<const uint8_t, 3>& prediction, const View<const uint8_t, 3>& reference,
                                   const std::array<double, 3>& spacing_mm, SurfaceConvention convention, const ParallelFor& parallel) {
  check_spacing(spacing_mm);
  if (prediction.shape != reference.shape) {
    const auto text = [](const std::array<int64_t, 3>& s) {
      return std::to_string(s[0]) + "x" + std::to_string(s[1]) + "x" + std::to_string(s[2]);
    };
    throw ArgumentError("surface_distances: prediction is " + text(prediction.shape) + " voxels (z, y, x), reference " + text(reference.shape) +
                        ", expected equal shapes");
  }
  SurfaceDistances d;
  d.convention = convention;
  const Box box = bounding_box(prediction, reference);
  if (box.size[0] == 0) return d;
  const auto areas = convention == SurfaceConvention::kSurfaceArea ? surface_area_table_mm2(spacing_mm) : std::array<double, 256>{};
  const Elements p = surface_elements(prediction, box, convention), r = surface_elements(reference, box, convention);
  const auto squared_to = [&](const Elements& e) {
    return squared_distance_mm2(View<const uint8_t, 3>::contiguous(e.present.data(), e.shape), spacing_mm, parallel);
  };
  d.prediction_to_reference = directed(p, squared_to(r), areas);
  d.reference_to_prediction = directed(r, squared_to(p), areas);
  return d;
}

double hausdorff_mm(const SurfaceDistances& d, double percentile) {
  const auto &p = d.prediction_to_reference, &r = d.reference_to_prediction;
  if (p.distance_mm.empty() && r.distance_mm.empty()) return kNan;
  if (d.convention == SurfaceConvention::kVoxelSets && percentile < 100) return kNan;
  return std::max(percentile_mm(p, percentile, d.convention), percentile_mm(r, percentile, d.convention));
}

double directed_mean_mm(const DirectedDistances& d) {
  if (d.distance_mm.empty()) return kNan;
  return std::inner_product(d.distance_mm.begin(), d.distance_mm.end(), d.weight.begin(), 0.0) / total(d.weight);
}

double average_distance_mm(const SurfaceDistances& d) {
  const auto &p = d.prediction_to_reference, &r = d.reference_to_prediction;
  if (d.convention == SurfaceConvention::kVoxelSets && !p.weight.empty() && !r.weight.empty())
    return 0.5 * (directed_mean_mm(p) + directed_mean_mm(r));
  double sum = 0, weight = 0;
  for (const DirectedDistances* s : {&d.prediction_to_reference, &d.reference_to_prediction}) {
    sum = std::inner_product(s->distance_mm.begin(), s->distance_mm.end(), s->weight.begin(), sum);
    weight += total(s->weight);
  }
  return weight > 0 ? sum / weight : kNan;
}

double surface_dice(const SurfaceDistances& d, double tolerance_mm) {
  if (d.convention == SurfaceConvention::kVoxelSets) return kNan;
  double near = 0, all = 0;
  for (const DirectedDistances* s : {&d.prediction_to_reference, &d.reference_to_prediction})
    for (size_t i = 0; i < s->distance_mm.size(); ++i) {
      all += s->weight[i];
      if (s->distance_mm[i] <= tolerance_mm) near += s->weight[i];
    }
  return all > 0 ? near / all : kNan;
}

}  // namespace fovea::train
