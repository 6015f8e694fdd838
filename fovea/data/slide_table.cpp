#include "fovea/data/slide_table.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "fovea/io/csv.h"
#include "fovea/io/json_file.h"

namespace fovea::data {

namespace fs = std::filesystem;

namespace {
constexpr uint32_t kSplitStream = 91;
constexpr int64_t kFolds = 5;

fs::path file_of(const fs::path& where) { return fs::is_directory(where) ? where / "slides.csv" : where; }

// No case may stand in two parts: its slides look alike.
void check_cases(const fs::path& file, const SlideTable& table, const SlideSplit& split) {
  std::map<std::string, const char*> part_of;
  for (const auto& [rows, name] : {std::pair{&split.train, "train"}, {&split.validation, "val"}, {&split.held_out, "test"}})
    for (const int64_t r : *rows) {
      const auto [at, fresh] = part_of.try_emplace(table.slides[size_t(r)].case_id, name);
      if (!fresh && std::string(at->second) != name) throw IoError(file, "case '" + at->first + "' is in " + at->second + " and in " + name + "; split by case");
    }
}
}  // namespace

size_t SlideTable::row_of(const std::string& slide_id) const {
  std::vector<std::string> names;
  for (size_t r = 0; r < slides.size(); ++r) {
    if (slides[r].slide_id == slide_id) return r;
    names.push_back(slides[r].slide_id);
  }
  const auto nearest = nearest_name(slide_id, names);
  throw ArgumentError(file.string() + ": has no slide '" + slide_id + "'" + (nearest.empty() ? "" : ", did you mean '" + nearest + "'?"));
}

bool is_slide_table(const fs::path& where) {
  std::error_code ignored;
  if (fs::is_directory(where, ignored)) return fs::is_regular_file(where / "slides.csv", ignored);
  const auto columns = io::csv_columns(where);
  const auto has = [&](const char* name) { return std::find(columns.begin(), columns.end(), name) != columns.end(); };
  return has("slide_id") && has("case_id");
}

SlideTable open_slides(const fs::path& where, const OpenSlidesOptions& options) {
  SlideTable table;
  table.file = file_of(where);
  const auto csv = io::read_csv(table.file);
  const size_t id = csv.column("slide_id"), of_case = csv.column("case_id");
  std::optional<size_t> label;
  const auto& columns = csv.columns();
  if (options.need_label || std::find(columns.begin(), columns.end(), "label") != columns.end()) label = csv.column("label");
  if (csv.rows() == 0) throw IoError(table.file, "has no slides");
  if (const fs::path beside = table.file.parent_path() / "slides.json"; fs::exists(beside)) {
    const auto json = io::read_json(beside);
    if (!json.is_object()) throw IoError(beside, "expected an object with \"name\" and \"simulated\"");
    table.name = json.value("name", table.name), table.simulated = json.value("simulated", false);
  }
  table.classes = options.classes;
  if (table.classes.empty() && label) {
    std::set<std::string> words;
    for (size_t r = 0; r < csv.rows(); ++r)
      if (!csv.cell(r, *label).empty()) words.insert(csv.cell(r, *label));
    table.classes.assign(words.begin(), words.end());
  }
  std::set<std::string> seen;
  for (size_t r = 0; r < csv.rows(); ++r) {
    const std::string line = "row " + std::to_string(r + 1);
    SlideRow row{csv.cell(r, id), csv.cell(r, of_case)};
    if (row.slide_id.empty() || row.case_id.empty()) throw IoError(table.file, line + " has no slide_id or no case_id");
    if (row.slide_id.find('/') != std::string::npos || row.slide_id.starts_with('.')) throw IoError(table.file, line + ": slide_id '" + row.slide_id + "' is no file name");
    if (!seen.insert(row.slide_id).second) throw IoError(table.file, line + ": slide '" + row.slide_id + "' is there twice");
    if (label && !csv.cell(r, *label).empty()) {
      const auto at = std::find(table.classes.begin(), table.classes.end(), csv.cell(r, *label));
      if (at == table.classes.end()) throw IoError(table.file, line + ": label '" + csv.cell(r, *label) + "' is not among the model's classes");
      row.label = at - table.classes.begin();
    } else if (options.need_label) {
      throw IoError(table.file, line + ": slide '" + row.slide_id + "' has no label");
    }
    table.slides.push_back(std::move(row));
  }
  if (options.need_label && table.classes.size() < 2) throw IoError(table.file, "has the one label '" + table.classes[0] + "', expected two or more");
  return table;
}

SlideSplit read_slide_split(const fs::path& file, const SlideTable& table) {
  const auto csv = io::read_csv(file);
  SlideSplit split;
  for (const auto& [rows, name] : {std::pair{&split.train, "train"}, {&split.validation, "val"}, {&split.held_out, "test"}}) {
    const size_t column = csv.column(name);
    for (size_t r = 0; r < csv.rows(); ++r) {
      if (csv.cell(r, column).empty()) continue;
      const auto at = std::find_if(table.slides.begin(), table.slides.end(), [&](const SlideRow& s) { return s.slide_id == csv.cell(r, column); });
      if (at == table.slides.end()) throw IoError(file, "slide '" + csv.cell(r, column) + "' of column " + name + " is not in " + table.file.string());
      rows->push_back(at - table.slides.begin());
    }
  }
  if (split.train.empty()) throw IoError(file, "names no training slide");
  check_cases(file, table, split);
  return split;
}

SlideSplit draw_slide_split(const SlideTable& table, std::optional<int64_t> fold, double validation_share, uint64_t seed) {
  if (fold && (*fold < 0 || *fold >= kFolds)) throw ArgumentError("train: --fold " + std::to_string(*fold) + ", expected 0 to 4 or all");
  std::map<std::string, std::vector<int64_t>> rows_of;
  std::vector<std::string> cases;  // as they come
  for (size_t r = 0; r < table.slides.size(); ++r) {
    auto& rows = rows_of[table.slides[r].case_id];
    if (rows.empty()) cases.push_back(table.slides[r].case_id);
    rows.push_back(int64_t(r));
  }
  Rng rng(seed, 0, 0, kSplitStream);
  for (size_t i = cases.size(); i > 1; --i) std::swap(cases[i - 1], cases[size_t(rng.below(i))]);
  const auto label_of = [&](const std::string& name) {
    int64_t label = -1;
    for (const int64_t r : rows_of[name]) label = std::max(label, table.slides[size_t(r)].label);
    return label;
  };
  std::stable_sort(cases.begin(), cases.end(), [&](const auto& a, const auto& b) { return label_of(a) < label_of(b); });
  // Dealt like cards within each class; the fold first, then each class's share for validation.
  SlideSplit split;
  std::vector<std::string> rest;
  for (size_t i = 0; i < cases.size(); ++i) {
    if (fold && int64_t(i) % kFolds == *fold)
      split.held_out.insert(split.held_out.end(), rows_of[cases[i]].begin(), rows_of[cases[i]].end());
    else
      rest.push_back(cases[i]);
  }
  const auto validation = size_t(std::lround(validation_share * double(rest.size())));
  if (rest.size() < validation + 2) throw ArgumentError("train: " + std::to_string(rest.size()) + " cases to learn from, expected at least 2 beside those of validation");
  for (size_t i = 0; i < rest.size(); ++i) {
    const bool chosen = (i + 1) * validation / rest.size() > i * validation / rest.size();
    auto& rows = chosen ? split.validation : split.train;
    rows.insert(rows.end(), rows_of[rest[i]].begin(), rows_of[rest[i]].end());
  }
  for (auto* rows : {&split.train, &split.validation, &split.held_out}) std::sort(rows->begin(), rows->end());
  return split;
}

}  // namespace fovea::data
