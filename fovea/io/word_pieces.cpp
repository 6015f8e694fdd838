#include "fovea/io/word_pieces.h"

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>

#include "fovea/core/error.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/input_file.h"

namespace fovea::io {

namespace {
constexpr uint64_t kMaxVocabularyBytes = uint64_t{64} << 20;
constexpr size_t kLongestWord = 100;  // characters
constexpr const char* kPad = "[PAD]";
constexpr const char* kUnknown = "[UNK]";
constexpr const char* kBegin = "[CLS]";
constexpr const char* kEnd = "[SEP]";

// Place of the first byte that does not belong to a whole character.
std::optional<size_t> first_bad_byte(std::string_view text) {
  for (int32_t at = 0, length = int32_t(text.size()); at < length;) {
    const int32_t begin = at;
    UChar32 c;
    U8_NEXT(reinterpret_cast<const uint8_t*>(text.data()), at, length, c);
    if (c < 0) return size_t(begin);
  }
  return {};
}

std::string hexadecimal(char byte) {
  char text[8];
  std::snprintf(text, sizeof text, "0x%02X", unsigned(static_cast<unsigned char>(byte)));
  return text;
}

bool is_chinese(UChar32 c) {
  constexpr std::pair<UChar32, UChar32> kBlocks[] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},
                                                     {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F},
                                                     {0x2B820, 0x2CEAF}, {0x2F800, 0x2FA1F}};
  return std::any_of(std::begin(kBlocks), std::end(kBlocks), [c](auto b) { return c >= b.first && c <= b.second; });
}

bool is_space(UChar32 c) { return u_isUWhiteSpace(c); }

// Tab and line ends are white space here; the other control characters, such as form feed and next line, are not. What
// ICU does not know yet stays and becomes [UNK].
bool is_dropped(UChar32 c) {
  if (c == '\t' || c == '\n' || c == '\r') return false;
  return c == 0xFFFD || (U_GET_GC_MASK(c) & (U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK | U_GC_CS_MASK));
}

// Every printable character of ASCII that is no letter or digit counts, also $ + < = > ^ ` | ~.
bool is_punctuation(UChar32 c) {
  return (c < 128 && c > ' ' && c < 127 && !u_isalnum(c)) || (U_GET_GC_MASK(c) & U_GC_P_MASK);
}

size_t characters(const std::string& word) {
  return size_t(std::count_if(word.begin(), word.end(), [](char byte) { return (byte & 0xC0) != 0x80; }));
}
}  // namespace

std::vector<std::string> split_words(std::string_view text) {
  if (text.size() > size_t(INT32_MAX) / 4)
    throw ArgumentError("word_pieces: a text of " + std::to_string(text.size()) + " bytes, expected at most 512 MiB");
  if (const auto bad = first_bad_byte(text))
    throw ArgumentError("word_pieces: byte " + std::to_string(*bad) + " of the text (" + hexadecimal(text[*bad]) +
                        ") is not UTF-8; save the report as UTF-8");
  // 1. Clean, and set Chinese characters apart.
  icu::UnicodeString clean;
  for (int32_t at = 0, length = int32_t(text.size()); at < length;) {
    UChar32 c;
    U8_NEXT(reinterpret_cast<const uint8_t*>(text.data()), at, length, c);
    if (is_dropped(c)) continue;
    if (is_chinese(c))
      clean.append(UChar32(' ')).append(c).append(UChar32(' '));
    else
      clean.append(c);
  }
  // 2. Decompose.
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* decompose = icu::Normalizer2::getNFDInstance(status);
  const icu::UnicodeString plain = U_SUCCESS(status) ? decompose->normalize(clean, status) : icu::UnicodeString();
  FOVEA_CHECK(U_SUCCESS(status), std::string("ICU cannot normalise: ") + u_errorName(status));
  // 3. Without marks, in lower case, split.
  std::vector<std::string> words;
  icu::UnicodeString word;
  const auto end_word = [&] {
    if (word.isEmpty()) return;
    word.toUTF8String(words.emplace_back());
    word.remove();
  };
  for (int32_t at = 0; at < plain.length(); at = plain.moveIndex32(at, 1)) {
    const UChar32 c = u_tolower(plain.char32At(at));
    if (u_charType(c) == U_NON_SPACING_MARK) continue;
    if (is_space(c)) {
      end_word();
    } else if (is_punctuation(c)) {
      end_word(), word.append(c), end_word();
    } else {
      word.append(c);
    }
  }
  end_word();
  return words;
}

