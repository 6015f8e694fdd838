#include "fovea/data/augment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <set>

#include "fovea/core/error.h"
#include "fovea/io/config.h"
#include "tests/data/scratch_folder.h"

namespace fovea::data {
namespace {

using testing::HasSubstr;
using Shape = std::array<int64_t, 3>;

// A random volume with a label, and patches of it as tensors.
struct Scan {
  Shape shape;
  int64_t channels;
  std::vector<float> image;
  std::vector<uint8_t> label;
  std::array<double, 3> spacing_mm{1, 1, 1};

  explicit Scan(const Shape& s, int64_t c = 1)
      : shape(s), channels(c), image(c * s[0] * s[1] * s[2]), label(s[0] * s[1] * s[2]) {
    Rng rng(11, 0, 0);
    for (float& v : image) v = rng.normal();
    for (uint8_t& v : label) v = uint8_t(rng.below(3));
  }
  PatchSource<uint8_t> source() const { return {image.data(), label.data(), channels, shape, spacing_mm}; }
  torch::Tensor images() const { return torch::tensor(image).reshape({channels, shape[0], shape[1], shape[2]}); }
  torch::Tensor labels() const {
    return torch::tensor(std::vector<int64_t>(label.begin(), label.end())).reshape({shape[0], shape[1], shape[2]});
  }
};

struct Patch {
  torch::Tensor image, label;
  Patch(int64_t channels, const Shape& p)
      : image(torch::full({channels, p[0], p[1], p[2]}, 777.0)),
        label(torch::full({p[0], p[1], p[2]}, 777, torch::kLong)) {}
};

Patch sampled(const Scan& scan, const Shape& begin, const Shape& patch, const SpatialTransform& transform) {
  Patch out(scan.channels, patch);
  sample_patch(scan.source(), begin, patch, transform, out.image.data_ptr<float>(), out.label.data_ptr<int64_t>());
  return out;
}

Patch augmented(const Scan& scan, const Shape& begin, const Shape& patch, const AugmentConfig& config,
                const SampleKey& key) {
  Patch out(scan.channels, patch);
  augmented_patch(scan.source(), begin, patch, config, key, out.image.data_ptr<float>(), out.label.data_ptr<int64_t>());
  return out;
}

torch::Tensor slice(const torch::Tensor& t, const Shape& begin, const Shape& patch) {
  return t.narrow(-3, begin[0], patch[0]).narrow(-2, begin[1], patch[1]).narrow(-1, begin[2], patch[2]);
}

TEST(SamplePatch, IdentityCopiesBitForBitForEvenAndOddPatches) {
  const Scan scan({9, 10, 11}, 2);
  for (const Shape& patch : {Shape{4, 5, 6}, Shape{9, 10, 11}, Shape{1, 1, 1}, Shape{3, 10, 2}}) {
    const Shape begin{9 - patch[0], 0, 11 - patch[2]};
    const Patch got = sampled(scan, begin, patch, {});
    EXPECT_TRUE(got.image.equal(slice(scan.images(), begin, patch)));
    EXPECT_TRUE(got.label.equal(slice(scan.labels(), begin, patch)));
  }
}

TEST(SamplePatch, OutsideTheVolumeIsZeroWithLabelZero) {
  const Scan scan({4, 4, 4});
  const Patch got = sampled(scan, {-2, 1, 0}, {8, 4, 6}, {});
  const auto image = torch::constant_pad_nd(scan.images(), {0, 2, -1, 1, 2, 2}),
             label = torch::constant_pad_nd(scan.labels(), {0, 2, -1, 1, 2, 2});
  EXPECT_TRUE(got.image.equal(image));
  EXPECT_TRUE(got.label.equal(label));
}

TEST(SamplePatch, MirroringEqualsFlipOnEachAxis) {
  const Scan scan({8, 9, 10});
  for (int axis = 0; axis < 3; ++axis) {
    SpatialTransform t;
    t.mirror[axis] = true;
    const Patch got = sampled(scan, {1, 2, 3}, {6, 5, 4}, t);
    EXPECT_TRUE(got.image.equal(slice(scan.images(), {1, 2, 3}, {6, 5, 4}).flip({axis + 1})));
    EXPECT_TRUE(got.label.equal(slice(scan.labels(), {1, 2, 3}, {6, 5, 4}).flip({axis})));
  }
}

TEST(SamplePatch, AQuarterTurnEqualsRot90AndTakesContextFromOutsideThePatch) {
  const Scan scan({5, 12, 12});
  SpatialTransform t;  // y' = -x, x' = y about the centre
  t.matrix = {{{1, 0, 0}, {0, 0, -1}, {0, 1, 0}}};
  // The patch is 4 x 8: its turned copy needs rows that lie outside the patch itself.
  const Patch got = sampled(scan, {1, 4, 2}, {3, 4, 8}, t);
  const auto context = slice(scan.images(), {1, 2, 4}, {3, 8, 4}), labels = slice(scan.labels(), {1, 2, 4}, {3, 8, 4});
  EXPECT_LT((got.image - torch::rot90(context, -1, {2, 3})).abs().max().item<float>(), 1e-5f);
  EXPECT_TRUE(got.label.equal(torch::rot90(labels, -1, {1, 2})));
}

TEST(SamplePatch, DrawnRotationIsARotationInMillimetres) {
  AugmentConfig config = augment_preset("none");
  config.rotation_probability = 1;
  const std::array<double, 3> spacing{3, 0.5, 1};
  const SpatialTransform t = draw_spatial(config, {8, 8, 8}, spacing, {1, 2, 3});
  // D M D^-1 with D = diag(spacing) must be orthogonal.
  double m[3][3];
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) m[i][j] = t.matrix[i][j] * spacing[i] / spacing[j];
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) EXPECT_NEAR(m[0][i] * m[0][j] + m[1][i] * m[1][j] + m[2][i] * m[2][j], i == j, 1e-12);
  EXPECT_GT(std::abs(m[0][1]), 1e-4);
}

