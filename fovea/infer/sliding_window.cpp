#include "fovea/infer/sliding_window.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <string>

#include "fovea/core/error.h"
#include "fovea/core/process_memory.h"
#include "fovea/core/view.h"
#include "fovea/ops/parallel.h"

namespace fovea::infer {
namespace {

std::string text(const Triple& t) { return std::to_string(t[0]) + "x" + std::to_string(t[1]) + "x" + std::to_string(t[2]); }

/// Length of the image with its padding.
Triple padded(const Triple& shape, const SlidingWindowConfig& config) {
  Triple p;
  for (int a = 0; a < 3; ++a) p[a] = std::max(shape[a], config.patch_size[a]);
  return p;
}

std::vector<int64_t> starts_nnunet(int64_t length, int64_t patch, double overlap) {
  const int64_t room = length - patch;
  const int64_t steps = static_cast<int64_t>(std::ceil(double(room) / (double(patch) * (1 - overlap)))) + 1;
  std::vector<int64_t> starts;
  for (int64_t i = 0; i < steps; ++i)  // nearbyint: half to even, as numpy's round
    starts.push_back(steps == 1 ? 0 : static_cast<int64_t>(std::nearbyint(double(room) / double(steps - 1) * double(i))));
  return starts;
}

std::vector<int64_t> starts_monai(int64_t length, int64_t patch, double overlap) {
  const int64_t step = length == patch ? patch : std::max<int64_t>(1, static_cast<int64_t>(double(patch) * (1 - overlap)));
  std::vector<int64_t> starts;
  for (int64_t at = 0;; at += step) {
    starts.push_back(std::min(at, length - patch));
    if (at + patch >= length) return starts;
  }
}

/// Weights of one axis before rounding.
torch::Tensor gaussian_axis(int64_t patch, const SlidingWindowConfig& config) {
  const double sigma = double(patch) * config.sigma_scale;
  if (config.rule == WindowRule::kMonai) {
    const auto x = torch::arange(-double(patch - 1) / 2.0, double(patch - 1) / 2.0 + 1, torch::kFloat);
    return torch::exp(x.square() / (-2 * sigma * sigma));
  }
  // A unit impulse at patch/2, filtered with a Gaussian cut off at four deviations, relative to its centre.
  auto weights = torch::zeros({patch}, torch::kDouble);
  const int64_t radius = static_cast<int64_t>(4 * sigma + 0.5);
  for (int64_t i = 0; i < patch; ++i) {
    const int64_t d = i - patch / 2;
    if (std::abs(d) <= radius) weights[i] = std::exp(-0.5 * double(d * d) / (sigma * sigma));
  }
  return weights;
}

/// A range of voxels along one axis that is finished as one: [begin, end) of the padded image, and the windows it needs.
struct Range {
  int64_t begin, end;
  std::vector<int64_t> starts;
};

std::vector<Range> ranges(int64_t length, int64_t before, const std::vector<int64_t>& starts, int64_t patch, int64_t pieces) {
  std::vector<Range> result;
  for (int64_t i = 0; i < pieces; ++i) {
    Range r{before + length * i / pieces, before + length * (i + 1) / pieces, {}};
    for (int64_t s : starts)
      if (s < r.end && s + patch > r.begin) r.starts.push_back(s);
    if (r.begin < r.end) result.push_back(std::move(r));
  }
  return result;
}

/// Copies the part of the padded image at `start` into `window` [C,pz,py,px], zeros outside the image.
void cut_window(const torch::Tensor& image, const Triple& start, const Triple& before, torch::Tensor window) {
  bool whole = true;
  torch::Tensor from = image, to = window;
  for (int a = 0; a < 3; ++a) {
    const int64_t first = start[a] - before[a];  // in the image
    const int64_t low = std::max<int64_t>(first, 0), high = std::min(first + window.size(a + 1), image.size(a + 1));
    whole &= high - low == window.size(a + 1);
    from = from.narrow(a + 1, low, high - low);
    to = to.narrow(a + 1, low - first, high - low);
  }
  if (!whole) window.zero_();
  to.copy_(from);
}

/// Sums of one stripe: the last patch_z planes, plane z in slot z mod patch_z.
class Accumulator {
 public:
  Accumulator(int64_t classes, const Triple& patch, const Range& y, const Range& x)
      : patch_(patch), y_(y), x_(x),
        sum_(torch::zeros({classes, patch[0], y.end - y.begin, x.end - x.begin}, torch::kFloat)),
        weight_(torch::zeros({patch[0], y.end - y.begin, x.end - x.begin}, torch::kFloat)) {}

