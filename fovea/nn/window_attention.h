#pragma once
#include <memory>
#include <tuple>

#include <torch/torch.h>

#include "fovea/nn/continuous_bias.h"
#include "fovea/nn/head_temperature.h"
#include "fovea/nn/patch_embed.h"

namespace fovea::nn {

/// What a position is that only exists because the grid was padded to a multiple of the window.
enum class PaddedTokens {
  kAttend,   ///< a key with k, v of the qkv bias, as in Video Swin and MONAI
  kExclude,  ///< no key
};

/// What two tokens are to each other that only the cyclic shift brought into one window.
enum class RegionMask {
  kAdditive,  ///< -100 on their score, as in Swin and MONAI
  kExclude,   ///< strangers
};

/// How the bias is looked up in a window clipped to a grid smaller than the window.
enum class ClippedBias {
  kCornerOfIndex,  ///< the first n rows and columns of the full window's index, as in Video Swin and MONAI: not the displacement
  kDisplacement,   ///< by displacement, as everywhere else
};

/// What softmax sees of a query and a key, bias apart.
enum class WindowScores {
  kDotProduct,  ///< <q, k> / sqrt(C)
  kCosine,      ///< beta_h cos(q, k), beta_h learned, from 10, at most 100: Swin-v2. Then k has no bias
};

/// Where the bias of a displacement comes from.
enum class WindowBias {
  kTable,       ///< an entry for each displacement
  kContinuous,  ///< nn::ContinuousBias: Swin-v2
};

struct WindowAttentionOptions {
  WindowAttentionOptions(int64_t dim, int64_t heads) : dim_(dim), heads_(heads) {}
  TORCH_ARG(int64_t, dim);
  TORCH_ARG(int64_t, heads);
  TORCH_ARG(Triple, window) = {7, 7, 7};
  TORCH_ARG(Triple, shift) = {0, 0, 0};
  TORCH_ARG(bool, qkv_bias) = true;
  TORCH_ARG(double, dropout) = 0;
  TORCH_ARG(PaddedTokens, padded_tokens) = PaddedTokens::kExclude;
  TORCH_ARG(RegionMask, region_mask) = RegionMask::kExclude;
  TORCH_ARG(ClippedBias, clipped_bias) = ClippedBias::kDisplacement;
  TORCH_ARG(WindowScores, scores) = WindowScores::kDotProduct;
  TORCH_ARG(WindowBias, bias) = WindowBias::kTable;
  TORCH_ARG(Triple, trained_window) = {0, 0, 0};  ///< of kContinuous, where its weights come from another window
};

/// Multi-head attention inside (shifted) windows of a token grid, with relative position bias: self, or of one modality
/// on another that lies on the same grid.
///   out = proj(window_attention(q(x), k(source), v(source))),  source = x unless given; (q, k, v) are the rows of qkv
/// An axis no longer than the window is one window without shift. The op does partition, roll, mask and reverse by index
/// arithmetic: x is never rolled or copied into windows. Defaults are the exact mathematics; MONAI's weights want the
/// first choice of each of the three enums above.
/// Shapes   x, source, out [B,Z,Y,X,E]
/// Names    qkv.{weight [3E,E],bias}, proj.{weight,bias}, relative_position_bias_table [(2wz-1)(2wy-1)(2wx-1),H],
///          buffer relative_position_index int64 [w^3,w^3]; with kCosine logit_scale [H,1,1] and, for qkv.bias, q_bias and
///          v_bias [E]; with kContinuous cpb_mlp.{0,2}.* for the table
/// Source   Liu et al. 2021 (Swin), arXiv:2103.14030, eq. 4; Liu et al. 2022 (Swin-v2), arXiv:2111.09883, section 3; two
///          modalities: Meng et al. 2023 (XSurv), arXiv:2307.11330, whose q and kv are the rows of qkv
class WindowAttentionImpl : public torch::nn::Module {
 public:
  explicit WindowAttentionImpl(const WindowAttentionOptions& options);
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& source = {});
  /// x + forward(norm(x)).
  torch::Tensor add_to(const torch::Tensor& x, const torch::nn::LayerNorm& norm);

  // torch would convert the index to a floating dtype together with the parameters.
  using torch::nn::Module::to;
  void to(torch::Device device, torch::Dtype dtype, bool non_blocking = false) override;
  void to(torch::Dtype dtype, bool non_blocking = false) override;

  /// While on, forward keeps the arguments of its last op call (3E numbers a token), so that rows() can answer.
  void set_capture(bool on);

  /// Exact attention weights of the last captured forward, by the arguments of that very call.
  /// Shapes   queries int64 [R] of flat token indices (z*Y + y)*X + x -> weights [B,H,R,n], keys int64 [R,n] (flat token
  ///          index, -1: a padded position)
  std::tuple<torch::Tensor, torch::Tensor> rows(const torch::Tensor& queries) const;

  /// Z, Y, X of the token grid of the last captured forward.
  Triple captured_grid() const;

  const WindowAttentionOptions& options() const { return options_; }

  torch::nn::Linear qkv{nullptr}, proj{nullptr};
  torch::nn::Dropout proj_drop{nullptr};
  torch::Tensor relative_position_bias_table, relative_position_index;
  torch::Tensor q_bias, v_bias;             // with kCosine
  HeadTemperature temperature{nullptr};     // with kCosine
  ContinuousBias cpb_mlp{nullptr};          // with kContinuous

 private:
  struct Call;
  torch::Tensor attend(const torch::Tensor& x, const torch::nn::LayerNorm& norm,
                       const torch::Tensor& source = {});                              // what enters proj
  torch::Tensor bias_table();                                                          // [(2w-1)^3,H]
  torch::Tensor clipped_bias(const torch::Tensor& table, const Triple& window) const;  // [H,n,n]
  torch::Tensor cosine_qkv(const torch::Tensor& qkv) const;                            // [...,3,H,C]

  WindowAttentionOptions options_;
  bool capture_ = false;
  std::shared_ptr<const Call> captured_;
};
TORCH_MODULE(WindowAttention);

/// Row of the bias table for each (query, key) of a window's tokens in Z, Y, X order: int64 [n,n].
torch::Tensor relative_position_index_of(const Triple& window);

}  // namespace fovea::nn
