#include "fovea/recipes/side_and_flag.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "fovea/nn/co_attention.h"
#include "fovea/nn/feature_tokens.h"
#include "fovea/nn/patch_embed.h"
#include "fovea/nn/volume_tokens.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
constexpr int64_t kZ = 4, kY = 8, kX = 48, kLeastCovered = 16;
// Tokens are cells that know of nothing around them: one that saw a lesion nearby would tell the side without being on
// the lesion, and one that saw a border would be found by where it is.
constexpr nn::Triple kCell{4, 2, 2};
constexpr nn::Triple kGrid{kZ / kCell[0], kY / kCell[1], kX / kCell[2]};
constexpr int64_t kTokens = kGrid[0] * kGrid[1] * kGrid[2];
constexpr int64_t kWidth = 16, kHeads = 1, kHidden = 32, kBatch = 64;
// As many parameters as the attention block: 4 (E^2 + E) + 2 E kHidden + kHidden + E + 4 E = 2 E h + h + E + 2 E.
constexpr int64_t kWiderHidden = 66;
constexpr double kNoise = 0.25, kContrast = 2.5, kRadius = 2.5, kMissing = 0.25;
constexpr double kNearest = 7, kFarthest = 12;  // voxels from the middle to the lesion's centre

torch::Tensor coins(at::IntArrayRef shape, double chance, at::Generator generator) {
  return torch::rand(shape, generator, torch::TensorOptions(torch::kFloat32)) < chance;
}

/// y = norm(x + mlp(x)): what is left of an asking block without its attention.
struct OwnBlock : torch::nn::Module {
  OwnBlock() {
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({kWidth})));
    mlp = register_module("mlp", nn::Mlp(nn::MlpOptions(kWidth, kWiderHidden)));
  }
  torch::Tensor forward(const torch::Tensor& x) { return norm(x + mlp(x)); }
  torch::nn::LayerNorm norm{nullptr};
  nn::Mlp mlp{nullptr};
};

// Mean of the tokens [B,N,E] that are there (present [B,N]), 0 of none.
torch::Tensor mean_of(const torch::Tensor& tokens, const torch::Tensor& present) {
  return tokens.masked_fill(~present.unsqueeze(2), 0).sum(1) / present.sum(1, /*keepdim=*/true).clamp_min(1);
}

// [B,N]: cells that the scan covers.
torch::Tensor covered_tokens(const SidedLesions& patients) {
  const auto along_x = patients.covered.slice(1, 0, kX, kCell[2]);  // counts from the middle are even
  return along_x.unsqueeze(1).expand({along_x.size(0), kGrid[0] * kGrid[1], kGrid[2]}).flatten(1);
}

struct Judge : torch::nn::Module {
  explicit Judge(SideFlagNetwork kind) : kind(kind) {
    image = register_module("image", nn::PatchEmbed(nn::PatchEmbedOptions(1, kWidth).patch(kCell)));
    table = register_module("table", nn::FeatureTokens(nn::FeatureTokensOptions(2, {2, 3}, kWidth)));
    position = register_module("position", torch::nn::Linear(torch::nn::LinearOptions(3, kWidth).bias(false)));
    place = nn::cell_centres(kGrid, {1, 1, 1}).to(torch::kFloat32);  // from -1 to 1 along each axis
    for (int axis = 0; axis < 3; ++axis) place.select(1, axis).mul_(2.0 / double(kGrid[axis])).add_(1.0 / double(kGrid[axis]) - 1);
    switch (kind) {
      case SideFlagNetwork::kParallel:
        parallel = register_module("parallel", nn::ParallelCoAttention(kWidth, 24));
        break;
      case SideFlagNetwork::kLate:
      case SideFlagNetwork::kLateHidden:
        own_image = register_module("own_image", std::make_shared<OwnBlock>());
        own_table = register_module("own_table", std::make_shared<OwnBlock>());
        break;
      default:
        two_way = register_module("two_way", nn::CoAttention(nn::CoAttentionOptions(kWidth, kHeads).hidden(kHidden)));
    }
    if (two_way) read_image = register_module("read_image", torch::nn::Linear(kWidth, 1)), read_table = register_module("read_table", torch::nn::Linear(kWidth, 1));
    if (kind == SideFlagNetwork::kLateHidden) hidden = register_module("hidden", torch::nn::Linear(2 * kWidth, 2 * kWidth));
    if (!two_way) read = register_module("read", torch::nn::Linear(2 * kWidth, 1));
  }

