#include "fovea/recipes/contacts.h"

#include <cmath>

#include "fovea/data/contact_prediction.h"
#include "fovea/data/potts.h"
#include "fovea/models/factored_attention.h"
#include "fovea/models/seeded_generator.h"

namespace fovea::recipes {

namespace {
// Minimises loss(residues of a batch): sequences drawn by weight, so that every batch counts alike.
template <class Loss>
void train(const io::Alignment& a, const torch::Tensor& weights, const ContactTraining& training, const std::vector<torch::Tensor>& parameters, at::Generator generator, const Loss& loss) {
  const auto residues = torch::from_blob(const_cast<uint8_t*>(a.residues.data()), {a.rows(), a.columns}, torch::kUInt8).clone().clamp_max(io::kGap);
  torch::optim::Adam optimizer(parameters, torch::optim::AdamOptions(training.rate));
  for (int64_t step = 0; step < training.steps; ++step) {
    static_cast<torch::optim::AdamOptions&>(optimizer.param_groups()[0].options()).lr(training.rate * (1 + std::cos(M_PI * double(step) / double(training.steps))) / 2);
    const auto of = torch::multinomial(weights, std::min(training.batch, a.rows()), /*replacement=*/true, generator);
    optimizer.zero_grad();
    loss(residues.index_select(0, of).to(torch::kInt64)).backward();
    optimizer.step();
  }
}
}  // namespace

torch::Tensor learn_contacts(const io::Alignment& a, const torch::Tensor& weights, const ContactTraining& training, uint64_t seed) {
  const models::SeededGenerator seeded(seed);
  models::FactoredAttention net(models::FactoredAttentionConfig{.columns = a.columns, .heads = training.heads, .channels = training.channels});
  train(a, weights, training, net->parameters(), at::detail::createCPUGenerator(seed), [&](const torch::Tensor& x) { return net->loss(x, training.l2); });
  return data::average_product_correction(net->strengths());
}

torch::Tensor learn_potts(const io::Alignment& a, const torch::Tensor& weights, const ContactTraining& training, uint64_t seed) {
  constexpr int64_t kStates = io::kGap + 1;
  const int64_t L = a.columns;
  auto free = torch::zeros({L * kStates, L * kStates}).requires_grad_(), bias = torch::zeros({L, kStates}).requires_grad_();
  const auto others = 1 - torch::kron(torch::eye(L), torch::ones({kStates, kStates}));
  const auto couplings = [&] { return (free + free.t()) / 2 * others; };
  train(a, weights, training, {free, bias}, at::detail::createCPUGenerator(seed), [&](const torch::Tensor& x) {
    const auto w = couplings();
    const auto logits = torch::matmul(torch::one_hot(x, kStates).to(torch::kFloat32).flatten(1), w).view({-1, L, kStates}) + bias;
    return training.l2 / 2 * w.square().sum() - torch::log_softmax(logits, 2).gather(2, x.unsqueeze(2)).sum() / double(x.size(0));
  });
  torch::NoGradGuard no_grad;
  auto w = couplings().view({L, kStates, L, kStates}).permute({0, 2, 1, 3}).slice(2, 0, 20).slice(3, 0, 20);
  w = w - w.mean(2, true) - w.mean(3, true) + w.mean({2, 3}, true);
  return data::average_product_correction(w.square().sum({2, 3}).sqrt());
}

ContactPrecision precision_of(const std::string& method, const torch::Tensor& scores, const torch::Tensor& distances, int64_t separation) {
  const auto at = [&](int64_t part) { return data::contact_precision(scores, distances, std::max<int64_t>(1, scores.size(0) / part), separation); };
  return {method, at(1), at(2), at(5)};
}

std::vector<ContactPrecision> compare_contacts(const io::Alignment& a, const torch::Tensor& weights, const torch::Tensor& distances, int64_t separation, const torch::Tensor& learned) {
  std::vector<ContactPrecision> table;
  const auto add = [&](const std::string& method, const torch::Tensor& scores) { table.push_back(precision_of(method, scores, distances, separation)); };
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
