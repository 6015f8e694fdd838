#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace fovea::ops {

/// A tensor argument under the name that the op's schema gives it; an undefined tensor is an absent argument.
struct Argument {
  const char* name;
  const at::Tensor& tensor;
};

/// The checks that ops share. They read metadata only, so that CPU, CUDA and meta tensors take the same path, symbolic
/// sizes included, and they fail with one line that names the argument and shows all of them:
///   <op>: <argument> has <what>, expected <rule>; <the shapes>
class ArgumentCheck {
 public:
  ArgumentCheck(const char* op, std::initializer_list<Argument> arguments) : op_(op) {
    for (const Argument& a : arguments) {
      if (a.tensor.defined()) arguments_.push_back(a);
    }
  }

  /// Shows an integer argument in failures, beside the shapes. `values` outlives this.
  void show(const char* name, at::IntArrayRef values) { integers_.push_back({name, values}); }

  /// All present arguments are on one device.
  void one_device() const;
  /// `axes` as in "[B,H,N,C]": as many axes as it has letters or products between commas.
  void rank(const Argument& a, int64_t rank, std::string_view axes) const;
  /// a's size along `axis`, called `what` ("heads"), is `expected`, because of `why` ("the heads of q").
  void size(const Argument& a, int64_t axis, std::string_view what, const c10::SymInt& expected,
            std::string_view why) const;
  void at_least_one(const Argument& a, int64_t axis, std::string_view what) const;
  /// a's dtype is one of `allowed`, because of `why` ("" or "the dtype of q").
  void dtype(const Argument& a, std::initializer_list<at::ScalarType> allowed, std::string_view why) const;
  /// An additive term of the scores: the dtype that scores are computed in for `base`'s dtype, or that dtype itself.
  void dtype_of_scores(const Argument& a, const Argument& base) const;

  /// Throws "<op>: <found>, expected <rule>; <the shapes>".
  [[noreturn]] void fail(std::string_view found, std::string_view rule) const;

 private:
  const char* op_;
  c10::SmallVector<Argument, 8> arguments_;
  c10::SmallVector<std::pair<const char*, at::IntArrayRef>, 2> integers_;
};

/// "[2,3,8,32]".
std::string shape_text(c10::SymIntArrayRef sizes);

/// The values of `queries` (int64 [R], on the CPU) are in [0, count); `of` says what is counted. An index error names
/// the first that is not.
void check_query_indices(const char* op, const at::Tensor& queries, int64_t count, std::string_view of);

}  // namespace fovea::ops
