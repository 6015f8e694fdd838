#include "fovea/io/config.h"

#include "tests/fuzz/target.h"

namespace {
enum class Blend { kConstant, kGaussian };
[[maybe_unused]] auto config_names(Blend) { return std::array{std::pair{Blend::kConstant, "constant"}, std::pair{Blend::kGaussian, "gaussian"}}; }

struct Stage {
  double rate = 1;
  float momentum = 0.1f;
  template <class V>
  void visit(V& v) {
    v("rate", rate, ""), v("momentum", momentum, "");
  }
};

struct Everything {
  bool flag = true;
  int8_t tiny = -3;
  uint64_t large = 1;
  std::string name = "swin";
  std::filesystem::path folder = "runs/a";
  std::array<int, 3> roi{96, 96, 64};
  std::vector<double> weights{0.5, 1};
  std::map<std::string, int> labels{{"liver", 1}};
  std::optional<float> mask_value;
  Blend blend = Blend::kGaussian;
  std::vector<Stage> stages{Stage{}};
  fovea::io::Json rest;
  template <class V>
  void visit(V& v) {
    v("flag", flag, ""), v("tiny", tiny, ""), v("large", large, ""), v("name", name, ""), v("folder", folder, ""), v("roi", roi, "");
    v("weights", weights, ""), v("labels", labels, ""), v("mask_value", mask_value, ""), v("blend", blend, ""), v("stages", stages, ""), v("rest", rest, "");
  }
};
}  // namespace

// JSON with comments; what it says as a config of every member type; and as an override.
FOVEA_FUZZ_TARGET(config) {
  using namespace fovea;
  io::Json json;
  const bool read = fuzz::accepted([&] { json = io::parse_json(fuzz::text_of(input), "x.json"); });
  if (read) {
    fuzz::expect(io::parse_json(json.dump(), "again").dump() == json.dump(), "JSON does not survive its own text");
    fuzz::accepted([&] {
      const auto config = io::from_json<Everything>(json, "x.json");
      fuzz::expect(io::to_json(io::from_json<Everything>(io::to_json(config), "again")) == io::to_json(config), "the config does not survive its own JSON");
    });
  }
  fuzz::accepted([&] {
    io::Json config = io::to_json(Everything{});
    io::apply_override(config, fuzz::text_of(input));
  });
}
