#include "fovea/recipes/right_neighbour.h"

#include <torch/torch.h>

#include <cmath>
#include <functional>

#include "fovea/nn/rotary.h"
#include "fovea/nn/window_attention.h"
#include "fovea/ops/attention.h"
#include "fovea/ops/window_attention.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
constexpr int64_t kSymbols = 8, kBatch = 16;

torch::Tensor parameter(at::IntArrayRef shape, double deviation, at::Generator generator) {
  return (torch::randn(shape, generator, torch::TensorOptions(torch::kFloat32)) * deviation).requires_grad_();
}

torch::Tensor draw(int64_t w, at::Generator generator) {
  return torch::randint(kSymbols, {kBatch, w, w, w}, generator, torch::TensorOptions(torch::kInt64));
}

// symbols [B,w,w,w] -> logits [B,w,w,w,symbols]
using Network = std::function<torch::Tensor(const torch::Tensor&)>;

// The last column has no right neighbour.
torch::Tensor logits(const Network& network, const torch::Tensor& symbols) {
  return network(symbols).slice(3, 0, symbols.size(3) - 1);
}
torch::Tensor neighbours(const torch::Tensor& symbols) { return symbols.slice(3, 1); }

torch::Tensor loss(const Network& network, const torch::Tensor& symbols) {
  return torch::nn::functional::cross_entropy(logits(network, symbols).reshape({-1, kSymbols}),
                                              neighbours(symbols).reshape({-1}));
}

double accuracy(const Network& network, const torch::Tensor& symbols) {
  return (logits(network, symbols).argmax(-1) == neighbours(symbols)).to(torch::kFloat64).mean().item<double>();
}

void train(const Network& network, const std::vector<torch::Tensor>& parameters, double rate, int64_t w,
           at::Generator generator, int64_t steps = 250) {
  torch::optim::AdamW optimizer(parameters, torch::optim::AdamWOptions(rate).weight_decay(0));
  for (int64_t step = 0; step < steps; ++step) {
    const auto symbols = draw(w, generator);
    optimizer.zero_grad();
    loss(network, symbols).backward();
    optimizer.step();
  }
}

RightNeighbour judge(const Network& network, int64_t w, at::Generator generator) {
  const auto symbols = draw(w, generator);
  const auto counts = torch::one_hot(symbols.reshape({kBatch, -1}), kSymbols).sum(1);  // [B, symbols]
  const auto frequent = counts.argmax(-1).reshape({kBatch, 1, 1, 1});
  const double majority = (frequent == neighbours(symbols)).to(torch::kFloat64).mean().item<double>();
  return {accuracy(network, symbols), majority, false, {}};
}

std::vector<double> numbers(const torch::Tensor& t) {
  const auto exact = t.to(torch::kFloat64).contiguous();
  return {exact.data_ptr<double>(), exact.data_ptr<double>() + exact.numel()};
}

// Row of key - query = (0, 0, +1), that is query - key = (0, 0, -1), in a table of displacements of w^3.
int64_t right_neighbour_row(int64_t w) { return ((0 + w - 1) * (2 * w - 1) + (0 + w - 1)) * (2 * w - 1) + (-1 + w - 1); }
}  // namespace

RightNeighbour learn_right_neighbour(bool with_bias, uint64_t seed) {
  constexpr int64_t kWidth = 16, w = 4;
  const OneThread one_thread;
  auto generator = at::detail::createCPUGenerator(seed);
  auto embed = parameter({kSymbols, kWidth}, 1, generator), project = parameter({kWidth, 3 * kWidth}, 0.25, generator),
       read = parameter({kWidth, kSymbols}, 0.25, generator);
  auto table = parameter({(2 * w - 1) * (2 * w - 1) * (2 * w - 1), 1}, 0.02, generator);
  std::vector<torch::Tensor> parameters = {embed, project, read};
  if (with_bias) parameters.push_back(table);
  const Network network = [&](const torch::Tensor& symbols) {
    const auto qkv = torch::matmul(embed.index({symbols}), project).reshape({kBatch, w, w, w, 3, 1, kWidth});
    const auto out = std::get<0>(ops::window_attention(
        qkv, with_bias ? std::optional<torch::Tensor>(table) : std::nullopt, {w, w, w}, {0, 0, 0}));
    return torch::matmul(out, read);
  };
  train(network, parameters, /*rate=*/0.03, w, generator);
  torch::NoGradGuard no_grad;
  RightNeighbour found = judge(network, w, generator);
  found.peaks_at_right_neighbour = table.argmax().item<int64_t>() == right_neighbour_row(w);
  // Rows go by query - key: backwards they go by key - query.
  found.bias = numbers(table.flatten().flip(0));
  return found;
}

