#include "fovea/models/mcat.h"

#include <cmath>
#include <limits>

#include "fovea/core/error.h"
#include "fovea/nn/attention_scores.h"
#include "fovea/ops/attention.h"
#include "fovea/ops/attention_pool.h"

namespace fovea::models {

namespace {
constexpr int64_t kWidth = 256, kHidden = 512, kHeads = 8, kLayers = 2;
constexpr double kOmicDropout = 0.25;

std::optional<torch::Tensor> given(const torch::Tensor& t) {
  return t.defined() ? std::optional(t) : std::nullopt;
}
}  // namespace

/// Self-normalising perceptron of a group of genes: [B,size] -> [B,E].
struct McatImpl::GeneGroup : torch::nn::Module {
  explicit GeneGroup(int64_t size) {
    const auto layer = [](int64_t in) {
      return torch::nn::Sequential(torch::nn::Linear(in, kWidth), torch::nn::ELU(),
                                   torch::nn::AlphaDropout(kOmicDropout));
    };
    first = register_module("0", layer(size)), second = register_module("1", layer(kWidth));
  }
  torch::Tensor forward(const torch::Tensor& genes) { return second->forward(first->forward(genes)); }
  torch::nn::Sequential first{nullptr}, second{nullptr};
};

/// Multi-head attention with queries, keys and values in one matrix, as torch.nn.MultiheadAttention names it.
struct McatImpl::Attention : torch::nn::Module {
  explicit Attention(int64_t heads) : heads(heads) {
    in_proj_weight = register_parameter("in_proj_weight", torch::empty({3 * kWidth, kWidth}));
    in_proj_bias = register_parameter("in_proj_bias", torch::zeros({3 * kWidth}));
    out_proj = register_module("out_proj", torch::nn::Linear(kWidth, kWidth));
    torch::nn::init::xavier_uniform_(in_proj_weight);
    torch::nn::init::zeros_(out_proj->bias);
  }

  // part 0, 1, 2: queries, keys, values.  b n (h c) -> b h n c
  torch::Tensor project(const torch::Tensor& x, int64_t part) const {
    const auto at = [&](const torch::Tensor& t) { return t.slice(0, part * kWidth, (part + 1) * kWidth); };
    return torch::linear(x, at(in_proj_weight), at(in_proj_bias)).unflatten(-1, {heads, -1}).transpose(1, 2);
  }
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& source, const torch::Tensor& mask = {}) {
    const auto out = std::get<0>(ops::attention(project(x, 0), project(source, 1), project(source, 2), {}, given(mask)));
    return out_proj(out.transpose(1, 2).flatten(2));
  }

  int64_t heads;
  torch::Tensor in_proj_weight, in_proj_bias;
  torch::nn::Linear out_proj{nullptr};
};

namespace {
/// torch.nn.TransformerEncoderLayer: norms after the sums, ReLU.
template <class Attention>
struct EncoderLayer : torch::nn::Module {
  explicit EncoderLayer(double rate) {
    self_attn = register_module("self_attn", std::make_shared<Attention>(kHeads));
    linear1 = register_module("linear1", torch::nn::Linear(kWidth, kHidden));
    linear2 = register_module("linear2", torch::nn::Linear(kHidden, kWidth));
    norm1 = register_module("norm1", torch::nn::LayerNorm(torch::nn::LayerNormOptions({kWidth})));
    norm2 = register_module("norm2", torch::nn::LayerNorm(torch::nn::LayerNormOptions({kWidth})));
    drop = register_module("dropout", torch::nn::Dropout(rate));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    const auto y = norm1(x + drop(self_attn->forward(x, x)));
    return norm2(y + drop(linear2(drop(torch::relu(linear1(y))))));
  }
  std::shared_ptr<Attention> self_attn;
  torch::nn::Linear linear1{nullptr}, linear2{nullptr};
  torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  torch::nn::Dropout drop{nullptr};
};
}  // namespace

struct McatImpl::Stream {
  Stream(torch::nn::Module& owner, const std::string& name, double rate) {
    auto transformer = owner.register_module(name + "_transformer", std::make_shared<torch::nn::Module>());
    auto list = transformer->register_module("layers", torch::nn::ModuleList());
    for (int64_t i = 0; i < kLayers; ++i) {
      layers.push_back(std::make_shared<EncoderLayer<Attention>>(rate));
      list->push_back(layers.back());
    }
    head = owner.register_module(name + "_attention_head", nn::AttentionScores(nn::AttentionScoresOptions(kWidth, kWidth).dropout(rate)));
    rho = owner.register_module(name + "_rho", torch::nn::Sequential(torch::nn::Linear(kWidth, kWidth), torch::nn::ReLU(), torch::nn::Dropout(rate)));
  }