  /// Adds logits [K,pz,py,px] times weights [pz,py,px] of the window at `start`.
  void add(const torch::Tensor& logits, const torch::Tensor& weights, const Triple& start) {
    const int64_t classes = sum_.size(0), ny = sum_.size(2), nx = sum_.size(3), plane = patch_[1] * patch_[2];
    const int64_t y0 = std::max(start[1], y_.begin), y1 = std::min(start[1] + patch_[1], y_.end);
    const int64_t x0 = std::max(start[2], x_.begin), x1 = std::min(start[2] + patch_[2], x_.end);
    const float *from = logits.const_data_ptr<float>(), *w = weights.const_data_ptr<float>();
    float *sum = sum_.mutable_data_ptr<float>(), *weight = weight_.mutable_data_ptr<float>();
    // Class `classes` stands for the weights themselves.
    ops::torch_parallel_for((classes + 1) * patch_[0], 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t k = i / patch_[0], z = i % patch_[0], slot = (start[0] + z) % patch_[0];
        float* to = k < classes ? sum + (k * patch_[0] + slot) * ny * nx : weight + slot * ny * nx;
        for (int64_t y = y0; y < y1; ++y) {
          const int64_t offset = (y - start[1]) * patch_[2] - start[2];
          const float *wr = w + z * plane + offset, *fr = from + (k * patch_[0] + z) * plane + offset;
          float* tr = to + (y - y_.begin) * nx - x_.begin;
          if (k < classes) {
            for (int64_t x = x0; x < x1; ++x) tr[x] += fr[x] * wr[x];
          } else {
            for (int64_t x = x0; x < x1; ++x) tr[x] += wr[x];
          }
        }
      }
    });
  }

  /// Hands planes [begin, end) of the padded image to the sink, `before` voxels of padding taken off, and clears them.
  void finish(int64_t begin, int64_t end, const Triple& before, const ScoreSink& sink) {
    while (begin < end) {
      const int64_t slot = begin % patch_[0], planes = std::min(end - begin, patch_[0] - slot);
      const auto scores = sum_.narrow(1, slot, planes), weight = weight_.narrow(0, slot, planes);
      scores.div_(weight);
      sink({begin - before[0], y_.begin - before[1], x_.begin - before[2]}, scores);
      scores.zero_(), weight.zero_();
      begin += planes;
    }
  }

 private:
  Triple patch_;
  const Range &y_, &x_;
  torch::Tensor sum_, weight_;
};

void check_image(const torch::Tensor& image) {
  if (image.dim() != 4 || image.numel() == 0 || !image.device().is_cpu())
    throw ArgumentError("sliding window: image has shape " + c10::str(image.sizes()) + " on " + image.device().str() + ", expected [C,Z,Y,X] on the CPU");
}

/// Labels of scores [K,dz,dy,dx] into `labels` at the voxels from `start` on.
template <class Label>
void arg_max(const torch::Tensor& scores, const View<Label, 3>& labels, const Triple& start) {
  const int64_t classes = scores.size(0), dy = scores.size(2), dx = scores.size(3);
  const float* data = scores.const_data_ptr<float>();
  const int64_t sk = scores.stride(0), sz = scores.stride(1), sy = scores.stride(2);
  std::mutex mutex;
  int64_t nan_row = std::numeric_limits<int64_t>::max();
  ops::torch_parallel_for(scores.size(1) * dy, 64, [&](int64_t begin, int64_t end) {
    std::vector<float> best(static_cast<size_t>(dx));
    for (int64_t r = begin; r < end; ++r) {
      const int64_t z = r / dy, y = r % dy;
      Label* out = &labels(start[0] + z, start[1] + y, start[2]);
      bool is_nan = false;
      for (int64_t k = 0; k < classes; ++k) {
        const float* row = data + k * sk + z * sz + y * sy;
        for (int64_t x = 0; x < dx; ++x) {
          is_nan |= row[x] != row[x];
          if (k == 0 || row[x] > best[x]) best[x] = row[x], out[x] = static_cast<Label>(k);
        }
      }
      if (!is_nan) continue;
      const std::lock_guard lock(mutex);
      nan_row = std::min(nan_row, r);
    }
  });
  if (nan_row != std::numeric_limits<int64_t>::max())
    throw ArgumentError("the network gave nan in the row of voxels z " + std::to_string(start[0] + nan_row / dy) + ", y " +
                        std::to_string(start[1] + nan_row % dy) + "; are its weights and the image finite?");
}

}  // namespace