RightNeighbour learn_right_neighbour_by_rotary(uint64_t seed) {
  constexpr int64_t kWidth = 24, w = 4;
  const OneThread one_thread;
  auto generator = at::detail::createCPUGenerator(seed);
  auto embed = parameter({kSymbols, kWidth}, 1, generator), project = parameter({kWidth, 3 * kWidth}, 0.25, generator),
       shift = parameter({3 * kWidth}, 0.25, generator), read = parameter({kWidth, kSymbols}, 0.25, generator);
  const nn::Rotary rotary(nn::RotaryOptions(kWidth).base(100));
  const auto at = nn::grid_coordinates({w, w, w});
  const Network network = [&](const torch::Tensor& symbols) {
    // b n (3 c) -> 3 b 1 n c
    const auto qkv = (torch::matmul(embed.index({symbols}), project) + shift)
                         .reshape({kBatch, w * w * w, 3, 1, kWidth})
                         .permute({2, 0, 3, 1, 4});
    const auto out = std::get<0>(ops::attention(rotary->forward(qkv[0], at), rotary->forward(qkv[1], at), qkv[2]));
    return torch::matmul(out.reshape({kBatch, w, w, w, kWidth}), read);
  };
  train(network, {embed, project, shift, read}, /*rate=*/0.03, w, generator, /*steps=*/1000);
  torch::NoGradGuard no_grad;
  RightNeighbour found = judge(network, w, generator);
  const auto mean = (torch::matmul(embed.mean(0), project) + shift).view({3, 1, 1, 1, kWidth});
  // Keys at all displacements, in the order of a table read backwards: key - query ascending.
  const nn::Triple reach{2 * w - 1, 2 * w - 1, 2 * w - 1};
  const auto displacement = nn::grid_coordinates(reach) - double(w - 1);
  const auto keys = rotary->forward(mean[1].expand({1, 1, displacement.size(0), kWidth}), displacement);
  const auto scores = torch::matmul(keys, mean[0].transpose(-1, -2)).flatten();
  found.peaks_at_right_neighbour =
      displacement[scores.argmax().item<int64_t>()].equal(torch::tensor({0.0f, 0.0f, 1.0f}));
  found.bias = numbers(scores);
  return found;
}

WindowChange change_window(NeighbourBias bias, int64_t from, int64_t to, uint64_t seed) {
  constexpr int64_t kWidth = 16;
  auto generator = at::detail::createCPUGenerator(seed);
  const bool continuous = bias == NeighbourBias::kContinuous;
  const auto layer_for = [&](int64_t w) {
    nn::WindowAttentionOptions options(kWidth, 1);
    options.window({w, w, w});
    if (continuous)
      options.scores(nn::WindowScores::kCosine).bias(nn::WindowBias::kContinuous).trained_window({from, from, from});
    return nn::WindowAttention(options);
  };
  auto embed = parameter({kSymbols, kWidth}, 1, generator), read = parameter({kWidth, kSymbols}, 0.25, generator);
  auto layer = layer_for(from);
  {
    torch::NoGradGuard no_grad;
    for (auto& p : layer->named_parameters())
      if (p.value().dim() == 2)
        p.value().normal_(0, p.key() == "relative_position_bias_table" ? 0.02 : 1 / std::sqrt(double(p.value().size(1))),
                          generator);
      else if (p.key() == "cpb_mlp.0.bias")
        p.value().normal_(0, 0.5, generator);
      else if (p.key() != "logit_scale")
        p.value().zero_();
  }
  std::vector<torch::Tensor> parameters = layer->parameters();
  parameters.insert(parameters.end(), {embed, read});
  const auto network_of = [&](nn::WindowAttention attention) -> Network {
    return [attention, embed, read](const torch::Tensor& symbols) mutable {
      return torch::matmul(attention(embed.index({symbols})), read);
    };
  };
  train(network_of(layer), parameters, /*rate=*/continuous ? 0.01 : 0.03, from, generator, /*steps=*/150);

  torch::NoGradGuard no_grad;
  auto larger = layer_for(to);
  const auto trained = layer->named_parameters();
  for (auto& p : larger->named_parameters())
    p.value().copy_(p.key() == "relative_position_bias_table"
                        ? nn::resize_bias_table(trained[p.key()], {from, from, from}, {to, to, to})
                        : trained[p.key()]);
  const auto before = draw(from, generator), after = draw(to, generator);
  const Network old = network_of(layer), changed = network_of(larger);
  return {loss(old, before).item<double>(), loss(changed, after).item<double>(), accuracy(old, before),
          accuracy(changed, after)};
}

}  // namespace fovea::recipes
