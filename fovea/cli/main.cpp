#include <gperftools/malloc_extension.h>
#include <sys/stat.h>

#include "fovea/cli/command.h"

int main(int argc, char** argv) {
  // What is written may hold patient data: files 0600, folders 0700, whichever library makes them.
  ::umask(077);
  // The heap keeps freed tensors, large ones too, for the next step or tile. From the C library's heap each would be given
  // back to the system and taken anew, and half of a training step would go to clearing pages.
  MallocExtension::instance()->SetMemoryReleaseRate(0);
  return fovea::cli::run_program(argc, argv);
}
