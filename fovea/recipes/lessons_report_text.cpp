// read-the-report: a sentence asks a scan, and a gate says whom it believes.
#include <algorithm>

#include "fovea/recipes/lessons.h"
#include "fovea/recipes/report_reader.h"
#include "fovea/report/colour.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

// The coronal slab of the strongest token with the attention over it in red; up is the patient's head, left the
// patient's right.
report::Raster look_of(const std::string& title, const torch::Tensor& voxels, const torch::Tensor& weights) {
  constexpr int64_t kZoom = 12;
  const int64_t slab = weights.amax({0, 2}).argmax().item<int64_t>();  // tokens are two voxels deep
  const auto grey = voxels.slice(1, 2 * slab, 2 * slab + 2)
                        .mean(1)
                        .clamp(-1, 1.5)
                        .add(1)
                        .div(2.5)
                        .flip(0)
                        .flip(1)
                        .contiguous();  // [Z,X]
  auto heat = weights.select(1, slab)
                  .repeat_interleave(2, 0)
                  .repeat_interleave(2, 1)
                  .slice(0, 0, voxels.size(0))
                  .slice(1, 0, voxels.size(2));
  heat = (heat / heat.max()).flip(0).flip(1).contiguous();
  const auto g = grey.accessor<float, 2>(), h = heat.accessor<float, 2>();
  report::Raster raster{title, report::Image::filled(grey.size(0) * kZoom, grey.size(1) * kZoom, {})};
  for (int64_t y = 0; y < raster.image.height; ++y)
    for (int64_t x = 0; x < raster.image.width; ++x) {
      const double shade = 255 * g[y / kZoom][x / kZoom], red = 0.8 * h[y / kZoom][x / kZoom];
      uint8_t* pixel = raster.image.at(y, x);
      pixel[0] = uint8_t(shade + red * (230 - shade)), pixel[1] = uint8_t(shade * (1 - red)),
      pixel[2] = uint8_t(shade * (1 - red));
    }
  raster.width = 400, raster.height = 320;
  return raster;
}

