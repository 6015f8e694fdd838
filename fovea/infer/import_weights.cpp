#include "fovea/infer/import_weights.h"

#include <cmath>
#include <fstream>

#include "fovea/core/error.h"
#include "fovea/infer/weights.h"
#include "fovea/io/torch_pickle.h"

namespace fovea::infer {
namespace {

/// Tensors by their network names, with shapes as evidence.
class Evidence {
 public:
  Evidence(const io::TensorMap& tensors, const std::string& where) : tensors_(with_network_names(tensors, where)), where_(where) {}

  bool has(const std::string& name) const { return tensors_.contains(name); }
  const io::TensorData& tensor(const std::string& name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw ArgumentError(where_ + ": tensor '" + name + "' is missing, so the network cannot be told from the weights");
    return found->second;
  }
  /// Size along `axis` of a tensor that must have `rank` axes.
  int64_t size(const std::string& name, size_t rank, size_t axis) const {
    const auto& shape = tensor(name).shape;
    if (shape.size() != rank) {
      throw ArgumentError(where_ + ": '" + name + "' has " + std::to_string(shape.size()) + " axes, expected " + std::to_string(rank) + "; only 3-D networks are known");
    }
    return shape[axis];
  }
  /// How many of prefix0suffix, prefix1suffix, ... are there.
  int64_t count(const std::string& prefix, const std::string& suffix) const {
    int64_t n = 0;
    while (has(prefix + std::to_string(n) + suffix)) ++n;
    return n;
  }
  const std::string& where() const { return where_; }