TEST(SamplePatch, ScalingAboveOneEnlarges) {
  AugmentConfig config = augment_preset("none");
  config.scale_probability = 1, config.scale = {2, 2};
  EXPECT_DOUBLE_EQ(draw_spatial(config, {8, 8, 8}, {1, 1, 1}, {}).matrix[1][1], 0.5);
}

TEST(SamplePatch, DeformationHasTheAskedSizeAndIsSmooth) {
  // A volume whose value is its X coordinate shows the X displacement itself.
  Scan scan({40, 40, 200});
  for (size_t i = 0; i < scan.image.size(); ++i) scan.image[i] = float(i % 200);
  AugmentConfig config = augment_preset("none");
  config.elastic_probability = 1, config.elastic_vox = {2, 2}, config.elastic_grid_vox = 8;
  double squares = 0, steps = 0, n = 0;
  for (uint32_t i = 0; i < 20; ++i) {
    const Shape patch{8, 16, 128}, begin{16, 12, 36};
    const auto transform = draw_spatial(config, patch, {1, 1, 1}, {5, 0, i});
    const auto image = sampled(scan, begin, patch, transform).image[0];
    const auto shift = image - slice(scan.images(), begin, patch)[0];
    squares += shift.pow(2).sum().item<double>(), n += double(shift.numel());
    steps = std::max(steps, (shift.narrow(2, 1, 127) - shift.narrow(2, 0, 127)).abs().max().item<double>());
  }
  EXPECT_NEAR(std::sqrt(squares / n), 2, 0.2);
  EXPECT_LT(steps, 1.5);  // neighbouring voxels move together
}

