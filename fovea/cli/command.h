#pragma once
#include <CLI/CLI.hpp>
#include <array>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <vector>

namespace fovea::cli {

/// Options that every command understands.
struct CommonOptions {
  bool json = false;         // results as JSON on stdout
  bool no_progress = false;  // no progress bar even on a terminal
  int threads = 0;           // 0: all cores
  std::string device = "cpu";
  uint64_t seed = 0;

  /// Adds the options to a command and remembers to apply threads and device before it runs.
  void add_to(CLI::App& command);
  /// Sets the thread count; ArgumentError for a device this build lacks.
  void apply() const;
};

/// "90", "90s", "10m", "1.5h" to seconds. ArgumentError naming `flag`.
double parse_duration_s(const std::string& text, const std::string& flag);

/// "12,34,56" to three numbers. ArgumentError naming `flag`.
std::array<double, 3> parse_triple(const std::string& text, const std::string& flag);

/// "12,34,56" to three whole numbers. ArgumentError naming `flag`.
std::array<int64_t, 3> parse_whole_triple(const std::string& text, const std::string& flag);

/// "8" for three equal lengths or "8,8,4". ArgumentError naming `flag`, also for a length below 1.
std::array<int64_t, 3> parse_lengths(const std::string& text, const std::string& flag);

/// Refuses flags that mean nothing here: ArgumentError "COMMAND: FLAG WHY" for the first of `flags` that was given.
void refuse_flags(const CLI::App& command, std::initializer_list<const char*> flags, const std::string& why);

/// Refuses a file that could not be written after the work because its folder does not exist. IoError naming both.
void require_folder_of(const std::filesystem::path& output);

/// The sub-commands: each adds itself to the program; its callback does the work and throws fovea::Error.
void add_doctor(CLI::App& program);
void add_plan(CLI::App& program);
void add_train(CLI::App& program);
void add_predict(CLI::App& program);
void add_evaluate(CLI::App& program);
void add_explain(CLI::App& program);
void add_run(CLI::App& program);
void add_bench(CLI::App& program);
void add_check(CLI::App& program);
void add_claims(CLI::App& program);
void add_cost(CLI::App& program);
void add_lesson(CLI::App& program);
void add_import(CLI::App& program);
void add_info(CLI::App& program);

/// The words after the program's name, for manifests and "how to resume" lines.
const std::vector<std::string>& command_line();

/// The whole program: parses, runs, prints one line on error, returns the exit code.
int run_program(int argc, const char* const* argv);

}  // namespace fovea::cli
