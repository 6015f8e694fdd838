#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace fovea {

/// Element types of volumes, tensors on disk and kernels.
enum class DType : uint8_t { kBool, kU8, kI8, kU16, kI16, kU32, kI32, kU64, kI64, kF16, kBF16, kF32, kF64 };

/// Bytes of one element.
constexpr size_t size_of(DType t) {
  constexpr size_t sizes[] = {1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8};
  return sizes[static_cast<int>(t)];
}

/// "f32", "u8", ...: the names used in messages and files of our own.
constexpr std::string_view name_of(DType t) {
  constexpr std::string_view names[] = {"bool", "u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f16", "bf16", "f32", "f64"};
  return names[static_cast<int>(t)];
}

constexpr bool is_floating(DType t) { return t >= DType::kF16; }

/// A bfloat16 number: the upper half of a float32.
struct BFloat16 {
  uint16_t bits = 0;

  BFloat16() = default;
  /// Rounds to the nearest, ties to even; a NaN stays one.
  explicit BFloat16(float value) {
    const auto whole = std::bit_cast<uint32_t>(value);
    bits = value != value ? 0x7fc0 : static_cast<uint16_t>((whole + 0x7fff + (whole >> 16 & 1)) >> 16);
  }
  explicit BFloat16(double value) : BFloat16(static_cast<float>(value)) {}
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
  explicit operator double() const { return static_cast<float>(*this); }
};

template <class T> struct dtype_of;
template <> struct dtype_of<bool> { static constexpr DType value = DType::kBool; };
template <> struct dtype_of<uint8_t> { static constexpr DType value = DType::kU8; };
template <> struct dtype_of<int8_t> { static constexpr DType value = DType::kI8; };
template <> struct dtype_of<uint16_t> { static constexpr DType value = DType::kU16; };
template <> struct dtype_of<int16_t> { static constexpr DType value = DType::kI16; };
template <> struct dtype_of<uint32_t> { static constexpr DType value = DType::kU32; };
template <> struct dtype_of<int32_t> { static constexpr DType value = DType::kI32; };
template <> struct dtype_of<uint64_t> { static constexpr DType value = DType::kU64; };
template <> struct dtype_of<int64_t> { static constexpr DType value = DType::kI64; };
template <> struct dtype_of<BFloat16> { static constexpr DType value = DType::kBF16; };
template <> struct dtype_of<float> { static constexpr DType value = DType::kF32; };
template <> struct dtype_of<double> { static constexpr DType value = DType::kF64; };

/// Calls f(T{}) with the C++ type of `t`; bool arrives as uint8_t, f16 and bf16 as uint16_t (their bits).
template <class F>
decltype(auto) visit_dtype(DType t, F&& f) {
  switch (t) {
    case DType::kBool: case DType::kU8: return f(uint8_t{});
    case DType::kI8: return f(int8_t{});
    case DType::kU16: case DType::kF16: case DType::kBF16: return f(uint16_t{});
    case DType::kI16: return f(int16_t{});
    case DType::kU32: return f(uint32_t{});
    case DType::kI32: return f(int32_t{});
    case DType::kU64: return f(uint64_t{});
    case DType::kI64: return f(int64_t{});
    case DType::kF32: return f(float{});
    default: return f(double{});
  }
}

}  // namespace fovea
