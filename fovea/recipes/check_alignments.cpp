// A11: axial attention over an alignment: its axes, its cost, and which columns touch.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

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

// Seconds, best of several; on one thread.
template <class Run>
double best_seconds(int repeats, const Run& run) {
  double best = INFINITY;
  for (int i = 0; i < repeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    run();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

// Alignments of n sequences by n columns: all cells with all cells, (NL)^2, against along both axes, NL(N + L).
void check_cost(CheckResult& result, bool full) {
  for (const auto& [n, l, claimed] : {std::array<double, 3>{128, 256, 85}, {512, 256, 171}, {1024, 1024, 512}})
    result.equal(printed("%.0f x %.0f cells: pairs of all with all over those along both axes, rounded", n, l), std::round(n * l / (n + l)), claimed);
  torch::NoGradGuard no_grad;
  const OneThread one_thread;
  constexpr int64_t kHeads = 1, kChannels = 16;
  std::vector<double> edges, all_seconds, axial_seconds;
  for (const int64_t n : {24, 32, 48, 64}) {
    const auto qkv = torch::randn({1, n, n, 3, kHeads, kChannels});
    const auto part = [&](int64_t which) { return qkv.select(3, which).reshape({1, n * n, kHeads, kChannels}).transpose(1, 2).contiguous(); };
    const auto q = part(0), k = part(1), v = part(2);
    const int repeats = full ? 20 : 7;
    edges.push_back(double(n));
    all_seconds.push_back(best_seconds(repeats, [&] { ops::attention(q, k, v); }));
    axial_seconds.push_back(best_seconds(repeats, [&] {
      for (int i = 0; i < 10; ++i) ops::axial_attention(qkv, "residues"), ops::axial_attention(qkv, "sequences");
    }) / 10);
  }
  const double all = log_slope(edges, all_seconds), axial = log_slope(edges, axial_seconds);
  result.at_most("n x n cells: time exponent of all with all in n, distance from 4", std::abs(all - 4), 0.5);
  result.at_most("the same along both axes, above 3", axial - 3, 0.5);
  result.at_least("64 x 64 cells: time of all with all over that along both axes (pairs: 32)", all_seconds.back() / axial_seconds.back(), 4);
  result.notes.push_back(printed("time exponents in n, n x n cells, n = 24 to 64, one thread: all with all %.2f, along both axes %.2f; %.1f times at 64", all, axial,
                                 all_seconds.back() / axial_seconds.back()));
}

std::string told(const ContactPrecision& p) { return printed("%s %.3f/%.3f/%.3f", p.method.c_str(), p.at_l, p.at_half, p.at_fifth); }

// Whether factored attention is at or above the Potts model, at L pairs 6 or more apart; none without data.
std::optional<bool> check_family(CheckResult& result, const std::string& family, const std::string& file, const CheckOptions& options) {
  const auto path = io::find_data("ardca-msa/" + family + "/" + file), distances_path = io::find_data("ardca-msa/" + family + "/" + family + "_struct.dat");
  if (!path || !distances_path) {
    result.notes.push_back(family + " not checked: " + (io::data_folder() / "ardca-msa" / family / file).string() + " is not there; docs/how-to/alignments.md says where it comes from");
    return {};
  }
  const auto alignment = io::read_alignment(*path);
  const auto weights = data::sequence_weights(alignment), distances = data::read_distances(*distances_path, alignment.columns);
  ContactTraining training;
  const auto learned = learn_contacts(alignment, weights, training, options.seed);
  ContactTraining free = training;
  free.steps = 300, free.rate = 1e-2, free.l2 = 1e-2;
  const auto potts = learn_potts(alignment, weights, free, options.seed);
  double attention_far = 0, information_far = 0, attention_near = 0, potts_near = 0;
  for (const int64_t separation : {6, 24}) {
    auto table = compare_contacts(alignment, weights, distances, separation, learned);
    const ContactPrecision free_potts = precision_of("Potts pseudolikelihood", potts, distances, separation);
    table.insert(table.begin() + 1, free_potts);
    std::string line = printed("%s, %lld sequences of %lld columns, pairs %lld or more apart, precision at L, L/2, L/5: ", family.c_str(), static_cast<long long>(alignment.rows()),
                               static_cast<long long>(alignment.columns), static_cast<long long>(separation));
    for (const auto& p : table) line += (&p == &table[0] ? "" : "; ") + told(p);
    result.notes.push_back(line);
    if (separation == 6) attention_near = table[0].at_l, potts_near = free_potts.at_l;
    else attention_far = table[0].at_l, information_far = table[3].at_l;
  }
  if (family == "PF13354") result.at_least("PF13354, 24 or more apart: precision of factored attention at L, less that of mutual information", attention_far - information_far, 0);
  return attention_near >= potts_near;
}
}  // namespace

CheckResult check_alignments(const CheckOptions& options) {
  CheckResult result;
  check_axes(result, options.seed);
  check_cost(result, options.full);
  double worst = 1;
  for (uint64_t seed = options.seed; seed < options.seed + (options.full ? 5 : 1); ++seed) {
    const auto family = draw_potts_family(24, seed);
    const auto weights = data::sequence_weights(family.alignment);
    ContactTraining training;
    training.heads = 16, training.channels = 8, training.steps = 300, training.rate = 2e-2;
    const auto table = compare_contacts(family.alignment, weights, family.distances, 1, learn_contacts(family.alignment, weights, training, seed));
    worst = std::min(worst, table[0].at_l);
    result.notes.push_back(printed("simulated Potts model, seed %llu, precision at L, L/2, L/5: ", static_cast<unsigned long long>(seed)) + told(table[0]) + "; " + told(table[1]) + "; " +
                           told(table[2]) + printed("; chance %.3f", table.back().at_l));
  }
  result.at_least("simulated Potts model: precision of factored attention at L", worst, 0.9);
  if (!options.full) {
    result.notes.push_back("the families PF00014, PF00595 and PF13354 need --full");
    return result;
  }
  const auto first = check_family(result, "PF00014", "PF00014_mgap6.fasta.gz", options), second = check_family(result, "PF00595", "PF00595_mgap6.fasta.gz", options), third = check_family(result, "PF13354", "PF13354_wo_ref_seqs.fasta.gz", options);
  if (first && second && third) result.at_least("families of three in which factored attention is at or above the Potts model", double(*first) + double(*second) + double(*third), 2);
  return result;
}

}  // namespace fovea::recipes
