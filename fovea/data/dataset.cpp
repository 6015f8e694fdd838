#include "fovea/data/dataset.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"
#include "fovea/data/patch_sampler.h"
#include "fovea/data/voxels.h"
#include "fovea/io/json_file.h"

namespace fovea::data {

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

namespace {

constexpr const char* kEndings[] = {".nii.gz", ".nii", ".nrrd", ".nhdr"};

// A value from a file as it is put into a message: one line, short, control characters escaped.
std::string shown(const json& value) {
  const std::string text = value.dump();
  return text.size() > 120 ? text.substr(0, 117) + "..." : text;
}

// ROOT/relative as a path that stays inside ROOT, or an IoError that blames `said_by`.
class Folder {
 public:
  Folder(fs::path root, bool follow_links) : root_(std::move(root)), follow_links_(follow_links) {
    std::error_code failed;
    canonical_ = fs::canonical(root_, failed);
    if (failed || !fs::is_directory(canonical_)) throw IoError(root_, "no such folder");
  }

  const fs::path& root() const { return root_; }

  fs::path inside(const std::string& relative, const fs::path& said_by) const {
    const fs::path path(relative);
    const fs::path normal = path.lexically_normal();
    if (relative.empty() || relative.find('\0') != std::string::npos)
      throw IoError(said_by, "an empty path or one with a NUL byte, expected a file inside the dataset folder");
    if (path.is_absolute() || *normal.begin() == "..")
      throw IoError(said_by, "path " + shown(relative) +
                                 " leaves the dataset folder; expected a path relative to it, without ..");
    if (!follow_links_) {
      std::error_code failed;
      const fs::path real = fs::weakly_canonical(canonical_ / normal, failed);
      if (failed) throw IoError(said_by, "path " + shown(relative) + " cannot be followed: " + failed.message());
      if (std::mismatch(canonical_.begin(), canonical_.end(), real.begin(), real.end()).first != canonical_.end())
        throw IoError(said_by,
                      shown(relative) + " is a symbolic link out of the dataset folder; copy the file or allow links");
    }
    return root_ / normal;
  }

