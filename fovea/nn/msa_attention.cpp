#include "fovea/nn/msa_attention.h"

#include <cmath>
#include <limits>

#include "fovea/core/error.h"
#include "fovea/ops/axial_attention.h"

namespace fovea::nn {

namespace {
torch::nn::Linear linear(int64_t in, int64_t out, bool bias) { return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(bias)); }

void check(const char* layer, const torch::Tensor& x, const torch::Tensor& mask, int64_t dim) {
  if (x.dim() != 4 || x.size(3) != dim) throw ArgumentError(c10::str(layer, ": x is ", x.sizes(), ", expected [B,R,L,", dim, "]"));
  if (mask.defined() && (mask.scalar_type() != torch::kBool || mask.sizes() != x.sizes().slice(0, 3)))
    throw ArgumentError(c10::str(layer, ": mask is ", mask.dtype(), " ", mask.sizes(), ", expected bool ", x.sizes().slice(0, 3)));
}
}  // namespace

MsaAttentionImpl::MsaAttentionImpl(const MsaAttentionOptions& options) : options_(options) {
  const int64_t dim = options.dim(), inner = options.heads() * options.head_dim();
  if (options.heads() < 1 || options.head_dim() < 1) throw ArgumentError(c10::str("msa_attention: ", options.heads(), " heads of ", options.head_dim(), " channels"));
  if (options.pair_dim() > 0 && options.over() == Over::kSequences) throw ArgumentError("msa_attention: pairs of residues say nothing of pairs of sequences; expected pair_dim 0 over sequences");
  q_proj = register_module("q_proj", linear(dim, inner, options.bias())), k_proj = register_module("k_proj", linear(dim, inner, options.bias()));
  v_proj = register_module("v_proj", linear(dim, inner, options.bias())), out_proj = register_module("out_proj", linear(inner, dim, true));
  if (options.gated()) g_proj = register_module("g_proj", linear(dim, inner, true));
  if (options.pair_dim() == 0) return;
  pair_norm = register_module("pair_norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({options.pair_dim()})));
  pair_bias = register_module("pair_bias", linear(options.pair_dim(), options.heads(), false));
}

torch::Tensor MsaAttentionImpl::forward(const torch::Tensor& x, const torch::Tensor& pair, const torch::Tensor& mask) {
  check("msa_attention", x, mask, options_.dim());
  std::optional<torch::Tensor> bias;
  if (pair.defined()) {
    if (!pair_bias || pair.sizes() != torch::IntArrayRef({x.size(0), x.size(2), x.size(2), options_.pair_dim()}))
      throw ArgumentError(c10::str("msa_attention: pair is ", pair.sizes(), ", expected [", x.size(0), ",", x.size(2), ",", x.size(2), ",", options_.pair_dim(), "]"));
    bias = pair_bias(pair_norm(pair)).permute({0, 3, 1, 2}).contiguous();
  }
  const auto qkv = torch::stack({q_proj(x), k_proj(x), v_proj(x)}, 3).unflatten(4, {options_.heads(), options_.head_dim()});
  auto read = ops::axial_attention(qkv, options_.over() == Over::kResidues ? "residues" : "sequences", bias, options_.tied(),
                                   mask.defined() ? std::optional<torch::Tensor>(mask) : std::nullopt);
  if (g_proj) read = read * torch::sigmoid(g_proj(x));
  return out_proj(read);
}

torch::Tensor MsaAttentionImpl::tied_map(const torch::Tensor& x) {
  if (!options_.tied() || options_.over() != Over::kResidues) throw ArgumentError("msa_attention: only tied attention over residues has one map");
  check("msa_attention", x, {}, options_.dim());
  torch::NoGradGuard no_grad;
  const auto q = q_proj(x).unflatten(3, {options_.heads(), options_.head_dim()}), k = k_proj(x).unflatten(3, {options_.heads(), options_.head_dim()});
  return torch::softmax(torch::einsum("brihc,brjhc->bhij", {q, k}) / std::sqrt(double(options_.head_dim() * x.size(1))), 3);
}

GlobalColumnAttentionImpl::GlobalColumnAttentionImpl(int64_t dim, int64_t heads, int64_t head_dim) : heads_(heads), head_dim_(head_dim) {
  q_proj = register_module("q_proj", linear(dim, heads * head_dim, false)), k_proj = register_module("k_proj", linear(dim, head_dim, false));
  v_proj = register_module("v_proj", linear(dim, head_dim, false)), g_proj = register_module("g_proj", linear(dim, heads * head_dim, true));
  out_proj = register_module("out_proj", linear(heads * head_dim, dim, true));
}

torch::Tensor GlobalColumnAttentionImpl::forward(const torch::Tensor& x, const torch::Tensor& mask) {
  check("global_column_attention", x, mask, q_proj->options.in_features());
  const auto part = mask.defined() ? mask.to(x.scalar_type()) : torch::ones(x.sizes().slice(0, 3), x.options());  // B R L
  const auto mean = (x * part.unsqueeze(3)).sum(1) / part.sum(1).clamp_min(1).unsqueeze(2);                          // B L E
  const auto q = q_proj(mean).unflatten(2, {heads_, head_dim_}) / std::sqrt(double(head_dim_));                      // B L H C
  const auto k = k_proj(x).transpose(1, 2), v = v_proj(x).transpose(1, 2);                                           // B L R C
  const auto closed = (part == 0).transpose(1, 2).unsqueeze(2);                                                      // B L 1 R
  auto weights = torch::softmax(torch::matmul(q, k.transpose(2, 3)).masked_fill(closed, -std::numeric_limits<float>::infinity()), 3);
  weights = weights.masked_fill(closed, 0);  // where all are closed, softmax is 0/0
  const auto read = torch::matmul(weights, v).flatten(2);                                                            // B L (H C)
  return out_proj(torch::sigmoid(g_proj(x)) * read.unsqueeze(1));
}

MsaBlockImpl::MsaBlockImpl(const MsaBlockOptions& options) : options_(options) {
  const auto norm = [&] { return torch::nn::LayerNorm(torch::nn::LayerNormOptions({options.dim()})); };
  const auto part = [&](const char* name) { return register_module(name, std::make_shared<torch::nn::Module>()); };
  const auto row = part("row_self_attention"), column = part("column_self_attention"), feed = part("feed_forward_layer");
  row_norm_ = row->register_module("layer_norm", norm());
  row_ = row->register_module("layer", MsaAttention(MsaAttentionOptions(options.dim(), options.heads(), Over::kResidues).tied(options.tied())));
  column_norm_ = column->register_module("layer_norm", norm());
  column_ = column->register_module("layer", MsaAttention(MsaAttentionOptions(options.dim(), options.heads(), Over::kSequences)));
  feed_norm_ = feed->register_module("layer_norm", norm());
  const auto perceptron = feed->register_module("layer", std::make_shared<torch::nn::Module>());
  fc1_ = perceptron->register_module("fc1", torch::nn::Linear(options.dim(), options.hidden()));
  fc2_ = perceptron->register_module("fc2", torch::nn::Linear(options.hidden(), options.dim()));
}

torch::Tensor MsaBlockImpl::forward(torch::Tensor x, const torch::Tensor& mask) {
  for (const Over over : {options_.first(), options_.first() == Over::kResidues ? Over::kSequences : Over::kResidues})
    x = x + (over == Over::kResidues ? row_(row_norm_(x), torch::Tensor(), mask) : column_(column_norm_(x), torch::Tensor(), mask));
  return x + fc2_(torch::gelu(fc1_(feed_norm_(x))));
}

torch::Tensor MsaBlockImpl::residue_map(const torch::Tensor& x) {
  if (options_.first() != Over::kResidues) throw ArgumentError("msa_block: the map of attention over residues is that of the input, expected first = kResidues");
  torch::NoGradGuard no_grad;
  return row_->tied_map(row_norm_(x));
}

}  // namespace fovea::nn
