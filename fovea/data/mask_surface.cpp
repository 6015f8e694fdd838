#include "fovea/data/mask_surface.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "fovea/core/error.h"

namespace fovea::data {

namespace {
using Corner = std::array<int, 3>;    // Z, Y, X
using Triangle = std::array<int, 3>;  // of edges
constexpr std::array<Corner, 8> kCorners = {Corner{0, 0, 0}, {0, 0, 1}, {0, 1, 1}, {0, 1, 0},
                                            {1, 0, 0},       {1, 0, 1}, {1, 1, 1}, {1, 1, 0}};
// Edges by the corners that they join: 0-3 and 4-7 go round the two planes of z, 8-11 join them.
constexpr std::array<std::array<int, 2>, 12> kEdges = {
    {{0, 1}, {1, 2}, {2, 3}, {3, 0}, {4, 5}, {5, 6}, {6, 7}, {7, 4}, {0, 4}, {1, 5}, {2, 6}, {3, 7}}};
// Faces: corners in a round.
constexpr std::array<std::array<int, 4>, 6> kFaces = {
    {{0, 1, 2, 3}, {4, 5, 6, 7}, {0, 1, 5, 4}, {3, 2, 6, 7}, {0, 3, 7, 4}, {1, 2, 6, 5}}};

int edge_between(int a, int b) {
  for (int e = 0; e < 12; ++e)
    if ((kEdges[e][0] == a && kEdges[e][1] == b) || (kEdges[e][0] == b && kEdges[e][1] == a)) return e;
  return -1;
}
bool touches(int edge, int corner) { return kEdges[edge][0] == corner || kEdges[edge][1] == corner; }

// Twice the midpoint of an edge: whole numbers.
Corner doubled(int edge) {
  Corner p;
  for (int a = 0; a < 3; ++a) p[a] = kCorners[kEdges[edge][0]][a] + kCorners[kEdges[edge][1]][a];
  return p;
}
int determinant(const Corner& a, const Corner& b, const Corner& c) {
  return a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0]);
}
bool in_one_plane(int a, int b, int c, int d) {
  const Corner o = doubled(d);
  std::array<Corner, 3> v = {doubled(a), doubled(b), doubled(c)};
  for (Corner& p : v)
    for (int i = 0; i < 3; ++i) p[i] -= o[i];
  return determinant(v[0], v[1], v[2]) == 0;
}

// A face whose inside corners lie crosswise.
struct Crossing {
  std::vector<int> outside;  // its two other corners
  std::vector<int> edges;    // its four
};

// Four inside corners in a chain that turns out of every plane leave a hexagon of two triangulations with a triangle in
// the middle, mirror images of each other. Which of the two: pyradiomics' choice, by cube.
const std::map<int, Triangle>& middle_triangles() {
  static const std::map<int, Triangle> middles = {
      {23, {2, 7, 9}}, {29, {1, 4, 11}}, {43, {2, 5, 8}}, {46, {0, 5, 11}}, {54, {2, 5, 8}},   {57, {2, 7, 9}},
      {71, {2, 5, 8}}, {77, {0, 5, 11}}, {99, {1, 6, 8}}, {108, {3, 6, 9}}, {113, {0, 7, 10}}, {116, {1, 6, 8}}};
  return middles;
}

// A closed line of edges as triangles.
std::vector<Triangle> fill_loop(int cube, const std::vector<int>& loop, const std::vector<Crossing>& crossings) {
  const auto n = int(loop.size());
  const auto at = [&](int i) { return loop[size_t((i % n + n) % n)]; };
  const auto fan = [&](int apex) {
    std::vector<Triangle> t;
    for (int i = 1; i + 1 < n; ++i) t.push_back({at(apex), at(apex + i), at(apex + i + 1)});
    return t;
  };
  // A line that passes the same face twice: a fan from an edge that leaves that face.
  for (const Crossing& c : crossings) {
    if (!std::all_of(c.edges.begin(), c.edges.end(), [&](int e) { return std::count(loop.begin(), loop.end(), e); }))
      continue;
    for (int i = 0; i < n; ++i)
      if (std::none_of(c.edges.begin(), c.edges.end(), [&](int e) { return e == at(i); }) &&
          std::any_of(c.outside.begin(), c.outside.end(), [&](int corner) { return touches(at(i), corner); }))
        return fan(i);
  }
  if (n == 5)  // an ear whose removal leaves a plane quadrilateral
    for (int i = 0; i < n; ++i)
      if (in_one_plane(at(i + 1), at(i + 2), at(i + 3), at(i + 4))) return fan(i + 1);
  if (const auto middle = middle_triangles().find(cube); n == 6 && middle != middle_triangles().end()) {
    const int first = std::count(middle->second.begin(), middle->second.end(), at(0)) ? 0 : 1;
    return {{at(first), at(first + 2), at(first + 4)},
            {at(first), at(first + 1), at(first + 2)},
            {at(first + 2), at(first + 3), at(first + 4)},
            {at(first + 4), at(first + 5), at(first + 6)}};
  }
  return fan(0);  // plane
}