 private:
  fs::path root_, canonical_;
  bool follow_links_;
};

std::string ending_of(const std::string& name) {
  for (const char* ending : kEndings)
    if (name.size() > std::string_view(ending).size() && name.ends_with(ending)) return ending;
  return {};
}

std::string without_ending(const std::string& name) { return name.substr(0, name.size() - ending_of(name).size()); }

// "case_0003" -> {"case", 3}; nothing when there is no such suffix.
std::optional<std::pair<std::string, int>> split_channel(const std::string& stem) {
  if (stem.size() < 6 || stem[stem.size() - 5] != '_') return {};
  int channel = 0;
  const char* end = stem.data() + stem.size();
  const auto [stop, error] = std::from_chars(end - 4, end, channel);
  if (error != std::errc() || stop != end || channel < 0) return {};
  return std::pair(stem.substr(0, stem.size() - 5), channel);
}

std::string channel_suffix(size_t channel) {
  const std::string digits = std::to_string(channel);
  return "_" + std::string(digits.size() < 4 ? 4 - digits.size() : 0, '0') + digits;
}

// Names of the image files of a folder, sorted; empty when there is no such folder. Hidden files ("._x.nii.gz") are
// left out.
std::vector<std::string> image_names(const fs::path& folder, const std::string& ending) {
  std::vector<std::string> names;
  if (!fs::is_directory(folder)) return names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.front() == '.' || entry.is_directory()) continue;
    if (ending.empty() ? !ending_of(name).empty() : name.ends_with(ending) && name.size() > ending.size())
      names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

int integer(const json& value, const fs::path& file, const std::string& where) {
  int number = 0;
  if (value.is_number_integer()) {
    const auto wide = value.get<int64_t>();
    if (wide >= 0 && wide <= 65535) return static_cast<int>(wide);
  } else if (value.is_string()) {
    const auto text = value.get<std::string>();
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && stop == text.data() + text.size() && number >= 0 && number <= 65535) return number;
  }
  throw IoError(file, where + " is " + shown(value) + ", expected an integer from 0 to 65535");
}

std::string text(const json& value, const fs::path& file, const std::string& where) {
  if (!value.is_string()) throw IoError(file, where + " is " + shown(value) + ", expected a text");
  return value.get<std::string>();
}

// {"0": "MRI", "1": "CT"} by number, or ["MRI", "CT"], or "MRI".
std::vector<std::string> read_channels(const json& value, const fs::path& file, const std::string& key) {
  std::map<int, std::string> by_number;
  if (value.is_string()) return {value.get<std::string>()};
  if (value.is_array())
    for (const auto& name : value) by_number[int(by_number.size())] = text(name, file, key);
  else if (value.is_object())
    for (const auto& [number, name] : value.items())
      by_number[integer(number, file, key + " number")] = text(name, file, key + "." + number);
  if (by_number.empty())
    throw IoError(file, key + " is " + shown(value) + ", expected {\"0\": \"name of the channel\", ...}");
  std::vector<std::string> names;
  for (const auto& [number, name] : by_number) {
    if (number != int(names.size())) throw IoError(file, key + " lacks channel " + std::to_string(names.size()));
    names.push_back(name);
  }
  return names;
}

// nnU-Net {"name": 1} or {"name": [1, 2]}; Decathlon {"1": "name"}.
void read_labels(const json& value, const fs::path& file, Dataset& dataset) {
  if (!value.is_object() || value.empty())
    throw IoError(file, "labels is " + shown(value) + ", expected {\"background\": 0, ...}");
  for (const auto& [key, entry] : value.items()) {
    if (entry.is_string()) {
      dataset.labels.push_back({entry.get<std::string>(), {integer(key, file, "labels key")}});
    } else if (entry.is_array() && !entry.empty()) {
      LabelClass label{key, {}};
      for (const auto& one : entry) label.values.push_back(integer(one, file, "labels." + key));
      dataset.labels.push_back(label);
    } else if (key == "ignore") {
      dataset.ignore_label = integer(entry, file, "labels.ignore");
    } else {
      dataset.labels.push_back({key, {integer(entry, file, "labels." + key)}});
    }
  }
  std::stable_sort(dataset.labels.begin(), dataset.labels.end(),
                   [](const LabelClass& a, const LabelClass& b) { return a.values.front() < b.values.front(); });
  if (dataset.labels.empty() || dataset.labels.front().values.front() != 0)
    throw IoError(file, "labels has no name for value 0, expected the background there");
}

void sort_cases(std::vector<Case>& cases) {
  std::stable_sort(cases.begin(), cases.end(), [](const Case& a, const Case& b) { return a.id < b.id; });
}

// imagesTr-like folder with nnU-Net's channel suffixes; cases that only have a label are listed too.
std::vector<Case> channelled_cases(const Folder& folder, const std::string& images, const std::string& labels,
                                   const std::string& ending, size_t channels) {
  std::set<std::string> ids;
  for (const auto& name : image_names(folder.root() / images, ending))
    if (const auto split = split_channel(name.substr(0, name.size() - ending.size()))) ids.insert(split->first);
  const bool labelled = !labels.empty() && fs::is_directory(folder.root() / labels);
  if (labelled)
    for (const auto& name : image_names(folder.root() / labels, ending))
      ids.insert(name.substr(0, name.size() - ending.size()));
  std::vector<Case> cases;
  for (const auto& id : ids) {
    Case one{id, {}, {}};
    for (size_t c = 0; c < channels; ++c)
      one.images.push_back(folder.inside(images + "/" + id + channel_suffix(c) + ending, folder.root() / images));
    if (labelled) one.label = folder.inside(labels + "/" + id + ending, folder.root() / labels);
    cases.push_back(std::move(one));
  }
  return cases;
}

// Folder whose images and labels share their names; cases that only have a label are listed too.
std::vector<Case> plain_cases(const Folder& folder, const std::string& images, const std::string& labels) {
  std::map<std::string, Case> cases;
  for (const auto& name : image_names(folder.root() / images, "")) {
    const auto id = without_ending(name);
    cases[id].id = id;
    cases[id].images.push_back(folder.inside(images + "/" + name, folder.root() / images));
  }
  if (!labels.empty() && fs::is_directory(folder.root() / labels)) {
    for (const auto& name : image_names(folder.root() / labels, "")) {
      const auto id = without_ending(name);
      Case& one = cases[id];
      if (one.id.empty()) one = {id, {folder.inside(images + "/" + name, folder.root() / labels)}, {}};
      one.label = folder.inside(labels + "/" + name, folder.root() / labels);
    }
    for (auto& [id, one] : cases)
      if (one.label.empty()) one.label = folder.root() / labels / one.images.front().filename();
  }
  std::vector<Case> sorted;
  for (auto& [id, one] : cases) sorted.push_back(std::move(one));
  return sorted;
}

Case listed_case(const json& entry, const Folder& folder, const fs::path& file, const std::string& where) {
  Case one;
  const json* images = nullptr;
  if (entry.is_string()) images = &entry;
  if (entry.is_object() && entry.contains("image")) images = &entry["image"];
  if (entry.is_object() && entry.contains("images")) images = &entry["images"];
  if (!images)
    throw IoError(file, where + " is " + shown(entry) + ", expected {\"image\": \"path\", \"label\": \"path\"}");
  if (images->is_array())
    for (const auto& image : *images) one.images.push_back(folder.inside(text(image, file, where + ".image"), file));
  else
    one.images.push_back(folder.inside(text(*images, file, where + ".image"), file));
  if (one.images.empty()) throw IoError(file, where + ".image is an empty list");
  if (entry.is_object() && entry.contains("label") && !entry["label"].is_null())
    one.label = folder.inside(text(entry["label"], file, where + ".label"), file);
  one.id = without_ending(one.images.front().filename().string());
  if (one.images.size() > 1)
    if (const auto split = split_channel(one.id)) one.id = split->first;
  return one;
}

void read_datalist(const json& list, const Folder& folder, const fs::path& file, Dataset& dataset) {
  std::map<int, std::vector<std::string>> folds;
  std::vector<std::string> validation;
  const auto each = [&](const char* key, const auto& take) {
    if (!list.contains(key) || list[key].is_null()) return;
    if (!list[key].is_array()) throw IoError(file, std::string(key) + " is not a list of cases");
    for (size_t i = 0; i < list[key].size(); ++i) take(list[key][i], std::string(key) + "[" + std::to_string(i) + "]");
  };
  bool every_case_has_a_fold = true;
  each("training", [&](const json& entry, const std::string& where) {
    dataset.training.push_back(listed_case(entry, folder, file, where));
    if (entry.is_object() && entry.contains("fold"))
      folds[integer(entry["fold"], file, where + ".fold")].push_back(dataset.training.back().id);
    else
      every_case_has_a_fold = false;
  });
  const auto training_ids = [&] {
    std::vector<std::string> ids;
    for (const auto& one : dataset.training) ids.push_back(one.id);
    std::sort(ids.begin(), ids.end());
    return ids;
  };
  const auto train_only = training_ids();
  each("validation", [&](const json& entry, const std::string& where) {
    dataset.training.push_back(listed_case(entry, folder, file, where));
    validation.push_back(dataset.training.back().id);
  });
  for (const char* key : {"test", "testing"})
    each(key, [&](const json& entry, const std::string& where) {
      dataset.test.push_back(listed_case(entry, folder, file, where));
    });
  if (!validation.empty()) {
    dataset.declared_splits = {{train_only, validation}};
  } else if (every_case_has_a_fold && folds.size() > 1) {
    for (auto& [number, ids] : folds) {
      std::sort(ids.begin(), ids.end());
      Split split{{}, ids};
      std::set_difference(train_only.begin(), train_only.end(), ids.begin(), ids.end(),
                          std::back_inserter(split.train));
      dataset.declared_splits.push_back(std::move(split));
    }
  }
  if (list.contains("numTraining")) dataset.declared_training_cases = integer(list["numTraining"], file, "numTraining");
}

void discover_labels(Dataset& dataset) {
  std::map<int64_t, int64_t> counts;
  int64_t files = 0;
  for (const auto& one : dataset.training) {
    if (one.label.empty() || !fs::exists(one.label)) continue;
    for (const auto& [value, count] : count_label_values(read_volume(one.label, "label"), one.label).voxels)
      counts[value] += count;
    ++files;
  }
  if (files == 0) return;
  counts[0] += 0;
  if (counts.begin()->first < 0 || counts.rbegin()->first > 65535)
    throw IoError(dataset.root, "the label files hold values from " + std::to_string(counts.begin()->first) + " to " +
                                    std::to_string(counts.rbegin()->first) + ", expected 0 to 65535");
  for (const auto& [value, count] : counts)
    dataset.labels.push_back({value == 0 ? "background" : "label_" + std::to_string(value), {static_cast<int>(value)}});
  dataset.note = "no dataset.json: " + std::to_string(counts.size()) + " label values found by reading " +
                 std::to_string(files) + " label files; write a dataset.json to name them";
}

}  // namespace

