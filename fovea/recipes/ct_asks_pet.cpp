#include "fovea/recipes/ct_asks_pet.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "fovea/nn/convolution.h"
#include "fovea/nn/cross_attention.h"
#include "fovea/nn/volume_tokens.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/train/surface_distance.h"

namespace fovea::recipes {

namespace {
constexpr nn::Triple kCt{2, 12, 60}, kPet{1, 4, 20}, kPetCell{2, 3, 3};
constexpr double kVoxelMm = 2, kPetVoxelMm = 6, kBlurMm = 6, kRadiusMm = 30;
constexpr double kViableUptake = 5, kNecroticUptake = 0.5, kLeastUptake = 0.5, kMostUptake = 1.5, kCounts = 20, kCtNoise = 0.3, kMissing = 1.0 / 7;
constexpr int64_t kWidth = 8, kPlainWidth = 7, kTumours = 2, kBatch = 4;
constexpr double kApart = 32;  // CT voxels between the tumours
constexpr double kLeak = 0.01;

torch::Tensor uniform(int64_t count, double low, double high, at::Generator generator) {
  return low + (high - low) * torch::rand({count, 1, 1, 1}, generator, torch::TensorOptions(torch::kFloat32));
}

// Gaussian of `kBlurMm` FWHM along one axis of [B,Z,Y,X], the border voxels repeated.
torch::Tensor blur(const torch::Tensor& volume, int64_t axis) {
  constexpr int64_t kReach = 4;
  const double sigma = kBlurMm / (2 * std::sqrt(2 * std::log(2.0))) / kVoxelMm;
  const auto t = torch::arange(-kReach, kReach + 1, torch::kFloat32);
  auto weights = torch::exp(-t.square() / (2 * sigma * sigma));
  weights = weights / weights.sum();
  auto sum = torch::zeros_like(volume);
  for (int64_t offset = -kReach; offset <= kReach; ++offset) {
    const auto from = (torch::arange(volume.size(axis)) + offset).clamp(0, volume.size(axis) - 1);
    sum += weights[offset + kReach] * volume.index_select(axis, from);
  }
  return sum;
}

/// Logits [B,Z,Y,X] on the CT grid. has_pet bool [B].
struct Segmenter : torch::nn::Module {
  virtual torch::Tensor segment(const CtPetPairs& pairs, const torch::Tensor& has_pet) = 0;
};

nn::Convolution convolution(int64_t in, int64_t out) {
  return nn::Convolution(nn::ConvolutionOptions(in, out, 3).bias(true));
}

struct AskingSegmenter : Segmenter {
  AskingSegmenter() {
    ct1 = register_module("ct1", convolution(1, kWidth)), ct2 = register_module("ct2", convolution(kWidth, kWidth));
    // Voxel by voxel: what belongs where is the attention's to find out, not a convolution's.
    pet1 = register_module("pet1", torch::nn::Linear(1, kWidth)), pet2 = register_module("pet2", torch::nn::Linear(kWidth, kWidth));
    ask = register_module("ask", nn::CrossAttention(nn::CrossAttentionOptions(kWidth, 1).radius_mm(kRadiusMm)));
    // No preference for places within the window: one that has learnt how far PETs usually lie beside would draw the
    // attention back to where they do not.
    for (const auto& map : {ask->bias_first, ask->bias_last})
      for (auto& p : map->parameters()) p.set_requires_grad(false);
    head = register_module("head", convolution(kWidth, kWidth));
    read = register_module("read", torch::nn::Linear(kWidth, 1));
    Geometry geometry;  // both grids in one frame: the CT's voxels of 2 mm
    for (int axis = 0; axis < 3; ++axis) geometry.affine[axis][axis] = kVoxelMm;
    ct_mm = nn::positions_mm(nn::cell_centres(kCt, {1, 1, 1}), geometry);
    pet_mm = nn::positions_mm(nn::cell_centres(kPet, kPetCell), geometry);
  }

