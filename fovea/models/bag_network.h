#pragma once
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include <torch/torch.h>

// Multiple-instance learning: one label for a bag of rows (the tiles of a slide, the digits of a bag).
namespace fovea::models {

/// What a network says of bags. Bag b holds rows offsets[b] <= n < offsets[b+1].
struct BagAnswer {
  torch::Tensor logits;           // [bags,K]: of K classes; K = 1: of being positive
  torch::Tensor scores;           // [N,H]: before softmax over the bag; undefined without attention pooling
  torch::Tensor lse;              // [bags,H]: log of the sum of exp(scores) over a bag
  torch::Tensor instance_logits;  // [N,classes,2]: CLAM's instance classifiers; else undefined
};

struct BagNetworkImpl : torch::nn::Module {
  using torch::nn::Module::Module;

  /// Shapes   rows [N,features] ([N,1,28,28] for digits), offsets int64 [bags+1] ascending from 0 to N
  /// Errors   ArgumentError: shapes, a bag without rows
  virtual BagAnswer forward(const torch::Tensor& rows, const torch::Tensor& offsets) = 0;

  /// How much of each row the answer read, [N,H]: sums to 1 in every bag. For a pooling without attention: what the mean
  /// or the maximum read. H: one, or one a class.
  virtual torch::Tensor weights(const torch::Tensor& rows, const torch::Tensor& offsets) = 0;

  /// Numbers of a row; 0: digits of 28 x 28 pixels.
  virtual int64_t features() const = 0;
  /// K of logits.
  virtual int64_t outputs() const = 0;

 protected:
  /// Throws unless rows and offsets are of the given form; `network` begins the message.
  void check_bags(const char* network, const torch::Tensor& rows, const torch::Tensor& offsets) const;
};
using BagNetwork = std::shared_ptr<BagNetworkImpl>;

/// exp(scores - lse of the row's bag): [N,H].
torch::Tensor bag_weights(const torch::Tensor& scores, const torch::Tensor& lse, const torch::Tensor& offsets);

enum class BagPooling {
  kAttention,  ///< Ilse et al., equation 8
  kGated,      ///< equation 9
  kMax,        ///< of each channel: baseline
  kMean,       ///< baseline
};
inline auto config_names(BagPooling) {
  return std::array{std::pair{BagPooling::kAttention, "attention"}, std::pair{BagPooling::kGated, "gated"}, std::pair{BagPooling::kMax, "max"},
                    std::pair{BagPooling::kMean, "mean"}};
}

/// Ilse et al. 2018.  h = embed(row);  z = sum a_n h_n;  logit = classifier(z)
/// Names    of AMLab-Amsterdam/AttentionDeepMIL: feature_extractor_part1.{0,3} (digits), feature_extractor_part2.0,
///          attention.{0,2}, or gated: attention_V.0, attention_U.0, attention_weights; classifier.0. More layers of
///          `embed`: feature_extractor_part2.{2,4,...}.
struct AbmilConfig {
  int64_t features = 0;
  std::vector<int64_t> embed = {500};
  int64_t hidden = 128;
  BagPooling pooling = BagPooling::kGated;
  int64_t outputs = 1;
  double dropout = 0;

  template <class V>
  void visit(V& v) {
    v("features", features, "numbers of a row; 0: digits of 28 x 28 pixels");
    v("embed", embed, "widths of the layers between a row and what is pooled; empty: the row itself");
    v("hidden", hidden, "rows of V and U in the attention");
    v("pooling", pooling, "gated, attention, or the baselines max and mean");
    v("outputs", outputs, "1: positive or not; K: classes");
    v("dropout", dropout, "behind each layer of embed");
  }
  void validate() const;
};

/// Lu et al. 2021.  h = relu(W row);  z_c = sum_n a_cn h_n;  logit_c = w_c z_c, with one attention for all classes (SB) or
/// one a class (MB), and a classifier of single rows a class, for train::clam_instance_loss.
/// Names    of mahmoodlab/CLAM: attention_net.0, attention_net.3.*, classifiers(.c), instance_classifiers.c
struct ClamConfig {
  int64_t features = 1024;
  int64_t width = 512;
  int64_t hidden = 256;
  int64_t classes = 2;
  bool multi_branch = false;
  bool gated = true;
  double dropout = 0.25;

  template <class V>
  void visit(V& v) {
    v("features", features, "numbers of a row");
    v("width", width, "of what is pooled");
    v("hidden", hidden, "rows of V and U in the attention: 256 small, 384 big");
    v("classes", classes, "classes of a bag");
    v("multi_branch", multi_branch, "one attention a class (MB) in place of one for all (SB)");
    v("gated", gated, "attention with a gate");
    v("dropout", dropout, "behind the first layer and in the attention");
  }
  void validate() const;
};

/// Shao et al. 2021: see nn::NystromAttention.  Rows are put on a square in their order, the first ones repeated to fill
/// it; class token; attention, depthwise 7 + 5 + 3 convolutions on the square (PPEG), attention; logits of the class token.
/// Names    of szc19990412/TransMIL: _fc1.0, cls_token, layer1.*, pos_layer.{proj,proj1,proj2}, layer2.*, norm, _fc2
struct TransmilConfig {
  int64_t features = 1024;
  int64_t width = 512;
  int64_t heads = 8;
  int64_t landmarks = 256;
  int64_t classes = 2;
  double dropout = 0.1;

  template <class V>
  void visit(V& v) {
    v("features", features, "numbers of a row");
    v("width", width, "of all tokens");
    v("heads", heads, "attention heads; divides width");
    v("landmarks", landmarks, "of the Nystrom attention");
    v("classes", classes, "classes of a bag");
    v("dropout", dropout, "of the attention's result");
  }
  void validate() const;
};

using BagConfig = std::variant<AbmilConfig, ClamConfig, TransmilConfig>;

/// "abmil", "clam", "transmil".
std::string family_of(const BagConfig& config);
/// Errors   ArgumentError naming the nearest known family
BagConfig default_bag_config(const std::string& family);
/// Sets what the data decide: the numbers of a row, and the classes (2 classes are one logit of abmil).
void set_bag_sizes(BagConfig& config, int64_t features, int64_t classes);

/// Weights drawn from `seed` alone; torch's default generator is left as it was.
/// Errors   ArgumentError if the configuration does not validate
BagNetwork make_bag_network(const BagConfig& config, uint64_t seed = 0);

}  // namespace fovea::models
