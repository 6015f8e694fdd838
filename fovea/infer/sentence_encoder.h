#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/io/safetensors.h"
#include "fovea/io/word_pieces.h"
#include "fovea/models/text_encoder.h"

namespace fovea::infer {

/// Tensors of a public BERT file under the names of models::TextEncoder. The pooler and stored position numbers, which a
/// sentence's vector does not use, are left out; a "bert." in front is taken off.
io::TensorMap bert_weights(io::TensorMap tensors);

/// A public sentence encoder, ready to run: vocab.txt, config.json and model.safetensors of one folder, such as
/// all-MiniLM-L6-v2 (`scripts/data minilm`). Lower-cased WordPieces, at most `longest` of them (sentence_bert_config.json,
/// or the positions there are); mean of the tokens, length 1.
class SentenceEncoder {
 public:
  /// Errors   IoError or ArgumentError, one line: a file missing, a configuration that is no BERT with exact GELU and
  ///          absolute positions, weights that do not fit it, a vocabulary of another size
  explicit SentenceEncoder(const std::filesystem::path& folder);

  /// [B,E] f32, rows of length 1; no texts: [0,E].
  /// Errors   ArgumentError when a text is not UTF-8
  /// Cost     the texts go through in groups of 32, padded to the longest of each
  torch::Tensor embed(const std::vector<std::string>& texts);

  /// The pieces of each text, at most `longest`, and what the network makes of each: vectors f32 [B,T,E], 0 beyond a text.
  /// Errors, cost   as embed()
  struct Pieces {
    std::vector<std::vector<int64_t>> numbers;  // of each text
    torch::Tensor vectors;
  };
  Pieces pieces(const std::vector<std::string>& texts, int64_t longest);

  const io::WordPieces& words() const { return words_; }
  models::TextEncoder& network() { return network_; }

 private:
  io::WordPieces words_;
  models::TextEncoder network_{nullptr};
  int64_t longest_ = 0;
};

}  // namespace fovea::infer
