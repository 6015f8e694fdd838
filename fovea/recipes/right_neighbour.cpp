#include "fovea/recipes/right_neighbour.h"

#include <torch/torch.h>

#include "fovea/ops/window_attention.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

RightNeighbour learn_right_neighbour(bool with_bias, uint64_t seed) {
  constexpr int64_t kSymbols = 8, kWidth = 16, w = 4, kBatch = 16;
  const OneThread one_thread;
  auto generator = at::detail::createCPUGenerator(seed);
  const auto f32 = torch::TensorOptions(torch::kFloat32);
  auto parameter = [&](at::IntArrayRef shape, double deviation) {
    return (torch::randn(shape, generator, f32) * deviation).requires_grad_();
  };
  auto embed = parameter({kSymbols, kWidth}, 1), project = parameter({kWidth, 3 * kWidth}, 0.25),
       read = parameter({kWidth, kSymbols}, 0.25);
  auto table = parameter({(2 * w - 1) * (2 * w - 1) * (2 * w - 1), 1}, 0.02);
  std::vector<torch::Tensor> parameters = {embed, project, read};
  if (with_bias) parameters.push_back(table);
  torch::optim::AdamW optimizer(parameters, torch::optim::AdamWOptions(0.03).weight_decay(0));
  auto run = [&](const torch::Tensor& symbols) {
    const auto qkv = torch::matmul(embed.index({symbols}), project).reshape({kBatch, w, w, w, 3, 1, kWidth});
    const auto out = std::get<0>(ops::window_attention(
        qkv, with_bias ? std::optional<torch::Tensor>(table) : std::nullopt, {w, w, w}, {0, 0, 0}));
    return torch::matmul(out, read).slice(3, 0, w - 1);  // the last column has no right neighbour
  };
  auto draw = [&] {
    return torch::randint(kSymbols, {kBatch, w, w, w}, generator, torch::TensorOptions(torch::kInt64));
  };
  for (int step = 0; step < 250; ++step) {
    const auto symbols = draw();
    optimizer.zero_grad();
    torch::nn::functional::cross_entropy(run(symbols).reshape({-1, kSymbols}), symbols.slice(3, 1, w).reshape({-1}))
        .backward();
    optimizer.step();
  }
  torch::NoGradGuard no_grad;
  const auto symbols = draw();
  const double accuracy = (run(symbols).argmax(-1) == symbols.slice(3, 1, w)).to(torch::kFloat64).mean().item<double>();
  const auto counts = torch::one_hot(symbols.reshape({kBatch, -1}), kSymbols).sum(1);  // [B, symbols]
  const auto frequent = counts.argmax(-1).reshape({kBatch, 1, 1, 1});
  const double majority = (frequent == symbols.slice(3, 1, w)).to(torch::kFloat64).mean().item<double>();
  // Row of key - query = (0, 0, +1), that is query - key = (0, 0, -1).
  const int64_t row = ((0 + w - 1) * (2 * w - 1) + (0 + w - 1)) * (2 * w - 1) + (-1 + w - 1);
  // Rows go by query - key: backwards they go by key - query.
  const auto bias = table.flatten().flip(0).to(torch::kFloat64).contiguous();
  return {accuracy, majority, table.argmax().item<int64_t>() == row,
          std::vector<double>(bias.data_ptr<double>(), bias.data_ptr<double>() + bias.numel())};
}

}  // namespace fovea::recipes
