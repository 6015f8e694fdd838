#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace fovea {

/// A strided window on memory that somebody else owns. Strides count elements and may be zero (broadcast).
/// v(i, j, ...) is the element; slicing the first axis gives a view of one rank less.
template <class T, int Rank>
struct View {
  T* data = nullptr;
  std::array<int64_t, Rank> shape{};
  std::array<int64_t, Rank> stride{};

  /// C-contiguous view.
  static View contiguous(T* data, const std::array<int64_t, Rank>& shape) {
    View v{data, shape, {}};
    int64_t step = 1;
    for (int a = Rank - 1; a >= 0; --a) v.stride[a] = step, step *= shape[a];
    return v;
  }

  template <class... I>
  T& operator()(I... index) const {
    static_assert(sizeof...(I) == Rank);
    const int64_t i[] = {static_cast<int64_t>(index)...};
    int64_t offset = 0;
    for (int a = 0; a < Rank; ++a) offset += i[a] * stride[a];
    return data[offset];
  }

  View<T, Rank - 1> operator[](int64_t i) const {
    View<T, Rank - 1> v;
    v.data = data + i * stride[0];
    for (int a = 1; a < Rank; ++a) v.shape[a - 1] = shape[a], v.stride[a - 1] = stride[a];
    return v;
  }

  int64_t size() const {
    int64_t n = 1;
    for (int64_t s : shape) n *= s;
    return n;
  }

  bool is_contiguous() const { return stride == contiguous(data, shape).stride; }

  operator View<const T, Rank>() const requires(!std::is_const_v<T>) { return {data, shape, stride}; }
};

}  // namespace fovea
