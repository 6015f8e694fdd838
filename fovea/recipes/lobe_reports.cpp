#include "fovea/recipes/lobe_reports.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "fovea/core/error.h"
#include "fovea/data/resample.h"
#include "fovea/data/voxels.h"

namespace fovea::recipes {

namespace {
constexpr double kVoxelMm = 12, kSmallestMm = 27, kLargestMm = 35;

struct Wording {
  const char* text;  // {R}: region, {K}: kind
  bool chinese;
};
constexpr std::array<Wording, 5> kQuestions = {{{"Is there a nodule in the {R}?", false},
                                                {"{R}: nodule?", false},
                                                {"Nodule of the {R}, which kind?", false},
                                                {"{R}有结节吗？", true},
                                                {"请看{R}的结节。", true}}};
constexpr std::array<Wording, 5> kReports = {{{"Earlier report: nodule in the {R}, probably {K}.", false},
                                              {"{R}: a nodule was described, likely {K}.", false},
                                              {"Nodule of the {R}, {K} as suspected before.", false},
                                              {"既往报告：{R}结节，考虑为{K}。", true},
                                              {"{R}见结节，可能为{K}。", true}}};
constexpr std::array<Wording, 4> kFindings = {{{"There is a {K} nodule in the {R}.", false},
                                               {"{R}见{K}结节。", true},
                                               {"{R}: {K} nodule.", false},
                                               {"{K}结节位于{R}。", true}}};

std::string fill(const Wording& wording, const Anatomy& anatomy, int64_t region, int64_t kind) {
  std::string text = wording.text;
  const auto put = [&](const std::string& mark, const Anatomy::Name& name) {
    if (const auto at = text.find(mark); at != std::string::npos)
      text.replace(at, mark.size(), wording.chinese ? name.zh : name.en);
  };
  put("{R}", anatomy.regions[region]), put("{K}", anatomy.kinds[kind]);
  return text;
}

// Numbers drawn together, handed out one by one.
class Draws {
 public:
  Draws(int64_t count, at::Generator generator) : values_(torch::rand({count}, generator, torch::kFloat64)) {}
  double unit() { return values_.data_ptr<double>()[next_++]; }
  double between(double low, double high) { return low + (high - low) * unit(); }
  int64_t whole(int64_t below) { return std::min(int64_t(unit() * double(below)), below - 1); }

