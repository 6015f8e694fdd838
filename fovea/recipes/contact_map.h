#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/recipes/contacts.h"

// Contacts of a user's own alignment: a table and a picture.
namespace fovea::recipes {

/// Pairs nearer along the chain than this touch in any fold: they are scored, but not among the best that are drawn or counted.
inline constexpr int64_t kSeparation = 6;

struct ContactMapResult {
  std::filesystem::path table, picture;
  int64_t sequences = 0, columns = 0;
  double effective_sequences = 0;           // at 80 % identity
  std::vector<ContactPrecision> precision;  // of the method and of chance; empty without distances
  std::vector<std::string> notes;
};

/// Scores all pairs of columns of an alignment (any that io::read_alignment takes) and writes
///   table     CSV, best pair first: i,j from 1; residue_i,residue_j of the first sequence; score; with distances also
///             distance_angstrom, empty where none is known
///   picture   SVG of the same name beside it: scores above the diagonal, below it the best L pairs kSeparation or more apart,
///             on the contacts if distances are given
/// distances: a file as data::read_distances takes it, or empty.
/// Errors   IoError, ArgumentError, ResourceError as those of its parts; nothing is written then.
ContactMapResult predict_contacts(const std::filesystem::path& alignment, const std::filesystem::path& distances,
                                  ContactMethod method, uint64_t seed, const std::filesystem::path& table);

/// The picture; distances may be undefined.
std::string contact_picture(const std::string& title, const std::string& subtitle, const torch::Tensor& scores,
                            const torch::Tensor& distances);

}  // namespace fovea::recipes
