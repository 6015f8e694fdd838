// free-heads, where-am-i, implicit-temperature: heads, position and the norm of queries and keys.
#include <torch/torch.h>

#include <array>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/kernels/attention_cost.h"
#include "fovea/recipes/layer_experiments.h"
#include "fovea/recipes/lessons.h"
#include "fovea/recipes/right_neighbour.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

long long whole(int64_t n) { return static_cast<long long>(n); }

LessonResult free_heads(const LessonArguments& a) {
  const int64_t width = a.whole("width", 1, 4096);
  const auto heads = a.wholes("heads", 1, 4096);
  LessonResult r;
  report::BarPlot counts{"parameters, by number of heads", "", {}, {{"", {}}}}, work = counts;
  counts.decimals = 0, work.title = "softmax, percent of the work";
  for (const int64_t h : heads) {
    if (width % h) a.refuse("heads", "divisors of the width " + std::to_string(width));
    const int64_t n = attention_parameters(width, h, /*qkv_bias=*/true);
    const auto cost = kernels::attention_cost(kernels::AttentionReach::kGlobal, {{16, 16, 16}, {16, 16, 16}, width, h});
    const double share = 100 * cost.exponentials / cost.multiply_adds();
    r.answers.push_back(
        {{printed("parameters with %lld heads", whole(h)), printed("%lld 个头时的参数个数", whole(h))}, double(n)});
    r.found.push_back(
        {printed("%lld heads of %lld channels: %lld parameters, softmax %.2f %% of the work at 4096 tokens", whole(h),
                 whole(width / h), whole(n), share),
         printed("%lld 个头，每头 %lld 个通道：%lld 个参数，4096 个词元时 softmax 占计算量的 %.2f %%", whole(h),
                 whole(width / h), whole(n), share)});
    counts.categories.push_back(printed("%lld", whole(h))), work.categories.push_back(counts.categories.back());
    counts.bars[0].values.push_back(double(n)), work.bars[0].values.push_back(share);
  }
  r.reason = {
      printed("Heads only divide the width: H heads of E/H channels. The four projections stay E×E with a bias each, "
              "4·%lld² + 4·%lld = %lld, whatever H is. Only the softmax, one a head, costs more.",
              whole(width), whole(width), whole(4 * width * width + 4 * width)),
      printed("多头只是把宽度分开：H 个头，每头 E/H 个通道。四个投影仍是 E×E 加偏置，4·%lld² + 4·%lld = %lld，与 H "
              "无关；只有每头"
              "一次的 softmax 变贵。",
              whole(width), whole(width), whole(4 * width * width + 4 * width))};
  counts.width = work.width = 330, counts.height = work.height = 260;
  r.picture = {counts, work}, r.picture_columns = 2;
  return r;
}