void SlidingWindowConfig::validate() const {
  for (int64_t p : patch_size)
    if (p < 1) throw ArgumentError("sliding window: patch_size " + text(patch_size) + ", expected at least 1 voxel an axis");
  if (!(overlap >= 0 && overlap < 1)) throw ArgumentError("sliding window: overlap " + std::to_string(overlap) + ", expected 0 <= overlap < 1");
  if (!(sigma_scale > 0)) throw ArgumentError("sliding window: sigma_scale " + std::to_string(sigma_scale) + ", expected a positive number");
  if (batch < 1) throw ArgumentError("sliding window: batch " + std::to_string(batch) + ", expected at least 1");
  for (size_t i = 0; i < mirror_axes.size(); ++i) {
    const int a = mirror_axes[i];
    if (a < 0 || a > 2) throw ArgumentError("sliding window: mirror axis " + std::to_string(a) + ", expected 0 (Z), 1 (Y) or 2 (X)");
    if (std::find(mirror_axes.begin(), mirror_axes.begin() + i, a) != mirror_axes.begin() + i)
      throw ArgumentError("sliding window: mirror axis " + std::to_string(a) + " is named twice");
  }
}

SlidingWindowConfig nnunet_windows(const Triple& patch_size, std::vector<int> mirror_axes) {
  SlidingWindowConfig c;
  c.patch_size = patch_size, c.mirror_axes = std::move(mirror_axes);
  return c;
}

SlidingWindowConfig monai_windows(const Triple& patch_size) {
  SlidingWindowConfig c;
  c.rule = WindowRule::kMonai, c.patch_size = patch_size, c.overlap = 0.25, c.blending = Blending::kConstant;
  return c;
}

std::array<std::vector<int64_t>, 3> window_starts(const Triple& shape, const SlidingWindowConfig& config) {
  config.validate();
  const Triple length = padded(shape, config);
  std::array<std::vector<int64_t>, 3> starts;
  for (int a = 0; a < 3; ++a)
    starts[a] = (config.rule == WindowRule::kNnunet ? starts_nnunet : starts_monai)(length[a], config.patch_size[a], config.overlap);
  return starts;
}

Triple padding_before(const Triple& shape, const SlidingWindowConfig& config) {
  const Triple length = padded(shape, config);
  return {(length[0] - shape[0]) / 2, (length[1] - shape[1]) / 2, (length[2] - shape[2]) / 2};
}

torch::Tensor window_weights(const SlidingWindowConfig& config) {
  config.validate();
  const Triple& p = config.patch_size;
  if (config.blending == Blending::kConstant) return torch::ones({p[0], p[1], p[2]}, torch::kFloat);
  auto map = gaussian_axis(p[0], config);
  for (int a = 1; a < 3; ++a) map = map.unsqueeze(-1) * gaussian_axis(p[a], config);
  if (config.rule == WindowRule::kMonai) return map.clamp_min(std::max<double>(map.min().item<float>(), 1e-3)).contiguous();
  map = (map * 10).to(torch::kHalf).to(torch::kFloat);
  return torch::where(map == 0, map.masked_select(map != 0).min(), map).contiguous();
}

torch::Tensor predict_window(const torch::Tensor& windows, const WindowNetwork& network, const SlidingWindowConfig& config) {
  const auto ask = [&](const torch::Tensor& x) {
    const auto logits = network(x);
    bool fits = logits.dim() == 5 && logits.size(0) == x.size(0) && logits.size(1) >= 1;
    for (int a = 2; a < 5 && fits; ++a) fits = logits.size(a) == x.size(a);
    if (!fits)
      throw ArgumentError("sliding window: the network gave logits " + c10::str(logits.sizes()) + " for windows " + c10::str(x.sizes()) + ", expected [B,K,z,y,x]");
    return logits.to(torch::kCPU, torch::kFloat);
  };
  auto sum = ask(windows);
  const size_t axes = config.mirror_axes.size();
  if (axes == 0) return sum.contiguous();
  // All subsets of the axes, small ones first, each in the order of the list.
  int64_t answers = 1;
  for (size_t size = 1; size <= axes; ++size) {
    std::vector<bool> chosen(axes);
    std::fill_n(chosen.begin(), size, true);
    do {
      std::vector<int64_t> dims;
      for (size_t i = 0; i < axes; ++i)
        if (chosen[i]) dims.push_back(config.mirror_axes[i] + 2);
      const auto mirrored = torch::flip(ask(torch::flip(windows, dims)), dims);
      if (answers++ == 1) sum = sum + mirrored;  // not in place: it may be memory of the network
      else sum.add_(mirrored);
    } while (std::prev_permutation(chosen.begin(), chosen.end()));
  }
  return sum.div_(double(answers)).contiguous();
}

int64_t window_count(const Triple& shape, const SlidingWindowConfig& config, const Stripes& stripes) {
  const auto starts = window_starts(shape, config);
  const Triple before = padding_before(shape, config);
  const auto along = [&](int axis, int64_t pieces) {
    int64_t n = 0;
    for (const Range& r : ranges(shape[axis], before[axis], starts[axis], config.patch_size[axis], pieces)) n += int64_t(r.starts.size());
    return n;
  };
  return int64_t(starts[0].size()) * along(1, stripes.y) * along(2, stripes.x);
}