  // Tokens that ask, [B,N,E], and that are asked, [B,M,E].
  torch::Tensor asking(const torch::Tensor& ct) {
    return ct2->normed(ct1->normed(ct, kLeak), kLeak).flatten(2).transpose(1, 2);
  }
  torch::Tensor source(const torch::Tensor& pet) {
    return torch::leaky_relu(pet2(torch::leaky_relu(pet1(pet.flatten(1).unsqueeze(2) - 1), kLeak)), kLeak);
  }
  nn::CrossAttended asked(const CtPetPairs& pairs, const torch::Tensor& has_pet) {
    const auto x = asking(pairs.ct), y = source(pairs.pet);
    return ask(x, ct_mm, y, pet_mm, has_pet.unsqueeze(1).expand({x.size(0), y.size(1)}).contiguous());
  }
  // Mean entropy, in nats, of the attention of viable voxels on their PET, if it is there; 0 without any. How much goes to
  // the missing token is not asked.
  torch::Tensor entropy(const CtPetPairs& pairs, const torch::Tensor& has_pet) {
    const auto x = asking(pairs.ct), y = source(pairs.pet);
    auto sum = torch::zeros({});
    int64_t rows = 0;
    for (int64_t b = 0; b < x.size(0); ++b) {
      if (!has_pet[b].item<bool>()) continue;
      const auto voxels = (pairs.viable[b].flatten() > 0.5).nonzero().squeeze(1);
      auto p = ask->weights(x[b].index_select(0, voxels).unsqueeze(0), ct_mm.index_select(0, voxels), y.slice(0, b, b + 1), pet_mm).slice(3, 1);
      p = p / p.sum(3, /*keepdim=*/true).clamp_min(1e-30);
      sum = sum - torch::xlogy(p, p.clamp_min(1e-30)).sum(), rows += voxels.size(0);
    }
    return sum / double(std::max<int64_t>(1, rows));
  }
  torch::Tensor segment(const CtPetPairs& pairs, const torch::Tensor& has_pet) override {
    const auto tokens = asked(pairs, has_pet).tokens;
    const auto map = tokens.transpose(1, 2).reshape({tokens.size(0), kWidth, kCt[0], kCt[1], kCt[2]});
    return read(torch::leaky_relu(head(map), kLeak).permute({0, 2, 3, 4, 1})).squeeze(4);
  }

