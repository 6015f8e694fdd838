#include "fovea/recipes/two_nodules.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "fovea/nn/patch_embedding_block.h"
#include "fovea/nn/swin_block.h"
#include "fovea/nn/transformer_block.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
constexpr int64_t kEdge = 64, kRadius = 6, kJitter = 2, kTextures = 2;
constexpr double kNoise = 0.1;
constexpr nn::Triple kPatch{32, 32, 16}, kGrid{2, 2, 4}, kWindow{2, 2, 2};
constexpr int64_t kWidth = 32, kHeads = 4, kBlocks = 4, kBatch = 32, kLungs = 64;
constexpr int64_t kCell = 4, kCellsOfNodule = 14;  // voxels of a period of the stripes; a ball's volume in cells
constexpr int64_t kMaps = 16;  // of the convolutions

// Stripes two voxels wide: [textures,Z,Y,X] of -1 and 1.
torch::Tensor make_textures() {
  const auto axis = torch::arange(kEdge, torch::kInt64);
  const auto z = axis.view({-1, 1, 1}), y = axis.view({1, -1, 1});
  std::vector<torch::Tensor> textures;
  for (const auto& across : {z, y})
    textures.push_back(
        (across.div(2, "floor").remainder(2) * 2 - 1).to(torch::kFloat32).expand({kEdge, kEdge, kEdge}));
  return torch::stack(textures);
}

torch::Tensor whole_numbers(int64_t low, int64_t high, at::IntArrayRef shape, at::Generator generator) {
  return torch::randint(low, high, shape, generator, torch::TensorOptions(torch::kInt64));
}

/// Logits [B] of scans [B,1,Z,Y,X].
struct Judge : torch::nn::Module {
  virtual torch::Tensor judge(const torch::Tensor& scans) = 0;
};

struct AttentionJudge : Judge {
  explicit AttentionJudge(NoduleNetwork kind) {
    embed_ = register_module(
        "embed", nn::PatchEmbeddingBlock(nn::PatchEmbeddingOptions(1, {kEdge, kEdge, kEdge}, kPatch, kWidth)
                                             .projection(nn::PatchProjection::kPerceptron)));
    for (int64_t i = 0; i < kBlocks; ++i) {
      const std::string name = "block" + std::to_string(i);
      const bool shifted = kind == NoduleNetwork::kShiftedWindows && i % 2 == 1;
      if (kind == NoduleNetwork::kGlobal)
        global_.push_back(
            register_module(name, nn::TransformerBlock(nn::SelfAttentionOptions(kWidth, kHeads), 4 * kWidth)));
      else
        windows_.push_back(register_module(
            name, nn::SwinTransformerBlock(nn::SwinBlockOptions(nn::WindowAttentionOptions(kWidth, kHeads)
                                                                    .window(kWindow)
                                                                    .shift({0, 0, shifted ? kWindow[2] / 2 : 0})))));
    }
    norm_ = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({kWidth})));
    read_ = register_module("read", torch::nn::Linear(kWidth, 1));
  }

  torch::Tensor judge(const torch::Tensor& scans) override {
    auto tokens = embed_(scans);  // [B,N,E]
    for (auto& block : global_) tokens = block(tokens);
    tokens = tokens.view({scans.size(0), kGrid[0], kGrid[1], kGrid[2], kWidth});
    for (auto& block : windows_) tokens = block(tokens);
    return read_(norm_(tokens).mean({1, 2, 3})).squeeze(1);
  }

 private:
  nn::PatchEmbeddingBlock embed_{nullptr};
  std::vector<nn::TransformerBlock> global_;
  std::vector<nn::SwinTransformerBlock> windows_;
  torch::nn::LayerNorm norm_{nullptr};
  torch::nn::Linear read_{nullptr};
};

// Field: 4 voxels, then 2 more steps of 4 and 2 more of 8: 28, less than the lung between the nodules.
struct SmallFieldJudge : Judge {
  SmallFieldJudge() {
    const auto layer = [](int64_t in, int64_t kernel, int64_t stride) {
      return torch::nn::Conv3d(torch::nn::Conv3dOptions(in, kMaps, kernel).stride(stride).padding(kernel == 3 ? 1 : 0));
    };
    first_ = register_module("first", layer(1, 4, 4)), second_ = register_module("second", layer(kMaps, 3, 2));
    third_ = register_module("third", layer(kMaps, 3, 1));
    read_ = register_module("read", torch::nn::Linear(kMaps, 1));
  }

  torch::Tensor judge(const torch::Tensor& scans) override {
    const auto map = torch::gelu(third_(torch::gelu(second_(torch::gelu(first_(scans))))));
    return read_(map.mean({2, 3, 4})).squeeze(1);
  }

 private:
  torch::nn::Conv3d first_{nullptr}, second_{nullptr}, third_{nullptr};
  torch::nn::Linear read_{nullptr};
};

