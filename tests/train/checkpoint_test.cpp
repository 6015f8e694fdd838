#include "fovea/train/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>

#include "fovea/core/error.h"
#include "fovea/core/rng.h"

namespace fovea::train {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// A folder in memory where there is one: tests flush many small files.
fs::path scratch_root() {
  return ::access("/dev/shm", W_OK) == 0 ? fs::path("/dev/shm") : fs::path(testing::TempDir());
}

std::string content_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

io::TensorData floats(int64_t n, float value) {
  io::TensorData t{DType::kF32, {n}, std::vector<std::byte>(size_t(n) * 4)};
  for (int64_t i = 0; i < n; ++i) std::memcpy(t.data.data() + i * 4, &value, 4);
  return t;
}

Checkpoint example(int64_t step) {
  Checkpoint c;
  c.step = step;
  c.weights["w"] = floats(50, float(step));
  c.optimizer["m.w"] = floats(50, 0.5f);
  c.state = {{"step", step}};
  c.timing = {{"seconds", 1.5}};
  return c;
}

struct CheckpointTest : testing::Test {
  fs::path root = scratch_root() / ("fovea_checkpoint_" + std::to_string(::getpid()));
  CheckpointTest() { fs::remove_all(root), fs::create_directories(root); }
  ~CheckpointTest() override { fs::remove_all(root); }
};

TEST_F(CheckpointTest, ComesBackAsItWasSaved) {
  CheckpointFolder folder(root / "c");
  EXPECT_FALSE(folder.load_latest());
  folder.save(example(5), std::nullopt);
  const auto c = folder.load_latest();
  ASSERT_TRUE(c);
  EXPECT_EQ(c->step, 5);
  EXPECT_EQ(c->weights.at("w").data, floats(50, 5).data);
  EXPECT_EQ(c->optimizer.at("m.w").data, floats(50, 0.5f).data);
  EXPECT_EQ(c->state, (io::Json{{"step", 5}}));
}

TEST_F(CheckpointTest, LastTwoAndTheBestStay) {
  CheckpointFolder folder(root / "c");
  for (int64_t step = 1; step <= 6; ++step)
    folder.save(example(step), step >= 2 ? std::optional<int64_t>(2) : std::nullopt);
  EXPECT_EQ(folder.steps(), (std::vector<int64_t>{2, 5, 6}));
}

TEST_F(CheckpointTest, EverySingleBitFlipAnywhereIsFoundAndTheOneBeforeIsTaken) {
  CheckpointFolder folder(root / "c");
  Checkpoint second = example(2);
  second.weights["w"] = floats(100, 2);  // over 10,000 bits in all
  folder.save(example(1), std::nullopt), folder.save(second, std::nullopt);
  Rng rng(3, 0, 0);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder.path_of(2))) files.push_back(entry.path());
  ASSERT_EQ(files.size(), 5u);
  testing::internal::CaptureStderr();
  const bool full = std::getenv("FOVEA_FULL") != nullptr;
  int flips = 0, found = 0;
  for (const fs::path& file : files) {
    const std::string good = content_of(file);
    const size_t bits = good.size() * 8;
    // Every bit of the manifest; of the other files as many as time allows.
    const bool all = full || file.filename() == "manifest.json";
    for (size_t i = 0; i < (all ? bits : size_t{300}); ++i) {
      const size_t bit = all ? i : size_t(rng.below(bits));
      std::string bad = good;
      bad[bit / 8] = char(bad[bit / 8] ^ (1 << bit % 8));
      std::ofstream(file, std::ios::binary) << bad;
      ++flips;
      try {
        folder.load(2);
        ADD_FAILURE() << file << ": bit " << bit << " was not noticed";
      } catch (const Error&) {
        ++found;
      }
    }
    if (file.filename() != "manifest.json") {
      const auto previous = folder.load_latest();
      EXPECT_EQ(previous ? previous->step : -1, 1) << file;
    }
    std::ofstream(file, std::ios::binary) << good;
  }
  const std::string warnings = testing::internal::GetCapturedStderr();
  EXPECT_EQ(found, flips);
  if (full) EXPECT_GE(flips, 10'000);
  std::printf("%d of %d flips found\n", found, flips);
  EXPECT_GT(flips, 5000);
  EXPECT_THAT(
      warnings,
      HasSubstr(
          "weights.safetensors: is damaged: its SHA-256 is not that of the manifest; trying the checkpoint before it"));
  EXPECT_EQ(folder.load_latest()->step, 2);
}

