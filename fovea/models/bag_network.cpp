#include "fovea/models/bag_network.h"

#include <functional>

#include "fovea/core/error.h"
#include "fovea/models/abmil.h"
#include "fovea/models/clam.h"
#include "fovea/models/seeded_generator.h"
#include "fovea/models/transmil.h"

namespace fovea::models {

void BagNetworkImpl::check_bags(const char* network, const torch::Tensor& rows, const torch::Tensor& offsets) const {
  const bool fits = features() > 0 ? rows.dim() == 2 && rows.size(1) == features()
                                   : rows.dim() == 4 && rows.sizes().slice(1) == at::IntArrayRef({1, 28, 28});
  if (!fits)
    throw ArgumentError(c10::str(network, ": rows are ", rows.sizes(), ", expected [N,", features() > 0 ? c10::str(features()) : "1,28,28", "]"));
  if (offsets.dim() != 1 || offsets.scalar_type() != torch::kInt64 || offsets.size(0) < 2)
    throw ArgumentError(c10::str(network, ": offsets are ", offsets.dtype(), " ", offsets.sizes(), ", expected int64 [bags+1], at least one bag"));
  const auto first = offsets.accessor<int64_t, 1>();
  for (int64_t b = 0; b + 1 < first.size(0); ++b)
    if (first[b + 1] <= first[b])
      throw ArgumentError(c10::str(network, ": bag ", b, " has no rows (offsets ", first[b], " to ", first[b + 1], ")"));
  if (first[0] != 0 || first[first.size(0) - 1] != rows.size(0))
    throw ArgumentError(c10::str(network, ": offsets go from ", first[0], " to ", first[first.size(0) - 1], ", expected 0 to the ", rows.size(0), " rows"));
}

torch::Tensor bag_weights(const torch::Tensor& scores, const torch::Tensor& lse, const torch::Tensor& offsets) {
  return (scores - lse.repeat_interleave(offsets.diff(), 0)).exp();
}

std::string family_of(const BagConfig& config) {
  static const std::array names = {"abmil", "clam", "transmil"};
  return names[config.index()];
}

BagConfig default_bag_config(const std::string& family) {
  const std::vector<BagConfig> all = {AbmilConfig{}, ClamConfig{}, TransmilConfig{}};
  std::vector<std::string> names;
  for (const auto& config : all) {
    names.push_back(family_of(config));
    if (names.back() == family) return config;
  }
  const auto nearest = nearest_name(family, names);
  throw ArgumentError("no network for bags is called '" + family + "'" + (nearest.empty() ? "" : ", did you mean '" + nearest + "'?") +
                      "; there are abmil, clam, transmil");
}

void set_bag_sizes(BagConfig& config, int64_t features, int64_t classes) {
  std::visit(
      [&](auto& c) {
        c.features = features;
        if constexpr (std::is_same_v<std::decay_t<decltype(c)>, AbmilConfig>)
          c.outputs = classes == 2 ? 1 : classes;
        else
          c.classes = classes;
      },
      config);
}

BagNetwork make_bag_network(const BagConfig& config, uint64_t seed) {
  const SeededGenerator seeded(seed);
  struct Maker {
    BagNetwork operator()(const AbmilConfig& c) const { return std::make_shared<AbmilImpl>(c); }
    BagNetwork operator()(const ClamConfig& c) const { return std::make_shared<ClamImpl>(c); }
    BagNetwork operator()(const TransmilConfig& c) const { return std::make_shared<TransmilImpl>(c); }
  };
  return std::visit(Maker{}, config);
}

}  // namespace fovea::models
