// A11: axial attention over an alignment: its axes, its cost, and which columns touch.
#include <algorithm>
#include <cmath>
#include <ctime>
#include <map>
#include <optional>

#include "fovea/core/process_memory.h"
#include "fovea/core/rng.h"
#include "fovea/data/contact_prediction.h"
#include "fovea/io/data_folder.h"
#include "fovea/models/seeded_generator.h"
#include "fovea/nn/msa_attention.h"
#include "fovea/ops/attention.h"
#include "fovea/ops/axial_attention.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/contacts.h"
#include "fovea/recipes/log_slope.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/recipes/stages.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using nn::MsaAttention;
using nn::MsaAttentionOptions;
using nn::Over;
using report::printed;

double largest(const torch::Tensor& t) { return t.abs().max().item<double>(); }

void check_axes(CheckResult& result, uint64_t seed) {
  torch::NoGradGuard no_grad;
  const models::SeededGenerator seeded(seed);
  const auto x = torch::randn({2, 12, 17, 32});
  MsaAttention sequences(MsaAttentionOptions(32, 4, Over::kSequences)), residues(MsaAttentionOptions(32, 4, Over::kResidues)), tied(MsaAttentionOptions(32, 4, Over::kResidues).tied(true));
  const auto order = torch::randperm(12);
  result.at_most("sequences in another order: what attention over sequences gives, in that order, largest difference",
                 largest(sequences(x.index_select(1, order)) - sequences(x).index_select(1, order)), 1e-5);
  result.at_most("the same of tied attention over residues", largest(tied(x.index_select(1, order)) - tied(x).index_select(1, order)), 1e-5);
  // Each sequence (column) alone is what a memory-saving path computes.
  std::vector<torch::Tensor> by_sequence, by_column;
  for (int64_t r = 0; r < 12; r += 5) by_sequence.push_back(residues(x.slice(1, r, std::min<int64_t>(r + 5, 12))));
  for (int64_t i = 0; i < 17; i += 5) by_column.push_back(sequences(x.slice(2, i, std::min<int64_t>(i + 5, 17))));
  result.at_most("over residues, five sequences at a time against all at once", largest(torch::cat(by_sequence, 1) - residues(x)), 1e-6);
  result.at_most("over sequences, five columns at a time against all at once", largest(torch::cat(by_column, 2) - sequences(x)), 1e-6);
}

// Processor seconds, best of several; on one thread.
template <class Run>
double best_seconds(int repeats, const Run& run) {
  double best = INFINITY;
  for (int i = 0; i < repeats; ++i) {
    const auto begin = std::clock();
    run();
    best = std::min(best, double(std::clock() - begin) / CLOCKS_PER_SEC);
  }
  return best;
}

// Seconds of attention of all cells of an alignment of n x l with all, (NL)^2, and along both axes, NL(N + L).
struct Costs {
  double all, axial;
};
Costs measure_cost(int64_t n, int64_t l, int repeats) {
  constexpr int64_t kHeads = 1, kChannels = 16;
  const auto qkv = torch::randn({1, n, l, 3, kHeads, kChannels});
  const auto part = [&](int64_t which) { return qkv.select(3, which).reshape({1, n * l, kHeads, kChannels}).transpose(1, 2).contiguous(); };
  const auto q = part(0), k = part(1), v = part(2);
  const double all = best_seconds(repeats, [&] { ops::attention(q, k, v); });
  const double axial = best_seconds(repeats, [&] {
    for (int i = 0; i < 10; ++i) ops::axial_attention(qkv, "residues"), ops::axial_attention(qkv, "sequences");
  });
  return {all, axial / 10};
}

