#pragma once
#include <cstdint>
#include <string>

namespace fovea {

/// Bytes of this process that are in memory now (VmRSS), and the most there were so far (VmHWM). 0 where /proc is missing.
int64_t resident_bytes();
int64_t peak_resident_bytes();

/// Makes peak_resident_bytes() count from here. False where the system does not allow it.
bool reset_peak_resident();

/// Gives the free pages of the heap back to the system, so that resident_bytes() is what is in use. The C library's heap
/// keeps freed blocks below its mmap threshold; tcmalloc, which the program is linked with, keeps all.
void release_free_memory();

/// Memory of the machine. 0 where it cannot be asked.
struct MachineMemory {
  double total_bytes = 0, free_bytes = 0;
};
MachineMemory machine_memory();

/// "16 TiB", "1.5 GiB", "312 MiB", "20 KiB": for messages.
std::string format_bytes(double bytes);

}  // namespace fovea
