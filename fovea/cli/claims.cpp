#include "fovea/recipes/claims.h"

#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/core/isa.h"
#include "fovea/core/version.h"
#include "fovea/io/image.h"

namespace fovea::cli {

namespace {
using Json = nlohmann::ordered_json;

struct ClaimsArguments {
  CommonOptions common;
  std::vector<std::string> only;
  bool full = false;
  std::filesystem::path image;
};

void print_line(const std::string& id, const std::string& statement, const std::string& claimed,
                const std::string& computed, const std::string& verdict, const std::string& seconds) {
  std::printf("%-4s %-84s | %-15s | %-120s | %-18s | %s\n", id.c_str(), statement.c_str(), claimed.c_str(),
              computed.c_str(), verdict.c_str(), seconds.c_str());
  std::fflush(stdout);
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

void print_text(const recipes::ClaimOutcome& o) {
  char seconds[16] = "";
  if (o.result || !o.failure.empty()) std::snprintf(seconds, sizeof seconds, "%.2f", o.seconds);
  print_line(o.claim->id, o.claim->statement, o.claim->claimed, o.result ? o.result->computed : first_line(o.failure),
             o.result            ? o.result->verdict_text()
             : o.failure.empty() ? o.not_evaluated
                                 : "FAILED",
             seconds);
}

Json to_json(const recipes::ClaimOutcome& o, const CommonOptions& common) {
  Json one = {{"id", o.claim->id}, {"statement", o.claim->statement}, {"claimed", o.claim->claimed}};
  if (o.result) {
    Json figures = Json::object();
    for (const auto& [name, value] : o.result->figures) figures[name] = std::isfinite(value) ? Json(value) : Json();
    one["computed"] = o.result->computed, one["verdict"] = o.result->verdict_text(), one["figures"] = figures;
    one["inputs"] = o.result->inputs, one["with"] = o.result->with;
  } else {
    one["computed"] = nullptr, one["verdict"] = nullptr;
    one[o.failure.empty() ? "not_evaluated" : "failed"] = o.failure.empty() ? o.not_evaluated : first_line(o.failure);
  }
  one["seconds"] = o.seconds, one["seed"] = common.seed, one["isa"] = name_of(chosen_isa()),
  one["device"] = common.device, one["version"] = kVersion;
  return one;
}

void run(const ClaimsArguments& a) {
  a.common.apply();
  if (!a.image.empty()) io::inspect(a.image);  // refuses it before anything is computed
  if (!a.common.json && a.only.empty()) print_line("id", "statement", "claimed", "computed", "verdict", "seconds");
  const auto outcomes =
      recipes::run_claims(a.only, {a.full, a.common.seed, a.image}, [&](const recipes::ClaimOutcome& o) {
        if (!a.common.json) print_text(o);
      });
  if (a.common.json) {
    Json all = Json::array();
    for (const auto& o : outcomes) all.push_back(to_json(o, a.common));
    std::printf("%s\n", all.dump(2).c_str());
  }
  std::string failed;
  for (const auto& o : outcomes)
    if (!o.failure.empty()) failed += " " + o.claim->id;
  if (!failed.empty()) throw Error(ExitCode::kBug, "claims: the computation failed of" + failed);
}
}  // namespace

void add_claims(CLI::App& program) {
  auto a = std::make_shared<ClaimsArguments>();
  CLI::App* command = program.add_subcommand("claims",
                                             "Example: fovea claims --only C11,C13\n\n"
                                             "What the textbook on attention states, and what comes out when it is "
                                             "computed: one line a claim with statement, claimed,\n"
                                             "computed, verdict and seconds. Everything is computed now, by the "
                                             "operators, layers and planner of this program.\n"
                                             "Exit code 0 whatever the verdicts, 1 if a computation failed.");
  command->add_option("--only", a->only, "claims to evaluate: C11,C13")->delimiter(',');
  command->add_flag("--full", a->full, "the timings and trainings too: minutes");
  command->add_option("--image", a->image, "a scan whose voxels C8 counts (default: a phantom)");
  a->common.add_to(*command);
  command->callback([a] { run(*a); });
}

}  // namespace fovea::cli
