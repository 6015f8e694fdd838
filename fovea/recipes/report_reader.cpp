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
#include "fovea/recipes/one_thread.h"
#include "fovea/train/classification_metrics.h"

namespace fovea::recipes {

namespace {
constexpr int64_t kWidth = 32, kHeads = 4, kChannels = 12, kLongest = 40, kBatch = 16, kBodies = 64;
constexpr int64_t kJoinedHidden = 33;  // as many parameters as the gated network has
constexpr double kSharpStart = 6;
constexpr std::array<double, 4> kWavesMm = {600, 300, 150, 75};

// Places of a scan's tokens in the patient, from its middle, as waves along right, front and up: [N,24].
torch::Tensor waves(const nn::Triple& grid, const nn::Triple& cell, const Geometry& g) {
  const auto middle = torch::tensor(
      {{0.5 * double(g.shape[0] - 1), 0.5 * double(g.shape[1] - 1), 0.5 * double(g.shape[2] - 1)}}, torch::kFloat64);
  const auto mm = (nn::positions_mm(nn::cell_centres(grid, cell), g) - nn::positions_mm(middle, g)).to(torch::kFloat32);
  std::vector<torch::Tensor> parts;
  for (const double wave : kWavesMm)
    for (const auto& part : {(mm * (2 * std::numbers::pi / wave)).sin(), (mm * (2 * std::numbers::pi / wave)).cos()})
      parts.push_back(part);
  return torch::cat(parts, 1);
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

// The six questions, then the six reports of every case, then a finding of each.
Sentences sentences_about(const ReportCases& cases, const io::WordPieces& words) {
  auto texts = cases.question;
  texts.insert(texts.end(), cases.report.begin(), cases.report.end());
  texts.insert(texts.end(), cases.finding.begin(), cases.finding.end());
  return sentences_of(texts, words);
}

models::TextEncoderConfig text_config(int64_t vocabulary) {
  models::TextEncoderConfig config;
  config.vocabulary = vocabulary, config.dim = kWidth, config.layers = 1, config.heads = kHeads;
  config.hidden = 2 * kWidth, config.longest = kLongest, config.segments = 1;
  return config;
}

/// What a network says of B scans and six sentences about each.
struct Answers {
  torch::Tensor kind, kind_of_image, kind_of_text;  // [B,6] logits: as it is, gate held at 1, held at 0
  torch::Tensor present;                            // [B,6] logits
  torch::Tensor gate;                               // [B,6]
  torch::Tensor weights;                            // [B,6,N]
  torch::Tensor tokens;                             // [B,N,E]
  torch::Tensor agreement;                          // [B,B] logits: of each scan with each finding
};

struct Reader : torch::nn::Module {
  Reader(ReportArm kind, int64_t vocabulary) : arm(kind) {
    const auto linear = [&](const char* name, int64_t in, int64_t out) {
      return register_module(name, torch::nn::Linear(in, out));
    };
    const auto norm = [&](const char* name) {
      return register_module(name, torch::nn::LayerNorm(torch::nn::LayerNormOptions({kWidth})));
    };
    if (sees()) {
      see = register_module("see", nn::VolumeTokens(nn::VolumeTokensOptions(1, kChannels, 1, kWidth)));
      place = linear("place", 6 * int64_t(kWavesMm.size()), kWidth);
      mix_norm = norm("mix_norm");
      mix = register_module("mix", nn::Mlp(nn::MlpOptions(kWidth, 2 * kWidth)));
      seen_norm = norm("seen_norm");
    }
    if (reads()) {
      read = register_module("read", models::TextEncoder(text_config(vocabulary)));
      said = linear("said", kWidth, kWidth);
    }
    if (arm == ReportArm::kGated || arm == ReportArm::kImageAlone)
      find = register_module("find", nn::FindingAttention(nn::FindingAttentionOptions(kWidth)));
    if (arm == ReportArm::kGated)
      fuse =
          register_module("fuse", nn::GatedFusion(nn::GatedFusionOptions(kWidth, kWidth, kWidth).gates(1).bias(true)));
    if (arm == ReportArm::kImageAlone) asks = register_parameter("asks", torch::zeros({1, 1, kWidth}));
    if (arm == ReportArm::kLateConcatenation)
      joined = register_module("joined", nn::Mlp(nn::MlpOptions(2 * kWidth, kJoinedHidden)));
    if (arm != ReportArm::kGated) {
      answer = linear("answer", arm == ReportArm::kLateConcatenation ? 2 * kWidth : kWidth, kWidth);
      present_head = linear("present_head", kWidth, 1);
    }
    kind_head = linear("kind_head", kWidth, 1);
  }

  void learn_the_fusion_alone() {
    for (auto& p : parameters()) p.set_requires_grad(false);
    for (auto& p : fuse->parameters()) p.set_requires_grad(true);
  }
  bool sees() const { return arm != ReportArm::kTextAlone; }
  bool reads() const { return arm != ReportArm::kImageAlone; }

  torch::Tensor tokens_of(const torch::Tensor& voxels, const std::vector<Geometry>& geometry) {
    const nn::TokenGrid seen = see(voxels);
    std::vector<torch::Tensor> places;
    for (const Geometry& g : geometry) places.push_back(waves(seen.grid, see->cell(), g));
    return seen_norm(mix->add_to(seen.tokens + place(torch::stack(places)), mix_norm));
  }

  // Mean over a sentence's pieces: [K,E].
  torch::Tensor vectors_of(const Sentences& s) {
    const auto pieces = said(read(s.pieces, s.mask)) * s.mask.unsqueeze(2);
    return (pieces.sum(1) / s.mask.sum(1, /*keepdim=*/true)).index_select(0, s.place);
  }

  // How well each of K findings agrees with each scan, logits: [B,K].
  torch::Tensor agreement(const torch::Tensor& findings, const torch::Tensor& tokens) {
    return find(findings.expand({tokens.size(0), -1, kWidth}), tokens).found;
  }

  Answers forward(const torch::Tensor& voxels, const std::vector<Geometry>& geometry, const Sentences& sentences) {
    constexpr int64_t Q = kRegions;
    const int64_t B = voxels.size(0);
    Answers out;
    if (sees()) out.tokens = tokens_of(voxels, geometry);
    torch::Tensor question, report, finding;
    if (reads()) {
      const auto parts = vectors_of(sentences).split_with_sizes({B * Q, B * Q, B});
      question = parts[0].view({B, Q, kWidth}), report = parts[1], finding = parts[2];
    }
    const auto kind_of = [&](const torch::Tensor& x) { return kind_head(x).view({B, Q}); };
    if (arm == ReportArm::kGated) {
      const nn::Finding found = find(question, out.tokens);
      const auto image = found.vector.view({B * Q, kWidth});
      const nn::Fused fused = fuse(image, report);
      out.kind = kind_of(fused.vector), out.gate = fused.gate.view({B, Q});
      out.kind_of_image = kind_of(torch::tanh(fuse->image(image))),
      out.kind_of_text = kind_of(torch::tanh(fuse->text(report)));
      out.present = found.found, out.weights = found.weights;
      out.agreement = agreement(finding, out.tokens);
      return out;
    }
    torch::Tensor x = report;
    if (arm == ReportArm::kImageAlone)
      x = find(asks.expand({B, 1, kWidth}), out.tokens).vector.expand({B, Q, kWidth}).reshape({B * Q, kWidth});
    if (arm == ReportArm::kLateConcatenation)
      x = joined->add_to(torch::cat({out.tokens.mean(1).repeat_interleave(Q, 0), report}, 1), /*norm=*/nullptr);
    x = torch::tanh(answer(x));
    out.kind = kind_of(x), out.present = present_head(x).view({B, Q});
    return out;
  }

  ReportArm arm;
  nn::VolumeTokens see{nullptr};
  torch::nn::Linear place{nullptr}, said{nullptr}, answer{nullptr}, kind_head{nullptr}, present_head{nullptr};
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
    const bool table = item.key().starts_with("read.word") || item.key().starts_with("read.position") ||
                       item.key().starts_with("read.segment");
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
  return torch::binary_cross_entropy_with_logits(logits.masked_select(present),
                                                 cases.kind.masked_select(present).to(torch::kFloat32));
}

// For each token the region of most of its voxels that have one, -1 none: [B,N].
torch::Tensor token_regions(const torch::Tensor& region, const nn::Triple& cell) {
  std::vector<torch::Tensor> counts;
  for (int64_t r = 1; r <= kRegions; ++r)
    counts.push_back(torch::avg_pool3d((region == r).to(torch::kFloat32).unsqueeze(1), at::IntArrayRef(cell),
                                       at::IntArrayRef(cell), 0, /*ceil_mode=*/true,
                                       /*count_include_pad=*/false)
                         .flatten(1));
  const auto [most, which] = torch::stack(counts, 2).max(2);
  return torch::where(most > 0, which, torch::full_like(which, -1));
}

// How far attention is from lying in the named regions: -log of its mass there.
torch::Tensor astray(const torch::Tensor& weights, const ReportCases& cases, const nn::Triple& cell) {
  const auto home =
      token_regions(cases.region, cell).unsqueeze(1) == torch::arange(kRegions).view({1, -1, 1});  // B 6 N
  return -(weights * home).sum(2).clamp_min(1e-6).log().masked_select(home.any(2)).mean();
}

torch::Tensor loss_of(Reader& reader, const ReportCases& cases, const Sentences& sentences, bool early) {
  const Answers out = reader.forward(cases.voxels, cases.geometry, sentences);
  const auto present = (cases.kind >= 0).to(torch::kFloat32);
  auto loss = torch::binary_cross_entropy_with_logits(out.present, present);
  if (reader.arm != ReportArm::kGated) return loss + answer_loss(out.kind, cases);
  loss = loss + answer_loss(out.kind_of_image, cases) + 0.5 * answer_loss(out.kind_of_text, cases);
  // A gate that chose before the image has anything to say would close for good.
  loss = loss + (early ? 0.5 * astray(out.weights, cases, reader.see->cell()) : answer_loss(out.kind, cases));
  // Every finding against every scan of which something is to be seen.
  const auto clear = (cases.noise < 0.5).nonzero().squeeze(1);
  if (clear.size(0) == 0) return loss;
  const auto is_true = cases.kind.index_select(0, clear).index_select(1, cases.finding_region) == cases.finding_kind;
  return loss +
         torch::binary_cross_entropy_with_logits(out.agreement.index_select(0, clear), is_true.to(torch::kFloat32));
}

// Tokens whose cell, or one at most `beside` cells away, touches the nodule of each region: [B,6,N].
torch::Tensor touched(const ReportCases& cases, const nn::Triple& grid, const nn::Triple& cell, double beside = 0) {
  std::vector<torch::Tensor> rows;
  for (size_t b = 0; b < cases.geometry.size(); ++b) {
    const Geometry& g = cases.geometry[b];
    const auto spacing = g.spacing_mm();
    const auto centres = nn::positions_mm(nn::cell_centres(grid, cell), g);  // N 3, x y z; axes lie along the patient's
    const auto half = torch::tensor(
        {0.5 * double(cell[2]) * spacing[2], 0.5 * double(cell[1]) * spacing[1], 0.5 * double(cell[0]) * spacing[0]},
        torch::kFloat64) * (1 + 2 * beside);
    const auto apart =
        ((cases.centre_mm[int64_t(b)].unsqueeze(1) - centres.unsqueeze(0)).abs() - half).clamp_min(0).norm(2, 2);
    rows.push_back(apart < cases.radius_mm[int64_t(b)].unsqueeze(1));
  }
  return torch::stack(rows);
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
      f(cases, sentences_about(cases, words_));
    }
  }
  const io::WordPieces& words() const { return words_; }
  at::Generator generator() { return generator_; }

