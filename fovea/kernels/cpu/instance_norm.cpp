// Instance norm on channels-last rows.
//   A row of C channels rarely fills vectors, so R rows are taken together: R*C is a multiple of every vector length,
//   and per-channel values are laid out once for R rows (a "period"). A chunk of rows fits the first-level cache:
//     moments   chunk mean, then squared deviations from it, in float; chunks joined in double, in order
//     apply     (x - mean) * scale + bias + residual, leaky ReLU
//     backward  sums of dy and dy * (x - mean) a chunk, joined in double; then grad_x = a dy + b (x - mean) + c
//   The last rows of a chunk, fewer than R, take the same steps one by one.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fovea/kernels/cpu/instance_norm.cpp"
#include "fovea/kernels/cpu/targets.h"

#include "hwy/foreach_target.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "fovea/kernels/instance_norm.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

#ifndef FOVEA_INSTANCE_NORM_ONCE
#define FOVEA_INSTANCE_NORM_ONCE
namespace fovea::kernels::cpu::instance_norm {

constexpr int64_t kLongestVector = 16;    // floats; the period is the same for every target, and so are the chunks
constexpr int64_t kChunkElements = 8192;  // 32 KiB
constexpr int64_t kElementsPerTask = 1 << 16;
constexpr int64_t kStreamedElements = 1 << 22;  // results that no cache holds go past it: nothing is read to be overwritten

/// How rows are taken together.
struct Layout {
  int64_t B, V, C;
  int64_t R;       // rows of a period
  int64_t rows;    // of a chunk, a multiple of R
  int64_t chunks;  // of a sample

  explicit Layout(const View<const float, 3>& x) : B(x.shape[0]), V(x.shape[1]), C(x.shape[2]) {
    R = kLongestVector / std::gcd(C, kLongestVector);
    rows = std::max<int64_t>(1, kChunkElements / (R * C)) * R;
    chunks = (V + rows - 1) / rows;
  }
  int64_t period() const { return R * C; }
  int64_t rows_of(int64_t chunk) const { return std::min(rows, V - chunk * rows); }
  int64_t start_of(int64_t b, int64_t chunk) const { return (b * V + chunk * rows) * C; }

  /// Whether results at `out` are stored past the caches.
  bool streams(const float* out) const {
    return B * V * C >= kStreamedElements && V * C % kLongestVector == 0 && reinterpret_cast<uintptr_t>(out) % 64 == 0;
  }

  /// Runs body(b, chunk) for every chunk of every sample.
  template <class Body>
  void for_chunks(const ParallelFor& parallel, const Body& body) const {
    const int64_t grain = std::max<int64_t>(1, kElementsPerTask / (rows * C));
    parallel(B * chunks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(i / chunks, i % chunks);
    });
  }

  /// values[c] for every element of a period.
  std::vector<float> spread(const std::vector<double>& values) const {
    std::vector<float> out(static_cast<size_t>(period()));
    for (int64_t i = 0; i < period(); ++i) out[i] = static_cast<float>(values[i % C]);
    return out;
  }

  /// sums[c] += lanes of a period that belong to channel c.
  void fold(const std::vector<float>& lanes, double* sums) const {
    for (int64_t i = 0; i < period(); ++i) sums[i % C] += lanes[i];
  }
};

}  // namespace fovea::kernels::cpu::instance_norm
#endif  // FOVEA_INSTANCE_NORM_ONCE

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace normed {
namespace hn = hwy::HWY_NAMESPACE;
using cpu::instance_norm::Layout;

using D = hn::ScalableTag<float>;
using Vector = hn::Vec<D>;

HWY_INLINE void Put(bool stream, Vector v, float* to) {
  stream ? hn::Stream(v, D(), to) : hn::StoreU(v, D(), to);
}

// lanes[i] = sum over the periods of the chunk of term(element, i), i counting the elements of a period. One vector of
// the period at a time, so that sums stay in registers; `term` gives the two vectors to be summed.
template <class Term>
void sum_periods(const Layout& l, int64_t periods, const Term& term, std::vector<float>& first,
                 std::vector<float>& second) {
  const D d;
  const int64_t P = l.period(), L = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < P; i += L) {
    Vector a = hn::Zero(d), b = hn::Zero(d);
    for (int64_t k = 0; k < periods; ++k) term(k * P + i, i, a, b);
    hn::StoreU(a, d, first.data() + i);
    hn::StoreU(b, d, second.data() + i);
  }
}

