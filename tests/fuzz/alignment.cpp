#include "fovea/io/alignment.h"

#include <algorithm>

#include "tests/fuzz/target.h"

// By content, and under a name that says A3M.
FOVEA_FUZZ_TARGET(alignment) {
  using namespace fovea;
  for (const char* name : {"plain", "named.a3m"}) {
    fuzz::accepted([&] {
      const io::Alignment a = io::read_alignment(io::InputFile(name, input), uint64_t{64} << 20);
      fuzz::expect(a.rows() > 0 && a.residues.size() == size_t(a.rows() * a.columns), "the residues do not fit the shape");
      fuzz::expect(std::all_of(a.residues.begin(), a.residues.end(), [](uint8_t r) { return r <= io::kUnknownResidue; }), "a code that is no residue");
    });
  }
}
