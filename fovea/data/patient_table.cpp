#include "fovea/data/patient_table.h"

#include <cmath>
#include <set>

#include "fovea/core/error.h"
#include "fovea/io/config.h"
#include "fovea/io/csv.h"

namespace fovea::data {

namespace fs = std::filesystem;

namespace {
// Rows of a table, by column name; messages name the line.
class Rows {
 public:
  Rows(const fs::path& file, const PatientColumns& columns) : file_(file), table_(io::read_csv(file)), columns_(columns) {}

  size_t count() const { return table_.rows(); }
  const std::string& cell(size_t row, const std::string& column) const { return table_.cell(row, table_.column(column)); }
  bool has(const std::string& column) const {
    for (const std::string& name : table_.columns())
      if (name == column) return true;
    return false;
  }

  [[noreturn]] void fail(size_t row, const std::string& column, const std::string& problem) const {
    throw IoError(file_, "patient '" + cell(row, columns_.id) + "', column " + column + ": " + problem);
  }

  std::vector<double> numbers(const std::string& column) const {
    auto values = table_.numbers(table_.column(column));
    for (size_t r = 0; r < values.size(); ++r)
      if (std::isinf(values[r])) fail(r, column, "is infinite; leave the cell empty where the value is not known");
    return values;
  }

  int64_t code(size_t row, const std::string& column, const std::vector<std::string>& words) const {
    const std::string& word = cell(row, column);
    if (word.empty() || word == "NA") return -1;
    std::string known;
    for (size_t i = 0; i < words.size(); ++i) {
      if (words[i] == word) return int64_t(i);
      known += (i ? ", " : "") + words[i];
    }
    const auto nearest = nearest_name(word, words);
    fail(row, column, "'" + word.substr(0, 40) + "' is not among " + known + (nearest.empty() ? "" : "; did you mean '" + nearest + "'?"));
  }

  std::optional<bool> yes_or_no(size_t row, const std::string& column) const {
    const std::string& word = cell(row, column);
    if (word.empty() || word == "NA") return {};
    for (const char* yes : {"1", "true", "TRUE", "yes"})
      if (word == yes) return true;
    for (const char* no : {"0", "false", "FALSE", "no"})
      if (word == no) return false;
    fail(row, column, "'" + word.substr(0, 40) + "', expected 1 (the event happened) or 0 (it was not seen)");
  }

  std::optional<fs::path> path(size_t row, const std::string& column, const fs::path& root) const {
    const std::string& word = cell(row, column);
    if (word.empty() || word == "NA") return {};
    const fs::path relative(word);
    if (relative.is_absolute() || *relative.lexically_normal().begin() == "..")
      fail(row, column, "'" + word + "' leaves the folder; give a path relative to " + root.string());
    if (!fs::is_regular_file(root / relative)) fail(row, column, "no file " + (root / relative).string() + "; correct the path, or empty the cell if the patient has no such image");
    return root / relative;
  }

 private:
  fs::path file_;
  io::CsvTable table_;
  const PatientColumns& columns_;
};

fs::path table_file(const fs::path& where) {
  const fs::path file = fs::is_directory(where) ? where / "patients.csv" : where;
  if (!fs::is_regular_file(file)) throw IoError(where, "no patients.csv there; expected a folder with patients.csv and patients.json");
  return file;
}

void require_outcome(const Rows& rows, size_t row, const Patient& patient, const PatientColumns& columns) {
  if (columns.has_label() && !patient.label) rows.fail(row, columns.label, "is empty, but the class is to be learnt; take the row out");
  if (columns.has_survival() && (!patient.time || !patient.event)) rows.fail(row, columns.time, "time or event is empty; take the row out");
}
}  // namespace

bool is_patient_table(const fs::path& where) { return fs::exists(where / "patients.csv") || (where.extension() == ".csv" && fs::is_regular_file(where)); }

PatientTable open_patients(const fs::path& where, const OpenPatientsOptions& options) {
  const fs::path description = table_file(where).parent_path() / "patients.json";
  if (!fs::exists(description))
    throw IoError(description, "does not exist; it says what the columns are, e.g. {\"id\": \"id\", \"numbers\": [\"age\"], \"time\": \"days\", \"event\": \"dead\"}");
  return open_patients(where, io::read_config<PatientColumns>(description), options);
}

PatientTable open_patients(const fs::path& where, const PatientColumns& columns, const OpenPatientsOptions& options) {
  PatientTable out;
  out.file = table_file(where), out.root = out.file.parent_path(), out.columns = columns;
  const Rows rows(out.file, out.columns);
  if (rows.count() == 0) throw IoError(out.file, "has no rows");
  if (columns.has_label() && columns.classes.size() < 2) throw IoError(out.root / "patients.json", "\"classes\" has " + std::to_string(columns.classes.size()) + " names, expected at least 2 for the label '" + columns.label + "'");
  if (columns.time.empty() != columns.event.empty()) throw IoError(out.root / "patients.json", "only one of \"time\" and \"event\" is given, expected both");
  // An outcome that nobody needs may lack its columns too.
  const bool label = columns.has_label() && (options.need_outcome || rows.has(columns.label));
  const bool survival = columns.has_survival() && (options.need_outcome || (rows.has(columns.time) && rows.has(columns.event)));
  const bool mask = !columns.mask.empty() && (options.need_outcome || rows.has(columns.mask));

  std::vector<std::vector<double>> numbers;
  for (const std::string& column : columns.numbers) numbers.push_back(rows.numbers(column));
  const auto times = survival ? rows.numbers(columns.time) : std::vector<double>();
  std::set<std::string> ids;
  for (size_t r = 0; r < rows.count(); ++r) {
    Patient one;
    one.id = rows.cell(r, columns.id);
    if (one.id.empty()) throw IoError(out.file, "row " + std::to_string(r + 1) + ": column " + columns.id + " is empty, expected the patient's name");
    if (!ids.insert(one.id).second) throw IoError(out.file, "two rows are called '" + one.id + "'; give one row a patient");
    for (const std::string& column : columns.images) one.images.push_back(rows.path(r, column, out.root));
    if (mask) one.mask = rows.path(r, columns.mask, out.root);
    for (const auto& column : numbers) one.numbers.push_back(column[r]);
    for (const auto& [column, words] : columns.categories) one.codes.push_back(rows.code(r, column, words));
    for (const std::string& column : columns.texts) one.texts.push_back(rows.cell(r, column));
    if (label)
      if (const int64_t k = rows.code(r, columns.label, columns.classes); k >= 0) one.label = k;
    if (survival) {
      if (!std::isnan(times[r])) one.time = times[r];
      one.event = rows.yes_or_no(r, columns.event);
      if (one.time && *one.time < 0) rows.fail(r, columns.time, "is negative");
      if (one.time.has_value() != one.event.has_value()) rows.fail(r, columns.event, "time and event must both be there, or neither");
    }
    if (options.need_outcome) require_outcome(rows, r, one, columns);
    if (!columns.split.empty() && (options.need_outcome || rows.has(columns.split))) one.test = rows.code(r, columns.split, {"train", "test"}) == 1;
    out.patients.push_back(std::move(one));
  }
  return out;
}

std::vector<fs::path> PatientTable::files() const {
  std::vector<fs::path> list{file};
  for (const Patient& one : patients) {
    for (const auto& image : one.images)
      if (image) list.push_back(*image);
    if (one.mask) list.push_back(*one.mask);
  }
  return list;
}

}  // namespace fovea::data
