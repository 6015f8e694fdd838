#include "fovea/models/text_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fovea/core/error.h"

namespace fovea::models {
namespace {

using testing::HasSubstr;

TextEncoderConfig tiny() {
  TextEncoderConfig config;
  config.vocabulary = 11, config.dim = 8, config.layers = 2, config.heads = 2, config.hidden = 12, config.longest = 6;
  return config;
}

template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const ArgumentError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(TextEncoder, ReadsATextTheSameWhateverItsBatchIsFilledUpWith) {
  torch::manual_seed(0);
  TextEncoder encoder(tiny());
  encoder->to(torch::kFloat64);
  encoder->eval();
  const auto alone = pad_texts({{2, 5, 7}}, 0), batch = pad_texts({{2, 5, 7}, {1, 2, 3, 4, 5, 6}}, 9);
  ASSERT_EQ(batch.pieces.sizes(), at::IntArrayRef({2, 6}));
  const auto expected = encoder(alone.pieces, alone.mask)[0], got = encoder(batch.pieces, batch.mask)[0].slice(0, 0, 3);
  EXPECT_LT((got - expected).abs().max().item<double>(), 1e-12);
  const auto a = sentence_vectors(encoder(alone.pieces, alone.mask), alone.mask);
  const auto b = sentence_vectors(encoder(batch.pieces, batch.mask), batch.mask);
  EXPECT_LT((a[0] - b[0]).abs().max().item<double>(), 1e-12);
  EXPECT_NEAR(b.norm(2, 1)[1].item<double>(), 1, 1e-12);
}

TEST(TextEncoder, LearnsFromEveryParameterButThoseOfAnotherSentence) {
  TextEncoder encoder(tiny());
  const auto batch = pad_texts({{2, 5, 7, 3}, {2, 3}}, 0);
  (encoder(batch.pieces, batch.mask) * torch::randn({2, 4, 8})).sum().backward();
  for (const auto& item : encoder->named_parameters())
    EXPECT_TRUE(item.value().grad().defined() && item.value().grad().isfinite().all().item<bool>()) << item.key();
  EXPECT_EQ(encoder->segment->weight.grad()[1].abs().sum().item<double>(), 0);
}

TEST(TextEncoder, RefusesLongTextsStrangePiecesAndAWrongConfigurationInOneLine) {
  TextEncoder encoder(tiny());
  const auto ask = [&](const std::vector<std::vector<int64_t>>& texts) {
    const auto batch = pad_texts(texts, 0);
    return refusal([&] { encoder(batch.pieces, batch.mask); });
  };
  EXPECT_THAT(ask({{1, 2, 3, 4, 5, 6, 7}}), HasSubstr("a text has 7 pieces, expected at most 6"));
  EXPECT_THAT(ask({{1, 11}}), HasSubstr("pieces lie in 1 to 11, expected 0 to 10"));
  EXPECT_THAT(refusal([&] { encoder(torch::zeros({1, 2}, torch::kInt64), torch::ones({1, 2})); }), HasSubstr("mask is Float"));
  EXPECT_EQ(ask({}), "accepted");
  TextEncoderConfig bad = tiny();
  bad.heads = 3;
  EXPECT_THAT(refusal([&] { TextEncoder{bad}; }), HasSubstr("text_encoder: heads is 3, expected a divisor of dim (8)"));
}

TEST(SentenceVectors, OfATextWithoutAPieceAreZeroAndNotNan) {
  const auto tokens = torch::full({1, 2, 4}, NAN);
  EXPECT_TRUE(torch::equal(sentence_vectors(tokens, torch::zeros({1, 2}, torch::kBool)), torch::zeros({1, 4})));
}

}  // namespace
}  // namespace fovea::models
