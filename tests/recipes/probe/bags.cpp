// Runs the network of a public checkpoint on bags from a file, for parity with its formulas in torch, in f64.
//   fovea_bags_probe CHECKPOINT INPUT.safetensors OUTPUT.safetensors
// INPUT: rows, offsets; optional labels (with scalars subtyping, smooth_svm: CLAM's instance loss), upstream.logits.
// OUTPUT: logits, weights, scores, instance_loss, and "grad.NAME" of sum(logits * upstream) + instance_loss.
#include <cstdio>
#include <iostream>

#include "fovea/data/torch_tensor.h"
#include "fovea/infer/import_bag_network.h"
#include "fovea/infer/import_weights.h"
#include "fovea/infer/weights.h"
#include "fovea/models/clam.h"
#include "fovea/ops/ensure_registered.h"
#include "fovea/train/instance_loss.h"

namespace {

using namespace fovea;

void run(const char* checkpoint, const char* input_path, const char* output_path) {
  const auto imported = infer::import_bag_network(infer::read_weights(checkpoint), checkpoint);
  const auto network = models::make_bag_network(imported.config);
  network->to(torch::kFloat64);
  infer::load_weights(*network, imported.tensors, checkpoint);
  network->eval();
  if (const auto clam = std::dynamic_pointer_cast<models::ClamImpl>(network)) clam->set_instances(true);

  const auto input = io::read_safetensors(input_path);
  const auto rows = data::to_torch(input.at("rows")).requires_grad_();
  const auto offsets = data::to_torch(input.at("offsets"));
  const auto answer = network->forward(rows, offsets);
  io::TensorMap result;
  result["logits"] = data::from_torch(answer.logits);
  result["weights"] = data::from_torch(network->weights(rows, offsets));
  if (answer.scores.defined()) result["scores"] = data::from_torch(answer.scores);
  auto sum = (answer.logits * data::to_torch(input.at("upstream.logits"))).sum();
  if (input.contains("labels")) {
    train::ClamInstanceOptions options;
    options.subtyping = input.contains("subtyping");
    if (input.contains("smooth_svm")) options.loss = train::InstanceLoss::kSmoothSvm;
    const auto loss = train::clam_instance_loss(answer.scores, answer.instance_logits, offsets, data::to_torch(input.at("labels")), options);
    result["instance_loss"] = data::from_torch(loss);
    sum = sum + loss;
  }
  sum.backward();
  result["grad.rows"] = data::from_torch(rows.grad());
  for (const auto& item : network->named_parameters())
    if (item.value().grad().defined()) result["grad." + item.key()] = data::from_torch(item.value().grad());
  io::write_safetensors(output_path, result);
}

}  // namespace

int main(int argc, char** argv) {
  fovea::ops::ensure_registered();
  if (argc != 4) {
    std::fprintf(stderr, "usage: fovea_bags_probe CHECKPOINT INPUT.safetensors OUTPUT.safetensors\n");
    return 2;
  }
  try {
    run(argv[1], argv[2], argv[3]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
