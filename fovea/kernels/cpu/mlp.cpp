// The perceptron of a transformer block on vectors.
//   forward   of a block of rows: z = norm(x); h = gelu(z W1 + b1), both in scratch; out = h W2 + b2 [+ x]
//   backward  z and the hidden values again; dh = g W2 * gelu'; dz = dh W1, through the norm to grad_x; dh^T z and g^T h
//             are added to the part's sums
//   A block's hidden values stay in the second-level cache. GELU, one value at a time in registers:
//     gelu(h) = max(h, 0) - |h| T,  T = Phi(-|h|) = 2^(-|h| q(|h|) - 1),  q a polynomial fitted on [0, 6]
//   T errs by 4e-8, gelu by 8e-8 * max(1, |h|).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fovea/kernels/cpu/mlp.cpp"
#include "fovea/kernels/cpu/targets.h"

#include "hwy/foreach_target.h"

#include "fovea/kernels/cpu/linear-inl.h"
#include "fovea/kernels/mlp.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace mlp {

// Phi(-size) for size = |h|.
HWY_INLINE Vector Tail(Vector size) {
  const Floats d;
  const Vector x = hn::Min(size, hn::Set(d, 6.f));
  Vector q = hn::MulAdd(x, hn::Set(d, -3.41620847e-7f), hn::Set(d, 7.24032225e-6f));
  q = hn::MulAdd(q, x, hn::Set(d, -6.22999505e-5f));
  q = hn::MulAdd(q, x, hn::Set(d, 2.48334254e-4f));
  q = hn::MulAdd(q, x, hn::Set(d, 4.23001729e-5f));
  q = hn::MulAdd(q, x, hn::Set(d, -6.98225759e-3f));
  q = hn::MulAdd(q, x, hn::Set(d, 5.24590239e-2f));
  q = hn::MulAdd(q, x, hn::Set(d, 4.59216118e-1f));
  q = hn::MulAdd(q, x, hn::Set(d, 1.15110469f));
  return Exp2(hn::NegMulAdd(size, q, hn::Set(d, -1.f)));
}

// |h| as a factor of T, which is 0 where |h| is infinite.
HWY_INLINE Vector FiniteSize(Vector size) {
  const Floats d;
  const Vector largest = hn::Set(d, std::numeric_limits<float>::max());
  return hn::IfThenElse(hn::Gt(size, largest), largest, size);
}

HWY_INLINE Vector Gelu(Vector h, Vector size, Vector tail) {
  const Floats d;
  const Vector positive = hn::IfThenZeroElse(hn::Lt(h, hn::Zero(d)), h);
  return hn::NegMulAdd(FiniteSize(size), tail, positive);
}

// Phi(h) + h * phi(h).
HWY_INLINE Vector GeluSlope(Vector h, Vector size, Vector tail) {
  const Floats d;
  const Vector below = hn::IfThenElse(hn::Lt(h, hn::Zero(d)), tail, hn::Sub(hn::Set(d, 1.f), tail));
  const Vector square = hn::Mul(hn::Mul(h, h), hn::Set(d, -0.5f * kLog2e));
  const Vector density = hn::Mul(Exp2(square), hn::Set(d, 0.398942280f));
  const Vector finite = hn::IfThenElse(hn::Lt(h, hn::Zero(d)), hn::Neg(FiniteSize(size)), FiniteSize(size));
  return hn::MulAdd(finite, density, below);
}

// The weights as the products want them, and the biases.
struct Layers {
  int64_t E, M, O;
  InputRows input;
  Padded bias1, bias2;
  AlignedMemory<float> first;  // z -> hidden

  explicit Layers(const MlpParams<float>& p)
      : E(p.x.shape[1]), M(p.weight1.shape[0]), O(p.weight2.shape[0]), input(p.x, p.norm), bias1(p.bias1, M),
        bias2(p.bias2, O), first(aligned_memory<float>(packed_size(E, M) + 1)) {
    PackTransposedWeight(p.weight1.data, p.weight1.stride[0], E, M, first.get());
  }
  int64_t hidden_step() const { return round_up(M, L); }
};

