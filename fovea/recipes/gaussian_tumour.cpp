#include "fovea/recipes/gaussian_tumour.h"

#include <vector>

namespace fovea::recipes {

Tumours draw_tumours(int64_t count, const TumourOptions& o, at::Generator generator) {
  const auto f32 = torch::TensorOptions(torch::kFloat32);
  const auto normal = [&](at::IntArrayRef shape) { return torch::randn(shape, generator, f32); };
  Tumours t;
  t.sigma_vox = o.sigma_vox ? torch::full({count}, *o.sigma_vox, f32)
                            : torch::rand({count}, generator, f32) * (o.largest_vox - o.smallest_vox) + o.smallest_vox;
  t.at_vox = torch::rand({count, o.axes}, generator, f32) + double(o.edge_vox) / 2 - 1;
  t.moved = normal({count, o.axes}), t.grown = normal({count, 1});
  const auto axis = torch::arange(o.edge_vox, f32);
  const auto tumour = [&](const torch::Tensor& centre, const torch::Tensor& sigma) {
    torch::Tensor scan;  // [B,(Z,)Y,X]: a product of one factor an axis
    for (int64_t a = o.axes - 1; a >= 0; --a) {
      auto factor = (-(axis - centre.select(1, a).unsqueeze(1)).square() / (2 * sigma.square())).exp();
      scan = scan.defined() ? (scan.unsqueeze(2) * factor.unsqueeze(1)).flatten(1) : factor;
    }
    return scan;
  };
  const auto sigma = t.sigma_vox.unsqueeze(1);
  t.earlier = tumour(t.at_vox, sigma);
  const auto scan = tumour(t.at_vox + t.moved * o.move * sigma, sigma * (1 + o.grow * t.grown));
  t.voxels = o.noise > 0 ? scan + normal(scan.sizes()) * o.noise : scan;
  t.features = t.sigma_vox.unsqueeze(1) / kScaleUnit_vox;
  return t;
}

}  // namespace fovea::recipes
