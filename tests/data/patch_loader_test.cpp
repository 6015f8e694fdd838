#include "fovea/data/patch_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <chrono>
#include <cmath>
#include <map>
#include <set>

#include "fovea/core/error.h"
#include "fovea/data/phantom.h"
#include "fovea/io/safetensors.h"
#include "tests/data/scratch_folder.h"

namespace fovea::data {
namespace {

using testing::HasSubstr;

TEST(PatchSampler, ForcesExactlyTheAskedShareOfSamples) {
  int forced = 0;
  for (uint32_t i = 0; i < 3000; ++i) {
    forced += forces_foreground(i, 1.0 / 3);
    EXPECT_EQ(forced, int((i + 1) / 3));
    EXPECT_TRUE(forces_foreground(i, 1));
    EXPECT_FALSE(forces_foreground(i, 0));
  }
}

TEST(PatchSampler, AnEpochVisitsCasesEquallyOftenInAnotherOrderEachRound) {
  std::map<int64_t, int> visits;
  std::vector<int64_t> first, second;
  for (uint32_t i = 0; i < 70; ++i) ++visits[case_of_sample(1, 2, i, 7)];
  for (const auto& [one, count] : visits) EXPECT_EQ(count, 10) << one;
  for (uint32_t i = 0; i < 7; ++i)
    first.push_back(case_of_sample(1, 2, i, 7)), second.push_back(case_of_sample(1, 2, i + 7, 7));
  EXPECT_NE(first, second);
}

TEST(PatchSampler, ChoosesClassesUniformlyAndVoxelsUniformlyWithinThem) {
  // Class 1 has 1000 voxels, class 2 has 10.
  const std::array<int64_t, 3> shape{10, 20, 20};
  std::vector<uint8_t> label(4000, 0);
  for (int i = 0; i < 1000; ++i) label[3 * i] = 1;
  for (int i = 0; i < 10; ++i) label[4000 - 11 * (i + 1)] = 2;
  const auto index = ForegroundIndex::of(View<const uint8_t, 3>::contiguous(label.data(), shape), 4);
  EXPECT_EQ(index.present, (std::vector<int>{1, 2}));
  std::map<int, int> classes;
  std::map<std::array<int64_t, 3>, int> voxels_of_2;
  for (uint32_t i = 0; i < 4000; ++i) {
    const auto position = choose_position(shape, {1, 1, 1}, index, /*forced=*/true, {1, 0, i});
    ++classes[position.forced_class];
    const auto& [z, y, x] = position.begin;
    EXPECT_EQ(label[(z * 20 + y) * 20 + x], position.forced_class);
    if (position.forced_class == 2) ++voxels_of_2[position.begin];
  }
  EXPECT_NEAR(classes[1], 2000, 130);
  EXPECT_EQ(voxels_of_2.size(), 10u);
  for (const auto& [at, count] : voxels_of_2) EXPECT_NEAR(count, 200, 60);
}

TEST(PatchSampler, KeepsACappedEvenlySpreadShareOfALargeClass) {
  const std::array<int64_t, 3> shape{40, 40, 40};
  std::vector<uint8_t> label(64000, 1);
  const auto index = ForegroundIndex::of(View<const uint8_t, 3>::contiguous(label.data(), shape), 2);
  EXPECT_EQ(index.counts[1], 64000);
  ASSERT_EQ(index.voxels[1].size(), 10000u);
  for (size_t i = 1; i < index.voxels[1].size(); ++i) EXPECT_LE(index.voxels[1][i] - index.voxels[1][i - 1], 7);
}

TEST(PatchSampler, PatchesStayInsideAndSmallVolumesAreCentred) {
  ForegroundIndex none;
  std::set<int64_t> starts;
  for (uint32_t i = 0; i < 500; ++i) {
    const auto position = choose_position({10, 4, 6}, {4, 8, 6}, none, /*forced=*/true, {1, 0, i});
    EXPECT_EQ(position.forced_class, 0);
    EXPECT_EQ(position.begin[1], -2);
    EXPECT_EQ(position.begin[2], 0);
    starts.insert(position.begin[0]);
  }
  EXPECT_EQ(starts, (std::set<int64_t>{0, 1, 2, 3, 4, 5, 6}));
}

struct PatchLoaderTest : testing::Test {
  static const Dataset& dataset() {
    static const ScratchFolder folder;
    static const Dataset opened = open_dataset(write_phantom_dataset(folder.path, "Dataset903_Phantom", {}, 5));
    return opened;
  }
  static const Plan& plan() {
    static const Plan made = [] {
      PlanOptions options;
      options.patch_multiple = 16, options.patch_size = {{16, 32, 16}}, options.batch_size = 2;
      return make_plan(dataset(), options);
    }();
    return made;
  }
  static LoaderOptions options() {
    LoaderOptions o;
    o.seed = 5, o.batches_per_epoch = 4;
    return o;
  }
  static void expect_same(const Batch& a, const Batch& b) {
    EXPECT_EQ(a.epoch, b.epoch);
    EXPECT_EQ(a.index, b.index);
    EXPECT_EQ(a.ids, b.ids);
    EXPECT_TRUE(a.image.equal(b.image));
    EXPECT_TRUE(a.label.equal(b.label));
  }
};

TEST_F(PatchLoaderTest, GivesTheSameBitsForAnyThreadsQueueAndCache) {
  PatchLoader reference(dataset().training, plan(), augment_preset("strong"), options());
  std::vector<Batch> expected;
  for (uint32_t i = 0; i < 10; ++i) expected.push_back(reference.get(i / 4, i % 4));
  const ScratchFolder cache;
  for (const int64_t threads : {1, 2, 5})
    for (const int64_t queue : {1, 3})
      for (const int64_t cache_bytes : {int64_t{0}, int64_t{1} << 30}) {
        LoaderOptions o = options();
        o.threads = threads, o.queue = queue, o.cache_bytes = cache_bytes;
        if (threads == 2) o.cache_folder = cache / "cases";
        PatchLoader loader(dataset().training, plan(), augment_preset("strong"), o);
        for (const auto& batch : expected) expect_same(loader.next(), batch);
      }
}

TEST_F(PatchLoaderTest, BatchesHaveTheDocumentedShapesAndTypes) {
  PatchLoader loader(dataset().training, plan(), augment_preset("none"), options());
  const Batch batch = loader.get(0, 0);
  EXPECT_EQ(batch.image.sizes(), (std::vector<int64_t>{2, 1, 16, 32, 16}));
  EXPECT_EQ(batch.image.scalar_type(), torch::kFloat);
  EXPECT_EQ(batch.label.sizes(), (std::vector<int64_t>{2, 16, 32, 16}));
  EXPECT_EQ(batch.label.scalar_type(), torch::kLong);
}

TEST_F(PatchLoaderTest, ForcedPatchesHoldTheirClass) {
  LoaderOptions o = options();
  o.foreground_fraction = 1;
  PatchLoader loader(dataset().training, plan(), augment_preset("none"), o);
  for (uint32_t i = 0; i < 4; ++i) {
    const Batch batch = loader.get(0, i);
    for (int64_t b = 0; b < 2; ++b) {
      ASSERT_GT(batch.positions[b].forced_class, 0);
      EXPECT_TRUE((batch.label[b] == batch.positions[b].forced_class).any().item<bool>());
    }
  }
}

TEST_F(PatchLoaderTest, ResumesInTheMiddleOfAnEpoch) {
  PatchLoader whole(dataset().training, plan(), augment_preset("nnunet"), options());
  PatchLoader resumed(dataset().training, plan(), augment_preset("nnunet"), options());
  for (int i = 0; i < 6; ++i) whole.next();
  resumed.next();  // something else first: start() must drop what was prepared
  resumed.start(1, 2);
  for (int i = 0; i < 4; ++i) expect_same(resumed.next(), whole.next());
}

TEST_F(PatchLoaderTest, KeepsCasesInMemoryWithinItsBudget) {
  LoaderOptions o = options();
  o.batches_per_epoch = 10;
  PatchLoader everything(dataset().training, plan(), augment_preset("none"), o);
  for (uint32_t i = 0; i < 10; ++i) everything.get(0, i);
  EXPECT_EQ(everything.cache().preprocessed(), 5);
  o.cache_bytes = everything.cache().bytes() / 2;
  PatchLoader half(dataset().training, plan(), augment_preset("none"), o);
  for (uint32_t i = 0; i < 10; ++i) half.get(0, i);
  EXPECT_LE(half.cache().bytes(), o.cache_bytes);
  EXPECT_GT(half.cache().bytes(), 0);
  EXPECT_GT(half.cache().preprocessed(), 5);
}

TEST_F(PatchLoaderTest, NeverPreparesMoreThanItsQueue) {
  LoaderOptions o = options();
  o.threads = 3, o.queue = 2, o.cache_bytes = 0, o.batches_per_epoch = 100;
  PatchLoader loader(dataset().training, plan(), augment_preset("none"), o);
  loader.next();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  // One batch taken and at most two prepared, of two patches each; without a cache every patch preprocesses its case.
  EXPECT_LE(loader.cache().preprocessed(), 3 * 2);
}

TEST_F(PatchLoaderTest, ReadsTheDiskCacheAgainAndMakesItAnewWhenThePlanChanges) {
  const ScratchFolder cache;
  LoaderOptions o = options();
  o.cache_folder = cache / "cases", o.batches_per_epoch = 3;
  {
    PatchLoader loader(dataset().training, plan(), augment_preset("none"), o);
    for (uint32_t i = 0; i < 3; ++i) loader.get(0, i);
  }
  PatchLoader again(dataset().training, plan(), augment_preset("none"), o);
  for (uint32_t i = 0; i < 3; ++i) again.get(0, i);
  EXPECT_EQ(again.cache().preprocessed(), 0);
  Plan other = plan();
  other.batch_size = 1, other.ram_budget_bytes = 1;  // not what preprocessing depends on
  PatchLoader same(dataset().training, other, augment_preset("none"), o);
  same.get(0, 0);
  EXPECT_EQ(same.cache().preprocessed(), 0);
  other.spacing_mm[0] *= 1.5;
  PatchLoader anew(dataset().training, other, augment_preset("none"), o);
  anew.get(0, 0);
  EXPECT_GT(anew.cache().preprocessed(), 0);
}

TEST_F(PatchLoaderTest, ADamagedDiskCacheIsNamedAndNotUsed) {
  const ScratchFolder cache;
  LoaderOptions o = options();
  o.cache_folder = cache / "cases";
  { PatchLoader(dataset().training, plan(), augment_preset("none"), o).get(0, 0); }
  for (const auto& file : std::filesystem::directory_iterator(o.cache_folder)) {
    auto tensors = io::read_safetensors(file.path());
    tensors["label"].data[5] = std::byte{200};  // a class that the plan does not have
    io::write_safetensors(file.path(), tensors);
  }
  PatchLoader wrong_class(dataset().training, plan(), augment_preset("none"), o);
  EXPECT_THAT(message_of([&] { wrong_class.get(0, 0); }),
              testing::AllOf(HasSubstr(".safetensors: "), HasSubstr("class 200, expected 0 to 2")));
  for (const auto& file : std::filesystem::directory_iterator(o.cache_folder)) {
    auto tensors = io::read_safetensors(file.path());
    tensors.erase("label");
    io::write_safetensors(file.path(), tensors);
  }
  PatchLoader no_label(dataset().training, plan(), augment_preset("none"), o);
  EXPECT_THAT(message_of([&] { no_label.get(0, 0); }), HasSubstr("holds no label as expected"));
}

struct BrokenCases : PatchLoaderTest {
  ScratchFolder folder;
  std::vector<Case> cases;
  void SetUp() override {
    cases = dataset().training;
    cases[2].images[0] = folder / "gone_0000.nii.gz";
  }
};

TEST_F(BrokenCases, StopWithTheNameOfTheCaseAtTheBatchThatNeedsIt) {
  LoaderOptions o = options();
  o.threads = 2, o.batches_per_epoch = 5;
  PatchLoader loader(cases, plan(), augment_preset("none"), o);
  int failed = 0;
  for (uint32_t i = 0; i < 5; ++i) {
    bool needs_it = false;
    for (uint32_t s = 2 * i; s < 2 * i + 2; ++s) needs_it |= case_of_sample(5, 0, s, 5) == 2;
    const std::string message = message_of([&] { EXPECT_EQ(loader.next().index, i); });
    EXPECT_EQ(!message.empty(), needs_it);
    failed += needs_it;
    if (needs_it) {
      EXPECT_THAT(message, testing::AllOf(HasSubstr("case phantom_002: "), HasSubstr("missing image file")));
    }
  }
  EXPECT_GT(failed, 0);
}

TEST_F(BrokenCases, AreSkippedAndListedWhenAskedWithTheSameBitsForAnyThreads) {
  LoaderOptions o = options();
  o.on_fault = OnFault::kSkip;
  PatchLoader reference(cases, plan(), augment_preset("none"), o);
  o.threads = 3;
  PatchLoader loader(cases, plan(), augment_preset("none"), o);
  for (uint32_t i = 0; i < 8; ++i) {
    const Batch batch = loader.next();
    expect_same(batch, reference.get(i / 4, i % 4));
    for (const auto& id : batch.ids) EXPECT_NE(id, "phantom_002");
  }
  EXPECT_EQ(loader.faults().size(), 1u);
  EXPECT_THAT(loader.faults().at("phantom_002"), HasSubstr("missing image file"));
}

TEST_F(BrokenCases, AllBrokenIsAnErrorEvenWhenSkipping) {
  LoaderOptions o = options();
  o.on_fault = OnFault::kSkip;
  PatchLoader loader({cases[2]}, plan(), augment_preset("none"), o);
  EXPECT_THAT(message_of([&] { loader.get(0, 0); }), HasSubstr("none of 1 cases can be used"));
}

TEST_F(PatchLoaderTest, RefusesMixedLabelsAndOptionsOutOfRange) {
  auto mixed = dataset().training;
  mixed[3].label.clear();
  EXPECT_THAT(message_of([&] { PatchLoader(mixed, plan(), {}, options()); }), HasSubstr("'phantom_003' has no label"));
  LoaderOptions o = options();
  o.threads = 0;
  EXPECT_THAT(message_of([&] { PatchLoader(dataset().training, plan(), {}, o); }), HasSubstr("loader: threads is 0"));
  AugmentConfig swaps;
  swaps.flip_x_swaps = {{1, 9}};
  EXPECT_THAT(message_of([&] { PatchLoader(dataset().training, plan(), swaps, options()); }),
              HasSubstr("names class 9"));
}

TEST_F(PatchLoaderTest, UnlabelledCasesGiveImagesOnly) {
  auto unlabelled = dataset().training;
  for (auto& one : unlabelled) one.label.clear();
  PatchLoader loader(unlabelled, plan(), augment_preset("strong"), options());
  const Batch batch = loader.next();
  EXPECT_FALSE(batch.label.defined());
  EXPECT_EQ(batch.positions[0].forced_class, 0);
}

}  // namespace
}  // namespace fovea::data
