#include <c10/util/Exception.h>
#include <sys/resource.h>
#include <torch/version.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>
#include <system_error>

#include "fovea/cli/command.h"
#include "fovea/core/error.h"
#include "fovea/core/version.h"
#include "fovea/ops/ensure_registered.h"

namespace fovea::cli {

namespace {
int fail(ExitCode code, std::string line) {
  // One line, whatever the source: a multi-line message of a library is cut at its first line.
  line = line.substr(0, line.find('\n'));
  std::fprintf(stderr, "fovea: %s\n", line.c_str());
  return static_cast<int>(code);
}

// Without a string: there is no memory.
int fail_out_of_memory() {
  rusage used{};
  rlimit space{};
  ::getrusage(RUSAGE_SELF, &used), ::getrlimit(RLIMIT_AS, &space);
  std::fprintf(stderr, "fovea: out of memory: had taken %.2f GiB and needs more", double(used.ru_maxrss) / (1 << 20));
  if (space.rlim_cur != RLIM_INFINITY) std::fprintf(stderr, ", limit %.2f GiB of addresses", double(space.rlim_cur) / (1 << 30));
  std::fprintf(stderr, "; try --max-ram, a smaller patch or batch\n");
  return static_cast<int>(ExitCode::kOutOfResource);
}

// The unknown flag or verb together with its nearest known relative.
std::string explain_extras(const CLI::App& program, const std::vector<std::string>& extras) {
  const auto chosen = program.get_subcommands();
  const CLI::App& app = chosen.empty() ? program : *chosen.front();
  std::vector<std::string> known;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  if (chosen.empty())
    for (const CLI::App* sub : program.get_subcommands({})) known.push_back(sub->get_name());
  const std::string near = nearest_name(extras.front(), known);
  return (chosen.empty() ? "" : app.get_name() + ": ") + "unknown argument " + extras.front() +
         (near.empty() ? "" : ", did you mean " + near + "?") + "; see fovea " +
         (chosen.empty() ? "" : app.get_name() + " ") + "--help";
}
std::vector<std::string> words;
}  // namespace

const std::vector<std::string>& command_line() { return words; }

namespace {
// Lets torch back tensors of 2 MiB and more by huge pages. Before the first tensor.
void use_huge_pages() { setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0); }
}  // namespace

int run_program(int argc, const char* const* argv) {
  CLI::App program{"Attention on 3-D scans: train, predict, evaluate and explain without Python.\n"
                   "Example: fovea predict -m MODEL -i scan.nii.gz -o labels.nii.gz",
                   "fovea"};
  program.set_version_flag("--version", std::string("fovea ") + kVersion + " (libtorch " TORCH_VERSION ")");
  program.require_subcommand(1);
  program.failure_message(CLI::FailureMessage::simple);
  add_doctor(program);
  add_plan(program);
  add_train(program);
  add_predict(program);
  add_evaluate(program);
  add_explain(program);
  add_run(program);
  add_check(program);
  add_claims(program);
  add_cost(program);
  add_lesson(program);
  add_bench(program);
  add_import(program);
  add_info(program);
  words.assign(argv + 1, argv + argc);
  try {
    if (argc < 2 || std::strcmp(argv[1], "bench") != 0) use_huge_pages();  // bench decides by its --memory
    ops::ensure_registered();
    program.parse(argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout))
      return fail(ExitCode::kOutOfResource, std::string("cannot write the result to stdout: ") + std::strerror(errno));
    return 0;
  } catch (const CLI::Success& e) {  // --help, --version
    return program.exit(e);
  } catch (const CLI::RuntimeError& e) {  // a command that has said why
    return e.get_exit_code();
  } catch (const CLI::ExtrasError& e) {
    return fail(ExitCode::kBadInput, explain_extras(program, program.remaining(/*recurse=*/true)));
  } catch (const CLI::RequiredError& e) {
    if (program.get_subcommands().empty() && argc > 1) return fail(ExitCode::kBadInput, explain_extras(program, {argv[1]}));
    return fail(ExitCode::kBadInput, std::string(e.what()) + "; see fovea --help");
  } catch (const CLI::ParseError& e) {
    return fail(ExitCode::kBadInput, std::string(e.what()) + "; see fovea --help");
  } catch (const Error& e) {
    return fail(e.code(), e.what());
  } catch (const std::bad_alloc&) {
    return fail_out_of_memory();
  } catch (const c10::Error& e) {
    const std::string what = e.what_without_backtrace();
    const bool memory = what.find("allocate memory") != what.npos || what.find("out of memory") != what.npos;
    return memory ? fail_out_of_memory() : fail(ExitCode::kBug, "internal error: " + what);
  } catch (const std::system_error& e) {  // no room for the stack of another thread
    const bool memory = e.code() == std::errc::resource_unavailable_try_again || e.code() == std::errc::not_enough_memory;
    return memory ? fail_out_of_memory() : fail(ExitCode::kBug, std::string("internal error: ") + e.what());
  } catch (const std::exception& e) {
    // oneDNN's words for having found no room for its code; what it cannot compute at all it calls a primitive descriptor.
    if (std::string_view(e.what()) == "could not create a primitive") return fail_out_of_memory();
    return fail(ExitCode::kBug, std::string("internal error: ") + e.what());
  }
}

}  // namespace fovea::cli
