// The linear layer of a transformer on vectors: layer norm before, bias and residual after, in one pass over the rows.
//   forward   a block of rows is normed into scratch (first- or second-level cache), multiplied with the packed weight a
//             column block at a time, and leaves with bias and residual added
//   backward  dz = g W into scratch, through the norm to grad_x; g^T z is added to the part's sum
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fovea/kernels/cpu/linear.cpp"
#include "fovea/kernels/cpu/targets.h"

#include "hwy/foreach_target.h"

#include "fovea/kernels/cpu/linear-inl.h"

#if FOVEA_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace fovea::kernels::cpu {
namespace HWY_NAMESPACE {
namespace linear {

void Forward(const LinearParams<float>& p, const ParallelFor& parallel) {
  const int64_t N = p.x.shape[0], I = p.x.shape[1], O = p.weight.shape[0];
  const InputRows input(p.x, p.norm);
  const Padded bias(p.bias, O);
  const auto packed = aligned_memory<float>(packed_size(I, O) + 1);
  PackTransposedWeight(p.weight.data, p.weight.stride[0], I, O, packed.get());
  const RowBlocks blocks(N, input.step());
  parallel(blocks.blocks, 4, [&](int64_t begin, int64_t end) {
    const auto memory = aligned_memory<float>(blocks.rows * (input.step() + 2));
    float *z = memory.get(), *mean = z + blocks.rows * input.step(), *rstd = mean + blocks.rows;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * blocks.rows, count = blocks.count(b);
      if (input.normed()) input.Forward(first, count, z, mean, rstd);
      const float* rows = input.normed() ? z : p.x.data + first * p.x.stride[0];
      const int64_t step = input.normed() ? input.step() : p.x.stride[0];
      if (p.row_offset.data) {
        const int64_t groups = p.group_offset.shape[0];
        Product(rows, step, count, I, packed.get(), O,
                ToGroups{p.out.data, p.row_offset.data + first, p.group_offset.data, O, O / groups, bias.data()});
        continue;
      }
      const ToRows out{p.out.data + first * p.out.stride[0], p.out.stride[0], O, bias.data(),
                       p.residual.data ? p.residual.data + first * p.residual.stride[0] : nullptr, p.residual.stride[0]};
      Product(rows, step, count, I, packed.get(), O, out);
    }
  });
}

void Backward(const LinearBackwardParams<float>& g, const ParallelFor& parallel) {
  const LinearParams<float>& p = g.forward;
  const int64_t N = p.x.shape[0], I = p.x.shape[1], O = p.weight.shape[0];
  const InputRows input(p.x, p.norm);
  const RowBlocks blocks(N, 2 * input.step());
  InputGradient to_input(input, p.weight, g.grad_x, g.grad_norm, blocks.parts);
  PartSums weight(blocks.parts, O, I, g.grad_weight.data), bias(blocks.parts, 1, O, g.grad_bias.data);
  blocks.ForParts(parallel, [&](int64_t part, int64_t begin, int64_t end) {
    const int64_t step = input.step(), grad_step = g.grad_out.stride[0];
    const auto memory = aligned_memory<float>(blocks.rows * (2 * step + 2));
    float *z = memory.get(), *dz = z + blocks.rows * step, *mean = dz + blocks.rows * step, *rstd = mean + blocks.rows;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * blocks.rows, count = blocks.count(b);
      const float* grad = g.grad_out.data + first * grad_step;
      if (weight.wanted() || input.normed()) input.Forward(first, count, z, mean, rstd);
      if (weight.wanted()) AddOuterProduct(grad, grad_step, O, z, step, I, count, weight.part(part), weight.step());
      if (bias.wanted()) AddRows(grad, grad_step, count, O, bias.part(part));
      if (to_input.wanted()) to_input.Put(part, first, count, grad, grad_step, mean, rstd, dz, nullptr, 0);
    }
  });
  weight.Join(g.grad_weight, parallel);
  bias.Join(g.grad_bias, parallel);
  to_input.Join(parallel);
}

}  // namespace linear
}  // namespace HWY_NAMESPACE
}  // namespace fovea::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif  // FOVEA_HAS_KERNELS

#if HWY_ONCE
namespace fovea::kernels::cpu {

void linear_forward(const LinearParams<float>& p, const ParallelFor& parallel, Isa isa) {
  FOVEA_RETURN_BEST(isa, linear::Forward, p, parallel)
  reference::linear_forward(p, parallel);
}

void linear_backward(const LinearBackwardParams<float>& g, const ParallelFor& parallel, Isa isa) {
  FOVEA_RETURN_BEST(isa, linear::Backward, g, parallel)
  reference::linear_backward(g, parallel);
}

}  // namespace fovea::kernels::cpu
#endif  // HWY_ONCE