TEST_F(CheckpointTest, AMissingOrCutFileIsFound) {
  CheckpointFolder folder(root / "c");
  folder.save(example(1), std::nullopt), folder.save(example(2), std::nullopt);
  for (const char* name :
       {"weights.safetensors", "optimizer.safetensors", "state.json", "timing.json", "manifest.json"}) {
    const fs::path file = folder.path_of(2) / name;
    const std::string good = content_of(file);
    fs::remove(file);
    EXPECT_THROW(folder.load(2), IoError) << name;
    std::ofstream(file, std::ios::binary) << good.substr(0, good.size() - 1);
    EXPECT_THROW(folder.load(2), Error) << name;
    std::ofstream(file, std::ios::binary) << good;
  }
  EXPECT_EQ(folder.load(2).step, 2);
}

TEST_F(CheckpointTest, AllDamagedIsAnErrorNotAFreshStart) {
  CheckpointFolder folder(root / "c");
  folder.save(example(1), std::nullopt);
  fs::remove(folder.path_of(1) / "state.json");
  EXPECT_THROW(folder.load_latest(), IoError);
}

TEST_F(CheckpointTest, ADamagedOneInTheWayIsReplaced) {
  CheckpointFolder folder(root / "c");
  folder.save(example(1), std::nullopt), folder.save(example(2), std::nullopt);
  fs::remove(folder.path_of(2) / "manifest.json");
  folder.save(example(2), std::nullopt);
  EXPECT_EQ(folder.load(2).step, 2);
}

TEST_F(CheckpointTest, WhatAKilledSaveLeftIsRemovedAtTheStart) {
  fs::create_directories(root / "c/.new-step-3"), fs::create_directories(root / "c/.old-step-1");
  std::ofstream(root / "c/.new-step-3/weights.safetensors") << "half";
  std::ofstream(root / "c/notes.txt") << "of the user";
  const CheckpointFolder folder(root / "c");
  EXPECT_FALSE(fs::exists(root / "c/.new-step-3"));
  EXPECT_FALSE(fs::exists(root / "c/.old-step-1"));
  EXPECT_TRUE(fs::exists(root / "c/notes.txt"));
}

// ---- Faults from outside: a training in another process, killed or starved of disk by strace.

struct Finished {
  int code;  // exit status, or 1000 + signal
  std::string out;
};

Finished run(const std::string& command) {
  Finished f{0, ""};
  std::FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) f.out.append(buffer, n);
  const int status = ::pclose(pipe);
  f.code = WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
  return f;
}

const std::string kProbe = std::string(FOVEA_BINARY_DIR) + "/fovea_train_probe";
// Few steps, a checkpoint after each two: most of the run is saving.
const std::string kSettings = " --set steps=6 --set steps_per_epoch=6 --set checkpoint_every=2";

std::string strace_problem() {
  const Finished f = run("strace -f -o /dev/null -e trace=fsync -e inject=fsync:error=EIO:when=1 true");
  return f.code == 0 ? "" : "strace cannot trace here: " + f.out.substr(0, 120);
}

