// cut-a-volume, quadratic-wall, ripples: tokens of a volume, what comparing them costs, and how far windows see.
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/core/process_memory.h"
#include "fovea/kernels/attention_cost.h"
#include "fovea/recipes/lessons.h"
#include "fovea/recipes/patch_experiments.h"
#include "fovea/recipes/window_experiments.h"
#include "fovea/report/canvas.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using kernels::attention_cost;
using kernels::AttentionReach;
using kernels::Triple;
using report::printed;

long long whole(int64_t n) { return static_cast<long long>(n); }

// An axial slice [Y,X] with a line at every patch border, its voxels enlarged to some 420 pixels.
report::Image gridded_slice(const torch::Tensor& slice, int64_t patch) {
  const int64_t height = slice.size(0), width = slice.size(1), zoom = std::max<int64_t>(1, 420 / width);
  const auto grey = (slice * 255 / slice.max().clamp_min(1e-6)).clamp(0, 255).to(torch::kUInt8).contiguous();
  const auto pixel = grey.accessor<uint8_t, 2>();
  auto image = report::Image::filled(height * zoom, width * zoom, {});
  for (int64_t y = 0; y < height * zoom; ++y)
    for (int64_t x = 0; x < width * zoom; ++x)
      for (int c = 0; c < 3; ++c) image.at(y, x)[c] = pixel[height - 1 - y / zoom][x / zoom];
  report::Canvas canvas(image);
  const report::Colour line = report::category_colour(0);
  for (int64_t y = 0; y < height; y += patch)
    canvas.line((height - y) * zoom - 1, 0, (height - y) * zoom - 1, width * zoom - 1, line);
  for (int64_t x = 0; x < width; x += patch) canvas.line(0, x * zoom, height * zoom - 1, x * zoom, line);
  return image;
}

LessonResult cut_a_volume(const LessonArguments& a) {
  const auto shape = a.wholes("shape", 1, 512);
  if (shape.size() != 3) a.refuse("shape", "three lengths Z,Y,X");
  const int64_t patch = a.whole("patch", 1, 64);
  const Triple voxels{shape[0], shape[1], shape[2]}, grid = kernels::token_grid(voxels, {patch, patch, patch});
  const int64_t tokens = grid[0] * grid[1] * grid[2];
  const SampleScan scan = sample_scan(a.seed());
  auto volume = scan.voxels;
  if (volume.sizes() != at::IntArrayRef(shape))
    volume = torch::upsample_trilinear3d(volume.unsqueeze(0).unsqueeze(0), at::IntArrayRef(shape),
                                         /*align_corners=*/false)[0][0];
  const auto patches = patchify(volume, patch);
  FOVEA_CHECK(patches.size(0) == tokens, "patchify and token_grid disagree");
  const int64_t changed = voxels_changed_by_patchify(volume, patch), cube = tokens_of(128, patch);
  LessonResult r;
  r.answers = {{{printed("tokens of %lldx%lldx%lld voxels", whole(shape[0]), whole(shape[1]), whole(shape[2])),
                 printed("%lldx%lldx%lld 个体素的词元数", whole(shape[0]), whole(shape[1]), whole(shape[2]))},
                double(tokens)},
               {{"tokens of 128³ voxels", "128³ 个体素的词元数"}, double(cube)},
               {{"voxels that change when the patches are joined again", "图块拼回后改变的体素数"}, double(changed)}};
  r.found = {{printed("%lldx%lldx%lld = %lld tokens of %lld voxels; cut and joined again, %lld of %lld voxels differ",
                      whole(grid[0]), whole(grid[1]), whole(grid[2]), whole(tokens), whole(patch * patch * patch),
                      whole(changed), whole(volume.numel())),
              printed("%lldx%lldx%lld = %lld 个词元，每个 %lld 个体素；切开再拼回，%lld / %lld 个体素不同",
                      whole(grid[0]), whole(grid[1]), whole(grid[2]), whole(tokens), whole(patch * patch * patch),
                      whole(changed), whole(volume.numel()))}};
  r.reason = {
      printed(
          "Each axis is padded up to whole patches: ceil(%lld/%lld) · ceil(%lld/%lld) · ceil(%lld/%lld) = %lld · %lld "
          "· %lld = %lld. Cutting only reorders voxels, so nothing is lost.",
          whole(shape[0]), whole(patch), whole(shape[1]), whole(patch), whole(shape[2]), whole(patch), whole(grid[0]),
          whole(grid[1]), whole(grid[2]), whole(tokens)),
      printed("每个轴补齐到整块：ceil(%lld/%lld) · ceil(%lld/%lld) · ceil(%lld/%lld) = %lld · %lld · %lld = "
              "%lld。切块只是重排"
              "体素，不丢失任何信息。",
              whole(shape[0]), whole(patch), whole(shape[1]), whole(patch), whole(shape[2]), whole(patch),
              whole(grid[0]), whole(grid[1]), whole(grid[2]), whole(tokens))};
  report::Raster raster{
      printed("%s, middle slice, patches of %lld", scan.real ? "Colin27 T1" : "smooth random volume", whole(patch)),
      gridded_slice(volume[shape[0] / 2], patch)};
  raster.width = 460, raster.height = 40 + int(436 * raster.image.height / raster.image.width);
  r.picture = {raster};
  return r;
}

