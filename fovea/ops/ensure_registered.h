#pragma once

namespace fovea::ops {

/// Does nothing, but a program that calls it keeps libfovea_ops.so on its link line, and with it the registration of
/// every torch op `fovea::…`: linkers drop a library that only registers. Call it first thing in main().
void ensure_registered();

}  // namespace fovea::ops
