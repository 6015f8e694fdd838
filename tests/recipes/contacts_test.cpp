#include "fovea/recipes/contacts.h"

#include <gtest/gtest.h>

#include "fovea/core/error.h"
#include "fovea/data/contact_prediction.h"

namespace fovea::recipes {
namespace {

TEST(Contacts, OfAKnownPottsModelAreFoundByAttentionAndByStatistics) {
  const auto family = draw_potts_family(24, 7);
  const auto weights = data::sequence_weights(family.alignment);
  const auto precision = [&](const torch::Tensor& scores) { return precision_of("", scores, family.distances, 1).at_l; };
  ContactTraining training;
  training.heads = 16, training.channels = 8, training.steps = 300;
  const auto learned = learn_contacts(family.alignment, weights, training, 0);
  EXPECT_GE(precision(learned), 0.9);
  EXPECT_GE(precision(contact_scores(family.alignment, weights, ContactMethod::kCovariance, 0)), 0.9);
  EXPECT_LE(chance_of(family.distances, 1).at_l, 0.15);
  auto free = potts_training();
  free.steps = 200;
  EXPECT_GE(precision(learn_potts(family.alignment, weights, free, 0)), 0.9);
  EXPECT_TRUE(torch::equal(learned, learn_contacts(family.alignment, weights, training, 0)));
}

// The maps of tied attention are of the alignment, not of a sequence: symmetric scores, the same for the same seed.
TEST(Contacts, OfTiedAttentionAreSymmetricAndTheSameForASeed) {
  const auto family = draw_potts_family(12, 3);
  const auto weights = data::sequence_weights(family.alignment);
  TiedTraining training;
  training.steps = 3, training.sequences = 16;
  const auto scores = learn_tied(family.alignment, weights, training, 1);
  EXPECT_TRUE(torch::allclose(scores, scores.t()));
  EXPECT_TRUE(torch::isfinite(scores).all().item<bool>());
  EXPECT_TRUE(torch::equal(scores, learn_tied(family.alignment, weights, training, 1)));
  EXPECT_FALSE(torch::equal(scores, learn_tied(family.alignment, weights, training, 2)));
}

TEST(Contacts, RefuseOneSequenceAndMoreColumnsThanMemoryHolds) {
  io::Alignment a;
  a.columns = 3, a.names = {"one"}, a.residues = {0, 1, 2};
  const auto one = torch::ones({1}, torch::kFloat64), two = torch::ones({2}, torch::kFloat64);
  EXPECT_THROW(contact_scores(a, one, ContactMethod::kInformation, 0), ArgumentError);
  a.columns = 100'000, a.names = {"one", "other"}, a.residues.assign(200'000, 0);
  EXPECT_THROW(contact_scores(a, two, ContactMethod::kPotts, 0), ResourceError);
}

}  // namespace
}  // namespace fovea::recipes
