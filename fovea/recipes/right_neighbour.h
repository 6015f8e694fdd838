#pragma once
#include <cstdint>
#include <vector>

namespace fovea::recipes {

/// What one attention layer on windows of 4^3 tokens with random symbols learnt, when each token shall name its right
/// neighbour's symbol. Content cannot tell which token is the neighbour, so without position the best guess is the most
/// frequent symbol of the window.
struct RightNeighbour {
  double accuracy;
  double majority;                // accuracy of naming the window's most frequent symbol
  bool peaks_at_right_neighbour;  // the bias table's largest entry is that of displacement (0, 0, +1)
  std::vector<double> bias;       // [7,7,7], by displacement of the key from the query, -3 to 3 along Z, Y, X
};

/// Trains for 250 steps: some tenths of a second.
RightNeighbour learn_right_neighbour(bool with_bias, uint64_t seed);

}  // namespace fovea::recipes
