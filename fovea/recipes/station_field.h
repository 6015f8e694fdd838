#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fovea/data/station_field.h"
#include "fovea/models/station_fusion.h"

// Row A13 on simulated fields: does attention over stations find what the Gaussian process itself would say?
namespace fovea::recipes {

std::string name_of(nn::PlaceScore score);

struct FieldLearning {
  data::StationFieldOptions field;
  nn::PlaceScore score = nn::PlaceScore::kMultihead;
  int64_t layers = 3, steps = 700;
};

/// On 1024 fresh fields (simulated). Errors are root mean squares over all targets.
struct FieldScore {
  double error = 0, exact = 0;              // of the network; of the exact posterior
  double kernel = 0, mean_of_stations = 0;  // Gaussian kernel regression with its best bandwidth; every station alike
  double covered = 0, exact_covered = 0;    // percent of truths within 1.96 deviations
  double nll = 0, exact_nll = 0;            // mean negative log likelihood, nats
  int64_t parameters = 0;
};

/// A network trained on fields drawn anew (Adam, Gaussian likelihood) and how it does. Same seed, same result.
struct LearnedField {
  models::StationFusion network{nullptr};
  FieldScore score;
};
LearnedField learn_station_field(const FieldLearning& options, uint64_t seed);

/// With a satellite in the fields, its error drawn anew for each field and told: how much of the prediction rests on it.
struct SatelliteScore {
  double without = 0, with = 0;    // error of networks trained without it and with it, at an error of 0.1 of its cells
  double exact_with = 0;
  std::vector<double> told;        // errors of its cells, rising
  std::vector<double> weight;      // mean over targets of sum |weight| on its cells over that on everything
  double offset = 0, bias = 0;     // the offset learned for it, and the true one
};
SatelliteScore learn_satellite(uint64_t seed, int64_t steps = 700);

models::Measurements measurements_of(const data::StationField& field);

}  // namespace fovea::recipes
