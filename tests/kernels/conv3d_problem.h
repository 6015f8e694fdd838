#pragma once
#include "fovea/kernels/conv3d.h"
#include "problems.h"

namespace fovea::kernels {

struct Conv3dShape {
  int64_t B = 1;
  Triple grid{4, 4, 4};
  int64_t in = 2, out = 2;
  bool bias = true;

  std::string text() const {
    std::ostringstream s;
    s << "B " << B << " grid " << grid[0] << 'x' << grid[1] << 'x' << grid[2] << " channels " << in << " -> " << out
      << (bias ? " with bias" : "");
    return s.str();
  }
};

/// One convolution with its memory: random inputs, output, gradients. Tests change what they like, then run.
template <class T>
struct Conv3dProblem {
  Conv3dShape shape;
  std::vector<T> x, weight, bias, out, grad_out, grad_x, grad_weight, grad_bias;
  std::vector<double> moments;

  explicit Conv3dProblem(const Conv3dShape& s, uint64_t seed = 1) : shape(s) {
    Rng rng(seed, 0, 0);
    x.resize(s.B * product(s.grid) * s.in), weight.resize(s.out * 27 * s.in), bias.resize(s.out);
    grad_out.resize(s.B * product(s.grid) * s.out);
    for (auto* values : {&x, &weight, &bias, &grad_out}) fill_normal(*values, rng);
    out.resize(grad_out.size()), grad_x.resize(x.size()), grad_weight.resize(weight.size()),
        grad_bias.resize(bias.size());
    moments.resize(s.B * s.out * 2);
  }

  template <class U>
  explicit Conv3dProblem(const Conv3dProblem<U>& other) : Conv3dProblem(other.shape) {
    x = converted<T>(other.x), weight = converted<T>(other.weight), bias = converted<T>(other.bias),
    grad_out = converted<T>(other.grad_out);
  }

  std::array<int64_t, 5> volume(int64_t channels) const {
    return {shape.B, shape.grid[0], shape.grid[1], shape.grid[2], channels};
  }

  Conv3dParams<T> params() {
    Conv3dParams<T> p;
    p.x = View<const T, 5>::contiguous(x.data(), volume(shape.in));
    p.weight = View<const T, 5>::contiguous(weight.data(), {shape.out, 3, 3, 3, shape.in});
    if (shape.bias) p.bias = View<const T, 1>::contiguous(bias.data(), {shape.out});
    p.out = View<T, 5>::contiguous(out.data(), volume(shape.out));
    p.moments = View<double, 3>::contiguous(moments.data(), {shape.B, shape.out, 2});
    return p;
  }

  Conv3dBackwardParams<T> backward_params() {
    Conv3dBackwardParams<T> g;
    g.forward = params();
    g.grad_out = View<const T, 5>::contiguous(grad_out.data(), volume(shape.out));
    g.grad_x = View<T, 5>::contiguous(grad_x.data(), volume(shape.in));
    g.grad_weight = View<T, 5>::contiguous(grad_weight.data(), g.forward.weight.shape);
    g.grad_bias = View<T, 1>::contiguous(grad_bias.data(), {shape.out});
    return g;
  }
};

}  // namespace fovea::kernels
