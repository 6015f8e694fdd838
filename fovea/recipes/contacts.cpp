#include "fovea/recipes/contacts.h"

#include <cmath>

#include "fovea/core/error.h"
#include "fovea/core/process_memory.h"
#include "fovea/core/progress.h"
#include "fovea/data/contact_prediction.h"
#include "fovea/data/potts.h"
#include "fovea/models/alignment_transformer.h"
#include "fovea/models/factored_attention.h"
#include "fovea/models/seeded_generator.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
constexpr int64_t kStates = io::kGap + 1;  // a letter that names no residue counts as a gap

struct Method {
  const char *name, *title;
};
constexpr Method kMethods[] = {{"factored", "factored attention"}, {"tied", "tied axial attention"}, {"potts", "Potts pseudolikelihood"}, {"covariance", "inverse covariance"}, {"mi", "mutual information"}};

torch::Tensor residues_of(const io::Alignment& a) {
  return torch::from_blob(const_cast<uint8_t*>(a.residues.data()), {a.rows(), a.columns}, torch::kUInt8).clone().clamp_max(io::kGap);
}

// Minimises loss(residues of a batch): sequences drawn by weight, so that every batch counts alike.
struct Descent {
  const char* label;
  int64_t steps, batch;
  double rate;
};
template <class Loss>
void train(const Descent& descent, const torch::Tensor& residues, const torch::Tensor& weights, const std::vector<torch::Tensor>& parameters, at::Generator generator, const Loss& loss) {
  // Below some hundred columns the steps are so short that threads mostly wait for each other.
  std::optional<OneThread> one_thread;
  if (residues.size(1) < 128) one_thread.emplace();
  torch::optim::Adam optimizer(parameters, torch::optim::AdamOptions(descent.rate));
  ProgressOptions shown;
  shown.unit = "steps";
  Progress bar(descent.label, descent.steps, shown);
  for (int64_t step = 0; step < descent.steps; ++step) {
    static_cast<torch::optim::AdamOptions&>(optimizer.param_groups()[0].options()).lr(descent.rate * (1 + std::cos(M_PI * double(step) / double(descent.steps))) / 2);
    const auto of = torch::multinomial(weights, std::min(descent.batch, residues.size(0)), /*replacement=*/true, generator);
    optimizer.zero_grad();
    loss(residues.index_select(0, of).to(torch::kInt64)).backward();
    optimizer.step();
    bar.advance();
  }
}

// Logarithms of the weighted frequencies [L,states], one sequence's worth of each state added, mean 0.
torch::Tensor single_site(const torch::Tensor& residues, const torch::Tensor& weights) {
  auto counts = torch::ones({residues.size(1), kStates}, torch::kFloat64);
  for (int64_t state = 0; state < kStates; ++state) counts.select(1, state) += torch::matmul(weights, (residues == state).to(torch::kFloat64));
  const auto logs = torch::log(counts);
  return (logs - logs.mean(1, true)).to(torch::kFloat32);
}
}  // namespace

std::optional<ContactMethod> contact_method(const std::string& name) {
  for (size_t i = 0; i < std::size(kMethods); ++i)
    if (name == kMethods[i].name) return ContactMethod(i);
  return {};
}

std::string title_of(ContactMethod method) { return kMethods[size_t(method)].title; }

torch::Tensor learn_contacts(const io::Alignment& a, const torch::Tensor& weights, const ContactTraining& training, uint64_t seed) {
  const models::SeededGenerator seeded(seed);
  const auto residues = residues_of(a);
  models::FactoredAttention net(models::FactoredAttentionConfig{.columns = a.columns, .heads = training.heads, .channels = training.channels});
  net->bias.data().copy_(single_site(residues, weights));
  train({"factored attention", training.steps, training.batch, training.rate}, residues, weights, net->parameters(), at::detail::createCPUGenerator(seed),
        [&](const torch::Tensor& x) { return net->loss(x, training.l2); });
  return data::average_product_correction(net->strengths());
}

ContactTraining potts_training() {
  ContactTraining training;
  training.steps = 300, training.rate = 1e-2;
  return training;
}

