// greens-function: what a transformer that solves -u'' = f holds. missing-station: what the others say of one.
// rows-and-columns: what attention along the axes of an alignment saves and mixes.
#include <algorithm>
#include <cmath>

#include "fovea/data/station_field.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/io/data_folder.h"
#include "fovea/models/seeded_generator.h"
#include "fovea/nn/msa_attention.h"
#include "fovea/recipes/air_stations.h"
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

// Stations of one time, whose places lie in a plane: from the table, or made up where there is none.
struct PlainDay {
  Samples samples;            // km
  std::vector<double> x, y;   // for the map
  std::string x_label, y_label;
};

std::vector<PlainDay> plain_days(bool& simulated, uint64_t seed) {
  std::vector<PlainDay> days;
  const auto path = io::find_data("air.csv");
  simulated = !path;
  if (path) {
    const StationDays data = read_station_days(*path);
    for (size_t d = 0; d < data.days.size(); d += 30) {
      PlainDay day{data.days[d].samples, {}, {}, "longitude", "latitude"};
      for (const int64_t s : data.days[d].stations) day.x.push_back(data.longitude_latitude_deg[size_t(s)][0]), day.y.push_back(data.longitude_latitude_deg[size_t(s)][1]);
      days.push_back(std::move(day));
    }
    return days;
  }
  auto generator = at::detail::createCPUGenerator(seed);
  data::StationFieldOptions options;
  options.missing = 0;
  const auto fields = data::draw_station_fields(options, 60, false, generator);
  for (int64_t d = 0; d < 60; ++d) {
    auto km = 500 * fields.places[d].to(torch::kFloat64);
    km.select(1, 2) = 0;
    days.push_back({{km, 20 + 8 * fields.value[d].to(torch::kFloat64)}, data::to_doubles(km.select(1, 0)), data::to_doubles(km.select(1, 1)), "km", "km"});
  }
  return days;
}

LessonResult missing_station(const LessonArguments& a) {
  const double bandwidth = a.number("bandwidth");
  if (!(bandwidth >= 1 && bandwidth <= 5000)) a.refuse("bandwidth", "1 to 5000 km");
  bool simulated = false;
  const auto days = plain_days(simulated, a.seed());
  const auto error_of = [&](const std::function<torch::Tensor(const Samples&)>& predicted) {
    double sum = 0, n = 0;
    for (const auto& day : days) sum += (predicted(day.samples) - day.samples.values).square().sum().item<double>(), n += double(day.samples.values.numel());
    return std::sqrt(sum / n);
  };
  const auto kernel_error = [&](double h) { return error_of([h](const Samples& s) { return leave_one_out(s, {h}); }); };
  const double kernel = kernel_error(bandwidth), inverse = error_of([](const Samples& s) { return weighted_others(station_distances(s.points).pow(-2), s.values); }),
               mean = error_of([](const Samples& s) { return weighted_others(torch::ones_like(station_distances(s.points)), s.values); });
  std::vector<double> tried = {15, 25, 40, 60, 90, 130, 200, 400}, errors;
  for (const double h : tried) errors.push_back(kernel_error(h));
  const char *en = simulated ? "simulated stations (scripts/data air fetches the real ones)" : "daily PM10 of German stations", *zh = simulated ? "模拟站点（scripts/data air 可获取真实数据）" : "德国站点的日均 PM10";
  LessonResult r;
  r.answers = {{{"error of the kernel, in µg/m³", "核回归的误差（µg/m³）"}, kernel, 0.05 * kernel}, {{"error of the daily mean", "当日均值的误差"}, mean, 0.05 * mean}};
  r.found = {{printed("%s, %zu days: left-out error %.2f with a kernel of %.0f km, inverse distance %.2f, mean of the others %.2f", en, days.size(), kernel, bandwidth, inverse, mean),
              printed("%s，%zu 天：留一误差：%.2f（%.0f km 的核），反距离 %.2f，其余站点均值 %.2f", zh, days.size(), kernel, bandwidth, inverse, mean)}};
  r.reason = {"Near stations see the same air. A kernel gives them the weight, the mean of all gives it to everyone; what remains is each station's own surroundings, which no "
              "neighbour knows. `fovea check A13` trains attention to weigh them, beside kriging.",
              "相近的站点呼吸同样的空气。核把权重给近处的站点，均值则一视同仁；剩下的是各站点自身的环境，邻居并不知道。`fovea check A13` 训练注意力来分配权重，并与克里金对照。"};
  // The station of the first day with the most neighbours in reach, and what the others weigh in it.
  const PlainDay& day = days[0];
  const auto weights = (-station_distances(day.samples.points).square() / (2 * bandwidth * bandwidth)).exp().fill_diagonal_(0);
  const int64_t target = weights.sum(1).argmax().item<int64_t>();
  const auto row = data::to_doubles(weights[target] / weights[target].sum());
  const auto [west, east] = std::minmax_element(day.x.begin(), day.x.end());
  const auto [south, north] = std::minmax_element(day.y.begin(), day.y.end());
  report::HeatMap map{simulated ? "weights of one station (simulated)" : "weights of one station, framed"};
  map.rows = map.columns = 24, map.width = 400, map.height = 400, map.x_label = day.x_label + ", west to east", map.y_label = day.y_label + ", south to north";
  map.values.assign(size_t(map.rows * map.columns), std::nan(""));
  for (size_t i = 0; i < day.x.size(); ++i) {
    const int column = int(std::lround((day.x[i] - *west) / (*east - *west) * (map.columns - 1))), up = int(std::lround((day.y[i] - *south) / (*north - *south) * (map.rows - 1)));
    auto& cell = map.values[size_t((map.rows - 1 - up) * map.columns + column)];
    cell = (std::isnan(cell) ? 0 : cell) + row[i];
    if (int64_t(i) == target) map.marked = {map.rows - 1 - up, column};
  }
  report::LinePlot curve{"left-out error", "bandwidth in km", simulated ? "error" : "µg/m³"};
  curve.series = {{"kernel", tried, errors}, {"mean of the others", {tried.front(), tried.back()}, {mean, mean}, {}, /*dashed=*/true}}, curve.width = 400, curve.height = 400;
  r.picture = {map, curve}, r.picture_columns = 2;
  return r;
}