// Triangles of a cube whose corners `inside` (bit c: corner c, not the last) are inside; seen from outside, in one
// sense of rotation.
std::vector<Triangle> triangles_of(int cube) {
  const auto inside = [&](int corner) { return (cube >> corner & 1) != 0; };
  std::vector<std::pair<int, int>> segments;
  std::vector<Crossing> crossings;
  for (const auto& face : kFaces) {
    std::vector<int> cut;
    for (int i = 0; i < 4; ++i)
      if (inside(face[i]) != inside(face[(i + 1) % 4])) cut.push_back(edge_between(face[i], face[(i + 1) % 4]));
    if (cut.size() == 2) segments.emplace_back(cut[0], cut[1]);
    if (cut.size() == 4) {
      Crossing c{{}, cut};
      for (int i = 0; i < 4; ++i)
        if (inside(face[i]))
          segments.emplace_back(edge_between(face[i], face[(i + 1) % 4]), edge_between(face[(i + 3) % 4], face[i]));
        else
          c.outside.push_back(face[i]);
      crossings.push_back(c);
    }
  }
  std::vector<Triangle> triangles;
  while (!segments.empty()) {
    std::vector<int> loop = {segments.back().first, segments.back().second};
    segments.pop_back();
    while (loop.front() != loop.back())
      for (size_t i = 0; i < segments.size(); ++i) {
        const auto [a, b] = segments[i];
        if (a != loop.back() && b != loop.back()) continue;
        loop.push_back(a == loop.back() ? b : a);
        segments.erase(segments.begin() + int64_t(i));
        break;
      }
    loop.pop_back();
    std::vector<Triangle> filled = fill_loop(cube, loop, crossings);
    // The loop's sense: its area vector must point from inside to outside along its first edge.
    std::array<int, 3> normal{};
    for (const Triangle& t : filled) {
      const Corner a = doubled(t[0]), b = doubled(t[1]), c = doubled(t[2]);
      for (int i = 0; i < 3; ++i) {
        const int j = (i + 1) % 3, k = (i + 2) % 3;
        normal[i] += (b[j] - a[j]) * (c[k] - a[k]) - (b[k] - a[k]) * (c[j] - a[j]);
      }
    }
    int outward = 0;
    for (const int edge : loop) {
      const bool forward = inside(kEdges[edge][0]);
      for (int i = 0; i < 3; ++i)
        outward += normal[i] * (kCorners[kEdges[edge][forward]][i] - kCorners[kEdges[edge][!forward]][i]);
    }
    FOVEA_CHECK(outward != 0, "mask_surface: a loop without sense");
    for (Triangle& t : filled) {
      if (outward < 0) std::swap(t[1], t[2]);
      triangles.push_back(t);
    }
  }
  return triangles;
}

// What the triangles of a cube add. The volume below a triangle moved by p is det(a, b, c) + p . (a x b + b x c + c x
// a), over 6.
struct CubePart {
  double area = 0, determinant = 0;
  std::array<double, 3> moved{};
};

std::array<CubePart, 256> cube_parts(const std::array<double, 3>& spacing_mm) {
  static const std::array<std::vector<Triangle>, 128> table = [] {
    std::array<std::vector<Triangle>, 128> t;
    for (int cube = 0; cube < 128; ++cube) t[size_t(cube)] = triangles_of(cube);
    return t;
  }();
  std::array<CubePart, 256> parts;
  for (int cube = 0; cube < 256; ++cube) {
    const bool swapped = cube & 128;
    for (const Triangle& triangle : table[size_t(swapped ? cube ^ 255 : cube)]) {
      std::array<std::array<double, 3>, 3> v;
      for (int i = 0; i < 3; ++i)
        for (int a = 0; a < 3; ++a) v[i][a] = doubled(triangle[i])[a] / 2.0 * spacing_mm[a];
      const auto cross = [](const std::array<double, 3>& p, const std::array<double, 3>& q) {
        return std::array<double, 3>{p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]};
      };
      std::array<double, 3> sum{};
      for (int i = 0; i < 3; ++i) {
        const auto c = cross(v[i], v[(i + 1) % 3]);
        for (int a = 0; a < 3; ++a) sum[a] += c[a];
      }
      const auto ab = cross(v[0], v[1]);
      const double sign = swapped ? -1 : 1;
      CubePart& part = parts[size_t(cube)];
      part.area += 0.5 * std::sqrt(sum[0] * sum[0] + sum[1] * sum[1] + sum[2] * sum[2]);
      part.determinant += sign * (ab[0] * v[2][0] + ab[1] * v[2][1] + ab[2] * v[2][2]);
      for (int a = 0; a < 3; ++a) part.moved[a] += sign * sum[a];
    }
  }
  return parts;
}

