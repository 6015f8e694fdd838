#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include <torch/types.h>

#include "fovea/data/slide_features.h"
#include "fovea/data/slide_table.h"
#include "fovea/models/bag_network.h"
#include "fovea/train/survival_metrics.h"

namespace fovea::recipes {

/// What prediction repeats of the training: which tiles, and how their numbers are scaled.
struct SlideInputs {
  std::string name = "slides";
  bool simulated = false;
  std::vector<std::string> classes;
  std::string encoder;
  int64_t tile_px = 0;
  double um_per_pixel = 0;
  std::vector<double> mean, deviation;

  template <class V>
  void visit(V& v) {
    v("name", name, "of the data set");
    v("simulated", simulated, "learnt on made-up slides");
    v("classes", classes, "in the order of the outputs");
    v("encoder", encoder, "that made the features, where the files say so");
    v("tile_px", tile_px, "edge of a tile as the encoder saw it; 0 = not known");
    v("um_per_pixel", um_per_pixel, "of a tile; 0 = not known");
    v("mean", mean, "of each feature over the training slides; empty = not standardised");
    v("deviation", deviation, "likewise");
  }
};

/// A trained network of slides.
struct SlideModel {
  models::BagConfig config;
  models::BagNetwork network;  // in evaluation mode
  SlideInputs inputs;

  /// Errors  IoError: no model folder, damaged; ArgumentError: of another recipe
  static SlideModel load(const std::filesystem::path& model);
  void save(const std::filesystem::path& model, const std::string& model_card) const;
  /// The rows that the network sees. `where` begins the message. Errors: ArgumentError: of another width
  torch::Tensor rows(const data::SlideFeatures& slide, const std::string& where) const;
};

/// What a network says of one slide.
struct SlideAnswer {
  torch::Tensor probabilities;  // [classes]
  torch::Tensor weights;        // [N]: attention of the predicted class, sums to 1
  int64_t predicted = 0;
  double effective_tiles = 0;   // exp(entropy of the weights): how many tiles share the attention
};
SlideAnswer answer_slide(const SlideModel& model, const torch::Tensor& rows);

/// Slides' probabilities [n,classes] with what is known of them.
struct SlidePredictions {
  std::vector<std::string> slide_ids, case_ids;
  torch::Tensor probabilities, tiles, effective_tiles;  // [n,classes] f64, [n] i64, [n] f64
  std::vector<int64_t> labels;                          // -1: not known
};

/// Predicts the rows of a table. Errors: as find_slide_features(), read_slide_features() and SlideModel::rows()
SlidePredictions predict_slides(const SlideModel& model, const data::SlideTable& table, const std::vector<int64_t>& rows, const std::filesystem::path& features);

/// slide_id, case_id, predicted, p_CLASS..., tiles, effective_tiles; whole or not at all.
void write_slide_predictions(const std::filesystem::path& file, const SlidePredictions& predictions, const std::vector<std::string>& classes);

/// A figure with the percentile interval of 1000 resamples of the cases.
struct SlideScore {
  std::string name;  // "AUC" (of more than two classes: mean over one against the rest), "accuracy"
  double value = 0;
  train::BootstrapInterval interval;
};
/// nan, and no interval, where a class is missing among the slides.
std::vector<SlideScore> score_slides(const SlidePredictions& predictions, uint64_t seed = 0);

/// Scores a file of predictions against the labels of a table. Errors: IoError: a slide that the table lacks
std::vector<SlideScore> evaluate_slide_predictions(const std::filesystem::path& file, const data::SlideTable& table);

}  // namespace fovea::recipes
