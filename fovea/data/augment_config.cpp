#include "fovea/core/error.h"
#include "fovea/data/augment.h"

namespace fovea::data {

void AugmentConfig::validate() const {
  const auto probability = [](const char* name, float p) {
    if (!(p >= 0 && p <= 1))
      throw ArgumentError(std::string("augment: ") + name + " is " + std::to_string(p) + ", expected 0 to 1");
  };
  const auto range = [](const char* name, const std::array<float, 2>& r, float least, float most) {
    if (!(r[0] >= least && r[0] <= r[1] && r[1] <= most))
      throw ArgumentError(std::string("augment: ") + name + " is [" + std::to_string(r[0]) + ", " +
                          std::to_string(r[1]) + "], expected low <= high within " + std::to_string(least) + " to " +
                          std::to_string(most));
  };
  probability("flip_probability", flip_probability), probability("rotation_probability", rotation_probability);
  probability("scale_probability", scale_probability), probability("translation_probability", translation_probability);
  probability("elastic_probability", elastic_probability), probability("noise_probability", noise_probability);
  probability("blur_probability", blur_probability), probability("brightness_probability", brightness_probability);
  probability("contrast_probability", contrast_probability),
      probability("low_resolution_probability", low_resolution_probability);
  probability("gamma_inverted_probability", gamma_inverted_probability),
      probability("gamma_probability", gamma_probability);
  range("scale", scale, 0.05f, 20), range("elastic_vox", elastic_vox, 0, 1000),
      range("noise_deviation", noise_deviation, 0, 1000);
  range("blur_sigma_vox", blur_sigma_vox, 0, 20), range("brightness", brightness, 0, 1000),
      range("contrast", contrast, 0, 1000);
  range("low_resolution_zoom", low_resolution_zoom, 0.01f, 1), range("gamma", gamma, 0.01f, 100);
  for (const float angle : rotation_deg) range("rotation_deg", {angle, angle}, 0, 180);
  for (const float shift : translation_vox) range("translation_vox", {shift, shift}, 0, 10000);
  range("elastic_grid_vox", {elastic_grid_vox, elastic_grid_vox}, 2, 10000);
  for (const auto& [a, b] : flip_x_swaps)
    if (a < 1 || b < 1 || a == b)
      throw ArgumentError("augment: flip_x_swaps exchanges classes " + std::to_string(a) + " and " + std::to_string(b) +
                          ", expected two different classes above 0");
}

AugmentConfig augment_preset(const std::string& name) {
  AugmentConfig config;
  if (name == "nnunet") return config;
  if (name == "strong") {
    config.rotation_probability = config.scale_probability = config.elastic_probability = 0.4f;
    return config;
  }
  if (name == "none") {
    config.flip = {false, false, false};
    config.flip_probability = config.rotation_probability = config.scale_probability = 0;
    config.noise_probability = config.blur_probability = config.brightness_probability = config.contrast_probability =
        0;
    config.low_resolution_probability = config.gamma_inverted_probability = config.gamma_probability = 0;
    return config;
  }
  const std::string nearest = nearest_name(name, {"none", "nnunet", "strong"});
  throw ArgumentError("augment: no preset '" + name + "', expected none, nnunet or strong" +
                      (nearest.empty() ? "" : "; did you mean " + nearest + "?"));
}

}  // namespace fovea::data
