// What becomes of a process that is killed or aborted, in forked children.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <string>
#include <vector>

#include <reel/autograd/error.h>
#include <reel/autograd/ops.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/files/atomic_file.h>
#include <reel/nn/generate/stream.h>
#include <reel/optim/background_saver.h>

#include "temporary_directory.h"
#include "testing.h"

using namespace reel;

namespace {

// Kills a child after some microseconds of doing something again and again, with i = 1, 2, 3 ...
template <class F>
void kill_repeating(Index microseconds, F f) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      for (int i = 1;; ++i) f(i);
    } catch (const Error&) {
      ::_exit(1);
    }
  }
  ::usleep(static_cast<useconds_t>(microseconds));
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status));
}

// What a child process writes to its standard error before it is aborted.
template <class F>
std::string last_words(F f) {
  constexpr int aborted = 134;
  std::array<int, 2> ends{};
  REQUIRE(pipe(ends.data()) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    // With a handler of its own, as an emulator writes a line when a signal ends the program.
    std::signal(SIGABRT, [](int) { _exit(aborted); });
    f();
    _exit(0);
  }
  close(ends[1]);
  std::string words;
  for (char c = 0; read(ends[0], &c, 1) == 1;) words += c;
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == aborted);
  return words;
}

}  // namespace

TEST_CASE("atomic file: a process killed while it writes leaves the old or the new content") {
  const TemporaryDirectory directory;
  const auto path = directory.file("model", std::string(50'000, 'a'));
  for (Index round = 0; round < testing::rounds(20, 2000); ++round) {
    kill_repeating(1000 + 700 * (round % 20), [&](int i) {
      nn::write_file(path, std::string(50'000, static_cast<char>('a' + i % 26)));
    });
    const std::string content = content_of(path);
    CHECK(content == std::string(50'000, content[0]));
  }
}

TEST_CASE("background saver: a process killed while it saves leaves the old or the new file") {
  const TemporaryDirectory directory;
  const auto path = directory / "model";
  const auto state_of = [](double number) {
    optim::RunState state;
    state.params.tensors["w"] = full({1000}, number);
    state.numbers["step"] = number;
    return state;
  };
  save_run_state(path, state_of(0));
  double last = 0;
  for (Index round = 0; round < testing::rounds(20, 500); ++round) {
    optim::BackgroundSaver* saver = nullptr;  // with a thread, so made in the child
    kill_repeating(5000 + 1700 * (round % 20), [&](int i) {
      if (!saver) saver = new optim::BackgroundSaver;
      saver->save(path, state_of(i));
    });
    const optim::RunState state = optim::load_run_state(path);  // which has a checksum
    CHECK(state.params["w"].at({999}) == state.number("step"));
    last = std::max(last, state.number("step"));
  }
  CHECK(last > 1);
}

TEST_CASE("stream: a step with spans of another size ends the program with a message") {
  if (testing::sanitized) return;
  const Params params(1);
  nn::Stream stream(nn::Gru(params / "gru", 2, 8));
  nn::Stream reader(nn::Embedding(params / "embed", 5, 2), nn::Gru(params / "other", 2, 8));
  std::vector<float> in(3), out(8);
  CHECK(last_words([&] { stream.step(in, out); }) ==
        "Stream: in has 3 numbers and out 8, but a step takes 2 and gives 8\n");
  CHECK(last_words([&] { stream.step(1, out); }) ==
        "Stream: a step takes a span, not a symbol, as there is no embedding\n");
  CHECK(last_words([&] { reader.step(in, out); }) ==
        "Stream: a step takes a symbol, not a span, as the first part is an embedding\n");
  CHECK(last_words([&] { reader.step(5, out); }) ==
        "Stream: symbol 5 of 5 symbols; out has 8 numbers, but a step gives 8\n");
}
