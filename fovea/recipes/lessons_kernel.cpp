// kernel-regression: attention as a classical weighted average.
#include <torch/torch.h>

#include <cmath>

#include "fovea/io/csv.h"
#include "fovea/recipes/kernel_experiments.h"
#include "fovea/recipes/lessons.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

std::vector<double> values_of(const torch::Tensor& t) {
  const auto flat = t.contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

report::LinePlot error_curve(const BandwidthChoice& choice, const std::string& x_label) {
  report::LinePlot plot{
      "left-out error by bandwidth", x_label, "", {{"", choice.tried, choice.error_of, {}, false, true}}};
  plot.log_x = true, plot.width = 300, plot.height = 320;
  return plot;
}

// Dots without a line between them: each value is followed by a gap.
report::Series dots_of(const std::string& name, const std::vector<double>& x, const std::vector<double>& y) {
  report::Series dots{name, {}, {}, report::Colour{90, 100, 110}, false, true};
  for (size_t i = 0; i < x.size(); ++i) {
    dots.x.insert(dots.x.end(), {x[i], NAN});
    dots.y.insert(dots.y.end(), {y[i], NAN});
  }
  return dots;
}

// Coordinates in all columns but the last, the value there; rows with a gap are left out.
Samples read_samples(const LessonArguments& a) {
  const io::CsvTable table = io::read_csv(a.text("table"));
  std::vector<torch::Tensor> columns;
  for (size_t c = 0; c < table.columns().size(); ++c)
    columns.push_back(torch::tensor(table.numbers(c), torch::kFloat64));
  if (columns.size() < 2) a.refuse("table", "at least one column of coordinates and one of values");
  auto rows = torch::stack(columns, 1);
  rows = rows.index({torch::isfinite(rows).all(1)});
  if (rows.size(0) < 5 || rows.size(0) > 5000)
    a.refuse("table", "5 to 5000 rows of numbers, found " + std::to_string(rows.size(0)));
  return {rows.slice(1, 0, -1).contiguous(), rows.select(1, -1).contiguous()};
}

// The bandwidth of the learner's own table, its axes in deviations.
LessonResult own_table(const LessonArguments& a) {
  const Samples samples = read_samples(a);
  const int64_t n = samples.values.numel();
  const auto deviations = values_of(samples.points.std(0).clamp_min(1e-12));
  const BandwidthChoice choice = choose_bandwidth(samples, LocalFit::kConstant, deviations);
  const double h = choice.h[0], mean_error = samples.values.std().item<double>() * std::sqrt(double(n) / double(n - 1));
  std::string axes;
  for (const double axis : choice.h) axes += printed("%s%.4g", axes.empty() ? "" : ", ", axis);
  LessonResult r;
  r.answers = {{{"best bandwidth of the first axis", "第一个轴的最佳带宽"}, h, 0.15 * h}};
  r.found = {
      {printed("%lld samples: left-out error is least at h = %s; it is %.4g, that of the mean of the others %.4g",
               static_cast<long long>(n), axes.c_str(), choice.error, mean_error),
       printed("%lld 个样本：h = %s 时留一误差最小，为 %.4g；用其余样本的均值则为 %.4g", static_cast<long long>(n),
               axes.c_str(), choice.error, mean_error)}};
  r.reason = {
      "Each sample is predicted from all others; the bandwidth of least error wins. It is one number for all axes, in "
      "deviations of each.",
      "每个样本由其余样本预测，误差最小的带宽胜出。它对所有轴是同一个数，以各轴的标准差为单位。"};
  report::LinePlot beside{"each value predicted from the others", "measured", "predicted"};
  beside.series = {dots_of("", values_of(samples.values), values_of(leave_one_out(samples, choice.h)))};
  beside.width = 440;
  r.picture = {beside, error_curve(choice, "h in deviations")}, r.picture_columns = 2;
  return r;
}

LessonResult kernel_lesson(const LessonArguments& a) {
  if (!a.text("table").empty()) return own_table(a);
  const int64_t n = a.whole("n", 5, 2000);
  const Samples samples = textbook_samples(n, a.seed());
  const BandwidthChoice choice = choose_bandwidth(samples);
  const LoopDifferences d = attention_against_loops(a.seed());
  const double h = choice.h[0];
  LessonResult r;
  r.answers = {{{"best bandwidth h", "最佳带宽 h"}, h, 0.15 * h}};
  r.found = {
      {printed("q = [x, 1], k = [x_i, −x_i²/2], scale 1/h²: differs from the kernel regression in plain loops by %.0e",
               d.gaussian),
       printed("q = [x, 1]，k = [x_i, −x_i²/2]，缩放 1/h²：与循环写成的核回归相差 %.0e", d.gaussian)},
      {printed("left-out error is least at h = %.3f (%.3f; the noise is 0.5)", h, choice.error),
       printed("h = %.3f 时留一误差最小（%.3f；噪声为 0.5）", h, choice.error)}};
  if (n <= 400) {
    const double learned = learn_bandwidth(samples)[0];
    r.found.push_back({printed("attention that learns h by gradient, no sample seeing itself: h = %.3f", learned),
                       printed("注意力用梯度学习 h（样本看不到自己）：h = %.3f", learned)});
  }
  r.reason = {
      printed(
          "−|x−x_i|²/2h² = (x·x_i − |x_i|²/2)/h² − |x|²/2h², and softmax does not see what all keys share: the weights "
          "are those of the Gaussian kernel. Too small an h follows the noise, too large a one flattens the curve; "
          "predicting each sample from the others finds h = %.3f here.",
          h),
      printed("−|x−x_i|²/2h² = (x·x_i − |x_i|²/2)/h² − |x|²/2h²，而 softmax "
              "看不到所有键共有的部分：权重正是高斯核的权重。h 太小"
              "会跟着噪声走，太大会把曲线压平；用其余样本预测每个样本，这里得到 h = %.3f。",
              h)};
  const auto x = torch::linspace(0, 5, 101, torch::kFloat64).unsqueeze(1);
  const auto at = values_of(x);
  report::LinePlot curve{"samples, curve and regression", "x", ""};
  curve.series = {{"truth", at, values_of(textbook_curve(x.squeeze(1))), {}, /*dashed=*/true},
                  {printed("h = %.2f", h), at, values_of(kernel_regression(samples, x, {h}))},
                  {printed("h = %.2f", h / 5), at, values_of(kernel_regression(samples, x, {h / 5}))},
                  {printed("h = %.1f", h * 5), at, values_of(kernel_regression(samples, x, {h * 5}))}};
  // Weights of the place x = 2.5: attention to values that are 1 at one sample each.
  report::LinePlot weights{"weights of the place x = 2.5", "x_i", ""};
  const auto order = samples.points.squeeze(1).argsort();
  report::Series dots{"", values_of(samples.points.squeeze(1).index_select(0, order)), {}, {}, false, true};
  for (int64_t i = 0; i < n; ++i) {
    auto one = torch::zeros({n}, torch::kFloat64);
    one[order[i].item<int64_t>()] = 1;
    dots.y.push_back(
        kernel_regression({samples.points, one}, torch::full({1, 1}, 2.5, torch::kFloat64), {h}).item<double>());
  }
  weights.series = {dots}, weights.width = 300, weights.height = 320;
  curve.series.push_back(dots_of("samples", values_of(samples.points.flatten()), values_of(samples.values))),
      curve.width = 440, curve.height = 320;
  r.picture = {curve, weights, error_curve(choice, "h")}, r.picture_columns = 3;
  return r;
}
}  // namespace

