// process WHAT: small programs about the lifetime of a process. test_process.py runs them.
#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/thread_pool.h>
#include <reel/reel.h>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "early.h"

using namespace reel;

namespace {

// Whether a product that is large enough for several threads is right.
bool computes() {
  const Tensor x = matmul(ones({300, 300}), ones({300, 300}));
  const Tensor y = early::lstm(ones({20, 64, 3})).y;
  return x.at({7, 7}) == 300 && y.size() == 20 * 64 * 4;
}

int before_main() {
  std::printf("%s %s\n", early::sum_of_ones.str().c_str(), early::tripled.str().c_str());
  std::printf("%d parameters, a gradient %s\n", static_cast<int>(early::params.list().size()),
              early::trained.shape().str().c_str());
  // Whether the registry was complete before the first initialiser ran.
  return early::ops_before_main == op::registry().size() ? 0 : 1;
}

// Tensors and a tape that are destroyed in different places after main has ended.
int at_exit() {
  thread_local Tensor of_thread;
  static Tensor of_function;
  static const Tape tape;
  thread_local const nn::Lstm lstm(Params(2), 3, 4);
  of_thread = ones({1000});
  of_function = early::kept = of_thread + 1;
  set_threads(4);
  if (!computes()) return 1;
  kernels::parallel_for(64, [](Index i) {
    static std::atomic<int> first = 0;
    if (first++ == 0) early::kept_by_thread_pool = full({1000}, static_cast<double>(i));
  });
  std::thread([] { early::kept = early::kept + 1; }).join();
  return 0;
}

// exit() within a task of the pool.
int exit_in_task() {
  set_threads(4);
  kernels::parallel_for(100, [](Index i) {
    if (i == 50) std::exit(3);
  });
  return 1;
}

// Runs f in a child process, and returns whether it succeeded.
template <class F>
bool forked(F f) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) std::exit(f() ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int fork_children() {
  set_threads(4);
  if (!computes()) return 1;
  const Tensor of_parent = ones({1000});
  for (int i = 0; i < 5; ++i)
    if (!forked([&] {
          return computes() && threads() == 4 && sum(of_parent).item() == 1000 && forked(computes);
        }))
      return 2;
  // A child that does nothing, and one that sets its threads.
  if (!forked([] { return true; })) return 3;
  if (!forked([] {
        set_threads(2);
        return computes();
      }))
    return 4;
  return computes() ? 0 : 5;
}

// Forks while another thread keeps the pool busy.
int fork_while_busy() {
  set_threads(4);
  std::atomic<bool> done = false;
  std::thread other([&] {
    while (!done) computes();
  });
  bool all = true;
  for (int i = 0; i < 20; ++i) all &= forked(computes);
  done = true;
  other.join();
  return all && computes() ? 0 : 1;
}

int usage() {
  std::puts("usage: process before_main|at_exit|exit_in_task|fork|fork_while_busy");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  if (what == "before_main") return before_main();
  if (what == "at_exit") return at_exit();
  if (what == "exit_in_task") return exit_in_task();
  if (what == "fork") return fork_children();
  if (what == "fork_while_busy") return fork_while_busy();
  return usage();
}
