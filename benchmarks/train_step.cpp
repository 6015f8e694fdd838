// Time of one training step (forward, cross-entropy, backward, AdamW) and of one prediction, by the wall clock and in CPU
// seconds of the process (which other programs on the machine disturb less).
//   fovea_bench_train_step NETWORK THREADS BATCH Z Y X [STEPS]     e.g. swin_unetr_12 2 1 32 64 64
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "fovea/models/registry.h"
#include "fovea/ops/ensure_registered.h"

namespace {

struct Times {
  double median_s, best_s, best_cpu_s;
};

template <class F>
Times measure(int repeats, const F& f) {
  std::vector<double> wall, cpu;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const std::clock_t cpu_start = std::clock();
    f();
    cpu.push_back(static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC);
    wall.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(wall.begin(), wall.end());
  std::sort(cpu.begin(), cpu.end());
  return {wall[wall.size() / 2], wall[0], cpu[0]};
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
  const Times train = measure(steps, step);
  network->eval();
  const torch::InferenceMode inference;
  const Times predict = measure(steps, [&] { network->forward(x); });
  std::printf("%s threads %s batch %s patch %sx%sx%s\n", argv[1], argv[2], argv[3], argv[4], argv[5], argv[6]);
  std::printf("  step     %.3f s median, %.3f s best, %.3f CPU s best (%.2f steps/s)\n", train.median_s, train.best_s, train.best_cpu_s, 1 / train.best_s);
  std::printf("  forward  %.3f s median, %.3f s best, %.3f CPU s best\n", predict.median_s, predict.best_s, predict.best_cpu_s);
  return 0;
}
