#include "fovea/train/checkpoint.h"

#include <fstream>

#include "fovea/io/sha256.h"
#include "tests/fuzz/target.h"

namespace {
namespace fs = std::filesystem;

// A folder with one good checkpoint, whose manifest is replaced by each input.
struct Folder {
  fs::path path = (fs::exists("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path()) / ("fovea-fuzz-checkpoint-" + std::to_string(::getpid()));
  std::string manifest;
  Folder() {
    fovea::train::CheckpointFolder folder(path);
    fovea::train::Checkpoint one;
    one.weights["w"] = one.optimizer["m.w"] = {fovea::DType::kF32, {2}, std::vector<std::byte>(8)};
    one.state = {{"step", 1}}, one.timing = {{"seconds", 0}};
    folder.save(one, std::nullopt);
    std::ifstream in(path / "step-1/manifest.json");
    manifest = {std::istreambuf_iterator<char>(in), {}};
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};
}  // namespace

FOVEA_FUZZ_TARGET(checkpoint) {
  using namespace fovea;
  static const Folder folder;
  std::ofstream(folder.path / "step-1/manifest.json", std::ios::binary | std::ios::trunc) << fuzz::text_of(input);
  fuzz::accepted([&] {
    const train::Checkpoint one = train::CheckpointFolder(folder.path).load(1);
    fuzz::expect(one.step == 1 && one.weights.size() == 1, "another checkpoint");
    fuzz::expect(fuzz::text_of(input) == folder.manifest, "a manifest that was not written here is taken");
  });
}
