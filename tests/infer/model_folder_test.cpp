#include "fovea/infer/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "fovea/core/error.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/infer/import_weights.h"
#include "fovea/infer/run_tensor.h"
#include "fovea/infer/weights.h"

namespace fovea::infer {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

models::SwinUnetrConfig tiny() {
  models::SwinUnetrConfig config;
  config.feature_size = 6;
  config.num_heads = {1, 2, 2, 4};
  config.window_size = {3, 2, 4};
  config.depths = {1, 1, 2, 1};
  config.out_channels = 3;
  return config;
}

class ModelFolders : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("fovea_model_folder_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  template <class F>
  static std::string message_of(const F& f) {
    try {
      f();
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was thrown";
  }

  fs::path save(const models::NetworkConfig& config, const models::Network& network) {
    ModelDescription model{network_to_json(config), io::Json::object()};
    model.recipe["labels"] = {"background", "tumour"};
    save_model(folder_ / "model", *network, model, "# Card\n");
    return folder_ / "model";
  }

  fs::path folder_;
};

TEST_F(ModelFolders, ComeBackWithTheSameBitsConfigurationAndRecipe) {
  const models::NetworkConfig config = tiny();
  const auto network = models::make_network(config, 4);
  const auto path = save(config, network);
  const auto model = load_model(path);
  EXPECT_EQ(network_to_json(model.config), network_to_json(config));
  EXPECT_EQ(model.recipe["labels"][1], "tumour");
  EXPECT_FALSE(model.network->is_training());
  for (const auto& p : network->named_parameters()) EXPECT_TRUE(model.network->named_parameters()[p.key()].equal(p.value())) << p.key();
  std::ifstream card(path / "model_card.md");
  std::string line;
  std::getline(card, line);
  EXPECT_EQ(line, "# Card");
}

TEST_F(ModelFolders, ReplaceAnOlderOneAndLeaveNothingElseBehind) {
  const models::NetworkConfig config = tiny();
  save(config, models::make_network(config, 1));
  const auto network = models::make_network(config, 2);
  const auto path = save(config, network);
  EXPECT_TRUE(load_model(path).network->parameters()[0].equal(network->parameters()[0]));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(ModelFolders, NeverReplaceSomethingElse) {
  fs::create_directories(folder_ / "model");
  std::ofstream(folder_ / "model" / "thesis.txt") << "do not lose me";
  const models::NetworkConfig config = tiny();
  EXPECT_THAT(message_of([&] { save(config, models::make_network(config)); }), HasSubstr("exists and is no model folder"));
  EXPECT_TRUE(fs::exists(folder_ / "model" / "thesis.txt"));
}

TEST_F(ModelFolders, ADamagedNewerOrMissingOneIsRefusedInOneLine) {
  const models::NetworkConfig config = tiny();
  const auto path = save(config, models::make_network(config));
  const auto weights = path / "weights.safetensors";
  {
    std::fstream file(weights, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('\x55');
  }
  EXPECT_THAT(message_of([&] { load_model(path); }), HasSubstr("the file was changed or damaged after the model was saved"));
  auto json = io::read_json(path / "config.json");
  json["format"] = 2;
  io::write_json(path / "config.json", json);
  EXPECT_THAT(message_of([&] { load_model(path); }), HasSubstr("format is 2, expected 1; it was made by another version of Fovea"));
  EXPECT_THAT(message_of([&] { load_model(folder_ / "nowhere"); }), HasSubstr("is no model folder, expected one with config.json"));
}

TEST_F(ModelFolders, MissingUnexpectedAndMisshapenTensorsAreListedAndNothingIsLoaded) {
  const auto network = models::make_network(tiny(), 1);
  auto tensors = network_weights(*models::make_network(tiny(), 2));
  const auto before = network->parameters()[0].clone();
  tensors.erase("out.conv.conv.bias");
  tensors["classifier.weight"] = {DType::kF32, {1}, std::vector<std::byte>(4)};
  tensors["out.conv.conv.weight"] = {DType::kF32, {2}, std::vector<std::byte>(8)};
  const auto message = message_of([&] { load_weights(*network, tensors, "w.pt"); });
  EXPECT_THAT(message, HasSubstr("w.pt: the weights do not fit the network"));
  EXPECT_THAT(message, HasSubstr("out.conv.conv.weight is [2], expected [3, 6, 1, 1, 1]"));
  EXPECT_THAT(message, HasSubstr("out.conv.conv.bias"));
  EXPECT_THAT(message, HasSubstr("1 unexpected: classifier.weight"));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_TRUE(network->parameters()[0].equal(before));
}

TEST_F(ModelFolders, PrefixesEncodersAloneAndOldBlocksAreFound) {
  const auto source = models::make_network(tiny(), 2);
  io::TensorMap wrapped, encoder;
  for (auto& [name, data] : network_weights(*source)) {
    wrapped["module." + name] = data;
    if (name.starts_with("swinViT.")) {
      std::string old = "module." + name.substr(8);
      if (const auto at = old.find("mlp.linear"); at != std::string::npos) old.replace(at, 10, "mlp.fc");
      encoder[old] = data;
    }
  }
  wrapped["module.swinViT.layers1.0.blocks.0.cross_attn.to_q.weight"] = {DType::kF32, {1}, std::vector<std::byte>(4)};
  const auto whole = models::make_network(tiny(), 1);
  EXPECT_TRUE(load_weights(*whole, wrapped, "w").unexpected.empty());
  EXPECT_TRUE(whole->parameters()[0].equal(source->parameters()[0]));

  const auto part = models::make_network(tiny(), 1);
  EXPECT_THAT(message_of([&] { load_weights(*part, encoder, "w"); }), HasSubstr("missing"));
  const auto report = load_weights(*part, encoder, "w", Coverage::kAny);
  EXPECT_EQ(report.loaded, encoder.size());
  EXPECT_FALSE(report.missing.empty());
  EXPECT_TRUE(part->named_parameters()["swinViT.layers1.0.blocks.0.mlp.linear1.weight"].equal(
      source->named_parameters()["swinViT.layers1.0.blocks.0.mlp.linear1.weight"]));
}

TEST_F(ModelFolders, FineTuningStartsWithAllButTheLayersOfAnotherShape) {
  models::NetworkConfig config = tiny();
  const auto source = models::make_network(config, 2);
  models::set_channels(config, source->in_channels(), source->out_channels() + 2);
  const auto tuned = models::make_network(config, 1);
  const auto report = load_weights(*tuned, network_weights(*source), "w", Coverage::kAny);
  EXPECT_THAT(report.other_shape, testing::UnorderedElementsAre("out.conv.conv.bias", "out.conv.conv.weight"));
  EXPECT_TRUE(tuned->parameters()[0].equal(source->parameters()[0]));
}

TEST_F(ModelFolders, HalfPrecisionWeightsAreConvertedAndAForeignIndexIsRefused) {
  const auto network = models::make_network(tiny(), 1);
  auto tensors = network_weights(*models::make_network(tiny(), 2));
  auto& bias = tensors["out.conv.conv.bias"];
  bias = data::from_torch(torch::tensor({0.5f, -2.0f, 1.0f}).to(torch::kBFloat16));
  load_weights(*network, tensors, "w");
  EXPECT_TRUE(network->named_parameters()["out.conv.conv.bias"].equal(torch::tensor({0.5f, -2.0f, 1.0f})));
  auto& index = tensors["swinViT.layers1.0.blocks.0.attn.relative_position_index"];
  index.data[0] = std::byte{77};
  EXPECT_THAT(message_of([&] { load_weights(*network, tensors, "w"); }), HasSubstr("relative_position_index holds other values than this network computes for it"));
}

TEST_F(ModelFolders, TheConfigurationIsToldFromTheShapesOfTheWeights) {
  auto config = tiny();
  config.use_v2 = true;
  config.qkv_bias = false;
  config.patch_norm = true;
  config.mlp_ratio = 2;
  config.in_channels = 2;
  config.deep_supervision = 1;
  for (const bool with_index : {true, false}) {
    if (!with_index) config.window_size = {3, 3, 3};
    auto tensors = network_weights(*models::make_network(config));
    if (!with_index) std::erase_if(tensors, [](const auto& t) { return t.first.ends_with("index"); });
    EXPECT_EQ(network_to_json(infer_config(tensors, "w")), network_to_json(config));
  }
  EXPECT_THAT(message_of([] { infer_config({}, "w.pt"); }), HasSubstr("w.pt: no known network has these names"));
}

TEST_F(ModelFolders, RawTensorsGoThroughTheNetworkWithEveryLayerOnDemand) {
  const auto network = models::make_network(tiny(), 3);
  io::TensorMap input;
  const auto x = torch::randn({1, 1, 32, 32, 64});
  input["image"] = data::from_torch(x);
  const auto plain = run_tensor(*network, input, "in");
  ASSERT_EQ(plain.size(), 1u);
  const auto all = run_tensor(*network, input, "in", Activations::kAll);
  EXPECT_EQ(all.at("output").data, plain.at("output").data);
  EXPECT_EQ(all.at("swinViT.layers1.0.blocks.0").shape, (std::vector<int64_t>{1, 16, 16, 32, 6}));
  EXPECT_EQ(all.at("out").data, plain.at("output").data);
  input["second"] = input["image"];
  EXPECT_THAT(message_of([&] { run_tensor(*network, input, "in"); }), HasSubstr("in: has 2 tensors and none is called 'x'"));
}

}  // namespace
}  // namespace fovea::infer