bool Dataset::has_regions() const {
  std::set<int> seen;
  for (const auto& label : labels)
    for (const int value : label.values)
      if (!seen.insert(value).second) return true;
  return false;
}

namespace {
Dataset open(const fs::path& where, const OpenOptions& options) {
  if (!fs::exists(where)) throw IoError(where, "no such file or folder, expected a dataset");
  Dataset dataset;
  const bool is_folder = fs::is_directory(where);
  dataset.root = is_folder ? where : options.data_root.empty() ? where.parent_path() : options.data_root;
  if (dataset.root.empty()) dataset.root = ".";
  if (!is_folder)
    dataset.description = where;
  else if (fs::exists(where / "dataset.json"))
    dataset.description = where / "dataset.json";
  const fs::path named = is_folder ? fs::absolute(where).lexically_normal() : where.stem();
  dataset.name = (named.has_filename() ? named : named.parent_path()).filename().string();
  const Folder folder(dataset.root, options.follow_links);

  if (dataset.description.empty()) {
    if (!fs::is_directory(where / "imagesTr"))
      throw IoError(
          where, "no dataset.json and no imagesTr folder; expected an nnU-Net or Decathlon folder, or a datalist file");
    // Suffixes _0000 count as channels only if every image has one and its label lacks it.
    const auto names = image_names(where / "imagesTr", "");
    if (names.empty()) throw IoError(where / "imagesTr", "holds no image (.nii.gz, .nii, .nrrd, .nhdr)");
    size_t channels = 0;
    for (const auto& name : names) {
      const auto split = split_channel(without_ending(name));
      if (!split || fs::exists(where / "labelsTr" / name)) {
        channels = 0;
        break;
      }
      channels = std::max(channels, size_t(split->second) + 1);
    }
    if (channels > 0) {
      const auto ending = ending_of(names.front());
      dataset.training = channelled_cases(folder, "imagesTr", "labelsTr", ending, channels);
      dataset.test = channelled_cases(folder, "imagesTs", "", ending, channels);
    } else {
      dataset.training = plain_cases(folder, "imagesTr", "labelsTr");
      dataset.test = plain_cases(folder, "imagesTs", "");
    }
    for (size_t c = 0; c < std::max<size_t>(channels, 1); ++c)
      dataset.channels.push_back("channel_" + std::to_string(c));
    discover_labels(dataset);
    return dataset;
  }

  const fs::path& file = dataset.description;
  const json description = io::read_json(file);
  if (!description.is_object()) throw IoError(file, "expected an object with \"training\" or \"channel_names\"");
  if (description.contains("name") && description["name"].is_string())
    dataset.name = description["name"].get<std::string>();
  if (description.contains("labels")) read_labels(description["labels"], file, dataset);
  for (const char* key : {"channel_names", "modality"})
    if (description.contains(key) && dataset.channels.empty())
      dataset.channels = read_channels(description[key], file, key);

  if (description.contains("training")) {
    read_datalist(description, folder, file, dataset);
    if (dataset.training.empty()) throw IoError(file, "training lists no case");
    if (dataset.channels.empty())
      for (size_t c = 0; c < dataset.training.front().images.size(); ++c)
        dataset.channels.push_back("channel_" + std::to_string(c));
    sort_cases(dataset.training), sort_cases(dataset.test);
    if (!description.contains("labels")) discover_labels(dataset);
    return dataset;
  }

  if (!is_folder)
    throw IoError(file, "has no \"training\" list, expected a datalist; for an nnU-Net dataset give its folder");
  if (dataset.channels.empty()) throw IoError(file, "lacks channel_names, expected {\"0\": \"CT\"} or the like");
  if (dataset.labels.empty()) throw IoError(file, "lacks labels, expected {\"background\": 0, ...}");
  if (!description.contains("file_ending")) throw IoError(file, "lacks file_ending, expected \".nii.gz\" or the like");
  const std::string ending = text(description["file_ending"], file, "file_ending");
  if (std::find(std::begin(kEndings), std::end(kEndings), ending) == std::end(kEndings))
    throw IoError(file, "file_ending is '" + ending + "', expected .nii.gz, .nii, .nrrd or .nhdr");
  if (description.contains("numTraining"))
    dataset.declared_training_cases = integer(description["numTraining"], file, "numTraining");
  if (description.contains("dataset")) {
    if (!description["dataset"].is_object()) throw IoError(file, "dataset is not an object of cases");
    for (const auto& [id, entry] : description["dataset"].items()) {
      // The id becomes part of file names: of cached cases, of predictions.
      if (id.empty() || id.front() == '.' ||
          std::any_of(id.begin(), id.end(), [](unsigned char c) { return c < 32 || c == '/' || c == '\\'; }))
        throw IoError(file, "case id " + shown(id) + " cannot be part of a file name");
      dataset.training.push_back(listed_case(entry, folder, file, "dataset." + id));
      dataset.training.back().id = id;
    }
    sort_cases(dataset.training);
  } else {
    dataset.training = channelled_cases(folder, "imagesTr", "labelsTr", ending, dataset.channels.size());
  }
  dataset.test = channelled_cases(folder, "imagesTs", "", ending, dataset.channels.size());
  if (dataset.training.empty())
    throw IoError(dataset.root / "imagesTr", "holds no case, expected files like CASE_0000" + ending);
  return dataset;
}

std::vector<Split> read_splits(const fs::path& file, const std::set<std::string>& ids) {
  const json list = io::read_json(file);
  if (!list.is_array() || list.empty()) throw IoError(file, "expected a list of {\"train\": [ids], \"val\": [ids]}");
  std::vector<Split> splits;
  for (size_t fold = 0; fold < list.size(); ++fold) {
    const std::string where = "fold " + std::to_string(fold);
    Split split;
    std::set<std::string> seen;
    for (const char* part : {"train", "val"}) {
      if (!list[fold].is_object() || !list[fold].contains(part) || !list[fold][part].is_array())
        throw IoError(file, where + " lacks the list '" + part + "'");
      for (const auto& entry : list[fold][part]) {
        const std::string id = text(entry, file, where + "." + part);
        if (!ids.contains(id)) throw IoError(file, where + " names case '" + id + "', which the dataset does not have");
        if (!seen.insert(id).second)
          throw IoError(file, where + " names case '" + id + "' twice: a case trains or validates, not both");
        (std::string_view(part) == "train" ? split.train : split.val).push_back(id);
      }
    }
    splits.push_back(std::move(split));
  }
  return splits;
}
}  // namespace

