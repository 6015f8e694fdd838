#include "fovea/recipes/report_reader.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numbers>

#include "fovea/core/error.h"
#include "fovea/io/word_pieces.h"
#include "fovea/models/text_encoder.h"
#include "fovea/nn/finding_attention.h"
#include "fovea/nn/gated_fusion.h"
#include "fovea/nn/volume_tokens.h"
#include "fovea/nn/word_region_attention.h"
#include "fovea/recipes/one_thread.h"
#include "fovea/train/classification_metrics.h"
#include "fovea/train/contrastive_loss.h"

namespace fovea::recipes {

namespace {
constexpr int64_t kWidth = 32, kHeads = 4, kChannels = 8, kLongest = 40, kBatch = 16, kBodies = 64;
constexpr double kSharpStart = 6;
constexpr std::array<double, 4> kWavesMm = {800, 400, 200, 100};

// Places of a scan's tokens in the patient, from its middle, as waves along right, front and up: [N,24].
torch::Tensor waves(const nn::Triple& grid, const nn::Triple& cell, const Geometry& g) {
  const auto middle = torch::tensor({{0.5 * double(g.shape[0] - 1), 0.5 * double(g.shape[1] - 1), 0.5 * double(g.shape[2] - 1)}}, torch::kFloat64);
  const auto mm = nn::positions_mm(nn::cell_centres(grid, cell), g) - nn::positions_mm(middle, g);
  std::vector<torch::Tensor> parts;
  for (const double wave : kWavesMm)
    for (const auto& part : {(mm * (2 * std::numbers::pi / wave)).sin(), (mm * (2 * std::numbers::pi / wave)).cos()}) parts.push_back(part);
  return torch::cat(parts, 1).to(torch::kFloat32);
}

struct Sentences {
  torch::Tensor pieces, mask;
  torch::Tensor place = {};  // of each text among the rows: equal texts are read once
};

Sentences sentences_of(const std::vector<std::string>& texts, const io::WordPieces& words) {
  std::map<std::string, int64_t> rows;
  std::vector<std::vector<int64_t>> numbers;
  std::vector<int64_t> place;
  for (const auto& text : texts) {
    const auto [row, is_new] = rows.emplace(text, int64_t(numbers.size()));
    if (is_new) numbers.push_back(words.encode(text, kLongest));
    place.push_back(row->second);
  }
  const auto batch = models::pad_texts(numbers, words.pad());
  return {batch.pieces, batch.mask, torch::tensor(place, torch::kInt64)};
}

// What a case's six questions and six reports say.
struct Asked {
  Sentences question, report;
};

Asked asked_of(const ReportCases& cases, const io::WordPieces& words) {
  return {sentences_of(cases.question, words), sentences_of(cases.report, words)};
}

models::TextEncoderConfig text_config(int64_t vocabulary) {
  models::TextEncoderConfig config;
  config.vocabulary = vocabulary, config.dim = kWidth, config.layers = 2, config.heads = kHeads;
  config.hidden = 2 * kWidth, config.longest = kLongest, config.segments = 1;
  return config;
}

/// What a network says of B scans and Q sentences about each.
struct Answers {
  torch::Tensor kind, kind_of_image, kind_of_text;  // [B,Q] logits: as it is, gate held at 1, held at 0
  torch::Tensor present;                            // [B,Q] logits
  torch::Tensor gate;                               // [B,Q]
  torch::Tensor weights;                            // [B,Q,N]
  torch::Tensor regions;                            // [B,N,E] in the space shared with words
};

struct Reader : torch::nn::Module {
  Reader(ReportArm kind, int64_t vocabulary) : arm(kind) {
    const auto linear = [&](const char* name, int64_t in, int64_t out) { return register_module(name, torch::nn::Linear(in, out)); };
    const auto norm = [&](const char* name) { return register_module(name, torch::nn::LayerNorm(torch::nn::LayerNormOptions({kWidth}))); };
    if (sees()) {
      see = register_module("see", nn::VolumeTokens(nn::VolumeTokensOptions(1, kChannels, 1, kWidth)));
      place = linear("place", 6 * int64_t(kWavesMm.size()), kWidth);
      mix_norm = norm("mix_norm");
      mix = register_module("mix", nn::Mlp(nn::MlpOptions(kWidth, 2 * kWidth)));
      seen_norm = norm("seen_norm");
      to_regions = linear("to_regions", kWidth, kWidth);
    }
    if (reads()) {
      read = register_module("read", models::TextEncoder(text_config(vocabulary)));
      to_words = linear("to_words", kWidth, kWidth);
    }
    if (arm == ReportArm::kGated || arm == ReportArm::kImageAlone)
      find = register_module("find", nn::FindingAttention(nn::FindingAttentionOptions(kWidth)));
    if (arm == ReportArm::kGated) {
      fuse = register_module("fuse", nn::GatedFusion(nn::GatedFusionOptions(kWidth, kWidth, kWidth).bias(true)));
    } else if (arm == ReportArm::kLateConcatenation) {
      joined = register_module("joined", nn::Mlp(nn::MlpOptions(2 * kWidth, 4 * kWidth)));
      answer = linear("answer", 2 * kWidth, kWidth);
    } else {
      answer = linear("answer", kWidth, kWidth);
    }
    if (arm == ReportArm::kImageAlone) asks = register_parameter("asks", torch::zeros({1, 1, kWidth}));
    kind_head = linear("kind_head", kWidth, 1), present_head = linear("present_head", kWidth, 1);
  }