 private:
  torch::Tensor values_;
  int64_t next_ = 0;
};

Geometry grid_of(const std::array<int64_t, 3>& shape) {
  Geometry g;
  g.shape = shape;
  for (int row = 0; row < 3; ++row) {
    g.affine[row] = {0, 0, 0, -0.5 * kVoxelMm * double(shape[2 - row] - 1)};
    g.affine[row][row] = kVoxelMm;
  }
  return g;
}

// Share of a voxel that lies within `radius_mm` of a point, by 4^3 samples.
double share_inside(const Point& voxel_mm, const Point& centre_mm, double radius_mm) {
  constexpr int kSamples = 4;
  double away = 0;
  for (int a = 0; a < 3; ++a) away = std::max(away, std::abs(voxel_mm[a] - centre_mm[a]));
  if (away > radius_mm + 0.5 * kVoxelMm) return 0;
  int inside = 0;
  for (int i = 0; i < kSamples * kSamples * kSamples; ++i) {
    const int at[3] = {i % kSamples, i / kSamples % kSamples, i / kSamples / kSamples};
    double square = 0;
    for (int a = 0; a < 3; ++a) {
      const double d = voxel_mm[a] + ((at[a] + 0.5) / kSamples - 0.5) * kVoxelMm - centre_mm[a];
      square += d * d;
    }
    inside += square < radius_mm * radius_mm;
  }
  return double(inside) / (kSamples * kSamples * kSamples);
}

// Paints a nodule somewhere in a region: at a voxel whose neighbours are of the region too, where there is one.
std::pair<Point, double> plant(torch::Tensor hu, const torch::Tensor& region, int64_t number, double nodule_hu,
                               const Geometry& g, Draws& draws) {
  const auto [Z, Y, X] = std::tuple(g.shape[0], g.shape[1], g.shape[2]);
  const auto at = region.accessor<int64_t, 3>();
  std::vector<std::array<int64_t, 3>> inner, any;
  for (int64_t z = 0; z < Z; ++z)
    for (int64_t y = 0; y < Y; ++y)
      for (int64_t x = 0; x < X; ++x) {
        if (at[z][y][x] != number + 1) continue;
        any.push_back({z, y, x});
        if (z == 0 || z == Z - 1 || y == 0 || y == Y - 1 || x == 0 || x == X - 1) continue;
        const bool within = at[z - 1][y][x] == at[z + 1][y][x] && at[z][y - 1][x] == at[z][y + 1][x] &&
                            at[z][y][x - 1] == at[z][y][x + 1] && at[z - 1][y][x] == number + 1 &&
                            at[z][y - 1][x] == number + 1 && at[z][y][x - 1] == number + 1;
        if (within) inner.push_back({z, y, x});
      }
  const auto& places = inner.empty() ? any : inner;
  if (places.empty())
    throw ArgumentError("lobe_reports: region " + std::to_string(number + 1) + " has no voxel inside the scan");
  const auto [z, y, x] = places[size_t(draws.whole(int64_t(places.size())))];
  const Point centre = g.to_mm({double(x) + draws.between(-0.5, 0.5), double(y) + draws.between(-0.5, 0.5),
                                double(z) + draws.between(-0.5, 0.5)});
  const double radius = draws.between(kSmallestMm, kLargestMm) / 2;
  auto voxel = hu.accessor<float, 3>();
  for (int64_t k = std::max<int64_t>(z - 2, 0); k <= std::min(z + 2, Z - 1); ++k)
    for (int64_t j = std::max<int64_t>(y - 2, 0); j <= std::min(y + 2, Y - 1); ++j)
      for (int64_t i = std::max<int64_t>(x - 2, 0); i <= std::min(x + 2, X - 1); ++i) {
        const double share = share_inside(g.to_mm({double(i), double(j), double(k)}), centre, radius);
        voxel[k][j][i] = float((1 - share) * voxel[k][j][i] + share * nodule_hu);
      }
  return {centre, radius};
}

// x stored the other way round: every voxel keeps its place.
Geometry stored_backwards(const Geometry& g) { return reorient(g, {{0, 1, 2}, {false, false, true}}); }
}  // namespace

const Anatomy& chest_anatomy() {
  static const Anatomy anatomy = {{{{"right upper lobe", "右肺上叶"},
                                    {"right middle lobe", "右肺中叶"},
                                    {"right lower lobe", "右肺下叶"},
                                    {"left upper lobe", "左肺上叶"},
                                    {"lingula", "左肺舌叶"},
                                    {"left lower lobe", "左肺下叶"}}},
                                  {3, 4, 5, 0, 1, 2},
                                  {{{"ground-glass", "磨玻璃"}, {"solid", "实性"}}},
                                  {-450, 40}};
  return anatomy;
}

const Anatomy& abdomen_anatomy() {
  static const Anatomy anatomy = {{{{"liver", "肝脏"},
                                    {"right kidney", "右肾"},
                                    {"right lower lobe", "右肺下叶"},
                                    {"spleen", "脾脏"},
                                    {"left kidney", "左肾"},
                                    {"left lower lobe", "左肺下叶"}}},
                                  {3, 4, 5, 0, 1, 2},
                                  {{{"fatty", "脂肪"}, {"calcified", "钙化"}}},
                                  {-150, 500}};
  return anatomy;
}

Body draw_chest(at::Generator generator) {
  constexpr int64_t kRandom = 9;
  Draws draws(kRandom, generator);
  Body body;
  body.anatomy = &chest_anatomy();
  body.geometry = grid_of({16, 12, 18});
  const auto [Z, Y, X] = std::tuple(body.geometry.shape[0], body.geometry.shape[1], body.geometry.shape[2]);
  const double size = draws.between(0.92, 1.08), apart = draws.between(45, 52), high = draws.between(-6, 6);
  const double side = draws.unit() < 0.5 ? -1 : 1;
  const Point heart = {side * draws.between(14, 23), draws.between(14, 23), draws.between(-32, -20)};
  const double oblique = draws.between(-11, 4), horizontal = draws.between(-2, 10);
  body.hu = torch::randn({Z, Y, X}, generator, torch::kFloat32) * 30;
  body.region = torch::zeros({Z, Y, X}, torch::kInt64);
  auto hu = body.hu.accessor<float, 3>();
  auto region = body.region.accessor<int64_t, 3>();
  const auto inside = [](const Point& p, const Point& c, double rx, double ry, double rz) {
    const double x = (p[0] - c[0]) / rx, y = (p[1] - c[1]) / ry, z = (p[2] - c[2]) / rz;
    return x * x + y * y + z * z < 1;
  };
  for (int64_t k = 0; k < Z; ++k)
    for (int64_t j = 0; j < Y; ++j)
      for (int64_t i = 0; i < X; ++i) {
        const Point p = body.geometry.to_mm({double(i), double(j), double(k)});
        const Point mirrored = {std::abs(p[0]), p[1], p[2]};
        const bool wall = inside({p[0], p[1], 0}, {0, 0, 0}, 101 * size, 67 * size, 1);
        const bool lung = wall && inside(mirrored, {apart, 0, high}, 39 * size, 54 * size, 81 * size) &&
                          !inside(p, heart, 34, 34, 37);
        hu[k][j][i] += lung ? -850 : wall ? 40 : -1000;
        if (!lung) continue;
        // Below and behind the oblique fissure; else above the horizontal one; else between.
        const int64_t lobe = p[2] + 0.9 * p[1] < oblique ? 2 : p[2] > horizontal ? 0 : 1;
        region[k][j][i] = lobe + (p[0] > 0 ? 1 : 4);
      }
  return body;
}

Body read_abdomen(const std::filesystem::path& ct, const std::filesystem::path& labels) {
  const std::map<int64_t, int64_t> organs = {{5, 0}, {2, 1}, {14, 2}, {1, 3}, {3, 4}, {11, 5}};
  const Volume image = data::read_volume(ct, "image"), organ = data::read_volume(labels, "label");
  if (!data::same_place(image.geometry, organ.geometry))
    throw IoError(labels, "is on another grid than " + ct.string() + ": " + to_string(organ.geometry) + ", expected " +
                              to_string(image.geometry));
  const Orientation canonical = to_canonical(image.geometry);
  const Geometry straight = reorient(image.geometry, canonical);
  const auto shape = data::resampled_shape(straight, {kVoxelMm, kVoxelMm, kVoxelMm});
  // 1. To RAS and to 12 mm.
  std::vector<float> hu(size_t(straight.voxels()));
  std::vector<uint8_t> region(hu.size());
  data::visit_channel(image, 0, [&](auto view) {
    const auto turned = reorient(view, canonical);
    size_t n = 0;
    for (int64_t z = 0; z < straight.shape[0]; ++z)
      for (int64_t y = 0; y < straight.shape[1]; ++y)
        for (int64_t x = 0; x < straight.shape[2]; ++x) hu[n++] = std::clamp(float(turned(z, y, x)), -1024.f, 1500.f);
  });
  data::visit_channel(organ, 0, [&](auto view) {
    const auto turned = reorient(view, canonical);
    size_t n = 0;
    for (int64_t z = 0; z < straight.shape[0]; ++z)
      for (int64_t y = 0; y < straight.shape[1]; ++y)
        for (int64_t x = 0; x < straight.shape[2]; ++x, ++n)
          if (const auto found = organs.find(int64_t(turned(z, y, x))); found != organs.end())
            region[n] = uint8_t(found->second + 1);
  });
  auto coarse = torch::empty({shape[0], shape[1], shape[2]});
  auto regions = torch::empty({shape[0], shape[1], shape[2]}, torch::kUInt8);
  data::resample_linear(View<const float, 3>::contiguous(hu.data(), straight.shape),
                        View<float, 3>::contiguous(coarse.data_ptr<float>(), shape), data::Antialias::kOn);
  data::resample_vote(View<const uint8_t, 3>::contiguous(region.data(), straight.shape),
                      View<uint8_t, 3>::contiguous(regions.data_ptr<uint8_t>(), shape));
  for (int64_t r = 0; r < kRegions; ++r)
    if (!(regions == r + 1).any().item<bool>())
      throw IoError(labels, "no voxel of 12 mm is " + abdomen_anatomy().regions[r].en + ", expected all six regions");
  // 2. The box around the regions, even numbers of voxels.
  constexpr int64_t kMargin = 2;
  const auto places = regions.nonzero();
  Body body;
  body.anatomy = &abdomen_anatomy();
  std::array<int64_t, 3> box;
  for (int axis = 0; axis < 3; ++axis) {
    const auto along = places.select(1, axis);
    int64_t begin = std::max<int64_t>(along.min().item<int64_t>() - kMargin, 0);
    int64_t end = std::min(along.max().item<int64_t>() + 1 + kMargin, shape[axis]);
    if ((end - begin) % 2) begin > 0 ? --begin : end < shape[axis] ? ++end : ++begin;
    coarse = coarse.slice(axis, begin, end), regions = regions.slice(axis, begin, end);
    box[axis] = end - begin;
  }
  body.hu = coarse.contiguous(), body.region = regions.to(torch::kInt64).contiguous();
  body.geometry = grid_of(box);
  return body;
}

ReportCases draw_cases(int64_t count, const std::vector<Body>& bodies, const CaseOptions& options,
                       at::Generator generator) {
  if (bodies.empty()) throw ArgumentError("lobe_reports: no bodies to draw cases of");
  constexpr int64_t kRandom = 72;  // at most
  const Anatomy& anatomy = *bodies[0].anatomy;
  Draws draws(count * kRandom, generator);
  ReportCases cases;
  cases.anatomy = &anatomy;
  std::vector<torch::Tensor> voxels, regions;
  cases.kind = torch::full({count, kRegions}, -1, torch::kInt64);
  cases.centre_mm = torch::full({count, kRegions, 3}, std::numeric_limits<double>::quiet_NaN(), torch::kFloat64);
  cases.finding_region = torch::zeros({count}, torch::kInt64),
  cases.finding_kind = torch::zeros({count}, torch::kInt64);
  cases.radius_mm = torch::zeros({count, kRegions}, torch::kFloat64), cases.noise = torch::zeros({count});
  auto kinds = cases.kind.accessor<int64_t, 2>();
  auto centres = cases.centre_mm.accessor<double, 3>();
  auto radii = cases.radius_mm.accessor<double, 2>();
  auto shares = cases.noise.accessor<float, 1>();
  for (int64_t b = 0; b < count; ++b) {
    const Body& body = bodies[size_t(draws.whole(int64_t(bodies.size())))];
    auto hu = body.hu.clone();
    // 1. Nodules: in the first regions of a random order.
    std::array<int64_t, kRegions> order = {0, 1, 2, 3, 4, 5};
    for (int64_t i = kRegions - 1; i > 0; --i) std::swap(order[i], order[draws.whole(i + 1)]);
    for (int64_t i = 0; i < kPlanted; ++i) {
      const int64_t region = order[i], kind = i % kKinds;
      const auto [centre, radius] = plant(hu, body.region, region, anatomy.kind_hu[kind], body.geometry, draws);
      kinds[b][region] = kind, radii[b][region] = radius;
      for (int a = 0; a < 3; ++a) centres[b][region][a] = centre[a];
    }
    // 2. Sentences.
    for (int64_t region = 0; region < kRegions; ++region) {
      const int64_t kind = kinds[b][region] < 0 ? draws.whole(kKinds) : kinds[b][region];
      const int64_t said = draws.unit() < options.reliable ? kind : 1 - kind;
      cases.question.push_back(fill(kQuestions[size_t(draws.whole(kQuestions.size()))], anatomy, region, kind));
      cases.report.push_back(fill(kReports[size_t(draws.whole(kReports.size()))], anatomy, region, said));
    }
    const int64_t found = order[draws.whole(kPlanted)];
    cases.finding.push_back(fill(kFindings[size_t(draws.whole(kFindings.size()))], anatomy, found, kinds[b][found]));
    cases.finding_region[b] = found, cases.finding_kind[b] = kinds[b][found];
    // 3. Storage and noise.
    const bool backwards = draws.unit() < 0.5;
    const double mode = draws.unit(), any = draws.unit();
    shares[b] = float(options.noise >= 0 ? options.noise : mode < options.clean ? 0 : mode < options.clean + options.lost ? 1 : any);
    cases.geometry.push_back(backwards ? stored_backwards(body.geometry) : body.geometry);
    voxels.push_back(backwards ? hu.flip(2) : hu), regions.push_back(backwards ? body.region.flip(2) : body.region);
  }
  const auto clean = (torch::stack(voxels) + 500) / 500;  // B Z Y X
  const auto spread = clean.std({1, 2, 3}, /*unbiased=*/true, /*keepdim=*/true);
  const auto noise =
      torch::randn(clean.sizes(), generator, torch::kFloat32) * spread + clean.mean({1, 2, 3}, /*keepdim=*/true);
  cases.voxels = torch::lerp(clean, noise, cases.noise.view({-1, 1, 1, 1})).unsqueeze(1);
  cases.region = torch::stack(regions);
  return cases;
}

std::vector<std::string> all_sentences(const Anatomy& anatomy) {
  std::vector<std::string> sentences;
  const auto add = [&](const auto& wordings) {
    for (const Wording& wording : wordings)
      for (int64_t region = 0; region < kRegions; ++region)
        for (int64_t kind = 0; kind < kKinds; ++kind) sentences.push_back(fill(wording, anatomy, region, kind));
  };
  add(kQuestions), add(kReports), add(kFindings);
  return sentences;
}

std::string finding_sentence(const Anatomy& anatomy, int64_t region, int64_t kind, int language) {
  return fill(kFindings[size_t(language)], anatomy, region, kind);
}

bool is_chinese(const std::string& sentence) {
  return std::any_of(sentence.begin(), sentence.end(), [](char c) { return (c & 0x80) != 0; });  // the English is ASCII
}

Geometry left_right_swapped(const Geometry& g) {
  const Point middle =
      g.to_mm({0.5 * double(g.shape[2] - 1), 0.5 * double(g.shape[1] - 1), 0.5 * double(g.shape[0] - 1)});
  Geometry swapped = g;
  for (double& value : swapped.affine[0]) value = -value;
  swapped.affine[0][3] += 2 * middle[0];
  return swapped;
}

}  // namespace fovea::recipes