// Mean and sum of squared deviations of each channel in one chunk.
void chunk_moments(const Layout& l, const float* HWY_RESTRICT x, int64_t rows, double* mean, double* squares) {
  const D d;
  const int64_t C = l.C, P = l.period(), periods = rows / l.R, tail = periods * P, end = rows * C;
  std::vector<float> a(P), b(P);
  std::vector<double> sum(C, 0.0), deviation(C, 0.0);
  sum_periods(
      l, periods, [&](int64_t at, int64_t, Vector& s, Vector&) { s = hn::Add(s, hn::LoadU(d, x + at)); }, a, b);
  l.fold(a, sum.data());
  for (int64_t i = tail; i < end; ++i) sum[(i - tail) % C] += x[i];
  for (int64_t c = 0; c < C; ++c) sum[c] /= static_cast<double>(rows);

  const std::vector<float> centre = l.spread(sum);
  sum_periods(
      l, periods,
      [&](int64_t at, int64_t i, Vector& s, Vector& q) {
        const Vector delta = hn::Sub(hn::LoadU(d, x + at), hn::LoadU(d, centre.data() + i));
        s = hn::Add(s, delta);
        q = hn::MulAdd(delta, delta, q);
      },
      a, b);
  std::fill(squares, squares + C, 0.0);
  l.fold(a, deviation.data());
  l.fold(b, squares);
  for (int64_t i = tail; i < end; ++i) {
    const double delta = double{x[i]} - centre[(i - tail) % C];
    deviation[(i - tail) % C] += delta;
    squares[(i - tail) % C] += delta * delta;
  }
  // What rounding the centre to float left over.
  for (int64_t c = 0; c < C; ++c) {
    mean[c] = centre[c] + deviation[c] / static_cast<double>(rows);
    squares[c] -= deviation[c] * deviation[c] / static_cast<double>(rows);
  }
}

struct ChannelMoments {
  double mean = 0, squares = 0;  // sum of squared deviations
};

// Of each sample and channel of x.
std::vector<ChannelMoments> joined_moments(const Layout& l, const float* x, const ParallelFor& parallel) {
  const int64_t C = l.C;
  std::vector<double> means(l.B * l.chunks * C), squares(means.size());
  l.for_chunks(parallel, [&](int64_t b, int64_t k) {
    const int64_t at = (b * l.chunks + k) * C;
    chunk_moments(l, x + l.start_of(b, k), l.rows_of(k), means.data() + at, squares.data() + at);
  });
  std::vector<ChannelMoments> joined(l.B * C);
  for (int64_t i = 0; i < l.B * C; ++i) {
    double count = 0;
    for (int64_t k = 0; k < l.chunks; ++k) {
      const int64_t at = (i / C * l.chunks + k) * C + i % C;
      const double n = static_cast<double>(l.rows_of(k)), delta = means[at] - joined[i].mean;
      joined[i].squares += squares[at] + delta * delta * count * n / (count + n);
      joined[i].mean += delta * n / (count + n);
      count += n;
    }
  }
  return joined;
}

std::vector<ChannelMoments> given_moments(const InstanceNormParams<float>& p) {
  std::vector<ChannelMoments> given;
  for (int64_t b = 0; b < p.moments.shape[0]; ++b)
    for (int64_t c = 0; c < p.moments.shape[1]; ++c) given.push_back({p.moments(b, c, 0), p.moments(b, c, 1)});
  return given;
}

void Moments(const View<const float, 3>& x, const View<double, 3>& moments, const ParallelFor& parallel) {
  const auto joined = joined_moments(Layout(x), x.data, parallel);
  for (int64_t b = 0; b < x.shape[0]; ++b)
    for (int64_t c = 0; c < x.shape[2]; ++c) {
      moments(b, c, 0) = joined[b * x.shape[2] + c].mean;
      moments(b, c, 1) = joined[b * x.shape[2] + c].squares;
    }
}

