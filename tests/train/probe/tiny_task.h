#pragma once
#include <torch/torch.h>

#include <cmath>
#include <string>

#include "fovea/core/rng.h"
#include "fovea/train/loss.h"
#include "fovea/train/trainer.h"

namespace fovea::train {

/// Convolution, running statistics, attention and dropout on 6^3 voxels: a small specimen of everything that a
/// checkpoint has to carry.
struct TinyNetImpl : torch::nn::Module {
  torch::nn::Conv3d conv{torch::nn::Conv3dOptions(1, 6, 3).padding(1)};
  torch::nn::BatchNorm3d norm{6};
  torch::nn::Linear qkv{6, 18};
  torch::nn::Dropout dropout{0.2};
  torch::nn::Conv3d head{torch::nn::Conv3dOptions(6, 3, 1)};

  TinyNetImpl() {
    register_module("conv", conv), register_module("norm", norm), register_module("qkv", qkv);
    register_module("dropout", dropout), register_module("head", head);
  }
  torch::Tensor forward(const torch::Tensor& image) {
    torch::Tensor x = torch::relu(norm(conv(image)));
    const torch::Tensor tokens = x.flatten(2).transpose(1, 2);  // [B, Z*Y*X, 6]
    const std::vector<torch::Tensor> parts = qkv(tokens).chunk(3, -1);
    const torch::Tensor weights = torch::softmax(parts[0].matmul(parts[1].transpose(1, 2)) / std::sqrt(6.0), -1);
    x = x + dropout(weights.matmul(parts[2])).transpose(1, 2).reshape(x.sizes());
    return head(x);
  }
};
TORCH_MODULE(TinyNet);

inline TinyNet make_tiny_net(uint64_t seed = 1) {
  torch::manual_seed(seed);
  return TinyNet();
}

/// A ball and a noisy background, drawn from (seed, epoch, index) alone. Classes: outside, ball, its core.
inline Batch tiny_batch(uint64_t seed, int64_t epoch, int64_t index, int64_t size = 2) {
  constexpr int n = 6;
  Batch batch{torch::empty({size, 1, n, n, n}), torch::empty({size, n, n, n}, torch::kLong), {}};
  float* image = batch.image.mutable_data_ptr<float>();
  int64_t* label = batch.label.mutable_data_ptr<int64_t>();
  for (int64_t b = 0; b < size; ++b) {
    Rng rng(seed, uint32_t(epoch), uint32_t(index * size + b));
    batch.ids.push_back("case-" + std::to_string(epoch) + "-" + std::to_string(index * size + b));
    const float center[3] = {rng.uniform(1, 5), rng.uniform(1, 5), rng.uniform(1, 5)}, radius = rng.uniform(1.5f, 2.5f);
    for (int z = 0; z < n; ++z) {
      for (int y = 0; y < n; ++y) {
        for (int x = 0; x < n; ++x) {
          const float d = std::hypot(float(z) - center[0], float(y) - center[1], float(x) - center[2]);
          const int64_t k = d < radius / 2 ? 2 : d < radius ? 1 : 0;
          *label++ = k;
          *image++ = float(k) + 0.3f * rng.normal();
        }
      }
    }
  }
  return batch;
}

inline torch::Tensor tiny_loss(TinyNet& net, const Batch& batch) {
  return dice_cross_entropy(net->forward(batch.image), batch.label, {});
}

/// Share of correct voxels on four batches that training does not see.
inline Metrics tiny_validation(TinyNet& net, uint64_t seed) {
  double right = 0, loss = 0;
  for (int64_t i = 0; i < 4; ++i) {
    const Batch batch = tiny_batch(seed + 1000, 0, i);
    const torch::Tensor logits = net->forward(batch.image);
    right += logits.argmax(1).eq(batch.label).to(torch::kDouble).mean().item<double>() / 4;
    loss += dice_cross_entropy(logits, batch.label, {}).item<double>() / 4;
  }
  return {{"accuracy", right}, {"loss", loss}};
}

inline TrainConfig tiny_config() {
  TrainConfig config;
  config.steps = 40, config.steps_per_epoch = 10, config.checkpoint_every = 4;
  config.optimizer.learning_rate = 1e-2;
  config.best_metric = "accuracy";
  config.average_decay = 0.9;
  return config;
}

}  // namespace fovea::train