  /// has_image bool [B]. -> logits [B] of one or two answers, whose mean counts
  std::vector<torch::Tensor> answers(const SidedLesions& patients, torch::Tensor has_image) {
    auto codes = patients.codes;
    if (kind == SideFlagNetwork::kTableAlone) has_image = torch::zeros_like(has_image);
    if (kind == SideFlagNetwork::kImageAlone) codes = torch::cat({torch::full_like(codes.slice(1, 0, 1), -1), codes.slice(1, 1)}, 1);
    auto a = image(patients.voxels).flatten(2).transpose(1, 2);  // B (Z Y X) E
    auto b = table(patients.numbers, codes);
    const auto where = position(place);  // [N,E]
    const auto mask = (has_image.unsqueeze(1) & covered_tokens(patients)).contiguous();
    torch::Tensor joined;
    if (kind == SideFlagNetwork::kParallel) {
      const auto found = parallel(a + where, b, mask);
      joined = torch::cat({found.image, found.table}, 1);
    } else if (two_way) {
      // The table finds tokens by what they are and reads where they are. Each side answers for itself, so that each
      // has to ask the other.
      std::tie(a, b) = two_way(a, b, mask, torch::Tensor(), where, table->names());
      return {read_image(mean_of(a, mask)).squeeze(1), read_table(b.mean(1)).squeeze(1)};
    } else {
      a = own_image->forward(a + where), b = own_table->forward(b);
      joined = torch::cat({mean_of(a, mask), b.mean(1)}, 1);
    }
    if (hidden) joined = torch::gelu(hidden(joined));
    return {read(joined).squeeze(1)};
  }
  torch::Tensor judge(const SidedLesions& patients, const torch::Tensor& has_image) {
    return torch::stack(answers(patients, has_image)).mean(0);
  }

  SideFlagNetwork kind;
  nn::PatchEmbed image{nullptr};
  nn::FeatureTokens table{nullptr};
  torch::nn::Linear position{nullptr};  // what a place in the scan is
  torch::Tensor place;                  // [N,3]
  nn::CoAttention two_way{nullptr};
  nn::ParallelCoAttention parallel{nullptr};
  std::shared_ptr<OwnBlock> own_image, own_table;
  torch::nn::Linear hidden{nullptr}, read{nullptr}, read_image{nullptr}, read_table{nullptr};
};

void initialise(Judge& judge, at::Generator generator) {
  torch::NoGradGuard no_grad;
  for (auto& item : judge.named_parameters()) {
    auto p = item.value();
    const std::string& name = item.key();
    if (name.starts_with("table.")) {
      p.uniform_(-1 / std::sqrt(double(kWidth)), 1 / std::sqrt(double(kWidth)), generator);
    } else if (p.dim() == 1) {
      p.fill_(name.find("norm") != std::string::npos && name.ends_with("weight") ? 1 : 0);
    } else {
      const double bound = 1 / std::sqrt(double(p[0].numel()));
      p.uniform_(-bound, bound, generator);
      if (name.starts_with("position")) p.mul_(2);
    }
  }
}

// Every feature begins with queries that lean to what is bright. While all cells weigh the same, shunning the lesion and
// seeking it are equally good first steps, and a training that begins to shun it goes on to read the side, badly, off the
// mean of the other cells.
void lean_to_bright(nn::MultiHeadAttention& asks, nn::PatchEmbed& image) {
  constexpr double kLean = 0.7, kOfNames = 0.2;
  torch::NoGradGuard no_grad;
  const auto patch = torch::ones({1, 1, kCell[0], kCell[1], kCell[2]});
  const auto brighter = asks->k_proj(image(patch).flatten()) - asks->k_proj(image(0 * patch).flatten());
  asks->q_proj->weight.mul_(kOfNames);
  asks->q_proj->bias.copy_(brighter / brighter.square().sum() * (kLean * std::sqrt(double(kWidth) / kHeads)));
}

torch::Tensor entropy(const torch::Tensor& logits, const torch::Tensor& answer) {
  return torch::binary_cross_entropy_with_logits(logits, answer);
}

