#include "fovea/data/potts.h"

#include "fovea/core/error.h"

namespace fovea::data {

torch::Tensor sample_potts(const torch::Tensor& couplings, const torch::Tensor& fields, int64_t count, int64_t sweeps, at::Generator generator) {
  const int64_t columns = fields.size(0), states = fields.size(1);
  if (couplings.sizes() != torch::IntArrayRef({columns, states, columns, states}))
    throw ArgumentError(c10::str("sample_potts: couplings are ", couplings.sizes(), ", expected [", columns, ",", states, ",", columns, ",", states, "]"));
  torch::NoGradGuard no_grad;
  auto x = torch::randint(states, {count, columns}, generator, torch::TensorOptions(torch::kInt64));
  auto hot = torch::one_hot(x, states).to(torch::kFloat32);  // [count,L,S]
  for (int64_t sweep = 0; sweep < sweeps; ++sweep)
    for (int64_t i = 0; i < columns; ++i) {
      const auto scores = torch::matmul(hot.flatten(1), couplings[i].flatten(1).t()) + fields[i];
      const auto chosen = torch::multinomial(torch::softmax(scores, 1), 1, /*replacement=*/true, generator);  // [count,1]
      x.select(1, i).copy_(chosen.squeeze(1));
      hot.select(1, i).zero_().scatter_(1, chosen, 1);
    }
  return x;
}

}  // namespace fovea::data
