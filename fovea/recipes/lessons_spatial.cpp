// two-weights, ring: where to look, as a map over all voxels and as a few points that move.
#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "fovea/ops/spatial_gate.h"
#include "fovea/recipes/gaussian_ring.h"
#include "fovea/recipes/lesion_gate.h"
#include "fovea/recipes/lessons.h"
#include "fovea/recipes/spatial_counts.h"
#include "fovea/report/canvas.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

// [Y,X] between its smallest and largest value, each pixel `zoom` wide.
report::Raster picture_of(const std::string& title, const torch::Tensor& values, int64_t zoom) {
  const auto t = values.to(torch::kFloat64).contiguous();
  const double low = t.min().item<double>(), range = std::max(1e-9, t.max().item<double>() - low);
  const auto pixel = t.accessor<double, 2>();
  auto image = report::Image::filled(t.size(0) * zoom, t.size(1) * zoom, {});
  for (int64_t y = 0; y < image.height; ++y)
    for (int64_t x = 0; x < image.width; ++x) {
      const auto grey = uint8_t(255 * (pixel[y / zoom][x / zoom] - low) / range);
      for (int c = 0; c < 3; ++c) image.at(y, x)[c] = grey;
    }
  report::Raster raster{title, image};
  raster.width = 240, raster.height = 260;
  return raster;
}

LessonResult two_weights(const LessonArguments& a) {
  const auto kernels = a.wholes("kernel", 1, 15);
  LessonResult r;
  for (const int axes : {2, 3})
    for (const int64_t k : kernels) {
      if (k % 2 == 0) a.refuse("kernel", "odd numbers");
      const double n = double(gate_weights(k, axes));
      if (axes == 2 || k > 1)
        r.answers.push_back({{printed("weights, k = %d, %d-D", int(k), axes), printed("k = %d、%d 维的权重数", int(k), axes)}, n});
      r.found.push_back({printed("k = %d, %d-D: %.0f weights, counted in the layer", int(k), axes, n),
                         printed("k = %d，%d 维：层中数出 %.0f 个权重", int(k), axes, n)});
    }
  r.reason = {"The gate looks at two numbers a voxel, the largest and the mean of its channels, however many channels there are: two "
              "kernels of k taps along each axis, 2k² or 2k³ weights. Two more belong to the batch norm.",
              "无论有多少通道，门只看每个体素的两个数：通道的最大值与平均值。每个轴 k 个抽头的两个卷积核，共 2k² 或 2k³ "
              "个权重；批归一化另有两个。"};
  // Four channels of a simulated scan, itself and three blurs, and the map that the two weights (-1, 6) make of them.
  auto generator = at::detail::createCPUGenerator(a.seed());
  const LesionScans scan = draw_lesion_scans(1, 32, generator);
  std::vector<torch::Tensor> channels = {scan.voxels};
  for (const int64_t edge : {3, 5, 7}) channels.push_back(torch::avg_pool3d(scan.voxels, edge, 1, edge / 2));
  const auto features = torch::cat(channels, 1);
  const auto weight = torch::tensor({-1.f, 6.f}).view({1, 2, 1, 1, 1});
  const auto map = std::get<1>(ops::spatial_gate(features, weight, 1, -1)), pool = ops::channel_pool(features);
  const int64_t z = scan.mask[0][0].sum({1, 2}).argmax().item<int64_t>();
  r.picture = {picture_of("simulated scan", scan.voxels[0][0][z], 6), picture_of("largest channel", pool[0][0][z], 6),
               picture_of("mean channel", pool[0][1][z], 6), picture_of("map, weights -1 and 6", map[0][0][z], 6)};
  r.picture_columns = 4;
  return r;
}

RingGoal goal_of(const LessonArguments& a) {
  for (const RingGoal goal : {RingGoal::kPosition, RingGoal::kSize, RingGoal::kIntensity})
    if (a.text("goal") == name_of(goal)) return goal;
  a.refuse("goal", "position, size or intensity");
}

// The tumour with an arrow from its centre to each point that carries weight, and a circle of one sigma.
report::Raster ring_picture(const RingPoints& tumour, double best) {
  constexpr int64_t kEdge = 240;
  constexpr report::Colour kArrow{0xe6, 0x9f, 0x00}, kCircle{0x56, 0xb4, 0xe9};
  const double zoom = double(kEdge) / (6 * tumour.sigma_vox);  // pixels a voxel
  const double middle = kEdge / 2.0;
  auto image = report::Image::filled(kEdge, kEdge, {});
  for (int64_t y = 0; y < kEdge; ++y)
    for (int64_t x = 0; x < kEdge; ++x) {
      const double r2 = ((double(x) - middle) * (double(x) - middle) + (double(y) - middle) * (double(y) - middle)) / (zoom * zoom);
      for (int c = 0; c < 3; ++c) image.at(y, x)[c] = uint8_t(220 * std::exp(-r2 / (2 * tumour.sigma_vox * tumour.sigma_vox)));
    }
  report::Canvas canvas(image);
  for (int i = 0; i < 720; ++i) {
    const double angle = i * M_PI / 360, r = best * tumour.sigma_vox * zoom;
    canvas.blend(std::lround(middle + r * std::sin(angle)), std::lround(middle + r * std::cos(angle)), kCircle);
  }
  for (size_t k = 0; k < tumour.x_vox.size(); ++k) {
    const auto x = std::lround(middle + tumour.x_vox[k] * zoom), y = std::lround(middle + tumour.y_vox[k] * zoom);
    const double share = std::clamp(0.3 + 0.7 * double(tumour.x_vox.size()) * tumour.weights[k], 0.3, 1.0);
    canvas.line(std::lround(middle), std::lround(middle), y, x, kArrow, share);
    canvas.fill(y - 2, x - 2, 5, 5, kArrow, share);
  }
  report::Raster raster{printed("tumour, sigma %g voxels: learned points", tumour.sigma_vox), image};
  raster.width = 320, raster.height = 340;
  return raster;
}

