#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <torch/types.h>

#include "fovea/data/augment.h"
#include "fovea/data/case_cache.h"

namespace fovea::data {

/// What happens when a case cannot be used in the middle of a run.
enum class OnFault {
  kStop,  // the error reaches the caller of get() or next(), with the case's name
  kSkip   // the next case in the epoch's order takes its place; faults() lists it
};
inline auto config_names(OnFault) {
  return std::array{std::pair{OnFault::kStop, "stop"}, std::pair{OnFault::kSkip, "skip"}};
}

struct LoaderOptions {
  uint64_t seed = 0;
  int64_t batch_size = 0;                      // 0: the plan's
  std::array<int64_t, 3> patch_size{0, 0, 0};  // 0: the plan's
  int64_t batches_per_epoch = 250;
  float foreground_fraction = 1.0f / 3;
  int64_t threads = 1;                     // that prepare batches in the background
  int64_t queue = 4;                       // batches that may be ready or in work at once
  int64_t cache_bytes = int64_t{1} << 30;  // preprocessed cases kept in memory
  std::filesystem::path cache_folder;      // preprocessed cases kept on disk; empty: none
  OnFault on_fault = OnFault::kStop;

  template <class V>
  void visit(V& v) {
    v("seed", seed, "of case order, positions and augmentation");
    v("batch_size", batch_size, "patches a batch; 0: the plan's");
    v("patch_size", patch_size, "voxels of a patch, Z, Y, X; 0: the plan's");
    v("batches_per_epoch", batches_per_epoch, "batches an epoch");
    v("foreground_fraction", foreground_fraction, "share of patches that are built around a foreground voxel");
    v("threads", threads, "threads that prepare batches");
    v("queue", queue, "batches that may be ready or in work at once");
    v("cache_bytes", cache_bytes, "memory for preprocessed cases");
    v("cache_folder", cache_folder, "folder for preprocessed cases; empty: none");
    v("on_fault", on_fault, "stop or skip when a case cannot be read");
  }
  /// Errors  ArgumentError naming the first field out of range.
  void validate() const;
};

struct Batch {
  uint32_t epoch = 0, index = 0;
  torch::Tensor image;                   // [B,C,z,y,x] f32
  torch::Tensor label;                   // [B,z,y,x] i64 class indices; undefined when no case has labels
  std::vector<std::string> ids;          // case of each patch
  std::vector<PatchPosition> positions;  // on that case's grid
};

/// Augmented patches of preprocessed cases, in batches. A batch depends on (seed, epoch, index), cases, plan and
/// settings alone: the same bits for any number of threads, any queue, any cache, and after a resume at any batch.
/// Memory  cache_bytes + queue batches + one case for each thread.
class PatchLoader {
 public:
  /// Errors  ArgumentError: no cases, labelled and unlabelled cases mixed, options out of range.
  PatchLoader(std::vector<Case> cases, const Plan& plan, const AugmentConfig& augment, const LoaderOptions& options);
  ~PatchLoader();
  PatchLoader(const PatchLoader&) = delete;
  PatchLoader& operator=(const PatchLoader&) = delete;

  /// Batch `index` of `epoch`, made on the calling thread.
  Batch get(uint32_t epoch, uint32_t index);

  /// Lets the background threads begin with this batch; drops what they had prepared.
  void start(uint32_t epoch = 0, uint32_t index = 0);
  /// The next batch in order, epoch after epoch. Calls start() if nobody has. Errors: what get() would have thrown for
  /// that batch; the call after that gives the batch after it.
  Batch next();

  int64_t batches_per_epoch() const { return options_.batches_per_epoch; }
  int64_t cases() const { return cache_.size(); }
  /// Cases that were skipped (OnFault::kSkip) and why, by id.
  std::map<std::string, std::string> faults() const;
  const CaseCache& cache() const { return cache_; }

 private:
  struct Prepared {
    Batch batch;
    std::exception_ptr failure;
  };
  void work();
  void stop();
  std::shared_ptr<const TrainingCase> case_of(uint32_t epoch, uint32_t sample);

  CaseCache cache_;
  AugmentConfig augment_;
  LoaderOptions options_;
  std::array<int64_t, 3> patch_;
  bool labelled_ = false;

  mutable std::mutex faults_mutex_;
  std::map<std::string, std::string> faults_;

  // Batches are numbered epoch * batches_per_epoch + index.
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::thread> threads_;
  std::map<int64_t, Prepared> ready_;
  int64_t next_to_make_ = 0, next_to_give_ = 0;
  bool running_ = false, stopping_ = false;
};

}  // namespace fovea::data
