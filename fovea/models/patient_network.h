#pragma once
#include <string>
#include <vector>

#include <torch/torch.h>

#include "fovea/nn/feature_tokens.h"
#include "fovea/nn/fusion_block.h"
#include "fovea/nn/unet_block.h"
#include "fovea/nn/volume_tokens.h"

namespace fovea::models {

/// How the tokens of all modalities become one answer.
enum class PatientFusion {
  kClassToken,     ///< a class token attends over all tokens, through gates
  kConcatenation,  ///< each modality is pooled on its own, the vectors are concatenated: the baseline
};
inline auto config_names(PatientFusion) {
  return std::array{std::pair{PatientFusion::kClassToken, "class_token"}, std::pair{PatientFusion::kConcatenation, "concatenation"}};
}

struct PatientNetworkConfig {
  int64_t images = 0;
  std::vector<int64_t> grid = {32, 32, 32};
  int64_t image_channels = 8;
  int64_t image_levels = 3;
  int64_t numbers = 0;
  std::vector<int64_t> categories;
  int64_t measures = 0;
  int64_t vocabulary = 0;
  int64_t text_tokens = 64;
  int64_t text_width = 0;
  int64_t width = 32;
  int64_t heads = 4;
  int64_t blocks = 2;
  int64_t outputs = 1;
  bool segment = false;
  PatientFusion fusion = PatientFusion::kClassToken;
  double dropout = 0;

  template <class V>
  void visit(V& v) {
    v("images", images, "image modalities, each with an encoder of its own");
    v("grid", grid, "voxels that each image is resampled to, Z, Y, X");
    v("image_channels", image_channels, "of the image encoder's first level");
    v("image_levels", image_levels, "halvings of the grid before tokens are made");
    v("numbers", numbers, "numeric columns");
    v("categories", categories, "words of each categorical column");
    v("measures", measures, "texture and shape measures of the masked region; 0: none");
    v("vocabulary", vocabulary, "word pieces of the text encoder; 0: no text");
    v("text_tokens", text_tokens, "word pieces that are read; the rest is cut off");
    v("text_width", text_width, "of the vector that a frozen encoder gives each word piece; 0: pieces have vectors of their own, learnt");
    v("width", width, "of all tokens");
    v("heads", heads, "attention heads; divides width");
    v("blocks", blocks, "transformer blocks over the tokens of all modalities");
    v("outputs", outputs, "classes, 1 log hazard ratio, or intervals of follow-up");
    v("segment", segment, "the first image is outlined too, from the same tokens");
    v("fusion", fusion, "class_token, or concatenation of each modality's mean: the baseline");
    v("dropout", dropout, "of attention's and perceptrons' results");
  }
  /// Throws ArgumentError naming the field, its value and what it should be.
  void validate() const;
};

/// What is known of B patients. What a patient lacks: images_present false (its voxels are not looked at), NaN, code -1,
/// measures all NaN, text ids all 0.
struct PatientBatch {
  torch::Tensor images;          // [B,M,Z,Y,X] f32, normalised
  torch::Tensor images_present;  // [B,M] bool
  torch::Tensor numbers;         // [B,P] f32, in units of the training set's spread
  torch::Tensor codes;           // [B,Q] int64
  torch::Tensor measures;        // [B,R] f32, in units of the training set's spread
  torch::Tensor text;            // [B,T] int64 word pieces, 0 = none
  torch::Tensor text_vectors;    // [B,T,text_width] f32 of the same pieces, zeros where there is none; undefined without a frozen encoder
};

struct PatientAnswer {
  torch::Tensor outcome;       // [B,outputs]
  torch::Tensor gates;         // [B,modalities] in [0, 1]; 0 where a modality is missing
  torch::Tensor segmentation;  // logits [B,2,Z,Y,X]; undefined without decoder
};

/// One model of a patient: scan, table, measures and text in one sequence behind a class token.
///   tokens  = image cells + table features + measures + word pieces, each with the embedding of its modality
///   gate_m  = sigmoid(w . mean of the tokens of m + b)
///   x       = blocks(class token, tokens), where keys of m have log gate_m added to their scores
///   outcome = head(norm(x of the class token))
/// A gate of 1 leaves attention as it is, a gate of 0 is a modality that is missing: the same answer to the bit. So gates,
/// attention rows and leaving a modality out are all reported, and none of them stands for another.
/// With concatenation there are no gates and no blocks: outcome = head(mlp(means of the modalities, 0 where missing)).
/// Names    image.i.*, table.*, measures.*, words.* or text_in.*, text_position, image_position, kind, class_token, gate.*, blocks.i.*, late.*, late_out.*,
///          norm.*, head.*, decoder.i.*, outline.*
/// Errors   ArgumentError on shapes; a patient of whom nothing is known gets the answer for nothing
class PatientNetworkImpl : public torch::nn::Module {
 public:
  explicit PatientNetworkImpl(const PatientNetworkConfig& config);
  PatientAnswer forward(const PatientBatch& batch);

  /// A modality's name in gates and reports, and its tokens: "image 0", "table", "measures", "text".
  struct Modality {
    std::string name;
    int64_t first = 0, count = 0;  // tokens of the sequence; the class token is number 0
  };
  const std::vector<Modality>& modalities() const { return modalities_; }
  /// Voxels grid of an image's tokens.
  nn::Triple token_grid() const;

  /// While on, forward keeps what attention rows are made of.
  void set_capture(bool on);
  /// What the class token reads, block by block: [blocks,B,H,tokens], exact, gates included.
  torch::Tensor class_rows() const;
  /// The weights that all tasks share: those of the transformer blocks' attention.
  std::vector<torch::Tensor> shared_attention_weights() const;

  const PatientNetworkConfig& config() const { return config_; }

 private:
  struct Tokens;
  void add_image_tokens(const PatientBatch& batch, Tokens& tokens);
  torch::Tensor outline(const Tokens& tokens, const torch::Tensor& sequence);

  PatientNetworkConfig config_;
  std::vector<Modality> modalities_;
  torch::nn::ModuleList images_{nullptr}, blocks_{nullptr}, decoder_{nullptr};
  nn::FeatureTokens table_{nullptr};
  torch::nn::Linear measures_{nullptr}, gate_{nullptr}, text_in_{nullptr}, head_{nullptr}, late_{nullptr}, late_out_{nullptr};
  torch::nn::Embedding words_{nullptr};
  torch::nn::LayerNorm norm_{nullptr};
  nn::UnetOutBlock outline_{nullptr};
  torch::Tensor image_position_, text_position_, kind_, class_token_;
};
TORCH_MODULE(PatientNetwork);

}  // namespace fovea::models
