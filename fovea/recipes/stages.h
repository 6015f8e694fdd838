#pragma once
#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace fovea::recipes {

/// Wall-clock seconds of named stages, in the order of their first use: where the wait of a user goes.
class Stages {
 public:
  /// Runs `work` and adds its time to `name`; returns what work returns.
  template <class Work>
  auto run(const std::string& name, Work&& work) {
    struct Stop {
      Stages& stages;
      const std::string& name;
      std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
      ~Stop() { stages.add(name, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()); }
    } stop{*this, name};
    return work();
  }

  void add(const std::string& name, double seconds) {
    for (auto& [known, sum] : seconds_)
      if (known == name) return void(sum += seconds);
    seconds_.emplace_back(name, seconds);
  }

  const std::vector<std::pair<std::string, double>>& seconds() const { return seconds_; }
  double total() const {
    double sum = 0;
    for (const auto& [name, s] : seconds_) sum += s;
    return sum;
  }

 private:
  std::vector<std::pair<std::string, double>> seconds_;
};

}  // namespace fovea::recipes
