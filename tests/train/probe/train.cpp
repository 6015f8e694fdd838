// A small training for tests that need a process of their own:
//   fovea_train_probe train FOLDER [--resume] [--set key=value ...]     one line: digests of what the run left
//   fovea_train_probe kill-trials FOLDER COUNT SEED                    kills runs at random moments, resumes, compares
//   fovea_train_probe loss IN.safetensors OUT.safetensors CONFIG.json  loss and gradient, for comparison with Python
//   fovea_train_probe time-loss K Z Y X f32|bf16                      milliseconds of loss, forward and backward, one
//   thread fovea_train_probe events FOLDER                                    event files of a resumed run
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <thread>

#include "fovea/core/error.h"
#include "fovea/core/progress.h"
#include "fovea/io/config.h"
#include "fovea/io/sha256.h"
#include "fovea/train/event_file.h"
#include "fovea/train/tensor_map.h"
#include "tests/train/probe/tiny_task.h"

namespace fovea::train {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

TrainConfig config_from(const Words& words) {
  io::Json json = io::to_json(tiny_config());
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    if (words[i] == "--set") io::apply_override(json, words[i + 1]);
  }
  return io::from_json<TrainConfig>(json, "probe");
}

/// Digests of everything that must not depend on interruptions.
std::string digest(const fs::path& folder, int64_t step) {
  const fs::path last = CheckpointFolder(folder / "checkpoints").path_of(step);
  std::string all;
  for (const fs::path& file :
       {last / "weights.safetensors", last / "optimizer.safetensors", last / "average.safetensors", last / "state.json",
        folder / "log.csv", folder / "validation.csv"}) {
    all += (all.empty() ? "" : " ") + (fs::exists(file) ? io::sha256_file(file).substr(0, 16) : "none");
  }
  return all;
}

TrainResult train_once(const fs::path& folder, bool resume, const TrainConfig& config) {
  RunFolder run(folder);
  TinyNet net = make_tiny_net();
  Trainer trainer(*net, config, run, "probe train " + folder.string() + " --resume");
  if (resume) trainer.resume();
  return trainer.run(
      [&](int64_t epoch, int64_t index) { return tiny_batch(config.seed, epoch, index, config.batch_size); },
      [&](const Batch& batch) { return tiny_loss(net, batch); }, [&] { return tiny_validation(net, config.seed); });
}

int train(const Words& words) {
  const TrainConfig config = config_from(words);
  const bool resume = std::find(words.begin(), words.end(), "--resume") != words.end();
  const TrainResult result = train_once(words.at(0), resume, config);
  std::cout << (result.reason == StopReason::kInterrupted ? "interrupted " : "") << "step " << result.step << " "
            << digest(words[0], result.step) << "\n";
  return 0;
}

