#pragma once
#include <torch/torch.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "fovea/core/rng.h"
#include "fovea/data/station_table.h"
#include "fovea/models/station_fusion.h"
#include "fovea/recipes/kriging.h"

// What training, scoring and prediction of stations share: how a network is asked, and what its answer means.
namespace fovea::recipes {

inline constexpr int64_t kLeastStations = 5;  // at a time, for it to be learnt from or scored

/// On which scale errors are normal.
enum class ValueScale {
  kRoot,   ///< the square root of 1 + value: concentrations. The mean is that of the value itself
  kPlain,  ///< the value: temperatures
};
inline auto config_names(ValueScale) {
  return std::array{std::pair{ValueScale::kRoot, "root"}, std::pair{ValueScale::kPlain, "plain"}};
}

/// How values enter a network and answers leave it.
struct StationScaling {
  ValueScale scale = ValueScale::kPlain;
  double unit = 1;       // of kPlain: deviation of what covariates leave. kRoot: every time's mean is the unit
  int64_t nearest = 64;  // others that a place is told by

  bool root() const { return scale == ValueScale::kRoot; }
  template <class V>
  void visit(V& v) {
    v("scale", scale, "on which errors are normal: plain, or root, the square root of 1 + value, for concentrations");
    v("unit", unit, "deviation of the values");
    v("nearest", nearest, "stations that a place is told by");
  }
};

/// Stations with a value at time t, of those kept (empty: all).
std::vector<int64_t> present_stations(const data::StationTable& table, int64_t t, const std::vector<bool>& kept = {});

/// Each target told by the nearest others. Values are in units in which they are about 1.
struct StationBatch {
  models::Measurements measured;
  models::Targets targets;
  torch::Tensor others;       // [B,M] stations
  torch::Tensor truth, unit;  // [B] in the table's unit, NaN where it is not known; what to multiply with
};
/// `stations` are present at t; a target that is one of them is not told by itself.
StationBatch ask_stations(const data::StationTable& table, const StationScaling& scaling, int64_t t,
                          const std::vector<int64_t>& stations, const std::vector<int64_t>& targets);

/// Answers in the table's unit, and what is normal: `centre` and `variance` on the scale of the errors.
struct StationAnswer {
  torch::Tensor mean, low, high, centre, variance;  // [B]; low and high: 95 %
};
StationAnswer answer_stations(const StationScaling& scaling, const StationBatch& batch,
                              const models::FusedField& fused);
/// Negative log density of the truths, nats a value of the table's unit, [B].
torch::Tensor station_nll(const StationScaling& scaling, const StationBatch& batch, const StationAnswer& answer);

/// A table with what follows from its training times.
struct StationProblem {
  const data::StationTable& table;
  StationScaling scaling;
  torch::Tensor distance;              // [S,S] km
  torch::Tensor slope;                 // [K] f64, of values in covariates: least squares over training times
  Variogram variogram, log_variogram;  // of what the slope leaves; of log(1 + value) where the scale is root
  std::vector<int64_t> train, test;    // times with kLeastStations or more
};
/// Errors   ArgumentError: fewer than 5 stations, no time for training or testing, a value below 0 on the root scale.
StationProblem make_station_problem(const data::StationTable& table, ValueScale scale, int64_t nearest);

/// The network for a problem; the slope of its mean is the least squares one.
models::StationFusionConfig station_network_config(const StationProblem& problem,
                                                   models::StationFusionConfig config = {});

/// Adam with a warm-up of 50 steps and a cosine to 0, for experiments; `fovea train` has train::Trainer.
void learn(const std::vector<torch::Tensor>& parameters, double rate, int64_t steps,
           const std::function<torch::Tensor(int64_t step)>& loss_of_step);

/// First step: the mean learns on Gaussian fields with the variogram, at the places of the stations of training times
/// (simulated; no measured value is used). `step`: called after each.
models::StationFusion learn_simulated_fields(const StationProblem& problem, const models::StationFusionConfig& config,
                                             int64_t steps, uint64_t seed, const std::function<void()>& step = {});
/// What the second step learns, on measured values: offsets, sources, slopes and the variance.
bool learns_from_measurements(const std::string& parameter);
/// The likelihood of `batch` values of a time drawn from `times`, stations drawn from those kept.
torch::Tensor station_loss(const StationProblem& problem, models::StationFusion& network,
                           const std::vector<int64_t>& times, const std::vector<bool>& kept, int64_t batch, Rng& rng);

}  // namespace fovea::recipes
