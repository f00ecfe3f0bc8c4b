#ifndef _WIN32

#include "system.h"

#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#ifdef __APPLE__
#include <mach/mach.h>
#include <sys/sysctl.h>
#else
#include <fstream>
#endif

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <string_view>

namespace reel::examples {
namespace {

#ifdef __APPLE__
constexpr double unit_of_peak = 1;

double bytes_in_use() {
  mach_task_basic_info info{};
  mach_msg_type_number_t count = MACH_TASK_BASIC_INFO_COUNT;
  const auto result = task_info(mach_task_self(), MACH_TASK_BASIC_INFO,
                                reinterpret_cast<task_info_t>(&info), &count);
  return result == KERN_SUCCESS ? static_cast<double>(info.resident_size) : 0;
}
#else
constexpr double unit_of_peak = 1024;

// The second number of statm is the pages in memory.
double bytes_in_use() {
  std::ifstream file("/proc/self/statm");
  double pages = 0, resident = 0;
  file >> pages >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}
#endif

}  // namespace

bool is_terminal(std::FILE* file) { return isatty(fileno(file)) != 0; }

bool can_redraw(std::FILE* file) {
  const char* kind = std::getenv("TERM");
  return is_terminal(file) && kind && std::string_view(kind) != "dumb";
}

int columns(std::FILE* file) {
  winsize size{};
  const bool known = ioctl(fileno(file), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

#ifdef __APPLE__
std::string processor_name() {
  char name[256] = "";
  std::size_t length = sizeof name - 1;
  const bool known = sysctlbyname("machdep.cpu.brand_string", name, &length, nullptr, 0) == 0;
  return known ? name : "unknown";
}
#else
// /proc/cpuinfo has a line "model name : ..." for each core.
std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name") && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  return "unknown";
}
#endif

MemoryUse memory_use() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const double now = bytes_in_use() / 1e6;
  return {now, std::max(now, static_cast<double>(used.ru_maxrss) * unit_of_peak / 1e6)};
}

void begin_program() { std::signal(SIGXFSZ, SIG_IGN); }

void ignore_closed_pipes() { std::signal(SIGPIPE, SIG_IGN); }

}  // namespace reel::examples

#endif