void Forward(const InstanceNormParams<float>& p, const ParallelFor& parallel) {
  const Layout l(p.x);
  const int64_t C = l.C, P = l.period();
  const auto joined = p.moments.data ? given_moments(p) : joined_moments(l, p.x.data, parallel);

  std::vector<std::vector<float>> centre, scale, shift;
  for (int64_t b = 0; b < l.B; ++b) {
    std::vector<double> mean(C, 0.0), gain(C), offset(C);
    for (int64_t c = 0; c < C; ++c) {
      const auto [centre_of, square] = joined[b * C + c];
      mean[c] = centre_of;
      const double rstd = 1 / std::sqrt(square / static_cast<double>(l.V) + p.epsilon);
      gain[c] = rstd * (p.weight.data ? p.weight(c) : 1);
      p.mean(b, c) = static_cast<float>(mean[c]);
      p.rstd(b, c) = static_cast<float>(rstd);
      // x - float(mean) is exact or nearly so; what rounding took from the mean goes into the shift.
      offset[c] = (p.bias.data ? p.bias(c) : 0) - (mean[c] - p.mean(b, c)) * gain[c];
    }
    centre.push_back(l.spread(mean));
    scale.push_back(l.spread(gain));
    shift.push_back(l.spread(offset));
  }

  const float slope = static_cast<float>(p.slope);
  const bool stream = l.streams(p.out.data);
  l.for_chunks(parallel, [&](int64_t b, int64_t k) {
    const D d;
    const int64_t L = static_cast<int64_t>(hn::Lanes(d)), start = l.start_of(b, k), end = l.rows_of(k) * C,
                  whole = end / P * P;
    const float* HWY_RESTRICT x = p.x.data + start;
    const float* HWY_RESTRICT residual = p.residual.data ? p.residual.data + start : nullptr;
    float* HWY_RESTRICT out = p.out.data + start;
    const float *m = centre[b].data(), *s = scale[b].data(), *t = shift[b].data();
    const Vector leak = hn::Set(d, slope);
    for (int64_t first = 0; first < whole; first += P) {
      for (int64_t i = 0; i < P; i += L) {
        const Vector z = hn::Sub(hn::LoadU(d, x + first + i), hn::LoadU(d, m + i));
        Vector y = hn::MulAdd(z, hn::LoadU(d, s + i), hn::LoadU(d, t + i));
        if (residual) y = hn::Add(y, hn::LoadU(d, residual + first + i));
        Put(stream, hn::IfThenElse(hn::Gt(y, hn::Zero(d)), y, hn::Mul(y, leak)), out + first + i);
      }
    }
    for (int64_t i = whole; i < end; ++i) {
      const float y = (x[i] - m[i - whole]) * s[i - whole] + t[i - whole] + (residual ? residual[i] : 0.0f);
      out[i] = y > 0 ? y : y * slope;
    }
    if (stream) hwy::FlushStream();
  });
}

// What stands for z on the way back: x - mean, or z itself from the result, by undoing the leaky ReLU and the residual.
struct Centred {
  const float *x, *out, *residual, *mean;  // x or residual may be null; mean: of a period
  float unleak;                            // 1 / slope

  HWY_INLINE Vector operator()(int64_t e, int64_t i) const {
    const D d;
    if (x) return hn::Sub(hn::LoadU(d, x + e), hn::LoadU(d, mean + i));
    const Vector o = hn::LoadU(d, out + e);
    const Vector y = hn::IfThenElse(hn::Gt(o, hn::Zero(d)), o, hn::Mul(o, hn::Set(d, unleak)));
    return residual ? hn::Sub(y, hn::LoadU(d, residual + e)) : y;
  }
  float At(int64_t e, int64_t i) const {
    if (x) return x[e] - mean[i];
    return (out[e] > 0 ? out[e] : out[e] * unleak) - (residual ? residual[e] : 0);
  }
};

