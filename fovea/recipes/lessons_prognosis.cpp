// one-trunk: outline and outcome from the same attention.
#include "fovea/recipes/lessons.h"
#include "fovea/recipes/tumour_prognosis.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

LessonResult one_trunk(const LessonArguments& a) {
  const int64_t patients = a.whole("patients", 40, 300);
  const auto t = learn_tumour_prognosis(patients, a.seed());
  const auto& g = t.agreement;
  LessonResult r;
  r.answers = {{{"C-index with the outline less without it", "有轮廓任务与没有时一致性指数之差"}, t.joint.concordance - t.outcome_alone.concordance, 0.05},
               {{"cosine of both gradients", "两个梯度的余弦"}, g.cosine, 0.1}};
  r.found = {
      {printed("gradient norms on the shared attention's weights: outcome %.3g, outline %.3g; cosine %.3f", g.first_norm, g.second_norm, g.cosine),
       printed("共享注意力权重上的梯度范数：预后 %.3g，轮廓 %.3g；余弦 %.3f", g.first_norm, g.second_norm, g.cosine)},
      {printed("C-index on 400 fresh simulated patients: joint %.3f, outcome alone %.3f (95 %% of resamples of the gain: %.3f to %.3f)", t.joint.concordance, t.outcome_alone.concordance, t.gain.low, t.gain.high),
       printed("400 名新的模拟患者上的一致性指数：联合 %.3f，仅预后 %.3f（增益的 95%% 重抽样区间 %.3f 到 %.3f）", t.joint.concordance, t.outcome_alone.concordance, t.gain.low, t.gain.high)},
      {printed("Cox's model on the true volume %.3f, on volume and roughness %.3f: what can be known", t.cox_volume, t.cox_both),
       printed("Cox 模型：用真实体积 %.3f，用体积和粗糙度 %.3f，即可知的上限", t.cox_volume, t.cox_both)},
      {printed("Dice of the outline: joint %.3f, outline alone %.3f", t.joint.dice, t.outline_alone.dice), printed("轮廓的 Dice：联合 %.3f，仅轮廓 %.3f", t.joint.dice, t.outline_alone.dice)}};
  r.reason = {"A few hundred survival times do not say which of four lesions matters; a mask says it at once. Both losses reach the same attention weights, so what the outline "
              "teaches about where the tumour is serves the prognosis. The outline itself gains nothing from the outcome here.",
              "几百个生存时间说不清四个病灶中哪一个重要，掩膜一下就说清了。两个损失都作用于同一组注意力权重，所以轮廓任务学到的“肿瘤在哪里”为预后所用。轮廓本身在这里没有从预后中得到好处。"};
  report::BarPlot concordance{"C-index (simulated patients)", "", {"joint", "outcome alone", "Cox, volume", "Cox, both"}, {{"", {t.joint.concordance, t.outcome_alone.concordance, t.cox_volume, t.cox_both}}}};
  concordance.y_range = {0, 1}, concordance.levels = {{"chance", 0.5}}, concordance.width = 460, concordance.height = 300, concordance.decimals = 3;
  report::BarPlot dice{"Dice of the outline", "", {"joint", "outline alone"}, {{"", {t.joint.dice, t.outline_alone.dice}}}};
  dice.y_range = {0, 1.08}, dice.width = 280, dice.height = 300, dice.decimals = 3;
  r.picture = {concordance, dice}, r.picture_columns = 2;
  return r;
}
}  // namespace

std::vector<Lesson> prognosis_lessons() {
  return {
      {"one-trunk",
       "A10",
       {"One trunk for two tasks", "一干两任务"},
       {"One network outlines a tumour among benign lesions and predicts the patient's course, through the same attention. By how much does learning the outline raise the C-index?",
        "同一个网络既在良性病灶中勾画肿瘤，又用同一组注意力预测病程。学习轮廓使一致性指数提高多少？"},
       "L = L_Cox + w (L_Dice + L_CE);   cos = <g_1, g_2> / (|g_1| |g_2|)",
       "prognosis.md",
       {{"Which of the four lesions decides, and who says so?", "四个病灶中哪一个起决定作用？谁告诉了网络？"},
        {"Do both losses reach the attention's weights?", "两个损失都到达注意力的权重吗？"},
        {"Try --patients 60 and 300: where does the outline help most?", "试试 --patients 60 和 300：轮廓在哪种情况下帮助最大？"}},
       {{"patients", "150", {"patients to learn from", "用于学习的患者数"}}},
       /*trains=*/true,
       "1 min",
       one_trunk},
  };
}

}  // namespace fovea::recipes
