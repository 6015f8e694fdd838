#pragma once
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace fovea::ops {

/// How far bfloat16 results of ours and of torch's composition of the same inputs lie from float64 (largest error of a
/// tensor each), over many problems. FlashAttention's tests allow 2 and 3 times torch's error, these 1.5.
class Bfloat16Error {
 public:
  explicit Bfloat16Error(std::string what) : what_(std::move(what)) {}

  void compare(const std::vector<at::Tensor>& ours, const std::vector<at::Tensor>& torchs,
               const std::vector<at::Tensor>& exact, const std::string& problem) {
    ++problems_;
    for (size_t t = 0; t < exact.size(); ++t) {
      const auto error = [&](const at::Tensor& x) { return (x.to(at::kDouble) - exact[t]).abs().max().item<double>(); };
      const double a = error(ours[t]), b = error(torchs[t]);
      // Torch may be right by chance; the rounding of the largest element is always allowed.
      const double rounding = exact[t].abs().max().item<double>() / 512;
      EXPECT_LE(a, 1.5 * std::max(b, rounding)) << what_ << ", tensor " << t << " of " << problem;
      if (b > 0) worst_ = std::max(worst_, a / std::max(b, rounding));
    }
  }
  ~Bfloat16Error() {
    std::printf("bfloat16 %s: %.2f of torch's error at worst in %d problems\n", what_.c_str(), worst_, problems_);
  }

 private:
  std::string what_;
  double worst_ = 0;
  int problems_ = 0;
};

}  // namespace fovea::ops
