#include "fovea/train/loss.h"

#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <string>

#include "fovea/core/error.h"

namespace fovea::train {
namespace {

// How the two passes work. A voxel block of kBlock voxels is copied into a [K][kBlock] scratch of f32 (f64), whatever
// the layout and dtype of the logits; all arithmetic runs along the voxels of the scratch, which the compiler turns
// into SIMD code. Sums of a block are f32, sums of a chunk and of chunks f64 and in the order of the chunks, so the
// bits depend on neither the number of threads nor on which thread took which chunk.
constexpr int64_t kBlock = 256, kChunk = 16 * kBlock;

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOVEA_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define FOVEA_CLONES
#endif

/// exp(x) for x <= 0, within 2 units in the last place down to -87, where it stays. Without a call, so that loops
/// vectorise.
inline __attribute__((always_inline)) float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : x;                    // in this order NaN stays NaN
  const float t = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to the nearest integer
  const float n = t - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // x - n log 2 in two parts
  float p = 1.9875691500e-4f;                                   // minimax polynomial of Cephes expf
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((std::bit_cast<int32_t>(t) << 23) + 0x3f800000);
}
inline __attribute__((always_inline)) double fast_exp(double x) { return std::exp(x); }

/// Softmax over the K rows of x [K][kBlock] in place; lse[v] = log sum_k exp(x_k[v]).
template <class T>
inline __attribute__((always_inline)) void softmax_rows(T* x, int64_t K, T* lse) {
  T top[kBlock], sum[kBlock];
  for (int64_t v = 0; v < kBlock; ++v) top[v] = x[v], sum[v] = 0;
  for (int64_t k = 1; k < K; ++k) {
    const T* row = x + k * kBlock;
    for (int64_t v = 0; v < kBlock; ++v) top[v] = top[v] < row[v] ? row[v] : top[v];
  }
  for (int64_t k = 0; k < K; ++k) {
    T* row = x + k * kBlock;
    for (int64_t v = 0; v < kBlock; ++v) row[v] = fast_exp(row[v] - top[v]), sum[v] += row[v];
  }
  for (int64_t v = 0; v < kBlock; ++v) lse[v] = top[v] + std::log(sum[v]), sum[v] = 1 / sum[v];
  for (int64_t k = 0; k < K; ++k) {
    T* row = x + k * kBlock;
    for (int64_t v = 0; v < kBlock; ++v) row[v] *= sum[v];
  }
}
FOVEA_CLONES void softmax_block(float* x, int64_t K, float* lse) { softmax_rows(x, K, lse); }
void softmax_block(double* x, int64_t K, double* lse) { softmax_rows(x, K, lse); }

/// sum[k] += sum_v use[v] p_k[v]
template <class T>
inline __attribute__((always_inline)) void add_row_sums(const T* p, int64_t K, const T* use, double* sum) {
  for (int64_t k = 0; k < K; ++k) {
    const T* row = p + k * kBlock;
    T lanes[16] = {};
    for (int64_t v = 0; v < kBlock; v += 16) {
      for (int64_t i = 0; i < 16; ++i) lanes[i] += use[v + i] * row[v + i];
    }
    double total = 0;
    for (T lane : lanes) total += double(lane);
    sum[k] += total;
  }
}
FOVEA_CLONES void row_sums_block(const float* p, int64_t K, const float* use, double* sum) {
  add_row_sums(p, K, use, sum);
}
void row_sums_block(const double* p, int64_t K, const double* use, double* sum) { add_row_sums(p, K, use, sum); }

/// x <- p_k (a_k - S + c) with p = exp(x - lse), S = sum_j p_j a_j - own, own = p_y b_y; `own` comes as b_y and leaves
/// as p_y b_y. label < 0: the voxel is ignored and its column becomes 0.
template <class T>
inline __attribute__((always_inline)) void gradient_rows(T* x, int64_t K, const T* lse, const T* a, const T* b,
                                                         const T* c, const int32_t* label) {
  T shift[kBlock];
  for (int64_t v = 0; v < kBlock; ++v) shift[v] = c[v];
  for (int64_t k = 0; k < K; ++k) {
    T* row = x + k * kBlock;
    const T a_k = a[k];
    for (int64_t v = 0; v < kBlock; ++v) row[v] = fast_exp(row[v] - lse[v]), shift[v] -= row[v] * a_k;
  }
  T own[kBlock];
  for (int64_t v = 0; v < kBlock; ++v) {
    own[v] = label[v] < 0 ? T(0) : x[label[v] * kBlock + v] * b[label[v]];
    shift[v] += own[v];
  }
  for (int64_t k = 0; k < K; ++k) {
    T* row = x + k * kBlock;
    const T a_k = a[k];
    for (int64_t v = 0; v < kBlock; ++v) row[v] *= a_k + shift[v];
  }
  for (int64_t v = 0; v < kBlock; ++v) {
    if (label[v] >= 0) {
      x[label[v] * kBlock + v] -= own[v] + c[v];
    } else {
      for (int64_t k = 0; k < K; ++k) x[k * kBlock + v] = 0;
    }
  }
}
FOVEA_CLONES void gradient_block(float* x, int64_t K, const float* lse, const float* a, const float* b, const float* c,
                                 const int32_t* label) {
  gradient_rows(x, K, lse, a, b, c, label);
}
void gradient_block(double* x, int64_t K, const double* lse, const double* a, const double* b, const double* c,
                    const int32_t* label) {
  gradient_rows(x, K, lse, a, b, c, label);
}

/// Where element (b, k, v) of the logits lies.
struct Layout {
  int64_t B, K, V, stride_b, stride_k, stride_v;
};

Layout layout_of(const torch::Tensor& logits) {
  const int64_t B = logits.size(0), K = logits.size(1), V = logits.numel() / (B * K);
  return logits.is_contiguous() ? Layout{B, K, V, K * V, V, 1} : Layout{B, K, V, K * V, 1, K};
}

bool is_channels_last(const torch::Tensor& x) {
  return (x.dim() == 5 && x.is_contiguous(at::MemoryFormat::ChannelsLast3d)) ||
         (x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast));
}

