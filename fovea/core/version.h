#pragma once

namespace fovea {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace fovea
