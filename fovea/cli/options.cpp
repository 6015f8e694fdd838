#include <torch/torch.h>

#include <charconv>
#include <cmath>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"

namespace fovea::cli {

void CommonOptions::add_to(CLI::App& command) {
  command.add_flag("--json", json, "results as JSON on stdout");
  command.add_flag("--no-progress", no_progress, "no progress bar");
  command.add_option("--threads", threads, "CPU threads (default: all cores)")->check(CLI::Range(0, 1024));
  command.add_option("--device", device, "where to compute: cpu");
  command.add_option("--seed", seed, "seed of everything random")->capture_default_str();
}

void CommonOptions::apply() const {
  if (device != "cpu") throw ArgumentError("--device " + device + ": this build computes on the CPU; use --device cpu");
  if (threads > 0) torch::set_num_threads(threads);
  // Lets convolutions err by up to 1e-5 of their result, a few times what direct sums do (ops/conv3d.h).
  at::globalContext().setFloat32MatmulPrecision("high");
}

namespace {
// The number at the start of `text` and the unit after it. from_chars knows no locale.
std::pair<double, std::string> number_and_unit(const std::string& text, const std::string& flag, const char* example) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value) || value < 0)
    throw ArgumentError(flag + " " + text + ": expected a number such as " + example);
  return {value, std::string(end, text.data() + text.size())};
}
}  // namespace

double parse_duration_s(const std::string& text, const std::string& flag) {
  const auto [value, unit] = number_and_unit(text, flag, "90s, 10m or 1.5h");
  if (unit.empty() || unit == "s") return value;
  if (unit == "m" || unit == "min") return value * 60;
  if (unit == "h") return value * 3600;
  throw ArgumentError(flag + " " + text + ": unknown unit " + unit + ", expected s, m or h");
}

std::array<double, 3> parse_triple(const std::string& text, const std::string& flag) {
  std::array<double, 3> out{};
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  for (int a = 0; a < 3; ++a) {
    const auto [next, error] = std::from_chars(at, end, out[a]);
    const bool separated = a == 2 ? next == end : next != end && *next == ',';
    if (error != std::errc() || !separated) throw ArgumentError(flag + " " + text + ": expected three numbers such as 12,34,56");
    at = next + 1;
  }
  return out;
}

std::array<int64_t, 3> parse_whole_triple(const std::string& text, const std::string& flag) {
  std::array<int64_t, 3> out{};
  const auto values = parse_triple(text, flag);
  for (int a = 0; a < 3; ++a) {
    if (values[a] != std::floor(values[a]) || std::abs(values[a]) > 1e9)
      throw ArgumentError(flag + " " + text + ": expected three whole numbers such as 12,34,56");
    out[a] = int64_t(values[a]);
  }
  return out;
}

std::array<int64_t, 3> parse_lengths(const std::string& text, const std::string& flag) {
  const bool one = text.find(',') == text.npos;
  const auto lengths = parse_whole_triple(one ? text + "," + text + "," + text : text, flag);
  for (const int64_t length : lengths)
    if (length < 1) throw ArgumentError(flag + " " + text + ": expected lengths of at least 1, such as 8 or 8,8,4");
  return lengths;
}

void refuse_flags(const CLI::App& command, std::initializer_list<const char*> flags, const std::string& why) {
  for (const char* flag : flags)
    if (command.count(flag)) throw ArgumentError(command.get_name() + ": " + flag + " " + why);
}

void require_folder_of(const std::filesystem::path& output) {
  const auto folder = output.parent_path();
  if (!folder.empty() && !std::filesystem::is_directory(folder))
    throw IoError(output, "cannot write: the folder " + folder.string() + " does not exist; create it first");
}

}  // namespace fovea::cli
