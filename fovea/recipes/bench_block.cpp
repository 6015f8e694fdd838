// A Swin transformer block against the same block of torch's operators (pad, roll, partition,
// scaled_dot_product_attention with bias and mask as one additive tensor, reverse), and the shifted block against our
// own plain one.
#include <torch/torch.h>

#include "fovea/models/swin_unetr.h"
#include "fovea/nn/swin_block.h"
#include "fovea/recipes/bench.h"

namespace fovea::recipes {

namespace {
using torch::Tensor;
constexpr int64_t kEdge = 48, kChannels = 48, kHeads = 3, kWindow = 7, kTokens = kWindow * kWindow * kWindow;
constexpr int64_t kPadded = (kEdge + kWindow - 1) / kWindow * kWindow, kCount = kPadded / kWindow;

nn::SwinTransformerBlock make_block(int64_t shift) {
  return nn::SwinTransformerBlock(nn::SwinBlockOptions(nn::WindowAttentionOptions(kChannels, kHeads)
                                                           .window({kWindow, kWindow, kWindow})
                                                           .shift({shift, shift, shift})
                                                           .padded_tokens(nn::PaddedTokens::kAttend)
                                                           .region_mask(nn::RegionMask::kAdditive)));
}

// [1,Z,Y,X,...] -> [windows, tokens, ...] and back.
Tensor partition(const Tensor& x) {
  return x.reshape({kCount, kWindow, kCount, kWindow, kCount, kWindow, x.size(-1)})
      .permute({0, 2, 4, 1, 3, 5, 6})
      .reshape({-1, kTokens, x.size(-1)});
}
Tensor reverse(const Tensor& x) {
  return x.reshape({kCount, kCount, kCount, kWindow, kWindow, kWindow, x.size(-1)})
      .permute({0, 3, 1, 4, 2, 5, 6})
      .reshape({1, kPadded, kPadded, kPadded, x.size(-1)});
}

// 0 within a region, -100 between regions: [windows, tokens, tokens].
Tensor shift_mask(int64_t shift) {
  Tensor region = torch::zeros({1, kPadded, kPadded, kPadded, 1});
  const std::vector<std::pair<int64_t, int64_t>> parts = {
      {0, kPadded - kWindow}, {kPadded - kWindow, kPadded - shift}, {kPadded - shift, kPadded}};
  double id = 0;
  for (const auto& z : parts)
    for (const auto& y : parts)
      for (const auto& x : parts)
        region.slice(1, z.first, z.second).slice(2, y.first, y.second).slice(3, x.first, x.second).fill_(id++);
  const Tensor ids = partition(region).squeeze(-1);
  return (ids.unsqueeze(1) != ids.unsqueeze(2)).to(torch::kFloat32) * -100;
}

// The block of torch's operators, on the parameters of ours. Mask and index are made once, which is kind to the peer.
struct TorchBlock {
  nn::SwinTransformerBlock block;
  int64_t shift;
  Tensor mask = shift ? shift_mask(shift) : Tensor();

  Tensor forward(const Tensor& x) {
    auto& attention = *block->attn;
    const int64_t far = kPadded - kEdge, C = kChannels / kHeads;
    Tensor y = torch::constant_pad_nd(block->norm1(x), {0, 0, 0, far, 0, far, 0, far});
    if (shift) y = y.roll({-shift, -shift, -shift}, {1, 2, 3});
    const Tensor qkv = attention.qkv(partition(y)).reshape({-1, kTokens, 3, kHeads, C}).permute({2, 0, 3, 1, 4});
    Tensor bias = attention.relative_position_bias_table.index({attention.relative_position_index.flatten()})
                      .reshape({kTokens, kTokens, kHeads})
                      .permute({2, 0, 1})
                      .unsqueeze(0);
    if (shift) bias = bias + mask.unsqueeze(1);
    const Tensor out = at::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], bias);
    y = reverse(attention.proj(out.transpose(1, 2).reshape({-1, kTokens, kChannels})));
    if (shift) y = y.roll({shift, shift, shift}, {1, 2, 3});
    const Tensor z = x + y.slice(1, 0, kEdge).slice(2, 0, kEdge).slice(3, 0, kEdge);
    return z + block->mlp(block->norm2(z));
  }
};

