#include "fovea/io/csv.h"

#include "tests/fuzz/target.h"

// The table written again, cell by cell, is the same table.
FOVEA_FUZZ_TARGET(csv) {
  using namespace fovea;
  fuzz::accepted([&] {
    const io::CsvTable table = io::parse_csv(fuzz::text_of(input), "x.csv");
    fuzz::expect(!table.columns().empty(), "a table without columns");
    std::string again;
    for (size_t c = 0; c < table.columns().size(); ++c) again += (c ? "," : "") + io::csv_cell(table.columns()[c]);
    for (size_t r = 0; r < table.rows(); ++r) {
      again += '\n';
      for (size_t c = 0; c < table.columns().size(); ++c) again += (c ? "," : "") + io::csv_cell(table.cell(r, c));
    }
    for (size_t c = 0; c < table.columns().size(); ++c) fuzz::accepted([&] { table.numbers(table.column(table.columns()[c])); });
    if (table.columns().size() < 2) return;  // a row of one empty cell is an empty line
    const io::CsvTable copy = io::parse_csv(again + '\n', "again.csv");
    fuzz::expect(copy.columns() == table.columns() && copy.rows() == table.rows(), "the table does not survive its own text");
    for (size_t r = 0; r < table.rows(); ++r)
      for (size_t c = 0; c < table.columns().size(); ++c) fuzz::expect(copy.cell(r, c) == table.cell(r, c), "a cell does not survive its own text");
  });
}
