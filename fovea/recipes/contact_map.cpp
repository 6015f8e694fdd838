#include "fovea/recipes/contact_map.h"

#include <algorithm>
#include <cmath>

#include "fovea/core/error.h"
#include "fovea/data/contact_prediction.h"
#include "fovea/io/atomic_file.h"
#include "fovea/report/plot.h"
#include "fovea/report/png.h"
#include "fovea/report/svg.h"

namespace fovea::recipes {

namespace {
constexpr double kContact = 8;  // angstrom
constexpr report::Colour kEmpty{255, 255, 255}, kTouching{206, 212, 218}, kRight{0, 121, 95}, kWrong{213, 94, 0},
    kUnknown{0, 114, 178};

struct Pair {
  int64_t i, j;
  double score;
};

// All pairs i < j, best first; of equal scores the earlier pair.
std::vector<Pair> ranked(const torch::Tensor& scores) {
  const auto s = scores.to(torch::kFloat64).contiguous();
  const auto at = s.accessor<double, 2>();
  std::vector<Pair> pairs;
  for (int64_t i = 0; i < s.size(0); ++i)
    for (int64_t j = i + 1; j < s.size(0); ++j) pairs.push_back({i, j, at[i][j]});
  std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.score > b.score; });
  return pairs;
}

std::string table_of(const io::Alignment& a, const std::vector<Pair>& pairs, const torch::Tensor& distances) {
  std::string text =
      distances.defined() ? "i,j,residue_i,residue_j,score,distance_angstrom\n" : "i,j,residue_i,residue_j,score\n";
  for (const auto& [i, j, score] : pairs) {
    text += report::printed("%lld,%lld,%c,%c,%.6g", static_cast<long long>(i + 1), static_cast<long long>(j + 1),
                            io::kResidues[a.row(0)[i]], io::kResidues[a.row(0)[j]], score);
    if (distances.defined()) {
      const double distance = distances[i][j].item<double>();
      text += std::isnan(distance) ? "," : report::printed(",%.6g", distance);
    }
    text += "\n";
  }
  return text;
}
}  // namespace

