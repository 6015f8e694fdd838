#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace fovea::data {

/// One row of a table of slides, as CLAM has them.
struct SlideRow {
  std::string slide_id, case_id;
  int64_t label = -1;  // of SlideTable::classes; -1: not known
};

struct SlideTable {
  std::filesystem::path file;         // slides.csv
  std::string name = "slides";        // of slides.json beside it, for reports
  bool simulated = false;             // likewise
  std::vector<std::string> classes;   // the labels, sorted
  std::vector<SlideRow> slides;

  /// The row of a slide. Errors: ArgumentError with the nearest known one.
  size_t row_of(const std::string& slide_id) const;
};

/// True for FOLDER with slides.csv, or a .csv file with columns slide_id and case_id.
bool is_slide_table(const std::filesystem::path& where);

struct OpenSlidesOptions {
  bool need_label = true;
  std::vector<std::string> classes;  // of a model; empty: those of the table
};

/// Reads columns slide_id, case_id and label (others are passed over); with them slides.json ({"name", "simulated"}) where
/// it is there.
/// Errors   IoError naming line and cell: a column or cell that is missing, a slide twice, one label alone, a label that is
///          not among `classes`
SlideTable open_slides(const std::filesystem::path& where, const OpenSlidesOptions& options = {});

/// Which rows of a table do what.
struct SlideSplit {
  std::vector<int64_t> train, validation, held_out;
};

/// CLAM's splits_k.csv: columns train, val and test with slide_ids. Errors: IoError: a slide that the table lacks, one case in
/// two parts.
SlideSplit read_slide_split(const std::filesystem::path& file, const SlideTable& table);

/// Draws a split by cases: all slides of a case land in one part, classes (of a case: the largest label) in like shares.
/// `fold` of five is held out; nobody without one. Of the rest `validation_share` chooses the checkpoint.
/// Errors   ArgumentError: a fold that is none, fewer cases than that needs
SlideSplit draw_slide_split(const SlideTable& table, std::optional<int64_t> fold, double validation_share, uint64_t seed);

}  // namespace fovea::data
