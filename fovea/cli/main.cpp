#include "fovea/cli/command.h"

// jemalloc keeps freed tensors, large ones too, for the next step or tile. From the C library's heap each would be given
// back to the system and taken anew, and half of a training step would go to clearing pages.
extern "C" {
const char* malloc_conf = "oversize_threshold:0,dirty_decay_ms:-1";
}

int main(int argc, char** argv) { return fovea::cli::run_program(argc, argv); }