WordPieces::WordPieces(std::vector<std::string> pieces, const std::filesystem::path& path) : pieces_(std::move(pieces)) {
  for (size_t i = 0; i < pieces_.size(); ++i)
    if (const auto [place, is_new] = number_.emplace(pieces_[i], int64_t(i)); !is_new)
      throw IoError(path, "piece '" + pieces_[i] + "' stands on line " + std::to_string(place->second + 1) +
                              " and again on line " + std::to_string(i + 1));
  const auto mark = [&](const char* name) {
    const auto found = number_.find(name);
    if (found == number_.end())
      throw IoError(path, std::string("no ") + name + " among the " + std::to_string(pieces_.size()) +
                              " lines, expected a vocabulary with one piece a line");
    return found->second;
  };
  pad_ = mark(kPad), unknown_ = mark(kUnknown), begin_ = mark(kBegin), end_ = mark(kEnd);
}

WordPieces WordPieces::read(const std::filesystem::path& vocabulary) {
  const std::string text = read_text(vocabulary, kMaxVocabularyBytes);
  if (const auto bad = first_bad_byte(text))
    throw IoError(vocabulary, "byte " + std::to_string(*bad) + " (" + hexadecimal(text[*bad]) + ") is not UTF-8");
  std::vector<std::string> pieces;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) throw IoError(vocabulary, "line " + std::to_string(pieces.size() + 1) + " is empty");
    pieces.push_back(std::move(line));
    begin = end + 1;
  }
  return WordPieces(std::move(pieces), vocabulary);
}

WordPieces WordPieces::from_texts(const std::vector<std::string>& texts) {
  std::vector<std::string> pieces = {kPad, kUnknown, kBegin, kEnd};
  for (const char* inside : {"", "##"})
    for (const char c : std::string("abcdefghijklmnopqrstuvwxyz0123456789")) pieces.push_back(std::string(inside) + c);
  std::map<std::string, int64_t> counts;
  for (const std::string& text : texts)
    for (std::string& word : split_words(text)) ++counts[std::move(word)];
  std::vector<std::pair<std::string, int64_t>> words(counts.begin(), counts.end());
  std::stable_sort(words.begin(), words.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  for (auto& [word, count] : words)
    if (word.size() > 1 || !std::isalnum(static_cast<unsigned char>(word[0]))) pieces.push_back(word);
  return WordPieces(std::move(pieces), "the vocabulary of " + std::to_string(texts.size()) + " texts");
}

void WordPieces::write(const std::filesystem::path& vocabulary) const {
  std::string text;
  for (const std::string& piece : pieces_) text += piece + '\n';
  write_file(vocabulary, text);
}

void WordPieces::append(const std::string& word, std::vector<int64_t>& numbers) const {
  const size_t before = numbers.size();
  if (characters(word) > kLongestWord) return numbers.push_back(unknown_);
  for (size_t begin = 0; begin < word.size();) {
    // Shorter and shorter, whole characters at a time.
    size_t end = word.size();
    auto found = number_.end();
    for (; end > begin; --end) {
      if (end < word.size() && (word[end] & 0xC0) == 0x80) continue;
      found = number_.find((begin ? "##" : "") + word.substr(begin, end - begin));
      if (found != number_.end()) break;
    }
    if (found == number_.end()) {
      numbers.resize(before);
      return numbers.push_back(unknown_);
    }
    numbers.push_back(found->second);
    begin = end;
  }
}

std::vector<int64_t> WordPieces::numbers(std::string_view text) const {
  std::vector<int64_t> numbers;
  for (const std::string& word : split_words(text)) append(word, numbers);
  return numbers;
}

std::vector<int64_t> WordPieces::encode(std::string_view text, int64_t longest) const {
  if (longest < 2)
    throw ArgumentError("word_pieces: at most " + std::to_string(longest) + " pieces, expected 2 or more ([CLS], [SEP])");
  std::vector<int64_t> result = numbers(text);
  result.resize(std::min(result.size(), size_t(longest - 2)));
  result.insert(result.begin(), begin_);
  result.push_back(end_);
  return result;
}

std::vector<std::string> WordPieces::pieces(std::string_view text) const {
  std::vector<std::string> result;
  for (const int64_t number : numbers(text)) result.push_back(piece(number));
  return result;
}

}  // namespace fovea::io
