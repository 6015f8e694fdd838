#include "fovea/core/process_memory.h"

#include <malloc.h>
#include <sys/sysinfo.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

// Of tcmalloc, where the program is linked with it.
extern "C" __attribute__((weak)) void MallocExtension_ReleaseFreeMemory();

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

void release_free_memory() {
  if (MallocExtension_ReleaseFreeMemory != nullptr) MallocExtension_ReleaseFreeMemory();
  malloc_trim(0);
}

MachineMemory machine_memory() {
  struct sysinfo memory {};
  if (sysinfo(&memory) != 0) return {};
  return {double(memory.totalram) * memory.mem_unit, double(memory.freeram + memory.bufferram) * memory.mem_unit};
}

std::string format_bytes(double bytes) {
  constexpr double kKi = 1024, kMi = kKi * kKi, kGi = kMi * kKi, kTi = kGi * kKi;
  char text[32];
  if (bytes >= kTi) std::snprintf(text, sizeof text, bytes < 10 * kTi ? "%.1f TiB" : "%.0f TiB", bytes / kTi);
  else if (bytes >= kGi) std::snprintf(text, sizeof text, "%.1f GiB", bytes / kGi);
  else if (bytes >= kMi) std::snprintf(text, sizeof text, "%.0f MiB", bytes / kMi);
  else std::snprintf(text, sizeof text, "%.0f KiB", bytes / kKi);
  return text;
}

}  // namespace fovea