void check_cost(CheckResult& result, bool full) {
  for (const auto& [n, l, claimed] : {std::array<double, 3>{128, 256, 85}, {512, 256, 171}, {1024, 1024, 512}})
    result.equal(printed("%.0f x %.0f cells: pairs of all with all over those along both axes, rounded", n, l), std::round(n * l / (n + l)), claimed);
  torch::NoGradGuard no_grad;
  const OneThread one_thread;
  const int repeats = full ? 20 : 7;
  std::vector<double> edges, all_seconds, axial_seconds;
  for (const int64_t n : {24, 32, 48, 64}) {
    const auto [all, axial] = measure_cost(n, n, repeats);
    edges.push_back(double(n)), all_seconds.push_back(all), axial_seconds.push_back(axial);
  }
  const double all = log_slope(edges, all_seconds), axial = log_slope(edges, axial_seconds);
  result.at_most("n x n cells: time exponent of all with all in n, distance from 4", std::abs(all - 4), 0.5);
  result.at_most("the same along both axes, above 3", axial - 3, 0.5);
  result.at_least("64 x 64 cells: time of all with all over that along both axes (pairs: 32)", all_seconds.back() / axial_seconds.back(), 4);
  result.notes.push_back(printed("time exponents in n, n x n cells, n = 24 to 64, one thread: all with all %.2f, along both axes %.2f; %.1f times at 64", all, axial,
                                 all_seconds.back() / axial_seconds.back()));
  for (const auto& [n, l] : {std::pair<int64_t, int64_t>{16, 128}, {128, 16}, {64, 128}}) {
    const auto [all_s, axial_s] = measure_cost(n, l, 3);
    result.notes.push_back(printed("%lld sequences of %lld columns, one thread: all with all %.1f ms, along both axes %.2f ms, %.0f times (pairs: %.0f)", static_cast<long long>(n), static_cast<long long>(l),
                                   1e3 * all_s, 1e3 * axial_s, all_s / axial_s, double(n * l) / double(n + l)));
  }
}

// 10^5 sequences: weights, statistics and training read them part by part.
void check_many_sequences(CheckResult& result, bool full, uint64_t seed) {
  const int64_t sequences = full ? 100'000 : 20'000;
  constexpr int64_t kColumns = 64;
  io::Alignment a;
  a.format = "simulated", a.columns = kColumns, a.names.assign(size_t(sequences), "");
  Rng rng(seed, 0, 0);
  a.residues.resize(size_t(sequences * kColumns));
  for (uint8_t& residue : a.residues) residue = uint8_t(rng.below(21));
  ContactTraining training;
  training.heads = 16, training.steps = 5;
  learn_contacts(a, torch::ones({sequences}, torch::kFloat64), training, seed);  // what does not grow with the sequences
  data::inverse_covariance(a, torch::ones({sequences}, torch::kFloat64));
  release_free_memory();
  const int64_t before = resident_bytes();
  if (before == 0 || !reset_peak_resident()) return void(result.notes.push_back("memory of many sequences not checked: this system does not tell it"));
  const auto weights = data::sequence_weights(a);
  data::inverse_covariance(a, weights);
  learn_contacts(a, weights, training, seed);
  const double mib = double(peak_resident_bytes() - before) / (1 << 20), hot = double(sequences * kColumns * 21 * 4) / (1 << 20);
  result.at_most(printed("%lld sequences of %lld columns (simulated): memory of weights, inverse covariance and attention over that of the states of all residues as 0 and 1 (%.0f MiB)",
                         static_cast<long long>(sequences), static_cast<long long>(kColumns), hot), mib / hot, full ? 0.3 : 1.5);
}

std::string told(const ContactPrecision& p) { return printed("%s %.3f/%.3f/%.3f", p.method.c_str(), p.at_l, p.at_half, p.at_fifth); }

constexpr ContactMethod kMethods[] = {ContactMethod::kFactored, ContactMethod::kTied, ContactMethod::kPotts, ContactMethod::kCovariance, ContactMethod::kInformation};

struct Family {
  std::string name, file;
};
const Family kFamilies[] = {{"PF00014", "PF00014_mgap6.fasta.gz"}, {"PF00595", "PF00595_mgap6.fasta.gz"}, {"PF13354", "PF13354_wo_ref_seqs.fasta.gz"}};