/// Runs f in a child. This process itself never starts torch's threads, so that forking is safe.
template <class F>
pid_t fork_and(const F& f) {
  std::cout.flush();
  const pid_t child = ::fork();
  if (child != 0) return child;
  int code = 1;
  try {
    f();
    code = 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  ::_exit(code);
}

int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

int kill_trials(const Words& words) {
  const fs::path folder = words.at(0);
  const int count = std::stoi(words.at(1));
  const uint64_t seed = std::stoull(words.at(2));
  const TrainConfig config = config_from(words);
  const auto begin = std::chrono::steady_clock::now();
  if (wait_for(fork_and([&] { train_once(folder / "undisturbed", false, config); })) != 0) return 1;
  const double whole_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const std::string expected = digest(folder / "undisturbed", config.steps);
  int identical = 0, killed = 0, while_saving = 0;
  for (int trial = 0; trial < count; ++trial) {
    const fs::path run = folder / ("trial-" + std::to_string(trial));
    Rng rng(seed, 0, uint32_t(trial));
    for (bool done = false; !done;) {
      const pid_t child = fork_and([&] { train_once(run, true, config); });
      std::this_thread::sleep_for(std::chrono::duration<double>(rng.uniform(0, float(whole_s))));
      ::kill(child, SIGKILL);
      done = true;
      if (!WIFSIGNALED(wait_for(child))) break;  // it was faster
      ++killed;
      for (const auto& entry : fs::recursive_directory_iterator(run))
        while_saving += entry.path().filename().string().starts_with(".new-");
      done = rng.chance(0.5f);  // killed again while resuming
    }
    if (wait_for(fork_and([&] { train_once(run, true, config); })) != 0) return 1;
    const std::string found = digest(run, config.steps);
    if (found == expected)
      ++identical;
    else
      std::cout << "trial " << trial << ": " << found << ", expected " << expected << "\n";
    bool stray = false;
    for (const auto& entry : fs::recursive_directory_iterator(run))
      stray |= entry.path().filename().string().starts_with(".new-");
    if (stray) std::cout << "trial " << trial << ": a temporary was left\n", --identical;
    fs::remove_all(run);
  }
  std::cout << identical << " of " << count << " identical, " << killed << " kills, " << while_saving
            << " while saving\n";
  return 0;
}

int loss(const Words& words) {
  const io::TensorMap in = io::read_safetensors(words.at(0));
  const auto config = io::read_config<SegmentationLossConfig>(words.at(2));
  const torch::Tensor logits = to_tensor(in.at("logits")).set_requires_grad(true), labels = to_tensor(in.at("labels"));
  const torch::Tensor value = dice_cross_entropy(logits, labels, config);
  value.backward();
  io::write_safetensors(words.at(1),
                        {{"loss", to_tensor_data(value.reshape({1}))}, {"gradient", to_tensor_data(logits.grad())}});
  return 0;
}

/// Processor time, so that other work on the machine does not count; the least of several repeats.
int time_loss(const Words& words) {
  const auto n = [&](size_t i) { return std::stoll(words.at(i)); };
  const auto type = words.at(4) == "bf16" ? torch::kBFloat16 : torch::kFloat;
  torch::manual_seed(1);
  const torch::Tensor x = torch::randn({1, n(0), n(1), n(2), n(3)}).to(type).set_requires_grad(true);
  const torch::Tensor y = torch::randint(0, n(0), {1, n(1), n(2), n(3)}, torch::kByte);
  double forward_ms = 1e9, backward_ms = 1e9;
  for (int repeat = 0; repeat < 20; ++repeat) {
    const std::clock_t begin = std::clock();
    const torch::Tensor value = dice_cross_entropy(x, y, {});
    const std::clock_t middle = std::clock();
    const torch::Tensor gradient = torch::autograd::grad({value}, {x})[0];
    forward_ms = std::min(forward_ms, 1e3 * double(middle - begin) / CLOCKS_PER_SEC);
    backward_ms = std::min(backward_ms, 1e3 * double(std::clock() - middle) / CLOCKS_PER_SEC);
  }
  std::printf("forward %.1f ms, backward %.1f ms\n", forward_ms, backward_ms);
  return 0;
}

int events(const Words& words) {
  const fs::path folder = words.at(0);
  {
    EventFile first(folder);
    for (int64_t step = 1; step <= 10; ++step) first.add_scalar("train/loss", step, 1.0 / double(step));
    // A 1 x 1 grey PNG.
    const unsigned char png[] = {0x89, 'P',  'N',  'G',  13,   10,  26,   10,   0,    0,    0,    13,   'I',  'H',
                                 'D',  'R',  0,    0,    0,    1,   0,    0,    0,    1,    8,    0,    0,    0,
                                 0,    0x3a, 0x7e, 0x9b, 0x55, 0,   0,    0,    10,   'I',  'D',  'A',  'T',  0x78,
                                 0x9c, 0x63, 0x68, 0,    0,    0,   0x82, 0,    0x81, 0x77, 0xcd, 0x72, 0xb6, 0,
                                 0,    0,    0,    'I',  'E',  'N', 'D',  0xae, 0x42, 0x60, 0x82};
    first.add_png("slices", 10, std::as_bytes(std::span(png)), 1, 1, 1);
  }
  EventFile resumed(folder, 6);  // the checkpoint was of step 5
  for (int64_t step = 6; step <= 8; ++step) resumed.add_scalar("train/loss", step, 100 + double(step));
  return 0;
}

int run(const Words& words) {
  set_default_progress_mode(ProgressMode::kOff);
  torch::set_num_threads(1);  // the tensors are tiny
  const Words rest(words.begin() + std::min<ptrdiff_t>(1, ptrdiff_t(words.size())), words.end());
  if (!words.empty() && words[0] == "train") return train(rest);
  if (!words.empty() && words[0] == "kill-trials") return kill_trials(rest);
  if (!words.empty() && words[0] == "loss") return loss(rest);
  if (!words.empty() && words[0] == "time-loss") return time_loss(rest);
  if (!words.empty() && words[0] == "events") return events(rest);
  throw ArgumentError("fovea_train_probe: expected train, kill-trials, loss, time-loss or events");
}

}  // namespace
}  // namespace fovea::train

int main(int argc, char** argv) {
  try {
    return fovea::train::run({argv + 1, argv + argc});
  } catch (const fovea::Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return static_cast<int>(error.code());
  }
}
