#pragma once
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace fovea {

/// What the program ends with. 4 is for distributed runs: a peer or rank failed.
enum class ExitCode : int { kDone = 0, kBug = 1, kBadInput = 2, kOutOfResource = 3, kPeerFailed = 4 };

namespace detail {
/// `text` with every control character as '?': names out of hostile files must not break a line or steer a terminal.
std::string one_line(std::string text);
}  // namespace detail

/// Base of everything Fovea throws on purpose. The message is one line: what, which file, expected, found, what to do.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& line) : std::runtime_error(detail::one_line(line)), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// The caller is wrong: an argument, a flag, a configuration value.
class ArgumentError : public Error {
 public:
  explicit ArgumentError(const std::string& line) : Error(ExitCode::kBadInput, line) {}
};

/// The world is wrong: a file is missing, short, lying or of another kind. `problem` says what was expected and found.
class IoError : public Error {
 public:
  IoError(const std::filesystem::path& path, const std::string& problem)
      : Error(ExitCode::kBadInput, path.string() + ": " + problem), path_(path) {}
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Memory, disk or time ran out; says how much was needed and what was there.
class ResourceError : public Error {
 public:
  explicit ResourceError(const std::string& line) : Error(ExitCode::kOutOfResource, line) {}
};

/// We are wrong. Thrown by FOVEA_CHECK only.
class InternalError : public Error {
 public:
  explicit InternalError(const std::string& line) : Error(ExitCode::kBug, line) {}
};

namespace detail {
[[noreturn]] void check_failed(const char* condition, const char* file, int line, const std::string& message);
}

/// Candidate that looks most like `word` (edit distance), or "" if none is near: for "unknown key ..., did you mean ...?".
std::string nearest_name(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace fovea

/// Internal invariant: a failure is a bug in Fovea, not in the input. `message` is evaluated only on failure.
#define FOVEA_CHECK(condition, message) \
  (static_cast<bool>(condition) ? void(0) : ::fovea::detail::check_failed(#condition, __FILE__, __LINE__, (message)))