std::string contact_picture(const std::string& title, const std::string& subtitle, const torch::Tensor& scores,
                            const torch::Tensor& distances) {
  const int64_t L = scores.size(0);
  const auto pairs = ranked(scores);
  // The scale ends where one pair in a hundred lies: a single strong pair does not darken the rest.
  const double top = pairs[pairs.size() / 100].score;
  auto image = report::Image::filled(L, L, kEmpty);
  const auto put = [&](int64_t y, int64_t x, report::Colour c) {
    std::copy_n(&std::array{c.r, c.g, c.b}[0], 3, image.at(y, x));
  };
  const auto distance = [&](const Pair& p) { return distances.defined() ? distances[p.i][p.j].item<double>() : NAN; };
  int64_t best = 0;
  bool unknown = false;  // among the best
  for (const Pair& p : pairs) {
    put(p.i, p.j, report::heat_colour(top > 0 ? std::clamp(p.score / top, 0.0, 1.0) : 0));
    const double apart = distance(p);
    if (apart < kContact) put(p.j, p.i, kTouching);
    if (p.j - p.i < kSeparation || best++ >= L) continue;
    unknown |= std::isnan(apart);
    put(p.j, p.i, std::isnan(apart) ? kUnknown : apart < kContact ? kRight : kWrong);
  }

  constexpr double kLeft = 52, kTop = 62, kEdge = 440;
  constexpr int kWidth = 640, kHeight = 548;
  report::Svg svg(kWidth, kHeight, title);
  svg.rectangle(0, 0, kWidth, kHeight, "var(--page, #fff)");
  svg.text(12, 22, title, "start", report::kInk, " font-size=\"14\" font-weight=\"600\"");
  svg.text(12, 42, subtitle, "start", report::kMuted);
  svg.rectangle(kLeft - 1, kTop - 1, kEdge + 2, kEdge + 2, report::kRule);
  svg.image(kLeft, kTop, kEdge, kEdge, report::png_data_uri(image));
  for (const double tick : report::round_ticks(1, double(L), 6)) {
    if (tick != std::round(tick)) continue;
    const double at = (tick - 0.5) / double(L) * kEdge;
    svg.text(kLeft + at, kTop + kEdge + 16, report::compact(tick), "middle", report::kMuted);
    svg.text(kLeft - 6, kTop + at + 4, report::compact(tick), "end", report::kMuted);
  }
  svg.text(kLeft + kEdge / 2, kTop + kEdge + 36, "column of the alignment", "middle", report::kMuted);

  double y = kTop + 10;
  constexpr double kLegend = kLeft + kEdge + 16;
  const auto say = [&](const std::string& text, const char* ink) { svg.text(kLegend, y, text, "start", ink), y += 18; };
  const auto box = [&](report::Colour c, const std::string& text) {
    svg.rectangle(kLegend, y - 10, 12, 12, report::to_hex(c));
    svg.text(kLegend + 18, y, text, "start", report::kMuted), y += 18;
  };
  say("above: score", report::kInk);
  for (int step = 0; step < 48; ++step)
    svg.rectangle(kLegend + 2 * step, y - 8, 2.2, 12, report::to_hex(report::heat_colour(step / 47.0)));
  y += 20;
  svg.text(kLegend, y, "0", "start", report::kMuted),
      svg.text(kLegend + 96, y, report::compact(top, 2), "end", report::kMuted), y += 30;
  say("below: best L pairs", report::kInk);
  say(report::printed("%lld or more apart", static_cast<long long>(kSeparation)), report::kMuted);
  if (distances.defined()) {
    box(kRight, "touch"), box(kWrong, "do not");
    box(kTouching, "below 8 Å");
  }
  if (unknown) box(kUnknown, "not known");
  return svg.finish();
}

ContactMapResult predict_contacts(const std::filesystem::path& path, const std::filesystem::path& distances_path,
                                  ContactMethod method, uint64_t seed, const std::filesystem::path& table) {
  const auto alignment = io::read_alignment(path);
  if (alignment.rows() < 2 || alignment.columns < 2)
    throw IoError(path,
                  std::to_string(alignment.rows()) + " sequences of " + std::to_string(alignment.columns) +
                      " columns, expected at least 2 of 2: one sequence shows no two columns that change together");
  torch::Tensor distances;
  if (!distances_path.empty()) distances = data::read_distances(distances_path, alignment.columns);
  const auto weights = data::sequence_weights(alignment);
  const auto scores = contact_scores(alignment, weights, method, seed);

  ContactMapResult result;
  result.table = table, result.picture = std::filesystem::path(table).replace_extension(".svg"),
  result.notes = alignment.notes;
  result.sequences = alignment.rows(), result.columns = alignment.columns,
  result.effective_sequences = weights.sum().item<double>();
  if (result.effective_sequences < double(alignment.columns))
    result.notes.push_back(
        report::printed("%.0f sequences differ, fewer than the %lld columns: scores are mostly chance",
                        result.effective_sequences, static_cast<long long>(alignment.columns)));
  std::string subtitle =
      report::printed("%lld sequences (%.0f that differ), %lld columns", static_cast<long long>(result.sequences),
                      result.effective_sequences, static_cast<long long>(result.columns));
  if (distances.defined()) {
    result.precision = {precision_of(title_of(method), scores, distances, kSeparation),
                        chance_of(distances, kSeparation)};
    subtitle +=
        report::printed("; precision at L %.3f, chance %.3f", result.precision[0].at_l, result.precision[1].at_l);
  }
  const std::string picture =
      contact_picture(path.filename().string() + ": " + title_of(method), subtitle, scores, distances);
  io::write_file(result.table, table_of(alignment, ranked(scores), distances));
  io::write_file(result.picture, picture);
  return result;
}

}  // namespace fovea::recipes