LessonResult ring(const LessonArguments& a) {
  const double sigma = a.number("sigma");
  if (!(sigma >= 1.5 && sigma <= 9)) a.refuse("sigma", "a number from 1.5 to 9 (voxels)");
  const RingGoal goal = goal_of(a);
  const BestRadii radii = best_radii();
  const double best = goal == RingGoal::kPosition ? radii.edge : goal == RingGoal::kSize ? radii.size : radii.intensity;
  const RingPoints learned = learn_ring(goal, {sigma}, a.seed(), /*steps=*/300, /*only_vox=*/sigma).tumours[0];
  LessonResult r;
  r.answers = {{{"best radius in sigma", "最佳半径（以 σ 为单位）"}, best, 0.02}};
  r.found = {{printed("%.3f sigma = %.2f voxels by the formula", best, best * sigma),
              printed("按公式：%.3f σ = %.2f 体素", best, best * sigma)},
             {printed("eight learned points: mean |offset| %.3f sigma", learned.radius),
              printed("学到的八个点：平均 |偏移| %.3f σ", learned.radius)}};
  r.reason = {"The goal decides. Where the tumour is shows best where brightness changes most when it moves, r exp(-r²/2σ²): at "
              "r = σ. How large it is shows best where brightness changes most when it grows, r² exp(-r²/2σ²): at r = √2 σ. The "
              "brightness itself is largest in the middle.",
              "目标决定答案。肿瘤移动时亮度变化最大的地方 r·exp(-r²/2σ²) 在 r = σ，最能说明位置；肿瘤长大时亮度变化最大的地方 "
              "r²·exp(-r²/2σ²) 在 r = √2 σ，最能说明大小；亮度本身在中心最大。"};
  report::LinePlot plot{"what a point at radius r tells", "r in sigma", "share of the largest"};
  std::array<report::Series, 3> series = {{{"position", {}, {}}, {"size", {}, {}}, {"intensity", {}, {}}}};
  for (int i = 0; i <= 80; ++i) {
    const double x = 0.04 * i, tumour = std::exp(-x * x / 2);
    const std::array<double, 3> y = {x * tumour / std::exp(-0.5), x * x * tumour / (2 * std::exp(-1.0)), tumour};
    for (int s = 0; s < 3; ++s) series[s].x.push_back(x), series[s].y.push_back(y[s]);
  }
  plot.series = {series[0], series[1], series[2]}, plot.width = 380, plot.height = 340;
  r.picture = {ring_picture(learned, best), plot}, r.picture_columns = 2;
  return r;
}
}  // namespace

std::vector<Lesson> spatial_lessons() {
  return {
      {"ring",
       "A3",
       {"The ring", "圆环"},
       {"Eight points may sample a Gaussian tumour exp(-r²/2σ²). At which radius, in units of σ, should they lie? --goal says what "
        "they are for: position, size or intensity.",
        "八个点可以对高斯肿瘤 exp(-r²/2σ²) 采样。它们应放在多大的半径上（以 σ 为单位）？--goal 说明目的：position 位置、size "
        "大小或 intensity 亮度。"},
       "x(p + Δ_k), Δ_k predicted;  |∂I/∂position| ∝ r exp(-r²/2σ²),  |∂I/∂σ| ∝ r² exp(-r²/2σ²)",
       "deformable-attention.md",
       {{"Differentiate the brightness by what is asked for.", "把亮度对所问的量求导。"},
        {"Set the derivative of that function of r to zero.", "令该函数对 r 的导数为零。"}},
       {{"sigma", "4", {"sigma of the tumour in voxels", "肿瘤的 σ（体素）"}},
        {"goal", "position", {"position, size or intensity", "position、size 或 intensity"}}},
       false,
       "5 s",
       ring},
      {"two-weights",
       "A4",
       {"Two weights", "两个权重"},
       {"How many weights has the convolution of a spatial gate with k = 1, 3, 7, in 2-D, and with k = 3, 7 in 3-D? Answer as "
        "1,2,3,4,5.",
        "空间门的卷积在二维中 k = 1、3、7 时各有多少权重？三维中 k = 3、7 呢？按 1,2,3,4,5 的形式回答。"},
       "map = σ(BN(conv_k([max_c x; mean_c x])))",
       "spatial-attention.md",
       {{"Two numbers a voxel go in, one comes out.", "每个体素输入两个数，输出一个数。"},
        {"A kernel has k taps along each axis; there is no bias.", "卷积核每个轴 k 个抽头，没有偏置。"}},
       {{"kernel", "1,3,7", {"kernel edges, odd", "核的边长，奇数"}}},
       false,
       "1 s",
       two_weights},
  };
}

}  // namespace fovea::recipes
