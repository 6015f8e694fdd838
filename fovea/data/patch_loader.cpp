#include "fovea/data/patch_loader.h"

#include <algorithm>
#include <limits>

#include "fovea/core/error.h"

namespace fovea::data {

void LoaderOptions::validate() const {
  const auto at_least = [](const char* name, int64_t value, int64_t least, int64_t most) {
    if (value < least || value > most)
      throw ArgumentError(std::string("loader: ") + name + " is " + std::to_string(value) + ", expected " +
                          std::to_string(least) + " to " + std::to_string(most));
  };
  at_least("batch_size", batch_size, 0, 1 << 16), at_least("batches_per_epoch", batches_per_epoch, 1, 1 << 24);
  at_least("threads", threads, 1, 256), at_least("queue", queue, 1, 1024);
  at_least("cache_bytes", cache_bytes, 0, std::numeric_limits<int64_t>::max());
  for (const int64_t edge : patch_size) at_least("patch_size", edge, 0, 65536);
  if (!(foreground_fraction >= 0 && foreground_fraction <= 1))
    throw ArgumentError("loader: foreground_fraction is " + std::to_string(foreground_fraction) + ", expected 0 to 1");
}

PatchLoader::PatchLoader(std::vector<Case> cases, const Plan& plan, const AugmentConfig& augment,
                         const LoaderOptions& options)
    : cache_(std::move(cases), plan, options.cache_bytes, options.cache_folder), augment_(augment), options_(options) {
  options_.validate(), augment_.validate();
  if (cache_.size() == 0) throw ArgumentError("loader: no cases");
  labelled_ = !cache_[0].label.empty();
  for (int64_t i = 0; i < cache_.size(); ++i)
    if (cache_[i].label.empty() == labelled_)
      throw ArgumentError("loader: case '" + cache_[labelled_ ? i : 0].id + "' has no label, but others have");
  for (const auto& swap : augment_.flip_x_swaps)
    for (const int k : swap)
      if (k >= plan.classes())
        throw ArgumentError("loader: flip_x_swaps names class " + std::to_string(k) + ", the plan has 0 to " +
                            std::to_string(plan.classes() - 1));
  if (options_.batch_size == 0) options_.batch_size = plan.batch_size;
  for (int a = 0; a < 3; ++a) patch_[a] = options_.patch_size[a] ? options_.patch_size[a] : plan.patch_size[a];
}

PatchLoader::~PatchLoader() { stop(); }

std::shared_ptr<const TrainingCase> PatchLoader::case_of(uint32_t epoch, uint32_t sample) {
  for (int64_t attempt = 0; attempt < cache_.size(); ++attempt) {
    // With kSkip the place of a broken case is taken by the next one of the same order: what is broken decides, not
    // when.
    const uint32_t n = static_cast<uint32_t>(cache_.size());
    const uint32_t turned = sample / n * n + (sample % n + static_cast<uint32_t>(attempt)) % n;
    const int64_t i = case_of_sample(options_.seed, epoch, turned, n);
    const std::string& id = cache_[i].id;
    std::string problem;
    ExitCode code = ExitCode::kBug;
    try {
      return cache_.get(i);
    } catch (const Error& error) {
      problem = error.what(), code = error.code();
    } catch (const std::bad_alloc&) {
      problem = "does not fit into memory", code = ExitCode::kOutOfResource;
    } catch (const std::exception& error) {
      problem = error.what();
    }
    if (options_.on_fault == OnFault::kStop || code != ExitCode::kBadInput)
      throw Error(code, "case " + id + ": " + problem);
    const std::lock_guard lock(faults_mutex_);
    faults_.emplace(id, problem);
  }
  throw Error(ExitCode::kBadInput, "loader: none of " + std::to_string(cache_.size()) +
                                       " cases can be used; the first problem: " + faults().begin()->second);
}

Batch PatchLoader::get(uint32_t epoch, uint32_t index) {
  const int64_t batch_size = options_.batch_size, channels = cache_.plan().channels(),
                voxels = patch_[0] * patch_[1] * patch_[2];
  Batch batch;
  batch.epoch = epoch, batch.index = index;
  batch.image = torch::empty({batch_size, channels, patch_[0], patch_[1], patch_[2]}, torch::kFloat);
  if (labelled_) batch.label = torch::empty({batch_size, patch_[0], patch_[1], patch_[2]}, torch::kLong);
  for (int64_t b = 0; b < batch_size; ++b) {
    const SampleKey key{options_.seed, epoch, static_cast<uint32_t>(int64_t(index) * batch_size + b)};
    const auto one = case_of(epoch, key.index);
    const auto position = choose_position(one->shape, patch_, one->foreground,
                                          forces_foreground(key.index, options_.foreground_fraction), key);
    float* image = batch.image.data_ptr<float>() + b * channels * voxels;
    int64_t* label = labelled_ ? batch.label.data_ptr<int64_t>() + b * voxels : nullptr;
    const auto make = [&](auto* classes) {
      using T = std::remove_const_t<std::remove_pointer_t<decltype(classes)>>;
      const PatchSource<T> source{one->image.data_ptr<float>(), classes, channels, one->shape, one->spacing_mm};
      augmented_patch(source, position.begin, patch_, augment_, key, image, label);
    };
    if (labelled_ && one->label.scalar_type() == torch::kShort)
      make(static_cast<const int16_t*>(one->label.data_ptr<int16_t>()));
    else
      make(labelled_ ? static_cast<const uint8_t*>(one->label.data_ptr<uint8_t>())
                     : static_cast<const uint8_t*>(nullptr));
    batch.ids.push_back(one->id), batch.positions.push_back(position);
  }
  return batch;
}

void PatchLoader::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || next_to_make_ < next_to_give_ + options_.queue; });
    if (stopping_) return;
    const int64_t number = next_to_make_++;
    lock.unlock();
    Prepared made;
    try {
      made.batch = get(static_cast<uint32_t>(number / options_.batches_per_epoch),
                       static_cast<uint32_t>(number % options_.batches_per_epoch));
    } catch (...) {
      made.failure = std::current_exception();
    }
    lock.lock();
    ready_.emplace(number, std::move(made));
    changed_.notify_all();
  }
}

void PatchLoader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (auto& thread : threads_) thread.join();
  threads_.clear(), ready_.clear();
  running_ = stopping_ = false;
}

void PatchLoader::start(uint32_t epoch, uint32_t index) {
  if (index >= options_.batches_per_epoch)
    throw ArgumentError("loader: batch " + std::to_string(index) + " of an epoch of " +
                        std::to_string(options_.batches_per_epoch));
  stop();
  next_to_make_ = next_to_give_ = int64_t(epoch) * options_.batches_per_epoch + index;
  running_ = true;
  for (int64_t t = 0; t < options_.threads; ++t) threads_.emplace_back([this] { work(); });
}

Batch PatchLoader::next() {
  if (!running_) start();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ready_.contains(next_to_give_); });
  Prepared made = std::move(ready_.extract(next_to_give_).mapped());
  ++next_to_give_;
  lock.unlock();
  changed_.notify_all();
  if (made.failure) std::rethrow_exception(made.failure);
  return std::move(made.batch);
}

std::map<std::string, std::string> PatchLoader::faults() const {
  const std::lock_guard lock(faults_mutex_);
  return faults_;
}

}  // namespace fovea::data
