#pragma once

#include <reel/autograd/error.h>

namespace reel {

/// Sets how many threads a kernel may use, the calling one included. Results do not depend on it.
/// Waits for work that is being done. Throws ValueError unless 1 <= n <= 1024, and Error when
/// called by a kernel, within that work.
///
/// A forked child has threads of its own, as many. It may compute whatever the parent's other
/// threads were doing; only a fork from within a kernel leaves that kernel's work undone.
void set_threads(int n, Site site = {});

/// The number set last; at first the cores that this process may use (affinity and cgroup quota).
int threads();

}  // namespace reel
