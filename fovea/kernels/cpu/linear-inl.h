// What the linear layer and the perceptron share. Included once per Highway target.
//   Rows are taken in blocks that fit the second-level cache. A block's input (layer norm of x, or x) stands in scratch
//   as [rows][step], zeros behind the last channel up to the next vector, so that products and outer products read whole
//   vectors. Sums over all rows (gradients of weights) go to one of a few parts, a part being a run of blocks fixed by the
//   shape; the parts are joined in order, so the sums do not depend on the threads.
#if defined(FOVEA_KERNELS_LINEAR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOVEA_KERNELS_LINEAR_INL_H_
#undef FOVEA_KERNELS_LINEAR_INL_H_
#else
#define FOVEA_KERNELS_LINEAR_INL_H_
#endif

#include <vector>

#include "fovea/kernels/cpu/gemm-inl.h"
#include "fovea/kernels/linear.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {

// A vector of N values with zeros up to the next vector of lanes; `absent` fills the place of a missing one.
class Padded {
 public:
  Padded(const View<const float, 1>& values, int64_t N, float absent = 0) : data_(aligned_memory<float>(round_up(N, L) + 1)) {
    for (int64_t i = 0; i < N; ++i) data_[i] = values.data ? values(i) : absent;
    for (int64_t i = N; i < round_up(N, L); ++i) data_[i] = 0;
  }
  const float* data() const { return data_.get(); }

 private:
  AlignedMemory<float> data_;
};

HWY_INLINE Vector LoadUpTo(const float* from, int64_t n) {
  return n >= L ? hn::LoadU(Floats(), from) : LoadPart(from, static_cast<int>(n));
}
HWY_INLINE void StoreUpTo(Vector x, float* to, int64_t n) {
  n >= L ? hn::StoreU(x, Floats(), to) : StorePart(x, to, static_cast<int>(n));
}

// Where a product goes: rows of N channels in memory, plus a bias and perhaps rows that are added.
struct ToRows {
  float* to;
  int64_t step, N;
  const float* bias;  // padded
  const float* add;   // null: nothing
  int64_t add_step;
  HWY_INLINE void operator()(int64_t i, int64_t j, Vector sum) const {
    sum = hn::Add(sum, hn::Load(Floats(), bias + j));
    if (add) sum = hn::Add(sum, LoadUpTo(add + i * add_step + j, N - j));
    StoreUpTo(sum, to + i * step + j, N - j);
  }
};

// Channels that are groups, each with a place of its own beside the row's.
struct ToGroups {
  float* to;
  const int64_t *row_offset, *group_offset;  // row_offset: of the block's first row
  int64_t N, G;
  const float* bias;  // padded
  HWY_INLINE void operator()(int64_t i, int64_t j, Vector sum) const {
    const Floats d;
    sum = hn::Add(sum, hn::Load(d, bias + j));
    float* row = to + row_offset[i];
    if (G % L == 0) {
      hn::StoreU(sum, d, row + group_offset[j / G] + j % G);
      return;
    }
    HWY_ALIGN float lanes[L];
    hn::Store(sum, d, lanes);
    for (int64_t o = j; o < std::min(N, j + L); ++o) row[group_offset[o / G] + o % G] = lanes[o - j];
  }
};

// Scratch rows, whose steps are whole vectors.
struct ToScratch {
  float* to;
  int64_t step;
  const float* bias;  // null: 0
  HWY_INLINE void operator()(int64_t i, int64_t j, Vector sum) const {
    const Floats d;
    if (bias) sum = hn::Add(sum, hn::Load(d, bias + j));
    hn::StoreU(sum, d, to + i * step + j);
  }
};

// sum[j] += rows[i][j] for all rows, j < N.
inline void AddRows(const float* rows, int64_t step, int64_t count, int64_t N, float* sum) {
  const Floats d;
  for (int64_t j = 0; j < N; j += L) {
    Vector total = hn::Zero(d);
    for (int64_t i = 0; i < count; ++i) total = hn::Add(total, LoadUpTo(rows + i * step + j, N - j));
    hn::StoreU(hn::Add(total, hn::LoadU(d, sum + j)), d, sum + j);
  }
}

// The rows that enter the product.
class InputRows {
 public:
  InputRows(const View<const float, 2>& x, const LayerNorm<float>& norm)
      : x_(x), norm_(norm), I_(x.shape[1]), step_(round_up(I_, L)), weight_(norm.weight, I_), bias_(norm.bias, I_) {}

  int64_t step() const { return step_; }
  bool normed() const { return norm_.present(); }