TEST(AugmentedPatch, NoneIsThePatchItself) {
  const Scan scan({8, 9, 10});
  const Patch got = augmented(scan, {1, 1, 1}, {6, 6, 6}, augment_preset("none"), {7, 7, 7});
  EXPECT_TRUE(got.image.equal(slice(scan.images(), {1, 1, 1}, {6, 6, 6})));
}

TEST(AugmentedPatch, SameKeySameBitsOtherKeyOtherBitsAndLabelsStayInTheSet) {
  Scan scan({12, 20, 20}, 2);
  scan.spacing_mm = {2, 1, 1};
  AugmentConfig config = augment_preset("strong");
  config.rotation_probability = config.elastic_probability = config.noise_probability = config.blur_probability =
      config.gamma_probability = 1;
  config.contrast_probability = config.brightness_probability = config.low_resolution_probability =
      config.gamma_inverted_probability = 1;
  const Patch a = augmented(scan, {0, 0, 0}, {12, 16, 16}, config, {1, 2, 3}),
              b = augmented(scan, {0, 0, 0}, {12, 16, 16}, config, {1, 2, 3});
  EXPECT_TRUE(a.image.equal(b.image));
  EXPECT_TRUE(a.label.equal(b.label));
  EXPECT_TRUE(a.image.isfinite().all().item<bool>());
  EXPECT_GE(a.label.min().item<int64_t>(), 0);
  EXPECT_LE(a.label.max().item<int64_t>(), 2);
  EXPECT_FALSE(augmented(scan, {0, 0, 0}, {12, 16, 16}, config, {1, 2, 4}).image.equal(a.image));
  EXPECT_FALSE(augmented(scan, {0, 0, 0}, {12, 16, 16}, config, {1, 3, 3}).image.equal(a.image));
  EXPECT_FALSE(augmented(scan, {0, 0, 0}, {12, 16, 16}, config, {2, 2, 3}).image.equal(a.image));
}

TEST(AugmentedPatch, MirroredLeftAndRightExchangeTheirClasses) {
  const Scan scan({4, 4, 8});
  AugmentConfig config = augment_preset("none");
  config.flip = {false, false, true}, config.flip_probability = 1, config.flip_x_swaps = {{1, 2}};
  const Patch got = augmented(scan, {0, 0, 0}, {4, 4, 8}, config, {});
  const auto mirrored = scan.labels().flip({2});
  EXPECT_TRUE(got.label.equal(torch::where(mirrored == 0, mirrored, 3 - mirrored)));
}

TEST(AugmentedPatch, FlipsAsOftenAsAskedAndOnlyWhereAllowed) {
  AugmentConfig config = augment_preset("nnunet");
  config.flip = {true, false, true};
  int flips[3] = {};
  for (uint32_t i = 0; i < 4000; ++i) {
    const auto t = draw_spatial(config, {8, 8, 8}, {1, 1, 1}, {3, 0, i});
    for (int a = 0; a < 3; ++a) flips[a] += t.mirror[a];
  }
  EXPECT_NEAR(flips[0], 2000, 130);  // four standard deviations
  EXPECT_EQ(flips[1], 0);
  EXPECT_NEAR(flips[2], 2000, 130);
}

// One intensity change on its own.
torch::Tensor changed(const Scan& scan, const AugmentConfig& config, uint32_t index = 0) {
  torch::Tensor image = scan.images().clone();
  augment_intensity(config, {9, 0, index}, scan.channels, scan.shape, image.data_ptr<float>());
  return image;
}