Dataset open_dataset(const fs::path& where, const OpenOptions& options) {
  try {
    return open(where, options);
  } catch (const fs::filesystem_error& error) {  // no permission, a loop of links, a name too long
    throw IoError(where, "cannot be opened as a dataset: " + error.code().message());
  }
}

std::vector<Split> splits(const Dataset& dataset, int folds, uint64_t seed) {
  std::set<std::string> all;
  std::vector<std::string> labelled;
  for (const auto& one : dataset.training) {
    if (!all.insert(one.id).second)
      throw ArgumentError("splits: case id '" + one.id + "' occurs twice in " + dataset.root.string());
    if (!one.label.empty() || !dataset.is_labelled()) labelled.push_back(one.id);
  }
  const fs::path file = dataset.root / "splits_final.json";
  if (fs::exists(file)) return read_splits(file, all);
  if (!dataset.declared_splits.empty()) return dataset.declared_splits;
  if (folds < 2) throw ArgumentError("splits: " + std::to_string(folds) + " folds, expected at least 2");
  const int64_t n = static_cast<int64_t>(labelled.size());
  if (n < 2)
    throw ArgumentError("splits: " + dataset.root.string() + " has " + std::to_string(n) +
                        " usable cases, expected at least 2 so that one can validate");
  std::sort(labelled.begin(), labelled.end());
  Rng rng(seed, 0, 0, kSplits);
  for (int64_t i = n - 1; i > 0; --i) std::swap(labelled[i], labelled[rng.below(i + 1)]);
  std::vector<Split> result(std::min<int64_t>(folds, n));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t fold = 0; fold < int64_t(result.size()); ++fold)
      (i % int64_t(result.size()) == fold ? result[fold].val : result[fold].train).push_back(labelled[i]);
  for (auto& split : result)
    std::sort(split.train.begin(), split.train.end()), std::sort(split.val.begin(), split.val.end());
  return result;
}

std::vector<Case> select_cases(const Dataset& dataset, const std::vector<std::string>& ids) {
  std::vector<Case> cases;
  for (const auto& id : ids) {
    const auto found =
        std::find_if(dataset.training.begin(), dataset.training.end(), [&](const Case& one) { return one.id == id; });
    if (found == dataset.training.end()) throw ArgumentError("case '" + id + "' is not in " + dataset.root.string());
    cases.push_back(*found);
  }
  return cases;
}

}  // namespace fovea::data
