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
#include <exception>
#include <string_view>
#include <thread>

#include "early.h"

using namespace reel;

namespace {

// Whether a product that is large enough for several threads is right.
bool computes() {
  const Tensor x = matmul(ones({300, 300}), ones({300, 300}));
  const Tensor y = early::lstm(ones({20, 64, 3})).y;
  Tape tape;
  const Tensor w = tape.watch(ones({3}));
  const Tensor gradient = tape.gradient(sum(square(w)), {w})[0];
  return x.at({7, 7}) == 300 && y.size() == 20 * 64 * 4 && gradient.at({1}) == 2;
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

// Forks while other threads keep the pool and the list of tapes busy.
int fork_while_busy() {
  set_threads(4);
  std::atomic<bool> done = false;
  std::thread computing([&] {
    while (!done) computes();
  });
  std::thread recording([&] {
    while (!done) Tape tape;
  });
  bool all = true;
  for (int i = 0; i < 20; ++i) all &= forked(computes);
  done = true;
  computing.join();
  recording.join();
  return all && computes() ? 0 : 1;
}

// A model with dropout on a tape that records, in the mode that forgets to train.
Tensor forgotten_mode() {
  Tape tape;
  const nn::Dropout dropout(0.25);
  return dropout(tape.watch(ones({3})), nn::Eval{});
}

// Says once, on standard error, that Dropout drops nothing.
int dropout_note() {
  for (int i = 0; i < 3; ++i) forgotten_mode();
  std::thread(forgotten_mode).join();
  return 0;
}

// The same note from between the layers of a stack.
int stack_note() {
  const nn::Stacked<nn::Rnn> stack(Params(1), 2, 3, {.layers = 3, .dropout = 0.5});
  for (int i = 0; i < 2; ++i) {
    Tape tape;
    stack(ones({4, 2, 2}));
  }
  return 0;
}

// All that is as it should be, of which nothing is said.
int no_dropout_note() {
  const nn::Dropout dropout(0.25), none(0);
  const nn::Stacked<nn::Rnn> stack(Params(1), 2, 3, {.layers = 2, .dropout = 0.5});
  const Tensor constant = ones({4, 2, 2});
  Rng rng(1);
  dropout(constant, nn::Eval{});  // without a tape
  stack(constant);
  Tape tape;
  const Tensor x = tape.watch(constant);
  dropout(x, nn::Train{rng});
  stack(x, nn::Train{rng});
  none(x, nn::Eval{});
  dropout(constant, nn::Eval{});  // which the tape does not record
  tape.pause();
  dropout(constant, nn::Eval{});
  dropout(x, nn::Eval{});
  tape.resume();
  const Tensor y = x * x;
  tape.gradient(sum(y), {x});
  dropout(y, nn::Eval{});  // a value of a tape that is used up
  return 0;
}

int usage() {
  std::puts(
      "usage: process before_main|at_exit|exit_in_task|fork|fork_while_busy|dropout_note|"
      "stack_note|no_dropout_note");
  return 2;
}

int run(std::string_view what) {
  if (what == "before_main") return before_main();
  if (what == "at_exit") return at_exit();
  if (what == "exit_in_task") return exit_in_task();
  if (what == "fork") return fork_children();
  if (what == "fork_while_busy") return fork_while_busy();
  if (what == "dropout_note") return dropout_note();
  if (what == "stack_note") return stack_note();
  if (what == "no_dropout_note") return no_dropout_note();
  return usage();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc > 1 ? argv[1] : "");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "process: %s\n", error.what());
    return 6;
  }
}
