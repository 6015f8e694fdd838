// first-attention, why-scale, budget: scores, their scale and the softmax.
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "fovea/recipes/lessons.h"
#include "fovea/recipes/score_experiments.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;

torch::Tensor tensor_of(const std::vector<std::vector<double>>& rows) {
  std::vector<torch::Tensor> lines;
  for (const auto& row : rows) lines.push_back(torch::tensor(row, torch::kFloat64));
  return torch::stack(lines);
}

std::vector<double> values_of(const torch::Tensor& t) {
  const auto flat = t.to(torch::kFloat64).contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

LessonResult first_attention(const LessonArguments& a) {
  const auto q = tensor_of(a.rows("q")), k = tensor_of(a.rows("k")), v = tensor_of(a.rows("v")).flatten();
  const int64_t N = q.size(0), M = k.size(0);
  if (q.size(1) != k.size(1)) a.refuse("k", "keys of as many numbers as the queries");
  if (v.numel() != M) a.refuse("v", "one value a key");
  if (M < 2) a.refuse("k", "at least two keys");
  const WorkedExample e = work_example(q, k, v);
  const auto weight = [&](int64_t i, int64_t j) { return e.weights[i][j].item<double>(); };
  const auto effective = (-torch::xlogy(e.weights, e.weights).sum(1)).exp();
  LessonResult r;
  const double first = e.out[0].item<double>();
  r.answers = {{{"output of q1 (o1)", "q1 的输出 o1"}, first, std::max(0.01 * std::abs(first), 1e-6)},
               {{"weight of v2 in it", "其中 v2 的权重"}, weight(0, 1), 0.002}};
  if (N > 1) {
    const double second = e.out[1].item<double>();
    r.answers.push_back({{"output of q2 (o2)", "q2 的输出 o2"}, second, std::max(0.01 * std::abs(second), 1e-6)});
  }
  for (int64_t i = 0; i < N; ++i) {
    std::string weights;
    for (int64_t j = 0; j < M; ++j) weights += printed("%s%.3f", j ? " / " : "", weight(i, j));
    const double keys = effective[i].item<double>(), out = e.out[i].item<double>();
    r.found.push_back(
        {printed("q%d: weights %s, output %.3f, %.2f keys in effect", int(i + 1), weights.c_str(), out, keys),
         printed("q%d：权重 %s，输出 %.3f，有效键数 %.2f", int(i + 1), weights.c_str(), out, keys)});
  }
  int64_t least = 0;
  for (int64_t j = 1; j < M; ++j)
    if (weight(0, j) < weight(0, least)) least = j;
  r.reason = {
      printed("The scores q1·k / sqrt(%lld) go through softmax, and the weights mix the values. Key %lld agrees least "
              "with q1 and gets %.1f %% of the budget, so its value %g hardly counts.",
              static_cast<long long>(q.size(1)), static_cast<long long>(least + 1), 100 * weight(0, least),
              v[least].item<double>()),
      printed(
          "得分 q1·k / sqrt(%lld) 经 softmax 变成权重，再用权重混合各个值。第 %lld 个键与 q1 最不相似，只分到预算的 "
          "%.1f %%，所以它的值 %g 几乎不起作用。",
          static_cast<long long>(q.size(1)), static_cast<long long>(least + 1), 100 * weight(0, least),
          v[least].item<double>())};
  report::HeatMap map{"weights: query × key"};
  map.rows = int(N), map.columns = int(M), map.values = values_of(e.weights), map.range = {0, 1}, map.decimals = 3;
  map.width = 380, map.height = 90 + 60 * int(N);
  report::BarPlot bars{"output of each query", "o", {}, {{"", values_of(e.out)}}};
  for (int64_t i = 0; i < N; ++i)
    map.row_names.push_back(printed("q%d", int(i + 1))), bars.categories.push_back(map.row_names.back());
  for (int64_t j = 0; j < M; ++j) map.column_names.push_back(printed("k%d", int(j + 1)));
  bars.width = 260, bars.height = map.height;
  r.picture = {map, bars}, r.picture_columns = 2;
  return r;
}

LessonResult why_scale(const LessonArguments& a) {
  const auto channels = a.wholes("d", 1, 4096);
  const int64_t asked = std::find(channels.begin(), channels.end(), 128) != channels.end() ? 128 : channels.back();
  const ScoreDraws draws{2000, 64, a.seed()};
  report::LinePlot largest{"mean largest of 64 weights", "d, channels of a query", ""};
  largest.series = {{"unscaled", {}, {}, {}, false, true}, {"divided by √d", {}, {}, {}, false, true}};
  largest.log_x = channels.size() > 1, largest.y_range = {0, 1}, largest.width = 320;
  report::LinePlot spread{"scores q·k, unscaled: share of each", "score", ""};
  spread.width = 320;
  LessonResult r;
  for (const int64_t d : channels) {
    const Scaling s = compare_scaling(d, draws);
    const int n = int(d);
    r.found.push_back(
        {printed("d = %d: variance %.2f, scaled %.2f; largest weight %.2f, scaled %.3f; entropy %.2f, scaled "
                 "%.2f of %.2f nats",
                 n, s.unscaled.variance, s.scaled.variance, s.unscaled.largest_weight, s.scaled.largest_weight,
                 s.unscaled.entropy_nats, s.scaled.entropy_nats, std::log(64.0)),
         printed("d = %d：方差 %.2f，缩放后 %.2f；最大权重 %.2f，缩放后 %.3f；熵 %.2f，缩放后 %.2f（上限 %.2f 奈特）",
                 n, s.unscaled.variance, s.scaled.variance, s.unscaled.largest_weight, s.scaled.largest_weight,
                 s.unscaled.entropy_nats, s.scaled.entropy_nats, std::log(64.0))});
    for (const bool scaled : {false, true}) {
      largest.series[scaled].x.push_back(double(d));
      largest.series[scaled].y.push_back(scaled ? s.scaled.largest_weight : s.unscaled.largest_weight);
    }
    if (spread.series.size() < 4) {
      const auto scores = draw_scores(d, /*scaled=*/false, {500, 64, a.seed()}).scores;
      constexpr int kBins = 61;
      const double end = 3 * std::sqrt(double(*std::max_element(channels.begin(), channels.end())));
      const auto counts = values_of(torch::histc(scores, kBins, -end, end) / double(scores.numel()));
      report::Series line{printed("d = %d", n), {}, counts};
      for (int b = 0; b < kBins; ++b) line.x.push_back(-end + (b + 0.5) * 2 * end / kBins);
      spread.series.push_back(line);
    }
    if (d != asked) continue;
    r.answers = {
        {{printed("variance of q·k at d = %d", n), printed("d = %d 时 q·k 的方差", n)},
         s.unscaled.variance,
         0.03 * s.unscaled.variance},
        {{"mean largest of 64 weights, unscaled", "不缩放时 64 个权重中最大者的均值"}, s.unscaled.largest_weight, 0.03},
        {{"the same, scaled", "缩放后的同一量"}, s.scaled.largest_weight, 0.01}};
    r.reason = {
        printed("q·k is a sum of d = %d products of variance 1, so its variance is d (drawn: %.1f). Softmax turns a "
                "spread of √d = %.1f into nearly one winner: %.2f of the budget. Divided by √d the spread is 1 and "
                "the winner gets %.3f.",
                n, s.unscaled.variance, std::sqrt(double(d)), s.unscaled.largest_weight, s.scaled.largest_weight),
        printed("q·k 是 d = %d 个方差为 1 的乘积之和，所以方差等于 d（抽样得 %.1f）。得分的标准差为 √d = %.1f "
                "时，softmax 几乎只留下"
                "一个赢家，占预算的 %.2f；除以 √d 后标准差为 1，赢家只占 %.3f。",
                n, s.unscaled.variance, std::sqrt(double(d)), s.unscaled.largest_weight, s.scaled.largest_weight)};
  }
  r.picture = {spread, largest}, r.picture_columns = 2;
  return r;
}

LessonResult budget(const LessonArguments& a) {
  const int64_t d = a.whole("d", 1, 4096), keys = a.whole("keys", 2, 4096);
  const Scaling s = compare_scaling(d, {2000, keys, a.seed()});
  const double scaled = std::exp(s.scaled.entropy_nats), unscaled = std::exp(s.unscaled.entropy_nats);
  LessonResult r;
  r.answers = {{{printed("keys in effect of %d, scaled", int(keys)), printed("缩放后 %d 个键中的有效键数", int(keys))},
                scaled,
                0.05 * scaled},
               {{"the same, unscaled", "不缩放时的同一量"}, unscaled, 0.1 * unscaled}};
  r.found = {{printed("exp(entropy): %.1f of %d keys scaled, %.1f unscaled", scaled, int(keys), unscaled),
              printed("exp(熵)：缩放后 %d 个键中用到 %.1f 个，不缩放时 %.1f 个", int(keys), scaled, unscaled)}};
  const Budget rows = softmax_budget(200, keys, a.seed());
  r.found.push_back(
      {printed("rows of weights sum to 1 within %.0e; raising one score lowers every other weight", rows.sum_error),
       printed("每行权重之和为 1，误差 %.0e；抬高一个得分，其他权重全部下降", rows.sum_error)});
  r.reason = {
      printed(
          "Weights sum to 1, so attention is a budget; exp(entropy) counts the keys it is really spent on. With unit "
          "spread (scaled) about %.0f of %d keys share it, with a spread of √d only %.1f.",
          scaled, int(keys), unscaled),
      printed("权重之和为 1，所以注意力是一份预算；exp(熵) 就是真正花到的键数。标准差为 1（缩放后）时约 %.0f "
              "个键分享（共 %d 个），"
              "标准差为 √d 时只有 %.1f 个。",
              scaled, int(keys), unscaled)};
  report::LinePlot sorted{"weights, largest first (mean)", "rank of the key", ""},
      summed{"share spent on the first keys", "keys", ""};
  for (const bool by_root : {true, false}) {
    const auto ranked = draw_scores(d, by_root, {500, keys, a.seed()}).ranked;
    report::Series line{by_root ? "scaled" : "unscaled", {}, values_of(ranked)}, sum = line;
    sum.y = values_of(ranked.cumsum(0));
    for (int64_t j = 1; j <= keys; ++j) line.x.push_back(double(j)), sum.x.push_back(double(j));
    sorted.series.push_back(line), summed.series.push_back(sum);
  }
  sorted.width = summed.width = 320, summed.y_range = {0, 1};
  r.picture = {sorted, summed}, r.picture_columns = 2;
  return r;
}
}  // namespace

