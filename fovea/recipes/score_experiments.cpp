#include "fovea/recipes/score_experiments.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "fovea/core/process_memory.h"
#include "fovea/core/rng.h"
#include "fovea/kernels/attention.h"
#include "fovea/ops/attention.h"
#include "fovea/ops/attention_packed.h"
#include "fovea/recipes/one_thread.h"

namespace fovea::recipes {

namespace {
// Of the rows of p [...,M]; 0 log 0 = 0.
torch::Tensor entropy_of(const torch::Tensor& p) { return -torch::xlogy(p, p).sum(-1); }

// Weights of one query a batch entry: q [D,C], k [D,M,C] -> [D,M].
torch::Tensor weights_of(const torch::Tensor& q, const torch::Tensor& k, double scale) {
  return ops::attention_rows(q.unsqueeze(1).unsqueeze(1), k.unsqueeze(1), torch::zeros({1}, torch::kInt64), {}, {},
                             scale)
      .flatten(1);
}

// Weights of given scores [D,M]: a query of 1 and keys of one channel.
torch::Tensor weights_of_scores(const torch::Tensor& scores, double scale = 1) {
  return weights_of(torch::ones({scores.size(0), 1}, scores.options()), scores.unsqueeze(-1), scale);
}

// Mean and its standard error.
std::pair<double, double> mean_of(const std::vector<torch::Tensor>& parts) {
  const auto all = torch::cat(parts).to(torch::kFloat64);
  return {all.mean().item<double>(), all.std().item<double>() / std::sqrt(double(all.numel()))};
}
}  // namespace

Scaling compare_scaling(int64_t channels, const ScoreDraws& d) {
  torch::NoGradGuard no_grad;
  auto generator = at::detail::createCPUGenerator(d.seed);
  constexpr int64_t kAtOnce = 500;
  struct Parts {
    double scale;
    std::vector<torch::Tensor> largest, mass, entropy, scores;
  };
  std::array<Parts, 2> both;
  both[0].scale = 1, both[1].scale = 1 / std::sqrt(double(channels));
  for (int64_t begin = 0; begin < d.draws; begin += kAtOnce) {
    const int64_t n = std::min(kAtOnce, d.draws - begin);
    const auto q = torch::randn({n, channels}, generator, torch::kFloat32);
    const auto k = torch::randn({n, d.keys, channels}, generator, torch::kFloat32);
    const auto products = torch::matmul(k, q.unsqueeze(-1)).flatten().to(torch::kFloat64);
    for (Parts& parts : both) {
      const auto p = weights_of(q, k, parts.scale).to(torch::kFloat64);
      parts.scores.push_back(products * parts.scale);
      parts.largest.push_back(p.amax(-1)), parts.mass.push_back((p * (1 - p)).sum(-1)),
          parts.entropy.push_back(entropy_of(p));
    }
  }
  Scaling result;
  for (size_t i = 0; i < 2; ++i) {
    ScoreStatistics& s = i == 0 ? result.unscaled : result.scaled;
    s.channels = channels, s.variance = torch::cat(both[i].scores).var().item<double>();
    std::tie(s.largest_weight, s.largest_weight_error) = mean_of(both[i].largest);
    std::tie(s.gradient_mass, s.gradient_mass_error) = mean_of(both[i].mass);
    std::tie(s.entropy_nats, s.entropy_nats_error) = mean_of(both[i].entropy);
  }
  return result;
}

ScoreDetail draw_scores(int64_t channels, bool scaled, const ScoreDraws& d) {
  torch::NoGradGuard no_grad;
  auto generator = at::detail::createCPUGenerator(d.seed);
  const double scale = scaled ? 1 / std::sqrt(double(channels)) : 1;
  const auto q = torch::randn({d.draws, channels}, generator, torch::kFloat32);
  const auto k = torch::randn({d.draws, d.keys, channels}, generator, torch::kFloat32);
  const auto sorted = std::get<0>(weights_of(q, k, scale).to(torch::kFloat64).sort(-1, /*descending=*/true));
  return {(torch::matmul(k, q.unsqueeze(-1)).flatten() * scale).to(torch::kFloat64), sorted.mean(0)};
}

WorkedExample work_example(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v) {
  torch::NoGradGuard no_grad;
  const auto lift = [](const torch::Tensor& t) { return t.unsqueeze(0).unsqueeze(0); };
  return {ops::attention_rows(lift(q), lift(k), torch::arange(q.size(0)))[0][0],
          std::get<0>(ops::attention(lift(q), lift(k), lift(v.unsqueeze(1)))).flatten()};
}

WorkedExample worked_example() {
  const auto f64 = torch::TensorOptions(torch::kFloat64);
  return work_example(torch::tensor({{2.0, 0.0}, {0.0, 2.0}}, f64),
                      torch::tensor({{2.0, 0.0}, {-2.0, 0.0}, {1.8, 0.2}}, f64), torch::tensor({1.0, 10.0, 2.0}, f64));
}

DefinitionErrors attention_against_definition(int64_t shapes, uint64_t seed) {
  torch::NoGradGuard no_grad;
  DefinitionErrors errors;
  for (int64_t i = 0; i < shapes; ++i) {
    Rng rng(seed, 0, uint32_t(i));
    const auto up_to = [&](uint64_t most) { return int64_t(1 + rng.below(most)); };
    const int64_t B = up_to(3), H = up_to(4), N = up_to(90), M = up_to(90), C = up_to(70);
    auto generator = at::detail::createCPUGenerator(rng.next_u64());
    const auto draw = [&](int64_t tokens) {
      return torch::randn({B, H, tokens, C}, generator, torch::kFloat32).to(torch::kFloat64);
    };
    const auto q = draw(N), k = draw(M), v = draw(M);
    const auto expected =
        torch::matmul(torch::softmax(torch::matmul(q, k.transpose(-1, -2)) / std::sqrt(double(C)), -1), v);
    const auto f32 = [](const torch::Tensor& t) { return t.to(torch::kFloat32); };
    const auto difference = [&](const torch::Tensor& out) {
      return (out.to(torch::kFloat64) - expected).abs().max().item<double>();
    };
    errors.f64 = std::max(errors.f64, difference(std::get<0>(ops::attention(q, k, v))));
    errors.f32 = std::max(errors.f32, difference(std::get<0>(ops::attention(f32(q), f32(k), f32(v)))));
  }
  return errors;
}

namespace {
struct OptionCase {
  torch::Tensor q, k, v, bias, key_mask, upstream;  // double; bias and key_mask may be undefined
  ops::AttentionOptions options;
};

OptionCase draw_case(Rng& rng) {
  const auto up_to = [&](uint64_t most) { return int64_t(1 + rng.below(most)); };
  const int64_t B = up_to(2), Hk = up_to(2), H = Hk * up_to(2), N = up_to(70), M = up_to(70), C = up_to(70);
  auto generator = at::detail::createCPUGenerator(rng.next_u64());
  const auto draw = [&](at::IntArrayRef shape) {  // representable in every dtype
    return torch::randn(shape, generator, torch::kFloat32).to(torch::kBFloat16).to(torch::kFloat64);
  };
  OptionCase c{draw({B, H, N, C}), draw({B, Hk, M, C}), draw({B, Hk, M, C}), {}, {}, draw({B, H, N, C}), {}};
  if (rng.chance(0.5f)) c.bias = draw({1, H, N, M});
  if (rng.chance(0.4f)) c.key_mask = torch::rand({B, M}, generator) > 0.3;
  ops::AttentionOptions& o = c.options;
  o.causal = rng.chance(0.3f);
  if (rng.chance(0.4f)) o.window_left = int64_t(rng.below(uint64_t(M)));
  if (rng.chance(0.4f)) o.window_right = int64_t(rng.below(uint64_t(M)));
  if (rng.chance(0.4f)) o.softcap = 1 + 4 * rng.uniform();
  for (int64_t h = 0; h < H && c.bias.defined(); ++h) o.alibi_slopes.push_back(std::exp2(-1.0 - double(h)));
  if (rng.chance(0.4f)) o.dropout = 0.2, o.dropout_seed = int64_t(rng.next_u64() >> 1);
  return c;
}

// Every score in memory, torch's operators alone, in the dtype of the arguments.
torch::Tensor every_score(const OptionCase& c, const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                          const torch::Tensor& bias) {
  const int64_t group = q.size(1) / k.size(1), N = q.size(2), M = k.size(2);
  const ops::AttentionOptions& o = c.options;
  auto s = torch::matmul(q, k.repeat_interleave(group, 1).transpose(-1, -2)) / std::sqrt(double(q.size(3)));
  if (o.softcap > 0) s = o.softcap * (s / o.softcap).tanh();
  if (bias.defined()) s = s + bias;
  const auto behind = torch::arange(M).unsqueeze(0) - torch::arange(N).unsqueeze(1) - (M - N);
  if (!o.alibi_slopes.empty())
    s = s - (torch::tensor(o.alibi_slopes, torch::kFloat64).view({-1, 1, 1}) * behind.abs()).to(s.scalar_type());
  auto open = torch::ones({1, 1, N, M}, torch::kBool);
  if (o.causal) open = open & (behind <= 0);
  if (o.window_left >= 0) open = open & (behind >= -o.window_left);
  if (o.window_right >= 0) open = open & (behind <= o.window_right);
  if (c.key_mask.defined()) open = open & c.key_mask.unsqueeze(1).unsqueeze(1);
  s = s.masked_fill(~open, -std::numeric_limits<double>::infinity()).masked_fill(~open.any(-1, true), 0.0);
  auto p = s.softmax(-1).masked_fill(~open, 0.0);
  if (o.dropout > 0) {
    const kernels::AttentionDropout dropout{o.dropout, uint64_t(o.dropout_seed)};
    auto kept = torch::empty({q.size(0), q.size(1), N, M}, torch::kFloat64);
    auto to = kept.accessor<double, 4>();
    for (int64_t b = 0; b < q.size(0); ++b)
      for (int64_t h = 0; h < q.size(1); ++h)
        for (int64_t i = 0; i < N; ++i)
          for (int64_t j = 0; j < M; ++j) to[b][h][i][j] = dropout.factor(b, h, i, j);
    p = p * kept.to(p.scalar_type());
  }
  return torch::matmul(p, v.repeat_interleave(group, 1));
}

// Output and gradients of q, k, v and, if there is one, bias, computed in `dtype`.
template <class F>
std::vector<torch::Tensor> run_case(const OptionCase& c, torch::ScalarType dtype, const F& attend) {
  const auto leaf = [&](const torch::Tensor& t) {
    return t.defined() ? t.to(dtype).detach().clone().requires_grad_() : t;
  };
  const auto q = leaf(c.q), k = leaf(c.k), v = leaf(c.v), bias = leaf(c.bias);
  const auto out = attend(q, k, v, bias);
  out.backward(c.upstream.to(dtype));
  std::vector<torch::Tensor> all = {out.detach(), q.grad(), k.grad(), v.grad()};
  if (bias.defined()) all.push_back(bias.grad());
  return all;
}
}  // namespace

OptionErrors attention_options_against_definition(int64_t shapes, uint64_t seed) {
  OptionErrors errors;
  for (int64_t i = 0; i < shapes; ++i) {
    Rng rng(seed, 1, uint32_t(i));
    OptionCase c = draw_case(rng);
    const bool packed = rng.chance(0.2f) && !c.bias.defined() && !c.key_mask.defined() && c.q.size(0) == 2;
    const auto ours = [&](const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                          const torch::Tensor& bias) {
      const auto given = [](const torch::Tensor& t) { return t.defined() ? std::optional(t) : std::nullopt; };
      if (!packed) return std::get<0>(ops::attention(q, k, v, given(bias), given(c.key_mask), c.options));
      // The two samples as two sequences behind each other: b h n c -> (b n) h c, and back.
      const auto flat = [](const torch::Tensor& t) { return t.transpose(1, 2).flatten(0, 1); };
      const int64_t N = q.size(2), M = k.size(2);
      return std::get<0>(ops::attention_packed(flat(q), flat(k), flat(v), {0, N, 2 * N}, {0, M, 2 * M}, c.options))
          .unflatten(0, {2, N})
          .transpose(1, 2);
    };
    if (packed) c.options.dropout = 0;  // which weights it drops depends on the sequence
    const auto theirs = [&](const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                            const torch::Tensor& bias) { return every_score(c, q, k, v, bias); };
    const auto exact = run_case(c, torch::kFloat64, theirs);
    const auto error = [&](const std::vector<torch::Tensor>& got, size_t t) {
      const double size = std::max(1.0, exact[t].abs().max().item<double>());
      return (got[t].to(torch::kFloat64) - exact[t]).abs().max().item<double>() / size;
    };
    const auto got = run_case(c, torch::kFloat64, ours);
    for (size_t t = 0; t < exact.size(); ++t) {
      double& worst = t == 0 ? errors.forward_f64 : errors.gradient_f64;
      worst = std::max(worst, error(got, t));
    }
    struct Low {
      torch::ScalarType dtype;
      double forward_floor, gradient_floor;
      double *forward, *gradient;
    };
    for (const Low& low : {Low{torch::kFloat32, 1e-6, 1e-5, &errors.forward_f32, &errors.gradient_f32},
                           Low{torch::kBFloat16, 0x1p-9, 0x1p-8, &errors.forward_bf16, &errors.gradient_bf16}}) {
      const auto mine = run_case(c, low.dtype, ours), plain = run_case(c, low.dtype, theirs);
      for (size_t t = 0; t < exact.size(); ++t) {
        double& worst = t == 0 ? *low.forward : *low.gradient;
        const double floor = t == 0 ? low.forward_floor : low.gradient_floor;
        worst = std::max(worst, (error(mine, t) - floor) / std::max(error(plain, t), floor));
      }
    }
  }
  return errors;
}

Budget softmax_budget(int64_t rows, int64_t keys, uint64_t seed) {
  torch::NoGradGuard no_grad;
  auto generator = at::detail::createCPUGenerator(seed);
  const auto scores = torch::randn({rows, keys}, generator, torch::kFloat64) * 3;
  const auto p = weights_of_scores(scores);
  Budget b;
  b.sum_error = (p.sum(-1) - 1).abs().max().item<double>();
  b.smallest_weight = p.min().item<double>();
  const auto order = scores.argsort(int64_t{-1}, /*descending=*/false);
  b.pairs_out_of_order = (p.gather(-1, order).diff(1, -1) < 0).sum().item<int64_t>();
  b.effective_keys = entropy_of(p).exp().mean().item<double>();
  b.shift_change = (weights_of_scores(scores + 7.5) - p).abs().max().item<double>();
  auto raised = scores.clone();
  raised.select(-1, 0) += 1;
  b.raised_without_lowering = (weights_of_scores(raised) >= p).slice(-1, 1).sum().item<int64_t>();
  for (const double t : {0.01, 0.05, 0.1, 0.25, 0.5})
    b.over_budget += ((p >= t).sum(-1).to(torch::kFloat64) > 1 / t).sum().item<int64_t>();
  return b;
}

double entropy_at_temperature(double temperature, uint64_t seed) {
  torch::NoGradGuard no_grad;
  auto generator = at::detail::createCPUGenerator(seed);
  const auto scores = torch::randn({500, 64}, generator, torch::kFloat64);
  return entropy_of(weights_of_scores(scores, 1 / temperature)).mean().item<double>();
}

AttentionBytes global_attention_bytes(int64_t tokens, int64_t channels) {
  const auto draw = [&](int64_t n) { return torch::zeros({1, 1, n, channels}).requires_grad_(); };
  const auto train = [](const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v) {
    std::get<0>(ops::attention(q, k, v)).sum().backward();
  };
  train(draw(64), draw(64), draw(64));  // touches code and thread pool
  const auto q = draw(tokens), k = draw(tokens), v = draw(tokens);
  const auto measured = [](const auto& work) {
    release_free_memory();
    if (!reset_peak_resident()) return -1.0;
    const double before = double(resident_bytes());
    work();
    return double(peak_resident_bytes()) - before;
  };
  AttentionBytes bytes;
  bytes.forward = measured([&] {
    torch::NoGradGuard no_grad;
    ops::attention(q, k, v);
  });
  bytes.training = measured([&] { train(q, k, v); });
  return bytes;
}

Recall learn_recall(bool scaled, int64_t channels, uint64_t seed) {
  constexpr int64_t kKeys = 16, kValues = 8, kWidth = 32, kBatch = 64, kFresh = 1024;
  const OneThread one_thread;
  auto generator = at::detail::createCPUGenerator(seed);
  const double scale = scaled ? 1 / std::sqrt(double(channels)) : 1, spread = 1 / std::sqrt(double(kWidth));
  const auto draw = [&](at::IntArrayRef shape, double deviation) {
    return torch::randn(shape, generator, torch::kFloat32) * deviation;
  };
  const auto embedding = draw({kKeys, kWidth}, 1);
  auto to_query = draw({kWidth, channels}, spread).requires_grad_(),
       to_key = draw({kWidth, channels}, spread).requires_grad_();
  auto values = draw({kValues, kWidth}, 1).requires_grad_(), read = draw({kWidth, kValues}, spread).requires_grad_();
  torch::optim::SGD optimizer({to_query, to_key, values, read}, torch::optim::SGDOptions(0.1));

  struct Sets {
    torch::Tensor value, asked;  // [B,keys], [B]
    torch::Tensor answer() const { return value.gather(1, asked.unsqueeze(1)).squeeze(1); }
  };
  const auto whole = torch::TensorOptions(torch::kInt64);
  const auto make = [&](int64_t n) {
    return Sets{torch::randint(kValues, {n, kKeys}, generator, whole), torch::randint(kKeys, {n}, generator, whole)};
  };
  const auto queries = [&](const Sets& s) { return torch::matmul(embedding, to_query).index_select(0, s.asked); };
  const auto keys = [&](int64_t n) {
    return torch::matmul(embedding, to_key).unsqueeze(0).expand({n, kKeys, channels});
  };
  const auto run = [&](const Sets& s) {
    const auto q = queries(s).unsqueeze(1).unsqueeze(1), k = keys(s.asked.size(0)).unsqueeze(1),
               v = values.index({s.value}).unsqueeze(1);
    return torch::matmul(std::get<0>(ops::attention(q, k, v, {}, {}, false, scale)).flatten(1), read);
  };

  Recall r;
  for (int step = 0; step < 200; ++step) {
    const Sets s = make(kBatch);
    if (step == 0) {
      torch::NoGradGuard no_grad;
      const auto p = weights_of(queries(s), keys(kBatch), scale);
      r.gradient_mass = (p * (1 - p)).sum(-1).mean().item<double>();
    }
    optimizer.zero_grad();
    torch::nn::functional::cross_entropy(run(s), s.answer()).backward();
    if (step == 0) r.gradient_norm = to_query.grad().norm().item<double>();
    optimizer.step();
  }
  torch::NoGradGuard no_grad;
  const Sets s = make(kFresh);
  r.accuracy = (run(s).argmax(-1) == s.answer()).to(torch::kFloat64).mean().item<double>();
  return r;
}

}  // namespace fovea::recipes
