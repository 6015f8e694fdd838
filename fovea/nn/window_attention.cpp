#include "fovea/nn/window_attention.h"

#include "fovea/nn/initialise.h"
#include "fovea/nn/linear.h"
#include "fovea/nn/trace.h"
#include "fovea/ops/window_attention.h"

namespace fovea::nn {
namespace {
constexpr double kStrangerPenalty = -100.0;
constexpr double kFirstBeta = 10, kLargestBeta = 100;  // Swin-v2's
}

/// The arguments of one op call.
struct WindowAttentionImpl::Call {
  torch::Tensor qkv;  // [B,Z,Y,X,3,H,C]
  std::optional<torch::Tensor> bias_table, bias, pad_token;
  Triple window, shift;
  std::optional<double> scale, mask_value;
};

torch::Tensor relative_position_index_of(const Triple& window) {
  std::vector<torch::Tensor> axes;
  for (const int64_t length : window) axes.push_back(torch::arange(length));
  torch::Tensor row = torch::zeros({1, 1}, torch::kLong);
  const auto positions = torch::meshgrid(axes, "ij");
  for (size_t axis = 0; axis < 3; ++axis) {
    const auto position = positions[axis].flatten();
    row = row * (2 * window[axis] - 1) + (position.unsqueeze(1) - position.unsqueeze(0) + window[axis] - 1);
  }
  return row;
}

WindowAttentionImpl::WindowAttentionImpl(const WindowAttentionOptions& options) : options_(options) {
  const int64_t dim = options.dim(), heads = options.heads();
  TORCH_CHECK(heads > 0 && dim % heads == 0, "window_attention: dim is ", dim, ", expected a multiple of the ", heads, " heads");
  const auto& w = options.window();
  for (const int64_t length : w)
    TORCH_CHECK(length > 0, "window_attention: window is ", torch::IntArrayRef(w), ", expected 1 or more each");
  const bool cosine = options.scores() == WindowScores::kCosine;
  qkv = register_module(
      "qkv", torch::nn::Linear(torch::nn::LinearOptions(dim, 3 * dim).bias(options.qkv_bias() && !cosine)));
  if (cosine) {
    temperature = HeadTemperature(HeadTemperatureOptions(heads).initial_beta(kFirstBeta).largest_beta(kLargestBeta));
    register_parameter("logit_scale", temperature->logit_scale);  // its name in checkpoints
    if (options.qkv_bias()) {
      q_bias = register_parameter("q_bias", torch::zeros({dim}));
      v_bias = register_parameter("v_bias", torch::zeros({dim}));
    }
  }
  proj = register_module("proj", torch::nn::Linear(dim, dim));
  proj_drop = register_module("proj_drop", torch::nn::Dropout(options.dropout()));
  if (options.bias() == WindowBias::kContinuous) {
    const bool same = options.trained_window() == Triple{0, 0, 0};
    cpb_mlp = register_module("cpb_mlp", ContinuousBias(heads, same ? w : options.trained_window()));
  } else {
    relative_position_bias_table = register_parameter(
        "relative_position_bias_table", torch::zeros({(2 * w[0] - 1) * (2 * w[1] - 1) * (2 * w[2] - 1), heads}));
    truncated_normal_(relative_position_bias_table);
  }
  relative_position_index = register_buffer("relative_position_index", relative_position_index_of(w));
}

void WindowAttentionImpl::to(torch::Device device, torch::Dtype dtype, bool non_blocking) {
  Module::to(device, dtype, non_blocking);
  relative_position_index.set_data(relative_position_index_of(options_.window()).to(device));
}

void WindowAttentionImpl::to(torch::Dtype dtype, bool non_blocking) {
  Module::to(dtype, non_blocking);
  relative_position_index.set_data(relative_position_index_of(options_.window()).to(relative_position_index.device()));
}

torch::Tensor WindowAttentionImpl::bias_table() {
  return cpb_mlp ? cpb_mlp(options_.window()) : relative_position_bias_table;
}

torch::Tensor WindowAttentionImpl::cosine_qkv(const torch::Tensor& qkv) const {
  auto q = qkv.select(-3, 0), k = qkv.select(-3, 1), v = qkv.select(-3, 2);  // [...,H,C]
  const auto unit = [](const torch::Tensor& t) {
    return t / t.norm(2, -1, /*keepdim=*/true).clamp_min(1e-12);
  };
  if (q_bias.defined()) {
    const auto shape = q.sizes().slice(q.dim() - 2);
    q = q + q_bias.view(shape), v = v + v_bias.view(shape);
  }
  return torch::stack({unit(q) * temperature->beta().unsqueeze(1), unit(k), v}, -3);
}

torch::Tensor WindowAttentionImpl::clipped_bias(const torch::Tensor& table, const Triple& window) const {
  const int64_t n = window[0] * window[1] * window[2];
  const auto& full = options_.window();
  torch::Tensor index;  // [n,n] rows of the table
  if (options_.clipped_bias() == ClippedBias::kCornerOfIndex) {
    index = relative_position_index.slice(0, 0, n).slice(1, 0, n);
  } else {
    // The clipped window's tokens among those of the full window, in Z, Y, X order.
    const auto token = torch::arange(full[0] * full[1] * full[2], relative_position_index.options()).view({full[0], full[1], full[2]});
    const auto kept = token.slice(0, 0, window[0]).slice(1, 0, window[1]).slice(2, 0, window[2]).flatten();
    index = relative_position_index.index_select(0, kept).index_select(1, kept);
  }
  // [n*n,H] -> [H,n,n]
  return table.index_select(0, index.flatten()).view({n, n, options_.heads()}).permute({2, 0, 1}).contiguous();
}

torch::Tensor WindowAttentionImpl::forward(const torch::Tensor& x, const torch::Tensor& source) {
  return traced(this, proj_drop(linear(attend(x, nullptr, source), proj)));
}

torch::Tensor WindowAttentionImpl::add_to(const torch::Tensor& x, const torch::nn::LayerNorm& norm) {
  const bool drops = is_training() && proj_drop->options.p() > 0;
  if (drops || tracing()) return x + traced(this, proj_drop(linear(attend(x, norm), proj)));
  return linear(attend(x, norm), proj, nullptr, x);
}

torch::Tensor WindowAttentionImpl::attend(const torch::Tensor& x, const torch::nn::LayerNorm& norm,
                                          const torch::Tensor& source) {
  TORCH_CHECK(x.dim() == 5 && x.size(4) == options_.dim(), "window_attention: x is ", x.sizes(), ", expected [B,Z,Y,X,", options_.dim(), "]");
  TORCH_CHECK(!source.defined() || source.sizes() == x.sizes(), "window_attention: source is ", source.sizes(),
              ", expected ", x.sizes(), " as x");
  const int64_t heads = options_.heads(), channels = options_.dim() / heads;
  auto call = std::make_shared<Call>();
  call->window = options_.window();
  call->shift = options_.shift();
  bool clipped = false;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t length = x.size(axis + 1);
    if (length > call->window[axis]) continue;
    clipped |= length < call->window[axis];
    call->window[axis] = length;
    call->shift[axis] = 0;
  }
  torch::Tensor projected = source.defined() ? torch::Tensor() : linear(x, qkv, norm);
  if (source.defined()) {
    const auto rows = [&](const torch::Tensor& t, int64_t from, int64_t to) {
      return t.defined() ? t.slice(0, from * options_.dim(), to * options_.dim()) : t;
    };
    projected = torch::cat({torch::linear(x, rows(qkv->weight, 0, 1), rows(qkv->bias, 0, 1)),
                            torch::linear(source, rows(qkv->weight, 1, 3), rows(qkv->bias, 1, 3))}, -1);
  }
  call->qkv = projected.view({x.size(0), x.size(1), x.size(2), x.size(3), 3, heads, channels});
  if (clipped) {
    call->bias = clipped_bias(bias_table(), call->window);
  } else {
    call->bias_table = bias_table();
  }
  if (options_.padded_tokens() == PaddedTokens::kAttend) {
    call->pad_token = qkv->bias.defined() ? qkv->bias.view({3, heads, channels}) : torch::zeros({3, heads, channels}, x.options());
  }
  if (options_.scores() == WindowScores::kCosine) {
    call->qkv = cosine_qkv(call->qkv);
    if (call->pad_token) call->pad_token = cosine_qkv(*call->pad_token);
    call->scale = 1;
  }
  if (options_.region_mask() == RegionMask::kAdditive) call->mask_value = kStrangerPenalty;

  auto out = std::get<0>(ops::window_attention(call->qkv, call->bias_table, call->window, call->shift, call->scale, call->pad_token, call->mask_value, call->bias));
  if (capture_) captured_ = std::move(call);
  return out;
}

void WindowAttentionImpl::set_capture(bool on) {
  capture_ = on;
  if (!on) captured_.reset();
}

std::tuple<torch::Tensor, torch::Tensor> WindowAttentionImpl::rows(const torch::Tensor& queries) const {
  TORCH_CHECK(captured_, "window_attention: rows() without a captured forward; call set_capture(true) before it");
  torch::NoGradGuard no_grad;
  return ops::window_attention_rows(captured_->qkv, captured_->bias_table, captured_->window, captured_->shift, queries, captured_->scale,
                                    captured_->pad_token, captured_->mask_value, captured_->bias);
}

Triple WindowAttentionImpl::captured_grid() const {
  TORCH_CHECK(captured_, "window_attention: captured_grid() without a captured forward; call set_capture(true) before it");
  return {captured_->qkv.size(1), captured_->qkv.size(2), captured_->qkv.size(3)};
}

}  // namespace fovea::nn
