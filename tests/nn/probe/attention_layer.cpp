// Runs nn::MultiHeadAttention with layer norm of queries and keys on tensors from files, for parity with timm.
//   fovea_attention_layer_probe HEADS WEIGHTS.safetensors INPUT.safetensors OUTPUT.safetensors
// All is computed in the dtype of x (f32 or f64). INPUT: "x" and "upstream" [B,N,E]. OUTPUT: "output", and
// "grad.NAME" = d sum(output * upstream) / d NAME for x and every parameter.
#include <cstdio>
#include <iostream>

#include "fovea/data/torch_tensor.h"
#include "fovea/io/safetensors.h"
#include "fovea/nn/multi_head_attention.h"
#include "fovea/ops/ensure_registered.h"

namespace {

void run(int64_t heads, const char* weights_path, const char* input_path, const char* output_path) {
  using namespace fovea;
  const auto input = io::read_safetensors(input_path);
  auto x = data::to_torch(input.at("x")).requires_grad_();
  nn::MultiHeadAttention layer(nn::MultiHeadAttentionOptions(x.size(-1), heads).qk_norm(nn::QkNormKind::kLayerNorm));
  layer->to(x.scalar_type());
  const auto weights = io::read_safetensors(weights_path);
  {
    torch::NoGradGuard no_grad;
    for (auto& p : layer->named_parameters()) p.value().copy_(data::to_torch(weights.at(p.key())));
  }

  const auto output = layer->forward(x);
  (output * data::to_torch(input.at("upstream"))).sum().backward();
  io::TensorMap result;
  result["output"] = data::from_torch(output);
  result["grad.x"] = data::from_torch(x.grad());
  for (const auto& p : layer->named_parameters()) result["grad." + p.key()] = data::from_torch(p.value().grad());
  io::write_safetensors(output_path, result);
}

}  // namespace

int main(int argc, char** argv) {
  fovea::ops::ensure_registered();
  if (argc != 5) {
    std::fprintf(stderr, "usage: fovea_attention_layer_probe HEADS WEIGHTS.safetensors INPUT.safetensors OUTPUT.safetensors\n");
    return 2;
  }
  try {
    run(std::atoll(argv[1]), argv[2], argv[3], argv[4]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