/// Copies n <= kBlock voxels into the scratch; columns behind n are zero.
template <class S, class T>
void load_block(const S* from, const Layout& at, int64_t n, T* to) {
  for (int64_t k = 0; k < at.K; ++k) {
    for (int64_t v = n; v < kBlock; ++v) to[k * kBlock + v] = 0;
  }
  if (at.stride_v == 1) {
    for (int64_t k = 0; k < at.K; ++k) {
      for (int64_t v = 0; v < n; ++v) to[k * kBlock + v] = static_cast<T>(from[k * at.stride_k + v]);
    }
  } else {
    for (int64_t v = 0; v < n; ++v) {
      for (int64_t k = 0; k < at.K; ++k) to[k * kBlock + v] = static_cast<T>(from[v * at.stride_v + k]);
    }
  }
}

template <class S, class T>
void store_block(const T* from, const Layout& at, int64_t n, S* to) {
  if (at.stride_v == 1) {
    for (int64_t k = 0; k < at.K; ++k) {
      for (int64_t v = 0; v < n; ++v) to[k * at.stride_k + v] = static_cast<S>(from[k * kBlock + v]);
    }
  } else {
    for (int64_t v = 0; v < n; ++v) {
      for (int64_t k = 0; k < at.K; ++k) to[v * at.stride_v + k] = static_cast<S>(from[k * kBlock + v]);
    }
  }
}

/// Per-class sums of one chunk, one sample or the batch.
struct ClassSums {
  std::vector<double> predicted, overlap, labelled;  // sum p_k, sum p_k [y = k], sum [y = k]
  double cross_entropy = 0, weight = 0;
  explicit ClassSums(int64_t K) : predicted(K), overlap(K), labelled(K) {}
  void add(const ClassSums& o) {
    for (size_t k = 0; k < predicted.size(); ++k) {
      predicted[k] += o.predicted[k], overlap[k] += o.overlap[k], labelled[k] += o.labelled[k];
    }
    cross_entropy += o.cross_entropy, weight += o.weight;
  }
};

/// Scalars that the backward pass needs: d loss / d p_k = a_k - [y = k] b_k, per sample, and the factor of CE.
struct Coefficients {
  std::vector<double> a, b;  // [B][K]
  double ce_factor = 0;      // cross_entropy_weight / sum of voxel weights
};

double weight_of(const SegmentationLossConfig& config, int64_t k) {
  return config.class_weights.empty() ? 1.0 : config.class_weights[size_t(k)];
}