  nn::Convolution ct1{nullptr}, ct2{nullptr}, head{nullptr};
  torch::nn::Linear pet1{nullptr}, pet2{nullptr}, read{nullptr};
  nn::CrossAttention ask{nullptr};
  torch::Tensor ct_mm, pet_mm;
};

struct PlainSegmenter : Segmenter {
  explicit PlainSegmenter(CtPetNetwork kind) : kind(kind) {
    int64_t in = kind == CtPetNetwork::kConcatenation ? 2 : 1;
    // 15 voxels of 2 mm to each side: as far as the attention.
    for (const int64_t dilation : {1, 8, 4, 2}) {
      layers.push_back(register_module("conv" + std::to_string(layers.size()),
                                       torch::nn::Conv3d(torch::nn::Conv3dOptions(in, kPlainWidth, 3).padding(dilation).dilation(dilation))));
      in = kPlainWidth;
    }
    read = register_module("read", torch::nn::Linear(kPlainWidth, 1));
  }
  torch::Tensor segment(const CtPetPairs& pairs, const torch::Tensor& has_pet) override {
    const auto pet = (torch::upsample_trilinear3d(pairs.pet, {kCt[0], kCt[1], kCt[2]}, /*align_corners=*/false) - 1) * has_pet.view({-1, 1, 1, 1, 1});
    auto map = kind == CtPetNetwork::kConcatenation ? torch::cat({pairs.ct, pet}, 1) : kind == CtPetNetwork::kCtAlone ? pairs.ct : pet;
    for (size_t i = 0; i < layers.size(); ++i) {
      map = layers[i](map);
      if (i == 0) map = torch::instance_norm(map, {}, {}, {}, {}, true, 0.1, 1e-5, false);
      map = torch::leaky_relu(map, kLeak);
    }
    return read(map.permute({0, 2, 3, 4, 1})).squeeze(4);
  }
  CtPetNetwork kind;
  std::vector<torch::nn::Conv3d> layers;
  torch::nn::Linear read{nullptr};
};

void initialise(Segmenter& network, at::Generator generator) {
  torch::NoGradGuard no_grad;
  for (auto& item : network.named_parameters()) {
    auto p = item.value();
    if (!p.requires_grad()) {
      p.zero_();
    } else if (item.key().ends_with("missing")) {
      p.normal_(0, 0.3, generator);
    } else if (p.dim() == 1) {
      p.zero_();
    } else {
      const double bound = 1 / std::sqrt(double(p[0].numel()));
      p.uniform_(-bound, bound, generator);
    }
  }
}

torch::Tensor loss_of(const torch::Tensor& logits, const torch::Tensor& viable) {
  const auto p = logits.sigmoid().flatten(1), v = viable.flatten(1);
  const auto dice = (2 * (p * v).sum(1) + 1) / (p.sum(1) + v.sum(1) + 1);
  return torch::binary_cross_entropy_with_logits(logits, viable) + (1 - dice).mean();
}

// Of two [Z,Y,X] masks.
double dice_of(const torch::Tensor& a, const torch::Tensor& b) {
  return 2 * (a & b).sum().item<double>() / std::max(1.0, (a.sum() + b.sum()).item<double>());
}
double hd95_of(const torch::Tensor& found, const torch::Tensor& viable) {
  const auto a = found.to(torch::kUInt8).contiguous(), b = viable.to(torch::kUInt8).contiguous();
  const auto view = [](const torch::Tensor& t) { return View<const uint8_t, 3>::contiguous(t.data_ptr<uint8_t>(), kCt); };
  const double diagonal = kVoxelMm * std::sqrt(double(kCt[0] * kCt[0] + kCt[1] * kCt[1] + kCt[2] * kCt[2]));
  return std::min(diagonal, train::hausdorff_mm(train::surface_distances(view(a), view(b), {kVoxelMm, kVoxelMm, kVoxelMm}), 95));
}
// Chance that a voxel of `high` scores more than one of `low`.
double auc_of(const torch::Tensor& high, const torch::Tensor& low) {
  const auto rank = torch::cat({high, low}).argsort().argsort().to(torch::kFloat64) + 1;
  const double n = double(high.numel()), m = double(low.numel());
  return (rank.slice(0, 0, high.numel()).sum().item<double>() - n * (n + 1) / 2) / (n * m);
}

CtPetScore score_of(Segmenter& network, const CtPetPairs& pairs) {
  const int64_t count = pairs.ct.size(0);
  const auto all = torch::ones({count}, torch::kBool), viable = pairs.viable > 0.5;
  const auto logits = network.segment(pairs, all), without = network.segment(pairs, ~all);
  CtPetScore score;
  for (int64_t i = 0; i < count; ++i) {
    score.dices.push_back(dice_of(logits[i] > 0, viable[i])), score.dice += score.dices.back() / double(count);
    score.hd95s_mm.push_back(hd95_of(logits[i] > 0, viable[i])), score.hd95_mm += score.hd95s_mm.back() / double(count);
    score.dice_without_pet += dice_of(without[i] > 0, viable[i]) / double(count);
  }
  score.auc = auc_of(logits.masked_select(viable), logits.masked_select((pairs.tumour > 0.5) & ~viable));
  for (const auto& p : network.parameters()) score.parameters += p.requires_grad() ? p.numel() : 0;
  return score;
}

// Rows of the viable voxels of pair b, [R,1+M], and their flat indices.
std::pair<torch::Tensor, torch::Tensor> viable_rows(AskingSegmenter& network, const CtPetPairs& pairs, int64_t b) {
  const auto voxels = (pairs.viable[b].flatten() > 0.5).nonzero().squeeze(1);
  CtPetPairs one = pairs;
  for (torch::Tensor* t : {&one.ct, &one.pet}) *t = t->slice(0, b, b + 1);
  network.ask->set_capture(true);
  network.asked(one, torch::ones({1}, torch::kBool));
  const auto rows = network.ask->rows(voxels)[0][0];
  network.ask->set_capture(false);
  return {rows, voxels};
}

PetAttention look(AskingSegmenter& network, uint64_t seed, double example_shift) {
  constexpr int64_t kPairs = 12;
  PetAttention found;
  double sum = 0;
  for (int64_t s = -kLargestPetShift; s <= kLargestPetShift; ++s) {
    const auto pairs = draw_ct_pet(kPairs, at::detail::createCPUGenerator(seed), double(s));  // the same but for the shift
    double moved = 0;
    for (int64_t b = 0; b < kPairs; ++b) {
      const auto [rows, voxels] = viable_rows(network, pairs, b);
      const auto from = network.ct_mm.index_select(0, voxels).select(1, 0);
      moved += (nn::attended_mm(rows, network.pet_mm).select(1, 0) - from).mean().item<double>() / kPetVoxelMm / kPairs;
      if (s == 0) found.gate += (1 - rows.select(1, 0)).mean().item<double>() / kPairs;
    }
    found.moved[s + kLargestPetShift] = moved;
    found.slope += double(s) * moved, sum += double(s * s);
  }
  found.slope /= sum;

  const auto pairs = draw_ct_pet(1, at::detail::createCPUGenerator(seed + 1), example_shift);
  found.gate_without_pet = network.asked(pairs, torch::zeros({1}, torch::kBool)).gate.max().item<double>();
  const auto [rows, voxels] = viable_rows(network, pairs, 0);
  const int64_t chosen = voxels.size(0) / 2, voxel = voxels[chosen].item<int64_t>();
  found.voxel = {voxel / kCt[2] % kCt[1], voxel % kCt[2]};
  found.ct = pairs.ct[0][0][voxel / (kCt[1] * kCt[2])].clone(), found.pet = pairs.pet[0][0].mean(0);
  found.attention = rows[chosen].slice(0, 1).view({kPet[0], kPet[1], kPet[2]}).sum(0);
  return found;
}

StudyAttention look_at(AskingSegmenter& network, const CtPetStudy& study) {
  const auto grid_of = [](const torch::Tensor& t) { return nn::Triple{t.size(2), t.size(3), t.size(4)}; };
  const auto x = network.asking(study.ct).index_select(1, study.voxels), y = network.source(study.pet);
  const auto pet_mm = nn::positions_mm(nn::cell_centres(grid_of(study.pet), {1, 1, 1}), study.pet_grid);
  StudyAttention found;
  found.asking_mm = nn::positions_mm(nn::cell_centres(grid_of(study.ct), {1, 1, 1}), study.ct_grid).index_select(0, study.voxels);
  const auto weights = [&](const torch::Tensor& ct_by, const torch::Tensor& pet_by) {
    return network.ask->weights(x, found.asking_mm + ct_by, y, pet_mm + pet_by)[0][0];
  };
  const auto still = torch::zeros({3}, torch::kFloat64);
  const auto rows = weights(still, still);
  found.attended_mm = nn::attended_mm(rows, pet_mm);
  found.gate = 1 - rows.select(1, 0).mean().item<double>();
  const auto suv = rows.slice(1, 1).matmul(study.pet.flatten()) / rows.slice(1, 1).sum(1);
  found.attended_suv = suv.mean().item<double>();
  double along = 0, squares = 0;
  for (int64_t axis = 0; axis < 3; ++axis)
    for (const double by : {-12.0, -8.0, -4.0, 4.0, 8.0, 12.0}) {
      auto moved = still.clone();
      moved[axis] = by;
      const auto centre = nn::attended_mm(weights(still, moved), pet_mm + moved);
      along += by * (centre - found.attended_mm).select(1, axis).mean().item<double>(), squares += by * by;
    }
  found.slope = along / squares;
  const auto far = torch::tensor({17.0, -31.0, 250.0}, torch::kFloat64);
  found.moved_together_mm = (nn::attended_mm(weights(far, far), pet_mm) - found.attended_mm).abs().max().item<double>();
  found.gate_elsewhere = (1 - weights(still, still + 1000).select(1, 0)).max().item<double>();
  return found;
}
}  // namespace

CtPetPairs draw_ct_pet(int64_t count, at::Generator generator, std::optional<double> shift) {
  const auto f32 = torch::TensorOptions(torch::kFloat32);
  CtPetPairs pairs;
  pairs.shift = torch::randint(-kLargestPetShift, kLargestPetShift + 1, {count}, generator, f32);
  if (shift) pairs.shift.fill_(*shift);
  auto lives = torch::rand({count, kTumours}, generator, f32) < 0.6;
  lives.select(1, 0).logical_or_(lives.any(1).logical_not());
  const auto axis = [](int64_t length, at::IntArrayRef shape) { return torch::arange(length, torch::kFloat32).view(shape); };
  const auto z = axis(kCt[0], {1, kCt[0], 1, 1}), y = axis(kCt[1], {1, 1, kCt[1], 1}), x = axis(kCt[2], {1, 1, 1, kCt[2]});
  auto tumour = torch::zeros({count, kCt[0], kCt[1], kCt[2]}, torch::kBool), viable = tumour.clone();
  auto uptake = uniform(count, kLeastUptake, kMostUptake, generator).expand({count, kCt[0], kCt[1], kCt[2]});
  for (int64_t i = 0; i < kTumours; ++i) {
    const auto cy = uniform(count, 4.5, 6.5, generator), cx = uniform(count, 12.5, 14.5, generator) + double(i) * kApart;
    const auto ry = uniform(count, 2.5, 4, generator), rx = uniform(count, 2.5, 4, generator);
    const auto ball = [&](const torch::Tensor& middle) {
      return ((z - 0.5) / 3).square() + ((y - cy) / ry).square() + ((x - middle) / rx).square() < 1;
    };
    const auto here = ball(cx), there = ball(cx + pairs.shift.view({-1, 1, 1, 1}) * double(kPetCell[2]));
    const auto alive = lives.select(1, i).view({-1, 1, 1, 1});
    tumour = tumour | here, viable = viable | (here & alive);
    uptake = torch::where(there, torch::where(alive, kViableUptake, kNecroticUptake).to(torch::kFloat32), uptake);
  }
  pairs.tumour = tumour.to(torch::kFloat32), pairs.viable = viable.to(torch::kFloat32);
  pairs.ct = (pairs.tumour + kCtNoise * torch::randn(pairs.tumour.sizes(), generator, f32)).unsqueeze(1);
  const auto seen = torch::avg_pool3d(blur(blur(blur(uptake, 1), 2), 3).unsqueeze(1), kPetCell);
  pairs.pet = torch::poisson(seen * kCounts, generator) / kCounts;
  return pairs;
}

std::string name_of(CtPetNetwork network) {
  switch (network) {
    case CtPetNetwork::kCrossAttention: return "cross-attention";
    case CtPetNetwork::kConcatenation: return "concatenation after resampling";
    case CtPetNetwork::kCtAlone: return "CT alone";
    default: return "PET alone";
  }
}

CtPetResult learn_ct_pet(const std::vector<CtPetNetwork>& networks, uint64_t seed, int64_t steps, double example_shift,
                         double sharpen, const CtPetStudy* study) {
  constexpr double kRate = 1e-2;
  constexpr double kSharpenFrom = 0.5, kSharpenOver = 0.2;  // of the steps
  constexpr int64_t kWarmUp = 20, kFresh = 1024;
  const OneThread one_thread;
  auto generator = at::detail::createCPUGenerator(seed);
  std::vector<std::shared_ptr<Segmenter>> segmenters;
  std::vector<std::unique_ptr<torch::optim::Adam>> optimizers;
  for (const CtPetNetwork kind : networks) {
    if (kind == CtPetNetwork::kCrossAttention)
      segmenters.push_back(std::make_shared<AskingSegmenter>());
    else
      segmenters.push_back(std::make_shared<PlainSegmenter>(kind));
    initialise(*segmenters.back(), at::detail::createCPUGenerator(seed + 2000 + uint64_t(kind)));
    optimizers.push_back(std::make_unique<torch::optim::Adam>(segmenters.back()->parameters(), torch::optim::AdamOptions(kRate)));
  }
  for (int64_t step = 0; step < steps; ++step) {
    const CtPetPairs pairs = draw_ct_pet(kBatch, generator);
    const auto has_pet = torch::rand({kBatch}, generator, torch::TensorOptions(torch::kFloat32)) >= kMissing;
    const double done = double(step) / double(steps);
    const double rate = kRate * std::min({1.0, double(step + 1) / kWarmUp, 2 * (1 - done) + 0.02});
    for (size_t i = 0; i < segmenters.size(); ++i) {
      for (auto& group : optimizers[i]->param_groups()) group.options().set_lr(rate);
      optimizers[i]->zero_grad();
      auto loss = loss_of(segmenters[i]->segment(pairs, has_pet), pairs.viable);
      if (auto* asking = dynamic_cast<AskingSegmenter*>(segmenters[i].get()); asking && sharpen > 0 && done > kSharpenFrom)
        loss = loss + sharpen * std::min(1.0, (done - kSharpenFrom) / kSharpenOver) * asking->entropy(pairs, has_pet);
      loss.backward();
      torch::nn::utils::clip_grad_norm_(segmenters[i]->parameters(), 1.0);
      optimizers[i]->step();
    }
  }

  torch::NoGradGuard no_grad;
  const CtPetPairs fresh = draw_ct_pet(kFresh, generator);
  CtPetResult result;
  for (size_t i = 0; i < segmenters.size(); ++i) {
    result.scores.push_back(score_of(*segmenters[i], fresh));
    if (networks[i] != CtPetNetwork::kCrossAttention) continue;
    auto& asking = static_cast<AskingSegmenter&>(*segmenters[i]);
    result.attention = look(asking, seed + 1000, example_shift);
    if (study) result.study = look_at(asking, *study);
  }
  return result;
}

}  // namespace fovea::recipes
