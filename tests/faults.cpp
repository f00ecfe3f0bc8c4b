#include "faults.h"

#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

namespace reel::testing {
Faults* faults = nullptr;
}

using reel::testing::faults;

// These take the place of the C library's in the whole test program.
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name)
extern "C" {
ssize_t write(int descriptor, const void* bytes, size_t count) {
  if (faults && faults->strikes()) return -1;
  if (faults) count = std::min(count, faults->longest_write);
  return ::syscall(SYS_write, descriptor, bytes, count);
}
int fsync(int descriptor) {
  if (faults && faults->strikes()) return -1;
  if (faults) ++faults->syncs;
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}
int ftruncate(int descriptor, off_t size) noexcept {
  if (faults && faults->strikes()) return -1;
  return static_cast<int>(::syscall(SYS_ftruncate, descriptor, size));
}
int renameat(int from_directory, const char* from, int to_directory, const char* to) noexcept {
  if (faults && faults->strikes()) return -1;
  return static_cast<int>(::syscall(SYS_renameat, from_directory, from, to_directory, to));
}
int flock(int descriptor, int operation) noexcept {
  if (faults && faults->strikes()) return -1;
  return static_cast<int>(::syscall(SYS_flock, descriptor, operation));
}
}
// NOLINTEND(readability-inconsistent-declaration-parameter-name)
