#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace fovea::io {

/// Words of a UTF-8 text as BERT's uncased tokenizer splits them, before the vocabulary is asked: control and format
/// characters, U+0000 and U+FFFD dropped; every Chinese character a word of its own; canonically decomposed (NFD)
/// without combining marks; lower case; split at white space, every punctuation character a word of its own.
///   "Rundherd, 8 mm im ÄPEX 右肺" -> rundherd | , | 8 | mm | im | apex | 右 | 肺
/// Errors   ArgumentError naming the byte when the text is not UTF-8
/// Source   Devlin et al. 2019 (BERT), section 3; Unicode Standard Annex 15 and chapter 4 (categories), through ICU
std::vector<std::string> split_words(std::string_view text);

/// WordPiece: each word as the longest pieces of a vocabulary, greedily from the left; pieces inside a word begin with
/// "##". A word of over 100 characters, or with a rest that no piece begins, is [UNK] as a whole.
/// A text says [CLS] or [SEP] like any other word: marks come only from encode().
/// Source   Wu et al. 2016, section 4.1; Devlin et al. 2019
class WordPieces {
 public:
  /// One piece a line, its number the line's place from 0: the vocab.txt of public models. At most 64 MiB.
  /// Errors   IoError: not UTF-8, an empty line before the end, a piece twice, [PAD], [UNK], [CLS] or [SEP] missing
  static WordPieces read(const std::filesystem::path& vocabulary);

  /// The vocabulary of a few texts: the marks, every letter of ASCII and digit alone and inside a word (so that no word in
  /// them is unknown), then every word of the texts, most frequent first (equal ones in byte order).
  /// Errors   ArgumentError of split_words()
  static WordPieces from_texts(const std::vector<std::string>& texts);

  /// The pieces that a model was saved with; `where` stands in messages. Errors: as read().
  static WordPieces from_pieces(std::vector<std::string> pieces, const std::filesystem::path& where) { return {std::move(pieces), where}; }

  /// The same file format; appears whole or not at all.
  void write(const std::filesystem::path& vocabulary) const;

  /// [CLS] pieces [SEP], at most `longest` numbers in all: pieces beyond are left out, [SEP] stays.
  /// Errors   ArgumentError of split_words(), longest < 2
  std::vector<int64_t> encode(std::string_view text, int64_t longest = 512) const;
  /// Pieces of a text without marks.
  std::vector<std::string> pieces(std::string_view text) const;

  const std::string& piece(int64_t number) const { return pieces_.at(size_t(number)); }
  int64_t size() const { return int64_t(pieces_.size()); }
  int64_t pad() const { return pad_; }
  int64_t unknown() const { return unknown_; }

 private:
  WordPieces(std::vector<std::string> pieces, const std::filesystem::path& path);
  void append(const std::string& word, std::vector<int64_t>& numbers) const;
  std::vector<int64_t> numbers(std::string_view text) const;

  std::vector<std::string> pieces_;
  std::unordered_map<std::string, int64_t> number_;
  int64_t pad_ = 0, unknown_ = 0, begin_ = 0, end_ = 0;
};

}  // namespace fovea::io
