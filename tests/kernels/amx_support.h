#pragma once
// What tests of the bfloat16 kernels on tiles need beside problems.h: bfloat16 calls with the same numbers as the
// definition's in double, and the error bounds of a bfloat16 path.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "cpu_support.h"
#include "fovea/core/isa.h"
#include "fovea/kernels/cpu/amx.h"
#include "problems.h"

namespace fovea::kernels {

/// Unit roundoff of bfloat16.
constexpr double kBf16 = 1.0 / 256;

inline std::vector<BFloat16> to_bf16(const std::vector<double>& x) {
  std::vector<BFloat16> y;
  for (double v : x) y.emplace_back(static_cast<float>(v));
  return y;
}
inline std::vector<double> from_bf16(const std::vector<BFloat16>& x) {
  std::vector<double> y;
  for (BFloat16 v : x) y.push_back(static_cast<float>(v));
  return y;
}
/// Rounds in place to what a bfloat16 or float tensor can hold, so that both kernels see the same numbers.
inline void round_to_bf16(std::vector<double>& x) { x = from_bf16(to_bf16(x)); }
inline void round_to_float(std::vector<double>& x) { x = converted<double>(converted<float>(x)); }

inline double rms(const std::vector<double>& x) {
  double sum = 0;
  for (double v : x) sum += v * v;
  return x.empty() ? 0 : std::sqrt(sum / static_cast<double>(x.size()));
}

inline double largest(const std::vector<double>& x) {
  double most = 0;
  for (double v : x) most = std::max(most, std::abs(v));
  return most;
}

/// Root mean square of a - b over that of b; what is smaller than `floor` counts as that. NaN if a holds one.
inline double rms_error(const std::vector<double>& a, const std::vector<double>& b, double floor = 1e-2) {
  std::vector<double> difference(b.size());
  for (size_t i = 0; i < b.size(); ++i) difference[i] = a[i] == b[i] ? 0 : a[i] - b[i];
  return rms(difference) / std::max(rms(b), floor);
}

template <class T>
bool equal_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// Error bounds of a bfloat16 path. Forward: weights are rounded to bfloat16 (relative error at most kBf16 each) and
/// divided by their rounded sum, so that
///   |out - exact| <= sum_j w_j kBf16 |v_j - out| <= 2 kBf16 max|v|, and rounding the result adds kBf16 |out|.
/// The float parts (exp2 3e-6, sums) vanish beside that: 1 % is left for them. On average a rounding errs by 1.7e-3,
/// and roundings are independent: weights and result together 2.3e-3 of the root mean square; 3e-3 leaves room for
/// chance. Gradients: weights or their gradients are rounded once, the result once, so the same holds, but their sums
/// may cancel: 4e-3. Where few numbers leave one unlucky rounding a say, 8 kBf16. lse and the bias gradient sum what
/// was not rounded.
constexpr double kRms = 3e-3, kGradientRms = 4e-3, kFewRms = 8 * kBf16, kFloat = 1e-5, kBiasGradient = 2e-5;

inline double rms_bound(const std::vector<double>& exact, double usual) {
  return exact.size() < 2000 ? kFewRms : usual;
}
inline double worst_bound(double largest_value) { return 1.01 * 3 * kBf16 * largest_value; }

inline double worst_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0;
  for (size_t i = 0; i < b.size(); ++i)
    if (a[i] != b[i] && !(std::abs(a[i] - b[i]) <= worst)) worst = std::abs(a[i] - b[i]);
  return worst;
}

/// bfloat16 numbers whose last (or first) byte touches a page that may not be read.
class GuardedBf16 {
 public:
  GuardedBf16(const std::vector<BFloat16>& values, GuardedMemory::Guard guard)
      : offset_(guard == GuardedMemory::Guard::kAfter ? values.size() % 2 : 0),
        memory_(packed(values, offset_), guard) {}
  BFloat16* data() const { return reinterpret_cast<BFloat16*>(memory_.data()) + offset_; }

 private:
  static std::vector<float> packed(const std::vector<BFloat16>& values, size_t offset) {
    std::vector<float> memory((values.size() + 1) / 2);
    if (!values.empty())
      std::memcpy(reinterpret_cast<BFloat16*>(memory.data()) + offset, values.data(), values.size() * sizeof(BFloat16));
    return memory;
  }
  size_t offset_;
  GuardedMemory memory_;
};

/// n numbers between bands of NaN; whole() says that each of them was written and nothing beside.
template <class T>
class Banded {
 public:
  explicit Banded(size_t n) : memory_(n + 2 * kBand, T(std::numeric_limits<float>::quiet_NaN())), n_(n) {}
  T* data() { return memory_.data() + kBand; }
  bool whole() const {
    for (size_t i = 0; i < memory_.size(); ++i)
      if (std::isnan(static_cast<float>(memory_[i])) != (i < kBand || i >= kBand + n_)) return false;
    return true;
  }

 private:
  static constexpr size_t kBand = 64;
  std::vector<T> memory_;
  size_t n_;
};

/// A window attention call in bfloat16. `exact` is the same call in double.
struct Bf16WindowProblem {
  WindowProblem<double> exact;
  std::vector<BFloat16> qkv, pad_token, out, grad_out, grad_qkv, grad_pad_token;
  std::vector<float> bias_table, bias, lse, grad_bias_table, grad_bias;

