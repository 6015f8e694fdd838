#pragma once
#include <cstdint>

#include "fovea/recipes/slide_config.h"

namespace fovea::recipes {

/// Simulated slides with one to four inflamed places, as blue as tumour, every second slide with a tumour planted in it too: written as pyramids, read back through OpenSlide, cut into
/// tiles of tissue and learnt from by the label of the slide alone. Does the attention find the tumour?
struct PlantedTumourRun {
  SlideNetwork network = SlideNetwork::kAbmil;
  int64_t train = 36, test = 12;  // slides
  bool shuffled = false;         // control: training labels dealt anew among the slides, so that nothing can be learnt
  uint64_t seed = 0;

  // Of test slides:
  double slide_auc = 0;
  double mean_auc = 0;        // baseline: logistic regression on the mean tile
  double tile_auc = 0;        // of the attention, tumour tiles against the others, mean over slides with a tumour
  double stain_auc = 0;       // baseline: of the amount of haematoxylin, which needs no learning
  double top_percent = 0;     // share of the top 1 % of tiles by attention that touch the tumour
  int64_t tiles = 0;
  double seconds = 0;
};

/// Tiles that the tumour covers to half or more count as tumour; those it only touches count as neither for the AUC.
/// Cost   1 s a slide, of which most is making it
void learn_planted_tumour(PlantedTumourRun& run);

}  // namespace fovea::recipes
