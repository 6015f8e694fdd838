#include "fovea/recipes/pyradiomics_baselines.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "fovea/io/csv.h"
#include "fovea/io/image.h"

namespace fovea::recipes {

namespace {
// What follows 'key': in a printed dictionary, up to the end of the number, list or word.
std::string setting(const std::string& settings, const std::string& key) {
  const size_t at = settings.find("'" + key + "': ");
  if (at == std::string::npos) return "None";
  const size_t begin = at + key.size() + 4;
  return settings.substr(begin, settings.find_first_of(settings[begin] == '[' ? "]" : ",}", begin) - begin);
}

// "[2, 2, 2", as setting() cuts lists.
std::vector<double> numbers(const std::string& list) {
  std::vector<double> values;
  for (size_t at = 0; list[0] == '[' && at != std::string::npos; at = list.find(',', at))
    values.push_back(std::stod(list.substr(++at)));
  return values;
}

struct Scan {
  Volume image, mask;
};
}  // namespace

data::RadiomicsOptions options_of_settings(const std::string& settings) {
  data::RadiomicsOptions o;
  const auto number = [&](const std::string& key, double standard) {
    const std::string text = setting(settings, key);
    return text == "None" ? standard : std::stod(text);
  };
  o.bin_width = number("binWidth", 25), o.bin_count = int64_t(number("binCount", 0));
  o.energy_shift = number("voxelArrayShift", 0);
  o.minimum_dimensions = int64_t(number("minimumROIDimensions", 2));
  o.dependence = int64_t(number("gldm_a", 0));
  if (setting(settings, "force2D") == "True") o.plane_axis = int(number("force2Ddimension", 0));
  if (setting(settings, "normalize") == "True") o.normalise_scale = number("normalizeScale", 1);
  if (setting(settings, "weightingNorm") == "'no_weighting'") o.weighting = data::DirectionWeighting::kSum;
  if (const auto mm = numbers(setting(settings, "resampledPixelSpacing")); mm.size() == 3)
    o.spacing_mm = {mm[2], mm[1], mm[0]};
  if (const auto range = numbers(setting(settings, "resegmentRange")); !range.empty()) {
    o.resegment_range = range;
    o.resegment =
        setting(settings, "resegmentMode") == "'sigma'" ? data::Resegment::kSigma : data::Resegment::kAbsolute;
  }
  return o;
}

BaselineComparison compare_with_baselines(const std::filesystem::path& folder) {
  const std::set<std::string> other_mesh = {"shape_MeshVolume", "shape_SurfaceArea", "shape_SurfaceVolumeRatio",
                                            "shape_Sphericity"};
  std::map<std::string, std::optional<Scan>> scans;
  std::map<std::string, std::map<std::string, double>> computed;  // by scan and settings: families share them
  BaselineComparison found;
  for (const auto& family : data::radiomics_families()) {
    const auto table = io::read_csv(folder / "baseline" / ("baseline_" + family.name + ".csv"));
    std::map<std::string, size_t> row;
    for (size_t r = 0; r < table.rows(); ++r) row[table.cell(r, 0)] = r;
    for (size_t c = 1; c < table.columns().size(); ++c) {
      const std::string column = table.columns()[c], name = column.substr(0, column.find('_'));
      if (!scans.contains(name)) {
        const auto image = folder / (name + "_image.nrrd"), mask = folder / (name + "_label.nrrd");
        scans[name] = std::filesystem::exists(image) ? std::optional(Scan{io::read_image(image), io::read_image(mask)})
                                                     : std::nullopt;
      }
      if (!scans[name]) continue;
      const std::string settings = table.cell(row.at("diagnostics_Configuration_Settings"), c);
      auto& values = computed[name + settings];
      if (values.empty())
        for (const auto& f : data::radiomics(scans[name]->image, scans[name]->mask, options_of_settings(settings)))
          values[f.name] = f.value;
      for (const std::string& feature : family.features) {
        const std::string key = family.name + "_" + feature;
        const double expected = std::stod(table.cell(row.at("original_" + key), c));
        const double difference =
            std::abs(values.at("original_" + key) - expected) / std::max(std::abs(expected), 1e-6);
        if (column == "brain1" && other_mesh.contains(key)) {
          ++found.other_mesh, found.other_mesh_worst = std::max(found.other_mesh_worst, difference);
          continue;
        }
        ++found.values;
        if (!(difference <= found.worst)) found.worst = difference, found.worst_name = column + " " + key;
      }
    }
  }
  return found;
}

}  // namespace fovea::recipes