double loss_from_sums(const std::vector<ClassSums>& samples, int64_t K, const SegmentationLossConfig& config,
                      Coefficients* out) {
  const int64_t B = int64_t(samples.size()), first = config.include_background ? 0 : 1;
  ClassSums all(K);
  for (const ClassSums& s : samples) all.add(s);
  const double terms = double(K - first) * (config.batch_dice ? 1.0 : double(B)), s = config.smooth;
  out->a.assign(size_t(B * K), 0), out->b.assign(size_t(B * K), 0);
  double dice = 0;
  for (int64_t k = first; k < K; ++k) {
    for (int64_t b = 0; b < B; ++b) {
      const ClassSums& sums = config.batch_dice ? all : samples[size_t(b)];
      const double numerator = 2 * sums.overlap[k] + s;
      const double denominator = std::max(sums.predicted[k] + sums.labelled[k] + s, 1e-8);
      if (!config.batch_dice || b == 0) dice += 1 - numerator / denominator;
      out->a[b * K + k] = config.dice_weight / terms * numerator / (denominator * denominator);
      out->b[b * K + k] = config.dice_weight / terms * 2 / denominator;
    }
  }
  out->ce_factor = all.weight > 0 ? config.cross_entropy_weight / all.weight : 0;
  return config.dice_weight * dice / terms + out->ce_factor * all.cross_entropy;
}

template <class S, class T, class L>
void forward_chunk(const S* logits, const L* labels, const Layout& at, int64_t begin, int64_t end,
                   const SegmentationLossConfig& config, T* lse, ClassSums* sums, std::atomic<int64_t>* bad_voxel,
                   int64_t voxel_base) {
  std::vector<T> p(size_t(at.K * kBlock));
  T use[kBlock], block_lse[kBlock];
  for (int64_t v0 = begin; v0 < end; v0 += kBlock) {
    const int64_t n = std::min(kBlock, end - v0);
    const S* from = logits + v0 * at.stride_v;
    load_block(from, at, n, p.data());
    softmax_block(p.data(), at.K, block_lse);
    for (int64_t v = 0; v < kBlock; ++v) use[v] = 0;
    for (int64_t v = 0; v < n; ++v) {
      lse[v0 + v] = block_lse[v];
      const int64_t y = static_cast<int64_t>(labels[v0 + v]);
      if (y == config.ignore_label) continue;
      if (y < 0 || y >= at.K) {
        bad_voxel->store(voxel_base + v0 + v);
        return;
      }
      use[v] = 1;
      const double weight = weight_of(config, y);
      sums->overlap[y] += double(p[y * kBlock + v]);
      sums->labelled[y] += 1;
      sums->weight += weight;
      sums->cross_entropy += weight * (double(block_lse[v]) - double(from[y * at.stride_k + v * at.stride_v]));
    }
    row_sums_block(p.data(), at.K, use, sums->predicted.data());
  }
}

template <class S, class T, class L>
void backward_chunk(const S* logits, const L* labels, const T* lse, const Layout& at, int64_t begin, int64_t end,
                    const T* a, const T* b, const T* ce_of_class, int64_t ignore_label, S* gradient) {
  std::vector<T> x(size_t(at.K * kBlock));
  T block_lse[kBlock], c[kBlock];
  int32_t y[kBlock];
  for (int64_t v0 = begin; v0 < end; v0 += kBlock) {
    const int64_t n = std::min(kBlock, end - v0);
    load_block(logits + v0 * at.stride_v, at, n, x.data());
    for (int64_t v = 0; v < kBlock; ++v) {
      const int64_t label = v < n ? static_cast<int64_t>(labels[v0 + v]) : ignore_label;
      y[v] = label == ignore_label ? -1 : int32_t(label);
      c[v] = y[v] < 0 ? T(0) : ce_of_class[y[v]];
      block_lse[v] = v < n ? lse[v0 + v] : T(0);
    }
    gradient_block(x.data(), at.K, block_lse, a, b, c, y);
    store_block(x.data(), at, n, gradient + v0 * at.stride_v);
  }
}

template <class F>
void for_each_chunk(const Layout& at, const F& body) {
  const int64_t chunks = (at.V + kChunk - 1) / kChunk;
  at::parallel_for(0, at.B * chunks, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i % chunks * kChunk;
      body(i, i / chunks, begin, std::min(begin + kChunk, at.V));
    }
  });
}