void stream_scores(const torch::Tensor& image, const WindowNetwork& network, const SlidingWindowConfig& config,
                   const Stripes& stripes, const ScoreSink& sink, const WindowProgress& progress) {
  torch::NoGradGuard no_grad;
  check_image(image);
  const Triple shape{image.size(1), image.size(2), image.size(3)}, &patch = config.patch_size;
  const auto starts = window_starts(shape, config);
  const Triple before = padding_before(shape, config);
  const auto weights = window_weights(config);
  const int64_t total = window_count(shape, config, stripes), end_z = before[0] + shape[0];
  int64_t done = 0, classes = 0;
  for (const Range& y : ranges(shape[1], before[1], starts[1], patch[1], stripes.y))
    for (const Range& x : ranges(shape[2], before[2], starts[2], patch[2], stripes.x)) {
      std::unique_ptr<Accumulator> sums;  // made when the first answer tells the number of classes
      const int64_t columns = int64_t(x.starts.size()), layer = int64_t(y.starts.size()) * columns;
      for (size_t k = 0; k < starts[0].size(); ++k) {
        const int64_t z = starts[0][k];
        for (int64_t first = 0; first < layer; first += config.batch) {
          const int64_t count = std::min(config.batch, layer - first);
          const auto at = [&](int64_t i) { return Triple{z, y.starts[(first + i) / columns], x.starts[(first + i) % columns]}; };
          auto windows = torch::empty({count, image.size(0), patch[0], patch[1], patch[2]}, torch::kFloat);
          for (int64_t i = 0; i < count; ++i) cut_window(image, at(i), before, windows[i]);
          const auto logits = predict_window(windows, network, config);
          windows.reset();
          if (!sums) {
            if (classes != 0 && classes != logits.size(1))
              throw ArgumentError("sliding window: the network gave " + std::to_string(logits.size(1)) + " classes after " + std::to_string(classes));
            classes = logits.size(1);
            sums = std::make_unique<Accumulator>(classes, patch, y, x);
          }
          for (int64_t i = 0; i < count; ++i) sums->add(logits[i], weights, at(i));
          done += count;
          if (progress) progress(done, total);
        }
        const int64_t final_z = k + 1 < starts[0].size() ? starts[0][k + 1] : end_z;
        sums->finish(std::max(z, before[0]), std::min(final_z, end_z), before, sink);
        release_free_memory();
      }
    }
}

torch::Tensor predict_scores(const torch::Tensor& image, const WindowNetwork& network, const SlidingWindowConfig& config,
                             const WindowProgress& progress) {
  torch::Tensor all;
  stream_scores(image, network, config, {}, [&](const Triple& start, const torch::Tensor& scores) {
    if (!all.defined()) all = torch::empty({scores.size(0), image.size(1), image.size(2), image.size(3)}, torch::kFloat);
    all.narrow(1, start[0], scores.size(1)).narrow(2, start[1], scores.size(2)).narrow(3, start[2], scores.size(3)).copy_(scores);
  }, progress);
  return all;
}

torch::Tensor predict_labels(const torch::Tensor& image, const WindowNetwork& network, const SlidingWindowConfig& config,
                             const LabelOptions& options) {
  check_image(image);
  const Triple shape{image.size(1), image.size(2), image.size(3)};
  torch::Tensor labels;
  stream_scores(image, network, config, options.stripes, [&](const Triple& start, const torch::Tensor& scores) {
    if (!labels.defined()) {
      if (scores.size(0) > 32768) throw ArgumentError("sliding window: " + std::to_string(scores.size(0)) + " classes, expected at most 32768");
      labels = torch::zeros(image.sizes().slice(1), scores.size(0) <= 256 ? torch::kByte : torch::kShort);
    }
    if (options.score_sink) options.score_sink(start, scores);
    if (labels.scalar_type() == torch::kByte) arg_max(scores, View<uint8_t, 3>::contiguous(labels.mutable_data_ptr<uint8_t>(), shape), start);
    else arg_max(scores, View<int16_t, 3>::contiguous(labels.mutable_data_ptr<int16_t>(), shape), start);
  }, options.progress);
  return labels;
}

torch::Tensor probabilities(const torch::Tensor& scores, DType dtype) {
  const auto p = torch::softmax(scores, 0);
  if (dtype == DType::kF16) return p.to(torch::kHalf);
  if (dtype == DType::kU8) return p.mul(255).round_().to(torch::kUInt8);
  throw ArgumentError("probabilities: dtype " + std::string(name_of(dtype)) + ", expected f16 or u8");
}

}  // namespace fovea::infer
