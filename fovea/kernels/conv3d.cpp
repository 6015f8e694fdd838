#include "fovea/kernels/conv3d.h"

namespace fovea::kernels {
namespace {

/// Edges of a form's tile, and nanoseconds a transform of an input and of an output takes for each frequency and
/// channel.
struct FormCost {
  Conv3dForm form;
  int64_t z, y, x;
  double input_ns, output_ns;
};
// Measured on one core of an EPYC Turin, 48 to 48 channels, 96^3 voxels.
constexpr FormCost kCosts[] = {{Conv3dForm::kF222, 2, 2, 2, 0.17, 0.11},
                               {Conv3dForm::kF244, 2, 4, 4, 0.25, 0.15},
                               {Conv3dForm::kF444, 4, 4, 4, 0.32, 0.18}};
constexpr double kProductNs = 1 / 125.0;                     // a multiply-add at the peak of that core
constexpr double kWinogradShare = 0.85, kDirectShare = 0.9;  // of the peak that products reach
constexpr double kWeightNs = 0.6;                            // to transform a weight and to read it
constexpr double kDirectWeightNs = 3;                        // oneDNN orders weights anew at every call

double ceil_to(int64_t n, int64_t multiple) { return static_cast<double>((n + multiple - 1) / multiple * multiple); }

double direct_ns(const Conv3dSize& s) {
  // Taps that lie outside of the volume are skipped.
  const auto taps = [](int64_t edge) { return 3.0 * static_cast<double>(edge) - 2; };
  const double pairs = static_cast<double>(s.in) * ceil_to(s.out, 16);
  return pairs * (static_cast<double>(s.B) * taps(s.Z) * taps(s.Y) * taps(s.X) * kProductNs / kDirectShare +
                  27 * kDirectWeightNs);
}

double winograd_ns(const Conv3dSize& s, const FormCost& f) {
  const double tiles = static_cast<double>(s.B) * ceil_to(s.Z, f.z) * ceil_to(s.Y, f.y) * ceil_to(s.X, f.x) /
                       static_cast<double>(f.z * f.y * f.x);
  const double frequencies = static_cast<double>((f.z + 2) * (f.y + 2) * (f.x + 2)), in = ceil_to(s.in, 16),
               out = ceil_to(s.out, 16);
  const double products = tiles * static_cast<double>(s.in) * out * kProductNs / kWinogradShare;
  const double transforms = tiles * (in * f.input_ns + out * f.output_ns);
  const double weights = static_cast<double>(s.in) * out * kWeightNs;
  return frequencies * (products + transforms + weights);
}

}  // namespace

std::string name_of(Conv3dForm form) {
  switch (form) {
    case Conv3dForm::kF222:
      return "F(2,2,2)";
    case Conv3dForm::kF244:
      return "F(2,4,4)";
    case Conv3dForm::kF444:
      return "F(4,4,4)";
    default:
      return "direct";
  }
}

Conv3dForm choose_conv3d_form(const Conv3dSize& size, Conv3dPrecision precision) {
  Conv3dForm best = Conv3dForm::kDirect;
  double least_ns = direct_ns(size);
  for (const FormCost& f : kCosts) {
    if (precision == Conv3dPrecision::kHighest && f.form != Conv3dForm::kF222) continue;
    const double ns = winograd_ns(size, f);
    if (ns < least_ns) least_ns = ns, best = f.form;
  }
  return best;
}

}  // namespace fovea::kernels
