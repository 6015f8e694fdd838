#pragma once
#include "fovea/core/isa.h"

namespace fovea::kernels {

/// What one thread of this machine reaches now. Clocks drift by tens of percent within an hour: measure in the run that
/// is compared with it.
struct Peaks {
  double fma_gflops = 0;     // float32 multiply-adds in registers, two operations each
  double read_gb_per_s = 0;  // sums of 256 MiB, 1e9 bytes
};

/// Best of some tens of milliseconds each, on vectors of `isa`. 0 where `isa` has no vector kernels.
Peaks measure_peaks(Isa isa = chosen_isa());

/// Multiply-adds of `threads` threads at the same time, 1e9 operations a second for all of them together: two virtual
/// processors may be two cores or one. Best of some runs of about 20 ms. 0 where `isa` has no vector kernels.
double measure_fma_gflops(int threads, Isa isa = chosen_isa());

}  // namespace fovea::kernels
