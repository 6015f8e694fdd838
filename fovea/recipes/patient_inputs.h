#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fovea/data/fixed_grid.h"
#include "fovea/data/patient_table.h"
#include "fovea/io/word_pieces.h"
#include "fovea/models/patient_network.h"
#include "fovea/recipes/patient_config.h"

namespace fovea::recipes {

/// Mean and deviation of training rows, missing ones left out: what makes columns of different units comparable.
struct ColumnScaling {
  std::vector<double> mean, deviation;

  template <class V>
  void visit(V& v) {
    v("mean", mean, "of the training rows that have a value");
    v("deviation", deviation, "of the same; 1 where they are all equal");
  }
  static ColumnScaling of(const std::vector<std::vector<double>>& rows, size_t columns);
  /// NaN stays NaN.
  std::vector<double> apply(const std::vector<double>& row) const;
};

/// How a table of patients becomes tensors: learnt from the training rows alone, saved with the model and repeated by
/// prediction.
struct PatientInputs {
  data::PatientColumns columns;
  data::FixedGridConfig image;
  ColumnScaling numbers;
  bool use_measures = false;
  ColumnScaling measures;
  std::vector<std::string> vocabulary;
  int64_t text_tokens = 0;
  PatientText text_encoder = PatientText::kOwn;
  int64_t text_width = 0;
  std::string text_encoder_sha256;

  template <class V>
  void visit(V& v) {
    v("columns", columns, "what the table's columns are");
    v("image", image, "grid of the images");
    v("numbers", numbers, "scaling of the numeric columns");
    v("use_measures", use_measures, "texture and shape of the masked region of the first image are a modality of their own");
    v("measures", measures, "scaling of these");
    v("vocabulary", vocabulary, "word pieces of the text columns");
    v("text_tokens", text_tokens, "word pieces that are read of a patient's texts");
    v("text_encoder", text_encoder, "what gives a word piece its vector: own or minilm");
    v("text_width", text_width, "of the vectors of a frozen encoder; 0: own");
    v("text_encoder_sha256", text_encoder_sha256, "of the frozen encoder's weights");
  }

  /// measures: of region_measures(), empty to do without.
  /// Errors   IoError: the text encoder's files have not been fetched
  static PatientInputs fit(const data::PatientTable& table, const std::vector<int64_t>& training_rows, const data::FixedGridConfig& image, int64_t text_tokens,
                           const std::vector<std::vector<double>>& measures = {},
                           PatientText text_encoder = PatientText::kOwn);
  /// Sets what the network must know of the inputs: images, numbers, categories, vocabulary, grid.
  void describe(models::PatientNetworkConfig& network) const;
  std::vector<std::string> modality_names() const;  // as the columns call them: "ct", "table", "measures", "text"
};

/// All patients of a table as tensors, read once. Rows of a batch are index_select()ed.
struct EncodedPatients {
  models::PatientBatch inputs;
  torch::Tensor masks;          // [n,Z,Y,X] int64, 1 inside, -1 without a mask; undefined where the table has none
  torch::Tensor label;          // [n] int64; undefined where the table has none
  torch::Tensor time, event;    // [n] f64, bool; undefined where the table has none
  std::vector<Geometry> grids;  // of each patient's first image, where there is one
  std::vector<data::Box> boxes;  // the voxels of that image, in canonical axes, that its grid covers

  int64_t count() const;
  models::PatientBatch rows(const torch::Tensor& rows) const;
};
/// The 107 radiomic features of each patient's masked region on the first image; all NaN without image or mask.
/// Errors   IoError as data::read_volume(); ArgumentError as data::radiomics(), with the patient's name
std::vector<std::vector<double>> region_measures(const data::PatientTable& table);

/// Texts go through a frozen encoder here, once.
/// Errors   IoError as read_fixed_grid(), or a text encoder that is not there or not the one of training; ArgumentError as WordPieces::encode() and region_measures()
/// measures: of region_measures() where they are at hand; empty: taken now, where the inputs use them.
EncodedPatients encode(const data::PatientTable& table, const PatientInputs& inputs, const std::vector<std::vector<double>>& measures = {});

}  // namespace fovea::recipes