  // Rows [first, first + count) as [count][step()]. mean, rstd: count of each, kept for Backward.
  void Forward(int64_t first, int64_t count, float* HWY_RESTRICT z, float* mean, float* rstd) const {
    const Floats d;
    for (int64_t i = 0; i < count; ++i, z += step_) {
      const float* x = Row(first + i);
      if (!normed()) {
        for (int64_t c = 0; c < I_; c += L) hn::StoreU(LoadUpTo(x + c, I_ - c), d, z + c);
        continue;
      }
      Vector sum = hn::Zero(d);
      for (int64_t c = 0; c < I_; c += L) sum = hn::Add(sum, LoadUpTo(x + c, I_ - c));
      const float m = hn::GetLane(hn::SumOfLanes(d, sum)) / static_cast<float>(I_);
      Vector square = hn::Zero(d);
      for (int64_t c = 0; c < I_; c += L) {
        const Vector delta = Centred(x, c, m);
        square = hn::MulAdd(delta, delta, square);
      }
      const float r = 1 / std::sqrt(hn::GetLane(hn::SumOfLanes(d, square)) / static_cast<float>(I_) + static_cast<float>(norm_.epsilon));
      mean[i] = m, rstd[i] = r;
      for (int64_t c = 0; c < I_; c += L) {
        const Vector hat = hn::Mul(Centred(x, c, m), hn::Set(d, r));
        hn::StoreU(hn::MulAdd(hat, hn::Load(d, weight_.data() + c), hn::Load(d, bias_.data() + c)), d, z + c);
      }
    }
  }

  // The layer norm's part of the way back: dz [count][step()] to rows of grad_x (null: not wanted), plus `add` rows, and
  // to the sums weight_sum, bias_sum [step()].
  void Backward(int64_t first, int64_t count, const float* dz, const float* mean, const float* rstd, float* grad_x,
                int64_t grad_x_step, const float* add, int64_t add_step, float* weight_sum, float* bias_sum) const {
    const Floats d;
    for (int64_t i = 0; i < count; ++i, dz += step_) {
      const float* x = Row(first + i);
      const Vector r = hn::Set(d, rstd[i]);
      Vector sum = hn::Zero(d), product = hn::Zero(d);
      for (int64_t c = 0; c < I_; c += L) {
        const Vector g = hn::LoadU(d, dz + c), hat = hn::Mul(Centred(x, c, mean[i]), r);
        const Vector scaled = hn::Mul(g, hn::Load(d, weight_.data() + c));
        sum = hn::Add(sum, scaled);
        product = hn::MulAdd(scaled, hat, product);
        hn::StoreU(hn::MulAdd(g, hat, hn::LoadU(d, weight_sum + c)), d, weight_sum + c);
        hn::StoreU(hn::Add(g, hn::LoadU(d, bias_sum + c)), d, bias_sum + c);
      }
      if (!grad_x) continue;
      const Vector a = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, sum)) / static_cast<float>(I_));
      const Vector b = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, product)) / static_cast<float>(I_));
      for (int64_t c = 0; c < I_; c += L) {
        const Vector hat = hn::Mul(Centred(x, c, mean[i]), r);
        const Vector scaled = hn::Mul(hn::LoadU(d, dz + c), hn::Load(d, weight_.data() + c));
        Vector dx = hn::Mul(r, hn::Sub(scaled, hn::MulAdd(hat, b, a)));
        if (add) dx = hn::Add(dx, LoadUpTo(add + (first + i) * add_step + c, I_ - c));
        StoreUpTo(dx, grad_x + (first + i) * grad_x_step + c, I_ - c);
      }
    }
  }

 private:
  const float* Row(int64_t n) const { return x_.data + n * x_.stride[0]; }
  // x - mean; 0 behind the last channel.
  HWY_INLINE Vector Centred(const float* x, int64_t c, float mean) const {
    const Floats d;
    if (I_ - c >= L) return hn::Sub(hn::LoadU(d, x + c), hn::Set(d, mean));
    const int rest = static_cast<int>(I_ - c);
    return hn::IfThenElseZero(hn::FirstN(d, rest), hn::Sub(LoadPart(x + c, rest), hn::Set(d, mean)));
  }

  View<const float, 2> x_;
  LayerNorm<float> norm_;
  int64_t I_, step_;
  Padded weight_, bias_;
};

// One gradient [rows][N] as partial sums.
class PartSums {
 public:
  PartSums(int64_t parts, int64_t rows, int64_t N, bool wanted)
      : parts_(parts), rows_(rows), N_(N), step_(round_up(N, L)), sums_(wanted ? parts * rows * step_ : 0, 0.f) {}

