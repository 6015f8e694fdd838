#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "fovea/core/rng.h"
#include "fovea/kernels/attention.h"
#include "fovea/kernels/window_attention.h"

// One attention call with its memory: sizes, random inputs, outputs, gradients. Tests change what they like, then run.
namespace fovea::kernels {

template <class T>
void fill_normal(std::vector<T>& values, Rng& rng, double deviation = 1) {
  for (T& v : values) v = static_cast<T>(deviation * rng.normal());
}

template <class To, class From>
std::vector<To> converted(const std::vector<From>& from) {
  return {from.begin(), from.end()};
}

inline int64_t product(const Triple& t) { return t[0] * t[1] * t[2]; }

/// Largest |a - b| divided by max(1, largest |b|): the error measure of the accuracy bounds. NaN counts as infinite.
template <class A, class B>
double relative_error(const std::vector<A>& a, const std::vector<B>& b) {
  double error = 0, size = 1;
  for (size_t i = 0; i < b.size(); ++i) {
    if (double(a[i]) == double(b[i])) continue;  // equal infinities
    const double difference = std::abs(double(a[i]) - double(b[i]));
    error = difference <= error ? error : std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference;
    size = std::max(size, std::abs(double(b[i])));
  }
  return error / size;
}

enum class Bias { kNone, kTable, kDirect };
enum class Padding { kExcluded, kToken };

struct WindowShape {
  int64_t B = 1, H = 1, C = 4;
  Triple grid{4, 4, 4}, window{2, 2, 2}, shift{0, 0, 0};
  Bias bias = Bias::kNone;
  Padding padding = Padding::kExcluded;
  std::optional<double> mask_value{};

  std::string text() const {
    std::ostringstream s;
    s << "B " << B << " H " << H << " C " << C;
    for (const auto& [name, t] : {std::pair{" grid ", grid}, {" window ", window}, {" shift ", shift}})
      s << name << t[0] << 'x' << t[1] << 'x' << t[2];
    s << (bias == Bias::kNone    ? ""
          : bias == Bias::kTable ? " table"
                                 : " bias")
      << (padding == Padding::kToken ? " pad_token" : "");
    if (mask_value) s << " mask_value " << *mask_value;
    return s.str();
  }
};

/// Channels on and off every tile.
inline int64_t random_channels(Rng& rng) {
  constexpr int64_t channels[] = {1, 3, 8, 12, 16, 24, 32, 48, 64, 80};
  return channels[rng.below(10)];
}

/// One or more windows of at most largest_window^3 tokens, padded, shifted, masked or not.
inline WindowShape random_window_shape(Rng& rng, int64_t largest_window) {
  WindowShape s;
  s.B = 1 + rng.below(2), s.H = 1 + rng.below(3), s.C = random_channels(rng);
  for (int a = 0; a < 3; ++a) {
    s.window[a] = 1 + rng.below(largest_window);
    s.shift[a] = rng.chance(0.5f) ? rng.below(s.window[a]) : 0;
    s.grid[a] = 1 + rng.below(2 * s.window[a] + 1);
  }
  s.bias = static_cast<Bias>(rng.below(3));
  s.padding = rng.chance(0.5f) ? Padding::kToken : Padding::kExcluded;
  if (rng.chance(0.4f)) s.mask_value = -100;
  return s;
}

template <class T>
struct WindowProblem {
  WindowShape shape;
  double scale;
  std::vector<T> qkv, bias_table, bias, pad_token;
  std::vector<T> out, lse, grad_out, grad_qkv, grad_bias_table, grad_bias, grad_pad_token;

