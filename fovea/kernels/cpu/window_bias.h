#pragma once
#include <cstdint>
#include <vector>

#include "fovea/kernels/cpu/window_plan.h"

// The bias of windowed attention as tiles, and its gradient back from them: one place for the kernels on float vectors
// and on bfloat16 tiles, which differ in how their tiles lie.
namespace fovea::kernels::cpu {

/// A tile holds a number for each (query, key) of a group: rows of lanes, in blocks of `block` lanes one after the
/// other. What is behind the last lane or row is padding.
struct TileLayout {
  enum class Lanes { kQueries, kKeys } lanes;  // rows are the other ones
  int64_t block;                               // 0: one block for all lanes
  int64_t lane_multiple, row_multiple;

  bool lanes_are_queries() const { return lanes == Lanes::kQueries; }
  int64_t lanes_of(const WindowGroup& g) const { return lanes_are_queries() ? g.queries : g.keys(); }
  int64_t rows_of(const WindowGroup& g) const { return lanes_are_queries() ? g.keys() : g.queries; }
  /// Lanes of a row in memory.
  int64_t step(const WindowGroup& g) const { return block ? block : padded(lanes_of(g), lane_multiple); }
  /// Rows of a block in memory.
  int64_t rows(const WindowGroup& g) const { return padded(rows_of(g), row_multiple); }
  int64_t size(const WindowGroup& g) const { return rows(g) * padded(lanes_of(g), lane_multiple); }
  /// Numbers of all tiles of the largest class.
  int64_t largest(const WindowPlan& plan) const;

 private:
  static int64_t padded(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
};

/// The bias tiles of one head and class, in log2 units with the region mask added, kept until others are asked for. A
/// class without bias and mask has a single row of zeros a group. Padding holds `beyond`.
template <class T>
class BiasTiles {
 public:
  /// `memory`: layout.largest(call.plan) numbers.
  BiasTiles(const WindowCall<T>& call, const TileLayout& layout, float beyond, Isa isa, float* memory)
      : call_(call), layout_(layout), beyond_(beyond), isa_(isa), memory_(memory) {}
  void prepare(int64_t head, int32_t window_class);

  const float* tile(size_t group) const { return memory_ + start_[group]; }
  int64_t start(size_t group) const { return start_[group]; }
  /// From row to row: 0 if there is only one.
  int64_t step(const WindowGroup& g) const { return tiled_ ? layout_.step(g) : 0; }
  /// Largest |score| that bias and mask can add; a large negative mask adds none.
  float bound(size_t group) const { return bound_[group]; }

 private:
  const WindowCall<T>& call_;
  TileLayout layout_;
  float beyond_;
  Isa isa_;
  float* memory_;
  std::vector<float> column_;  // of bias_table, times log2(e)
  std::vector<int64_t> start_;
  std::vector<float> bound_;
  int64_t head_ = -1;
  int32_t class_ = -1;
  bool tiled_ = false;
};

/// A backward call: work items and what they sum, whatever they compute with. Chunks are shared out by (head, chunk)
/// and added in their order, so that the bits do not depend on the number of threads.
template <class T>
struct WindowBackwardCall : WindowCall<T> {
  const WindowAttentionBackwardParams<T>& g;
  TokenOffset grad_in, grad_out;
  TileLayout layout;  // of the tiles of the bias gradient
  Isa isa;
  bool bias_wanted;

  WindowBackwardCall(const WindowAttentionBackwardParams<T>& params, const TileLayout& layout, Isa isa);

  int64_t items() const { return this->H * static_cast<int64_t>(this->chunks.size()); }
  /// Adds the float tile of a group to the sum of its item, in double, and clears it.
  void fold(int64_t item, const WindowGroup& group, float* tile);
  /// Where item sums the gradients of the padding token's k and v, [2][C]; null: not wanted.
  double* padding_sum(int64_t item) { return padding_.empty() ? nullptr : &padding_[item * 2 * this->C]; }
  /// Writes the gradients of bias and padding token of a head.
  void reduce(int64_t head) const;

 private:
  int64_t entries_ = 0;          // of the bias parameter, a head
  int64_t entries_step_ = 0;     // the same with room for a vector that nobody else writes
  std::vector<double> bias_;     // [H][chunks][entries_step]; lanes that follow each other are entries that do
  std::vector<double> padding_;  // [H][chunks][2][C]
};

}  // namespace fovea::kernels::cpu
