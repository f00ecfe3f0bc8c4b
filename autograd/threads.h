#pragma once

#include <reel/autograd/argument.h>
#include <reel/autograd/error.h>

namespace reel {

/// Sets how many threads a kernel may use, the calling one included. Results do not depend on it.
/// Waits for running work. Throws ValueError unless 1 <= n <= 1024, and Error if called from within
/// a kernel.
///
/// A forked child gets the same number of threads of its own. It may compute, whatever the parent's
/// other threads were doing; only a fork from within a kernel leaves that kernel's work undone.
void set_threads(Arg<int> n, Site site = {});

/// The number set last; initially the cores that this process may use (affinity and cgroup quota).
int threads();

}  // namespace reel