  WindowProblem(const WindowShape& s, uint64_t seed, double q_factor = 1)
      : shape(s), scale(1 / std::sqrt(double(s.C))) {
    Rng rng(seed, 0, 0);
    const int64_t tokens = s.B * product(s.grid), n = product(s.window);
    qkv.resize(tokens * 3 * s.H * s.C), fill_normal(qkv, rng);
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t c = 0; c < s.H * s.C; ++c) qkv[t * 3 * s.H * s.C + c] *= static_cast<T>(q_factor);
    if (s.bias == Bias::kTable)
      bias_table.resize(product({2 * s.window[0] - 1, 2 * s.window[1] - 1, 2 * s.window[2] - 1}) * s.H);
    if (s.bias == Bias::kDirect) bias.resize(s.H * n * n);
    if (s.padding == Padding::kToken) pad_token.resize(3 * s.H * s.C);
    fill_normal(bias_table, rng), fill_normal(bias, rng), fill_normal(pad_token, rng);
    grad_out.resize(tokens * s.H * s.C), fill_normal(grad_out, rng);
    out.resize(grad_out.size()), lse.resize(tokens * s.H);
    grad_qkv.resize(qkv.size()), grad_bias_table.resize(bias_table.size()), grad_bias.resize(bias.size());
    grad_pad_token.resize(pad_token.size());
  }

  template <class From>
  explicit WindowProblem(const WindowProblem<From>& p)
      : shape(p.shape),
        scale(p.scale),
        qkv(converted<T>(p.qkv)),
        bias_table(converted<T>(p.bias_table)),
        bias(converted<T>(p.bias)),
        pad_token(converted<T>(p.pad_token)),
        out(converted<T>(p.out)),
        lse(converted<T>(p.lse)),
        grad_out(converted<T>(p.grad_out)),
        grad_qkv(p.grad_qkv.size()),
        grad_bias_table(p.grad_bias_table.size()),
        grad_bias(p.grad_bias.size()),
        grad_pad_token(p.grad_pad_token.size()) {}

  WindowAttentionParams<T> params() {
    const auto& [B, H, C, grid, window, shift, bias_kind, padding, mask_value] = shape;
    const auto [Z, Y, X] = grid;
    const int64_t n = product(window);
    WindowAttentionParams<T> p;
    p.qkv = View<const T, 7>::contiguous(qkv.data(), {B, Z, Y, X, 3, H, C});
    if (!bias_table.empty())
      p.bias_table = View<const T, 2>::contiguous(bias_table.data(), {static_cast<int64_t>(bias_table.size()) / H, H});
    if (!bias.empty()) p.bias = View<const T, 3>::contiguous(bias.data(), {H, n, n});
    if (!pad_token.empty()) p.pad_token = View<const T, 3>::contiguous(pad_token.data(), {3, H, C});
    p.window = window, p.shift = shift, p.scale = scale, p.mask_value = mask_value;
    p.out = View<T, 6>::contiguous(out.data(), {B, Z, Y, X, H, C});
    p.lse = View<T, 5>::contiguous(lse.data(), {B, H, Z, Y, X});
    return p;
  }

  WindowAttentionBackwardParams<T> backward_params() {
    WindowAttentionBackwardParams<T> g;
    g.forward = params();
    g.grad_out = View<const T, 6>::contiguous(grad_out.data(), g.forward.out.shape);
    g.grad_qkv = View<T, 7>::contiguous(grad_qkv.data(), g.forward.qkv.shape);
    if (!bias_table.empty())
      g.grad_bias_table = View<T, 2>::contiguous(grad_bias_table.data(), g.forward.bias_table.shape);
    if (!bias.empty()) g.grad_bias = View<T, 3>::contiguous(grad_bias.data(), g.forward.bias.shape);
    if (!pad_token.empty()) g.grad_pad_token = View<T, 3>::contiguous(grad_pad_token.data(), g.forward.pad_token.shape);
    return g;
  }
};

enum class Broadcast { kNone, kBatch, kBatchAndHeads, kQueries };

struct AttentionShape {
  int64_t B = 1, H = 1, Hk = 1, N = 4, M = 4, C = 4, Cv = 4;
  Bias bias = Bias::kNone;  // kNone or kDirect
  Broadcast broadcast = Broadcast::kNone;
  bool key_mask = false, causal = false;
  int64_t window_left = -1, window_right = -1;
  double softcap = 0, dropout = 0;
  bool alibi = false;

