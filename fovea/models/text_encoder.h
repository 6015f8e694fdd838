#pragma once
#include <vector>

#include <torch/torch.h>

#include "fovea/nn/mlp.h"
#include "fovea/nn/multi_head_attention.h"

namespace fovea::models {

struct TextEncoderConfig {
  int64_t vocabulary = 30522;
  int64_t dim = 384;
  int64_t layers = 6;
  int64_t heads = 12;
  int64_t hidden = 1536;
  int64_t longest = 512;
  int64_t segments = 2;
  double epsilon = 1e-12;
  double dropout = 0;

  template <class V>
  void visit(V& v) {
    v("vocabulary", vocabulary, "pieces that have a vector");
    v("dim", dim, "width of a token");
    v("layers", layers, "transformer layers");
    v("heads", heads, "attention heads; divides dim");
    v("hidden", hidden, "hidden width of the perceptron");
    v("longest", longest, "pieces of the longest text, marks included");
    v("segments", segments, "kinds of sentence that have a vector; texts of one sentence use the first");
    v("epsilon", epsilon, "of the layer norms");
    v("dropout", dropout, "of embeddings, attention and perceptron outputs, while training");
  }
  /// Throws ArgumentError naming the field, its value and what it should be.
  void validate() const;
};

/// One layer: norm after each residual sum.
///   x = norm1(x + attention(x));  out = norm2(x + mlp(x))
class TextLayerImpl : public torch::nn::Module {
 public:
  explicit TextLayerImpl(const TextEncoderConfig& config);
  torch::Tensor forward(torch::Tensor x, const torch::Tensor& mask);

  nn::MultiHeadAttention attention{nullptr};
  torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  nn::Mlp mlp{nullptr};
};
TORCH_MODULE(TextLayer);

/// BERT's encoder: word, position and segment vectors, then layers with the norm after each sum.
/// Shapes   pieces int64 [B,T], mask bool [B,T] (true = a piece, false = padding) -> [B,T,E]; what padding gives means
///          nothing and changes nothing else
/// Names    {word,position,segment}.weight, norm.*, layer.i.attention.{q,k,v,out}_proj.*, layer.i.norm{1,2}.*,
///          layer.i.mlp.linear{1,2}.*; infer::bert_weights() translates public files
/// Errors   ArgumentError: a text longer than config.longest, a piece that has no vector, a mask of another shape
/// Source   Devlin et al. 2019, arXiv:1810.04805
class TextEncoderImpl : public torch::nn::Module {
 public:
  explicit TextEncoderImpl(const TextEncoderConfig& config);
  torch::Tensor forward(const torch::Tensor& pieces, const torch::Tensor& mask);
  const TextEncoderConfig& config() const { return config_; }

  torch::nn::Embedding word{nullptr}, position{nullptr}, segment{nullptr};
  torch::nn::LayerNorm norm{nullptr};
  std::vector<TextLayer> layers;

 private:
  TextEncoderConfig config_;
  torch::nn::Dropout drop_{nullptr};
};
TORCH_MODULE(TextEncoder);

/// Texts of different lengths as one rectangle: pieces int64 [B,T] filled up with `pad`, mask bool [B,T].
struct TextBatch {
  torch::Tensor pieces, mask;
};
TextBatch pad_texts(const std::vector<std::vector<int64_t>>& texts, int64_t pad);

/// Mean of the tokens that are no padding, of length 1: tokens [B,T,E], mask bool [B,T] -> [B,E].
/// Source   Reimers & Gurevych 2019 (Sentence-BERT), section 3: mean pooling
torch::Tensor sentence_vectors(const torch::Tensor& tokens, const torch::Tensor& mask);

}  // namespace fovea::models
