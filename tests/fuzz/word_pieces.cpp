#include "fovea/io/word_pieces.h"

#include "tests/fuzz/target.h"

// The input as a vocabulary, and as a text split by it and by one of our own.
FOVEA_FUZZ_TARGET(word_pieces) {
  using namespace fovea;
  static fuzz::MemoryFile file;
  const std::filesystem::path& path = file.holding(input);
  const std::string_view text = fuzz::text_of(input);
  fuzz::accepted([&] {
    const io::WordPieces words = io::WordPieces::read(path);
    for (const int64_t piece : words.encode("A lesion of 8 mm, in the left lobe.")) fuzz::expect(piece >= 0 && piece < words.size(), "a number beyond the vocabulary");
  });
  static const io::WordPieces own = io::WordPieces::from_texts({"a lesion of 8 mm in the left lobe"});
  fuzz::accepted([&] {
    for (const int64_t piece : own.encode(text, 64)) fuzz::expect(piece >= 0 && piece < own.size(), "a number beyond the vocabulary");
  });
}
