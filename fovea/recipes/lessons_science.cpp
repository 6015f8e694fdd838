// greens-function: what a transformer that solves -u'' = f holds.
#include <algorithm>

#include "fovea/data/torch_tensor.h"
#include "fovea/recipes/greens_function.h"
#include "fovea/recipes/lessons.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

report::HeatMap kernel_panel(const std::string& title, const torch::Tensor& kernel) {
  report::HeatMap map{title};
  map.rows = int(kernel.size(0)), map.columns = int(kernel.size(1)), map.width = 300, map.height = 300;
  map.values = data::to_doubles(kernel);
  map.x_label = "y, where f acts", map.y_label = "x, where u is asked";
  return map;
}

LessonResult greens_function(const LessonArguments& a) {
  OperatorOptions options;
  options.pde.points = a.whole("points", 16, 96);
  const auto linear = learn_green(OperatorNetwork::kFourier, options, a.seed()), softmax = learn_green(OperatorNetwork::kSoftmax, options, a.seed());
  LessonResult r;
  r.answers = {{{"which matrix looks like the Green's function: map or Jacobian", "哪个矩阵像格林函数：注意力图还是雅可比"}, 0, 0,
                linear.effective > linear.raw ? std::vector<std::string>{"Jacobian", "jacobian", "雅可比"} : std::vector<std::string>{"map", "注意力图"}},
               {{"correlation of the Jacobian with it", "雅可比与它的相关系数"}, linear.effective, 0.02}};
  const auto line = [&](const char* en, const char* zh, const OperatorScore& s) {
    r.found.push_back({printed("%s: relative L2 %.3f; correlation with the Green's function: Jacobian %.3f, best map of a head %.2f", en, s.relative_l2, s.effective, s.raw),
                       printed("%s：相对 L2 误差 %.3f；与格林函数的相关系数：雅可比 %.3f，单头注意力图最好 %.2f", zh, s.relative_l2, s.effective, s.raw)});
  };
  line("rotary attention without softmax", "无 softmax 的旋转位置注意力", linear), line("with softmax, two layers", "带 softmax，两层", softmax);
  r.found.push_back({printed("on 2 and 4 times the points, without training: relative L2 %.3f, %.3f", linear.at_points[0], linear.at_points[1]),
                     printed("不再训练，在 2 倍和 4 倍的点上：相对 L2 误差 %.3f，%.3f", linear.at_points[0], linear.at_points[1])});
  r.reason = {"u is the integral of G(x,y) f(y) dy with G = min(x,y) (1 − max(x,y)): whoever answers every f rightly must have du/df = G. A single map is only "
              "one factor of the computation; values, other heads and the perceptron stand between it and u.",
              "u 等于 G(x,y) f(y) 对 y 的积分，G = min(x,y)(1 − max(x,y))：对任何 f 都答对，就必须有 du/df = G。单个注意力图只是计算中的一个因子，它与 u 之间还有值、其他头和感知机。"};
  r.picture = {kernel_panel("Green's function", linear.green), kernel_panel("Jacobian, no softmax", linear.kernel), kernel_panel("Jacobian, softmax", softmax.kernel)};
  r.picture_columns = 3;
  return r;
}
}  // namespace

std::vector<Lesson> science_lessons() {
  return {
      {"greens-function",
       "A12",
       {"A transformer and Green's function", "Transformer 与格林函数"},
       {"Attention with rotary positions learns to solve −u″ = f from examples alone. Which matrix looks like the Green's function of the equation: the attention map of a head, or the Jacobian du/df?",
        "带旋转位置的注意力仅从样例学会解 −u″ = f。哪个矩阵像该方程的格林函数：某个头的注意力图，还是雅可比 du/df？"},
       "u(x) = ∫ G(x, y) f(y) dy,   G = min(x, y) (1 − max(x, y))",
       "greens-function.md",
       {{"What is du(x)/df(y) of an exact solver?", "精确求解器的 du(x)/df(y) 是什么？"},
        {"What stands between an attention map and u?", "注意力图与 u 之间还隔着什么？"},
        {"Can data of smooth f tell how the kernel answers to rough f?", "只见过光滑的 f，能知道核对粗糙 f 的反应吗？"}},
       {{"points", "48", {"points of the grid, 16 to 96", "网格点数，16 到 96"}}},
       /*trains=*/true,
       "1 min",
       greens_function},
  };
}

}  // namespace fovea::recipes
