#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "fovea/recipes/slide_config.h"
#include "fovea/recipes/slide_model.h"

namespace fovea::recipes {

/// The tiles of many slides, read when they are first asked for and kept as long as they fit into `max_bytes`.
class SlideBags {
 public:
  SlideBags(const data::SlideTable& table, const std::filesystem::path& features, uint64_t max_bytes = uint64_t{4} << 30);
  const data::SlideFeatures& slide(int64_t row);
  const std::vector<std::filesystem::path>& files() const { return files_; }

 private:
  std::vector<std::filesystem::path> files_;
  std::vector<std::optional<data::SlideFeatures>> kept_;
  data::SlideFeatures last_;
  uint64_t max_bytes_, bytes_ = 0;
};

struct FittedSlides {
  SlideModel model;
  train::TrainResult training;
};
/// Trains a network; the model has the best weights at the end. Log and checkpoints go to `folder`.
/// Errors   ArgumentError: slides of different widths, a training class without a slide; TrainingDiverged
FittedSlides fit_slides(const data::SlideTable& table, SlideBags& bags, const data::SlideSplit& split, const SlideConfig& config, train::RunFolder& folder, bool resume = false,
                        const std::vector<std::string>& command = {});

/// Logistic regression on each slide's mean (or maximum) feature, learnt on `train`: the simplest method.
SlidePredictions simplest_slides(const data::SlideTable& table, SlideBags& bags, const std::vector<int64_t>& train, const std::vector<int64_t>& scored, bool maximum);

struct SlideTrainOptions {
  std::filesystem::path run;
  std::optional<int64_t> fold;
  bool resume = false;
  std::vector<std::string> command;
};
struct SlideTrainResult {
  train::TrainResult training;
  std::filesystem::path model, report;  // empty when the run was interrupted
  std::vector<SlideScore> scores;       // of the held-out slides, or of the validation ones where none is held out
};
/// Trains the recipe `slide`: RUN/{config.json, manifest.json, log.csv, checkpoints/}, then RUN/model, RUN/predictions.csv of
/// the held-out slides, RUN/metrics.json and RUN/report.html, where the result stands beside logistic regression on the mean
/// and on the maximum of a slide's features.
SlideTrainResult train_slides(const data::SlideTable& table, const SlideConfig& config, const SlideTrainOptions& options);

/// What a training has to show.
struct SlideReport {
  struct Method {
    std::string name;
    std::vector<SlideScore> scores;
  };
  const data::SlideTable* table = nullptr;
  const SlideConfig* config = nullptr;
  const SlideModel* model = nullptr;
  std::filesystem::path run;
  bool held_out = false;
  data::SlideSplit split;
  SlidePredictions predictions;
  std::vector<Method> methods;  // the network first
};
/// One offline HTML file: result beside the baselines, every scored slide, training curves.
void write_slide_report(const std::filesystem::path& file, const SlideReport& report);

}  // namespace fovea::recipes
