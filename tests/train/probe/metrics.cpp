// Lets the Python oracles ask for our metrics. Each line of stdin is a case:
//   PREDICTION REFERENCE Z Y X SZ SY SX CONVENTION TOLERANCE...    (two files of raw bytes; spacing in mm)
// and gives one line: n_tp n_fp n_fn n_tn dice iou vs ml_pred ml_ref hd hd95 assd mean_pred_ref mean_ref_pred nsd...
// A line "table SZ SY SX" gives the 256 areas of the neighbourhood codes.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

#include "fovea/core/error.h"
#include "fovea/train/segmentation_metrics.h"

namespace {

std::vector<uint8_t> read_bytes(const std::string& path, size_t expected) {
  std::ifstream file(path, std::ios::binary);
  std::vector<uint8_t> bytes(std::istreambuf_iterator<char>(file), {});
  if (bytes.size() != expected) throw fovea::IoError(path, "expected " + std::to_string(expected) + " bytes, found " + std::to_string(bytes.size()));
  return bytes;
}

}  // namespace

int main() try {
  using namespace fovea::train;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream in(line);
    std::string first, second, convention;
    in >> first;
    if (first == "table") {
      std::array<double, 3> s{};
      in >> s[0] >> s[1] >> s[2];
      for (double a : surface_area_table_mm2(s)) std::printf("%.17g ", a);
      std::printf("\n");
      continue;
    }
    std::array<int64_t, 3> shape{};
    std::array<double, 3> spacing{};
    in >> second >> shape[0] >> shape[1] >> shape[2] >> spacing[0] >> spacing[1] >> spacing[2] >> convention;
    SegmentationMetricsOptions options{surface_convention(convention), {}, true};
    for (double t; in >> t;) options.tolerances_mm.push_back(t);
    const size_t n = size_t(shape[0] * shape[1] * shape[2]);
    const auto p = read_bytes(first, n), r = read_bytes(second, n);
    const auto pv = fovea::View<const uint8_t, 3>::contiguous(p.data(), shape), rv = fovea::View<const uint8_t, 3>::contiguous(r.data(), shape);
    const SegmentationMetrics m = segmentation_metrics(pv, rv, spacing, options);
    const SurfaceDistances d = surface_distances(pv, rv, spacing, options.convention);
    std::printf("%lld %lld %lld %lld", (long long)m.counts.tp, (long long)m.counts.fp, (long long)m.counts.fn, (long long)m.counts.tn);
    for (double v : {m.dice, m.iou, m.volumetric_similarity, m.volume_pred_ml, m.volume_ref_ml, m.hd_mm, m.hd95_mm, m.assd_mm,
                     directed_mean_mm(d.prediction_to_reference), directed_mean_mm(d.reference_to_prediction)})
      std::printf(" %.17g", v);
    for (double v : m.nsd) std::printf(" %.17g", v);
    std::printf("\n");
  }
  return 0;
} catch (const fovea::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return int(e.code());
}