template <class F>
void run_backward(const F& forward, const Tensor& x, const Tensor& upstream, nn::SwinTransformerBlock& block) {
  block->zero_grad();
  forward(x.detach().requires_grad_()).backward(upstream);
}
}  // namespace

void bench_block(const BenchOptions& options, const BenchDone& done) {
  const std::string shape =
      c10::str(kEdge, "^3 tokens, ", kChannels, " channels, ", kHeads, " heads, window ", kWindow);
  torch::manual_seed(static_cast<int64_t>(options.seed));
  const Tensor x = torch::randn({1, kEdge, kEdge, kEdge, kChannels}), upstream = torch::randn_like(x);
  for (const int64_t shift : {int64_t{0}, int64_t{3}}) {
    auto block = make_block(shift);
    TorchBlock peer{block, shift};
    const std::string kind = shift ? "shifted Swin block" : "Swin block";
    BenchRow row{kind + " forward", shape, "f32", "torch: roll, partition, SDPA, reverse"};
    {
      const torch::NoGradGuard no_grad;
      const Tensor exact = peer.forward(x);
      row.error = ((block(x) - exact).abs().max() / exact.abs().max().clamp_min(1)).item<double>();
      row.error_bound = 1e-5;  // two float32 computations
      row.target = shift ? 4 : 2.2;
      row.workspace_bytes = measure_workspace([&] { return static_cast<int64_t>(block(x).nbytes()); });
      time_in_turns(
          row, options, [&] { block(x); }, [&] { peer.forward(x); });
    }
    done(row);
    BenchRow both{kind + " forward + backward", shape, "f32", row.peer};
    both.error = row.error, both.error_bound = row.error_bound, both.target = 5;
    const auto train = [&] { run_backward([&](const Tensor& t) { return block(t); }, x, upstream, block); };
    both.workspace_bytes = measure_workspace([&] {
      train();
      return int64_t{0};
    });
    time_in_turns(both, options, train,
                  [&] { run_backward([&](const Tensor& t) { return peer.forward(t); }, x, upstream, block); });
    done(both);
  }
  // Regions that do not see each other cost nothing: excluded ones at least, the additive mask computes them.
  const auto exclude = [](int64_t shift) {
    auto options = nn::WindowAttentionOptions(kChannels, kHeads).window({kWindow, kWindow, kWindow});
    return nn::SwinTransformerBlock(nn::SwinBlockOptions(options.shift({shift, shift, shift})));
  };
  auto plain = exclude(0), shifted = exclude(3);
  const torch::NoGradGuard no_grad;
  BenchRow row{"shifted block, strangers excluded, forward", shape, "f32", "our own plain block"};
  row.target = 1 / 0.95;
  time_in_turns(
      row, options, [&] { shifted(x); }, [&] { plain(x); });
  done(row);
}

void bench_encoder(const BenchOptions& options, const BenchDone& done) {
  torch::manual_seed(static_cast<int64_t>(options.seed));
  models::SwinTransformer encoder(models::swin_unetr_48());
  encoder->eval();
  const Tensor x = torch::randn({1, 1, 96, 96, 96});
  const torch::InferenceMode inference;
  BenchRow row{"encoder 96^3 forward", "SwinUNETR, feature size 48", "f32", "none in this process"};
  row.workspace_bytes = measure_workspace([&] {
    int64_t bytes = 0;
    for (const Tensor& t : encoder(x)) bytes += static_cast<int64_t>(t.nbytes());
    return bytes;
  });
  time_in_turns(row, options, [&] { encoder(x); }, {});
  done(row);
}

}  // namespace fovea::recipes
