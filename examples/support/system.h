#pragma once

#include <cstdio>
#include <string>

/// What the programs ask the operating system, in system_posix.cpp and system_windows.cpp.
namespace reel::examples {

bool is_terminal(std::FILE* file);
/// Whether it is a terminal on which lines can be redrawn by escape sequences.
bool can_redraw(std::FILE* file);
/// The width of a terminal; 80 if it is none.
int columns(std::FILE* file);

/// "AMD EPYC", or "unknown".
std::string processor_name();

/// The memory that the process has in use, in megabytes; zeros if the system does not tell.
struct MemoryUse {
  double now = 0, peak = 0;
};
MemoryUse memory_use();

/// From now on standard output is what the program writes, byte for byte, and an exceeded limit of
/// file sizes is an ordinary error, not a signal.
void begin_program();
/// From now on a closed pipe is an ordinary error.
void ignore_closed_pipes();

}  // namespace reel::examples
