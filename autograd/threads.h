#pragma once

namespace reel {

/// Sets how many threads a kernel may use, the calling one included. Results do not depend on it.
/// Throws ValueError unless 1 <= n <= 1024.
void set_threads(int n);

/// The number set last; at first the cores that this process may use (affinity and cgroup quota).
int threads();

}  // namespace reel
