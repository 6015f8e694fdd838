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

/// The same without any bias, but with nn::Rotary turning queries and keys. What "peaks" is then the score of the mean
/// query with the mean key, over all displacements of the window. Trains for 1000 steps: some seconds.
RightNeighbour learn_right_neighbour_by_rotary(uint64_t seed);

/// The task learnt in windows of from^3 and, without further training, put to windows of to^3.
struct WindowChange {
  double loss_before = 0, loss_after = 0;  // cross-entropy, nats; naming symbols by chance costs ln 8 = 2.079
  double accuracy_before = 0, accuracy_after = 0;
};
/// nn::WindowAttention with the bias of each kind: a table resized by nn::resize_bias_table(), or Swin-v2's continuous
/// bias and cosine scores, whose weights serve any window. Cost: some seconds for windows of 7^3.
enum class NeighbourBias { kTable, kContinuous };
WindowChange change_window(NeighbourBias bias, int64_t from, int64_t to, uint64_t seed);

}  // namespace fovea::recipes
