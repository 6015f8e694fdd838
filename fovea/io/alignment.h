#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/io/input_file.h"

namespace fovea::io {

/// The twenty amino acids by their codes, 0 to 19; then a gap, then a letter that names none of them (B, J, O, U, X, Z).
inline constexpr std::string_view kResidues = "ACDEFGHIKLMNPQRSTVWY-X";
inline constexpr uint8_t kGap = 20, kUnknownResidue = 21;

/// N sequences of L columns each: a multiple sequence alignment of proteins.
struct Alignment {
  std::string format;               // "fasta", "a3m", "stockholm", "clustal"
  std::vector<std::string> names;   // N, up to the first white space
  int64_t columns = 0;              // L
  std::vector<uint8_t> residues;    // [N, L] codes of kResidues
  std::vector<std::string> notes;   // about odd but readable files

  int64_t rows() const { return int64_t(names.size()); }
  const uint8_t* row(int64_t n) const { return residues.data() + n * columns; }
};

/// Reads an alignment, plain or gzip; the format is recognised by content.
///   FASTA      all sequences of one length; lower case counts as upper case
///   A3M        FASTA whose lower-case letters and '.' are insertions against the first sequence: they are left out (with a
///              note), and the rest must have one length. Taken so when the name ends in .a3m, or lengths agree only so
///   Stockholm  1.0, in one or several blocks, up to "//"; annotation lines are left out; a second alignment in the file is
///              not read (with a note)
///   Clustal    first line "CLUSTAL ..." (or MUSCLE, PROBCONS); blocks, conservation lines left out
/// '-', '.', '~' and, in Clustal and Stockholm, '_' are gaps.
/// Errors   IoError in one line: of no known format, a sequence of another length (which, found, expected), a character that
///          is no residue (line and column), an empty or unfinished file, more than 10^6 sequences or 10^5 columns, NUL
///          bytes, damaged gzip, more than `max_bytes` of text.
/// Cost     one pass, lines as they come: N*L bytes and the names
Alignment read_alignment(const InputFile& file, uint64_t max_bytes = uint64_t{8} << 30);
Alignment read_alignment(const std::filesystem::path& path, uint64_t max_bytes = uint64_t{8} << 30);

}  // namespace fovea::io
