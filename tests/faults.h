#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>

/// System calls that fail on demand.
namespace reel::testing {

/// The system calls of this program that write files, counted and made to fail on demand.
struct Faults {
  int at = -1;  ///< the call that fails, counted from 0; -1 is none
  int error = 0;
  bool and_after = false;  ///< the later ones fail, too
  std::size_t longest_write = SIZE_MAX;
  int calls = 0;
  int syncs = 0;

  bool strikes() {
    const int call = calls++;
    if (at < 0 || (and_after ? call < at : call != at)) return false;
    errno = error;
    return true;
  }
};

extern Faults* faults;

/// Puts the faults in effect for as long as this lives.
class Injection {
 public:
  explicit Injection(Faults& f) { faults = &f; }
  ~Injection() { faults = nullptr; }
  Injection(const Injection&) = delete;
  Injection& operator=(const Injection&) = delete;
};

}  // namespace reel::testing