 private:
  io::TensorMap tensors_;
  std::string where_;
};

/// Window whose tokens and displacements have the given numbers. Where several orders fit, the index decides: its first
/// row holds the displacement of token 0 from each other, and falls by 1 while the last axis runs.
std::vector<int64_t> window_of(const Evidence& e, const std::string& attention) {
  const int64_t rows = e.size(attention + "relative_position_bias_table", 2, 0);
  std::vector<std::vector<int64_t>> fitting;
  for (int64_t z = 1; 2 * z - 1 <= rows; ++z) {
    if (rows % (2 * z - 1) != 0) continue;
    const int64_t plane = rows / (2 * z - 1);
    for (int64_t y = 1; 2 * y - 1 <= plane; ++y) {
      if (plane % (2 * y - 1) == 0) fitting.push_back({z, y, (plane / (2 * y - 1) + 1) / 2});
    }
  }
  const std::string index = attention + "relative_position_index";
  if (e.has(index)) {
    const auto& data = e.tensor(index);
    const int64_t tokens = e.size(index, 2, 0);
    std::erase_if(fitting, [&](const auto& w) { return w[0] * w[1] * w[2] != tokens; });
    if (data.dtype == DType::kI64 && fitting.size() > 1) {
      const auto* values = reinterpret_cast<const int64_t*>(data.data.data());
      int64_t x = 1;
      while (x < tokens && values[x] == values[x - 1] - 1) ++x;
      std::erase_if(fitting, [&](const auto& w) { return w[2] != x; });
      int64_t y = 1;
      const int64_t row_step = 2 * x - 1;
      while (x * y < tokens && values[x * y] == values[x * (y - 1)] - row_step) ++y;
      std::erase_if(fitting, [&](const auto& w) { return w[1] != y; });
    }
  } else {
    std::erase_if(fitting, [](const auto& w) { return w[0] != w[1] || w[1] != w[2]; });
  }
  if (fitting.empty()) throw ArgumentError(e.where() + ": no window has the " + std::to_string(rows) + " displacements of '" + attention + "relative_position_bias_table'");
  return fitting.front();
}

models::SwinUnetrConfig swin_unetr_config(const Evidence& e) {
  models::SwinUnetrConfig config;
  const std::string embed = "swinViT.patch_embed.proj.weight", first = "swinViT.layers1.0.blocks.0.";
  config.feature_size = e.size(embed, 5, 0);
  config.in_channels = e.size(embed, 5, 1);
  config.patch_size = e.size(embed, 5, 2);
  if (e.has("out.conv.conv.weight")) config.out_channels = e.size("out.conv.conv.weight", 5, 0);
  for (size_t i = 0; i < config.depths.size(); ++i) {
    const std::string stage = "swinViT.layers" + std::to_string(i + 1) + ".0.blocks.";
    config.depths[i] = e.count(stage, ".norm1.weight");
    config.num_heads[i] = e.size(stage + "0.attn.relative_position_bias_table", 2, 1);
  }
  config.window_size = window_of(e, first + "attn.");
  config.qkv_bias = e.has(first + "attn.qkv.bias");
  config.mlp_ratio = static_cast<double>(e.size(first + "mlp.linear1.weight", 2, 0)) / static_cast<double>(config.feature_size);
  config.patch_norm = e.has("swinViT.patch_embed.norm.weight");
  config.use_v2 = e.has("swinViT.layers1c.0.layer.conv1.conv.weight");
  config.deep_supervision = e.count("deep_out.", ".conv.conv.weight");
  config.validate();
  return config;
}

models::UnetrConfig unetr_config(const Evidence& e) {
  models::UnetrConfig config;
  const std::string position = "vit.patch_embedding.position_embeddings";
  config.hidden_size = e.size(position, 3, 2);
  config.in_channels = e.size("encoder1.layer.conv1.conv.weight", 5, 1);
  config.feature_size = e.size("encoder1.layer.conv1.conv.weight", 5, 0);
  config.out_channels = e.size("out.conv.conv.weight", 5, 0);
  config.mlp_dim = e.size("vit.blocks.0.mlp.linear1.weight", 2, 0);
  config.proj_type = e.has("vit.patch_embedding.patch_embeddings.weight") ? "conv" : "perceptron";
  config.qkv_bias = e.has("vit.blocks.0.attn.qkv.bias");
  config.conv_block = !e.has("encoder3.blocks.0.conv.weight");
  config.res_block = e.has("encoder1.layer.conv3.conv.weight") || e.has("decoder5.conv_block.conv3.conv.weight");
  constexpr int64_t kHeadChannels = 64, kPatch = 16;
  config.num_heads = std::max<int64_t>(1, config.hidden_size / kHeadChannels);
  // The tokens of a cube; a positions table has no other shape to show.
  const int64_t tokens = e.size(position, 3, 1), edge = std::llround(std::cbrt(static_cast<double>(tokens)));
  if (edge * edge * edge != tokens) {
    throw ArgumentError(e.where() + ": '" + position + "' has " + std::to_string(tokens) + " tokens, expected those of a cube; give the network's configuration");
  }
  config.img_size = {edge * kPatch, edge * kPatch, edge * kPatch};
  config.validate();
  return config;
}

}  // namespace

io::TensorMap read_weights(const std::filesystem::path& path) {
  char start[2] = {};
  std::ifstream(path, std::ios::binary).read(start, 2);
  // A zip archive (PyTorch 1.6 and later) or a bare pickle; a safetensors file begins with the length of its header.
  const bool pickle = (start[0] == 'P' && start[1] == 'K') || start[0] == '\x80';
  return pickle ? io::read_torch_state_dict(path) : io::read_safetensors(path);
}

models::NetworkConfig infer_config(const io::TensorMap& tensors, const std::string& where) {
  const Evidence evidence(tensors, where);
  if (evidence.has("swinViT.patch_embed.proj.weight")) return swin_unetr_config(evidence);
  if (evidence.has("vit.patch_embedding.position_embeddings")) return unetr_config(evidence);
  throw ArgumentError(where + ": no known network has these names; expected those of MONAI's SwinUNETR (swinViT.patch_embed.proj.weight ...) or UNETR (vit...)");
}

}  // namespace fovea::infer
