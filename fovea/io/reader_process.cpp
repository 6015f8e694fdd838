#include "fovea/io/reader_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "fovea/core/error.h"

extern char** environ;

namespace fovea::io {

namespace fs = std::filesystem;

namespace {
fs::path reader_program() {
  if (const char* named = std::getenv("FOVEA_READER")) return named;
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored).parent_path() / "fovea_reader";
}

size_t read_some_of(int descriptor, std::byte* to, size_t bytes) {
  while (true) {
    const ssize_t n = ::read(descriptor, to, bytes);
    if (n >= 0) return size_t(n);
    if (errno != EINTR) return 0;
  }
}
}  // namespace

ReaderProcess::ReaderProcess(const fs::path& path, const std::vector<std::string>& arguments, ReaderTalk talk) : path_(path) {
  const fs::path program = reader_program();
  if (::access(program.c_str(), X_OK) != 0)
    throw ResourceError(program.string() + ": the program that decodes foreign formats is not there; install it beside fovea, or name it in FOVEA_READER");
  // A socket for requests: writing to a pipe whose reader has died would end this process.
  std::array<int, 2> input{-1, -1}, output{}, errors{};
  const bool asks = talk == ReaderTalk::kRequests;
  if (::pipe2(output.data(), O_CLOEXEC) != 0 || ::pipe2(errors.data(), O_CLOEXEC) != 0 || (asks && ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, input.data()) != 0))
    throw ResourceError(path.string() + ": no pipe to its reader: " + std::strerror(errno));
  input_ = input[0], output_ = output[0], errors_ = errors[0];
  std::vector<std::string> words{program.string()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (asks)
    posix_spawn_file_actions_adddup2(&actions, input[1], 0);
  else
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output[1], 1);
  posix_spawn_file_actions_adddup2(&actions, errors[1], 2);
  const int failed = ::posix_spawn(&process_, program.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(output[1]), ::close(errors[1]);
  if (asks) ::close(input[1]);
  if (failed) {
    process_ = -1;
    throw ResourceError(program.string() + ": cannot be started: " + std::strerror(failed));
  }
}

ReaderProcess::~ReaderProcess() {
  if (process_ > 0) {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  if (input_ >= 0) ::close(input_);
  ::close(output_), ::close(errors_);
}

void ReaderProcess::request(std::string_view text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::send(input_, text.data() + done, text.size() - done, MSG_NOSIGNAL);
    if (n > 0) done += size_t(n);
    if (n > 0 || errno == EINTR) continue;
    finish();
    throw IoError(path_, "its reader has ended");
  }
}

std::string ReaderProcess::read_line(size_t max_bytes) {
  std::string line;
  std::byte byte;
  while (read_some({&byte, 1}) == 1) {
    if (byte == std::byte('\n')) return line;
    line.push_back(char(byte));
    if (line.size() > max_bytes) break;
  }
  throw IoError(path_, "its reader said nothing that can be understood");
}

size_t ReaderProcess::read_some(std::span<std::byte> to) {
  size_t done = 0;
  while (done < to.size()) {
    const size_t n = read_some_of(output_, to.data() + done, to.size() - done);
    if (n == 0) {
      finish();
      break;
    }
    done += n;
  }
  position_ += done;
  return done;
}

// At the end of the output: what became of the process.
void ReaderProcess::finish() {
  if (process_ < 0) return;
  std::string said(4096, '\0');
  size_t have = 0;
  while (have < said.size()) {
    const size_t n = read_some_of(errors_, reinterpret_cast<std::byte*>(said.data()) + have, said.size() - have);
    if (n == 0) break;
    have += n;
  }
  said.resize(have);
  int status = 0;
  while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) {
  }
  process_ = -1;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  if (WIFSIGNALED(status))
    throw IoError(path_, WTERMSIG(status) == SIGXCPU ? "takes more than ten minutes to decode" : std::string("is damaged: its decoder ended with \"") + ::strsignal(WTERMSIG(status)) + "\"");
  // The reader's line begins with the path, as IoError's does.
  while (!said.empty() && said.back() == '\n') said.pop_back();
  const std::string prefix = path_.string() + ": ";
  if (said.starts_with(prefix)) throw IoError(path_, said.substr(prefix.size()));
  const size_t colon = said.find(": ");
  if (colon == said.npos) throw IoError(path_, "its reader ended with code " + std::to_string(WEXITSTATUS(status)) + " " + said);
  throw IoError(said.substr(0, colon), said.substr(colon + 2));
}

}  // namespace fovea::io