void Backward(const InstanceNormBackwardParams<float>& g, const ParallelFor& parallel) {
  const auto& p = g.forward;
  const Layout l(p.x);
  const int64_t C = l.C, P = l.period();
  const float slope = static_cast<float>(p.slope);
  std::vector<std::vector<float>> centre;
  for (int64_t b = 0; b < l.B; ++b)
    centre.push_back(l.spread(std::vector<double>(p.mean.data + b * C, p.mean.data + (b + 1) * C)));
  const auto centred_at = [&](int64_t b, int64_t start) {
    return Centred{p.x.data ? p.x.data + start : nullptr, p.out.data + start, p.residual.data ? p.residual.data + start : nullptr,
                   centre[b].data(), 1 / slope};
  };

  // Sums of dy and of dy times what stands for z, of each chunk.
  std::vector<double> sums(l.B * l.chunks * C, 0.0), products(sums.size(), 0.0);
  l.for_chunks(parallel, [&](int64_t b, int64_t k) {
    const D d;
    const int64_t start = l.start_of(b, k), end = l.rows_of(k) * C, whole = end / P * P, at = (b * l.chunks + k) * C;
    const float *out = p.out.data + start, *grad = g.grad_out.data + start;
    const Centred centred = centred_at(b, start);
    const Vector leak = hn::Set(d, slope);
    std::vector<float> first(P), second(P);
    sum_periods(
        l, whole / P,
        [&](int64_t e, int64_t i, Vector& s, Vector& q) {
          const Vector go = hn::LoadU(d, grad + e);
          const Vector dy = hn::IfThenElse(hn::Gt(hn::LoadU(d, out + e), hn::Zero(d)), go, hn::Mul(go, leak));
          s = hn::Add(s, dy);
          q = hn::MulAdd(dy, centred(e, i), q);
        },
        first, second);
    l.fold(first, sums.data() + at);
    l.fold(second, products.data() + at);
    for (int64_t i = whole; i < end; ++i) {
      const double dy = out[i] > 0 ? grad[i] : grad[i] * slope;
      sums[at + (i - whole) % C] += dy;
      products[at + (i - whole) % C] += dy * double{centred.At(i, i - whole)};
    }
  });

  // grad_x = a dy + b centred + c
  std::vector<std::vector<float>> as, bs, cs;
  std::vector<double> weight_sum(C, 0.0), bias_sum(C, 0.0);
  for (int64_t b = 0; b < l.B; ++b) {
    std::vector<double> ka(C), kb(C), kc(C);
    for (int64_t c = 0; c < C; ++c) {
      double sum = 0, product = 0;
      for (int64_t k = 0; k < l.chunks; ++k)
        sum += sums[(b * l.chunks + k) * C + c], product += products[(b * l.chunks + k) * C + c];
      const double rstd = p.rstd(b, c), weight = p.weight.data ? p.weight(c) : 1, count = static_cast<double>(l.V);
      const double unit = p.x.data ? rstd : 1;  // z = unit * centred
      ka[c] = weight * rstd;
      kb[c] = -weight * rstd * unit * unit * product / count;
      kc[c] = -ka[c] * sum / count;
      weight_sum[c] += product * unit;
      bias_sum[c] += sum;
    }
    as.push_back(l.spread(ka));
    bs.push_back(l.spread(kb));
    cs.push_back(l.spread(kc));
  }
  for (int64_t c = 0; c < C; ++c) {
    if (g.grad_weight.data) g.grad_weight(c) = static_cast<float>(weight_sum[c]);
    if (g.grad_bias.data) g.grad_bias(c) = static_cast<float>(bias_sum[c]);
  }

  const bool stream = l.streams(g.grad_x.data) && (!g.grad_residual.data || l.streams(g.grad_residual.data));
  l.for_chunks(parallel, [&](int64_t b, int64_t k) {
    const D d;
    const int64_t L = static_cast<int64_t>(hn::Lanes(d)), start = l.start_of(b, k), end = l.rows_of(k) * C,
                  whole = end / P * P;
    const Centred centred = centred_at(b, start);
    const float* HWY_RESTRICT out = p.out.data + start;
    const float* HWY_RESTRICT grad = g.grad_out.data + start;
    float* HWY_RESTRICT dx = g.grad_x.data + start;
    float* HWY_RESTRICT dr = g.grad_residual.data ? g.grad_residual.data + start : nullptr;
    const float *ka = as[b].data(), *kb = bs[b].data(), *kc = cs[b].data();
    const Vector leak = hn::Set(d, slope);
    for (int64_t first = 0; first < whole; first += P) {
      for (int64_t i = 0; i < P; i += L) {
        const Vector go = hn::LoadU(d, grad + first + i);
        const Vector dy = hn::IfThenElse(hn::Gt(hn::LoadU(d, out + first + i), hn::Zero(d)), go, hn::Mul(go, leak));
        const Vector delta = centred(first + i, i);
        if (dr) Put(stream, dy, dr + first + i);
        const Vector shifted = hn::MulAdd(hn::LoadU(d, kb + i), delta, hn::LoadU(d, kc + i));
        Put(stream, hn::MulAdd(hn::LoadU(d, ka + i), dy, shifted), dx + first + i);
      }
    }
    for (int64_t i = whole; i < end; ++i) {
      const float dy = out[i] > 0 ? grad[i] : grad[i] * slope, delta = centred.At(i, i - whole);
      if (dr) dr[i] = dy;
      dx[i] = ka[i - whole] * dy + kb[i - whole] * delta + kc[i - whole];
    }
    if (stream) hwy::FlushStream();
  });
}

}  // namespace normed
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS

#if HWY_ONCE
namespace fovea::kernels::cpu {

void instance_norm_forward(const InstanceNormParams<float>& p, const ParallelFor& parallel, Isa isa) {
  FOVEA_RETURN_BEST(isa, normed::Forward, p, parallel)
  reference::instance_norm_forward(p, parallel);
}

void instance_moments(const View<const float, 3>& x, const View<double, 3>& moments, const ParallelFor& parallel, Isa isa) {
  FOVEA_RETURN_BEST(isa, normed::Moments, x, moments, parallel)
  reference::instance_moments(x, moments, parallel);
}

void instance_norm_backward(const InstanceNormBackwardParams<float>& g, const ParallelFor& parallel, Isa isa) {
  FOVEA_RETURN_BEST(isa, normed::Backward, g, parallel)
  reference::instance_norm_backward(g, parallel);
}

}  // namespace fovea::kernels::cpu
#endif  // HWY_ONCE