torch::Tensor learn_potts(const io::Alignment& a, const torch::Tensor& weights, const ContactTraining& training, uint64_t seed) {
  const int64_t L = a.columns;
  const auto residues = residues_of(a);
  auto free = torch::zeros({L * kStates, L * kStates}).requires_grad_(), bias = single_site(residues, weights).requires_grad_();
  const auto others = 1 - torch::kron(torch::eye(L), torch::ones({kStates, kStates}));
  const auto couplings = [&] { return (free + free.t()) / 2 * others; };
  train({"Potts model", training.steps, training.batch, training.rate}, residues, weights, {free, bias}, at::detail::createCPUGenerator(seed), [&](const torch::Tensor& x) {
    const auto w = couplings();
    const auto logits = torch::matmul(torch::one_hot(x, kStates).to(torch::kFloat32).flatten(1), w).view({-1, L, kStates}) + bias;
    return training.l2 / 2 * w.square().sum() - torch::log_softmax(logits, 2).gather(2, x.unsqueeze(2)).sum() / double(x.size(0));
  });
  torch::NoGradGuard no_grad;
  auto w = couplings().view({L, kStates, L, kStates}).permute({0, 2, 1, 3}).slice(2, 0, 20).slice(3, 0, 20);
  w = w - w.mean(2, true) - w.mean(3, true) + w.mean({2, 3}, true);
  return data::average_product_correction(w.square().sum({2, 3}).sqrt());
}

torch::Tensor learn_tied(const io::Alignment& a, const torch::Tensor& weights, const TiedTraining& training, uint64_t seed) {
  const models::SeededGenerator seeded(seed);
  const auto residues = residues_of(a);
  models::AlignmentTransformer net(models::AlignmentTransformerConfig{.columns = a.columns, .dim = training.dim, .heads = training.heads, .blocks = training.blocks});
  auto generator = at::detail::createCPUGenerator(seed);
  net->out->bias.data().zero_();
  train({"tied axial attention", training.steps, training.sequences, training.rate}, residues, weights, net->parameters(), generator, [&](const torch::Tensor& x) {
    const auto hidden = torch::rand(x.sizes(), generator) < training.masked;
    const auto all = torch::log_softmax(net(x.masked_fill(hidden, kStates)), 2).gather(2, x.unsqueeze(2)).squeeze(2);
    return -(all * hidden).sum() / hidden.sum().clamp_min(1);
  });
  constexpr int64_t kParts = 16;
  torch::NoGradGuard no_grad;
  auto scores = torch::zeros({a.columns, a.columns}, torch::kFloat64);
  for (int64_t part = 0; part < kParts; ++part) {
    const auto of = torch::multinomial(weights, std::min(training.sequences, a.rows()), /*replacement=*/true, generator);
    const auto maps = net->maps(residues.index_select(0, of).to(torch::kInt64));
    for (int64_t h = 0; h < maps.size(0); ++h) scores += data::average_product_correction(maps[h] + maps[h].t());
  }
  return scores / double(kParts * training.heads * training.blocks);
}

torch::Tensor contact_scores(const io::Alignment& a, const torch::Tensor& weights, ContactMethod method, uint64_t seed) {
  if (a.rows() < 2 || a.columns < 2)
    throw ArgumentError("contacts: " + std::to_string(a.rows()) + " sequences of " + std::to_string(a.columns) + " columns, expected at least 2 of 2: one sequence shows no two columns that change together");
  // Everything but tied attention holds several matrices of all states of all columns at once.
  const double side = double(a.columns * kStates), needed = method == ContactMethod::kTied ? 0 : 48 * side * side, free_bytes = machine_memory().free_bytes;
  if (free_bytes > 0 && needed > free_bytes)
    throw ResourceError("contacts: " + title_of(method) + " of " + std::to_string(a.columns) + " columns needs about " + format_bytes(needed) + ", " + format_bytes(free_bytes) + " are free; leave out columns, or take tied");
  switch (method) {
    case ContactMethod::kFactored: return learn_contacts(a, weights, {}, seed);
    case ContactMethod::kTied: return learn_tied(a, weights, {}, seed);
    case ContactMethod::kPotts: return learn_potts(a, weights, potts_training(), seed);
    case ContactMethod::kCovariance: return data::average_product_correction(data::inverse_covariance(a, weights));
    case ContactMethod::kInformation: break;
  }
  return data::average_product_correction(data::mutual_information(a, weights));
}

ContactPrecision precision_of(const std::string& method, const torch::Tensor& scores, const torch::Tensor& distances, int64_t separation) {
  const auto at = [&](int64_t part) { return data::contact_precision(scores, distances, std::max<int64_t>(1, scores.size(0) / part), separation); };
  return {method, at(1), at(2), at(5)};
}

ContactPrecision chance_of(const torch::Tensor& distances, int64_t separation) {
  const double chance = data::contact_precision(torch::zeros_like(distances), distances, 0, separation);
  return {"chance", chance, chance, chance};
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
