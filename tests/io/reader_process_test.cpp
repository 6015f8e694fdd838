#include "fovea/io/reader_process.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "fovea/core/rng.h"
#include "fovea/io/feature_file.h"
#include "fovea/io/pyramid_tiff.h"
#include "fovea/io/slide.h"
#include "tests/io/test_folder.h"

namespace fovea::io {
namespace {

namespace fs = std::filesystem;
using namespace testing;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// Processes that this one has started.
std::vector<pid_t> children() {
  std::vector<pid_t> all;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const pid_t id = pid_t(std::atoi(entry.path().filename().c_str()));
    if (id == 0) continue;
    const std::string line = slurp(entry.path() / "stat");
    const size_t name_end = line.rfind(')');  // a name may hold anything
    pid_t parent = 0;
    if (name_end != line.npos && std::sscanf(line.c_str() + name_end + 1, " %*c %d", &parent) == 1 &&
        parent == ::getpid())
      all.push_back(id);
  }
  return all;
}

struct Kills {
  int killed = 0, refused = 0, read_whole = 0, then_well = 0;
};

// `read` gives what is compared. Each time it is disturbed at a random moment of its length, and then done again undisturbed.
template <class Read>
Kills kill_at_random_moments(int trials, Read read) {
  Kills k;
  const auto expected = read();
  const auto begin = Clock::now();
  read();
  const double length_s = seconds_since(begin);
  for (int i = 0; i < trials; ++i) {
    Rng rng(31, 0, uint32_t(i));
    const double moment_s = rng.uniform(0, 1.1f) * length_s;
    bool killed = false;
    std::thread killer([&] {
      std::this_thread::sleep_for(std::chrono::duration<double>(moment_s));
      for (const pid_t child : children()) killed |= ::kill(child, SIGKILL) == 0;
    });
    try {
      k.read_whole += read() == expected;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadInput) << error.what();
      k.refused += error.code() == ExitCode::kBadInput && std::string(error.what()).find('\n') == std::string::npos;
    }
    killer.join();
    k.killed += killed;
    k.then_well += read() == expected;
  }
  return k;
}

TEST(ReaderProcess, KilledAtARandomMomentIsOneLineAndTheNextRequestIsServed) {
  TestFolder folder;
  FeatureFile features;
  const std::vector<int64_t> shape{20'000, 64};
  std::vector<float> values(size_t(shape[0] * shape[1]));
  Rng rng(1, 0, 0);
  for (float& v : values) v = rng.uniform();
  const auto bytes = std::as_bytes(std::span(values));
  features.tensors["features"] = {DType::kF32, shape, {bytes.begin(), bytes.end()}};
  write_feature_file(folder / "a.h5", features);
  SlideRegion picture;
  picture.height = 900, picture.width = 1100;
  picture.rgb.resize(size_t(picture.height * picture.width * 3));
  for (size_t i = 0; i < picture.rgb.size(); ++i) picture.rgb[i] = uint8_t(i * 7 % 251);
  write_pyramid_tiff(folder / "a.tif", std::vector{picture}, 0.5);

  const int trials = std::getenv("FOVEA_FULL") ? 1000 : 50;
  const Kills of_features = kill_at_random_moments(
      trials / 2, [&] { return read_feature_file(folder / "a.h5").tensors.at("features").data; });
  const Kills of_slide = kill_at_random_moments(trials - trials / 2, [&] {
    Slide slide(folder / "a.tif");
    std::vector<uint8_t> all;
    for (int64_t y = 0; y < 900; y += 300) {  // a request each
      const SlideRegion part = slide.read(0, y, 0, 300, 1100);
      all.insert(all.end(), part.rgb.begin(), part.rgb.end());
    }
    return all;
  });
  int good = 0, killed = 0, then_well = 0;
  for (const Kills& k : {of_features, of_slide})
    good += k.refused + k.read_whole, killed += k.killed, then_well += k.then_well;
  EXPECT_EQ(good, trials) << "neither one line nor the whole content";
  EXPECT_EQ(then_well, trials);
  EXPECT_GT(of_features.refused, 0);
  EXPECT_GT(of_slide.refused, 0);
  EXPECT_TRUE(children().empty());
  std::printf(
      "%d of %d moments ended in one line or the whole content (%d readers killed), the next request served %d times\n",
      good, trials, killed, then_well);
}

}  // namespace
}  // namespace fovea::io
