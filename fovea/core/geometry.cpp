#include "fovea/core/geometry.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "fovea/core/error.h"

namespace fovea {

namespace {
double determinant(const Affine& m) {
  return m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
         m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
}

double column_length(const Affine& m, int c) { return std::hypot(m[0][c], m[1][c], m[2][c]); }

// Assigns each index axis (x, y, z) to one patient axis: the pair with the largest cosine first, so that no two index
// axes claim the same one. Returns patient axis of each index axis.
std::array<int, 3> assign_axes(const Affine& m) {
  std::array<int, 3> patient{-1, -1, -1};
  bool taken[3] = {};
  for (int round = 0; round < 3; ++round) {
    double best = -1;
    int best_column = 0, best_row = 0;
    for (int c = 0; c < 3; ++c)
      for (int r = 0; r < 3; ++r) {
        const double length = column_length(m, c), cosine = length > 0 ? std::abs(m[r][c]) / length : 0;
        if (patient[c] < 0 && !taken[r] && cosine > best) best = cosine, best_column = c, best_row = r;
      }
    patient[best_column] = best_row, taken[best_row] = true;
  }
  return patient;
}
}  // namespace

std::array<double, 3> Geometry::spacing_mm() const {
  return {column_length(affine, 2), column_length(affine, 1), column_length(affine, 0)};
}

Point Geometry::to_mm(const Point& xyz) const {
  Point mm;
  for (int r = 0; r < 3; ++r)
    mm[r] = affine[r][0] * xyz[0] + affine[r][1] * xyz[1] + affine[r][2] * xyz[2] + affine[r][3];
  return mm;
}

Point Geometry::to_index(const Point& mm) const {
  if (is_singular()) throw ArgumentError("geometry: the affine is singular, so millimetres have no voxel index; " + to_string(*this));
  // Cramer's rule on the 3x3 part.
  const Point b{mm[0] - affine[0][3], mm[1] - affine[1][3], mm[2] - affine[2][3]};
  const double det = determinant(affine);
  Point xyz;
  for (int c = 0; c < 3; ++c) {
    Affine m = affine;
    for (int r = 0; r < 3; ++r) m[r][c] = b[r];
    xyz[c] = determinant(m) / det;
  }
  return xyz;
}

std::string Geometry::axis_codes() const {
  constexpr const char* positive = "RAS";
  constexpr const char* negative = "LPI";
  const auto patient = assign_axes(affine);
  std::string codes;
  for (int c = 0; c < 3; ++c) codes += affine[patient[c]][c] < 0 ? negative[patient[c]] : positive[patient[c]];
  return codes;
}

double Geometry::voxel_volume_mm3() const { return std::abs(determinant(affine)); }

bool Geometry::is_singular() const {
  const auto s = spacing_mm();
  return !(std::abs(determinant(affine)) > 1e-9 * s[0] * s[1] * s[2]);
}

bool same_grid(const Geometry& a, const Geometry& b, double tolerance_mm) {
  if (a.shape != b.shape) return false;
  for (int corner = 0; corner < 8; ++corner) {
    const Point index{corner & 1 ? double(a.shape[2] - 1) : 0, corner & 2 ? double(a.shape[1] - 1) : 0,
                      corner & 4 ? double(a.shape[0] - 1) : 0};
    const Point p = a.to_mm(index), q = b.to_mm(index);
    if (!(std::hypot(p[0] - q[0], p[1] - q[1], p[2] - q[2]) <= tolerance_mm)) return false;
  }
  return true;
}

std::string to_string(const Geometry& g) {
  const auto s = g.spacing_mm();
  char line[256];
  std::snprintf(line, sizeof line, "%lldx%lldx%lld voxels (x, y, z), spacing %.4gx%.4gx%.4g mm, %s, origin %.6g %.6g %.6g",
                (long long)g.shape[2], (long long)g.shape[1], (long long)g.shape[0], s[2], s[1], s[0], g.axis_codes().c_str(),
                g.affine[0][3], g.affine[1][3], g.affine[2][3]);
  return line;
}

Orientation Orientation::inverse() const {
  Orientation o;
  for (int a = 0; a < 3; ++a) o.axis[axis[a]] = a, o.flip[axis[a]] = flip[a];
  return o;
}

Orientation to_canonical(const Geometry& g) {
  // Index axis c is array axis 2 - c; patient axis r (right, anterior, superior) becomes array axis 2 - r.
  const auto patient = assign_axes(g.affine);
  Orientation o;
  for (int c = 0; c < 3; ++c) o.axis[2 - patient[c]] = 2 - c, o.flip[2 - patient[c]] = g.affine[patient[c]][c] < 0;
  return o;
}

Geometry reorient(const Geometry& g, const Orientation& o) {
  Geometry out;
  for (int r = 0; r < 3; ++r) out.affine[r][3] = g.affine[r][3];
  for (int a = 0; a < 3; ++a) {
    const int source = o.axis[a], column = 2 - a, source_column = 2 - source;
    out.shape[a] = g.shape[source];
    for (int r = 0; r < 3; ++r) {
      const double step = g.affine[r][source_column];
      out.affine[r][column] = o.flip[a] ? -step : step;
      if (o.flip[a]) out.affine[r][3] += step * double(g.shape[source] - 1);
    }
  }
  return out;
}

}  // namespace fovea
