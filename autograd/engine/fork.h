#pragma once

#ifndef _WIN32
#include <pthread.h>
#endif

namespace reel::detail {

/// Calls these in every fork of the process: before it, and after it in the parent and in the
/// child. Null pointers do nothing, nor does this on a system without forks.
inline void at_fork([[maybe_unused]] void (*before)(), [[maybe_unused]] void (*in_parent)(),
                    [[maybe_unused]] void (*in_child)()) {
#ifndef _WIN32
  pthread_atfork(before, in_parent, in_child);
#endif
}

}  // namespace reel::detail
