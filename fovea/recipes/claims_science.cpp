// C45, C47: claims on models of the sciences.
#include "fovea/io/data_folder.h"
#include "fovea/recipes/claims.h"
#include "fovea/recipes/greens_function.h"
#include "fovea/recipes/station_field.h"
#include "fovea/recipes/station_fusion.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
ClaimResult greens_function(const ClaimOptions& options) {
  const auto linear = learn_green(OperatorNetwork::kFourier, {}, options.seed), softmax = learn_green(OperatorNetwork::kSoftmax, {}, options.seed);
  ClaimResult r;
  r.figures = {{"relative_l2", linear.relative_l2},         {"effective", linear.effective},         {"filtered", linear.filtered},        {"raw", linear.raw},
               {"relative_l2_softmax", softmax.relative_l2}, {"effective_softmax", softmax.effective}, {"filtered_softmax", softmax.filtered}, {"raw_softmax", softmax.raw}};
  const bool resembles = linear.effective >= 0.96 && softmax.effective >= 0.96, raw = softmax.raw >= 0.96;
  r.verdict = !resembles ? Verdict::kFalse : raw ? Verdict::kHolds : Verdict::kHoldsIf;
  r.condition = "the kernel is the effective one, du_i / df_j, not the map of a head";
  r.computed = report::printed(
      "correlation with min(x,y)(1-max(x,y)): effective kernel %.3f (softmax %.3f), seen through the forcing %.3f (%.3f), best map of a head %.2f (%.2f); relative L2 %.3f (%.3f)",
      linear.effective, softmax.effective, linear.filtered, softmax.filtered, linear.raw, softmax.raw, linear.relative_l2, softmax.relative_l2);
  r.inputs = "Gaussian-process forcings of length 0.05 at 48 points, seed " + std::to_string(options.seed);
  r.with = "models::OperatorTransformer with rotary coordinates";
  return r;
}

// Where the table of stations is not at hand the claim is judged on simulated fields alone, and says so.
ClaimResult stations(const ClaimOptions& options) {
  const FieldScore field = learn_station_field({}, options.seed).score;
  ClaimResult r;
  r.figures = {{"simulated", field.error}, {"simulated_exact", field.exact}, {"simulated_kernel", field.kernel}};
  r.computed = report::printed("simulated fields: error %.3f, exact posterior %.3f, kernel regression %.3f", field.error, field.exact, field.kernel);
  const bool field_holds = field.error <= 1.1 * field.exact && field.error < field.kernel;
  r.inputs = "simulated fields, seed " + std::to_string(options.seed);
  r.with = "models::StationFusion";
  const auto path = io::find_data("air.csv");
  if (!path) {
    r.verdict = field_holds ? Verdict::kHoldsIf : Verdict::kFalse;
    r.condition = "simulated fields are enough: the table of stations is not at hand, scripts/data air fetches it";
    return r;
  }
  StationFusionOptions air;
  air.test_every = 5;
  const LeftOutStations left = leave_stations_out(read_air(*path), air, options.seed);
  const std::vector<std::pair<std::string, double>> found = {{"pm10", left.fusion}, {"pm10_kriging", left.kriging}, {"pm10_kernel", left.kernel},
                                                             {"pm10_inverse_distance", left.inverse_distance}, {"pm10_mean", left.mean}, {"pm10_nll_gain", left.nll_gain.value}};
  r.figures.insert(r.figures.end(), found.begin(), found.end());
  r.computed += report::printed("; PM10 of left-out stations in ug/m3: fusion %.2f, kriging %.2f, kernel of 60 km %.2f, inverse distance %.2f, daily mean %.2f (%lld values)", left.fusion,
                                left.kriging, left.kernel, left.inverse_distance, left.mean, static_cast<long long>(left.values));
  r.inputs += ", and " + path->string();
  r.verdict = field_holds && left.fusion < left.kernel && left.fusion < left.mean ? Verdict::kHolds : Verdict::kFalse;
  return r;
}
}  // namespace

std::vector<Claim> science_claims() {
  return {{"C47", "The same idea fuses environmental data over space and time", "fuses", ClaimCost::kTrained, stations},
          {"C45", "A RoPE transformer learns -u'' = f and its kernel resembles the Green's function", "resembles", ClaimCost::kTrained, greens_function}};
}

}  // namespace fovea::recipes
