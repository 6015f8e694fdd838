#pragma once
#include <memory>
#include <vector>

#include <torch/torch.h>

namespace fovea::models {

struct McatConfig {
  std::vector<int64_t> omic_sizes = {100, 200, 300, 400, 500, 600};  ///< genes of each group
  int64_t patch_features = 1024;                                     ///< of a slide's patch
  int64_t classes = 4;                                               ///< intervals of follow-up
  double dropout = 0.25;
};

/// What MCAT says of B patients. The weights [B,...] are exact, before dropout.
struct McatOutput {
  torch::Tensor logits, hazards, survival;  // [B,classes]; hazards = sigmoid(logits), survival = cumprod(1 - hazards)
  torch::Tensor risk;                       // [B]: -sum of survival
  torch::Tensor co_attention;               // [B,groups,M]: of each gene group on the patches
  torch::Tensor co_attention_scores;        // the same before softmax; -inf for patches that are not there
  torch::Tensor path_weights, omic_weights;  // [B,groups]: of the two attention poolings
};

/// Multimodal co-attention transformer: groups of genes ask the patches of a slide, both streams go through a small
/// transformer, are pooled by gated attention and joined.
/// Shapes   patches [B,M,patch_features]; omics: one [B,size] a group; mask bool [B,M], true = a patch, absent: all
/// Names    of the authors' checkpoints: wsi_net.0, sig_networks.i.{0,1}.0, coattn.{in_proj_weight,in_proj_bias,out_proj},
///          {path,omic}_transformer.layers.{0,1}.*, {path,omic}_attention_head.attention_{a,b}.0 and .attention_c,
///          {path,omic}_rho.0, mm.{0,2}, classifier
/// Loss     train::logistic_hazard_loss on logits is the authors' negative log-likelihood with alpha = 0
/// Errors   ArgumentError: shapes that do not fit the configuration; c10::Error for a configuration without groups
/// Cost     O(B*groups*M*256); the patches are never compared with each other
/// Source   Chen et al. 2021 (MCAT), ICCV; form "concat", sizes "small"
class McatImpl : public torch::nn::Module {
 public:
  explicit McatImpl(const McatConfig& config = {});
  McatOutput forward(const torch::Tensor& patches, const std::vector<torch::Tensor>& omics, const torch::Tensor& mask = {});

 private:
  struct GeneGroup;
  struct Attention;
  struct Stream;  // encoder, gated pooling and last layer of one side
  McatConfig config_;
  torch::nn::Sequential wsi_net_{nullptr}, mm_{nullptr};
  torch::nn::ModuleList sig_networks_{nullptr};
  std::vector<std::shared_ptr<GeneGroup>> groups_;
  std::shared_ptr<Attention> coattn_;
  std::shared_ptr<Stream> path_, omic_;
  torch::nn::Linear classifier_{nullptr};
};
TORCH_MODULE(Mcat);

}  // namespace fovea::models