std::vector<Lesson> score_lessons() {
  return {
      {"first-attention",
       "P1",
       {"A first attention", "第一次注意力"},
       {"Two queries, three keys: what does q1 read, and how much of v2? q1 = (2,0), q2 = (0,2); k1 = (2,0), k2 = "
        "(-2,0), k3 = "
        "(1.8,0.2); v = 1, 10, 2.",
        "两个查询、三个键：q1 读到什么？其中 v2 占多少？q1 = (2,0)，q2 = (0,2)；k1 = (2,0)，k2 = (-2,0)，k3 = "
        "(1.8,0.2)；v = 1、10、2。"},
       "o_i = Σ_j softmax_j(q_i·k_j / √C) v_j",
       "scaled-dot-product.md",
       {{"Scores of q1: 2·2/√2 = 2.83, −2.83, 2·1.8/√2 = 2.55.", "q1 的得分：2·2/√2 = 2.83，−2.83，2·1.8/√2 = 2.55。"},
        {"exp of each, divided by their sum: the weights.", "各取 exp 再除以总和，就是权重。"},
        {"Weights times values, summed: o1.", "权重乘以值再求和，就是 o1。"}},
       {{"q", "2,0;0,2", {"queries, a row each", "查询，每行一个"}},
        {"k", "2,0;-2,0;1.8,0.2", {"keys, a row each", "键，每行一个"}},
        {"v", "1;10;2", {"values, one a key", "值，每个键一个"}}},
       false,
       "1 s",
       first_attention},
      {"why-scale",
       "P1",
       {"Why divide by √d?", "为什么要除以 √d？"},
       {"Entries of q and k are normal with variance 1. What is Var(q·k) at d = 128, and what happens to the largest "
        "of 64 "
        "softmax weights without and with the division by √d?",
        "q 与 k 的各分量服从方差为 1 的正态分布。d = 128 时 Var(q·k) 是多少？除以 √d 之前和之后，64 个 softmax "
        "权重中最大的一个会怎样？"},
       "s = q·k / √d,   Var(q·k) = d",
       "scaled-dot-product.md",
       {{"Each product q_c k_c has mean 0 and variance 1; d independent ones add up to variance d.",
         "每个乘积 q_c k_c 均值 0、方差 1；d 个独立的相加，方差为 d。"},
        {"Softmax sees differences of scores: of size √d they leave one weight near 1, whose gradient p(1−p) vanishes.",
         "softmax 看的是得分之差：大小为 √d 时只剩一个接近 1 的权重，其梯度 p(1−p) 趋于消失。"}},
       {{"d", "16,64,128,512", {"channels of a query", "查询的通道数"}}},
       false,
       "3 s",
       why_scale},
      {"budget",
       "P1a",
       {"A budget of attention", "注意力的预算"},
       {"How many of 64 keys does a query really use? Scores are q·k of normal entries, d = 64, divided by √d.",
        "64 个键中，一个查询真正用到几个？得分为正态分量的 q·k，d = 64，再除以 √d。"},
       "keys in effect = exp(−Σ_j p_j ln p_j)",
       "scaled-dot-product.md",
       {{"A row of weights is a probability distribution; its entropy is between 0 (one key) and ln 64 = 4.16 (all "
         "alike).",
         "一行权重是概率分布；熵在 0（只有一个键）与 ln 64 = 4.16（全部相同）之间。"},
        {"exp of the entropy counts equal keys of the same entropy.", "exp(熵) 就是具有同样熵的等权键的个数。"}},
       {{"d", "64", {"channels of a query", "查询的通道数"}}, {"keys", "64", {"keys", "键的个数"}}},
       false,
       "1 s",
       budget},
  };
}

}  // namespace fovea::recipes
