// A2, attention over bags: who finds the telling digit, tables of instances, and what a whole slide costs.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "fovea/core/isa.h"
#include "fovea/core/process_memory.h"
#include "fovea/io/data_folder.h"
#include "fovea/recipes/bag_tables.h"
#include "fovea/recipes/check.h"
#include "fovea/recipes/digit_bags.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using models::BagPooling;

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / double(values.size());
}

double deviation_of(const std::vector<double>& values) {
  const double mean = mean_of(values);
  double sum = 0;
  for (const double v : values) sum += (v - mean) * (v - mean);
  return values.size() < 2 ? 0 : std::sqrt(sum / double(values.size() - 1));
}

struct Cell {
  std::vector<double> auc, instance_auc;
};
using Table = std::map<std::pair<int64_t, BagPooling>, Cell>;  // by number of bags

const std::vector<BagPooling> kPoolings = {BagPooling::kAttention, BagPooling::kGated, BagPooling::kMax, BagPooling::kMean};

// A line a number of bags; what was read within positive bags only for attention.
Table digit_table(CheckResult& result, const CheckOptions& options, const std::vector<int64_t>& bags, double length, const std::string& digits,
                  const data::LabelledImages& train, const data::LabelledImages& test) {
  const int seeds = options.full ? 5 : 1;
  Table table;
  for (const int64_t count : bags) {
    std::vector<DigitBagRun> runs;
    for (int s = 0; s < seeds; ++s)
      for (const BagPooling pooling : kPoolings) {
        DigitBagRun run;
        run.pooling = pooling, run.bags.bags = count, run.bags.mean_length = length, run.bags.deviation = length / 5, run.seed = options.seed + uint64_t(s);
        runs.push_back(run);
      }
    learn_digit_bags(runs, train, test);
    std::string line = report::printed("%s, %lld bags of about %.0f, %d seed(s), AUC:", digits.c_str(), static_cast<long long>(count), length, seeds);
    for (const BagPooling pooling : kPoolings) {
      Cell& cell = table[{count, pooling}];
      for (const auto& run : runs)
        if (run.pooling == pooling) cell.auc.push_back(run.auc), cell.instance_auc.push_back(run.instance_auc);
      line += report::printed(" %s %.3f ± %.3f (telling digits %.3f);", name_of(pooling).c_str(), mean_of(cell.auc), deviation_of(cell.auc), mean_of(cell.instance_auc));
    }
    line.pop_back();
    result.notes.push_back(line);
  }
  return table;
}

void check_tables(CheckResult& result, const CheckOptions& options) {
  const std::vector<std::string> names = options.full ? std::vector<std::string>{"musk1", "elephant", "ucsb_breast_cancer"} : std::vector<std::string>{"musk1"};
  for (const auto& name : names) {
    const auto path = io::find_data("mil/" + name + ".csv");
    if (!path) {
      result.notes.push_back(name + ": not there; scripts/data mil fetches it");
      continue;
    }
    const BagTable table = read_bag_table(*path);
    std::vector<double> gated, gated_auc, mean, means;
    for (int s = 0; s < (options.full ? 5 : 1); ++s) {
      const uint64_t seed = options.seed + uint64_t(s);
      const auto found = cross_validate(table, BagPooling::kGated, seed);
      gated.push_back(found.accuracy), gated_auc.push_back(found.auc);
      if (options.full) mean.push_back(cross_validate(table, BagPooling::kMean, seed).accuracy);
      means.push_back(cross_validate_means(table, seed).accuracy);
    }
    result.notes.push_back(report::printed("%s, %lld bags, 10-fold cross-validation, %zu seed(s): gated attention accuracy %.3f ± %.3f, AUC %.3f;%s logistic regression on bag means %.3f",
                                           name.c_str(), static_cast<long long>(table.labels.size(0)), gated.size(), mean_of(gated), deviation_of(gated), mean_of(gated_auc),
                                           mean.empty() ? "" : report::printed(" mean pooling %.3f;", mean_of(mean)).c_str(), mean_of(means)));
    if (name == "musk1") result.at_least("musk1, 10-fold cross-validation: accuracy of gated attention", mean_of(gated), 0.80);
  }
}

// One bag as large as a slide: the time is a note, what memory grows by is a figure.
void check_slide_size(CheckResult& result) {
  constexpr int64_t kRows = 100'000, kFeatures = 1024;
  const torch::NoGradGuard no_grad;
  const auto rows = torch::rand({kRows, kFeatures});
  for (const std::string family : {"abmil", "clam"}) {
    auto config = models::default_bag_config(family);
    models::set_bag_sizes(config, kFeatures, 2);
    const auto network = models::make_bag_network(config);
    network->eval();
    double seconds = 0;
    const auto peak_of = [&](int64_t n) {
      release_free_memory();
      const int64_t before = resident_bytes();
      reset_peak_resident();
      const auto start = std::chrono::steady_clock::now();
      network->forward(rows.slice(0, 0, n), one_bag(n));
      seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      return double(peak_resident_bytes() - before);
    };
    const double half = peak_of(kRows / 2), whole = peak_of(kRows);
    result.at_most(family + ", 100 000 rows of 1024: memory over that of 50 000 (2: linear)", whole / half, 2.3);
    result.notes.push_back(report::printed("%s, a bag of 100 000 x 1024: %.2f s, %s beside the rows (%s, %d threads)", family.c_str(), seconds, format_bytes(whole).c_str(),
                                           name_of(chosen_isa()).c_str(), at::get_num_threads()));
  }
}
}  // namespace

CheckResult check_multiple_instance(const CheckOptions& options) {
  CheckResult result;
  if (!data::has_mnist_digits()) {
    result.notes.push_back("digits: not there; scripts/data mnist fetches them, and the figures on bags of digits need them");
    result.at_least("digits are there", 0, 1);
    return result;
  }
  const auto digits = data::read_mnist_digits();
  const auto bags = options.full ? std::vector<int64_t>{50, 100, 150, 200, 300, 400, 500} : std::vector<int64_t>{100};
  const Table table = digit_table(result, options, bags, 10, "digits", digits.train, digits.test);
  const auto at = [&](int64_t count, BagPooling pooling) { return table.at({count, pooling}); };
  for (const BagPooling pooling : {BagPooling::kAttention, BagPooling::kGated}) {
    result.at_least("100 bags of digits, " + name_of(pooling) + ": AUC", mean_of(at(100, pooling).auc), 0.94);
    result.at_least("100 bags of digits, " + name_of(pooling) + ": AUC of its weights for the telling digit", mean_of(at(100, pooling).instance_auc), 0.95);
  }
  result.at_least("100 bags of digits: gated attention less mean pooling, AUC", mean_of(at(100, BagPooling::kGated).auc) - mean_of(at(100, BagPooling::kMean).auc), 0.02);
  if (options.full) {
    result.at_least("200 bags of digits, attention: AUC of its weights for the telling digit", mean_of(at(200, BagPooling::kAttention).instance_auc), 0.98);
    result.at_least("50 bags are too few: attention gains from 50 to 500, AUC", mean_of(at(500, BagPooling::kAttention).auc) - mean_of(at(50, BagPooling::kAttention).auc), 0.05);
    for (const double length : {50.0, 100.0}) digit_table(result, options, {100}, length, "digits", digits.train, digits.test);
    const auto clothes = data::read_fashion_mnist();
    digit_table(result, options, {100, 200}, 10, "Fashion-MNIST, ankle boots", clothes.train, clothes.test);
  }
  check_tables(result, options);
  check_slide_size(result);
  return result;
}

}  // namespace fovea::recipes