template <class F>
void visit_types(const torch::Tensor& logits, const torch::Tensor& labels, const F& f) {
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, logits.scalar_type(), "dice_cross_entropy", [&] {
    using S = scalar_t;
    using T = std::conditional_t<std::is_same_v<S, double>, double, float>;
    AT_DISPATCH_INTEGRAL_TYPES(labels.scalar_type(), "dice_cross_entropy", [&] { f(S{}, T{}, scalar_t{}); });
  });
}

struct DiceCrossEntropy : torch::autograd::Function<DiceCrossEntropy> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& logits,
                               const torch::Tensor& labels, const SegmentationLossConfig& config) {
    const Layout at = layout_of(logits);
    const auto accumulate_type = logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    torch::Tensor lse =
        torch::empty({at.B, at.V}, logits.options().dtype(accumulate_type).memory_format(at::MemoryFormat::Contiguous));
    const int64_t chunks = (at.V + kChunk - 1) / kChunk;
    std::vector<ClassSums> parts(size_t(at.B * chunks), ClassSums(at.K));
    std::atomic<int64_t> bad_voxel{-1};
    visit_types(logits, labels, [&](auto s, auto t, auto l) {
      using S = decltype(s);
      using T = decltype(t);
      using L = decltype(l);
      for_each_chunk(at, [&](int64_t i, int64_t b, int64_t begin, int64_t end) {
        forward_chunk(logits.const_data_ptr<S>() + b * at.stride_b, labels.const_data_ptr<L>() + b * at.V, at, begin,
                      end, config, lse.mutable_data_ptr<T>() + b * at.V, &parts[size_t(i)], &bad_voxel, b * at.V);
      });
    });
    if (const int64_t bad = bad_voxel; bad >= 0) {
      throw ArgumentError(
          "dice_cross_entropy: labels has the value " + std::to_string(labels.flatten()[bad].item<int64_t>()) +
          " in sample " + std::to_string(bad / at.V) + ", expected 0.." + std::to_string(at.K - 1) +
          (config.ignore_label >= 0 ? " or " + std::to_string(config.ignore_label) + " (ignored)" : "") +
          "; the network has " + std::to_string(at.K) + " classes");
    }
    std::vector<ClassSums> samples(size_t(at.B), ClassSums(at.K));
    for (size_t i = 0; i < parts.size(); ++i) samples[i / size_t(chunks)].add(parts[i]);
    Coefficients coefficients;
    const double loss = loss_from_sums(samples, at.K, config, &coefficients);
    std::vector<double> ce_of_class(size_t(at.K));
    for (int64_t k = 0; k < at.K; ++k) ce_of_class[k] = coefficients.ce_factor * weight_of(config, k);
    context->save_for_backward({logits, labels, lse});
    context->saved_data["a"] = std::move(coefficients.a);
    context->saved_data["b"] = std::move(coefficients.b);
    context->saved_data["ce_of_class"] = std::move(ce_of_class);
    context->saved_data["ignore_label"] = config.ignore_label;
    return torch::full({}, loss, logits.options().dtype(accumulate_type));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& upstream) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor &logits = saved[0], &labels = saved[1], &lse = saved[2];
    const Layout at = layout_of(logits);
    const auto a = context->saved_data["a"].toDoubleVector(), b = context->saved_data["b"].toDoubleVector();
    const auto ce_of_class = context->saved_data["ce_of_class"].toDoubleVector();
    const int64_t ignore_label = context->saved_data["ignore_label"].toInt();
    const double scale = upstream[0].item<double>();
    torch::Tensor gradient = torch::empty_like(logits, at::MemoryFormat::Preserve);
    visit_types(logits, labels, [&](auto s, auto t, auto l) {
      using S = decltype(s);
      using T = decltype(t);
      using L = decltype(l);
      const auto scaled = [&](const std::vector<double>& v) {
        std::vector<T> out(v.size());
        for (size_t i = 0; i < v.size(); ++i) out[i] = T(scale * v[i]);
        return out;
      };
      const std::vector<T> a_t = scaled(a), b_t = scaled(b), ce_t = scaled(ce_of_class);
      for_each_chunk(at, [&](int64_t, int64_t sample, int64_t begin, int64_t end) {
        backward_chunk(logits.const_data_ptr<S>() + sample * at.stride_b, labels.const_data_ptr<L>() + sample * at.V,
                       lse.const_data_ptr<T>() + sample * at.V, at, begin, end, a_t.data() + sample * at.K,
                       b_t.data() + sample * at.K, ce_t.data(), ignore_label,
                       gradient.mutable_data_ptr<S>() + sample * at.stride_b);
      });
    });
    return {gradient, {}, {}};
  }
};

