#include "faults.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>

namespace reel::testing {
Faults* faults = nullptr;
}

using reel::testing::faults;

namespace {

bool strikes(const char* name) { return faults && faults->strikes(name); }

// The system call, unless it is one that fails.
template <class... Arguments>
int call(const char* name, long number, Arguments... arguments) {
  if (strikes(name)) return -1;
  return static_cast<int>(::syscall(number, arguments...));
}

}  // namespace

// These take the place of the C library's in the whole test program.
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name,cert-dcl50-cpp)
extern "C" {
int fstatat(int directory, const char* name, struct stat* status, int flags) noexcept {
  return call("fstatat", SYS_newfstatat, directory, name, status, flags);
}
ssize_t readlinkat(int directory, const char* name, char* target, size_t size) noexcept {
  return call("readlinkat", SYS_readlinkat, directory, name, target, size);
}
int openat(int directory, const char* name, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
  va_end(more);
  return call("openat", SYS_openat, directory, name, flags, mode);
}
int fchmod(int descriptor, mode_t mode) noexcept {
  return call("fchmod", SYS_fchmod, descriptor, mode);
}
ssize_t write(int descriptor, const void* bytes, size_t count) {
  if (strikes("write")) return -1;
  if (faults) count = std::min(count, faults->longest_write);
  return ::syscall(SYS_write, descriptor, bytes, count);
}
int fsync(int descriptor) {
  const int result = call("fsync", SYS_fsync, descriptor);
  if (faults && result == 0) ++faults->syncs;
  return result;
}
int close(int descriptor) {
  const long closed = ::syscall(SYS_close, descriptor);  // also where Linux reports an error
  return strikes("close") ? -1 : static_cast<int>(closed);
}
int ftruncate(int descriptor, off_t size) noexcept {
  return call("ftruncate", SYS_ftruncate, descriptor, size);
}
int renameat(int from_directory, const char* from, int to_directory, const char* to) noexcept {
  return call("renameat", SYS_renameat, from_directory, from, to_directory, to);
}
int flock(int descriptor, int operation) noexcept {
  return call("flock", SYS_flock, descriptor, operation);
}
}
// NOLINTEND(readability-inconsistent-declaration-parameter-name,cert-dcl50-cpp)
