#pragma once

#include <reel/autograd/kernels/level.h>
#include <reel/autograd/shape.h>
#include <reel/autograd/threads.h>

#include <memory>
#include <type_traits>

namespace reel::kernels {

/// How many threads a parallel_for started here would use: 1 inside a task, threads() elsewhere.
int usable_threads();

/// Calls `run(f, task)` for every task in [0, tasks), on the calling thread and the pool's.
void fork_join(Index tasks, void (*run)(void* f, Index task), void* f);

/// Calls `f(task)` for every task in [0, tasks) on up to threads() threads, the caller among them,
/// and returns when all are done. Which thread runs a task is unspecified, and tasks must not
/// depend on it. Runs sequentially on the caller inside another parallel_for or while another
/// thread uses the pool. Rethrows an exception of a task; tasks not yet started are then dropped.
template <class F>
void parallel_for(Index tasks, F&& f) {
  using Function = std::remove_reference_t<F>;
  const auto run = [](void* g, Index task) {
    at_level([&] { (*static_cast<Function*>(g))(task); });
  };
  void* const address = const_cast<void*>(static_cast<const void*>(std::addressof(f)));
  if (tasks == 1)
    run(address, 0);
  else
    fork_join(tasks, run, address);
}

}  // namespace reel::kernels