 private:
  const std::vector<Body>& bodies_;
  const io::WordPieces& words_;
  at::Generator generator_;
};

// A mean whose terms come group by group.
class Mean {
 public:
  void add(const torch::Tensor& values, const torch::Tensor& which) {
    const auto chosen = values.to(torch::kFloat64).masked_select(which);
    sum_ += chosen.sum().item<double>(), count_ += double(chosen.numel());
  }
  double value() const { return sum_ / count_; }

 private:
  double sum_ = 0, count_ = 0;
};

// Scores of sentences about regions without nodule and others.
struct Absence {
  std::vector<double> score;
  std::vector<bool> absent;
  void add(const torch::Tensor& present_logits, const torch::Tensor& present, const torch::Tensor& which) {
    const auto logits = present_logits.masked_select(which).to(torch::kFloat64),
               is_there = present.masked_select(which);
    for (int64_t i = 0; i < logits.numel(); ++i)
      score.push_back(-logits[i].item<double>()), absent.push_back(!is_there[i].item<bool>());
  }
  double auc() const { return train::roc_auc(score, absent); }
};

torch::Tensor is_right(const torch::Tensor& logits, const torch::Tensor& kind) { return (logits > 0) == (kind == 1); }

torch::Tensor mirrored(const torch::Tensor& of_regions, const Anatomy& anatomy) {
  return of_regions.index_select(
      1, torch::tensor(std::vector<int64_t>(anatomy.mirrored.begin(), anatomy.mirrored.end()), torch::kInt64));
}

std::vector<Geometry> swapped_sides(const std::vector<Geometry>& geometry) {
  std::vector<Geometry> swapped;
  for (const Geometry& g : geometry) swapped.push_back(left_right_swapped(g));
  return swapped;
}

// Which of the questions are asked in a language: [B,6].
torch::Tensor asked_in(int language, const ReportCases& cases) {
  const auto in = torch::zeros_like(cases.kind, torch::kBool);
  for (int64_t i = 0; i < in.numel(); ++i)
    in.data_ptr<bool>()[i] = is_chinese(cases.question[size_t(i)]) == (language == 1);
  return in;
}

// Of the twelve certain sentences those about this scan's nodules are true; a true one is found if no false one scores
// as high.
void retrieve(Reader& reader, const ReportCases& cases, const Answers& out, int language, const io::WordPieces& words,
              Mean& found) {
  std::vector<std::string> gallery;
  for (int64_t region = 0; region < kRegions; ++region)
    for (int64_t kind = 0; kind < kKinds; ++kind)
      gallery.push_back(finding_sentence(*cases.anatomy, region, kind, language));
  const auto scores = reader.agreement(reader.vectors_of(sentences_of(gallery, words)), out.tokens);  // B 12
  const auto is_true = torch::stack({cases.kind == 0, cases.kind == 1}, 2).flatten(1);
  const auto best_false = scores.masked_fill(is_true, -INFINITY).amax(1, /*keepdim=*/true);
  found.add(scores > best_false, is_true);
}

// Left and right swapped: a sentence now names, in the patient, what the array holds on the other side.
struct Swap {
  Mean accuracy, mass, flips;
  void add(const Answers& before, const Answers& after, const torch::Tensor& in, const ReportCases& cases) {
    const auto opposite = mirrored(cases.kind, *cases.anatomy);
    const auto there = opposite >= 0;
    accuracy.add(is_right(after.kind, opposite), there);
    mass.add((after.weights * mirrored(in, *cases.anatomy)).sum(2), there);
    const auto may_change = there.logical_and(cases.kind >= 0)
                                .logical_and(opposite != cases.kind)
                                .logical_and(is_right(before.kind, cases.kind));
    flips.add((before.kind > 0) != (after.kind > 0), may_change);
  }
};

void examine_gated(Reader& reader, Exam& exam, ReportReading& found) {
  constexpr int64_t kGroups = 12, kGroupsOfShare = 24;
  std::array<Mean, 2> mass, pointing, retrieval;
  std::array<Absence, 2> absence;
  std::array<std::array<Mean, kRegions>, kRegions> map;
  std::array<std::array<Mean, kKinds>, kRegions> pointing_at;
  Mean text_alone, shuffled_gate, near;
  Swap swap;
  exam.cases(kGroups, 0, [&](const ReportCases& cases, const Sentences& s) {
    const auto present = cases.kind >= 0;
    const Answers out = reader.forward(cases.voxels, cases.geometry, s);
    const Answers swapped = reader.forward(cases.voxels, swapped_sides(cases.geometry), s);
    const nn::Triple cell = reader.see->cell(),
                     grid = reader.see->grid_of({cases.voxels.size(2), cases.voxels.size(3), cases.voxels.size(4)});
    const auto home = token_regions(cases.region, cell).unsqueeze(1);                                  // B 1 N
    const auto in = (home == torch::arange(kRegions).view({1, -1, 1})).to(out.weights.scalar_type());  // B 6 N
    const auto where = torch::matmul(out.weights, in.transpose(1, 2));                                 // B asked region
    const auto strongest = out.weights.argmax(2, /*keepdim=*/true);
    const auto touches = touched(cases, grid, cell).gather(2, strongest).squeeze(2);  // B 6
    near.add(touched(cases, grid, cell, 1).gather(2, strongest).squeeze(2), present);
    for (int language = 0; language < 2; ++language) {
      const auto asked = asked_in(language, cases), there = asked.logical_and(present);
      mass[language].add(where.diagonal(0, 1, 2), there);
      pointing[language].add(touches, there);
      absence[language].add(out.present, present, asked);
      retrieve(reader, cases, out, language, exam.words(), retrieval[language]);
    }
    for (int64_t q = 0; q < kRegions; ++q)
      for (int64_t r = 0; r < kRegions; ++r) map[q][r].add(where.select(1, q).select(1, r), present.select(1, q));
    for (int64_t q = 0; q < kRegions; ++q)
      for (int64_t k = 0; k < kKinds; ++k) pointing_at[q][k].add(touches.select(1, q), cases.kind.select(1, q) == k);
    text_alone.add(is_right(out.kind_of_text, cases.kind), present);
    swap.add(out, swapped, in, cases);
    const auto order = torch::randperm(cases.voxels[0].numel(), exam.generator(), torch::kInt64);
    const auto shuffled = cases.voxels.flatten(1).index_select(1, order).view_as(cases.voxels);
    shuffled_gate.add(reader.forward(shuffled, cases.geometry, s).gate, present);
    if (!found.example.voxels.defined()) {
      // The first English question about a nodule of the first scan (else about anything); a scan that is stored the
      // other way round is turned.
      const int64_t q = present[0].logical_and(asked_in(0, cases)[0]).to(torch::kInt64).argmax().item<int64_t>();
      const auto turned = [&](const torch::Tensor& x) {
        return (cases.geometry[0].affine[0][0] < 0 ? x.flip(2) : x).clone();
      };
      const auto on_grid = [&](const Answers& a) { return turned(a.weights[0][q].view({grid[0], grid[1], grid[2]})); };
      found.example = {cases.question[size_t(q)], turned(cases.voxels[0][0]), on_grid(out), on_grid(swapped)};
    }
  });
  for (int language = 0; language < 2; ++language) {
    found.mass[language] = mass[language].value(), found.pointing[language] = pointing[language].value();
    found.absent_auc[language] = absence[language].auc(), found.retrieval[language] = retrieval[language].value();
  }
  for (int64_t q = 0; q < kRegions; ++q)
    for (int64_t r = 0; r < kRegions; ++r) found.map[q][r] = map[q][r].value();
  for (int64_t q = 0; q < kRegions; ++q)
    for (int64_t k = 0; k < kKinds; ++k) found.pointing_at[q][k] = pointing_at[q][k].value();
  found.pointing_near = near.value(), found.text_alone = text_alone.value(), found.gate_of_shuffled = shuffled_gate.value();
  found.swapped_accuracy = swap.accuracy.value(), found.swapped_mass = swap.mass.value(),
  found.flips = swap.flips.value();
  for (size_t i = 0; i < kNoiseShares.size(); ++i) {
    Mean gate, accuracy, image_alone, text;
    exam.cases(kGroupsOfShare, kNoiseShares[i], [&](const ReportCases& cases, const Sentences& s) {
      const Answers out = reader.forward(cases.voxels, cases.geometry, s);
      const auto present = cases.kind >= 0;
      gate.add(out.gate, present);
      accuracy.add(is_right(out.kind, cases.kind), present);
      image_alone.add(is_right(out.kind_of_image, cases.kind), present);
      text.add(is_right(out.kind_of_text, cases.kind), present);
    });
    found.gate[i] = gate.value(), found.accuracy[i] = accuracy.value(), found.image_alone[i] = image_alone.value();
    found.text_at[i] = text.value();
  }
}
}  // namespace