// Weights that keep the size of what they map. torch's own draw has a third of their variance: a nodule's trace is lost
// on its way over several tokens, and shifted windows find nothing in the time that they have here.
void initialise(Judge& judge, at::Generator generator) {
  torch::NoGradGuard no_grad;
  for (const auto& item : judge.named_parameters()) {
    auto p = item.value();
    if (item.key() == "embed.patch_embeddings.1.weight") {
      // The same kernel in every cell of 4^3 voxels, so that stripes look alike wherever in a patch they lie.
      const auto kernel = torch::randn({kWidth, kCell, kCell, kCell}, generator, torch::kFloat32) / kCellsOfNodule;
      p.copy_(kernel.repeat({1, kPatch[0] / kCell, kPatch[1] / kCell, kPatch[2] / kCell}).flatten(1) /
              std::sqrt(double(kCell * kCell * kCell)));
    } else if (item.key() == "embed.patch_embeddings.1.bias") {
      p.normal_(0, 1, generator);  // what a patch of lung alone is
    } else if (p.dim() == 1) {
      p.fill_(item.key().find("norm") != std::string::npos && item.key().ends_with("weight") ? 1 : 0);
    } else if (item.key().ends_with("weight")) {
      p.normal_(0, 1 / std::sqrt(double(p[0].numel())), generator);
    } else {
      p.normal_(0, 0.02, generator);  // positions and their bias
    }
  }
}

// AdamW moves every weight by the rate, so that an output moves by the rate times its inputs: the first layers, which
// sum over thousands of voxels, get a rate in proportion.
double share_of_rate(const torch::Tensor& parameter) {
  return parameter.dim() < 2 ? 1 : std::min(1.0, double(kWidth) / double(parameter[0].numel()));
}

struct Pupil {
  std::shared_ptr<Judge> judge;
  std::unique_ptr<torch::optim::AdamW> optimizer;
  std::vector<double> shares;  // of the rate, one a parameter

  void set_rate(double rate) {
    for (size_t i = 0; i < shares.size(); ++i) optimizer->param_groups()[i].options().set_lr(rate * shares[i]);
  }
};

Pupil make_pupil(NoduleNetwork kind, at::Generator generator) {
  Pupil pupil;
  if (kind == NoduleNetwork::kSmallField)
    pupil.judge = std::make_shared<SmallFieldJudge>();
  else
    pupil.judge = std::make_shared<AttentionJudge>(kind);
  initialise(*pupil.judge, generator);
  std::vector<torch::optim::OptimizerParamGroup> groups;
  for (const auto& parameter : pupil.judge->parameters()) {
    groups.push_back(torch::optim::OptimizerParamGroup({parameter}));
    pupil.shares.push_back(share_of_rate(parameter));
  }
  pupil.optimizer = std::make_unique<torch::optim::AdamW>(
      groups, torch::optim::AdamWOptions(1).betas({0.9, 0.95}).weight_decay(0));
  return pupil;
}
}  // namespace

torch::Tensor draw_lungs(int64_t count, at::Generator generator) {
  return torch::randn({count, kEdge, kEdge, kEdge}, generator, torch::kFloat32) * kNoise;
}

NodulePairs draw_nodule_pairs(int64_t count, const torch::Tensor& lungs, at::Generator generator) {
  static const torch::Tensor textures = make_textures();
  NodulePairs pairs;
  pairs.voxels = lungs.index_select(0, whole_numbers(0, lungs.size(0), {count}, generator)).unsqueeze(1);
  const auto left = whole_numbers(0, kTextures, {count}, generator), same = whole_numbers(0, 2, {count}, generator);
  const auto other = (left + whole_numbers(1, kTextures, {count}, generator)).remainder(kTextures);
  pairs.texture = torch::stack({left, torch::where(same == 1, left, other)}, 1);
  pairs.same = same.to(torch::kFloat32);
  // Near the middle of a patch: the first or the last along x, any in z and y.
  std::vector<torch::Tensor> axes;
  for (int axis = 0; axis < 3; ++axis) {
    const auto patch = axis == 2 ? torch::tensor({int64_t{0}, kGrid[2] - 1}).expand({count, 2})
                                 : whole_numbers(0, kGrid[axis], {count, 2}, generator);
    axes.push_back(patch * kPatch[axis] + kPatch[axis] / 2);
  }
  pairs.centre = torch::stack(axes, 2) + whole_numbers(-kJitter, kJitter + 1, {count, 2, 3}, generator);

  const auto offset = (torch::arange(2 * kRadius, torch::kFloat32) + 0.5 - kRadius).square();
  const auto ball =
      (offset.view({-1, 1, 1}) + offset.view({1, -1, 1}) + offset.view({1, 1, -1}) < kRadius * kRadius).to(torch::kFloat32);
  const auto centre = pairs.centre.accessor<int64_t, 3>();
  const auto texture = pairs.texture.accessor<int64_t, 2>();
  for (int64_t b = 0; b < count; ++b)
    for (int side = 0; side < 2; ++side) {
      auto voxels = pairs.voxels[b][0], stripes = textures[texture[b][side]];
      for (int axis = 0; axis < 3; ++axis) {
        const int64_t begin = centre[b][side][axis] - kRadius;
        voxels = voxels.narrow(axis, begin, 2 * kRadius), stripes = stripes.narrow(axis, begin, 2 * kRadius);
      }
      voxels.add_(ball * (1 + stripes));
    }
  return pairs;
}

