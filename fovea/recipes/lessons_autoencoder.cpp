// hidden-97: the lesson on masked autoencoding.
#include "fovea/recipes/hidden_patches.h"
#include "fovea/recipes/hidden_picture.h"
#include "fovea/recipes/lessons.h"
#include "fovea/recipes/patch_experiments.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;
constexpr int64_t kEdge = 128, kBlock = 8, kBlocks = kEdge / kBlock;

// The axial slice through the middle of a scan [1,Z,Y,X], front of the head up; where `shown` is 0, a plain colour.
report::Raster slice(const std::string& title, const torch::Tensor& scan, double brightest, const torch::Tensor& shown = {}) {
  const auto blocks = shown.defined() ? shown.view({kBlocks, kBlocks, kBlocks})[kBlocks / 2] : torch::Tensor();
  report::Raster raster{title, grey_slice(scan[0][kEdge / 2], 0, brightest, /*zoom=*/2, blocks)};
  raster.width = 300, raster.height = 334;
  return raster;
}

LessonResult hidden_97(const LessonArguments& a) {
  const double ratio = a.number("ratio");
  if (!(ratio >= 0.3 && ratio <= 0.99)) a.refuse("ratio", "a share from 0.3 to 0.99");
  const int64_t kept = data::kept_patches(kBlocks * kBlocks * kBlocks, ratio);
  const HiddenNeighbours neighbours = hidden_neighbours(ratio, 100, a.seed());
  LessonResult r;
  r.answers = {{{"blocks of 4096 that stay", "4096 块中保留的块数"}, double(kept)},
               {{"how often all 26 neighbours of a hidden block are hidden", "隐藏块的 26 个邻块全部被隐藏的概率"}, neighbours.exact[1], 0.005}};
  r.found = {{printed("%lld of 4096 blocks stay; of a hidden block inside, all 6 face neighbours are hidden with probability %.3f, all 26 with %.4f, and %.2f of 26 are visible "
                      "on average; 100 drawn masks say %.3f, %.4f, %.2f",
                      static_cast<long long>(kept), neighbours.exact[0], neighbours.exact[1], neighbours.exact[2], neighbours.mean[0], neighbours.mean[1], neighbours.mean[2]),
              printed("4096 块中保留 %lld 块；内部隐藏块的 6 个面邻块全被隐藏的概率为 %.3f，26 个全被隐藏的为 %.4f，平均可见 %.2f 个；随机抽取 100 个掩码得 %.3f、%.4f、%.2f",
                      static_cast<long long>(kept), neighbours.exact[0], neighbours.exact[1], neighbours.exact[2], neighbours.mean[0], neighbours.mean[1], neighbours.mean[2])}};
  r.reason = {printed("Beside the hidden block 4095 others remain, %lld of them hidden. The chance that 26 given ones are all hidden is %lld/4095 · %lld/4094 · … over 26 factors. "
                      "Then no neighbour tells what is missing, and only what is known of heads can.",
                      static_cast<long long>(4095 - kept), static_cast<long long>(4095 - kept), static_cast<long long>(4094 - kept)),
              printed("除该隐藏块外还有 4095 块，其中 %lld 块被隐藏。指定的 26 块全被隐藏的概率是 %lld/4095 · %lld/4094 · … 共 26 个因子。"
                      "此时没有邻块可以说明缺失的内容，只能依靠对头部结构的了解。",
                      static_cast<long long>(4095 - kept), static_cast<long long>(4095 - kept), static_cast<long long>(4094 - kept))};

  const SampleScan scan = sample_scan(a.seed());
  const auto whole = scan.voxels.slice(0, 26, 26 + kEdge).slice(1, 44, 44 + kEdge).slice(2, 26, 26 + kEdge).unsqueeze(0).contiguous();
  Rng rng(a.seed(), 0, 0);
  const auto places = torch::tensor(data::draw_kept_patches(kBlocks * kBlocks * kBlocks, ratio, rng));
  const auto shown = torch::zeros({kBlocks * kBlocks * kBlocks}, torch::kBool).scatter(0, places, true);
  const double brightest = whole.max().item<double>();
  const std::vector<int64_t> patch{kBlock, kBlock, kBlock};
  r.picture = {slice(scan.real ? "Colin27 T1, 128 mm of it" : "a smooth random volume", whole, brightest), slice(printed("what stays at %.2f", ratio), whole, brightest, shown),
               slice("filled from the nearest visible voxel", nearest_visible(whole, places, patch), brightest),
               slice("filled by tents over visible blocks", trilinear_from_visible(whole, places, patch), brightest)};
  r.picture_columns = 2;
  return r;
}
}  // namespace

std::vector<Lesson> autoencoder_lessons() {
  return {{"hidden-97",
           "A9",
           {"Hidden: 97 %", "隐藏 97 %"},
           {"A scan of 128³ voxels is cut into 4096 blocks and 97 % of them are hidden. How many stay, and how often are all 26 neighbours of a hidden block hidden, too?",
            "把 128³ 体素的扫描切成 4096 块，隐藏其中 97 %。保留多少块？一个隐藏块的 26 个邻块也全被隐藏的概率是多少？"},
           "kept = ⌊N (1 − r)⌋,   P = Π_{i<26} (hidden − 1 − i) / (N − 1 − i)",
           "masked-autoencoder.md",
           {{"4096 · 0.03 = 122.9: 122 blocks.", "4096 · 0.03 = 122.9：122 块。"},
            {"Blocks are hidden without replacement: multiply 26 shrinking shares.", "块是不放回地隐藏的：把 26 个递减的比例相乘。"}},
           {{"ratio", "0.97", {"share of the blocks that is hidden", "被隐藏的块所占的比例"}}},
           /*trains=*/false,
           "3 s",
           hidden_97}};
}

}  // namespace fovea::recipes
