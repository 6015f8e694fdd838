#include <gperftools/malloc_extension.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string_view>

#include "fovea/cli/command.h"

namespace tcmalloc {
extern void (*log_message_writer)(const char* message, int length);  // internal_logging.h of gperftools, which is not installed
}

namespace {
// That the heap found no memory is said by run_program(), in one line; what else the heap says goes on to stderr.
void write_unless_out_of_memory(const char* message, int length) {
  const std::string_view text(message, size_t(length));
  if (text.find("allocat") == text.npos) (void)!::write(STDERR_FILENO, text.data(), text.size());
}
}  // namespace

int main(int argc, char** argv) {
  // What is written may hold patient data: files 0600, folders 0700, whichever library makes them.
  ::umask(077);
  // The heap keeps freed tensors, large ones too, for the next step or tile. From the C library's heap each would be given
  // back to the system and taken anew, and half of a training step would go to clearing pages.
  MallocExtension::instance()->SetMemoryReleaseRate(0);
  tcmalloc::log_message_writer = write_unless_out_of_memory;
  return fovea::cli::run_program(argc, argv);
}