std::string shape_text(const torch::Tensor& t) {
  std::string text = "[";
  for (int64_t i = 0; i < t.dim(); ++i) text += (i ? "," : "") + std::to_string(t.size(i));
  return text + "]";
}

}  // namespace

torch::Tensor dice_cross_entropy(const torch::Tensor& logits, const torch::Tensor& labels,
                                 const SegmentationLossConfig& config) {
  const auto fail = [&](const std::string& what) {
    throw ArgumentError("dice_cross_entropy: " + what + "; logits " + shape_text(logits) + ", labels " +
                        shape_text(labels));
  };
  if (logits.dim() < 3 || logits.size(1) < 2)
    fail("logits must be [B,K,...] with K >= 2 and at least one spatial axis");
  const auto type = logits.scalar_type();
  if (type != at::kFloat && type != at::kBFloat16 && type != at::kDouble) fail("logits must be f32, bf16 or f64");
  if (!at::isIntegralType(labels.scalar_type(), /*includeBool=*/false)) fail("labels must be integers");
  if (!logits.device().is_cpu() || !labels.device().is_cpu()) fail("logits and labels must be on the CPU");
  std::vector<int64_t> wanted = logits.sizes().vec();
  wanted.erase(wanted.begin() + 1);
  torch::Tensor flat = labels;
  if (flat.dim() == logits.dim() && flat.size(1) == 1) flat = flat.squeeze(1);
  if (flat.sizes() != torch::IntArrayRef(wanted)) fail("labels must be [B,...] or [B,1,...] on the grid of the logits");
  if (logits.numel() == 0) fail("there are no voxels");
  const size_t K = size_t(logits.size(1));
  if (!config.class_weights.empty() && config.class_weights.size() != K) {
    fail("class_weights has " + std::to_string(config.class_weights.size()) + " entries, expected " +
         std::to_string(K) + ", one a class");
  }
  const torch::Tensor x = is_channels_last(logits) ? logits : logits.contiguous();
  return DiceCrossEntropy::apply(x, flat.contiguous(), config);
}

torch::Tensor nearest_labels(const torch::Tensor& labels, torch::IntArrayRef size) {
  torch::Tensor out = labels;
  for (size_t axis = 0; axis < size.size(); ++axis) {
    const int64_t source = labels.size(int64_t(axis) + 1), target = size[axis];
    if (source == target) continue;
    torch::Tensor index = torch::empty({target}, at::kLong);
    for (int64_t i = 0; i < target; ++i) index.mutable_data_ptr<int64_t>()[i] = (2 * i + 1) * source / (2 * target);
    out = out.index_select(int64_t(axis) + 1, index);
  }
  return out;
}

torch::Tensor deep_supervision_loss(const std::vector<torch::Tensor>& logits, const torch::Tensor& labels,
                                    const SegmentationLossConfig& config) {
  if (logits.empty()) throw ArgumentError("deep_supervision_loss: logits is empty, expected one output per scale");
  const torch::Tensor flat = labels.dim() == logits[0].dim() && labels.size(1) == 1 ? labels.squeeze(1) : labels;
  double weight = 1, total = 0;
  torch::Tensor sum;
  for (const torch::Tensor& scale : logits) {
    if (flat.dim() != scale.dim() - 1) {
      throw ArgumentError("deep_supervision_loss: labels must be [B,...] on the grid of the first output; labels " +
                          shape_text(labels) + ", output " + shape_text(scale));
    }
    const torch::Tensor term = weight * dice_cross_entropy(scale, nearest_labels(flat, scale.sizes().slice(2)), config);
    sum = sum.defined() ? sum + term : term;
    total += weight, weight *= config.deep_supervision_decay;
  }
  return sum / total;
}

}  // namespace fovea::train
