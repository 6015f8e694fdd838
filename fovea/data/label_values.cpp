#include "fovea/data/label_values.h"

#include "fovea/core/error.h"
#include "fovea/data/voxels.h"

namespace fovea::data {

ClassLookup::ClassLookup(const std::vector<LabelClass>& labels) {
  if (labels.size() > 32767)
    throw ArgumentError("labels: " + std::to_string(labels.size()) + " classes, expected at most 32767");
  for (size_t k = 0; k < labels.size(); ++k)
    for (const int value : labels[k].values) {
      if (value < 0 || value > 65535)
        throw ArgumentError("labels: '" + labels[k].name + "' has value " + std::to_string(value) +
                            ", expected 0 to 65535");
      if (value >= int(class_of_.size())) class_of_.resize(value + 1, -1);
      if (class_of_[value] >= 0)
        throw ArgumentError("labels: '" + labels[k].name + "' and '" + labels[class_of_[value]].name +
                            "' share value " + std::to_string(value));
      class_of_[value] = static_cast<int>(k);
    }
}

DType class_dtype(int64_t classes) { return classes <= 256 ? DType::kU8 : DType::kI16; }

Volume read_classes(const std::filesystem::path& path, const std::vector<LabelClass>& labels) {
  return to_classes(read_volume(path, "label"), path, labels);
}

Volume to_classes(const Volume& label, const std::filesystem::path& path, const std::vector<LabelClass>& labels) {
  const ClassLookup lookup(labels);
  int64_t unknown = 0;
  std::string values;
  for (const auto& [value, voxels] : count_label_values(label, path).voxels)  // also: one channel, integers
    if (lookup.of(value) < 0) {
      unknown += voxels;
      if (values.size() < 60) values += (values.empty() ? "" : ", ") + std::to_string(value);
    }
  if (unknown)
    throw IoError(path, "label values " + values + " in " + std::to_string(unknown) + " voxels are not declared");
  Volume classes = Volume::zeros(label.geometry, class_dtype(int64_t(labels.size())));
  classes.header = label.header;
  visit_channel(label, 0, [&](auto from) {
    const auto fill = [&](auto to) {
      for (int64_t i = 0; i < from.size(); ++i)
        to[i] = static_cast<typename decltype(to)::value_type>(lookup.of(static_cast<int64_t>(from.data[i])));
    };
    if (classes.dtype == DType::kU8)
      fill(classes.as<uint8_t>());
    else
      fill(classes.as<int16_t>());
  });
  return classes;
}

}  // namespace fovea::data