  bool wanted() const { return !sums_.empty(); }
  int64_t step() const { return step_; }
  float* part(int64_t p) { return sums_.data() + p * rows_ * step_; }

  void Join(float* to, int64_t to_step, const ParallelFor& parallel) {
    if (!wanted()) return;
    parallel(rows_, std::max<int64_t>(1, (1 << 16) / (parts_ * step_)), [&](int64_t begin, int64_t end) {
      const Floats d;
      for (int64_t r = begin; r < end; ++r)
        for (int64_t j = 0; j < N_; j += L) {
          Vector sum = hn::LoadU(d, part(0) + r * step_ + j);
          for (int64_t p = 1; p < parts_; ++p) sum = hn::Add(sum, hn::LoadU(d, part(p) + r * step_ + j));
          StoreUpTo(sum, to + r * to_step + j, N_ - j);
        }
    });
  }
  void Join(const View<float, 2>& to, const ParallelFor& parallel) { Join(to.data, to.stride[0], parallel); }
  void Join(const View<float, 1>& to, const ParallelFor& parallel) { Join(to.data, 0, parallel); }

 private:
  int64_t parts_, rows_, N_, step_;
  std::vector<float> sums_;
};

// The way back to what entered the product: dz = g W, then through the norm to grad_x and to the norm's own gradients.
class InputGradient {
 public:
  // weight [K,I]: what the rows were multiplied with. g has K channels.
  InputGradient(const InputRows& input, const View<const float, 2>& weight, const View<float, 2>& grad_x,
                const LayerNormGradient<float>& grad_norm, int64_t parts)
      : input_(input), K_(weight.shape[0]), I_(weight.shape[1]), grad_x_(grad_x), grad_norm_(grad_norm), nothing_({}, I_),
        weight_sum_(parts, 1, I_, input.normed()), bias_sum_(parts, 1, I_, input.normed()) {
    if (!wanted()) return;
    packed_ = aligned_memory<float>(packed_size(K_, I_) + 1);
    PackWeight(weight.data, weight.stride[0], K_, I_, packed_.get());
  }
  bool wanted() const { return grad_x_.data || grad_norm_.weight.data || grad_norm_.bias.data; }

  // Of rows [first, first + count), g being the first. dz: scratch [count][input.step()]; mean, rstd as InputRows left
  // them; `add`: rows of the whole tensor added to grad_x, or null.
  void Put(int64_t part, int64_t first, int64_t count, const float* g, int64_t g_step, const float* mean, const float* rstd,
           float* dz, const float* add, int64_t add_step) {
    if (input_.normed()) {
      Product(g, g_step, count, K_, packed_.get(), I_, ToScratch{dz, input_.step(), nullptr});
      input_.Backward(first, count, dz, mean, rstd, grad_x_.data, grad_x_.stride[0], add, add_step, weight_sum_.part(part),
                      bias_sum_.part(part));
    } else {
      Product(g, g_step, count, K_, packed_.get(), I_,
              ToRows{grad_x_.data + first * grad_x_.stride[0], grad_x_.stride[0], I_, nothing_.data(),
                     add ? add + first * add_step : nullptr, add_step});
    }
  }

  void Join(const ParallelFor& parallel) {
    if (grad_norm_.weight.data) weight_sum_.Join(grad_norm_.weight, parallel);
    if (grad_norm_.bias.data) bias_sum_.Join(grad_norm_.bias, parallel);
  }

 private:
  const InputRows& input_;
  int64_t K_, I_;
  View<float, 2> grad_x_;
  LayerNormGradient<float> grad_norm_;
  Padded nothing_;
  AlignedMemory<float> packed_;
  PartSums weight_sum_, bias_sum_;
};

// How N rows, each with `width` floats of scratch, are cut into blocks, and blocks into parts.
struct RowBlocks {
  int64_t N, rows, blocks, parts;

  RowBlocks(int64_t n, int64_t width) : N(n) {
    constexpr int64_t kScratch = 1 << 16, kRowsOfPart = 1024, kMostParts = 16;  // floats, rows, parts
    rows = std::clamp<int64_t>(kScratch / std::max<int64_t>(1, width), 3 * kTileRows, 12 * kTileRows) / kTileRows * kTileRows;
    blocks = (N + rows - 1) / rows;
    parts = std::clamp<int64_t>(N / kRowsOfPart, 1, kMostParts);
  }
  int64_t count(int64_t block) const { return std::min(rows, N - block * rows); }

  // body(part, first block, end) for every part.
  template <class Body>
  void ForParts(const ParallelFor& parallel, const Body& body) const {
    parallel(parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) body(p, blocks * p / parts, blocks * (p + 1) / parts);
    });
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS
#endif  // toggle