  bool sees() const { return arm != ReportArm::kTextAlone; }
  bool reads() const { return arm != ReportArm::kImageAlone; }

  torch::Tensor tokens(const torch::Tensor& voxels, const std::vector<Geometry>& geometry) {
    const auto [content, grid] = [&] {
      const auto seen = see(voxels);
      return std::pair(seen.tokens, seen.grid);
    }();
    std::vector<torch::Tensor> places;
    for (const Geometry& g : geometry) places.push_back(waves(grid, see->cell(), g));
    auto x = content + place(torch::stack(places));
    return seen_norm(mix->add_to(x, mix_norm));
  }

  // Mean over pieces, in the space of words: [B,Q,E].
  torch::Tensor sentence(const Sentences& s, int64_t scans) {
    const auto all = to_words(read(s.pieces, s.mask)) * s.mask.unsqueeze(2);
    return (all.sum(1) / s.mask.sum(1, /*keepdim=*/true)).index_select(0, s.place).view({scans, -1, kWidth});
  }

  Answers forward(const torch::Tensor& voxels, const std::vector<Geometry>& geometry, const Asked& asked) {
    const int64_t B = voxels.size(0), Q = asked.report.place.size(0) / B;
    Answers out;
    if (sees()) out.regions = to_regions(tokens(voxels, geometry));
    const auto flat = [](const torch::Tensor& x) { return x.reshape({-1, x.size(-1)}); };
    const auto kind_of = [&](const torch::Tensor& x) { return kind_head(x).view({B, Q}); };
    torch::Tensor joint;
    switch (arm) {
      case ReportArm::kGated: {
        const nn::Finding finding = find(sentence(asked.question, B), out.regions);
        const auto text = flat(sentence(asked.report, B)), image = flat(finding.vector);
        const auto fused = fuse(image, text);
        joint = fused.vector;
        out.gate = fused.gate.mean(1).view({B, Q});
        out.kind_of_image = kind_of(torch::tanh(fuse->image(image))), out.kind_of_text = kind_of(torch::tanh(fuse->text(text)));
        out.present = finding.found, out.weights = finding.weights;
        break;
      }
      case ReportArm::kImageAlone: {
        const auto found = find(asks.expand({B, 1, kWidth}), out.regions).vector;
        joint = flat(torch::tanh(answer(found)).expand({B, Q, kWidth}));
        break;
      }
      case ReportArm::kTextAlone: joint = torch::tanh(answer(flat(sentence(asked.report, B)))); break;
      case ReportArm::kLateConcatenation: {
        const auto mean = out.regions.mean(1, /*keepdim=*/true).expand({B, Q, kWidth});
        joint = torch::tanh(answer(joined->add_to(flat(torch::cat({mean, sentence(asked.report, B)}, 2)), /*norm=*/nullptr)));
        break;
      }
    }
    out.kind = kind_of(joint);
    if (!out.present.defined()) out.present = present_head(joint).view({B, Q});
    return out;
  }

