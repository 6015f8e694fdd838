#include "fovea/data/resample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <numeric>
#include <thread>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "tests/data/scratch_folder.h"

namespace fovea::data {
namespace {

namespace F = torch::nn::functional;
using Shape = std::array<int64_t, 3>;

torch::Tensor random_volume(const Shape& shape, uint64_t seed = 3) {
  torch::Tensor t = torch::empty({shape[0], shape[1], shape[2]});
  Rng rng(seed, 0, 0);
  for (int64_t i = 0; i < t.numel(); ++i) t.data_ptr<float>()[i] = rng.normal();
  return t;
}

torch::Tensor linear(const torch::Tensor& in, const Shape& shape, Antialias antialias,
                     const ParallelFor& parallel = serial_for) {
  torch::Tensor out = torch::empty({shape[0], shape[1], shape[2]});
  resample_linear(View<const float, 3>::contiguous(in.data_ptr<float>(), {in.size(0), in.size(1), in.size(2)}),
                  View<float, 3>::contiguous(out.data_ptr<float>(), shape), antialias, parallel);
  return out;
}

// Two threads and uneven pieces: what results may not depend on.
void two_threads(int64_t n, int64_t, const ParallelBody& body) {
  const int64_t cut = n / 3;
  std::thread other([&] {
    if (cut > 0) body(0, cut);
  });
  if (n > cut) body(cut, n);
  other.join();
}

TEST(ResampleLinear, EqualsTorchTrilinearUpAndDownAndOnAxesOfOneVoxel) {
  const std::vector<std::pair<Shape, Shape>> cases = {{{5, 6, 7}, {9, 13, 8}},
                                                      {{9, 13, 8}, {5, 6, 7}},
                                                      {{1, 4, 3}, {3, 1, 9}},
                                                      {{8, 8, 8}, {8, 16, 4}},
                                                      {{2, 2, 2}, {7, 7, 7}}};
  for (const auto& [from, to] : cases) {
    const auto in = random_volume(from);
    const auto expected =
        F::interpolate(in.unsqueeze(0).unsqueeze(0), F::InterpolateFuncOptions()
                                                         .size(std::vector<int64_t>(to.begin(), to.end()))
                                                         .mode(torch::kTrilinear)
                                                         .align_corners(false))[0][0];
    EXPECT_LT((linear(in, to, Antialias::kOff) - expected).abs().max().item<float>(), 2e-6f);
  }
}

TEST(ResampleLinear, AntialiasedEqualsTorchInAPlane) {
  const auto in = random_volume({1, 23, 31});
  for (const Shape to : {Shape{1, 9, 12}, Shape{1, 23, 7}, Shape{1, 40, 5}}) {
    const auto expected = torch::_upsample_bilinear2d_aa(in.unsqueeze(0), {to[1], to[2]}, /*align_corners=*/false)[0];
    EXPECT_LT((linear(in, to, Antialias::kOn) - expected).abs().max().item<float>(), 2e-6f);
  }
}

TEST(ResampleLinear, SameSizeCopiesBitForBitAndThreadsDoNotMatter) {
  const auto in = random_volume({7, 6, 5});
  EXPECT_TRUE(linear(in, {7, 6, 5}, Antialias::kOn).equal(in));
  EXPECT_TRUE(linear(in, {11, 4, 9}, Antialias::kOn).equal(linear(in, {11, 4, 9}, Antialias::kOn, two_threads)));
}

TEST(ResampleLinear, WritesThroughReversedAndPermutedViews) {
  const auto in = random_volume({4, 5, 6});
  std::vector<float> out(8 * 3 * 9);
  const Orientation o{{2, 0, 1}, {true, false, true}};
  const auto target = reorient(View<float, 3>::contiguous(out.data(), {8, 3, 9}), o);
  resample_linear(View<const float, 3>::contiguous(in.data_ptr<float>(), {4, 5, 6}), target, Antialias::kOff);
  const auto expected = linear(in, target.shape, Antialias::kOff);
  for (int64_t z = 0; z < target.shape[0]; ++z)
    for (int64_t y = 0; y < target.shape[1]; ++y)
      for (int64_t x = 0; x < target.shape[2]; ++x) EXPECT_EQ(target(z, y, x), expected[z][y][x].item<float>());
}

TEST(ResampledGeometry, KeepsTheFieldOfView) {
  Geometry g;
  g.shape = {10, 20, 30};
  g.affine = {{{0.9, 0.1, 0, 5}, {-0.1, 0.9, 0.2, 6}, {0, 0, 3, 7}}};
  const Shape shape = resampled_shape(g, {1, 1, 1});
  EXPECT_EQ(shape[0], 30);
  const Geometry fine = resampled_geometry(g, shape);
  // Corners of the first and last voxel.
  for (const double end : {0.0, 1.0}) {
    const Point a = g.to_mm({end * 30 - 0.5, end * 20 - 0.5, end * 10 - 0.5});
    const Point b =
        fine.to_mm({end * double(shape[2]) - 0.5, end * double(shape[1]) - 0.5, end * double(shape[0]) - 0.5});
    for (int r = 0; r < 3; ++r) EXPECT_NEAR(a[r], b[r], 1e-9);
  }
  EXPECT_TRUE(same_grid(resampled_geometry(fine, g.shape), g, 1e-9));
}

TEST(ResampleNearest, EqualsTorchNearestExact) {
  const auto in = random_volume({5, 9, 4});
  const Shape to{8, 6, 13};
  torch::Tensor out = torch::empty({8, 6, 13});
  resample_nearest<float>(View<const float, 3>::contiguous(in.data_ptr<float>(), {5, 9, 4}),
                          View<float, 3>::contiguous(out.data_ptr<float>(), to));
  EXPECT_TRUE(out.equal(torch::_upsample_nearest_exact3d(in.unsqueeze(0).unsqueeze(0), {8, 6, 13})[0][0]));
}

TEST(ResampleVote, EqualsTheArgMaxOfResampledOneHotClasses) {
  for (const Shape to : {Shape{9, 4, 12}, Shape{3, 11, 5}}) {
    const Shape from{6, 7, 8};
    std::vector<uint8_t> labels(6 * 7 * 8), out(to[0] * to[1] * to[2]);
    Rng rng(5, 0, 0);
    for (auto& l : labels) l = uint8_t(rng.below(4));
    resample_vote<uint8_t>(View<const uint8_t, 3>::contiguous(labels.data(), from),
                           View<uint8_t, 3>::contiguous(out.data(), to));
    std::vector<torch::Tensor> shares;
    for (int k = 0; k < 4; ++k) {
      torch::Tensor hot = torch::empty({6, 7, 8});
      for (size_t i = 0; i < labels.size(); ++i) hot.data_ptr<float>()[i] = labels[i] == k;
      shares.push_back(linear(hot, to, Antialias::kOn));
    }
    const auto stacked = torch::stack(shares).reshape({4, -1});
    const auto best = std::get<0>(stacked.max(0));
    for (size_t i = 0; i < out.size(); ++i)  // ties may differ by rounding: the chosen class has the largest share
      EXPECT_NEAR(stacked[out[i]][int64_t(i)].item<float>(), best[int64_t(i)].item<float>(), 1e-6f);
  }
}

struct ScoreSlabs {
  torch::Tensor scores;  // [K,Z,Y,X]
  View<const float, 4> view(int64_t begin, int64_t end) const {
    const auto s = scores.slice(1, begin, end);
    return {s.data_ptr<float>(),
            {s.size(0), s.size(1), s.size(2), s.size(3)},
            {s.stride(0), s.stride(1), s.stride(2), s.stride(3)}};
  }
};

TEST(ResampleArgmax, SlabsOfAnyThicknessGiveTheLabelsOfTheDensePath) {
  for (const Shape to : {Shape{13, 9, 11}, Shape{4, 3, 11}, Shape{6, 5, 7}, Shape{1, 1, 1}}) {
    const ScoreSlabs all{
        torch::stack({random_volume({6, 5, 7}, 1), random_volume({6, 5, 7}, 2), random_volume({6, 5, 7}, 3)})};
    const auto dense =
        torch::stack({linear(all.scores[0], to, Antialias::kOff), linear(all.scores[1], to, Antialias::kOff),
                      linear(all.scores[2], to, Antialias::kOff)})
            .argmax(0);
    for (const std::vector<int64_t>& cuts : {std::vector<int64_t>{6}, {1, 2, 3, 4, 5, 6}, {2, 3, 6}, {5, 6}}) {
      torch::Tensor labels = torch::full({to[0], to[1], to[2]}, 99, torch::kByte);
      ResampleArgmax resample(3, {6, 5, 7}, View<uint8_t, 3>::contiguous(labels.data_ptr<uint8_t>(), to), two_threads);
      int64_t begin = 0;
      for (const int64_t end : cuts) resample.push(all.view(begin, end)), begin = end;
      resample.finish();
      EXPECT_EQ(resample.planes_done(), to[0]);
      EXPECT_TRUE(labels.to(torch::kLong).equal(dense));
    }
  }
}

TEST(ResampleArgmax, RefusesMissingAndSurplusPlanes) {
  const ScoreSlabs all{torch::zeros({2, 3, 4, 4})};
  std::vector<uint8_t> labels(27);
  ResampleArgmax resample(2, {3, 4, 4}, View<uint8_t, 3>::contiguous(labels.data(), {3, 3, 3}));
  resample.push(all.view(0, 2));
  EXPECT_THROW(resample.finish(), ArgumentError);
  EXPECT_THROW(resample.push(all.view(0, 2)), ArgumentError);
}

}  // namespace
}  // namespace fovea::data
