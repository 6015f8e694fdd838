#include "fovea/recipes/check.h"

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"

namespace fovea::cli {

namespace {
struct CheckArguments {
  CommonOptions common;
  std::vector<std::string> rows;
  bool full = false, list = false;
};

const char* rule_sign(recipes::Figure::Rule rule) {
  switch (rule) {
    case recipes::Figure::Rule::kAtMost: return "<=";
    case recipes::Figure::Rule::kAtLeast: return ">=";
    default: return "==";
  }
}

void print_text(const recipes::CheckResult& result) {
  std::printf("%s %s (%.1f s)\n", result.row.c_str(), result.passed() ? "passed" : "FAILED", result.seconds);
  for (const auto& f : result.figures)
    std::printf("  %-4s %-62s %14.8g  %s %.8g\n", f.ok() ? "ok" : "MISS", f.name.c_str(), f.value, rule_sign(f.rule), f.target);
  for (const std::string& note : result.notes) std::printf("  note %s\n", note.c_str());
  std::fflush(stdout);
}

nlohmann::ordered_json to_json(const recipes::CheckResult& result) {
  nlohmann::ordered_json figures = nlohmann::ordered_json::object();
  for (const auto& f : result.figures)
    figures[f.name] = {{"value", f.value}, {"target", f.target}, {"rule", rule_sign(f.rule)}, {"ok", f.ok()}};
  nlohmann::ordered_json row = {{"row", result.row}, {"passed", result.passed()}, {"figures", figures}, {"seconds", result.seconds}};
  if (!result.notes.empty()) row["notes"] = result.notes;
  return row;
}

void run(const CheckArguments& a) {
  a.common.apply();
  if (a.list || a.rows.empty()) {
    for (const auto& row : recipes::row_checks()) std::printf("%-4s %s\n", row.row.c_str(), row.summary.c_str());
    return;
  }
  const auto results = recipes::run_checks(a.rows, {a.full, a.common.seed}, [&](const recipes::CheckResult& result) {
    if (!a.common.json) print_text(result);
  });
  if (a.common.json) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const auto& result : results) all.push_back(to_json(result));
    std::printf("%s\n", all.dump(2).c_str());
  }
  std::string missed;
  for (const auto& result : results)
    if (!result.passed()) missed += " " + result.row;
  if (!missed.empty()) throw Error(ExitCode::kBug, "check: figures missed in" + missed);
}
}  // namespace

void add_check(CLI::App& program) {
  auto a = std::make_shared<CheckArguments>();
  CLI::App* command = program.add_subcommand("check",
      "Example: fovea check P4 P5 --json\n\nRuns the acceptance test of mission rows and prints each figure beside its target. Exit code 1 if one is missed.");
  command->add_option("row", a->rows, "P2, P4, ... or all; none: list them");
  command->add_flag("--full", a->full, "the long version");
  command->add_flag("--list", a->list, "list the rows that have a test");
  a->common.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace fovea::cli