  std::string text() const {
    std::ostringstream s;
    s << "B " << B << " H " << H << " Hk " << Hk << " N " << N << " M " << M << " C " << C << " Cv " << Cv;
    if (bias != Bias::kNone) s << " bias, broadcast " << static_cast<int>(broadcast);
    s << (key_mask ? " key_mask" : "") << (causal ? " causal" : "") << (alibi ? " alibi" : "");
    s << " window " << window_left << ", " << window_right << " softcap " << softcap << " dropout " << dropout;
    return s.str();
  }
};

/// Grouped heads, bias, masks or none of them, with at most `most_tokens` queries and keys.
inline AttentionShape random_attention_shape(Rng& rng, int64_t most_tokens) {
  AttentionShape s;
  s.B = 1 + rng.below(2), s.Hk = 1 + rng.below(2), s.H = s.Hk * (1 + rng.below(3));
  s.N = 1 + rng.below(most_tokens), s.M = 1 + rng.below(most_tokens);
  s.C = random_channels(rng), s.Cv = rng.chance(0.5f) ? s.C : random_channels(rng);
  s.bias = rng.chance(0.5f) ? Bias::kDirect : Bias::kNone;
  s.broadcast = static_cast<Broadcast>(rng.below(4));
  s.key_mask = rng.chance(0.3f), s.causal = rng.chance(0.3f);
  return s;
}

/// The same with windows, soft cap, slopes and dropout, or some of them.
inline AttentionShape random_expert_shape(Rng& rng, int64_t most_tokens) {
  AttentionShape s = random_attention_shape(rng, most_tokens);
  if (rng.chance(0.4f)) s.window_left = rng.below(most_tokens);
  if (rng.chance(0.4f)) s.window_right = rng.below(most_tokens / 2);
  if (rng.chance(0.4f)) s.softcap = 0.5 + 3 * rng.uniform();
  if (rng.chance(0.4f)) s.dropout = 0.8 * rng.uniform();
  s.alibi = rng.chance(0.4f);
  return s;
}

template <class T>
struct AttentionProblem {
  AttentionShape shape;
  double scale;
  std::vector<double> alibi_slopes;
  std::vector<T> q, k, v, bias;
  std::vector<uint8_t> key_mask;
  std::vector<T> out, lse, grad_out, grad_q, grad_k, grad_v, grad_bias;

  AttentionProblem(const AttentionShape& s, uint64_t seed, double q_factor = 1)
      : shape(s), scale(1 / std::sqrt(double(s.C))) {
    Rng rng(seed, 0, 0);
    q.resize(s.B * s.H * s.N * s.C), k.resize(s.B * s.Hk * s.M * s.C), v.resize(s.B * s.Hk * s.M * s.Cv);
    fill_normal(q, rng, q_factor), fill_normal(k, rng), fill_normal(v, rng);
    if (s.bias != Bias::kNone) bias.resize(bias_size()), fill_normal(bias, rng);
    if (s.key_mask) {
      key_mask.resize(s.B * s.M);
      for (uint8_t& m : key_mask) m = rng.below(4) != 0;
    }
    if (s.alibi)
      for (int64_t h = 0; h < s.H; ++h) alibi_slopes.push_back(std::exp2(-1.0 - h));
    grad_out.resize(s.B * s.H * s.N * s.Cv), fill_normal(grad_out, rng);
    out.resize(grad_out.size()), lse.resize(s.B * s.H * s.N);
    grad_q.resize(q.size()), grad_k.resize(k.size()), grad_v.resize(v.size()), grad_bias.resize(bias.size());
  }

