#include "fovea/recipes/tumour_prognosis.h"

#include <torch/torch.h>

#include <cmath>
#include <limits>

#include "fovea/core/rng.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/recipes/scratch_folder.h"
#include "fovea/train/cox_regression.h"
#include "fovea/train/loss.h"

namespace fovea::recipes {

namespace {
constexpr int64_t kEdge = 16, kTested = 400;
constexpr uint32_t kTumourStream = 91;

// One patient's voxels and mask; returns volume and roughness.
std::pair<double, double> draw_scan(Rng& rng, float* voxels, int64_t* mask) {
  struct Ball {
    double z, y, x, rz, ry, rx;
    double distance(int64_t i, int64_t j, int64_t k) const {
      return std::sqrt(std::pow((double(i) - z) / rz, 2) + std::pow((double(j) - y) / ry, 2) + std::pow((double(k) - x) / rx, 2));
    }
  };
  struct Lesion {
    Ball ball;
    double radius, roughness;
  };
  const auto lesion = [&] {
    const double r = rng.uniform(2.2f, 4.2f), roughness = rng.uniform();
    const auto centre = [&] { return double(rng.uniform(float(r), float(kEdge - 1) - float(r))); };
    const auto axis = [&] { return r * rng.uniform(0.85f, 1.15f); };
    return Lesion{{centre(), centre(), centre(), axis(), axis(), axis()}, r, roughness};
  };
  const std::array<Lesion, 3> benign{lesion(), lesion(), lesion()};
  const Lesion tumour = lesion();
  double volume = 0;
  for (int64_t z = 0; z < kEdge; ++z)
    for (int64_t y = 0; y < kEdge; ++y)
      for (int64_t x = 0; x < kEdge; ++x, ++voxels, ++mask) {
        float v = 0.3f * rng.normal();
        const float speckle = rng.chance(0.5f) ? 1.5f : -1.5f;
        const double d = tumour.ball.distance(z, y, x);
        const auto add = [&](const Lesion& l, double distance) {
          if (distance < 1) v += 1;
          if (std::abs(distance - 1) * l.radius < 1) v += float(l.roughness) * speckle;
        };
        if (d < 1 + 1 / tumour.radius) {  // in front of the others
          add(tumour, d);
          if (d < 0.5) v -= 2;
        } else {
          for (const Lesion& l : benign) add(l, l.ball.distance(z, y, x));
        }
        *mask = d < 1, volume += d < 1;
        *voxels = v;
      }
  return {volume, tumour.roughness};
}

torch::Tensor standardised(const torch::Tensor& x) { return (x - x.mean()) / x.std(); }

PatientConfig config_of(bool outcome, bool outline, uint64_t seed, train::TaskBalance balance) {
  PatientConfig c;
  c.columns.images = {"mr"}, c.columns.mask = "tumour", c.columns.time = "time", c.columns.event = "event", c.columns.simulated = true;
  c.network.images = 1, c.network.grid = {kEdge, kEdge, kEdge}, c.network.image_channels = 8, c.network.image_levels = 2, c.network.width = 32;
  c.outcome = outcome ? PatientOutcome::kCox : PatientOutcome::kAuto;
  // Cox's loss of a few patients can be driven to nothing by heart; a small share of the step keeps it from the outline.
  c.segmentation_weight = outline ? 20 : 0, c.balance = balance;
  c.modality_dropout = 0, c.validation_share = 0, c.mirror = true;
  c.train.seed = seed, c.train.batch_size = 32, c.train.steps = c.train.steps_per_epoch = 300;
  c.train.optimizer.learning_rate = 2e-3;
  return c;
}

}  // namespace

TumourPatients draw_tumour_patients(int64_t count, uint64_t seed) {
  TumourPatients out;
  auto& p = out.patients;
  p.inputs.images = torch::empty({count, 1, kEdge, kEdge, kEdge});
  p.inputs.images_present = torch::ones({count, 1}, torch::kBool);
  p.inputs.numbers = torch::empty({count, 0}), p.inputs.codes = torch::empty({count, 0}, torch::kLong);
  p.masks = torch::empty({count, kEdge, kEdge, kEdge}, torch::kLong);
  out.volume = torch::empty({count}, torch::kDouble), out.roughness = torch::empty({count}, torch::kDouble);
  auto chance = torch::empty({count, 2}, torch::kDouble);
  for (int64_t i = 0; i < count; ++i) {
    Rng rng(seed, 0, uint32_t(i), kTumourStream);
    const auto [volume, roughness] = draw_scan(rng, p.inputs.images[i].data_ptr<float>(), p.masks[i].data_ptr<int64_t>());
    out.volume[i] = volume, out.roughness[i] = roughness;
    chance[i][0] = 1 - double(rng.uniform()), chance[i][1] = 1 - double(rng.uniform());
  }
  p.inputs.images = (p.inputs.images - p.inputs.images.mean({2, 3, 4}, true)) / p.inputs.images.std({2, 3, 4}, true, true);
  const auto hazard = torch::exp(standardised(out.volume) + standardised(out.roughness));
  const auto death = -torch::log(chance.select(1, 0)) / hazard, lost = -torch::log(chance.select(1, 1)) * 2;
  p.time = torch::minimum(death, lost), p.event = death <= lost;
  return out;
}

TumourPrognosis learn_tumour_prognosis(int64_t count, uint64_t seed, train::TaskBalance balance) {
  const OneThread one_thread;
  const auto known = draw_tumour_patients(count, seed * 2 + 1), fresh = draw_tumour_patients(kTested, seed * 2 + 2);
  const auto none = torch::empty({0}, torch::kLong), all = torch::arange(count), tested = torch::arange(kTested);
  TumourPrognosis out;
  const auto survival = survival_of(fresh.patients, tested);
  const auto train_one = [&](bool outcome, bool outline) {
    const auto config = config_of(outcome, outline, seed, balance);
    const ScratchFolder scratch;
    train::RunFolder folder(scratch.path() / "run");
    auto fitted = fit_patients(known.patients, {all, none, none}, config, folder);
    TumourScore score;
    const auto answers = answer_patients(*fitted.network, fresh.patients, tested);
    score.dice = outline ? answers.dice : std::numeric_limits<double>::quiet_NaN();
    score.concordance = std::numeric_limits<double>::quiet_NaN();
    if (outcome) score.risk = fitted.head.risk(answers.outcome), score.concordance = train::harrell_concordance(survival, score.risk).index;
    if (outcome && outline) {
      const auto rows = all.slice(0, 0, std::min<int64_t>(count, 64));
      const auto answer = fitted.network->forward(known.patients.rows(rows));
      out.agreement = train::gradient_agreement(fitted.head.loss(answer.outcome, known.patients, rows),
                                                train::dice_cross_entropy(answer.segmentation, known.patients.masks.index_select(0, rows), {}),
                                                fitted.network->shared_attention_weights());
    }
    return score;
  };
  out.joint = train_one(true, true);
  out.outcome_alone = train_one(true, false);
  out.outline_alone = train_one(false, true);

  const auto cox = [&](const std::vector<torch::Tensor>& measures, const std::vector<torch::Tensor>& fresh_measures) {
    const auto fit = train::fit_cox(torch::stack(measures, 1), {known.patients.time, known.patients.event});
    return train::harrell_concordance(survival, data::to_doubles(fit.risk(torch::stack(fresh_measures, 1)))).index;
  };
  out.cox_volume = cox({known.volume}, {fresh.volume});
  out.cox_both = cox({known.volume, known.roughness}, {fresh.volume, fresh.roughness});
  out.gain = train::bootstrap_interval(size_t(kTested), [&](const std::vector<size_t>& of) {
    const auto some = train::select(survival, of);
    return train::harrell_concordance(some, train::select(out.joint.risk, of)).index - train::harrell_concordance(some, train::select(out.outcome_alone.risk, of)).index;
  }, 1000, 0.95, seed);
  return out;
}

}  // namespace fovea::recipes
