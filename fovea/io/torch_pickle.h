#pragma once
#include <filesystem>

#include "fovea/io/input_file.h"
#include "fovea/io/safetensors.h"

namespace fovea::io {

/// The tensors of a PyTorch checkpoint (.pt, .pth; the zip form of torch.save since 1.6): the file's own dictionary if
/// it holds tensors, else the one under "state_dict", "network_weights", "model" or "model_state_dict". Names keep
/// their prefixes; a tensor that was saved by itself has the empty name. Strided and shared tensors come out contiguous,
/// each with its own memory; entries that are no tensors are left out.
///
/// Not a general unpickler: 40 opcodes, and of all Python names only OrderedDict, torch.Size, _rebuild_tensor_v2,
/// _rebuild_parameter and the ten typed storages. Each is data to this reader; nothing is ever called, imported or
/// extracted.
/// Errors   IoError naming the first opcode or Python name that is not on the list; legacy files from before PyTorch
///          1.6 and TorchScript archives, with what to do; damaged zip, wrong checksum, a view outside its storage,
///          tensors that would unpack to more than four times the file.
/// Cost     one pass over the file; peak memory = tensors + the largest storage that is not itself one tensor.
TensorMap read_torch_state_dict(const InputFile& file);
TensorMap read_torch_state_dict(const std::filesystem::path& path);

}  // namespace fovea::io
