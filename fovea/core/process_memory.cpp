#include "fovea/core/process_memory.h"

#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace fovea {
namespace {

int64_t status_bytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind(field, 0) == 0) return std::strtoll(line.c_str() + field.size(), nullptr, 10) * 1024;
  return 0;
}

}  // namespace

int64_t resident_bytes() { return status_bytes("VmRSS:"); }

int64_t peak_resident_bytes() { return status_bytes("VmHWM:"); }

bool reset_peak_resident() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;  // 5: reset the peak (proc(5))
  return file.good();
}

void release_free_memory() { malloc_trim(0); }

std::string format_bytes(int64_t bytes) {
  char text[32];
  const double b = static_cast<double>(bytes);
  if (bytes >= int64_t{1} << 30) std::snprintf(text, sizeof text, "%.1f GiB", b / (1 << 30));
  else if (bytes >= 1 << 20) std::snprintf(text, sizeof text, "%.0f MiB", b / (1 << 20));
  else std::snprintf(text, sizeof text, "%.0f KiB", b / 1024);
  return text;
}

}  // namespace fovea
