#pragma once
#include <string>
#include <vector>

#include "fovea/io/safetensors.h"
#include "fovea/models/network.h"

namespace fovea::infer {

/// How much of a network a file of weights must hold.
enum class Coverage {
  kWhole,  ///< every parameter, and nothing else
  kAny,    ///< what names and shapes have in common, e.g. a pretrained encoder, or all but the last layer
};

struct WeightReport {
  size_t loaded = 0;
  std::vector<std::string> missing;     ///< names of the network without a tensor
  std::vector<std::string> unexpected;  ///< names of the file without a place
  std::vector<std::string> other_shape;  ///< with kAny: names of both that were left as they are
};

/// Copies tensors into the parameters and buffers of the same name. Nothing is changed unless everything fits.
/// Names    MONAI's. Before them "module.", "model." and "network." are taken off; an encoder saved on its own ("patch_embed.*",
///          "layers1.*", "swin_vit.*", "swinViT.*") is found, with the mlp.fc1/fc2 of self-supervised checkpoints.
///          Left out without a word: the never used cross attention of MONAI's older ViT blocks.
/// Dtypes   floating point, converted to the parameter's; an integer buffer (relative_position_index) must equal the network's.
/// Errors   ArgumentError beginning with `where`, one line: what is missing, unexpected, of another shape; with kAny, no common name
WeightReport load_weights(torch::nn::Module& network, const io::TensorMap& tensors, const std::string& where, Coverage coverage = Coverage::kWhole);

/// What of a masked autoencoder's weights a network for another task begins with: all but the decoder, which has learnt to
/// invent what is hidden, as in He et al. 2022. Weights of other networks stay as they are.
io::TensorMap encoder_weights(io::TensorMap tensors);

/// Parameters and buffers by name.
io::TensorMap network_weights(const torch::nn::Module& network);

/// `tensors` under the names that a network uses: see load_weights().
/// Errors   ArgumentError if two names become one
io::TensorMap with_network_names(io::TensorMap tensors, const std::string& where);

}  // namespace fovea::infer
