#include "fovea/nn/swin_stage.h"

#include "fovea/nn/recompute.h"
#include "fovea/nn/trace.h"

namespace fovea::nn {

SwinStageImpl::SwinStageImpl(const SwinStageOptions& options) : recompute_(options.recompute()) {
  blocks = register_module("blocks", torch::nn::ModuleList());
  auto attention = options.attention();
  const auto& window = attention.window();
  const Triple half = {window[0] / 2, window[1] / 2, window[2] / 2};
  for (size_t i = 0; i < options.drop_path().size(); ++i) {
    attention.shift(i % 2 == 0 ? Triple{0, 0, 0} : half);
    blocks->push_back(SwinTransformerBlock(
        SwinBlockOptions(attention).mlp_ratio(options.mlp_ratio()).dropout(options.dropout()).drop_path(options.drop_path()[i])));
  }
  downsample = register_module("downsample", PatchMerging(PatchMergingOptions(attention.dim()).order(options.merging())));
}

torch::Tensor SwinStageImpl::forward(torch::Tensor x) {
  x = x.permute({0, 2, 3, 4, 1}).contiguous();
  for (const auto& each : *blocks) {
    auto* block = each->as<SwinTransformerBlock>();
    x = recompute_ ? recomputed([block](torch::Tensor in) { return block->forward(std::move(in)); }, x) : block->forward(x);
  }
  return traced(this, downsample(x).permute({0, 4, 1, 2, 3}));
}

}  // namespace fovea::nn