std::string name_of(ReportArm arm) {
  switch (arm) {
    case ReportArm::kGated:
      return "sentence asks the scan, gated";
    case ReportArm::kImageAlone:
      return "image alone";
    case ReportArm::kTextAlone:
      return "text alone";
    default:
      return "late concatenation";
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
    optimizers.emplace_back(readers.back()->parameters(),
                            torch::optim::AdamWOptions(kRate).betas({0.9, 0.95}).weight_decay(0.01));
  }
  const int64_t weighing_steps = options.steps * 3 / 20;
  for (int64_t step = 0; step < options.steps + weighing_steps; ++step) {
    // First clean scans, and where the lobes are: a sentence's region and what to look for there are of no use without
    // each other, and neither is found alone. Then noise, and attention is left to itself. At last the gated fusion
    // alone learns, on every share of noise: how loudly each side speaks, and whom to trust.
    const bool early = step < options.steps * 3 / 5;
    const bool weighing = step >= options.steps;
    CaseOptions drawn;
    if (early) drawn.noise = 0;
    if (weighing) drawn.clean = drawn.lost = 0.2;
    const ReportCases cases = draw_cases(kBatch, bodies, drawn, generator);
    const Sentences sentences = sentences_about(cases, words);
    const double left = 1 - double(step - (weighing ? options.steps : 0)) / double(weighing ? weighing_steps : options.steps);
    const double rate =
        kRate * (weighing ? 3 * left : std::min({1.0, double(step + 1) / kWarmUp, 2 * left + 0.02}));
    for (size_t i = 0; i < readers.size(); ++i) {
      if (weighing && readers[i]->arm != ReportArm::kGated) continue;
      for (auto& group : optimizers[i].param_groups()) group.options().set_lr(rate);
      if (weighing) readers[i]->learn_the_fusion_alone();
      optimizers[i].zero_grad();
      loss_of(*readers[i], cases, sentences, early).backward();
      torch::nn::utils::clip_grad_norm_(readers[i]->parameters(), 1.0);
      optimizers[i].step();
    }
  }

  torch::NoGradGuard no_grad;
  ReportReading found;
  Exam exam(fresh, words, generator);
  constexpr int64_t kGroups = 12;
  std::vector<std::array<Mean, 2>> right(readers.size());
  std::vector<Absence> absence(readers.size());
  for (auto& reader : readers) reader->eval();
  for (const int noise : {0, 1})
    exam.cases(kGroups, noise, [&](const ReportCases& cases, const Sentences& s) {
      const auto present = cases.kind >= 0;
      for (size_t i = 0; i < readers.size(); ++i) {
        const Answers out = readers[i]->forward(cases.voxels, cases.geometry, s);
        right[i][noise].add(is_right(out.kind, cases.kind), present);
        if (noise == 0) absence[i].add(out.present, present, torch::ones_like(present));
      }
    });
  for (size_t i = 0; i < readers.size(); ++i) {
    ArmScore score{right[i][0].value(), right[i][1].value(), absence[i].auc()};
    for (const auto& p : readers[i]->parameters()) score.parameters += p.numel();
    found.arms.push_back(score);
    if (readers[i]->arm == ReportArm::kGated) examine_gated(*readers[i], exam, found);
  }
  return found;
}

}  // namespace fovea::recipes
