// two-nodules, hot-or-cold: lessons whose answer comes from a training.
#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "fovea/recipes/lessons.h"
#include "fovea/recipes/three_tissues.h"
#include "fovea/recipes/two_nodules.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

LessonAnswer yes_or_no(const Bilingual& asked, bool yes) {
  return {asked, 0, 0, yes ? std::vector<std::string>{"yes", "是", "y"} : std::vector<std::string>{"no", "否", "n"}};
}

// A scan from above, the brightest value along z: a ball striped across y shows its stripes, one striped across z is whole.
report::Raster phantom(uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  const NodulePairs pair = draw_nodule_pairs(1, draw_lungs(1, generator), generator);
  const auto seen = pair.voxels[0][0].amax(0);
  const auto grey = ((seen - seen.min()) / (seen.max() - seen.min()).clamp_min(1e-6) * 255).to(torch::kUInt8).contiguous();
  const auto pixel = grey.accessor<uint8_t, 2>();
  constexpr int64_t kZoom = 4;
  auto image = report::Image::filled(seen.size(0) * kZoom, seen.size(1) * kZoom, {});
  for (int64_t y = 0; y < image.height; ++y)
    for (int64_t x = 0; x < image.width; ++x)
      for (int c = 0; c < 3; ++c) image.at(y, x)[c] = pixel[y / kZoom][x / kZoom];
  report::Raster raster{"a scan, brightest along z", image};
  raster.width = 300, raster.height = 320;
  return raster;
}

LessonResult two_nodules(const LessonArguments& a) {
  const std::vector<NoduleNetwork> networks = {NoduleNetwork::kGlobal, NoduleNetwork::kShiftedWindows,
                                               NoduleNetwork::kWindows, NoduleNetwork::kSmallField};
  const std::array<Bilingual, 4> names = {{{"global attention", "全局注意力"},
                                           {"shifted windows", "移动窗口"},
                                           {"windows", "窗口"},
                                           {"a small convolutional network", "小型卷积网络"}}};
  const auto scores = learn_two_nodules(networks, a.seed());
  LessonResult r;
  report::BarPlot bars{"accuracy on fresh scans", "", {"global", "shifted", "windows", "CNN"}, {{"", {}}}};
  bars.y_range = {0, 1.08}, bars.levels = {{"chance", 0.5}}, bars.width = 360, bars.height = 320;
  for (size_t i = 0; i < networks.size(); ++i) {
    r.answers.push_back(yes_or_no({"does it compare them: " + names[i].en, "能否比较：" + names[i].zh},
                                  scores[i].accuracy >= 0.95));
    r.found.push_back({names[i].en + printed(": accuracy %.3f", scores[i].accuracy),
                       names[i].zh + printed("：正确率 %.3f", scores[i].accuracy)});
    bars.bars[0].values.push_back(scores[i].accuracy);
  }
  r.reason = {"Same or different can only be told where news of both nodules meet. Global attention joins them in one layer; windows "
              "moved by half pass the news on from layer to layer; windows that stay, and convolutions whose field is shorter "
              "than the distance, never join them and are left to guess.",
              "只有两个结节的信息在某处相遇，才能判断相同或不同。全局注意力一层就能相遇；移动窗口逐层传递；固定窗口以及感受野短于距离的卷积永远不能"
              "相遇，只能猜。"};
  r.picture = {phantom(a.seed()), bars}, r.picture_columns = 2;
  return r;
}