LessonResult read_the_report(const LessonArguments& a) {
  const int64_t percent = a.whole("noise", 0, 100);
  if (percent % 25) a.refuse("noise", "0, 25, 50, 75 or 100");
  const std::string& flip = a.text("flip");
  if (flip != "yes" && flip != "no") a.refuse("flip", "yes or no");
  const ReportReading found = learn_to_read_reports({}, a.seed());
  const auto share = static_cast<size_t>(percent / 25);
  const double gate = found.gate[share], changed = flip == "yes" ? found.flips : 0;
  const std::vector<std::string> yes = {"yes", "是", "y"}, no = {"no", "否", "n"};
  LessonResult r;
  r.answers = {{{"does the mean gate fall below 0.2?", "平均门值会低于 0.2 吗？"}, 0, 0, gate < 0.2 ? yes : no},
               {{"does the answer flip?", "答案会翻转吗？"}, 0, 0, changed > 0.5 ? yes : no}};
  r.found = {
      {printed("mean gate %.3f on scans, %.3f with %lld %% noise; accuracy %.3f and %.3f, of the text alone %.3f",
               found.gate[0], gate, static_cast<long long>(percent), found.accuracy[0], found.accuracy[share],
               found.text_alone),
       printed("平均门值：原图 %.3f，噪声 %lld %% 时 %.3f；正确率 %.3f 和 %.3f，仅文本 %.3f", found.gate[0],
               static_cast<long long>(percent), gate, found.accuracy[0], found.accuracy[share], found.text_alone)},
      {printed("%.0f %% of the attention lies in the named lobe (Chinese %.0f %%), the strongest token on the nodule "
               "in %.0f %% (%.0f %%)",
               100 * found.mass[0], 100 * found.mass[1], 100 * found.pointing[0], 100 * found.pointing[1]),
       printed("注意力落在所说肺叶内的比例：英文 %.0f %%，中文 %.0f %%；最强词元落在结节上：%.0f %%，%.0f %%",
               100 * found.mass[0], 100 * found.mass[1], 100 * found.pointing[0], 100 * found.pointing[1])},
      {printed("left and right swapped in the affine: %.0f %% of the attention moves to the mirrored lobe; where it "
               "holds the other kind, %.0f %% of "
               "the right answers change",
               100 * found.swapped_mass, 100 * found.flips),
       printed("仿射矩阵左右互换：%.0f %% 的注意力移到镜像肺叶；若那里是另一种结节，%.0f %% 的正确答案改变",
               100 * found.swapped_mass, 100 * found.flips)}};
  r.reason = {
      "The report names the kind of nodule and is wrong in one of four; the scan shows it. A gate that has met noise "
      "in training weighs the one "
      "that can be believed: with nothing to see it closes and the report's word is left. The words 'left' and 'right' "
      "mean millimetres of "
      "the patient, which only the affine knows: swap it, and the same voxels lie in the other lung.",
      "报告给出结节的种类，四次错一次；图像显示它。训练中见过噪声的门会偏向可信的一方：图像里什么也看不到时，门关闭，只"
      "剩报告的话。“左”“右”指的是"
      "病人坐标里的毫米，只有仿射矩阵知道：把它互换，同样的体素就在另一侧肺里。"};
  report::HeatMap map{"lobe asked about (row), attention in"};
  map.rows = map.columns = static_cast<int>(kRegions);
  map.row_names = map.column_names = {"RUL", "RML", "RLL", "LUL", "ling.", "LLL"};
  for (const auto& row : found.map) map.values.insert(map.values.end(), row.begin(), row.end());
  map.range = {0, 1}, map.decimals = 2, map.width = 400, map.height = 320;
  report::LinePlot dial{"gate and accuracy (simulated chests)", "% of the scan that is noise", ""};
  report::Series weight{"mean gate", {}, {}}, both{"accuracy", {}, {}}, image{"image alone", {}, {}};
  for (size_t i = 0; i < kNoiseShares.size(); ++i) {
    for (auto* series : {&weight, &both, &image}) series->x.push_back(100 * kNoiseShares[i]);
    weight.y.push_back(found.gate[i]), both.y.push_back(found.accuracy[i]), image.y.push_back(found.image_alone[i]);
  }
  weight.points = both.points = image.points = image.dashed = true;
  dial.series = {weight, both, image}, dial.levels = {{"text alone", found.text_alone}}, dial.y_range = {0, 1.02};
  dial.width = 400, dial.height = 320;
  const auto& e = found.example;
  r.picture = {look_of(e.question, e.voxels, e.weights),
               look_of("the same, affine swapped left to right", e.voxels, e.swapped), map, dial};
  r.picture_columns = 2;
  return r;
}
}  // namespace

std::vector<Lesson> report_text_lessons() {
  return {
      {"read-the-report",
       "A7",
       {"Reading the report", "读报告"},
       {"A sentence asks a scan about the nodule of one lobe; a gate weighs what was found against an earlier report. "
        "The scan is replaced by noise "
        "(--noise, per cent): does the mean gate fall below 0.2? Left and right are swapped in the affine (--flip): "
        "does the answer flip where the "
        "other lung's lobe holds the other kind? Answer both: yes,yes.",
        "一句话向图像询问某个肺叶的结节；一个门衡量图像所见与先前报告。图像换成噪声（--noise，百分比）：平均门值会低于 "
        "0.2 吗？仿射矩阵左右互换（--flip）："
        "若对侧肺叶是另一种结节，答案会翻转吗？两个都答：是,是。"},
       "z = σ(W_z [v; t]),   h = z ⊙ tanh(W_v v) + (1 − z) ⊙ tanh(W_t t)",
       "report-text.md",
       {{"The report is right in three of four. What is the scan worth when it is noise?",
         "报告四次对三次。图像是噪声时值多少？"},
        {"Mirror the affine and keep the voxels: in which lung does the nodule lie now?",
         "镜像仿射矩阵而不动体素：结节现在在哪一侧肺？"}},
       {{"noise",
         "100",
         {"per cent of the scan that is noise: 0, 25, 50, 75 or 100", "图像中噪声的百分比：0、25、50、75 或 100"}},
        {"flip", "yes", {"left and right swapped: yes or no", "左右互换：yes 或 no"}}},
       /*trains=*/true,
       "30 s",
       read_the_report},
  };
}

}  // namespace fovea::recipes
