#include <doctest/doctest.h>

#include <utility>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/linear.h>
#include <reel/optim/adam.h>
#include <reel/optim/background_saver.h>

#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using optim::BackgroundSaver;
using optim::RunState;

namespace {

// A training whose parameters and moments change in every step.
struct Training {
  Params params{1};
  nn::Linear layer{params / "layer", 200, 100};
  optim::Adam adam{params, {.learning_rate = 1e-2}};
  Index steps = 0;

  void step() {
    Tape tape;
    const Tensor loss = mse(layer(ones({4, 200})), zeros({4, 100}));
    adam.step(tape.gradient(loss, params));
    ++steps;
  }
  RunState state() const {
    return {.params = nn::from_params(params),
            .optimizer = adam.state(),
            .numbers = {{"step", static_cast<double>(steps)}}};
  }
};

RunState state_of(double number) {
  RunState state;
  state.params.tensors["w"] = full({1000}, number);
  state.numbers["step"] = number;
  return state;
}

}  // namespace

TEST_CASE("background saver: a file has the state of its save, while another thread trains on") {
  const TemporaryDirectory directory;
  Training training;
  BackgroundSaver saver;
  for (int i = 0; i < 30; ++i) {
    training.step();
    saver.save(directory / "model", training.state());
    save_run_state(directory / "expected", training.state());
    for (int k = 0; k < i % 4; ++k) training.step();  // while it saves
    saver.wait();
    CHECK(content_of(directory / "model") == content_of(directory / "expected"));
  }
  CHECK(directory.count() == 2);
}

TEST_CASE("background saver: the memory of a saved state is released to the thread that trains") {
  const TemporaryDirectory directory;
  Training training;
  BackgroundSaver saver;
  const auto save = [&] {
    saver.save(directory / "a", training.state());
    training.step();
    saver.wait();
    training.step();
  };
  for (int i = 0; i < 3; ++i) save();
  const auto before = pool::statistics();
  for (int i = 0; i < 20; ++i) save();
  CHECK(pool::statistics().heap_allocations == before.heap_allocations);
  CHECK(pool::statistics().held_bytes == before.held_bytes);
}

TEST_CASE("background saver: nothing of a state is copied by the thread that begins a save") {
  const TemporaryDirectory directory;
  Training training;
  training.step();
  BackgroundSaver saver;
  saver.save(directory / "a", training.state());
  saver.wait();
  const auto before = pool::statistics().heap_allocations;
  const void* numbers = training.layer.w.value().buffer().data();
  saver.save(directory / "a", training.state());
  CHECK(training.layer.w.value().buffer().data() == numbers);
  CHECK(pool::statistics().heap_allocations == before);
  saver.wait();
  training.step();  // no one holds the old numbers: they are overwritten
  CHECK(training.layer.w.value().buffer().data() == numbers);
}

TEST_CASE("background saver: a save waits for the one before, so a file has one writing thread") {
  const TemporaryDirectory directory;
  BackgroundSaver saver;
  for (int i = 0; i < 50; ++i) saver.save(directory / "a", state_of(i));
  saver.wait();
  CHECK(optim::load_run_state(directory / "a").number("step") == 49);
  CHECK(directory.count() == 1);
  saver.wait();  // there is nothing to wait for
}

TEST_CASE("background saver: an error of its thread is thrown once, by the next save or by wait") {
  const TemporaryDirectory directory;
  BackgroundSaver saver;
  const std::string missing = (directory / "none/a").string();
  const std::string reason = missing + ": cannot write: No such file or directory";
  saver.save(missing, state_of(1));
  CHECK(message_of<FileError>([&] { saver.wait(); }) == reason);
  saver.wait();
  saver.save(missing, state_of(1));
  CHECK(message_of<FileError>([&] { saver.save(directory / "a", state_of(2)); }) == reason);
  CHECK(directory.count() == 0);
  saver.save(directory / "a", state_of(3));
  saver.wait();
  CHECK(optim::load_run_state(directory / "a").number("step") == 3);

  RunState state = state_of(4);
  state.texts["run.mine"] = "";
  saver.save(directory / "a", state);
  CHECK(contains(message_of<ValueError>([&] { saver.wait(); }), "test_background_saver.cpp:"));
  CHECK(optim::load_run_state(directory / "a").number("step") == 3);
}

TEST_CASE("background saver: a state is written in any way, and an error of it is thrown once") {
  const TemporaryDirectory directory;
  BackgroundSaver saver;
  saver.save(state_of(1), [&](const RunState& state) {
    for (const char* name : {"a", "b"}) save_run_state(directory / name, state);
  });
  saver.wait();
  for (const char* name : {"a", "b"})
    CHECK(optim::load_run_state(directory / name).number("step") == 1);
  saver.save(state_of(2), [](const RunState&) { throw FileError("no room"); });
  CHECK(message_of<FileError>([&] { saver.wait(); }) == "no room");
  saver.wait();
}

TEST_CASE("background saver: its thread ends before it does") {
  const TemporaryDirectory directory;
  {
    BackgroundSaver saver;
    saver.save(directory / "a", state_of(1));
    BackgroundSaver moved = std::move(saver);
  }
  CHECK(optim::load_run_state(directory / "a").number("step") == 1);
  BackgroundSaver().save(directory / "none/a", state_of(1));  // its error is lost
  CHECK(directory.count() == 1);
}

TEST_CASE("background saver: what a span writes later, beside its thread, is not saved") {
  const TemporaryDirectory directory;
  Training training;
  const std::span<float> weights = training.layer.w.edit<float>();
  Tensor carried = zeros({100'000});
  const std::span<float> numbers = carried.edit<float>();
  RunState state = training.state();
  state.carried = {carried};
  state.more.tensors["average"] = carried;
  save_run_state(directory / "expected", state);
  BackgroundSaver saver;
  for (int i = 0; i < 5; ++i) {
    std::ranges::fill(numbers, 0.0F);
    saver.save(directory / "a", state);
    std::ranges::fill(numbers, 1.0F);
    std::ranges::fill(weights, 1.0F);
    saver.wait();
    CHECK(content_of(directory / "a") == content_of(directory / "expected"));
  }
}

TEST_CASE("background saver: the newest files of a run's steps are kept, also by its thread") {
  const TemporaryDirectory directory;
  Training training;
  // [background]
  const optim::StepFiles newest(directory.path(), 3);
  optim::BackgroundSaver saver;
  for (Index step = 1; step <= 1000; ++step) {
    training.step();
    if (step % 100 == 0) saver.save(newest, step, training.state());
  }
  saver.wait();  // throws if the last file could not be written
  // [/background]
  CHECK(directory.count() == 3);
  CHECK(newest.files().begin()->first == 800);
  for (const auto& [step, path] : newest.files())
    CHECK(optim::load_run_state(path).number("step") == static_cast<double>(step));
}