LessonResult rows_and_columns(const LessonArguments& a) {
  const int64_t n = a.whole("n", 2, 100000), l = a.whole("l", 2, 100000);
  const double saved = double(n) * double(l) / double(n + l);
  LessonResult r;
  r.answers = {{{"pairs of all cells with all, over those along both axes", "全部单元两两配对数与沿两轴配对数之比"}, saved, 0.01 * saved + 0.5},
               {{"a \"row\" of AlphaFold 2 and ESM runs along", "AlphaFold 2 与 ESM 的“行”沿什么方向"}, 0, 0, {"residues", "residue", "残基"}},
               {{"a \"row\" of the textbook runs along", "教科书的“行”沿什么方向"}, 0, 0, {"species", "sequences", "物种", "序列"}}};
  r.found = {{printed("%lld x %lld: all with all %.4g pairs, along both axes %.4g", static_cast<long long>(n), static_cast<long long>(l), double(n * l) * double(n * l), double(n * l) * double(n + l)),
              printed("%lld × %lld：全部配对 %.4g，沿两轴 %.4g", static_cast<long long>(n), static_cast<long long>(l), double(n * l) * double(n * l), double(n * l) * double(n + l))}};
  r.reason = {"(NL)² over NL(N + L) is NL / (N + L). Each cell reads its own sequence, then its own position in all species; after both it has heard from every cell. The names clash, so "
              "here nothing is called row: `over` is residues or sequences.",
              "(NL)² 除以 NL(N + L) 等于 NL / (N + L)。每个单元先读自己的序列，再读各物种的同一位置；两步之后便听到了所有单元。名称互相冲突，所以这里不用“行”：`over` 为 residues 或 sequences。"};
  // Which cells the middle cell of a small alignment reads: gradients of the layers themselves.
  constexpr int64_t kRows = 8, kColumns = 14;
  const models::SeededGenerator seeded(a.seed());
  const auto panel = [&](const std::string& title, const std::vector<nn::Over>& steps) {
    const auto x = torch::randn({1, kRows, kColumns, 8}).requires_grad_();
    auto y = x * 1;
    for (const nn::Over over : steps) y = nn::MsaAttention(nn::MsaAttentionOptions(8, 1, over))(y);
    y[0][kRows / 2][kColumns / 2].square().sum().backward();
    report::HeatMap map{title};
    map.rows = kRows, map.columns = kColumns, map.width = 300, map.height = 220, map.marked = {int(kRows / 2), int(kColumns / 2)};
    map.values = data::to_doubles((x.grad()[0].abs().sum(2) > 0).to(torch::kFloat64)), map.range = {0, 1};
    map.x_label = "residue", map.y_label = "sequence";
    return map;
  };
  r.picture = {panel("over residues", {nn::Over::kResidues}), panel("over sequences", {nn::Over::kSequences}), panel("one after the other", {nn::Over::kResidues, nn::Over::kSequences})};
  r.picture_columns = 3;
  return r;
}
}  // namespace

std::vector<Lesson> science_lessons() {
  return {
      {"rows-and-columns",
       "A11",
       {"Rows and columns of an alignment", "比对的行与列"},
       {"An alignment of N sequences by L residues. How many times fewer pairs does attention along both axes have than all cells with all? And what does \"row\" mean, to AlphaFold 2 "
        "and ESM, and to the textbook?",
        "一个 N 条序列、L 个残基的比对。沿两轴的注意力比全部单元两两配对少多少倍？“行”在 AlphaFold 2 与 ESM 中、在教科书中各指什么？"},
       "(N L)² / (N L (N + L)) = N L / (N + L)",
       "alignments.md",
       {{"Each cell has L partners along its sequence and N along its position.", "每个单元沿序列有 L 个伙伴，沿位置有 N 个。"},
        {"`fovea claims --only C43` shows which cells each kind mixes.", "`fovea claims --only C43` 显示各方式混合哪些单元。"}},
       {{"n", "512", {"sequences", "序列数"}}, {"l", "256", {"residues", "残基数"}}},
       /*trains=*/false,
       "1 s",
       rows_and_columns},
      {"missing-station",
       "A13",
       {"What the others say of a station", "其余站点能说出什么"},
       {"A station is left out. How far off, in µg/m³ of PM10 (root mean square), is a kernel of 60 km over the others, and how far the mean of all others?",
        "去掉一个站点。用其余站点作 60 km 的核回归，PM10 的均方根误差是多少 µg/m³？用其余站点的均值呢？"},
       "m(x) = Σ_i w_i y_i,   w_i = softmax_i(−|x − x_i|² / 2h²),   i not x",
       "stations.md",
       {{"Leave the station out of its own mean.", "求均值时去掉该站点自身。"},
        {"Square the differences, over all stations and days.", "对所有站点与日期求差的平方。"},
        {"Which bandwidth is best, and why neither 10 nor 400 km?", "哪个带宽最好？为何不是 10 km 或 400 km？"}},
       {{"bandwidth", "60", {"of the kernel, km", "核的带宽，km"}}},
       /*trains=*/false,
       "10 s",
       missing_station},
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