std::vector<Lesson> kernel_lessons() {
  return {
      {"kernel-regression",
       "A1",
       {"Kernel regression is attention", "核回归就是注意力"},
       {"Which q, k and scale turn attention into Nadaraya-Watson regression with a Gaussian kernel? And which "
        "bandwidth h predicts "
        "left-out samples best: y = 2 sin x + x^0.8 + noise of 0.5, 50 samples on [0, 5]? Answer with h.",
        "怎样选择 q、k 和缩放，注意力就成为高斯核的 Nadaraya–Watson 回归？y = 2 sin x + x^0.8 + 噪声 0.5，[0, 5] 上 50 "
        "个样本，哪个带宽 h 的"
        "留一预测最好？回答 h。"},
       "m(x) = Σ_i K_h(x−x_i) y_i / Σ_i K_h(x−x_i):   q = [x, 1],  k_i = [x_i, −|x_i|²/2],  scale 1/h²",
       "kernel-regression.md",
       {{"Expand |x − x_i|²: the part without i drops out of the softmax.",
         "展开 |x − x_i|²：与 i 无关的部分在 softmax 中消去。"},
        {"Leave one out without refitting: (m(x_i) − w_ii y_i) / (1 − w_ii).",
         "不必重算的留一：(m(x_i) − w_ii y_i) / (1 − w_ii)。"},
        {"Try bandwidths, keep the one of least left-out error.", "逐个尝试带宽，保留留一误差最小者。"}},
       {{"n", "50", {"samples", "样本数"}},
        {"table",
         "",
         {"a table of your own instead (CSV): coordinates, the value in the last column",
          "改用自己的表格（CSV）：各坐标列，最后一列为值"}}},
       false,
       "3 s",
       kernel_lesson},
  };
}

}  // namespace fovea::recipes
