// xor, ct-asks-pet: lessons on models that join a scan with another modality.
#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "fovea/recipes/ct_asks_pet.h"
#include "fovea/recipes/lessons.h"
#include "fovea/recipes/side_and_flag.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

// A slice [y,x] in grey, each pixel `zoom` wide.
report::Raster slice_of(const std::string& title, const torch::Tensor& slice, int64_t zoom) {
  const auto grey = ((slice - slice.min()) / (slice.max() - slice.min()).clamp_min(1e-6) * 255).to(torch::kUInt8).contiguous();
  const auto pixel = grey.accessor<uint8_t, 2>();
  report::Raster raster{title, report::Image::filled(slice.size(0) * zoom, slice.size(1) * zoom, {})};
  for (int64_t y = 0; y < raster.image.height; ++y)
    for (int64_t x = 0; x < raster.image.width; ++x)
      for (int c = 0; c < 3; ++c) raster.image.at(y, x)[c] = pixel[y / zoom][x / zoom];
  return raster;
}

LessonResult side_xor_flag(const LessonArguments& a) {
  const std::vector<SideFlagNetwork> networks = {SideFlagNetwork::kImageAlone, SideFlagNetwork::kTableAlone,
                                                 SideFlagNetwork::kLate, SideFlagNetwork::kTwoWay};
  const std::array<Bilingual, 4> names = {{{"image alone", "只有图像"},
                                           {"table alone", "只有表格"},
                                           {"both, concatenated late", "两者后期拼接"},
                                           {"co-attention", "协同注意力"}}};
  const SideFlagResult found = learn_side_and_flag(networks, a.seed());
  LessonResult r;
  report::BarPlot bars{"accuracy on fresh simulated patients", "", {"image", "table", "late", "co-att."}, {{"", {}}}};
  bars.y_range = {0, 1.08}, bars.levels = {{"chance", 0.5}}, bars.width = 320, bars.height = 260;
  for (size_t i = 0; i < networks.size(); ++i) {
    const double accuracy = found.scores[i].accuracy;
    const bool can = accuracy > 0.95;
    r.answers.push_back({{"can it answer: " + names[i].en, "能否回答：" + names[i].zh},
                         0,
                         0,
                         can ? std::vector<std::string>{"yes", "是", "y"} : std::vector<std::string>{"no", "否", "n"}});
    r.found.push_back({names[i].en + printed(": accuracy %.3f", accuracy), names[i].zh + printed("：正确率 %.3f", accuracy)});
    bars.bars[0].values.push_back(accuracy);
  }
  const SideFlagAttention& looked = *found.attention;
  r.found.push_back({printed("%.0f %% of the flag's attention on the scan lies on the lesion's side; with the flag missing, |p − 1/2| is %.3f",
                             100 * looked.on_lesion_side, looked.doubt_without_flag),
                     printed("标志对图像的注意力有 %.0f %% 落在病灶一侧；标志缺失时 |p − 1/2| 为 %.3f", 100 * looked.on_lesion_side,
                             looked.doubt_without_flag)});
  r.reason = {"The answer is the lesion's side XOR the flag: for either side both flags are equally likely, so each alone is a coin. A sum of "
              "a word on the scan and a word on the table cannot be an XOR either. Co-attention lets the flag look at the scan first "
              "and speak after, so that what is averaged already holds both.",
              "答案是病灶侧别与标志的异或：无论哪一侧，两种标志同样可能，所以单看一个只能猜。图像的一个词加表格的一个词也得不到异或。协同注意力让标志先看图像再"
              "发言，被平均的内容里已经有了两者。"};
  report::HeatMap rows{"the flag's attention on the scan"};
  rows.rows = static_cast<int>(looked.example_rows.size(0)), rows.columns = static_cast<int>(looked.example_rows.size(1));
  rows.width = 320, rows.height = 200, rows.x_label = "x", rows.y_label = "y";
  const auto weights = looked.example_rows.to(torch::kFloat64).contiguous();
  rows.values.assign(weights.data_ptr<double>(), weights.data_ptr<double>() + weights.numel());
  auto scan = slice_of("a simulated scan, mean along z", looked.example_voxels.mean(0), 16);
  scan.width = 320, scan.height = 200;
  r.picture = {scan, rows, bars}, r.picture_columns = 3;
  return r;
}

