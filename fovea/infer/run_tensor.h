#pragma once
#include "fovea/io/safetensors.h"
#include "fovea/models/network.h"

namespace fovea::infer {

/// Whether run_tensor() also returns what every layer computes.
enum class Activations { kNone, kAll };

/// Applies a network to raw numbers: no resampling, no normalisation, no tiles. The network is put in evaluation mode.
/// Shapes   input "x" (or the only tensor) [B,Cin,Z,Y,X] of any floating dtype -> "output" [B,K,Z,Y,X] f32; with kAll also each
///          layer's output under its module name ("swinViT.layers1.0.blocks.0", a repeated name with #2, #3 ...), to be
///          compared stage by stage with forward hooks elsewhere
/// Errors   ArgumentError beginning with `where`
io::TensorMap run_tensor(models::NetworkImpl& network, const io::TensorMap& input, const std::string& where, Activations activations = Activations::kNone);

}  // namespace fovea::infer
