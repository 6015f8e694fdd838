#include <algorithm>
#include <set>

#include "fovea/core/error.h"
#include "fovea/data/plan.h"
#include "fovea/data/voxels.h"

namespace fovea::data {

namespace {

std::optional<Volume> read(const std::filesystem::path& path, const char* what, std::vector<std::string>& complaints) {
  try {
    return read_volume(path, what);
  } catch (const Error& error) {
    complaints.push_back(error.what());
  } catch (const std::bad_alloc&) {
    complaints.push_back(path.string() + ": does not fit into memory");
  }
  return {};
}

bool is_constant(const Volume& image, int64_t channel) {
  bool constant = true;
  visit_channel(image, channel, [&](auto view) {
    constant = std::all_of(view.data, view.data + view.size(), [&](auto value) { return value == view.data[0]; });
  });
  return constant;
}

std::string declared_values(const std::set<int>& values) {
  std::string line;
  for (const int value : values) {
    if (line.size() > 60) return line + ", ...";
    line += (line.empty() ? "" : ", ") + std::to_string(value);
  }
  return line;
}

void check_image(const Volume& image, const std::filesystem::path& path, int64_t expected_channels,
                 std::vector<std::string>& complaints) {
  const std::string file = path.string() + ": ";
  if (image.channels != expected_channels)
    complaints.push_back(file + "image has " + std::to_string(image.channels) + " channels (4-D), expected " +
                         (expected_channels == 1 ? "a 3-D file" : std::to_string(expected_channels)));
  if (const auto bad = find_non_finite(image)) complaints.push_back(file + "image has " + to_string(*bad));
  for (int64_t c = 0; c < image.channels; ++c)
    if (is_constant(image, c))
      complaints.push_back(file + "image is constant" + (image.channels > 1 ? " in channel " + std::to_string(c) : "") +
                           ": every voxel has the same value");
}

// The grid of `other` beside that of the case's first image.
void check_grid(const Geometry& first, const std::string& first_name, const Geometry& other, const std::string& file,
                const char* what, std::vector<std::string>& complaints) {
  const auto size = [](const Geometry& g) {
    return std::to_string(g.shape[2]) + "x" + std::to_string(g.shape[1]) + "x" + std::to_string(g.shape[0]);
  };
  if (first.shape != other.shape)
    complaints.push_back(file + what + " has " + size(other) + " voxels, expected " + size(first) + " as in " +
                         first_name);
  else if (!same_place(first, other))
    complaints.push_back(file + what + " lies elsewhere than " + first_name + ": " + to_string(other) + "; expected " +
                         to_string(first));
}

void check_label(const Volume& label, const std::filesystem::path& path, const std::set<int>& declared,
                 std::vector<std::string>& complaints) {
  try {
    const auto counts = count_label_values(label, path);
    int64_t unknown_voxels = 0;
    std::string unknown;
    for (const auto& [value, count] : counts.voxels)
      if (value < 0 || value > 65535 || !declared.contains(static_cast<int>(value))) {
        unknown_voxels += count;
        if (unknown.size() < 60) unknown += (unknown.empty() ? "" : ", ") + std::to_string(value);
      }
    if (unknown_voxels)
      complaints.push_back(path.string() + ": label values " + unknown + " in " + std::to_string(unknown_voxels) +
                           " voxels are not declared; declared are " + declared_values(declared));
  } catch (const Error& error) {
    complaints.push_back(error.what());
  }
}

std::vector<std::string> check_case(const Case& one, const Dataset& dataset, const std::set<int>& declared) {
  std::vector<std::string> complaints;
  const int64_t channels = static_cast<int64_t>(dataset.channels.size()),
                files = static_cast<int64_t>(one.images.size());
  if (files != 1 && files != channels)
    complaints.push_back("has " + std::to_string(files) + " image files, expected " + std::to_string(channels) +
                         " (one a channel)");
  std::optional<Geometry> first;
  std::string first_name;
  for (const auto& path : one.images) {
    const auto image = read(path, "image", complaints);
    if (!image) continue;
    if (image->geometry.is_singular()) complaints.push_back(path.string() + ": the affine is singular");
    if (first) check_grid(*first, first_name, image->geometry, path.string() + ": ", "image", complaints);
    check_image(*image, path, files == 1 ? channels : 1, complaints);
    if (!first) first = image->geometry, first_name = path.filename().string();
  }
  if (one.label.empty()) {
    if (dataset.is_labelled()) complaints.push_back("has no label, but the dataset is labelled");
    return complaints;
  }
  const auto label = read(one.label, "label", complaints);
  if (!label) return complaints;
  if (first) check_grid(*first, first_name, label->geometry, one.label.string() + ": ", "label", complaints);
  check_label(*label, one.label, declared, complaints);
  return complaints;
}

}  // namespace

std::vector<std::string> verify(const Dataset& dataset, const ParallelFor& parallel) {
  std::set<int> declared;
  for (const auto& label : dataset.labels) declared.insert(label.values.begin(), label.values.end());
  if (dataset.ignore_label) declared.insert(*dataset.ignore_label);
  const int64_t n = static_cast<int64_t>(dataset.training.size());
  std::vector<std::vector<std::string>> by_case(n);
  parallel(n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) by_case[i] = check_case(dataset.training[i], dataset, declared);
  });
  std::vector<std::string> lines;
  if (dataset.declared_training_cases && *dataset.declared_training_cases != n)
    lines.push_back(dataset.description.string() + ": numTraining is " +
                    std::to_string(*dataset.declared_training_cases) + ", but " + std::to_string(n) +
                    " cases were found");
  std::set<std::string> ids;
  for (int64_t i = 0; i < n; ++i) {
    const std::string& id = dataset.training[i].id;
    if (!ids.insert(id).second) lines.push_back(id + ": the id occurs more than once");
    for (const auto& complaint : by_case[i]) lines.push_back(id + ": " + complaint);
  }
  return lines;
}

}  // namespace fovea::data
