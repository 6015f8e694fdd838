// Saves and loads small checkpoints in a process of its own, without torch, for faults from outside:
//   fovea_checkpoint_probe save FOLDER STEP   "saved"; the call access("/save-begins") marks the begin for a tracer
//   fovea_checkpoint_probe load FOLDER        "step N" of the newest whole one whose content is that of its step, or "none"
// Errors are one line on stderr and Fovea's exit code.
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "fovea/core/error.h"
#include "fovea/train/checkpoint.h"

namespace fovea::train {
namespace {

Checkpoint made(int64_t step) {
  Checkpoint c;
  c.step = step;
  io::TensorData t{DType::kF32, {700}, std::vector<std::byte>(2800)};
  for (size_t i = 0; i < 700; ++i) {
    const float value = float(step) + float(i) / 1000;
    std::memcpy(t.data.data() + 4 * i, &value, 4);
  }
  c.weights["w"] = c.optimizer["m.w"] = c.average["w"] = t;
  c.state = {{"step", step}};
  c.timing = {{"seconds", 1}};
  return c;
}

int run(const std::string& verb, const std::string& folder, int64_t step) {
  CheckpointFolder checkpoints(folder);
  if (verb == "save") {
    [[maybe_unused]] const int ignored = ::access("/save-begins", F_OK);
    checkpoints.save(made(step), std::nullopt);
    std::puts("saved");
    return 0;
  }
  const auto found = checkpoints.load_latest();
  if (found) {
    const Checkpoint expected = made(found->step);
    FOVEA_CHECK(found->weights.at("w").data == expected.weights.at("w").data && found->optimizer.at("m.w").data == expected.optimizer.at("m.w").data &&
                    found->average.at("w").data == expected.average.at("w").data && found->state == expected.state,
                "a checkpoint came back with other content");
  }
  std::printf("%s\n", found ? ("step " + std::to_string(found->step)).c_str() : "none");
  return 0;
}

}  // namespace
}  // namespace fovea::train

int main(int argc, char** argv) {
  try {
    if (argc < 3) throw fovea::ArgumentError("fovea_checkpoint_probe: expected save FOLDER STEP or load FOLDER");
    return fovea::train::run(argv[1], argv[2], argc > 3 ? std::stoll(argv[3]) : 0);
  } catch (const fovea::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return int(error.code());
  }
}
