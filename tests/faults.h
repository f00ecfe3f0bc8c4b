#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>

/// System calls that fail on demand.
namespace reel::testing {

/// The system calls of this program that look up, open, write and replace files, counted and made
/// to fail on demand. Removing a file is not among them: it is what is done about a failure.
struct Faults {
  int at = -1;  ///< the call that fails, counted from 0; -1 is none
  int error = 0;
  bool and_after = false;  ///< the later ones fail, too
  std::size_t longest_write = SIZE_MAX;
  std::string only = {};  ///< the names of the calls that count; empty: all do
  int calls = 0;
  int syncs = 0;
  std::string failed = {};  ///< the name of the call that failed first

  bool strikes(const char* name) {
    if (!only.empty() && only.find(name) == std::string::npos) return false;
    const int call = calls++;
    if (at < 0 || (and_after ? call < at : call != at)) return false;
    if (failed.empty()) failed = name;
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
