#include "fovea/nn/patch_merging.h"

#include <array>

#include "fovea/nn/linear.h"
#include "fovea/nn/trace.h"

namespace fovea::nn {
namespace {

using Octants = std::array<std::array<int64_t, 3>, 8>;  // offsets in Z, Y, X

Octants octants_of(MergingOrder order) {
  switch (order) {
    case MergingOrder::kAxisSum: return {{{0, 0, 0}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {1, 1, 0}, {1, 0, 1}, {0, 1, 1}, {1, 1, 1}}};
    case MergingOrder::kRepeated: return {{{0, 0, 0}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {1, 1, 0}, {0, 1, 0}, {0, 0, 1}, {1, 1, 1}}};
    default: return {{{0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {0, 1, 1}, {1, 0, 0}, {1, 0, 1}, {1, 1, 0}, {1, 1, 1}}};
  }
}

}  // namespace

PatchMergingImpl::PatchMergingImpl(const PatchMergingOptions& options) : order_(options.order()) {
  const int64_t dim = options.dim();
  reduction = register_module("reduction", torch::nn::Linear(torch::nn::LinearOptions(8 * dim, 2 * dim).bias(false)));
  norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({8 * dim})));
}

torch::Tensor PatchMergingImpl::forward(torch::Tensor x) {
  const auto odd = [&](int64_t axis) { return x.size(axis) % 2; };
  if (odd(1) || odd(2) || odd(3)) x = torch::constant_pad_nd(x, {0, 0, 0, odd(3), 0, odd(2), 0, odd(1)});
  const int64_t z = x.size(1) / 2, y = x.size(2) / 2, x_axis = x.size(3) / 2;
  const auto cells = x.view({x.size(0), z, 2, y, 2, x_axis, 2, x.size(4)});
  std::vector<torch::Tensor> parts;
  for (const auto& [dz, dy, dx] : octants_of(order_)) parts.push_back(cells.select(6, dx).select(4, dy).select(2, dz));
  return traced(this, linear(torch::cat(parts, -1), reduction, norm));
}

}  // namespace fovea::nn