  // tokens [B,groups,E] -> vector [B,E] and the weights [B,groups] of its parts
  std::pair<torch::Tensor, torch::Tensor> read(torch::Tensor tokens) {
    for (auto& layer : layers) tokens = layer->forward(tokens);
    const auto scores = head(tokens).squeeze(2);
    const auto offsets = torch::arange(tokens.size(0) + 1, torch::TensorOptions(torch::kInt64).device(tokens.device())) * tokens.size(1);
    const auto mean = std::get<0>(ops::attention_pool(scores.reshape({-1, 1}), tokens.flatten(0, 1), offsets));
    return {rho->forward(mean.squeeze(1)), scores.softmax(1).detach()};
  }

  std::vector<std::shared_ptr<EncoderLayer<Attention>>> layers;
  nn::AttentionScores head{nullptr};
  torch::nn::Sequential rho{nullptr};
};

McatImpl::McatImpl(const McatConfig& config) : config_(config) {
  TORCH_CHECK(!config.omic_sizes.empty() && config.patch_features > 0 && config.classes > 0, "mcat: ",
              config.omic_sizes.size(), " groups of genes, ", config.patch_features, " patch_features, ",
              config.classes, " classes, expected at least one of each");
  using torch::nn::Linear;
  wsi_net_ = register_module("wsi_net", torch::nn::Sequential(Linear(config.patch_features, kWidth), torch::nn::ReLU(), torch::nn::Dropout(config.dropout)));
  sig_networks_ = register_module("sig_networks", torch::nn::ModuleList());
  for (const int64_t size : config.omic_sizes) {
    groups_.push_back(std::make_shared<GeneGroup>(size));
    sig_networks_->push_back(groups_.back());
  }
  coattn_ = register_module("coattn", std::make_shared<Attention>(1));
  path_ = std::make_shared<Stream>(*this, "path", config.dropout);
  omic_ = std::make_shared<Stream>(*this, "omic", config.dropout);
  mm_ = register_module("mm", torch::nn::Sequential(Linear(2 * kWidth, kWidth), torch::nn::ReLU(), Linear(kWidth, kWidth), torch::nn::ReLU()));
  classifier_ = register_module("classifier", Linear(kWidth, config.classes));
}

McatOutput McatImpl::forward(const torch::Tensor& patches, const std::vector<torch::Tensor>& omics, const torch::Tensor& mask) {
  if (patches.dim() != 3 || patches.size(2) != config_.patch_features)
    throw ArgumentError(c10::str("mcat: patches is ", patches.sizes(), ", expected [B,M,", config_.patch_features, "]"));
  if (omics.size() != config_.omic_sizes.size())
    throw ArgumentError(c10::str("mcat: ", omics.size(), " groups of genes, expected ", config_.omic_sizes.size()));
  if (mask.defined() && (mask.scalar_type() != torch::kBool || mask.sizes() != patches.sizes().slice(0, 2)))
    throw ArgumentError(c10::str("mcat: mask is ", mask.dtype(), " ", mask.sizes(), ", expected bool ", patches.sizes().slice(0, 2)));
  std::vector<torch::Tensor> groups;
  for (size_t i = 0; i < omics.size(); ++i) {
    if (omics[i].dim() != 2 || omics[i].size(0) != patches.size(0) || omics[i].size(1) != config_.omic_sizes[i])
      throw ArgumentError(c10::str("mcat: group ", i, " of genes is ", omics[i].sizes(), ", expected [", patches.size(0), ",", config_.omic_sizes[i], "]"));
    groups.push_back(groups_[i]->forward(omics[i]));
  }
  const auto slide = wsi_net_->forward(patches), genes = torch::stack(groups, 1);  // B M E, B groups E

  McatOutput out;
  const auto asked = coattn_->forward(genes, slide, mask);
  {
    torch::NoGradGuard no_grad;
    const auto q = coattn_->project(genes, 0), k = coattn_->project(slide, 1);
    out.co_attention = ops::attention_rows(q, k, torch::arange(genes.size(1)), {}, given(mask)).squeeze(1);
    out.co_attention_scores = (torch::matmul(q, k.transpose(-1, -2)) / std::sqrt(double(kWidth))).squeeze(1);
    if (mask.defined())
      out.co_attention_scores.masked_fill_(~mask.unsqueeze(1), -std::numeric_limits<double>::infinity());
  }
  torch::Tensor path, omic;
  std::tie(path, out.path_weights) = path_->read(asked);
  std::tie(omic, out.omic_weights) = omic_->read(genes);
  out.logits = classifier_(mm_->forward(torch::cat({path, omic}, 1)));
  out.hazards = out.logits.sigmoid();
  out.survival = (1 - out.hazards).cumprod(1);
  out.risk = -out.survival.sum(1);
  return out;
}

}  // namespace fovea::models
