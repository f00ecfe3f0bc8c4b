#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>

namespace reel::bench {

/// A line of /proc/self/status, in MiB: VmRSS is the current resident memory, VmHWM its peak.
inline double mib_of(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == key + ":") {
      double kib = 0;
      status >> kib;
      return kib / 1024;
    }
  return NAN;
}

/// The result of measure(), a struct of numbers, in a child process, with fresh memory.
template <class Measure>
auto measured_apart(const Measure& measure) {
  int ends[2];
  if (pipe(ends) != 0) std::abort();
  const pid_t child = fork();
  if (child == 0) {
    const auto figures = measure();
    _exit(write(ends[1], &figures, sizeof figures) == sizeof figures ? 0 : 1);
  }
  decltype(measure()) figures;
  close(ends[1]);
  const bool complete = child > 0 && read(ends[0], &figures, sizeof figures) == sizeof figures;
  close(ends[0]);
  if (child > 0) waitpid(child, nullptr, 0);
  if (!complete) std::abort();
  return figures;
}

}  // namespace reel::bench