SideFlagAttention look(Judge& judge, const SidedLesions& patients) {
  const int64_t count = patients.voxels.size(0);
  const auto all = torch::ones({count}, torch::kBool);
  auto asks = judge.two_way->second->attn, asked = judge.two_way->first->attn;
  asks->set_capture(true), asked->set_capture(true);
  judge.judge(patients, all);
  // [B,N]: mean over heads of the flag's row; on the grid [B,z,y,side,x of the half]
  const auto flag = asks->rows(torch::tensor({kFlagToken})).select(2, 0).mean(1);
  const std::vector<int64_t> by_side = {count, kGrid[0], kGrid[1], 2, kGrid[2] / 2};
  const auto halves = flag.view(by_side).sum({1, 2, 4});  // [B,2]
  const auto share = halves.gather(1, patients.side.unsqueeze(1)).squeeze(1);
  // [B,N,T] -> [B,N]: attention of each image token on the flag
  const auto on_flag = asked->rows(torch::arange(kTokens)).mean(1).select(2, kFlagToken).reshape(by_side).mean({1, 2, 4});
  asks->set_capture(false), asked->set_capture(false);

  SideFlagAttention found;
  found.on_lesion_side = share.mean().item<double>();
  for (const int64_t value : {0, 1})
    found.by_flag[value] = share.masked_select(patients.codes.select(1, 0) == value).mean().item<double>();
  found.points_to_side = (share > 0.5).to(torch::kFloat64).mean().item<double>();
  found.lesion_on_flag = on_flag.gather(1, patients.side.unsqueeze(1)).mean().item<double>();
  const auto doubt = [&](const SidedLesions& p, const torch::Tensor& has_image) {
    return (judge.judge(p, has_image).sigmoid() - 0.5).abs().mean().item<double>();
  };
  SidedLesions unflagged = patients;
  unflagged.codes = patients.codes.clone();
  unflagged.codes.select(1, 0).fill_(-1);
  found.doubt_without_flag = doubt(unflagged, all);
  found.doubt_without_image = doubt(patients, ~all);
  found.example_voxels = patients.voxels[0][0].clone(), found.example_rows = flag[0].view({kGrid[0], kGrid[1], kGrid[2]}).sum(0);
  return found;
}
}  // namespace

SidedLesions draw_sided_lesions(int64_t count, double missing, at::Generator generator) {
  const auto f32 = torch::TensorOptions(torch::kFloat32);
  const auto whole = [&](int64_t below, at::IntArrayRef shape) {
    return torch::randint(below, shape, generator, torch::TensorOptions(torch::kInt64));
  };
  SidedLesions patients;
  patients.side = whole(2, {count});
  const auto flag = whole(2, {count});
  patients.answer = (patients.side != flag).to(torch::kFloat32);
  const auto axis = [](int64_t length, at::IntArrayRef shape) { return torch::arange(length, torch::kFloat32).view(shape); };
  const auto between = [&](double low, double high) { return low + (high - low) * torch::rand({count, 1, 1, 1}, generator, f32); };
  const auto to_side = patients.side.view({count, 1, 1, 1}) * 2 - 1;
  const auto y = between(kRadius, kY - kRadius), x = 0.5 * (kX - 1) + to_side * between(kNearest, kFarthest);
  const auto reach = kLeastCovered + kCell[2] * whole((kX / 2 - kLeastCovered) / kCell[2] + 1, {count, 2});  // left and right of the middle
  const auto column = torch::arange(kX);
  patients.covered = (column >= kX / 2 - reach.slice(1, 0, 1)) & (column < kX / 2 + reach.slice(1, 1));
  const auto squared = (axis(kZ, {1, kZ, 1, 1}) - 0.5 * (kZ - 1)).square() + (axis(kY, {1, 1, kY, 1}) - y).square() +
                       (axis(kX, {1, 1, 1, kX}) - x).square();
  patients.voxels = (kNoise * torch::randn({count, kZ, kY, kX}, generator, f32) +
                     kContrast * (squared < kRadius * kRadius).to(torch::kFloat32))
                        .masked_fill(~patients.covered.view({count, 1, 1, kX}), 0)
                        .unsqueeze(1);
  patients.numbers = torch::randn({count, 2}, generator, f32)
                         .masked_fill(coins({count, 2}, 0.2, generator), std::numeric_limits<double>::quiet_NaN());
  patients.codes = torch::stack({flag, whole(3, {count})}, 1).masked_fill(coins({count, 2}, missing, generator), -1);
  return patients;
}

std::string name_of(SideFlagNetwork network) {
  switch (network) {
    case SideFlagNetwork::kTwoWay: return "co-attention, two-way";
    case SideFlagNetwork::kParallel: return "co-attention, parallel";
    case SideFlagNetwork::kImageAlone: return "image alone";
    case SideFlagNetwork::kTableAlone: return "table alone";
    case SideFlagNetwork::kLate: return "late concatenation";
    default: return "late concatenation, hidden layer";
  }
}

bool joins_both(SideFlagNetwork network) {
  return network == SideFlagNetwork::kTwoWay || network == SideFlagNetwork::kParallel || network == SideFlagNetwork::kLateHidden;
}

