#include "fovea/recipes/contacts.h"

#include <gtest/gtest.h>

#include "fovea/data/contact_prediction.h"

namespace fovea::recipes {
namespace {

TEST(Contacts, OfAKnownPottsModelAreFoundByAttentionAndByStatistics) {
  const auto family = draw_potts_family(24, 7);
  const auto weights = data::sequence_weights(family.alignment);
  ContactTraining training;
  training.heads = 16, training.channels = 8, training.steps = 300, training.rate = 2e-2;
  const auto learned = learn_contacts(family.alignment, weights, training, 0);
  const auto table = compare_contacts(family.alignment, weights, family.distances, 1, learned);
  EXPECT_GE(table[0].at_l, 0.9);
  EXPECT_GE(table[1].at_l, 0.9);
  EXPECT_LE(table.back().at_l, 0.15) << "chance";
  ContactTraining free = training;
  free.steps = 200, free.rate = 1e-2, free.l2 = 1e-2;
  EXPECT_GE(precision_of("", learn_potts(family.alignment, weights, free, 0), family.distances, 1).at_l, 0.9);
  EXPECT_TRUE(torch::equal(learned, learn_contacts(family.alignment, weights, training, 0)));
}

}  // namespace
}  // namespace fovea::recipes