// Precision at L of each of kMethods, at 6 and at 24 or more apart; none without data.
struct FamilyPrecision {
  std::map<ContactMethod, double> near, far;
};
std::optional<FamilyPrecision> measure_family(CheckResult& result, const Family& family, uint64_t seed) {
  const std::string folder = "ardca-msa/" + family.name + "/";
  const auto path = io::find_data(folder + family.file), distances_path = io::find_data(folder + family.name + "_struct.dat");
  if (!path || !distances_path) {
    result.notes.push_back(family.name + " not checked: " + (io::data_folder() / folder / family.file).string() + " is not there; docs/how-to/alignments.md says where it comes from");
    return {};
  }
  const auto alignment = io::read_alignment(*path);
  const auto weights = data::sequence_weights(alignment), distances = data::read_distances(*distances_path, alignment.columns);
  std::map<ContactMethod, torch::Tensor> scores;
  std::string times;
  for (const ContactMethod method : kMethods) {
    Stages stages;
    scores[method] = stages.run("", [&] { return contact_scores(alignment, weights, method, seed); });
    times += (times.empty() ? "" : ", ") + title_of(method) + printed(" %.0f s", stages.total());
  }
  FamilyPrecision found;
  for (const int64_t separation : {6, 24}) {
    std::string line = printed("%s, %lld sequences of %lld columns, pairs %lld or more apart, precision at L/L2/L5: ", family.name.c_str(), static_cast<long long>(alignment.rows()),
                               static_cast<long long>(alignment.columns), static_cast<long long>(separation));
    for (const ContactMethod method : kMethods) {
      const auto precision = precision_of(title_of(method), scores[method], distances, separation);
      (separation == 6 ? found.near : found.far)[method] = precision.at_l;
      line += told(precision) + "; ";
    }
    result.notes.push_back(line + printed("chance %.3f", chance_of(distances, separation).at_l));
  }
  result.notes.push_back(family.name + " took: " + times);
  return found;
}

void check_families(CheckResult& result, const CheckOptions& options) {
  int measured = 0, reached = 0;
  for (const Family& family : kFamilies) {
    if (!options.full && &family != kFamilies) break;
    const auto found = measure_family(result, family, options.seed);
    if (!found) continue;
    ++measured;
    const double factored = found->near.at(ContactMethod::kFactored);
    reached += factored >= found->near.at(ContactMethod::kPotts);
    result.at_least(family.name + ", 6 or more apart: precision of factored attention at L, less that of mutual information", factored - found->near.at(ContactMethod::kInformation), 0);
    if (family.name != "PF13354") continue;
    const double far = found->far.at(ContactMethod::kFactored);
    result.at_least("PF13354, 24 or more apart: precision of factored attention at L, less that of mutual information", far - found->far.at(ContactMethod::kInformation), 0);
    result.at_least("PF13354, 24 or more apart: the same less that of the inverse covariance", far - found->far.at(ContactMethod::kCovariance), -0.05);
  }
  if (measured == 3) result.at_least("families of three in which factored attention is at or above the Potts model, at L pairs 6 or more apart", reached, 2);
  else if (!options.full) result.notes.push_back("PF00595 and PF13354 need --full");
}
}  // namespace

CheckResult check_alignments(const CheckOptions& options) {
  CheckResult result;
  check_axes(result, options.seed);
  check_cost(result, options.full);
  check_many_sequences(result, options.full, options.seed);
  double worst = 1;
  for (uint64_t seed = options.seed; seed < options.seed + (options.full ? 5 : 1); ++seed) {
    const auto family = draw_potts_family(24, seed);
    const auto weights = data::sequence_weights(family.alignment);
    std::string line = printed("simulated Potts model, seed %llu, precision at L/L2/L5: ", static_cast<unsigned long long>(seed));
    for (const ContactMethod method : {ContactMethod::kFactored, ContactMethod::kPotts, ContactMethod::kCovariance, ContactMethod::kInformation}) {
      const auto precision = precision_of(title_of(method), contact_scores(family.alignment, weights, method, seed), family.distances, 1);
      if (method == ContactMethod::kFactored) worst = std::min(worst, precision.at_l);
      line += told(precision) + "; ";
    }
    result.notes.push_back(line + printed("chance %.3f", chance_of(family.distances, 1).at_l));
  }
  result.at_least("simulated Potts model: precision of factored attention at L", worst, 0.9);
  check_families(result, options);
  return result;
}

}  // namespace fovea::recipes