  ReportArm arm;
  nn::VolumeTokens see{nullptr};
  torch::nn::Linear place{nullptr}, to_regions{nullptr}, to_words{nullptr}, answer{nullptr}, kind_head{nullptr}, present_head{nullptr};
  torch::nn::LayerNorm mix_norm{nullptr}, seen_norm{nullptr};
  nn::Mlp mix{nullptr}, joined{nullptr};
  models::TextEncoder read{nullptr};
  nn::FindingAttention find{nullptr};
  nn::GatedFusion fuse{nullptr};
  torch::Tensor asks;
};

// Weights that keep the size of what they map, from the recipe's own generator.
void initialise(Reader& reader, at::Generator generator) {
  torch::NoGradGuard no_grad;
  for (const auto& item : reader.named_parameters()) {
    auto p = item.value();
    const bool table = item.key().starts_with("read.word") || item.key().starts_with("read.position") || item.key().starts_with("read.segment");
    if (p.dim() == 1)
      p.fill_(item.key().find("norm") != std::string::npos && item.key().ends_with("weight") ? 1 : 0);
    else
      p.normal_(0, table || item.key() == "asks" ? 1 : 1 / std::sqrt(double(p[0].numel())), generator);
    // Questions differ in a few words of many: attention that begins flat would take long to tell them apart.
    if (item.key() == "find.q_proj.weight") p.mul_(kSharpStart);
  }
}

torch::Tensor answer_loss(const torch::Tensor& logits, const ReportCases& cases) {
  const auto present = cases.kind >= 0;
  return torch::binary_cross_entropy_with_logits(logits.masked_select(present), cases.kind.masked_select(present).to(torch::kFloat32));
}

// For each token the region of most of its voxels that have one, -1 none: [B,N].
torch::Tensor token_regions(const torch::Tensor& region, const nn::Triple& cell);

// How far attention is from lying in the named regions: -log of its mass there.
torch::Tensor astray(const torch::Tensor& weights, const ReportCases& cases, const nn::Triple& cell) {
  const auto home = token_regions(cases.region, cell).unsqueeze(1) == torch::arange(kRegions).view({1, -1, 1});  // B 6 N
  return -(weights * home).sum(2).clamp_min(1e-6).log().masked_select(home.any(2)).mean();
}

torch::Tensor loss_of(Reader& reader, const ReportCases& cases, const Asked& asked, const io::WordPieces& words, bool show_regions) {
  const Answers out = reader.forward(cases.voxels, cases.geometry, asked);
  auto loss = answer_loss(out.kind, cases) +
              torch::binary_cross_entropy_with_logits(out.present, (cases.kind >= 0).to(torch::kFloat32));
  if (reader.arm != ReportArm::kGated) return loss;
  loss = loss + 0.5 * answer_loss(out.kind_of_image, cases) + 0.5 * answer_loss(out.kind_of_text, cases);
  if (show_regions) loss = loss + 0.5 * astray(out.weights, cases, reader.see->cell());
  const auto clear = (cases.noise < 0.5).nonzero().squeeze(1);
  if (clear.size(0) < 2) return loss;
  std::vector<std::string> findings;
  for (int64_t i = 0; i < clear.size(0); ++i) findings.push_back(cases.finding[size_t(clear[i].item<int64_t>())]);
  const Sentences found = sentences_of(findings, words);
  const auto said = reader.to_words(reader.read(found.pieces, found.mask));
  return loss + 0.1 * train::contrastive_loss(nn::word_regions(said, found.mask, out.regions.index_select(0, clear), {}, {.single_softmax = true}).scores.index_select(1, found.place));
}

torch::Tensor token_regions(const torch::Tensor& region, const nn::Triple& cell) {
  std::vector<torch::Tensor> counts;
  for (int64_t r = 1; r <= kRegions; ++r)
    counts.push_back(torch::avg_pool3d((region == r).to(torch::kFloat32).unsqueeze(1), at::IntArrayRef(cell), at::IntArrayRef(cell), 0, /*ceil_mode=*/true,
                                       /*count_include_pad=*/false).flatten(1));
  const auto [most, which] = torch::stack(counts, 2).max(2);
  return torch::where(most > 0, which, torch::full_like(which, -1));
}

// Tokens whose cell touches the nodule of each region: [B,6,N].
torch::Tensor touched(const ReportCases& cases, const nn::Triple& grid, const nn::Triple& cell) {
  std::vector<torch::Tensor> rows;
  for (size_t b = 0; b < cases.geometry.size(); ++b) {
    const Geometry& g = cases.geometry[b];
    const auto spacing = g.spacing_mm();
    const auto centres = nn::positions_mm(nn::cell_centres(grid, cell), g);  // N 3, x y z; axes lie along the patient's
    const auto half = torch::tensor({0.5 * double(cell[2]) * spacing[2], 0.5 * double(cell[1]) * spacing[1], 0.5 * double(cell[0]) * spacing[0]}, torch::kFloat64);
    const auto apart = ((cases.centre_mm[int64_t(b)].unsqueeze(1) - centres.unsqueeze(0)).abs() - half).clamp_min(0).norm(2, 2);
    rows.push_back(apart < cases.radius_mm[int64_t(b)].unsqueeze(1));
  }
  return torch::stack(rows);
}

double mean_over(const torch::Tensor& values, const torch::Tensor& which) {
  return values.to(torch::kFloat64).masked_select(which).mean().item<double>();
}

torch::Tensor mirrored(const torch::Tensor& of_regions, const Anatomy& anatomy) {
  return of_regions.index_select(1, torch::tensor(std::vector<int64_t>(anatomy.mirrored.begin(), anatomy.mirrored.end()), torch::kInt64));
}

/// Fresh cases and what they need, in groups of kBatch.
class Exam {
 public:
  Exam(const std::vector<Body>& bodies, const io::WordPieces& words, at::Generator generator)
      : bodies_(bodies), words_(words), generator_(std::move(generator)) {}