SideFlagResult learn_side_and_flag(const std::vector<SideFlagNetwork>& networks, uint64_t seed, int64_t steps) {
  constexpr double kRate = 6e-3;
  constexpr double kChooses = 0.3, kKept = 0.6;
  constexpr int64_t kWarmUp = 30, kFresh = 1024, kValidation = 512;
  const OneThread one_thread;
  auto generator = at::detail::createCPUGenerator(seed);
  struct Start {
    size_t network;
    std::shared_ptr<Judge> judge;
    std::unique_ptr<torch::optim::AdamW> optimizer;
    double before_training = 0;
  };
  std::vector<Start> starts;
  for (size_t i = 0; i < networks.size(); ++i)
    for (uint64_t n = 0; n < uint64_t(joins_both(networks[i]) ? kSideFlagStarts : 1); ++n) {
      Start start{i, std::make_shared<Judge>(networks[i]), nullptr};
      initialise(*start.judge, at::detail::createCPUGenerator(seed + 1000 * (n + 1) + 100000 * uint64_t(networks[i])));
      if (start.judge->two_way) lean_to_bright(start.judge->two_way->second->attn, start.judge->image);
      start.optimizer = std::make_unique<torch::optim::AdamW>(start.judge->parameters(), torch::optim::AdamWOptions(kRate).weight_decay(0));
      if (networks[i] == SideFlagNetwork::kTwoWay) {
        torch::NoGradGuard no_grad;
        start.before_training = look(*start.judge, draw_sided_lesions(kFresh, /*missing=*/0, at::detail::createCPUGenerator(seed))).on_lesion_side;
      }
      starts.push_back(std::move(start));
    }
  // Of the starts of a network the one that answers patients best who are neither trained on nor tested.
  const auto keep_best = [&] {
    torch::NoGradGuard no_grad;
    const SidedLesions unseen = draw_sided_lesions(kValidation, /*missing=*/0, at::detail::createCPUGenerator(seed + 500));
    std::vector<Start> best;
    std::vector<double> least;
    for (auto& start : starts) {
      const double found = entropy(start.judge->judge(unseen, torch::ones({kValidation}, torch::kBool)), unseen.answer).item<double>();
      if (best.empty() || best.back().network != start.network)
        best.push_back(std::move(start)), least.push_back(found);
      else if (found < least.back())
        best.back() = std::move(start), least.back() = found;
    }
    starts = std::move(best);
  };
  for (int64_t step = 0; step < steps; ++step) {
    const SidedLesions patients = draw_sided_lesions(kBatch, kMissing, generator);
    const auto has_image = ~coins({kBatch}, kMissing, generator);
    const double rate = kRate * std::min({1.0, double(step + 1) / kWarmUp, 2 * (1 - double(step) / double(steps)) + 0.02});
    if (step == int64_t(kKept * double(steps))) keep_best();
    for (auto& [network, judge, optimizer, before] : starts) {
      for (auto& group : optimizer->param_groups()) group.options().set_lr(rate);
      optimizer->zero_grad();
      auto loss = torch::zeros({});
      for (const auto& logits : judge->answers(patients, has_image)) loss = loss + entropy(logits, patients.answer);
      loss.backward();
      torch::nn::utils::clip_grad_norm_(judge->parameters(), 1.0);
      // What a table reads is understood before it chooses where to read.
      if (step < kChooses * double(steps) && judge->two_way)
        for (const auto& map : {judge->two_way->second->attn->q_proj, judge->two_way->second->attn->k_proj})
          for (auto& p : map->parameters()) p.mutable_grad().zero_();
      optimizer->step();
    }
  }

  torch::NoGradGuard no_grad;
  const SidedLesions fresh = draw_sided_lesions(kFresh, /*missing=*/0, generator);
  const auto all = torch::ones({kFresh}, torch::kBool);
  SideFlagResult result;
  for (const auto& [network, judge, optimizer, before] : starts) {
    const auto logits = judge->judge(fresh, all);
    const auto right = ((logits > 0) == (fresh.answer > 0.5)).to(torch::kFloat64);
    SideFlagScore score{right.mean().item<double>(), entropy(logits, fresh.answer).item<double>(), 0,
                        std::vector<double>(right.data_ptr<double>(), right.data_ptr<double>() + kFresh)};
    for (const auto& p : judge->parameters()) score.parameters += p.numel();
    result.scores.push_back(score);
    if (networks[network] == SideFlagNetwork::kTwoWay) {
      result.attention = look(*judge, fresh);
      result.attention->before_training = before;
    }
  }
  return result;
}

}  // namespace fovea::recipes