std::string name_of(NoduleNetwork network) {
  switch (network) {
    case NoduleNetwork::kGlobal: return "global attention";
    case NoduleNetwork::kShiftedWindows: return "shifted windows";
    case NoduleNetwork::kWindows: return "unshifted windows";
    default: return "three convolutions, field 28 voxels";
  }
}

bool can_compare_nodules(NoduleNetwork network) {
  return network == NoduleNetwork::kGlobal || network == NoduleNetwork::kShiftedWindows;
}

std::vector<NoduleScore> learn_two_nodules(const std::vector<NoduleNetwork>& networks, uint64_t seed, int64_t steps) {
  constexpr double kRate = 4e-3;
  constexpr int64_t kWarmUp = 30, kFresh = 512;
  const OneThread one_thread;
  auto generator = at::detail::createCPUGenerator(seed);
  std::vector<Pupil> pupils;
  for (const NoduleNetwork kind : networks) pupils.push_back(make_pupil(kind, generator));
  const auto entropy = [](const torch::Tensor& logits, const torch::Tensor& same) {
    return torch::binary_cross_entropy_with_logits(logits, same);
  };
  const auto lungs = draw_lungs(kLungs, generator);
  for (int64_t step = 0; step < steps; ++step) {
    const NodulePairs pairs = draw_nodule_pairs(kBatch, lungs, generator);
    // Up over the first steps, down over the second half.
    const double rate =
        kRate * std::min({1.0, double(step + 1) / kWarmUp, 2 * (1 - double(step) / double(steps)) + 0.02});
    for (Pupil& pupil : pupils) {
      pupil.set_rate(rate);
      pupil.optimizer->zero_grad();
      entropy(pupil.judge->judge(pairs.voxels), pairs.same).backward();
      torch::nn::utils::clip_grad_norm_(pupil.judge->parameters(), 1.0);
      pupil.optimizer->step();
    }
  }
  torch::NoGradGuard no_grad;
  const auto fresh_lungs = draw_lungs(kLungs, generator);
  std::vector<NoduleScore> scores(pupils.size());
  for (int64_t done = 0; done < kFresh; done += kBatch) {
    const NodulePairs pairs = draw_nodule_pairs(kBatch, fresh_lungs, generator);
    const double share = double(kBatch) / kFresh;
    for (size_t i = 0; i < pupils.size(); ++i) {
      const auto logits = pupils[i].judge->judge(pairs.voxels);
      scores[i].accuracy += share * ((logits > 0) == (pairs.same > 0.5)).to(torch::kFloat64).mean().item<double>();
      scores[i].cross_entropy_nats += share * entropy(logits, pairs.same).item<double>();
    }
  }
  return scores;
}

void check_two_nodules(CheckResult& result, const CheckOptions& options, const std::vector<NoduleNetwork>& networks) {
  const int seeds = options.full ? 5 : 1;
  std::vector<NoduleScore> worst(networks.size());
  for (int i = 0; i < seeds; ++i) {
    const auto scores = learn_two_nodules(networks, options.seed + i);
    std::string line = "two nodules, seed " + std::to_string(options.seed + i) + ":";
    for (size_t n = 0; n < networks.size(); ++n) {
      line += report::printed(" %s %.3f;", name_of(networks[n]).c_str(), scores[n].accuracy);
      const bool solves = can_compare_nodules(networks[n]);
      if (i == 0 || (scores[n].accuracy < worst[n].accuracy) == solves) worst[n] = scores[n];
    }
    line.pop_back();
    result.notes.push_back(line);
  }
  for (size_t n = 0; n < networks.size(); ++n) {
    const std::string name = "two nodules, " + name_of(networks[n]);
    if (can_compare_nodules(networks[n])) {
      result.at_least(name + ": accuracy, worst seed", worst[n].accuracy, 0.95);
    } else {
      result.at_most(name + ": accuracy, best seed (chance 0.5)", worst[n].accuracy, 0.6);
      result.at_least(name + ": cross-entropy of that seed (chance 0.693 nats)", worst[n].cross_entropy_nats, 0.68);
    }
  }
}

}  // namespace fovea::recipes
