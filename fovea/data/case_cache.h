#pragma once
#include <atomic>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fovea/data/patch_sampler.h"
#include "fovea/data/preprocess.h"

namespace fovea::data {

/// What training needs of a preprocessed case.
struct TrainingCase {
  std::string id;
  torch::Tensor image;  // [C,Z,Y,X] f32
  torch::Tensor label;  // [Z,Y,X] u8 or i16; undefined: none
  std::array<int64_t, 3> shape{};
  std::array<double, 3> spacing_mm{};
  ForegroundIndex foreground;

  int64_t bytes() const;
};

/// Preprocessed cases on demand, for any number of threads. Those that fit into `max_bytes` stay in memory (first come,
/// first kept: with random order an eviction rule could not do better); the others are made again each time, or read
/// from `folder`, if one is given, where each is kept as ID-KEY.safetensors. The key is a SHA-256 over what the plan
/// says about preprocessing and over path, size and time of the case's files, so a changed plan or file is made anew.
class CaseCache {
 public:
  CaseCache(std::vector<Case> cases, Plan plan, int64_t max_bytes, std::filesystem::path folder = {});

  int64_t size() const { return static_cast<int64_t>(cases_.size()); }
  const Case& operator[](int64_t i) const { return cases_[i]; }
  const Plan& plan() const { return plan_; }
  /// Errors  as preprocess(); a case that failed is tried again when asked again.
  std::shared_ptr<const TrainingCase> get(int64_t i);
  int64_t bytes() const { return bytes_; }
  /// Times a case was made from its image files, not found in memory or folder.
  int64_t preprocessed() const { return preprocessed_; }

 private:
  std::shared_ptr<const TrainingCase> load(int64_t i);
  std::string key(const Case& one) const;

  std::vector<Case> cases_;
  Plan plan_;
  int64_t max_bytes_;
  std::filesystem::path folder_;
  std::string plan_key_;
  std::vector<std::shared_ptr<const TrainingCase>> kept_;
  std::vector<std::mutex> busy_;  // one a case, so that two threads do not make the same one
  std::atomic<int64_t> bytes_{0}, preprocessed_{0};
};

}  // namespace fovea::data