LessonResult where_am_i(const LessonArguments& a) {
  const Equivariance moved = permute_tokens(a.seed());
  const RightNeighbour with = learn_right_neighbour(/*with_bias=*/true, a.seed()),
                       without = learn_right_neighbour(/*with_bias=*/false, a.seed());
  const int64_t edge = 7;
  const auto table = torch::tensor(with.bias, torch::kFloat64);
  const int64_t peak = table.argmax().item<int64_t>();
  const std::array<int64_t, 3> at = {peak / (edge * edge) - 3, peak / edge % edge - 3, peak % edge - 3};
  LessonResult r;
  r.answers = {{{"displacement of the largest bias, along Z", "最大偏置的位移，Z 方向"}, double(at[0])},
               {{"along Y", "Y 方向"}, double(at[1])},
               {{"along X", "X 方向"}, double(at[2])}};
  r.found = {
      {printed("shuffled tokens: outputs move along and change by %.0e without a bias, by %.2g with one",
               moved.unbiased, moved.biased),
       printed("打乱词元：没有偏置时输出只是跟着换位，变化 %.0e；有偏置时变化 %.2g", moved.unbiased, moved.biased)},
      {printed("naming the right neighbour's symbol: %.1f %% right with the bias, %.1f %% without (the most frequent "
               "symbol: %.1f %%)",
               100 * with.accuracy, 100 * without.accuracy, 100 * without.majority),
       printed("说出右邻符号：有偏置正确率 %.1f %%，没有 %.1f %%（猜最常见符号：%.1f %%）", 100 * with.accuracy,
               100 * without.accuracy, 100 * without.majority)},
      {printed("largest entry of the learned bias at displacement (%lld,%lld,%+lld)", whole(at[0]), whole(at[1]),
               whole(at[2])),
       printed("学到的偏置最大的一项在位移 (%lld,%lld,%+lld)", whole(at[0]), whole(at[1]), whole(at[2]))}};
  r.reason = {
      "Attention knows what is there, not where: it is equivariant, shuffled tokens give shuffled outputs. To name the "
      "right neighbour it needs position, and the bias table learns exactly that displacement: (0,0,+1) in Z, Y, X.",
      "注意力知道有什么，不知道在哪里：它是等变的，词元打乱，输出也同样打乱。要说出右邻，就需要位置，而偏置表学到的正是"
      "这个位移：Z、Y、X "
      "为 (0,0,+1)。"};
  const double low = table.min().item<double>(), high = table.max().item<double>();
  for (int64_t z = 0; z < edge; ++z) {
    report::HeatMap map{printed("ΔZ = %+lld", whole(z - 3))};
    map.rows = map.columns = int(edge), map.range = {low, high}, map.width = 150, map.height = 160;
    map.values.assign(with.bias.begin() + z * edge * edge, with.bias.begin() + (z + 1) * edge * edge);
    if (z == peak / (edge * edge)) map.marked = {int(peak / edge % edge), int(peak % edge)};
    r.picture.push_back(map);
  }
  r.picture_columns = 4;
  return r;
}

LessonResult implicit(const LessonArguments& a) {
  const double sigma_q = a.number("sigma-q"), sigma_k = a.number("sigma-k");
  if (!(sigma_q > 0) || sigma_q > 1e6) a.refuse("sigma-q", "a number above 0, at most 1e6");
  if (!(sigma_k > 0) || sigma_k > 1e6) a.refuse("sigma-k", "a number above 0, at most 1e6");
  const ImplicitTemperature t = implicit_temperature(64, a.seed(), sigma_q, sigma_k);
  LessonResult r;
  r.answers = {{{"change of the scores when features grow 100-fold", "特征放大 100 倍时得分的变化"}, 0, 1e-6},
               {{"implicit temperature τ", "隐式温度 τ"}, t.mean_temperature, 0.05 * t.mean_temperature}};
  FOVEA_CHECK(t.change <= 1e-6, "scores after the norm changed by " + std::to_string(t.change));
  r.found = {
      {printed("inputs x100: a score changes by %.0e at most; largest score %.3f of √C = %.0f", t.change,
               t.largest_score, t.bound),
       printed("输入 x100：得分最多变化 %.0e；最大得分 %.3f，上限 √C = %.0f", t.change, t.largest_score, t.bound)},
      {printed("mean of deviation(q) · deviation(k) over the drawn vectors: %.4f; σ_q σ_k = %.4g", t.mean_temperature,
               sigma_q * sigma_k),
       printed("抽样向量的 std(q)·std(k) 均值：%.4f；σ_q σ_k = %.4g", t.mean_temperature, sigma_q * sigma_k)}};
  r.reason = {
      printed(
          "After LayerNorm a score is √C·corr(q,k): size and offset of the features drop out, whatever they are. The "
          "same number is the centred dot product divided by τ√C with τ = σ_q σ_k = %.4g: the norm chooses the "
          "temperature from the features' own spread.",
          sigma_q * sigma_k),
      printed("LayerNorm 之后得分是 √C·corr(q,k)：特征的大小和偏移都被消去。同一个数也等于中心化点积除以 τ√C，τ = σ_q "
              "σ_k = %.4g："
              "归一化按特征自身的离散程度选定了温度。",
              sigma_q * sigma_k)};
  // One query on 16 keys: softmax of plain scores, of inputs x100, and both after the norm.
  auto generator = at::detail::createCPUGenerator(a.seed());
  const auto f64 = torch::TensorOptions(torch::kFloat64);
  const auto q = torch::randn({1, 64}, generator, f64) * sigma_q, k = torch::randn({16, 64}, generator, f64) * sigma_k;
  const auto weights = [&](double grow, bool normed) {
    const auto size = [&](const torch::Tensor& x) { return normed ? torch::layer_norm(x, {64}, {}, {}, 1e-12) : x; };
    const auto p = torch::softmax(torch::matmul(size(grow * q), size(grow * k).t()) / 8, -1).flatten();
    return std::vector<double>(p.data_ptr<double>(), p.data_ptr<double>() + p.numel());
  };
  for (const bool normed : {false, true}) {
    report::BarPlot plot{normed ? "with the norm" : "without",
                         "weight of 16 keys",
                         {},
                         {{"as they are", weights(1, normed)}, {"features × 100", weights(100, normed)}}};
    for (int j = 1; j <= 16; ++j) plot.categories.push_back(printed("%d", j));
    plot.width = 400, plot.height = 260, plot.y_range = {0, 1};
    r.picture.push_back(plot);
  }
  r.picture_columns = 2;
  return r;
}
}  // namespace

