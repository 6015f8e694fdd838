// whom-to-trust: the class token between hand-crafted features and a network's.
#include "fovea/recipes/lessons.h"
#include "fovea/recipes/whom_to_trust.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

LessonResult whom_to_trust(const LessonArguments& a) {
  const std::string& task = a.text("task");
  if (task != "texture" && task != "context") a.refuse("task", "texture or context");
  const Trust t = learn_whom_to_trust(task == "texture" ? LesionTask::kTexture : LesionTask::kContext, a.seed());
  const std::vector<std::string> radiomics = {"radiomics", "影像组学", "r"}, scan = {"scan", "扫描", "cnn", "network"};
  LessonResult r;
  r.answers = {{{"the side that the class token attends to more", "类别词元更关注哪一边"},
                0,
                0,
                t.on_radiomics > t.on_scan ? radiomics : scan},
               {{"the side without which the loss rises more", "去掉哪一边损失上升更多"},
                0,
                0,
                t.radiomics_ablation > t.scan_ablation ? radiomics : scan}};
  r.found = {
      {printed("attention of the class token: %.3f on the radiomics token, %.3f on the scan's 27 cells, %.3f on itself",
               t.on_radiomics, t.on_scan, t.on_itself),
       printed("类别词元的注意力：影像组学词元 %.3f，扫描的 27 个小块 %.3f，自身 %.3f", t.on_radiomics, t.on_scan,
               t.on_itself)},
      {printed("cross-entropy added by another lesion's features %.2f nats, by another's scan %.2f",
               t.radiomics_ablation, t.scan_ablation),
       printed("换成别的病灶的特征，交叉熵增加 %.2f；换成别的扫描，增加 %.2f", t.radiomics_ablation, t.scan_ablation)},
      {printed(
           "accuracy on fresh simulated lesions: both %.3f, radiomics alone %.3f, scan alone %.3f, concatenation %.3f",
           t.both.accuracy, t.radiomics_alone.accuracy, t.scan_alone.accuracy, t.concatenation.accuracy),
       printed("在新的模拟病灶上的正确率：两者 %.3f，仅影像组学 %.3f，仅扫描 %.3f，拼接 %.3f", t.both.accuracy,
               t.radiomics_alone.accuracy, t.scan_alone.accuracy, t.concatenation.accuracy)}};
  r.reason = {
      "The class token reads the side that tells the classes apart. The entropy of the texture is a feature of the "
      "masked "
      "voxels; whether a wall touches the lesion lies outside of the mask and only the scan shows it. Attention is not "
      "importance: a token can be looked at and not used, so the loss without each side stands beside it.",
      "类别词元读的是能分开两类的一边。纹理的熵是掩膜内体素的特征；壁是否贴着病灶在掩膜之外，只有扫描能看到。注意力不等"
      "于重要性："
      "看了不一定用，所以旁边还给出去掉每一边时的损失。"};
  report::BarPlot row{"the class token's row",
                      "",
                      {"itself", "27 cells", "radiomics"},
                      {{"", {t.on_itself, t.on_scan, t.on_radiomics}}}};
  row.y_range = {0, 1.08}, row.width = 300, row.height = 300;
  report::BarPlot loss{"nats lost without", "", {"radiomics", "scan"}, {{"", {t.radiomics_ablation, t.scan_ablation}}}};
  loss.width = 240, loss.height = 300, loss.decimals = 2;
  report::BarPlot accuracy{"accuracy (simulated)", "", {"both", "radiomics", "scan"}, {{"", {}}}};
  accuracy.bars[0].values = {t.both.accuracy, t.radiomics_alone.accuracy, t.scan_alone.accuracy};
  accuracy.y_range = {0, 1.08}, accuracy.levels = {{"chance", 0.5}}, accuracy.width = 280, accuracy.height = 300;
  r.picture = {row, loss, accuracy}, r.picture_columns = 3;
  return r;
}
}  // namespace

std::vector<Lesson> radiomics_lessons() {
  return {
      {"whom-to-trust",
       "A8",
       {"Whom to trust?", "该信谁？"},
       {"A class token reads 107 hand-crafted features of a lesion, as one token, beside 27 tokens of the scan around "
        "it. The class "
        "is the entropy of the lesion's texture (--task texture), or whether a wall touches it (--task context). Where "
        "does the "
        "class token look: radiomics or scan?",
        "类别词元同时读病灶的 107 个手工特征（一个词元）和周围扫描的 27 个词元。类别要么是病灶纹理的熵（--task "
        "texture），要么是壁是否贴着病灶"
        "（--task context）。类别词元看哪一边：“影像组学”还是“扫描”？"},
       "x = [class, W z(radiomics), cells] + kind;   row = softmax(q_class Kᵀ/√C)",
       "radiomics.md",
       {{"What can be computed from the voxels under the mask alone?", "只用掩膜内的体素能算出什么？"},
        {"What lies outside of the mask?", "什么在掩膜之外？"},
        {"Run both tasks: does the side without which the loss rises switch as well?",
         "两个任务都跑：去掉后损失上升的那一边也换了吗？"}},
       {{"task", "texture", {"what decides the class: texture or context", "类别由什么决定：texture 或 context"}}},
       /*trains=*/true,
       "1 min",
       whom_to_trust},
  };
}

}  // namespace fovea::recipes