using Place = std::array<int32_t, 3>;  // twice the index, Z, Y, X

double square_mm2(const Place& p, const Place& q, const std::array<double, 3>& spacing_mm) {
  double sum = 0;
  for (int a = 0; a < 3; ++a) {
    const double d = 0.5 * double(p[a] - q[a]) * spacing_mm[a];
    sum += d * d;
  }
  return sum;
}

// Of the points of each line along `axis` the two outermost: no others can be furthest from anything.
std::vector<Place> outermost(std::vector<Place> points, int axis) {
  const int b = (axis + 1) % 3, c = (axis + 2) % 3;
  std::sort(points.begin(), points.end(), [&](const Place& p, const Place& q) {
    return std::array{p[b], p[c], p[axis]} < std::array{q[b], q[c], q[axis]};
  });
  std::vector<Place> kept;
  for (size_t i = 0; i < points.size(); ++i) {
    const auto same_line = [&](size_t j) { return points[j][b] == points[i][b] && points[j][c] == points[i][c]; };
    if (i == 0 || !same_line(i - 1) || i + 1 == points.size() || !same_line(i + 1)) kept.push_back(points[i]);
  }
  return kept;
}

double largest_distance_mm(const std::vector<Place>& points, const std::array<double, 3>& spacing_mm) {
  double largest = 0;
  for (size_t i = 0; i < points.size(); ++i)
    for (size_t j = 0; j < i; ++j) largest = std::max(largest, square_mm2(points[i], points[j], spacing_mm));
  return std::sqrt(largest);
}
}  // namespace

MaskSurface mask_surface(const View<const uint8_t, 3>& mask, const std::array<double, 3>& spacing_mm) {
  const auto parts = cube_parts(spacing_mm);
  const auto inside = [&](int64_t z, int64_t y, int64_t x) {
    const bool within = z >= 0 && y >= 0 && x >= 0 && z < mask.shape[0] && y < mask.shape[1] && x < mask.shape[2];
    return within && mask(z, y, x) != 0;
  };
  MaskSurface surface;
  std::vector<Place> points;
  double six_volumes = 0;
  for (int64_t z = -1; z < mask.shape[0]; ++z)
    for (int64_t y = -1; y < mask.shape[1]; ++y)
      for (int64_t x = -1; x < mask.shape[2]; ++x) {
        int cube = 0;
        for (int c = 0; c < 8; ++c) cube |= inside(z + kCorners[c][0], y + kCorners[c][1], x + kCorners[c][2]) << c;
        if (cube == 0 || cube == 255) continue;
        const CubePart& part = parts[size_t(cube)];
        surface.area_mm2 += part.area;
        six_volumes += part.determinant;
        const std::array<int64_t, 3> place = {z + 1, y + 1, x + 1};
        for (int a = 0; a < 3; ++a) six_volumes += double(place[a]) * spacing_mm[a] * part.moved[a];
        for (const int edge : {6, 7, 11})  // those of the last corner: every edge of the grid once
          if ((cube >> kEdges[edge][0] & 1) != (cube >> kEdges[edge][1] & 1)) {
            const Corner p = doubled(edge);
            points.push_back({int32_t(2 * z + p[0]), int32_t(2 * y + p[1]), int32_t(2 * x + p[2])});
          }
      }
  surface.volume_mm3 = six_volumes / 6;
  surface.diameter_mm = largest_distance_mm(outermost(outermost(outermost(points, 2), 1), 0), spacing_mm);
  for (int axis = 0; axis < 3; ++axis) {
    std::map<int32_t, std::vector<Place>> planes;
    for (const Place& p : outermost(outermost(points, (axis + 1) % 3), (axis + 2) % 3)) planes[p[axis]].push_back(p);
    for (const auto& [at, plane] : planes)
      surface.diameter_in_plane_mm[axis] =
          std::max(surface.diameter_in_plane_mm[axis], largest_distance_mm(plane, spacing_mm));
  }
  return surface;
}

}  // namespace fovea::data
