#include "fovea/recipes/contacts.h"

#include <cmath>

#include "fovea/data/contact_prediction.h"
#include "fovea/data/potts.h"
#include "fovea/models/factored_attention.h"
#include "fovea/models/seeded_generator.h"

namespace fovea::recipes {

torch::Tensor learn_contacts(const io::Alignment& a, const torch::Tensor& weights, const ContactTraining& training, uint64_t seed) {
  const models::SeededGenerator seeded(seed);
  auto generator = at::detail::createCPUGenerator(seed);
  models::FactoredAttention net(models::FactoredAttentionConfig{.columns = a.columns, .heads = training.heads, .channels = training.channels});
  const auto residues = torch::from_blob(const_cast<uint8_t*>(a.residues.data()), {a.rows(), a.columns}, torch::kUInt8).clone().clamp_max(io::kGap);
  torch::optim::Adam optimizer(net->parameters(), torch::optim::AdamOptions(training.rate));
  for (int64_t step = 0; step < training.steps; ++step) {
    static_cast<torch::optim::AdamOptions&>(optimizer.param_groups()[0].options()).lr(training.rate * (1 + std::cos(M_PI * double(step) / double(training.steps))) / 2);
    // Drawn by weight, so that every batch counts alike.
    const auto of = torch::multinomial(weights, std::min(training.batch, a.rows()), /*replacement=*/true, generator);
    optimizer.zero_grad();
    net->loss(residues.index_select(0, of).to(torch::kInt64), training.l2).backward();
    optimizer.step();
  }
  return data::average_product_correction(net->strengths());
}

std::vector<ContactPrecision> compare_contacts(const io::Alignment& a, const torch::Tensor& weights, const torch::Tensor& distances, int64_t separation, const torch::Tensor& learned) {
  std::vector<ContactPrecision> table;
  const auto add = [&](const std::string& method, const torch::Tensor& scores) {
    const auto at = [&](int64_t part) { return data::contact_precision(scores, distances, std::max<int64_t>(1, a.columns / part), separation); };
    table.push_back({method, at(1), at(2), at(5)});
  };
  if (learned.defined()) add("factored attention", learned);
  add("inverse covariance", data::average_product_correction(data::inverse_covariance(a, weights)));
  add("mutual information", data::average_product_correction(data::mutual_information(a, weights)));
  const double chance = data::contact_precision(torch::zeros_like(distances), distances, 0, separation);
  table.push_back({"chance", chance, chance, chance});
  return table;
}

PottsFamily draw_potts_family(int64_t columns, uint64_t seed) {
  constexpr int64_t kLetters = 20, kKinds = 4, kSequences = 2000, kSweeps = 30;
  constexpr double kStrength = 1.0;
  auto generator = at::detail::createCPUGenerator(seed);
  const auto kinds = kStrength * torch::randn({kKinds, kLetters, kLetters}, generator, torch::TensorOptions(torch::kFloat32));
  auto couplings = torch::zeros({columns, kLetters, columns, kLetters});
  PottsFamily family;
  family.distances = torch::full({columns, columns}, 20, torch::kFloat64);
  const auto whole = [&](int64_t below) { return torch::randint(below, {1}, generator, torch::TensorOptions(torch::kInt64)).item<int64_t>(); };
  for (int64_t placed = 0; placed < columns;) {
    const int64_t i = whole(columns), j = whole(columns);
    if (i == j || family.distances[i][j].item<double>() == 0) continue;
    const auto kind = kinds[whole(kKinds)];
    couplings.select(0, i).select(1, j).copy_(kind);
    couplings.select(0, j).select(1, i).copy_(kind.t());
    family.distances[i][j] = family.distances[j][i] = 0;
    ++placed;
  }
  const auto fields = 0.5 * torch::randn({columns, kLetters}, generator, torch::TensorOptions(torch::kFloat32));
  const auto x = data::sample_potts(couplings, fields, kSequences, kSweeps, generator).to(torch::kUInt8).contiguous();
  family.alignment.format = "simulated", family.alignment.columns = columns;
  family.alignment.names.assign(size_t(kSequences), "simulated");
  family.alignment.residues.assign(x.data_ptr<uint8_t>(), x.data_ptr<uint8_t>() + x.numel());
  return family;
}

}  // namespace fovea::recipes