TEST(AugmentIntensity, EachChangeDoesWhatItsNameSays) {
  const Scan scan({12, 14, 16});
  const auto before = scan.images();
  AugmentConfig config = augment_preset("none");
  config.noise_probability = 1, config.noise_deviation = {0.5f, 0.5f};
  EXPECT_NEAR((changed(scan, config) - before).std().item<float>(), 0.5, 0.03);

  config = augment_preset("none"), config.brightness_probability = 1, config.brightness = {1.25f, 1.25f};
  EXPECT_TRUE(changed(scan, config).equal(before * 1.25));

  config = augment_preset("none"), config.contrast_probability = 1, config.contrast = {0.5f, 0.5f};
  EXPECT_NEAR(changed(scan, config).std().item<float>(), before.std().item<float>() / 2, 1e-4);
  EXPECT_NEAR(changed(scan, config).mean().item<float>(), before.mean().item<float>(), 1e-5);

  config = augment_preset("none"), config.gamma_probability = 1, config.gamma = {1.4f, 1.4f};
  const auto curved = changed(scan, config).flatten();
  EXPECT_NEAR(curved.mean().item<float>(), before.mean().item<float>(), 1e-4);
  EXPECT_NEAR(curved.std().item<float>(), before.std().item<float>(), 1e-4);
  EXPECT_TRUE(curved.argsort().equal(before.flatten().argsort()));  // monotone
  const double skew = ((curved - curved.mean()) / curved.std()).pow(3).mean().item<double>();
  EXPECT_GT(skew, 0.1);  // an exponent above 1 pulls low values together
  config = augment_preset("none"), config.gamma_inverted_probability = 1, config.gamma = {1.4f, 1.4f};
  const auto inverted = changed(scan, config).flatten();
  EXPECT_LT(((inverted - inverted.mean()) / inverted.std()).pow(3).mean().item<double>(), -0.1);
}

TEST(AugmentIntensity, BlurEqualsAGaussianConvolutionWithRepeatedBorders) {
  const Scan scan({7, 8, 9});
  AugmentConfig config = augment_preset("none");
  config.blur_probability = 1, config.blur_sigma_vox = {0.8f, 0.8f};
  torch::Tensor w = torch::exp(-0.5 * torch::arange(-3, 4, torch::kDouble).pow(2) / 0.64);
  w = (w / w.sum()).to(torch::kFloat);
  namespace F = torch::nn::functional;
  const auto padded = F::pad(scan.images().unsqueeze(0), F::PadFuncOptions({3, 3, 3, 3, 3, 3}).mode(torch::kReplicate));
  const auto kernel = (w.view({7, 1, 1}) * w.view({1, 7, 1}) * w.view({1, 1, 7})).view({1, 1, 7, 7, 7});
  EXPECT_LT((changed(scan, config) - torch::conv3d(padded, kernel)[0]).abs().max().item<float>(), 1e-5f);
}

TEST(AugmentIntensity, LowResolutionIsNearestDownAndLinearUp) {
  const Scan scan({8, 8, 8});
  AugmentConfig config = augment_preset("none");
  config.low_resolution_probability = 1, config.low_resolution_zoom = {0.5f, 0.5f};
  namespace F = torch::nn::functional;
  const auto small = torch::_upsample_nearest_exact3d(scan.images().unsqueeze(0), {4, 4, 4});
  const auto expected = F::interpolate(
      small,
      F::InterpolateFuncOptions().size(std::vector<int64_t>{8, 8, 8}).mode(torch::kTrilinear).align_corners(false))[0];
  EXPECT_LT((changed(scan, config) - expected).abs().max().item<float>(), 1e-5f);
}

TEST(AugmentConfig, SurvivesJsonAndRefusesNonsense) {
  const AugmentConfig config = augment_preset("strong");
  EXPECT_EQ(io::to_json(io::from_json<AugmentConfig>(io::to_json(config), "x")), io::to_json(config));
  EXPECT_THAT(message_of([] { augment_preset("nunet"); }), HasSubstr("did you mean nnunet"));
  AugmentConfig wrong;
  wrong.scale = {1.4f, 0.7f};
  EXPECT_THAT(message_of([&] { wrong.validate(); }), HasSubstr("augment: scale is"));
  wrong = {}, wrong.blur_probability = 2;
  EXPECT_THAT(message_of([&] { wrong.validate(); }), HasSubstr("blur_probability"));
}

}  // namespace
}  // namespace fovea::data