TEST_F(CheckpointTest, KilledAtRandomMomentsAndResumedEndsBitIdentical) {
  const int count = std::getenv("FOVEA_FULL") ? 50 : 20;
  const Finished f = run(kProbe + " kill-trials " + (root / "k").string() + " " + std::to_string(count) + " 1");
  EXPECT_EQ(f.code, 0) << f.out;
  EXPECT_THAT(f.out, HasSubstr(std::to_string(count) + " of " + std::to_string(count) + " identical")) << f.out;
  std::printf("%s", f.out.c_str());
}

TEST_F(CheckpointTest, KilledInsideASaveAndResumedEndsBitIdentical) {
  if (const std::string problem = strace_problem(); !problem.empty()) GTEST_SKIP() << problem;
  const Finished undisturbed = run(kProbe + " train " + (root / "u").string() + kSettings);
  ASSERT_EQ(undisturbed.code, 0) << undisturbed.out;
  const bool full = std::getenv("FOVEA_FULL") != nullptr;
  // The k-th call of the kind in the whole run. A save makes about 14 fsync, 8 rename and a few dozen openat and write.
  const std::vector<std::pair<std::string, std::vector<int>>> points = {{"fsync", {1, 5, 9, 14, 20, 31}},
                                                                        {"rename,renameat,renameat2", {1, 6, 7, 9, 15}},
                                                                        {"mkdir", {2, 3}},
                                                                        {"unlinkat,rmdir", {1, 4}}};
  int kills = 0;
  for (const auto& [call, some] : points) {
    std::vector<int> moments = some;
    if (full) moments.resize(60), std::iota(moments.begin(), moments.end(), 1);
    for (const int k : moments) {
      const fs::path folder = root / "s";
      fs::remove_all(folder);
      const std::string train = kProbe + " train " + folder.string() + kSettings;
      const Finished killed = run("strace -f -o /dev/null -e trace=" + call + " -e inject=" + call +
                                  ":signal=KILL:when=" + std::to_string(k) + " " + train);
      kills += killed.code != 0;
      const Finished resumed = run(train + " --resume");
      EXPECT_EQ(resumed.out, undisturbed.out) << call << " " << k;
      for (const auto& entry : fs::directory_iterator(folder / "checkpoints")) {
        EXPECT_FALSE(entry.path().filename().string().starts_with(".")) << "left behind: " << entry.path();
      }
    }
  }
  EXPECT_GE(kills, 10);
}

TEST_F(CheckpointTest, AFullDiskEndsWithExitCode3AndTheOlderCheckpointWhole) {
  if (const std::string problem = strace_problem(); !problem.empty()) GTEST_SKIP() << problem;
  const Finished undisturbed = run(kProbe + " train " + (root / "u").string() + kSettings);
  const std::vector<std::tuple<std::string, std::string, int>> faults = {{"fsync", "ENOSPC", 20},
                                                                         {"fsync", "EIO", 9},
                                                                         {"rename,renameat,renameat2", "EDQUOT", 7},
                                                                         {"mkdir", "ENOSPC", 4},
                                                                         {"write", "ENOSPC", 40}};
  for (const auto& [call, error, k] : faults) {
    const fs::path folder = root / "d";
    fs::remove_all(folder);
    const std::string train = kProbe + " train " + folder.string() + kSettings;
    const Finished failed = run("strace -f -o /dev/null -e trace=" + call + " -e inject=" + call + ":error=" + error +
                                ":when=" + std::to_string(k) + "+ " + train);
    EXPECT_EQ(failed.code, 3) << call << " " << error << ": " << failed.out;
    // A failing write() swallows the message too.
    if (call != "write") {
      EXPECT_EQ(std::count(failed.out.begin(), failed.out.end(), '\n'), 1) << failed.out;
    }
    for (const auto& entry : fs::directory_iterator(folder / "checkpoints")) {
      EXPECT_TRUE(fs::exists(entry.path() / "manifest.json")) << "a partial checkpoint: " << entry.path();
    }
    EXPECT_EQ(run(train + " --resume").out, undisturbed.out) << call << " " << error;
  }
}

}  // namespace
}  // namespace fovea::train