  template <class From>
  explicit AttentionProblem(const AttentionProblem<From>& p)
      : shape(p.shape),
        scale(p.scale),
        alibi_slopes(p.alibi_slopes),
        q(converted<T>(p.q)),
        k(converted<T>(p.k)),
        v(converted<T>(p.v)),
        bias(converted<T>(p.bias)),
        key_mask(p.key_mask),
        out(converted<T>(p.out)),
        lse(converted<T>(p.lse)),
        grad_out(converted<T>(p.grad_out)),
        grad_q(q.size()),
        grad_k(k.size()),
        grad_v(v.size()),
        grad_bias(bias.size()) {}

  std::array<int64_t, 4> bias_stride() const {
    const auto& s = shape;
    switch (s.broadcast) {
      case Broadcast::kBatch:
        return {0, s.N * s.M, s.M, 1};
      case Broadcast::kBatchAndHeads:
        return {0, 0, s.M, 1};
      case Broadcast::kQueries:
        return {s.H * s.M, s.M, 0, 1};
      default:
        return {s.H * s.N * s.M, s.N * s.M, s.M, 1};
    }
  }
  int64_t bias_size() const {
    const auto& s = shape;
    switch (s.broadcast) {
      case Broadcast::kBatch:
        return s.H * s.N * s.M;
      case Broadcast::kBatchAndHeads:
        return s.N * s.M;
      case Broadcast::kQueries:
        return s.B * s.H * s.M;
      default:
        return s.B * s.H * s.N * s.M;
    }
  }

  AttentionParams<T> params() {
    const auto& s = shape;
    AttentionParams<T> p;
    p.q = View<const T, 4>::contiguous(q.data(), {s.B, s.H, s.N, s.C});
    p.k = View<const T, 4>::contiguous(k.data(), {s.B, s.Hk, s.M, s.C});
    p.v = View<const T, 4>::contiguous(v.data(), {s.B, s.Hk, s.M, s.Cv});
    if (!bias.empty()) p.bias = {bias.data(), {s.B, s.H, s.N, s.M}, bias_stride()};
    if (!key_mask.empty()) p.key_mask = View<const uint8_t, 2>::contiguous(key_mask.data(), {s.B, s.M});
    p.causal = s.causal, p.scale = scale;
    p.window_left = s.window_left, p.window_right = s.window_right, p.softcap = s.softcap;
    if (s.alibi) p.alibi_slopes = View<const double, 1>::contiguous(alibi_slopes.data(), {s.H});
    p.dropout = {s.dropout, 0x0123456789abcdef};
    p.out = View<T, 4>::contiguous(out.data(), {s.B, s.H, s.N, s.Cv});
    p.lse = View<T, 3>::contiguous(lse.data(), {s.B, s.H, s.N});
    return p;
  }

  AttentionBackwardParams<T> backward_params() {
    AttentionBackwardParams<T> g;
    g.forward = params();
    g.grad_out = View<const T, 4>::contiguous(grad_out.data(), g.forward.out.shape);
    g.grad_q = View<T, 4>::contiguous(grad_q.data(), g.forward.q.shape);
    g.grad_k = View<T, 4>::contiguous(grad_k.data(), g.forward.k.shape);
    g.grad_v = View<T, 4>::contiguous(grad_v.data(), g.forward.v.shape);
    if (!bias.empty()) g.grad_bias = {grad_bias.data(), g.forward.bias.shape, bias_stride()};
    return g;
  }
};

/// Central differences of loss() with respect to each element of `input`, against `gradient`. Returns the largest
/// deviation.
template <class Loss>
double worst_finite_difference(std::vector<double>& input, const std::vector<double>& gradient, const Loss& loss) {
  constexpr double kStep = 1e-5;
  double worst = input.size() == gradient.size() ? 0 : std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < input.size(); ++i) {
    const double kept = input[i];
    input[i] = kept + kStep;
    const double above = loss();
    input[i] = kept - kStep;
    const double below = loss();
    input[i] = kept;
    worst = std::max(worst, std::abs((above - below) / (2 * kStep) - gradient[i]));
  }
  return worst;
}

}  // namespace fovea::kernels
