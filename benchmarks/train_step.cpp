// Time of one training step (forward, cross-entropy, backward, AdamW) and of one prediction.
//   fovea_bench_train_step NETWORK THREADS BATCH Z Y X [STEPS]     e.g. swin_unetr_12 2 1 32 64 64
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "fovea/models/registry.h"
#include "fovea/ops/ensure_registered.h"

namespace {

template <class F>
std::vector<double> times_s(int repeats, const F& f) {
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  return times;
}

}  // namespace

int main(int argc, char** argv) {
  fovea::ops::ensure_registered();
  if (argc < 7) {
    std::fprintf(stderr, "usage: fovea_bench_train_step NETWORK THREADS BATCH Z Y X [STEPS]\n");
    return 2;
  }
  const auto number = [&](int i) { return std::atoll(argv[i]); };
  torch::set_num_threads(static_cast<int>(number(2)));
  auto config = fovea::models::default_config(argv[1]);
  fovea::models::set_channels(config, 1, 4);
  const auto network = fovea::models::make_network(config);
  torch::optim::AdamW optimizer(network->parameters(), torch::optim::AdamWOptions(1e-4));
  const auto x = torch::randn({number(3), 1, number(4), number(5), number(6)});
  const auto target = torch::randint(4, {number(3), number(4), number(5), number(6)});
  const auto step = [&] {
    optimizer.zero_grad();
    torch::cross_entropy_loss(network->forward(x), target).backward();
    optimizer.step();
  };
  step();
  const int steps = argc > 7 ? static_cast<int>(number(7)) : 7;
  const auto train = times_s(steps, step);
  network->eval();
  const torch::InferenceMode inference;
  const auto predict = times_s(steps, [&] { network->forward(x); });
  std::printf("%s threads %s batch %s patch %sx%sx%s: step %.3f s median, %.3f s best (%.2f steps/s); forward %.3f s median, %.3f s best\n", argv[1], argv[2],
              argv[3], argv[4], argv[5], argv[6], train[train.size() / 2], train[0], 1 / train[0], predict[predict.size() / 2], predict[0]);
  return 0;
}
