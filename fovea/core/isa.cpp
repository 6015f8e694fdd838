#include "fovea/core/isa.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "fovea/core/error.h"

#if defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fovea {

namespace {
// Value of the first /proc/cpuinfo line that starts with `key`.
std::string cpuinfo(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind(key, 0) == 0) {
      const size_t colon = line.find(':');
      return colon == line.npos || colon + 2 > line.size() ? "" : line.substr(colon + 2);
    }
  return "";
}

bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool has_avx512() {
#if defined(__x86_64__)
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

// AMX needs the processor and the kernel's permission for the tile state (arch_prctl ARCH_REQ_XCOMP_PERM, XTILEDATA).
bool has_amx_bf16() {
#if defined(__x86_64__)
  if ((" " + cpuinfo("flags") + " ").find(" amx_bf16 ") == std::string::npos) return false;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
}  // namespace

std::string name_of(Isa isa) {
  switch (isa) {
    case Isa::kNeon: return "neon";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
    case Isa::kAmx: return "amx";
    default: return "baseline";
  }
}

Isa best_isa() {
#if defined(__aarch64__)
  return Isa::kNeon;
#else
  static const Isa best = !has_avx2() ? Isa::kBaseline : !has_avx512() ? Isa::kAvx2 : !has_amx_bf16() ? Isa::kAvx512 : Isa::kAmx;
  return best;
#endif
}

Isa chosen_isa() {
  static const Isa chosen = [] {
    const char* wanted = std::getenv("FOVEA_CPU_ISA");
    if (!wanted || !*wanted) return best_isa();
    const std::string name(wanted);
    for (Isa isa : {Isa::kAvx2, Isa::kAvx512, Isa::kAmx})
      if (name == name_of(isa)) {
        if (best_isa() < isa)
          throw ArgumentError("FOVEA_CPU_ISA=" + name + ": this machine has " + name_of(best_isa()) + " at most; unset it or choose that");
        return isa;
      }
    throw ArgumentError("FOVEA_CPU_ISA=" + name + ": expected avx2, avx512 or amx");
  }();
  return chosen;
}

std::vector<std::string> cpu_features() {
  std::istringstream words(cpuinfo("flags"));
  std::vector<std::string> all;
  for (std::string word; words >> word;) all.push_back(word);
  return all;
}

std::string cpu_model() {
  const std::string model = cpuinfo("model name");
  return model.empty() ? "unknown" : model;
}

}  // namespace fovea