LessonResult quadratic_wall(const LessonArguments& a) {
  const int64_t edge = a.whole("grid", 2, 512), window = a.whole("window", 1, 64), patch = a.whole("patch", 1, 64),
                width = a.whole("width", 1, 4096);
  const auto cost = [&](AttentionReach reach, int64_t tokens_edge) {
    return attention_cost(reach, {{tokens_edge, tokens_edge, tokens_edge}, {window, window, window}, width, 1});
  };
  const auto saving = [&](int64_t tokens_edge) {
    return double(cost(AttentionReach::kGlobal, tokens_edge).pairs) /
           double(cost(AttentionReach::kWindows, tokens_edge).pairs);
  };
  const int64_t patches = kernels::token_grid({edge, edge, edge}, {patch, patch, patch})[0];
  const auto global = cost(AttentionReach::kGlobal, edge), windows = cost(AttentionReach::kWindows, edge);
  const double voxel_saving = saving(edge), patch_saving = saving(patches),
               with_projections = global.multiply_adds() / windows.multiply_adds();
  // Whole factors are counted, others rounded.
  const auto off = [](double factor) { return factor == std::floor(factor) ? 0 : 0.005 * factor; };
  LessonResult r;
  r.answers = {{{"factor saved, tokens being voxels", "词元为体素时节省的倍数"}, voxel_saving, off(voxel_saving)},
               {{printed("factor saved, tokens being patches of %lld³", whole(patch)),
                 printed("词元为 %lld³ 图块时节省的倍数", whole(patch))},
                patch_saving,
                off(patch_saving)},
               {{printed("factor for voxels with the projections counted, width %lld", whole(width)),
                 printed("体素词元、计入线性投影（宽度 %lld）时的倍数", whole(width))},
                with_projections,
                0.005 * with_projections}};
  r.found = {
      {printed(
           "voxels: %lld tokens, %lld dot products a head globally, %lld in windows: 1/%.0f; with projections 1/%.0f",
           whole(global.tokens), whole(global.pairs), whole(windows.pairs), voxel_saving, with_projections),
       printed("体素：%lld 个词元，全局每头 %lld 次点积，窗口内 %lld 次：1/%.0f；计入投影 1/%.0f", whole(global.tokens),
               whole(global.pairs), whole(windows.pairs), voxel_saving, with_projections)},
      {printed("patches of %lld³: %lld tokens, windows save a factor of %.4g", whole(patch),
               whole(patches * patches * patches), patch_saving),
       printed("%lld³ 图块：%lld 个词元，窗口节省 %.4g 倍", whole(patch), whole(patches * patches * patches),
               patch_saving)},
      {"the same and more: fovea cost " + std::to_string(edge) + " --window " + std::to_string(window),
       "更多细节：fovea cost " + std::to_string(edge) + " --window " + std::to_string(window)}};
  r.reason = {
      printed(
          "Global attention compares N² pairs, windows N·w³, so the factor is N/w³ = %lld/%lld = %.4g. It depends on "
          "what a token is: of patches there are fewer, so the wall is lower and windows save only %.4g.",
          whole(global.tokens), whole(window * window * window), voxel_saving, patch_saving),
      printed(
          "全局注意力比较 N² 对，窗口只比较 N·w³ 对，倍数为 N/w³ = %lld/%lld = %.4g。倍数取决于什么是词元：图块数量少，"
          "墙更低，窗口只节省 %.4g 倍。",
          whole(global.tokens), whole(window * window * window), voxel_saving, patch_saving)};
  report::LinePlot plot{printed("bytes of stored scores, one head, float, windows of %lld³", whole(window)), "tokens N",
                        ""};
  plot.log_x = plot.log_y = true, plot.height = 360;
  plot.series = {
      {"global: N²", {}, {}}, {"windows: N·w³", {}, {}}, {"fused kernels keep: N", {}, {}, {}, /*dashed=*/true}};
  for (int64_t n = 8; n <= 256; n *= 2) {
    const auto whole_grid = cost(AttentionReach::kGlobal, n), in_windows = cost(AttentionReach::kWindows, n);
    for (auto& series : plot.series) series.x.push_back(double(whole_grid.tokens));
    plot.series[0].y.push_back(whole_grid.plain_bytes), plot.series[1].y.push_back(in_windows.plain_bytes),
        plot.series[2].y.push_back(in_windows.lse_bytes);
  }
  const double memory = machine_memory().total_bytes;
  if (memory > 0) plot.levels = {{"this machine's memory, " + format_bytes(memory), memory}};
  r.picture = {plot};
  return r;
}