std::vector<Lesson> layer_lessons() {
  return {
      {"free-heads",
       "P6",
       {"Heads are free", "多头不要钱"},
       {"How many parameters has one attention layer of width E = 768, all biases included, with 1, 2, 4, 8 or 12 "
        "heads?",
        "宽度 E = 768 的一层注意力（含全部偏置），用 1、2、4、8、12 个头时各有多少个参数？"},
       "parameters = 4E² + 4E for every H that divides E",
       "multi-head.md",
       {{"Projections for q, k, v and the output: four matrices of 768².",
         "q、k、v 与输出四个投影：四个 768² 的矩阵。"},
        {"A bias of 768 each.", "每个再加 768 个偏置。"}},
       {{"heads", "1,2,4,8,12", {"numbers of heads", "头数"}}, {"width", "768", {"width E", "宽度 E"}}},
       false,
       "1 s",
       free_heads},
      {"where-am-i",
       "P7",
       {"Where am I?", "我在哪里？"},
       {"Each token shall name the symbol of its right neighbour. Which displacement (Z,Y,X) gets the largest entry of "
        "the bias table "
        "that is learned? Answer as 0,0,0.",
        "每个词元要说出右邻词元的符号。学到的偏置表在哪个位移 (Z,Y,X) 上最大？按 0,0,0 的形式回答。"},
       "s_ij = q_i·k_j / √C + bias[pos_j − pos_i]",
       "relative-position-bias.md",
       {{"Without position all orders of the tokens are alike to attention.",
         "没有位置信息时，词元的任何排列对注意力都一样。"},
        {"Right means one step further along X, the last axis.", "“右”就是沿最后一个轴 X 前进一步。"}},
       {},
       false,
       "2 s",
       where_am_i},
      {"implicit-temperature",
       "P8",
       {"The implicit temperature", "隐式温度"},
       {"Queries and keys (C = 64, deviations 3 and 0.2) pass a LayerNorm before their dot product. Features times "
        "100: by how much do "
        "the scores change? And what is the implicit temperature? Answer as 1,1.",
        "查询与键（C = 64，标准差 3 和 0.2）在点积之前先做 LayerNorm。特征乘以 100，得分变化多少？隐式温度是多少？按 "
        "1,1 的形式回答。"},
       "LN(q)·LN(k) / √C = √C corr(q,k) = (q−μ_q)·(k−μ_k) / (τ √C),   τ = σ_q σ_k",
       "qk-norm.md",
       {{"LayerNorm of 100x is LayerNorm of x.", "100x 的 LayerNorm 等于 x 的 LayerNorm。"},
        {"The centred dot product is divided by both deviations: τ is their product.",
         "中心化点积被两个标准差相除：τ 就是它们的乘积。"}},
       {{"sigma-q", "3", {"deviation of the queries", "查询的标准差"}},
        {"sigma-k", "0.2", {"deviation of the keys", "键的标准差"}}},
       false,
       "1 s",
       implicit},
  };
}

}  // namespace fovea::recipes
