#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace fovea::data {

/// What the columns of a patients.csv are; patients.json beside it says so.
struct PatientColumns {
  std::string name = "patients";
  bool simulated = false;
  std::string id = "id";
  std::vector<std::string> images, numbers, texts;
  std::map<std::string, std::vector<std::string>> categories;
  std::string mask, split;
  std::string label;
  std::vector<std::string> classes;
  std::string time, event;

  template <class V>
  void visit(V& v) {
    v("name", name, "of the data set, for reports");
    v("simulated", simulated, "true: made up by a program, and every figure says so");
    v("id", id, "column that names the patient");
    v("images", images, "columns with image files, relative to the folder; one modality each");
    v("mask", mask, "column with label images (foreground = not 0), on the grid of the first image");
    v("numbers", numbers, "columns with numbers, such as laboratory values");
    v("categories", categories, "columns with words, and the words that there are");
    v("texts", texts, "columns with free text");
    v("label", label, "column with the class to predict");
    v("classes", classes, "the classes that there are");
    v("time", time, "column with the time of the event or of the last contact");
    v("event", event, "column that is 1 where the event happened, 0 where it was not seen");
    v("split", split, "column that says train or test; none: the recipe draws folds");
  }
  bool has_label() const { return !label.empty(); }
  bool has_survival() const { return !time.empty(); }
};

/// One row. An empty cell is missing: no file, NaN, -1 or no text.
struct Patient {
  std::string id;
  std::vector<std::optional<std::filesystem::path>> images;  // of PatientColumns::images
  std::optional<std::filesystem::path> mask;
  std::vector<double> numbers;    // NaN: missing
  std::vector<int64_t> codes;     // of PatientColumns::categories in the order of their names; -1: missing
  std::vector<std::string> texts;  // empty: missing
  std::optional<int64_t> label;
  std::optional<double> time;
  std::optional<bool> event;
  bool test = false;  // of the split column
};

struct PatientTable {
  std::filesystem::path root, file;
  PatientColumns columns;
  std::vector<Patient> patients;

  /// Every file that the rows name, for manifests.
  std::vector<std::filesystem::path> files() const;
};

struct OpenPatientsOptions {
  /// Rows without the outcome (class, or time and event) are allowed: prediction needs none.
  bool need_outcome = true;
};

/// True for a folder with patients.csv, or a .csv file.
bool is_patient_table(const std::filesystem::path& where);

/// Opens FOLDER/patients.csv with FOLDER/patients.json (or FILE.csv with patients.json beside it). Image files are
/// looked for, not read.
/// Errors   IoError naming line, column and cell: a column that is not there, two patients of one id, a number that is
///          none or infinite, a word that is not among its categories (with the nearest known one), an image that does
///          not exist or lies outside the folder, an event that is neither 0 nor 1 (or true/false, yes/no), a negative
///          time, a time without event, a split that is neither train nor test.
PatientTable open_patients(const std::filesystem::path& where, const OpenPatientsOptions& options = {});

/// The same columns for a table of new patients: `columns` are those that a model was trained with.
PatientTable open_patients(const std::filesystem::path& where, const PatientColumns& columns, const OpenPatientsOptions& options = {});

}  // namespace fovea::data
