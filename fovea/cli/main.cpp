#include "fovea/cli/command.h"

int main(int argc, char** argv) { return fovea::cli::run_program(argc, argv); }