LessonResult shifted_pet(const LessonArguments& a) {
  const int64_t shift = a.whole("shift", -kLargestPetShift, kLargestPetShift);
  const CtPetResult found = learn_ct_pet({CtPetNetwork::kCrossAttention, CtPetNetwork::kConcatenation}, a.seed(), kCtPetSteps, double(shift));
  const PetAttention& looked = *found.attention;
  const auto at = [&](int64_t s) { return looked.moved[static_cast<size_t>(s + kLargestPetShift)]; };
  const double moved = at(shift) - at(0);
  LessonResult r;
  r.answers = {{{"PET voxels that the centre of the attention moves by", "注意力中心移动的 PET 体素数"}, moved, std::max(0.3, 0.15 * std::abs(moved))}};
  r.found = {{printed("PET moved by %lld voxels: the centre of the attention moves by %.2f; slope from −3 to 3 voxels: %.3f", static_cast<long long>(shift), moved, looked.slope),
              printed("PET 移动 %lld 个体素：注意力中心移动 %.2f；从 −3 到 3 的斜率 %.3f", static_cast<long long>(shift), moved, looked.slope)},
             {printed("Dice of the viable tumour: CT asks PET %.3f, concatenation after resampling %.3f", found.scores[0].dice, found.scores[1].dice),
              printed("存活肿瘤的 Dice：CT 询问 PET %.3f，重采样后拼接 %.3f", found.scores[0].dice, found.scores[1].dice)}};
  r.reason = {"A tumour voxel of the CT does not ask 'what does the PET hold at my place?' but 'where near me is uptake like a tumour's?'. Its "
              "attention goes where the PET shows it, and so it moves with the PET; the boundary still comes from the sharp CT.",
              "CT 中的肿瘤体素问的不是“PET 在我这个位置是什么”，而是“我附近哪里有肿瘤那样的摄取”。注意力落在 PET 显示它的地方，所以随 PET 移动；边界仍来自清晰的 CT。"};
  constexpr int64_t kZoom = 8;
  auto ct = slice_of("simulated CT, asking voxel framed", looked.ct, kZoom);
  for (int64_t y = 0; y < kZoom; ++y)
    for (int64_t x = 0; x < kZoom; ++x) {
      const bool border = y == 0 || x == 0 || y == kZoom - 1 || x == kZoom - 1;
      uint8_t* pixel = ct.image.at(looked.voxel[0] * kZoom + y, looked.voxel[1] * kZoom + x);
      if (border) pixel[0] = 230, pixel[1] = 60, pixel[2] = 40;
    }
  auto pet = slice_of("simulated PET, moved by " + std::to_string(shift), looked.pet, 24);
  report::HeatMap attention{"the voxel's attention on the PET"};
  attention.rows = static_cast<int>(looked.attention.size(0)), attention.columns = static_cast<int>(looked.attention.size(1));
  attention.width = 360, attention.height = 180, attention.x_label = "x", attention.y_label = "y";
  const auto weights = looked.attention.to(torch::kFloat64).contiguous();
  attention.values.assign(weights.data_ptr<double>(), weights.data_ptr<double>() + weights.numel());
  report::LinePlot follows{"centre of the attention", "PET voxels of shift", "PET voxels"};
  report::Series measured{"attention", {}, {}}, exact{"slope 1", {}, {}};
  for (int64_t s = -kLargestPetShift; s <= kLargestPetShift; ++s) {
    measured.x.push_back(double(s)), measured.y.push_back(at(s) - at(0));
    exact.x.push_back(double(s)), exact.y.push_back(double(s));
  }
  measured.points = exact.dashed = true;
  follows.series = {measured, exact}, follows.width = 360, follows.height = 220;
  ct.width = pet.width = 360, ct.height = pet.height = 180;
  r.picture = {ct, pet, attention, follows}, r.picture_columns = 2;
  return r;
}
}  // namespace

std::vector<Lesson> fusion_lessons() {
  return {
      {"xor",
       "A6",
       {"The scan and the flag", "图像与标志"},
       {"A lesion lies on the left or on the right, a table holds a flag; the answer is side XOR flag. Which of these learn it: the "
        "image alone, the table alone, both with their averages concatenated, co-attention? Answer in this order: yes,yes,yes,yes.",
        "病灶在左或在右，表格里有一个标志，答案是侧别异或标志。只有图像、只有表格、两者平均后拼接、协同注意力，哪些能学会？按此顺序回答：是,是,是,是。"},
       "a' = norm(a + attention(a, b)),   b' = norm(b + attention(b, a))",
       "co-attention.md",
       {{"Fix the side: how often is the answer 1? Fix the flag: how often?", "固定侧别，答案为 1 的比例是多少？固定标志呢？"},
        {"Write the XOR of two bits as a sum f(side) + g(flag): can you?", "把两个比特的异或写成 f(侧别) + g(标志)，可能吗？"}},
       {},
       /*trains=*/true,
       "20 s",
       side_xor_flag},
      {"ct-asks-pet",
       "A5",
       {"The CT asks the PET", "CT 询问 PET"},
       {"Each voxel of a sharp CT asks the tokens of a coarse PET for signs of living tumour. The PET is moved by --shift of its voxels, "
        "its affine is not. By how many PET voxels does the centre of the attention move?",
        "清晰 CT 的每个体素向粗糙的 PET 询问存活肿瘤的迹象。PET 图像移动 --shift 个体素，仿射矩阵不变。注意力中心移动多少个 PET 体素？"},
       "out_i = x_i + W Σ_j softmax_j(q_i·k_j/√C + b(p_j − p_i)) v_j,   p in mm",
       "cross-attention.md",
       {{"Does the bias b know that the PET was moved?", "偏置 b 知道 PET 被移动了吗？"},
        {"What do keys of the PET hold: a place, or an uptake?", "PET 的键里是位置，还是摄取？"}},
       {{"shift", "2", {"by how many voxels the PET is moved, −3 to 3", "PET 移动的体素数，−3 到 3"}}},
       /*trains=*/true,
       "1 min",
       shifted_pet},
  };
}

}  // namespace fovea::recipes