LessonResult ripples(const LessonArguments& a) {
  const int64_t window = a.whole("window", 2, 64), n = a.whole("n", 2, 256);
  if (n <= window || n % window) a.refuse("n", "a multiple of the window, larger than it");
  const AxisDepth depth = layers_until_whole_axis(n, window);
  const int64_t torus = layers_until_whole_axis_on_torus(n, window);
  LessonResult r;
  r.answers = {
      {{"layers until the corner token sees its whole axis", "角上词元看到整个轴所需的层数"}, double(depth.worst)},
      {{"layers until the best token does", "最快的词元所需的层数"}, double(depth.best)},
      {{"layers on a torus, without regions", "在环面上（不分区域）所需的层数"}, double(torus)}};
  r.found = {{printed("n = %lld, w = %lld: worst %lld layers, best %lld, torus %lld", whole(n), whole(window),
                      whole(depth.worst), whole(depth.best), whole(torus)),
              printed("n = %lld，w = %lld：最慢 %lld 层，最快 %lld 层，环面 %lld 层", whole(n), whole(window),
                      whole(depth.worst), whole(depth.best), whole(torus))}};
  r.reason = {
      printed(
          "Every second layer moves the windows by half of w, so a field grows by one window a layer where both its "
          "ends move, but the corner's only moves at one end, half as fast: 2n/w − 1 = %lld. Joining the ends of "
          "the axis would give n/w = %lld, but would let opposite faces of the scan talk.",
          whole(2 * n / window - 1), whole(n / window)),
      printed("每隔一层窗口移动半个 w，两端都能扩展的感受野每层增大一个窗口；角上的只有一端能扩展，慢一半：2n/w − 1 = "
              "%lld。若把轴的"
              "两端接起来，只需 n/w = %lld，但扫描的相对两面就会互通。",
              whole(2 * n / window - 1), whole(n / window))};
  // The token that is last to see everything: where the field is smallest just before the last layer.
  const auto field = [&](int64_t layers, int64_t token) {
    const auto seen = predicted_reach(n, window, layers, token);
    return int64_t(std::count(seen.begin(), seen.end(), true));
  };
  int64_t corner = 0;
  for (int64_t t = 0; t < n; ++t)
    if (field(depth.worst - 1, t) < field(depth.worst - 1, corner)) corner = t;
  report::LinePlot sizes{"tokens seen by layer", "layers", ""};
  sizes.series = {{"best token", {}, {}, {}, false, true}, {"worst token", {}, {}, {}, false, true}};
  sizes.width = 320, sizes.height = 300;
  report::HeatMap map{printed("what token %lld sees", whole(corner))};
  map.rows = int(depth.worst), map.columns = int(n), map.range = {0, 1}, map.width = 400, map.height = 300;
  map.y_label = "layers, one a row", map.x_label = printed("tokens 0 to %lld of the axis", whole(n - 1));
  for (int64_t layers = 1; layers <= depth.worst; ++layers) {
    int64_t least = n, most = 0;
    for (int64_t t = 0; t < n; ++t) least = std::min(least, field(layers, t)), most = std::max(most, field(layers, t));
    for (auto& series : sizes.series) series.x.push_back(double(layers));
    sizes.series[0].y.push_back(double(most)), sizes.series[1].y.push_back(double(least));
    for (const bool seen : predicted_reach(n, window, layers, corner)) map.values.push_back(seen ? 0.75 : 0.12);
  }
  map.values[size_t(map.columns) * (map.rows - 1) + corner] = 1;
  r.picture = {map, sizes}, r.picture_columns = 2;
  return r;
}
}  // namespace

