#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/recipes/station_learning.h"
#include "fovea/train/trainer.h"

namespace fovea::recipes {

/// Everything that decides a run of the recipe `station`; runs/NAME/config.json holds it resolved.
struct StationConfig {
  data::StationColumns columns;
  std::string quantity, unit;
  ValueScale scale = ValueScale::kPlain;
  std::string test_from;
  double validation_share = 0.1;
  int64_t nearest = 64;
  int64_t layers = 2, channels = 8, heads = 4;
  int64_t simulated_steps = 1000;
  double kernel_km = 60;
  train::TrainConfig train = defaults();

  template <class V>
  void visit(V& v) {
    v("columns", columns, "of the table");
    v("quantity", quantity, "what was measured, for reports: PM10");
    v("unit", unit, "of it: µg/m³");
    v("scale", scale, "on which errors are normal: plain, or root, the square root of 1 + value, for concentrations");
    v("test_from", test_from, "times from here on are not learnt from; empty: the last fifth");
    v("validation_share", validation_share, "of the times to learn from, the last ones, which choose the checkpoint");
    v("nearest", nearest, "stations that a place is told by");
    v("layers", layers, "of attention");
    v("channels", channels, "of the values' stream");
    v("heads", heads, "of a layer");
    v("simulated_steps", simulated_steps, "on fields drawn with the stations' variogram, before the real values");
    v("kernel_km", kernel_km, "bandwidth of the kernel baseline");
    v("train", train, "second step, on the values: batch_size values of one time are told a step");
  }
  static train::TrainConfig defaults();
  /// Errors  ArgumentError naming the field.
  void validate() const;
};

/// Defaults, then `file` (may be empty), then `overrides` ("columns.value=pm10_ug_m3").
/// Errors   ArgumentError naming the key and its nearest known one
StationConfig resolve_station_config(const std::filesystem::path& file, const std::vector<std::string>& overrides);

}  // namespace fovea::recipes
