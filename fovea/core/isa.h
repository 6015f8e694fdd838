#pragma once
#include <string>
#include <vector>

namespace fovea {

/// Instruction sets that a kernel may be compiled for, worst first.
enum class Isa { kBaseline, kNeon, kAvx2, kAvx512, kAmx };

std::string name_of(Isa isa);

/// Best instruction set of this machine, from CPUID and, for AMX, the operating system's permission.
Isa best_isa();

/// What kernels use: FOVEA_CPU_ISA=avx2|avx512|amx if set, else best_isa(). Read once.
/// Errors  ArgumentError naming the missing feature when the machine lacks what was asked for.
Isa chosen_isa();

/// Features of the processor as the vendor names them ("avx2", "avx512f", "amx_bf16", ...), for `fovea doctor`.
std::vector<std::string> cpu_features();

/// "AMD EPYC ..." or "unknown".
std::string cpu_model();

}  // namespace fovea
