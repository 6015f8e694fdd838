#pragma once
#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "fovea/data/slide_table.h"
#include "fovea/models/bag_network.h"
#include "fovea/train/instance_loss.h"
#include "fovea/train/trainer.h"

namespace fovea::recipes {

enum class SlideNetwork {
  kAbmil,     ///< gated attention (Ilse et al. 2018)
  kClamSb,    ///< CLAM, one attention for all classes (Lu et al. 2021)
  kClamMb,    ///< CLAM, one attention a class
  kTransmil,  ///< Shao et al. 2021
  kMean,      ///< mean pooling: baseline
  kMax,       ///< maximum pooling: baseline
};
inline auto config_names(SlideNetwork) {
  return std::array{std::pair{SlideNetwork::kAbmil, "abmil"},       std::pair{SlideNetwork::kClamSb, "clam_sb"}, std::pair{SlideNetwork::kClamMb, "clam_mb"},
                    std::pair{SlideNetwork::kTransmil, "transmil"}, std::pair{SlideNetwork::kMean, "mean"},      std::pair{SlideNetwork::kMax, "max"}};
}

/// "abmil", "clam_sb", ...
std::string name_of(SlideNetwork network);

/// Everything that decides a run of the recipe `slide`; runs/NAME/config.json holds it resolved.
struct SlideConfig {
  std::string features, splits;
  SlideNetwork network = SlideNetwork::kAbmil;
  int64_t width = 256;
  int64_t hidden = 128;
  int64_t heads = 8;
  int64_t landmarks = 128;
  double dropout = 0.25;
  bool standardise = true;
  bool balance_classes = true;
  double instance_weight = 0.3;
  int64_t instances = 8;
  bool subtyping = false;
  double validation_share = 0.2;
  int64_t max_tiles = 0;
  train::TrainConfig train = defaults();

  template <class V>
  void visit(V& v) {
    v("features", features, "folder of the feature files (CLAM or TRIDENT layout); empty: the table's own folder");
    v("splits", splits, "CLAM's splits_k.csv with columns train, val and test; empty: cases are drawn by the seed");
    v("network", network, "abmil, clam_sb, clam_mb, transmil, or the baselines mean and max");
    v("width", width, "of what is pooled");
    v("hidden", hidden, "rows of V and U in the attention");
    v("heads", heads, "of transmil");
    v("landmarks", landmarks, "of transmil");
    v("dropout", dropout, "behind the first layer");
    v("standardise", standardise, "features are put on the training slides' mean and deviation");
    v("balance_classes", balance_classes, "each class is drawn equally often");
    v("instance_weight", instance_weight, "of CLAM's instance loss; 0 = none");
    v("instances", instances, "of the highest and of the lowest attention, for that loss");
    v("subtyping", subtyping, "CLAM: classes exclude each other");
    v("validation_share", validation_share, "of the training cases, who choose the checkpoint; 0 = the last one is taken");
    v("max_tiles", max_tiles, "that a training step takes at random from a slide; 0 = all");
    v("train", train, "optimiser, schedule, length, checkpoints");
  }
  static train::TrainConfig defaults();
  /// Errors  ArgumentError naming the field.
  void validate() const;
  /// The network for tiles of so many numbers.
  models::BagConfig bag_config(int64_t features, int64_t classes) const;
};

/// The config for a table: defaults, then `file` (may be empty), then `overrides` ("network=clam_mb"). Unless they say how
/// long, 30 times as many steps as there are slides, 300 at least.
/// Errors   ArgumentError naming the key and its nearest known one
SlideConfig resolve_slide_config(const data::SlideTable& table, const std::filesystem::path& file, const std::vector<std::string>& overrides);

}  // namespace fovea::recipes
