#include "fovea/recipes/bag_tables.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "fovea/core/error.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/io/csv.h"
#include "fovea/recipes/two_at_a_time.h"
#include "fovea/train/classification_metrics.h"
#include "fovea/train/logistic_regression.h"

namespace fovea::recipes {

namespace {
constexpr int64_t kFolds = 10, kEpochs = 40;

// Features on the mean and deviation of the bags that are learnt from.
torch::Tensor standardised(const BagTable& table, const std::vector<int64_t>& learnt) {
  std::vector<torch::Tensor> rows;
  for (const int64_t b : learnt) rows.push_back(table.rows.slice(0, table.offsets[b].item<int64_t>(), table.offsets[b + 1].item<int64_t>()));
  const auto seen = torch::cat(rows);
  return (table.rows - seen.mean(0)) / seen.std(0, /*unbiased=*/false).clamp_min(1e-6);
}

std::vector<int64_t> without(const std::vector<std::vector<int64_t>>& folds, size_t left_out) {
  std::vector<int64_t> rest;
  for (size_t f = 0; f < folds.size(); ++f)
    if (f != left_out) rest.insert(rest.end(), folds[f].begin(), folds[f].end());
  return rest;
}

CrossValidation judged(const BagTable& table, const std::vector<double>& logit) {
  CrossValidation result;
  std::vector<bool> label;
  for (int64_t b = 0; b < table.labels.size(0); ++b) {
    label.push_back(table.labels[b].item<int64_t>() == 1);
    result.accuracy += (logit[size_t(b)] > 0) == label.back();
  }
  result.accuracy /= double(label.size());
  result.auc = train::roc_auc(logit, label);
  return result;
}
}  // namespace

BagTable read_bag_table(const std::filesystem::path& path) {
  const io::CsvTable csv = io::read_csv(path);
  const size_t label_column = csv.column("label"), bag_column = csv.column("bag");
  const auto labels = csv.numbers(label_column);
  std::vector<size_t> features;
  for (size_t c = 0; c < csv.columns().size(); ++c)
    if (c != label_column && c != bag_column) features.push_back(c);
  if (features.empty() || csv.rows() == 0) throw IoError(path, "has " + std::to_string(csv.rows()) + " rows and " + std::to_string(features.size()) + " features, expected at least one of each");
  std::vector<std::string> names;  // of bags, as they come
  std::map<std::string, std::vector<int64_t>> rows_of;
  for (size_t r = 0; r < csv.rows(); ++r) {
    const std::string& name = csv.cell(r, bag_column);
    auto& rows = rows_of[name];
    if (rows.empty()) names.push_back(name);
    if (labels[r] != 0 && labels[r] != 1) throw IoError(path, "row " + std::to_string(r + 1) + " of bag '" + name + "' has the label " + csv.cell(r, label_column) + ", expected 0 or 1");
    if (!rows.empty() && labels[size_t(rows[0])] != labels[r]) throw IoError(path, "bag '" + name + "' has rows of both labels, expected one label a bag");
    rows.push_back(int64_t(r));
  }
  auto values = torch::empty({int64_t(csv.rows()), int64_t(features.size())}, torch::kFloat32);
  for (size_t i = 0; i < features.size(); ++i) {
    const auto column = csv.numbers(features[i]);
    for (size_t r = 0; r < column.size(); ++r)
      if (!std::isfinite(column[r])) throw IoError(path, "row " + std::to_string(r + 1) + ", column " + csv.columns()[features[i]] + " is no finite number");
    values.select(1, int64_t(i)).copy_(torch::tensor(column));
  }
  std::vector<int64_t> order, offsets{0}, label;
  for (const auto& name : names) {
    const auto& rows = rows_of[name];
    order.insert(order.end(), rows.begin(), rows.end());
    offsets.push_back(int64_t(order.size())), label.push_back(int64_t(labels[size_t(rows[0])]));
  }
  return {values.index_select(0, torch::tensor(order)), torch::tensor(offsets), torch::tensor(label)};
}

CrossValidation cross_validate(const BagTable& table, models::BagPooling pooling, uint64_t seed) {
  const auto folds = stratified_folds(table.labels, kFolds, seed);
  std::vector<models::BagNetwork> networks;
  for (size_t f = 0; f < folds.size(); ++f)
    networks.push_back(models::make_bag_network(models::AbmilConfig{.features = table.rows.size(1), .embed = {256, 128, 64}, .hidden = 64, .pooling = pooling}, seed + f));
  std::vector<double> logit(size_t(table.labels.size(0)));
  two_at_a_time(folds.size(), [&](size_t f) {
    const auto learnt = without(folds, f);
    const auto rows = standardised(table, learnt);
    const BagTask task{[&](int64_t b) { return rows.slice(0, table.offsets[b].item<int64_t>(), table.offsets[b + 1].item<int64_t>()); }, table.labels};
    BagFitOptions options;
    options.epochs = kEpochs, options.weight_decay = 5e-3, options.learning_rate = 2e-4, options.seed = seed;
    fit_bags(*networks[f], task, learnt, {}, options);
    const torch::NoGradGuard no_grad;
    for (const int64_t b : folds[f]) {
      const auto bag = task.rows(b);
      logit[size_t(b)] = networks[f]->forward(bag, one_bag(bag.size(0))).logits.item<double>();
    }
  });
  return judged(table, logit);
}

CrossValidation cross_validate_means(const BagTable& table, uint64_t seed) {
  const auto folds = stratified_folds(table.labels, kFolds, seed);
  std::vector<double> logit(size_t(table.labels.size(0)));
  for (size_t f = 0; f < folds.size(); ++f) {
    const auto learnt = without(folds, f);
    const auto means = torch::segment_reduce(table.rows.to(torch::kFloat64), "mean", table.offsets.diff());
    const auto at = torch::tensor(learnt), left_out = torch::tensor(folds[f]);
    const auto seen = means.index_select(0, at);
    const auto x = (means - seen.mean(0)) / seen.std(0, /*unbiased=*/false).clamp_min(1e-9);
    const auto model = train::fit_logistic(x.index_select(0, at), table.labels.index_select(0, at), 2, 0.1);
    const auto logits = model.logits(x.index_select(0, left_out));
    for (size_t i = 0; i < folds[f].size(); ++i) logit[size_t(folds[f][i])] = (logits[int64_t(i)][1] - logits[int64_t(i)][0]).item<double>();
  }
  return judged(table, logit);
}

}  // namespace fovea::recipes
