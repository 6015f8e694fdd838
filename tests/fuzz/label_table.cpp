#include "fovea/io/label_table.h"

#include "tests/fuzz/target.h"

// Whatever names are found in an XML text can be written and found again.
FOVEA_FUZZ_TARGET(label_table) {
  using namespace fovea;
  const auto names = io::parse_label_table(fuzz::text_of(input));
  fuzz::expect(io::parse_label_table(io::label_table_xml(names)) == names, "the names do not survive their own table");
}
