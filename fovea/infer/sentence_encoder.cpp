#include "fovea/infer/sentence_encoder.h"

#include <algorithm>
#include <array>
#include <utility>

#include "fovea/core/error.h"
#include "fovea/infer/weights.h"
#include "fovea/io/json_file.h"

namespace fovea::infer {

namespace {
constexpr std::array<std::pair<const char*, const char*>, 10> kNames = {{
    {"embeddings.word_embeddings.", "word."},
    {"embeddings.position_embeddings.", "position."},
    {"embeddings.token_type_embeddings.", "segment."},
    {"embeddings.LayerNorm.", "norm."},
    {".attention.output.LayerNorm.", ".norm1."},
    {".attention.output.dense.", ".attention.out_proj."},
    {".attention.self.", ".attention."},  // query, key, value: below
    {".intermediate.dense.", ".mlp.linear1."},
    {".output.dense.", ".mlp.linear2."},
    {".output.LayerNorm.", ".norm2."},
}};

void replace(std::string& name, const std::string& from, const std::string& to) {
  if (const auto at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to);
}

std::string own_name(std::string name) {
  if (name.starts_with("bert.")) name.erase(0, 5);
  if (name.starts_with("encoder.")) name.erase(0, 8);
  for (const auto& [from, to] : kNames) replace(name, from, to);
  for (const auto& [from, to] : {std::pair(".query.", ".q_proj."), {".key.", ".k_proj."}, {".value.", ".v_proj."}}) replace(name, from, to);
  return name;
}

// What the configuration must say for the network to be the one of models::TextEncoder.
models::TextEncoderConfig read_config(const std::filesystem::path& path) {
  const io::Json json = io::read_json(path);
  const auto number = [&](const char* key, auto standard) {
    if (!json.contains(key)) return standard;
    if (!json.at(key).is_number()) throw IoError(path, std::string(key) + " is no number");
    return json.at(key).get<decltype(standard)>();
  };
  const auto expect = [&](const char* key, const char* word) {
    if (json.contains(key) && json.at(key) != word)
      throw IoError(path, std::string(key) + " is " + json.at(key).dump() + ", expected \"" + word + "\"");
  };
  expect("model_type", "bert"), expect("hidden_act", "gelu"), expect("position_embedding_type", "absolute");
  models::TextEncoderConfig config;
  config.vocabulary = number("vocab_size", config.vocabulary), config.dim = number("hidden_size", config.dim);
  config.layers = number("num_hidden_layers", config.layers), config.heads = number("num_attention_heads", config.heads);
  config.hidden = number("intermediate_size", config.hidden), config.longest = number("max_position_embeddings", config.longest);
  config.segments = number("type_vocab_size", config.segments), config.epsilon = number("layer_norm_eps", config.epsilon);
  return config;
}
}  // namespace

io::TensorMap bert_weights(io::TensorMap tensors) {
  io::TensorMap renamed;
  for (auto& [name, data] : tensors) {
    const std::string own = own_name(name);
    if (own.starts_with("pooler.") || own == "embeddings.position_ids") continue;
    renamed.emplace(own, std::move(data));
  }
  return renamed;
}

SentenceEncoder::SentenceEncoder(const std::filesystem::path& folder) : words_(io::WordPieces::read(folder / "vocab.txt")) {
  const models::TextEncoderConfig config = read_config(folder / "config.json");
  if (words_.size() != config.vocabulary)
    throw IoError(folder / "vocab.txt", "found " + std::to_string(words_.size()) + " pieces, expected " +
                                            std::to_string(config.vocabulary) + " as in config.json");
  network_ = models::TextEncoder(config);
  const auto weights = folder / "model.safetensors";
  load_weights(*network_, bert_weights(io::read_safetensors(weights)), weights.string());
  network_->eval();
  longest_ = config.longest;
  const auto limits = folder / "sentence_bert_config.json";
  if (std::filesystem::exists(limits))
    if (const auto json = io::read_json(limits); json.contains("max_seq_length") && json["max_seq_length"].is_number_integer())
      longest_ = std::clamp<int64_t>(json["max_seq_length"].get<int64_t>(), 2, config.longest);
}

torch::Tensor SentenceEncoder::embed(const std::vector<std::string>& texts) {
  constexpr size_t kGroup = 32;
  torch::NoGradGuard no_grad;
  std::vector<std::vector<int64_t>> numbers;
  for (const std::string& text : texts) numbers.push_back(words_.encode(text, longest_));
  std::vector<torch::Tensor> rows = {torch::zeros({0, network_->config().dim})};
  for (size_t begin = 0; begin < numbers.size(); begin += kGroup) {
    const size_t end = std::min(begin + kGroup, numbers.size());
    const auto batch = models::pad_texts({numbers.begin() + long(begin), numbers.begin() + long(end)}, words_.pad());
    rows.push_back(models::sentence_vectors(network_(batch.pieces, batch.mask), batch.mask));
  }
  return torch::cat(rows);
}

SentenceEncoder::Pieces SentenceEncoder::pieces(const std::vector<std::string>& texts, int64_t longest) {
  constexpr size_t kGroup = 32;
  torch::NoGradGuard no_grad;
  Pieces out;
  for (const std::string& text : texts) out.numbers.push_back(words_.encode(text, std::min(longest, longest_)));
  out.vectors = torch::zeros({int64_t(texts.size()), longest, network_->config().dim});
  for (size_t begin = 0; begin < texts.size(); begin += kGroup) {
    const size_t end = std::min(begin + kGroup, texts.size());
    const auto batch = models::pad_texts({out.numbers.begin() + long(begin), out.numbers.begin() + long(end)}, words_.pad());
    const auto vectors = network_(batch.pieces, batch.mask) * batch.mask.unsqueeze(2);
    out.vectors.slice(0, int64_t(begin), int64_t(end)).slice(1, 0, vectors.size(1)).copy_(vectors);
  }
  return out;
}

}  // namespace fovea::infer
