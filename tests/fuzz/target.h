#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/core/error.h"

/// What stands behind the fuzz targets, tests/fuzz/NAME.cpp: one for each parser of our own. A target takes any bytes; it
/// passes when the parser refuses them in one line or returns something that adds up. The same source is a libFuzzer program
/// (preset `fuzz`, fuzz_main.cpp) and, with every other compiler, part of the test that replays tests/fuzz/corpus/NAME.
namespace fovea::fuzz {

using Bytes = std::span<const std::byte>;

struct Target {
  const char* name;
  void (*run)(Bytes);
};

inline std::vector<Target>& targets() {
  static std::vector<Target> all;
  return all;
}

/// FOVEA_FUZZ_TARGET(name) { ... what is done with `input` ... }
#define FOVEA_FUZZ_TARGET(name)                                                                         \
  static void fuzz_##name(::fovea::fuzz::Bytes input);                                                  \
  [[maybe_unused]] static const bool known_##name = (::fovea::fuzz::targets().push_back({#name, fuzz_##name}), true); \
  static void fuzz_##name(::fovea::fuzz::Bytes input)

inline void expect(bool holds, const std::string& what) {
  if (!holds) throw std::logic_error("fuzz target: " + what);
}

inline std::string_view text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// True when `read` took its input, false when it refused it as bad input (exit code 2) in one line. Anything else, such as
/// std::bad_alloc or a failed check of our own, is a finding and goes on upwards.
template <class F>
bool accepted(F&& read) {
  try {
    read();
    return true;
  } catch (const Error& error) {
    if (error.code() != ExitCode::kBadInput) throw;
    const std::string line = error.what();
    expect(!line.empty() && line.find('\n') == line.npos, "the message is not one line: " + line);
    return false;
  }
}

/// A file that lives in memory, since readers take paths. `name` is what the path ends in, for readers that look at it.
class MemoryFile {
 public:
  explicit MemoryFile(const std::string& name = "") : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    expect(descriptor_ >= 0, "memfd_create fails");
    path_ = "/proc/self/fd/" + std::to_string(descriptor_);
    if (name.empty()) return;
    link_ = std::filesystem::temp_directory_path() / ("fovea-fuzz-" + std::to_string(::getpid()) + name);
    std::filesystem::remove(link_);
    std::filesystem::create_symlink(path_, link_);
    path_ = link_;
  }
  ~MemoryFile() {
    std::error_code ignored;
    if (!link_.empty()) std::filesystem::remove(link_, ignored);
    ::close(descriptor_);
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  const std::filesystem::path& holding(Bytes content) {
    expect(::ftruncate(descriptor_, 0) == 0 && ::pwrite(descriptor_, content.data(), content.size(), 0) == ssize_t(content.size()), "writing to memory fails");
    return path_;
  }

 private:
  int descriptor_;
  std::filesystem::path path_, link_;
};

}  // namespace fovea::fuzz
