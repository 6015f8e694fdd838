#include "fovea/data/plan.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <numeric>

#include "fovea/core/error.h"
#include "fovea/data/label_values.h"
#include "fovea/data/resample.h"
#include "fovea/data/voxels.h"

namespace fovea::data {

namespace {

constexpr int64_t kSamplesPerCase = 10000;

std::string triple(const auto& t) {
  const auto shown = [](auto value) {
    auto s = std::to_string(value);
    if constexpr (std::is_floating_point_v<decltype(value)>)
      s.erase(s.find_last_not_of('0') + 1), s.back() == '.' ? s.pop_back() : void();
    return s;
  };
  return shown(t[0]) + "x" + shown(t[1]) + "x" + shown(t[2]);
}

struct CaseFacts {
  std::array<double, 3> spacing_mm{};
  std::array<int64_t, 3> shape{}, cropped_shape{};
  double box_fraction = 1;
  std::vector<int64_t> class_voxels;
  std::vector<std::vector<float>> samples;  // [channel]
  std::exception_ptr failure;
};

// At most kSamplesPerCase values of the voxels in `where` (null: of all), evenly spread over them.
std::vector<float> sample_values(const Volume& image, int64_t channel, const std::vector<int64_t>* where) {
  const int64_t n = where ? static_cast<int64_t>(where->size()) : image.geometry.voxels(),
                taken = std::min(n, kSamplesPerCase);
  std::vector<float> values(taken);
  visit_channel(image, channel, [&](auto view) {
    for (int64_t i = 0; i < taken; ++i) {
      const int64_t k = i * n / taken;
      values[i] = static_cast<float>(view.data[where ? (*where)[k] : k]);
    }
  });
  return values;
}

CaseFacts gather(const Case& one, const Dataset& dataset) {
  CaseFacts facts;
  const auto images = read_images(one, static_cast<int64_t>(dataset.channels.size()));
  const Geometry& source = images.front().geometry;
  for (size_t f = 0; f < images.size(); ++f)
    if (const auto bad = find_non_finite(images[f])) throw IoError(one.images[f], "image has " + to_string(*bad));
  const Orientation o = to_canonical(source);
  const Geometry canonical = reorient(source, o);
  facts.spacing_mm = canonical.spacing_mm(), facts.shape = canonical.shape;

  Box box;
  for (const auto& image : images) box = box.united(non_zero_box(image));
  std::vector<int64_t> foreground;
  if (!one.label.empty()) {
    const auto classes = read_classes(one.label, dataset.labels);
    if (!same_place(source, classes.geometry))
      throw IoError(one.label, "its grid differs from the image's: " + to_string(classes.geometry) + "; expected " +
                                   to_string(source));
    box = box.united(non_zero_box(classes));
    facts.class_voxels.assign(dataset.labels.size(), 0);
    visit_channel(classes, 0, [&](auto view) {
      for (int64_t i = 0; i < view.size(); ++i) {
        ++facts.class_voxels[static_cast<size_t>(view.data[i])];
        if (view.data[i] != 0) foreground.push_back(i);
      }
    });
  }
  facts.box_fraction = box.voxels() ? double(box.voxels()) / double(source.voxels()) : 1;
  facts.cropped_shape = box.voxels() ? reorient(box, source.shape, o).shape : canonical.shape;
  for (const auto& image : images)
    for (int64_t c = 0; c < image.channels; ++c)
      facts.samples.push_back(sample_values(image, c, one.label.empty() ? nullptr : &foreground));
  return facts;
}

template <class T>
double quantile(std::vector<T> values, double q) {
  std::sort(values.begin(), values.end());
  const double at = q * double(values.size() - 1);
  const size_t low = static_cast<size_t>(at), high = std::min(low + 1, values.size() - 1);
  return double(values[low]) + (at - double(low)) * (double(values[high]) - double(values[low]));
}

IntensitySummary summarise(const std::string& channel, std::vector<float> values) {
  std::sort(values.begin(), values.end());
  const double n = double(values.size());
  double sum = 0, squares = 0;
  for (const float v : values) sum += v;
  for (const float v : values) squares += (v - sum / n) * (v - sum / n);
  return {channel,       values.front(), quantile(values, 0.005), quantile(values, 0.5), quantile(values, 0.995),
          values.back(), sum / n,        std::sqrt(squares / n)};
}

std::array<double, 3> target_spacing(const std::vector<CaseFacts>& all) {
  std::array<double, 3> spacing, voxels;
  std::array<std::vector<double>, 3> spacings;
  for (int a = 0; a < 3; ++a) {
    std::vector<int64_t> sizes;
    for (const auto& facts : all) spacings[a].push_back(facts.spacing_mm[a]), sizes.push_back(facts.shape[a]);
    spacing[a] = quantile(spacings[a], 0.5), voxels[a] = quantile(sizes, 0.5);
  }
  const int worst = int(std::max_element(spacing.begin(), spacing.end()) - spacing.begin());
  const int b = (worst + 1) % 3, c = (worst + 2) % 3;
  if (spacing[worst] > 3 * std::max(spacing[b], spacing[c]) && 3 * voxels[worst] < std::min(voxels[b], voxels[c]))
    spacing[worst] = std::max({quantile(spacings[worst], 0.1), spacing[b], spacing[c]});
  // Steps of 0.1 um: what a float header adds to 0.7 mm must not become part of the plan.
  for (double& s : spacing) s = std::round(s * 1e4) / 1e4;
  return spacing;
}

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

int64_t round_nearest(int64_t n, int64_t multiple) {
  return std::max(multiple, (n + multiple / 2) / multiple * multiple);
}

// median: of the scans on the plan's grid. size: all but patch and batch.
void choose_patch(const PlanOptions& options, const std::array<int64_t, 3>& median, TrainingSize size, Plan& plan) {
  const auto with = [&](const std::array<int64_t, 3>& patch, int64_t batch) {
    size.patch = patch, size.batch = batch;
    return size;
  };
  const int64_t most_voxels = options.max_step_voxels
                                  ? options.max_step_voxels
                                  : std::max<int64_t>(options.max_ram_bytes - 600'000'000, 0) / 6000;
  const auto fits = [&](const auto& patch, int64_t batch) {
    const TrainingSize asked = with(patch, batch);
    return asked.step_voxels() <= double(most_voxels) &&
           (!options.memory_bytes || options.memory_bytes(asked) <= options.max_ram_bytes);
  };
  plan.batch_size = options.batch_size.value_or(2);
  if (options.patch_size) {
    plan.patch_size = *options.patch_size;
    if (!options.batch_size && !fits(plan.patch_size, 2)) plan.batch_size = 1;
  } else {
    // One multiple along every axis leaves a network's deepest stage a single token, over which nothing can be normalised.
    const int64_t least = 4 * options.patch_multiple;
    const auto edges = [&] { return plan.patch_size[0] + plan.patch_size[1] + plan.patch_size[2]; };
    for (int a = 0; a < 3; ++a) plan.patch_size[a] = round_nearest(median[a], options.patch_multiple);
    if (edges() < least) plan.patch_size[std::max_element(median.begin(), median.end()) - median.begin()] += options.patch_multiple;
    while (edges() > least && !fits(plan.patch_size, plan.batch_size)) {
      int longest = -1;
      double longest_mm = 0;
      for (int a = 0; a < 3; ++a)
        if (const double mm = double(plan.patch_size[a]) * plan.spacing_mm[a];
            plan.patch_size[a] > options.patch_multiple && mm > longest_mm)
          longest = a, longest_mm = mm;
      if (longest < 0) break;
      plan.patch_size[longest] -= options.patch_multiple;
    }
    if (!options.batch_size && !fits(plan.patch_size, plan.batch_size)) plan.batch_size = 1;
  }
  bool holds_a_scan = true;
  for (int a = 0; a < 3; ++a) holds_a_scan = holds_a_scan && 4 * plan.patch_size[a] >= 3 * median[a];
  if (!options.batch_size && holds_a_scan) {
    const double patch_voxels = double(plan.patch_size[0]) * double(plan.patch_size[1]) * double(plan.patch_size[2]);
    const int64_t most = std::min<int64_t>(options.max_batch_size,
                                           std::max<int64_t>(2, int64_t(0.05 * size.all_scan_voxels / patch_voxels)));
    while (plan.batch_size < most && fits(plan.patch_size, plan.batch_size + 1)) ++plan.batch_size;
  }
  if (options.memory_bytes) plan.estimated_bytes = options.memory_bytes(with(plan.patch_size, plan.batch_size));
  if (plan.estimated_bytes > options.max_ram_bytes)
    throw ResourceError("plan: a " + triple(plan.patch_size) + " patch with batch " + std::to_string(plan.batch_size) +
                        " needs about " + std::to_string(plan.estimated_bytes >> 20) + " MiB, the limit is " +
                        std::to_string(options.max_ram_bytes >> 20) +
                        " MiB; raise the limit or take a smaller network, patch or batch");
}

void check_options(const Dataset& dataset, const PlanOptions& options) {
  if (dataset.training.empty()) throw ArgumentError("plan: " + dataset.root.string() + " has no training case");
  if (dataset.has_regions())
    throw ArgumentError(
        "plan: two labels of " + dataset.root.string() +
        " share a voxel value; training on overlapping regions is not supported, give each value one label");
  if (dataset.ignore_label)
    throw ArgumentError("plan: " + dataset.root.string() + " has an ignore label, which training does not support");
  if (options.patch_multiple < 1)
    throw ArgumentError("plan: patch_multiple is " + std::to_string(options.patch_multiple) + ", expected at least 1");
  if (options.batch_size && *options.batch_size < 1)
    throw ArgumentError("plan: batch size is " + std::to_string(*options.batch_size) + ", expected at least 1");
  if (options.spacing_mm)
    for (const double s : *options.spacing_mm)
      if (!(s > 0 && s < 1e3))
        throw ArgumentError("plan: spacing is " + triple(*options.spacing_mm) + " mm, expected positive numbers");
  if (options.patch_size)
    for (const int64_t edge : *options.patch_size)
      if (edge < 1 || edge % options.patch_multiple)
        throw ArgumentError("plan: patch is " + triple(*options.patch_size) + ", expected multiples of " +
                            std::to_string(options.patch_multiple) + "; " + std::to_string(std::max<int64_t>(edge, 1)) +
                            " could be " +
                            std::to_string(round_up(std::max<int64_t>(edge, 1), options.patch_multiple)));
}

}  // namespace

std::vector<std::string> Plan::label_names() const {
  std::vector<std::string> names;
  for (const auto& label : labels) names.push_back(label.name);
  return names;
}

void Plan::validate() const {
  if (orientation != "RAS") throw ArgumentError("plan: orientation is '" + orientation + "', expected RAS");
  for (const double s : spacing_mm)
    if (!(s > 0 && s < 1e3))
      throw ArgumentError("plan: spacing_mm is " + triple(spacing_mm) + ", expected positive numbers");
  for (const int64_t edge : patch_size)
    if (edge < 1 || edge > 65536)
      throw ArgumentError("plan: patch_size is " + triple(patch_size) + ", expected 1 to 65536 an edge");
  if (batch_size < 1)
    throw ArgumentError("plan: batch_size is " + std::to_string(batch_size) + ", expected at least 1");
  if (normalisation.empty()) throw ArgumentError("plan: normalisation is empty, expected one entry a channel");
  for (const auto& n : normalisation)
    if (n.scheme == Normalisation::kCt && !(n.lower < n.upper && n.deviation > 0))
      throw ArgumentError("plan: ct normalisation of channel '" + n.channel +
                          "' needs lower < upper and deviation > 0");
  ClassLookup{labels};  // refuses values out of range or shared
}

Plan make_plan(const Dataset& dataset, const PlanOptions& options) {
  check_options(dataset, options);
  const int64_t n = static_cast<int64_t>(dataset.training.size());
  std::vector<CaseFacts> all(n);
  options.parallel(n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      try {
        all[i] = gather(dataset.training[i], dataset);
      } catch (...) {
        all[i].failure = std::current_exception();
      }
    }
  });
  for (const auto& facts : all)
    if (facts.failure) std::rethrow_exception(facts.failure);

  Plan plan;
  plan.dataset = dataset.name, plan.labels = dataset.labels, plan.network = options.network,
  plan.network_config = options.network_config;
  plan.ram_budget_bytes = options.max_ram_bytes;
  plan.spacing_mm = options.spacing_mm.value_or(target_spacing(all));

  Fingerprint& print = plan.fingerprint;
  print.cases = n;
  std::vector<double> fractions;
  for (const auto& facts : all) fractions.push_back(facts.box_fraction);
  print.foreground_box_fraction = quantile(fractions, 0.5);
  const auto is_ct = [](std::string name) {
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    return name == "ct";
  };
  const bool any_ct = std::any_of(dataset.channels.begin(), dataset.channels.end(), is_ct);
  plan.crop_to_nonzero = !any_ct && print.foreground_box_fraction < 0.75;

  std::array<int64_t, 3> median_on_grid;
  std::vector<double> grid_voxels(n, 1);
  for (int a = 0; a < 3; ++a) {
    std::vector<double> spacings;
    std::vector<int64_t> sizes, on_grid;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t size = plan.crop_to_nonzero ? all[i].cropped_shape[a] : all[i].shape[a];
      spacings.push_back(all[i].spacing_mm[a]), sizes.push_back(size);
      on_grid.push_back(resampled_size(size, all[i].spacing_mm[a], plan.spacing_mm[a]));
      grid_voxels[i] *= double(on_grid.back());
    }
    print.median_spacing_mm[a] = quantile(spacings, 0.5), print.median_shape[a] = std::llround(quantile(sizes, 0.5));
    median_on_grid[a] = std::llround(quantile(on_grid, 0.5));
  }
  print.class_voxels.assign(dataset.labels.size(), 0);
  for (const auto& facts : all)
    for (size_t k = 0; k < facts.class_voxels.size(); ++k) print.class_voxels[k] += facts.class_voxels[k];

  for (size_t c = 0; c < dataset.channels.size(); ++c) {
    std::vector<float> values;
    for (const auto& facts : all) values.insert(values.end(), facts.samples[c].begin(), facts.samples[c].end());
    if (values.empty())
      throw IoError(dataset.root, "no label file has a foreground voxel, so there is nothing to learn");
    const auto summary = summarise(dataset.channels[c], std::move(values));
    print.intensities.push_back(summary);
    ChannelNormalisation normalisation;
    normalisation.channel = dataset.channels[c];
    if (is_ct(dataset.channels[c])) {
      normalisation = {dataset.channels[c],     Normalisation::kCt, summary.percentile_00_5,
                       summary.percentile_99_5, summary.mean,       summary.deviation};
      if (!(normalisation.lower < normalisation.upper && normalisation.deviation > 0))
        throw IoError(dataset.root, "the foreground of CT channel " + std::to_string(c) +
                                        " has one value only, so it cannot be normalised");
    } else if (dataset.channels[c] == "noNorm") {
      normalisation.scheme = Normalisation::kNone;
    } else {
      normalisation.scheme = plan.crop_to_nonzero ? Normalisation::kZscoreNonzero : Normalisation::kZscore;
    }
    plan.normalisation.push_back(normalisation);
  }
  TrainingSize size;
  size.channels = plan.channels(), size.classes = plan.classes();
  size.all_scan_voxels = std::accumulate(grid_voxels.begin(), grid_voxels.end(), 0.0);
  choose_patch(options, median_on_grid, size, plan);
  plan.validate();
  return plan;
}

}  // namespace fovea::data
