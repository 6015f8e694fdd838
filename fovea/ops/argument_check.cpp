#include "fovea/ops/argument_check.h"

#include <c10/util/StringUtil.h>

#include <algorithm>

namespace fovea::ops {
namespace {

std::string_view dtype_name(at::ScalarType dtype) { return c10::getDtypeNames(dtype).first; }

}  // namespace

std::string shape_text(c10::SymIntArrayRef sizes) {
  std::string text = "[";
  for (const c10::SymInt& size : sizes) text += (text.size() > 1 ? "," : "") + c10::str(size);
  return text + "]";
}

void ArgumentCheck::fail(std::string_view found, std::string_view rule) const {
  std::string shapes;
  for (const Argument& a : arguments_) {
    shapes += c10::str(shapes.empty() ? "; " : ", ", a.name, " ", shape_text(a.tensor.sym_sizes()));
  }
  for (const auto& [name, values] : integers_)
    shapes += c10::str(", ", name, " ", shape_text(c10::fromIntArrayRefSlow(values)));
  TORCH_CHECK(false, op_, ": ", found, ", expected ", rule, shapes);
}

void ArgumentCheck::one_device() const {
  const Argument& first = arguments_.front();
  for (const Argument& a : arguments_) {
    if (a.tensor.device() != first.tensor.device()) {
      fail(c10::str(a.name, " is on ", a.tensor.device()),
           c10::str(first.tensor.device(), " (the device of ", first.name, ")"));
    }
  }
}

void ArgumentCheck::rank(const Argument& a, int64_t rank, std::string_view axes) const {
  if (a.tensor.defined() && a.tensor.dim() != rank)
    fail(c10::str(a.name, " has ", a.tensor.dim(), " axes"), c10::str(rank, ", ", axes));
}

void ArgumentCheck::size(const Argument& a, int64_t axis, std::string_view what, const c10::SymInt& expected,
                         std::string_view why) const {
  if (a.tensor.defined() && a.tensor.sym_size(axis) != expected) {
    fail(c10::str(a.name, " has ", a.tensor.sym_size(axis), " ", what), c10::str(expected, " (", why, ")"));
  }
}

void ArgumentCheck::at_least_one(const Argument& a, int64_t axis, std::string_view what) const {
  if (a.tensor.sym_size(axis) < 1) fail(c10::str(a.name, " has 0 ", what), "at least 1");
}

void ArgumentCheck::dtype(const Argument& a, std::initializer_list<at::ScalarType> allowed,
                          std::string_view why) const {
  if (!a.tensor.defined() || std::find(allowed.begin(), allowed.end(), a.tensor.scalar_type()) != allowed.end()) return;
  std::string rule;
  for (const at::ScalarType& t : allowed) {
    rule += c10::str(rule.empty() ? "" : &t + 1 == allowed.end() ? " or " : ", ", dtype_name(t));
  }
  fail(c10::str(a.name, " is ", dtype_name(a.tensor.scalar_type())),
       why.empty() ? rule : c10::str(rule, " (", why, ")"));
}

void ArgumentCheck::dtype_of_scores(const Argument& a, const Argument& base) const {
  if (!a.tensor.defined()) return;
  const at::ScalarType found = a.tensor.scalar_type(), t = base.tensor.scalar_type();
  if (found == t || (t == at::kBFloat16 && found == at::kFloat)) return;
  const std::string rule = c10::str(t == at::kBFloat16 ? "float32 or " : "", dtype_name(t));
  fail(c10::str(a.name, " is ", dtype_name(found)), c10::str(rule, " (", base.name, " is ", dtype_name(t), ")"));
}

void check_query_indices(const char* op, const at::Tensor& queries, int64_t count, std::string_view of) {
  const auto query = queries.accessor<int64_t, 1>();
  for (int64_t r = 0; r < query.size(0); ++r) {
    TORCH_CHECK_INDEX(0 <= query[r] && query[r] < count, op, ": queries[", r, "] is ", query[r],
                      ", expected 0 <= query < ", count, " (", of, ")");
  }
}

}  // namespace fovea::ops
