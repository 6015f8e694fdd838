#include "fovea/nn/primitive_attention.h"

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/ops/attention.h"

namespace fovea::nn {

PrimitiveAttentionImpl::PrimitiveAttentionImpl(const PrimitiveAttentionOptions& options) : options_(options) {
  if (options.waves() < 1)
    throw ArgumentError(c10::str("primitive_attention: ", options.waves(), " waves, expected at least 1"));
  score = register_parameter("score", torch::zeros({options.waves(), 2}));
  value = register_parameter("value", torch::zeros({options.waves(), 2}));
  drift = register_parameter("drift", torch::zeros({1}));
  // To first order in the field only the product of primitive and values counts: begun at 0, training ends as often with
  // both signs turned, where that order alone can be right.
  primitive = register_parameter("primitive", torch::full({1}, -0.1));
  mean = register_parameter("mean", torch::ones({1}));
}

// cos and sin of whole turns: [...] -> [...,2 F].
torch::Tensor PrimitiveAttentionImpl::waves(const torch::Tensor& place) const {
  const auto angle = 2 * M_PI * place.unsqueeze(-1) * torch::arange(1, options_.waves() + 1, place.options());
  return torch::cat({torch::cos(angle), torch::sin(angle)}, -1);
}

// What gives, times the waves of y, the sum over k of w_k0 cos 2 pi k (z - y) + w_k1 sin 2 pi k (z - y).
torch::Tensor PrimitiveAttentionImpl::turned(const torch::Tensor& waves, const torch::Tensor& weights) const {
  const auto cos = waves.slice(-1, 0, options_.waves()), sin = waves.slice(-1, options_.waves());
  const auto even = weights.select(1, 0), odd = weights.select(1, 1);
  return torch::cat({even * cos + odd * sin, even * sin - odd * cos}, -1);
}

torch::Tensor PrimitiveAttentionImpl::forward(const torch::Tensor& f) {
  if (f.dim() != 2 || f.size(1) < 2 * options_.waves())
    throw ArgumentError(c10::str("primitive_attention: field is ", f.sizes(), ", expected [B,N] with at least ",
                                 2 * options_.waves(), " points"));
  const int64_t batch = f.size(0), n = f.size(1);
  const auto m = f.mean(1, /*keepdim=*/true);
  // The primitive of the rest by its spectrum; the highest wave of an even grid has none.
  const auto turns = 2 * M_PI * torch::arange(n / 2 + 1, f.options());
  auto inverse = torch::where(turns > 0, -1 / turns, torch::zeros_like(turns));  // 1 / (i w) = -i / w
  if (n % 2 == 0) inverse[n / 2] = 0;
  const auto integral =
      torch::fft_irfft(torch::fft_rfft(f - m) * torch::complex(torch::zeros_like(inverse), inverse), n);  // B N

  const auto x = torch::arange(n, f.options()) / double(n);
  const auto query = waves(x - drift * m), place = waves(x).expand({batch, n, 2 * options_.waves()});  // B N 2F
  const auto one = torch::ones({batch, n, 1}, f.options());
  const auto q = torch::cat({turned(query, score), 10 * primitive * one}, 2).unsqueeze(1),
             k = torch::cat({place, integral.unsqueeze(2)}, 2).unsqueeze(1);
  ops::AttentionOptions plain;
  plain.scale = 1.0;
  const auto read =
      std::get<0>(ops::attention(q, k, place.unsqueeze(1).contiguous(), {}, {}, plain)).squeeze(1);  // B N 2F
  return mean * m + (turned(query, value) * read).sum(2);
}

}  // namespace fovea::nn