  Bf16WindowProblem(const WindowShape& s, uint64_t seed, double q_factor = 1) : exact(s, seed, q_factor) { round(); }

  /// After changes to the inputs of `exact`.
  void round() {
    for (auto* x : {&exact.qkv, &exact.pad_token, &exact.grad_out}) round_to_bf16(*x);
    for (auto* x : {&exact.bias_table, &exact.bias}) round_to_float(*x);
    qkv = to_bf16(exact.qkv), pad_token = to_bf16(exact.pad_token), grad_out = to_bf16(exact.grad_out);
    bias_table = converted<float>(exact.bias_table), bias = converted<float>(exact.bias);
    out.resize(exact.out.size()), lse.resize(exact.lse.size());
    grad_qkv.resize(qkv.size()), grad_pad_token.resize(pad_token.size());
    grad_bias_table.resize(bias_table.size()), grad_bias.resize(bias.size());
  }

  WindowAttentionParams<BFloat16> params() {
    const auto e = exact.params();
    WindowAttentionParams<BFloat16> p;
    p.qkv = {qkv.data(), e.qkv.shape, e.qkv.stride};
    if (!bias_table.empty()) p.bias_table = {bias_table.data(), e.bias_table.shape, e.bias_table.stride};
    if (!bias.empty()) p.bias = {bias.data(), e.bias.shape, e.bias.stride};
    if (!pad_token.empty()) p.pad_token = {pad_token.data(), e.pad_token.shape, e.pad_token.stride};
    p.window = e.window, p.shift = e.shift, p.scale = e.scale, p.mask_value = e.mask_value;
    p.out = {out.data(), e.out.shape, e.out.stride};
    p.lse = {lse.data(), e.lse.shape, e.lse.stride};
    return p;
  }

  WindowAttentionBackwardParams<BFloat16> backward_params() {
    WindowAttentionBackwardParams<BFloat16> g;
    g.forward = params();
    g.grad_out = {grad_out.data(), g.forward.out.shape, g.forward.out.stride};
    g.grad_qkv = {grad_qkv.data(), g.forward.qkv.shape, g.forward.qkv.stride};
    if (!bias_table.empty())
      g.grad_bias_table = {grad_bias_table.data(), g.forward.bias_table.shape, g.forward.bias_table.stride};
    if (!bias.empty()) g.grad_bias = {grad_bias.data(), g.forward.bias.shape, g.forward.bias.stride};
    if (!pad_token.empty())
      g.grad_pad_token = {grad_pad_token.data(), g.forward.pad_token.shape, g.forward.pad_token.stride};
    return g;
  }
};

/// A dense attention call in bfloat16. `exact` is the same call in double.
struct Bf16AttentionProblem {
  AttentionProblem<double> exact;
  std::vector<BFloat16> q, k, v, out, grad_out, grad_q, grad_k, grad_v;
  std::vector<float> bias, lse, grad_bias;

  Bf16AttentionProblem(const AttentionShape& s, uint64_t seed, double q_factor = 1) : exact(s, seed, q_factor) {
    round();
  }

  /// After changes to the inputs of `exact`.
  void round() {
    for (auto* x : {&exact.q, &exact.k, &exact.v, &exact.grad_out}) round_to_bf16(*x);
    round_to_float(exact.bias);
    q = to_bf16(exact.q), k = to_bf16(exact.k), v = to_bf16(exact.v), grad_out = to_bf16(exact.grad_out);
    bias = converted<float>(exact.bias);
    out.resize(exact.out.size()), lse.resize(exact.lse.size()), grad_bias.resize(bias.size());
    grad_q.resize(q.size()), grad_k.resize(k.size()), grad_v.resize(v.size());
  }

  AttentionParams<BFloat16> params() {
    const auto e = exact.params();
    AttentionParams<BFloat16> p;
    p.q = {q.data(), e.q.shape, e.q.stride}, p.k = {k.data(), e.k.shape, e.k.stride};
    p.v = {v.data(), e.v.shape, e.v.stride};
    if (!bias.empty()) p.bias = {bias.data(), e.bias.shape, e.bias.stride};
    p.key_mask = e.key_mask, p.causal = e.causal, p.scale = e.scale;
    p.out = {out.data(), e.out.shape, e.out.stride}, p.lse = {lse.data(), e.lse.shape, e.lse.stride};
    return p;
  }

  AttentionBackwardParams<BFloat16> backward_params() {
    AttentionBackwardParams<BFloat16> g;
    g.forward = params();
    g.grad_out = {grad_out.data(), g.forward.out.shape, g.forward.out.stride};
    g.grad_q = {grad_q.data(), g.forward.q.shape, g.forward.q.stride};
    g.grad_k = {grad_k.data(), g.forward.k.shape, g.forward.k.stride};
    g.grad_v = {grad_v.data(), g.forward.v.shape, g.forward.v.stride};
    if (!bias.empty()) g.grad_bias = {grad_bias.data(), g.forward.bias.shape, g.forward.bias.stride};
    return g;
  }
};

}  // namespace fovea::kernels