void Forward(const MlpParams<float>& p, const ParallelFor& parallel) {
  const Layers layers(p);
  const int64_t E = layers.E, M = layers.M, O = layers.O, step = layers.input.step(), hidden = layers.hidden_step();
  const auto second = aligned_memory<float>(packed_size(M, O) + 1);
  PackTransposedWeight(p.weight2.data, p.weight2.stride[0], M, O, second.get());
  const RowBlocks blocks(p.x.shape[0], hidden);
  parallel(blocks.blocks, 4, [&](int64_t begin, int64_t end) {
    const Floats d;
    const auto memory = aligned_memory<float>(blocks.rows * (step + hidden + 2));
    float *z = memory.get(), *h = z + blocks.rows * step, *mean = h + blocks.rows * hidden, *rstd = mean + blocks.rows;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * blocks.rows, count = blocks.count(b);
      layers.input.Forward(first, count, z, mean, rstd);
      Product(z, step, count, E, layers.first.get(), M, ToScratch{h, hidden, layers.bias1.data()});
      for (int64_t i = 0; i < count * hidden; i += L) {
        const Vector value = hn::LoadU(d, h + i), size = hn::Abs(value);
        hn::StoreU(Gelu(value, size, Tail(size)), d, h + i);
      }
      Product(h, hidden, count, M, second.get(), O,
              ToRows{p.out.data + first * p.out.stride[0], p.out.stride[0], O, layers.bias2.data(),
                     p.add_input ? p.x.data + first * p.x.stride[0] : nullptr, p.x.stride[0]});
    }
  });
}

void Backward(const MlpBackwardParams<float>& g, const ParallelFor& parallel) {
  const MlpParams<float>& p = g.forward;
  const Layers layers(p);
  const InputRows& input = layers.input;
  const int64_t E = layers.E, M = layers.M, O = layers.O, step = input.step(), hidden = layers.hidden_step();
  const auto back2 = aligned_memory<float>(packed_size(O, M) + 1);  // grad_out -> hidden
  PackWeight(p.weight2.data, p.weight2.stride[0], O, M, back2.get());
  const RowBlocks blocks(p.x.shape[0], 2 * hidden);
  InputGradient to_input(input, p.weight1, g.grad_x, g.grad_norm, blocks.parts);
  PartSums weight1(blocks.parts, M, E, g.grad_weight1.data), bias1(blocks.parts, 1, M, g.grad_bias1.data);
  PartSums weight2(blocks.parts, O, M, g.grad_weight2.data), bias2(blocks.parts, 1, O, g.grad_bias2.data);
  blocks.ForParts(parallel, [&](int64_t part, int64_t begin, int64_t end) {
    const Floats d;
    const auto memory = aligned_memory<float>(blocks.rows * (2 * step + 2 * hidden + 2));
    float *z = memory.get(), *dz = z + blocks.rows * step, *h = dz + blocks.rows * step, *dh = h + blocks.rows * hidden;
    float *mean = dh + blocks.rows * hidden, *rstd = mean + blocks.rows;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * blocks.rows, count = blocks.count(b), grad_step = g.grad_out.stride[0];
      const float* grad = g.grad_out.data + first * grad_step;
      input.Forward(first, count, z, mean, rstd);
      Product(z, step, count, E, layers.first.get(), M, ToScratch{h, hidden, layers.bias1.data()});
      Product(grad, grad_step, count, O, back2.get(), M, ToScratch{dh, hidden, nullptr});
      for (int64_t i = 0; i < count * hidden; i += L) {
        const Vector value = hn::LoadU(d, h + i), size = hn::Abs(value), tail = Tail(size);
        hn::StoreU(hn::Mul(hn::LoadU(d, dh + i), GeluSlope(value, size, tail)), d, dh + i);
        hn::StoreU(Gelu(value, size, tail), d, h + i);
      }
      if (weight1.wanted()) AddOuterProduct(dh, hidden, M, z, step, E, count, weight1.part(part), weight1.step());
      if (weight2.wanted()) AddOuterProduct(grad, grad_step, O, h, hidden, M, count, weight2.part(part), weight2.step());
      if (bias1.wanted()) AddRows(dh, hidden, count, M, bias1.part(part));
      if (bias2.wanted()) AddRows(grad, grad_step, count, O, bias2.part(part));
      if (to_input.wanted())
        to_input.Put(part, first, count, dh, hidden, mean, rstd, dz, p.add_input ? g.grad_out.data : nullptr, grad_step);
    }
  });
  weight1.Join(g.grad_weight1, parallel);
  weight2.Join(g.grad_weight2, parallel);
  bias1.Join(g.grad_bias1, parallel);
  bias2.Join(g.grad_bias2, parallel);
  to_input.Join(parallel);
}

}  // namespace mlp
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS

#if HWY_ONCE
namespace fovea::kernels::cpu {

void mlp_forward(const MlpParams<float>& p, const ParallelFor& parallel, Isa isa) {
  FOVEA_RETURN_BEST(isa, mlp::Forward, p, parallel)
  reference::mlp_forward(p, parallel);
}

void mlp_backward(const MlpBackwardParams<float>& g, const ParallelFor& parallel, Isa isa) {
  FOVEA_RETURN_BEST(isa, mlp::Backward, g, parallel)
  reference::mlp_backward(g, parallel);
}

}  // namespace fovea::kernels::cpu
#endif  // HWY_ONCE
