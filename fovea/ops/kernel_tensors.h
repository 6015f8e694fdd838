#pragma once
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include <optional>
#include <type_traits>

#include "fovea/core/dtype.h"
#include "fovea/core/view.h"

namespace fovea::ops {

// How tensors reach kernels: dtype, layout, views. Every op goes through these few functions.

using OptionalTensor = std::optional<at::Tensor>;

/// An absent optional tensor as an undefined one, and back.
inline at::Tensor or_undefined(const OptionalTensor& t) { return t ? *t : at::Tensor(); }
inline OptionalTensor or_none(const at::Tensor& t) { return t.defined() ? OptionalTensor(t) : OptionalTensor(); }

/// dtype of the kernel that serves tensors of `dtype`: float64 has the reference kernel, all others compute in float32.
inline at::ScalarType kernel_dtype(at::ScalarType dtype) { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

/// Calls f(T{}) with the element type of the kernel that serves `dtype`.
template <class F>
void with_kernel_type(at::ScalarType dtype, F&& f) {
  dtype == at::kDouble ? f(double{}) : f(float{});
}

/// Calls f(T{}) with the element type of the attention kernels, which read and write bfloat16 as it is.
template <class F>
void with_attention_type(at::ScalarType dtype, F&& f) {
  dtype == at::kBFloat16 ? f(BFloat16{}) : with_kernel_type(dtype, f);
}

/// `t` as a kernel takes it: in its dtype and with channels (the last axis) adjacent. A copy only where that does not
/// hold already; undefined stays undefined.
inline at::Tensor for_kernel(const at::Tensor& t, at::ScalarType dtype) {
  if (!t.defined()) return t;
  const at::Tensor converted = t.to(dtype);
  return converted.stride(-1) == 1 ? converted : converted.contiguous();
}

/// Where a kernel writes what belongs into `t`: `t` itself if its dtype is the kernel's. put() hands it over.
inline at::Tensor kernel_output(const at::Tensor& t, at::ScalarType dtype) {
  return t.scalar_type() == dtype ? t : at::empty_like(t, dtype);
}
inline void put(const at::Tensor& computed, const at::Tensor& into) {
  if (!computed.is_same(into)) into.copy_(computed);
}

/// The elements of `t`, which must outlive the view; bool arrives as uint8_t. An undefined tensor gives data null.
template <class T, int Rank>
View<T, Rank> view_of(const at::Tensor& t) {
  View<T, Rank> view;
  if (!t.defined()) return view;
  TORCH_INTERNAL_ASSERT(t.dim() == Rank);
  using Element = std::remove_const_t<T>;
  using Stored = std::conditional_t<std::is_same_v<Element, BFloat16>, at::BFloat16, Element>;
  if constexpr (std::is_same_v<T, const uint8_t>) {
    view.data = reinterpret_cast<T*>(t.const_data_ptr<bool>());
  } else if constexpr (std::is_const_v<T>) {
    view.data = reinterpret_cast<T*>(t.const_data_ptr<Stored>());
  } else {
    view.data = reinterpret_cast<T*>(t.mutable_data_ptr<Stored>());
  }
  for (int axis = 0; axis < Rank; ++axis) view.shape[axis] = t.size(axis), view.stride[axis] = t.stride(axis);
  if (view.shape[Rank - 1] == 1) view.stride[Rank - 1] = 1;  // torch leaves the stride of a single element open
  return view;
}

/// The dtype that autocast asks for on the CPU; float64 stays.
inline at::Tensor to_autocast_dtype(const at::Tensor& t) {
  return at::autocast::cached_cast(at::autocast::get_autocast_dtype(at::kCPU), t, at::kCPU);
}
inline OptionalTensor to_autocast_dtype(const OptionalTensor& t) {
  return t ? OptionalTensor(to_autocast_dtype(*t)) : t;
}

}  // namespace fovea::ops
