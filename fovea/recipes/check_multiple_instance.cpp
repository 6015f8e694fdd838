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
#include "fovea/recipes/planted_tumour.h"
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
    const int seeds = options.full ? 5 : 1;
    std::string line = report::printed("%s, %lld bags, 10-fold cross-validation, %d seed(s), AUC (accuracy):", name.c_str(), static_cast<long long>(table.labels.size(0)), seeds);
    const auto add = [&](const std::string& method, const auto& run) {
      std::vector<double> auc, accuracy;
      for (int s = 0; s < seeds; ++s) {
        const CrossValidation found = run(options.seed + uint64_t(s));
        auc.push_back(found.auc), accuracy.push_back(found.accuracy);
      }
      line += report::printed(" %s %.3f ± %.3f (%.3f);", method.c_str(), mean_of(auc), deviation_of(auc), mean_of(accuracy));
      return mean_of(accuracy);
    };
    for (const BagPooling pooling : options.full ? kPoolings : std::vector<BagPooling>{BagPooling::kGated}) {
      const double accuracy = add(name_of(pooling), [&](uint64_t seed) { return cross_validate(table, pooling, seed); });
      if (name == "musk1" && pooling == BagPooling::kGated) result.at_least("musk1, 10-fold cross-validation: accuracy of gated attention", accuracy, 0.80);
    }
    add("logistic regression on bag means", [&](uint64_t seed) { return cross_validate_means(table, seed); });
    line.pop_back();
    result.notes.push_back(line);
  }
}

// Simulated slides through OpenSlide: does the attention of a network that knows slides' labels alone find the tumour?
void check_planted_tumour(CheckResult& result, const CheckOptions& options) {
  const auto networks = options.full ? std::vector<SlideNetwork>{SlideNetwork::kAbmil, SlideNetwork::kClamSb, SlideNetwork::kClamMb, SlideNetwork::kTransmil, SlideNetwork::kMax}
                                     : std::vector<SlideNetwork>{SlideNetwork::kAbmil};
  const int seeds = options.full ? 5 : 1;
  for (const SlideNetwork network : networks)
    for (const bool shuffled : {false, true}) {
      if (shuffled && (network != SlideNetwork::kAbmil || !options.full)) continue;
      std::vector<double> slide, mean, tile, stain, top;
      double seconds = 0;
      for (int s = 0; s < seeds; ++s) {
        PlantedTumourRun run;
        run.network = network, run.shuffled = shuffled, run.seed = options.seed + uint64_t(s);
        learn_planted_tumour(run);
        slide.push_back(run.slide_auc), mean.push_back(run.mean_auc), tile.push_back(run.tile_auc), stain.push_back(run.stain_auc), top.push_back(run.top_percent), seconds += run.seconds;
      }
      result.notes.push_back(report::printed("simulated slides, planted tumour, %s%s, %d seed(s): AUC of slides %.3f ± %.3f (logistic regression on the mean tile %.3f), of tiles by attention %.3f ± %.3f (by haematoxylin "
                                             "alone %.3f), tumour in the top 1 %% %.3f; %.0f s a seed",
                                             name_of(network).c_str(), shuffled ? ", labels shuffled" : "", seeds, mean_of(slide), deviation_of(slide), mean_of(mean), mean_of(tile), deviation_of(tile), mean_of(stain),
                                             mean_of(top), seconds / seeds));
      if (network != SlideNetwork::kAbmil || shuffled) continue;
      result.at_least("simulated slides: share of the top 1 % of attention that lies on the planted tumour", mean_of(top), 0.9);
      result.at_least("simulated slides: AUC of the attention, tumour tiles against others", mean_of(tile), 0.9);
      result.at_least("simulated slides: AUC of slides that were not seen", mean_of(slide), 0.9);
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
  check_planted_tumour(result, options);
  check_tables(result, options);
  check_slide_size(result);
  return result;
}

}  // namespace fovea::recipes
