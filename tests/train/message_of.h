#pragma once
#include <string>

#include "fovea/core/error.h"

/// The line of the ArgumentError that f() throws; "no ArgumentError" if it returns.
template <class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const fovea::ArgumentError& error) {
    return error.what();
  }
  return "no ArgumentError";
}