  template <class F>
  void cases(int64_t groups, double noise, F&& f) {
    for (int64_t i = 0; i < groups; ++i) {
      const ReportCases cases = draw_cases(kBatch, bodies_, {.noise = noise}, generator_);
      f(cases, asked_of(cases, words_));
    }
  }
  at::Generator generator() { return generator_; }

 private:
  const std::vector<Body>& bodies_;
  const io::WordPieces& words_;
  at::Generator generator_;
};

torch::Tensor is_right(const torch::Tensor& logits, const torch::Tensor& kind) { return (logits > 0) == (kind == 1); }

// Of the twelve certain sentences those about this scan's nodules are true; a true one is found if no false one scores
// as high.
double retrieval(Reader& reader, const ReportCases& cases, const Answers& out, const io::WordPieces& words) {
  std::vector<std::string> gallery;
  for (int64_t region = 0; region < kRegions; ++region)
    for (int64_t kind = 0; kind < kKinds; ++kind) gallery.push_back(finding_sentence(*cases.anatomy, region, kind, int(region % 2)));
  const Sentences all = sentences_of(gallery, words);
  const auto said = reader.to_words(reader.read(all.pieces, all.mask));
  const auto scores = nn::word_regions(said, all.mask, out.regions, {}, {.single_softmax = true}).scores;  // B 12
  const auto is_true = torch::stack({cases.kind == 0, cases.kind == 1}, 2).flatten(1);
  const auto best_false = scores.masked_fill(is_true, -INFINITY).amax(1, /*keepdim=*/true);
  return mean_over(scores > best_false, is_true);
}

void examine_gated(Reader& reader, Exam& exam, const io::WordPieces& words, ReportReading& found) {
  constexpr int64_t kGroups = 12, kGroupsOfShare = 6;
  std::vector<double> present_score;
  std::vector<bool> absent;
  double changed = 0, could_change = 0;
  std::array<double, kRegions> asked{};
  const auto add = [](double& sum, double value, int64_t groups) { sum += value / double(groups); };
  exam.cases(kGroups, 0, [&](const ReportCases& cases, const Asked& s) {
    const auto present = cases.kind >= 0;
    const auto every = torch::arange(kRegions);
    const Answers out = reader.forward(cases.voxels, cases.geometry, s);
    const auto& weights = out.weights;  // B 6 N
    std::vector<Geometry> swapped;
    for (const Geometry& g : cases.geometry) swapped.push_back(left_right_swapped(g));
    const Answers other = reader.forward(cases.voxels, swapped, s);
    const auto& swapped_weights = other.weights;

    const nn::Triple cell = reader.see->cell(), grid = reader.see->grid_of({cases.voxels.size(2), cases.voxels.size(3), cases.voxels.size(4)});
    const auto home = token_regions(cases.region, cell);                                     // B N
    const auto in = (home.unsqueeze(1) == every.view({1, -1, 1})).to(weights.scalar_type());  // B 6 N
    const auto map = torch::einsum("bqn,brn->bqr", {weights, in});
    const auto swapped_map = torch::einsum("bqn,brn->bqr", {swapped_weights, in});
    add(found.mass, mean_over(map.diagonal(0, 1, 2), present), kGroups);
    for (int64_t q = 0; q < kRegions; ++q) {
      const auto rows = map.select(1, q).index_select(0, present.select(1, q).nonzero().squeeze(1));
      asked[q] += double(rows.size(0));
      for (int64_t r = 0; r < kRegions; ++r) found.map[q][r] += rows.select(1, r).sum().item<double>();
    }
    const auto strongest = weights.argmax(2, /*keepdim=*/true);
    add(found.pointing, mean_over(touched(cases, grid, cell).gather(2, strongest).squeeze(2), present), kGroups);
    for (int64_t i = 0; i < present.numel(); ++i) {
      present_score.push_back(-out.present.flatten()[i].item<double>());
      absent.push_back(!present.flatten()[i].item<bool>());
    }
    add(found.retrieval, retrieval(reader, cases, out, words), kGroups);
    // The sentence now names, in the patient, what the array holds on the other side.
    const auto opposite = mirrored(cases.kind, *cases.anatomy);
    const auto there = opposite >= 0;
    add(found.swapped_accuracy, mean_over(is_right(other.kind, opposite), there), kGroups);
    add(found.swapped_mass, mean_over(mirrored(swapped_map.transpose(1, 2), *cases.anatomy).diagonal(0, 1, 2), there), kGroups);
    const auto may_change = there.logical_and(present).logical_and(opposite != cases.kind).logical_and(is_right(out.kind, cases.kind));
    could_change += may_change.sum().item<double>();
    changed += may_change.logical_and((out.kind > 0) != (other.kind > 0)).sum().item<double>();
    // Voxels in random order.
    const auto order = torch::randperm(cases.voxels[0].numel(), exam.generator(), torch::kInt64);
    const auto shuffled = cases.voxels.flatten(1).index_select(1, order).view_as(cases.voxels);
    add(found.gate_of_shuffled, reader.forward(shuffled, cases.geometry, s).gate.mean().item<double>(), kGroups);
  });
  found.flips = changed / could_change;
  found.absent_auc = train::roc_auc(present_score, absent);
  for (int64_t q = 0; q < kRegions; ++q)
    for (double& value : found.map[q]) value /= asked[q];
  for (size_t i = 0; i < kNoiseShares.size(); ++i)
    exam.cases(kGroupsOfShare, kNoiseShares[i], [&](const ReportCases& cases, const Asked& s) {
      const Answers out = reader.forward(cases.voxels, cases.geometry, s);
      const auto present = cases.kind >= 0;
      add(found.gate[i], mean_over(out.gate, present), kGroupsOfShare);
      add(found.accuracy[i], mean_over(is_right(out.kind, cases.kind), present), kGroupsOfShare);
      add(found.image_alone[i], mean_over(is_right(out.kind_of_image, cases.kind), present), kGroupsOfShare);
    });
}
}  // namespace

std::string name_of(ReportArm arm) {
  switch (arm) {
    case ReportArm::kGated: return "sentence asks the scan, gated";
    case ReportArm::kImageAlone: return "image alone";
    case ReportArm::kTextAlone: return "text alone";
    default: return "late concatenation";
  }
}

ReportReading learn_to_read_reports(const ReadingOptions& options, uint64_t seed) {
  constexpr double kRate = 6e-3;
  constexpr int64_t kWarmUp = 20;
  const OneThread one_thread;
  auto generator = at::detail::createCPUGenerator(seed);
  std::vector<Body> bodies = options.bodies, fresh = options.bodies;
  if (bodies.empty())
    for (auto* chests : {&bodies, &fresh})
      for (int64_t i = 0; i < kBodies; ++i) chests->push_back(draw_chest(generator));
  const io::WordPieces words = io::WordPieces::from_texts(all_sentences(*bodies[0].anatomy));

  std::vector<std::shared_ptr<Reader>> readers;
  std::vector<torch::optim::AdamW> optimizers;
  for (const ReportArm arm : options.arms) {
    readers.push_back(std::make_shared<Reader>(arm, words.size()));
    initialise(*readers.back(), generator);
    optimizers.emplace_back(readers.back()->parameters(), torch::optim::AdamWOptions(kRate).betas({0.9, 0.95}).weight_decay(0.01));
  }
  for (int64_t step = 0; step < options.steps; ++step) {
    // First clean scans of few nodules, and where the lobes are: a sentence's region and what to look for there are of no
    // use without each other, and neither is found alone. Then noise, and attention is left to itself.
    const bool early = step < options.steps * 3 / 5;
    const ReportCases cases = draw_cases(kBatch, bodies, {.noise = early ? 0.0 : -1.0, .balanced = !early}, generator);
    const Asked asked = asked_of(cases, words);
    const double rate = kRate * std::min({1.0, double(step + 1) / kWarmUp, 2 * (1 - double(step) / double(options.steps)) + 0.02});
    for (size_t i = 0; i < readers.size(); ++i) {
      for (auto& group : optimizers[i].param_groups()) group.options().set_lr(rate);
      optimizers[i].zero_grad();
      const auto loss = loss_of(*readers[i], cases, asked, words, early);
      loss.backward();
      torch::nn::utils::clip_grad_norm_(readers[i]->parameters(), 1.0);
      optimizers[i].step();
    }
  }

  torch::NoGradGuard no_grad;
  ReportReading found;
  Exam exam(fresh, words, generator);
  for (size_t i = 0; i < readers.size(); ++i) {
    readers[i]->eval();
    ArmScore score;
    for (const auto& p : readers[i]->parameters()) score.parameters += p.numel();
    found.arms.push_back(score);
  }
  constexpr int64_t kGroups = 12;
  for (const double noise : {0.0, 1.0})
    exam.cases(kGroups, noise, [&](const ReportCases& cases, const Asked& s) {
      for (size_t i = 0; i < readers.size(); ++i) {
        const Answers out = readers[i]->forward(cases.voxels, cases.geometry, s);
        (noise > 0 ? found.arms[i].noise : found.arms[i].clean) += mean_over(is_right(out.kind, cases.kind), cases.kind >= 0) / kGroups;
      }
    });
  for (auto& reader : readers)
    if (reader->arm == ReportArm::kGated) examine_gated(*reader, exam, words, found);
  return found;
}

}  // namespace fovea::recipes
