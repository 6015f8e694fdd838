#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "fovea/kernels/peaks.h"

namespace fovea::recipes {

/// One comparison: the same numbers computed by us and by a peer, in turns in one process.
struct BenchRow {
  std::string name, shape, dtype, peer;
  double ours_best_ms = 0, ours_median_ms = 0, peer_best_ms = 0, peer_median_ms = 0;
  double ratio = 0;                   // peer_best_ms / ours_best_ms
  double target = 0;                  // what the ratio must reach; 0: none
  double rate = 0;                    // of ours: 1e9 scores a second; 0: does not apply
  double roofline_share = 0;          // of the port roofline at this run's multiply-add peak; 0: does not apply
  double error = 0, error_bound = 0;  // of ours against float64: largest difference over largest value;
                                      // convolution: relative L2
  double dice = -1;                   // of the labels against float32's; -1: does not apply
  int64_t workspace_bytes = -1;       // resident memory that one run adds beside inputs and outputs; -1: not measured

  /// Fast enough and right.
  bool ok() const { return error <= error_bound && (target == 0 || ratio >= target); }
};

struct BenchReport {
  std::string isa, cpu;
  kernels::Peaks peaks;
  double two_thread_speed = 0;  // multiply-adds of two threads at once over those of one
  std::vector<BenchRow> rows;
};

struct BenchOptions {
  double seconds = 3;                            // a row, ours and the peer together; 200 runs end it earlier
  double peak_gflops = 0, two_thread_speed = 0;  // filled in by run_bench
  uint64_t seed = 0;
};

/// Whether two threads have a core each. Less than twice the speed: they share one, or another job runs.
inline bool has_two_cores(double two_thread_speed) { return two_thread_speed >= 1.9; }

using BenchDone = std::function<void(const BenchRow&)>;

/// Parts, or "all":
///   attention   dense, against torch's scaled_dot_product_attention
///   window      from the qkv volume, against permute, the same, permute back
///   threads     the window kernel on two threads against one
///   block       a Swin block against the same block of torch's operators
///   encoder     of SwinUNETR; network, train-step: all of it. Alone: benchmarks/peers.py has the peers
///   conv        3x3x3, against oneDNN
///   norm        instance norm and leaky ReLU, against torch's
/// Every row is checked against float64 before it is timed. One thread, except where a row says otherwise.
/// Errors  ArgumentError for an unknown part.
BenchReport run_bench(const std::vector<std::string>& parts, BenchOptions options, const BenchDone& done = {});

/// "attention, window, ... or all".
std::string bench_part_names();

void bench_attention(const BenchOptions& options, const BenchDone& done);
void bench_window(const BenchOptions& options, const BenchDone& done);
void bench_threads(const BenchOptions& options, const BenchDone& done);
void bench_block(const BenchOptions& options, const BenchDone& done);
void bench_encoder(const BenchOptions& options, const BenchDone& done);
void bench_norm(const BenchOptions& options, const BenchDone& done);
void bench_network(const BenchOptions& options, const BenchDone& done);
void bench_train_step(const BenchOptions& options, const BenchDone& done);
void bench_conv(const BenchOptions& options, const BenchDone& done);

/// Runs `ours` and `peer` in turns and fills in the times and the ratio. Without a peer: ours alone.
void time_in_turns(BenchRow& row, const BenchOptions& options, const std::function<void()>& ours,
                   const std::function<void()>& peer);

/// Bytes of resident memory that one call of `work` adds at its height, less the bytes of its result, which it returns.
/// `work` runs twice, since the first call fills caches that outlive it. -1 where the system does not say.
int64_t measure_workspace(const std::function<int64_t()>& work);

}  // namespace fovea::recipes
