#pragma once
#include <filesystem>

#include "fovea/io/safetensors.h"
#include "fovea/models/registry.h"

namespace fovea::infer {

/// Tensors of a safetensors file or of a PyTorch checkpoint (state dict; read without an unpickler), by what the file holds.
/// Errors   IoError
io::TensorMap read_weights(const std::filesystem::path& path);

/// The network that tensors with MONAI's names belong to, told from their names and shapes: channels, widths, depths,
/// heads, window, version. Shapes do not tell: `downsample` (merging is assumed; weights trained with MONAI before 1.6 want
/// merging_repeated), and of a UNETR the heads (64 channels a head are assumed) and the sides of its volume (a cube).
/// Errors   ArgumentError beginning with `where`: no known network, or shapes that contradict each other
models::NetworkConfig infer_config(const io::TensorMap& tensors, const std::string& where);

}  // namespace fovea::infer