std::vector<Lesson> window_lessons() {
  return {
      {"cut-a-volume",
       "P2",
       {"Cut a volume", "切开一个体积"},
       {"How many tokens does a scan of 181×217×181 voxels give with patches of 8³? And one of 128³?",
        "181×217×181 个体素的扫描，用 8³ 图块切成多少个词元？128³ 的呢？"},
       "N = ⌈Z/p⌉ ⌈Y/p⌉ ⌈X/p⌉,   token = W · flatten(patch) + b",
       "patch-embedding.md",
       {{"181/8 = 22.6: 23 patches, the last one padded; 217/8 = 27.1: 28.",
         "181/8 = 22.6：23 块，最后一块补齐；217/8 = 27.1：28 块。"},
        {"Multiply the three counts.", "三个数相乘。"}},
       {{"shape", "181,217,181", {"voxels Z,Y,X", "体素数 Z,Y,X"}},
        {"patch", "8", {"patch edge in voxels", "图块边长（体素）"}}},
       false,
       "1 s",
       cut_a_volume},
      {"quadratic-wall",
       "P3, P4",
       {"The quadratic wall", "平方之墙"},
       {"By what factor do windows of 8³ tokens reduce the dot products on 128³ voxels? And if the tokens are patches "
        "of 8³?",
        "128³ 个体素，8³ 的窗口把点积次数减少多少倍？如果词元是 8³ 的图块呢？"},
       "global N², windows N·w³, factor N/w³",
       "global-attention.md",
       {{"Every voxel a token: N = 128³ = 2 097 152, w³ = 512.", "每个体素一个词元：N = 128³ = 2 097 152，w³ = 512。"},
        {"Patches: N = 16³ = 4096, the same w³.", "图块：N = 16³ = 4096，w³ 不变。"},
        {"With projections: (4NE² + 2N²E) / (4NE² + 2w³NE).", "计入投影：(4NE² + 2N²E) / (4NE² + 2w³NE)。"}},
       {{"grid", "128", {"voxels along each axis", "每个轴的体素数"}},
        {"window", "8", {"window edge in tokens", "窗口边长（词元）"}},
        {"patch", "8", {"patch edge in voxels", "图块边长（体素）"}},
        {"width", "48", {"width E", "宽度 E"}}},
       false,
       "1 s",
       quadratic_wall},
      {"ripples",
       "P5",
       {"Ripples", "涟漪"},
       {"Layers alternate windows and windows moved by half. After how many layers does the corner token of an axis of "
        "64 tokens see "
        "the whole axis, with windows of 8?",
        "各层交替使用窗口与移动半个窗口。轴长 64 个词元、窗口为 8 时，角上的词元经过多少层才能看到整个轴？"},
       "worst 2n/w − 1, best n/w",
       "windowed-attention.md",
       {{"Layer 1: the token sees its window, w tokens.", "第 1 层：看到自己的窗口，w 个词元。"},
        {"Each further layer adds half a window at each end that is not the border.",
         "之后每层在不靠边界的每一端增加半个窗口。"}},
       {{"n", "64", {"tokens along the axis", "轴上的词元数"}},
        {"window", "8", {"window edge in tokens", "窗口边长（词元）"}}},
       false,
       "1 s",
       ripples},
  };
}

}  // namespace fovea::recipes
