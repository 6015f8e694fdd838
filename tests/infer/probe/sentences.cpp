// Vectors of texts by a public sentence encoder, for parity with its formulas in torch.
//   fovea_sentences_probe FOLDER TEXTS.json OUTPUT.safetensors     OUTPUT: "vectors" [B,E]; "pieces" [B,16,E] of the first 16
#include <cstdio>
#include <iostream>

#include "fovea/data/torch_tensor.h"
#include "fovea/infer/sentence_encoder.h"
#include "fovea/io/json_file.h"
#include "fovea/ops/ensure_registered.h"

int main(int argc, char** argv) {
  using namespace fovea;
  ops::ensure_registered();
  if (argc != 4) {
    std::fprintf(stderr, "usage: fovea_sentences_probe FOLDER TEXTS.json OUTPUT.safetensors\n");
    return 2;
  }
  try {
    infer::SentenceEncoder encoder(argv[1]);
    const auto texts = io::read_json(argv[2]).get<std::vector<std::string>>();
    io::write_safetensors(argv[3], {{"vectors", data::from_torch(encoder.embed(texts))}, {"pieces", data::from_torch(encoder.pieces(texts, 16).vectors)}});
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
  return 0;
}