LessonResult hot_or_cold(const LessonArguments& a) {
  const TissueHeads heads = learn_three_tissues(a.seed());
  const std::array<Bilingual, kTissues> names = {{{"tumour", "肿瘤"}, {"oedema", "水肿"}, {"normal", "正常"}}};
  const auto sharpest = std::max_element(heads.beta.begin(), heads.beta.end()) - heads.beta.begin();
  const bool low = heads.tau[kTumour] < heads.tau[kNormal];
  LessonResult r;
  r.answers = {{{"temperature of the tumour head, high or low", "肿瘤头的温度：高还是低"},
                0,
                0,
                low ? std::vector<std::string>{"low", "低"} : std::vector<std::string>{"high", "高"}},
               {{"tissue of the head with the largest β", "β 最大的头对应的组织"}, 0, 0, {names[sharpest].en, names[sharpest].zh}}};
  report::HeatMap purity{"attention of each head (row)"};
  purity.rows = purity.columns = kTissues, purity.range = {0, 1}, purity.decimals = 2, purity.width = 360;
  report::BarPlot tau{"temperature τ of each head", "", {}, {{"", {}}}};
  for (int t = 0; t < kTissues; ++t) {
    r.found.push_back({names[t].en + printed(" head: β %.2f, τ %.3f, %.0f %% of its attention on its tissue", heads.beta[t],
                                             heads.tau[t], 100 * heads.purity[t][t]),
                       names[t].zh + printed("头：β %.2f，τ %.3f，注意力的 %.0f %% 在本组织", heads.beta[t], heads.tau[t],
                                             100 * heads.purity[t][t])});
    purity.row_names.push_back(names[t].en), purity.column_names.push_back(names[t].en);
    purity.values.insert(purity.values.end(), heads.purity[t].begin(), heads.purity[t].end());
    tau.categories.push_back(names[t].en), tau.bars[0].values.push_back(heads.tau[t]);
  }
  r.found.push_back({printed("error of three heads %.3f, of one head of the same width %.3f", heads.three.mean_error(),
                             heads.one.mean_error()),
                     printed("三个头的误差 %.3f，同宽度单头 %.3f", heads.three.mean_error(), heads.one.mean_error())});
  r.reason = {"softmax(s/τ): a high τ flattens, a low one picks out. The tumour's clusters are tight, so its head must tell near from "
              "very near: low τ, high β. Normal tissue is broad and is averaged: high τ. The textbook's 'higher temperature' for "
              "the tumour head is the wrong way round.",
              "softmax(s/τ)：τ 高则平，τ 低则尖。肿瘤的簇很紧，它的头要分清近与更近：τ 低、β 高；正常组织很散，取平均：τ 高。教材说肿瘤头用“较高"
              "的温度”，方向正好相反。"};
  tau.width = 300, tau.height = purity.height = 280, tau.decimals = 3;
  r.picture = {purity, tau}, r.picture_columns = 2;
  return r;
}
}  // namespace

std::vector<Lesson> trained_lessons() {
  return {
      {"two-nodules",
       "P3a",
       {"Two far nodules", "两个相距很远的结节"},
       {"Two nodules lie at opposite ends of a scan; are their textures the same? Which of global attention, shifted windows, windows "
        "and a small convolutional network learn to tell? Answer in this order: yes,yes,yes,yes.",
        "两个结节位于扫描的两端，纹理是否相同？全局注意力、移动窗口、窗口、小型卷积网络，哪些能学会判断？按此顺序回答：是,是,是,是。"},
       "field of one layer: global N, windows w³; convolutions 3 voxels more a layer",
       "global-attention.md",
       {{"For each network: can one output depend on both nodules together?", "逐个网络想：有没有一个输出能同时依赖两个结节？"},
        {"A sum of a word on the left and a word on the right does not tell same from different.", "左边一个词加右边一个词，不能判断相同与不同。"}},
       {},
       /*trains=*/true,
       "1 min",
       two_nodules},
      {"hot-or-cold",
       "P6",
       {"Hot or cold?", "热还是冷？"},
       {"Three heads learn to look at tumour (tight clusters), oedema and normal tissue (broad), each with a temperature τ of its own: "
        "softmax(s/τ). Does the tumour head learn a high or a low τ? Answer high or low.",
        "三个头分别学会看肿瘤（紧密的簇）、水肿和正常组织（分散），各有自己的温度 τ：softmax(s/τ)。肿瘤头学到的 τ 高还是低？回答“高”或“低”。"},
       "P = softmax(β s),   τ = 1/β",
       "multi-head.md",
       {{"Think of the entropy of softmax(s/τ) as τ rises.", "想一想 τ 升高时 softmax(s/τ) 的熵怎样变。"},
        {"Which tissue needs the finest distinction of similarities?", "哪种组织需要最细的相似度区分？"}},
       {},
       /*trains=*/true,
       "30 s",
       hot_or_cold},
  };
}

}  // namespace fovea::recipes
