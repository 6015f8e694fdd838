#pragma once
#include <cstdint>

#include <ATen/record_function.h>

namespace fovea::recipes {

/// While it lives, counts the arithmetic of every matrix product that torch carries out: what a layer written with
/// torch's operators really computes, to compare a formula with. Our fused operators are no products of torch and are
/// not seen. Only one at a time.
class FlopCounter {
 public:
  FlopCounter();
  ~FlopCounter();
  FlopCounter(const FlopCounter&) = delete;
  FlopCounter& operator=(const FlopCounter&) = delete;

  /// A multiplication and an addition each.
  int64_t multiply_adds() const;

 private:
  at::CallbackHandle handle_;
};

}  // namespace fovea::recipes
