#pragma once
#include <c10/util/Exception.h>

#include <string>

/// The line of the c10::Error that f() throws; "no error" if it returns.
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}
