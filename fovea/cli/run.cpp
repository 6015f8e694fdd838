#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "fovea/cli/command.h"
#include "fovea/infer/model_folder.h"
#include "fovea/infer/run_tensor.h"

namespace fovea::cli {

namespace {
namespace fs = std::filesystem;

struct RunArguments {
  CommonOptions common;
  fs::path model, input, output;
  bool activations = false;
};

void run(const RunArguments& a) {
  a.common.apply();
  const auto model = infer::load_model(a.model);
  const auto input = io::read_safetensors(a.input);
  const auto start = std::chrono::steady_clock::now();
  const auto output = infer::run_tensor(*model.network, input, a.input.string(), a.activations ? infer::Activations::kAll : infer::Activations::kNone);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  io::write_safetensors(a.output, output);
  if (!a.common.json) return void(std::printf("%s\n", a.output.c_str()));
  std::printf("%s\n", nlohmann::ordered_json({{"output", a.output.string()}, {"tensors", output.size()}, {"shape", output.at("output").shape}, {"seconds", seconds}}).dump(2).c_str());
}
}  // namespace

void add_run(CLI::App& program) {
  auto a = std::make_shared<RunArguments>();
  CLI::App* command = program.add_subcommand("run",
      "Example: fovea run -m MODEL --input x.safetensors --output y.safetensors\n\n"
      "Runs a network on a raw tensor: no resampling, no normalisation, no tiles, so that numbers can be compared with any other implementation.");
  command->add_option("-m,--model", a->model, "model folder")->required();
  command->add_option("-i,--input", a->input, "safetensors with the input \"x\" [B,C,Z,Y,X]")->required();
  command->add_option("-o,--output", a->output, "safetensors with \"output\" [B,K,Z,Y,X]")->required();
  command->add_flag("--activations", a->activations, "also every layer's output under its module name");
  a->common.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace fovea::cli
