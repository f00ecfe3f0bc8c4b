// Memory and CPU time of training on one long sequence, whole and in segments that the backward
// pass recomputes. Every row is measured in its own process: sequence_memory [STEPS [ROUNDS]]
#include <reel/reel.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "apart.h"

namespace {

using namespace reel;
using bench::measured_apart;
using bench::mib_of;

constexpr Index rows = 8, features = 2, hidden = 64, classes = 10;

struct Problem {
  explicit Problem(Index steps)
      : lstm(params / "lstm", features, hidden),
        head(params / "head", hidden, classes),
        x(Rng(2).normal({steps, rows, features})) {
    Rng rng(3);
    std::vector<std::int32_t> labels;
    for (Index i = 0; i < steps * rows; ++i)
      labels.push_back(static_cast<std::int32_t>(rng.integer(classes)));
    targets = tensor({steps, rows}, labels);
  }

  Params params{1};
  nn::Lstm lstm;
  nn::Linear head;
  Tensor x, targets;  // targets i32 [T, B]
};

Tensor loss_on_last_state(const Problem& p, const SequenceOptions& options) {
  const auto [y, state] = p.lstm(p.x, {}, nn::Eval{}, options);
  return cross_entropy(p.head(state.h), select(p.targets, 0, -1));
}

Tensor loss_on_every_step(const Problem& p) {
  return cross_entropy(p.head(p.lstm(p.x).y), p.targets);
}

// Layer and loss of a segment in one checkpoint: neither y nor the logits exist for all steps.
Tensor loss_on_every_step_in_segments(const Problem& p, Index segment) {
  const Index steps = p.x.size(0);
  Tensor h = zeros({rows, hidden}), c = h, total = scalar(0);
  for (Index begin = 0; begin < steps; begin += segment) {
    const Index end = std::min(begin + segment, steps);
    const auto part = [lstm = p.lstm, head = p.head, begin, end](std::span<const Tensor> in) {
      const auto [y, next] = lstm(slice(in[0], 0, begin, end), {in[2], in[3]});
      const Tensor loss = cross_entropy(head(y), slice(in[1], 0, begin, end));
      return Tensors{static_cast<double>(end - begin) * loss, next.h, next.c};
    };
    const Tensors results = checkpoint(part, {p.x, p.targets, h, c});
    total = total + results[0];
    h = results[1];
    c = results[2];
  }
  return total / static_cast<double>(steps);
}

struct Figures {
  double mib = 0, seconds = 0, loss = 0, norm = 0;
};

// Training steps from scratch: the memory that they took in addition to the problem itself, and the
// time of the fastest.
Figures measure(Index steps, const std::function<Tensor(const Problem&)>& loss_of) {
  set_threads(1);
  const Problem problem(steps);
  const double before = mib_of("VmRSS");
  Figures figures{.seconds = INFINITY};
  for (int i = 0; i < 3; ++i) {
    const std::clock_t begin = std::clock();
    Tape tape;
    const Tensor loss = loss_of(problem);
    const Gradients gradients = tape.gradient(loss, problem.params);
    const std::clock_t elapsed = std::clock() - begin;
    figures.seconds = std::min(figures.seconds, static_cast<double>(elapsed) / CLOCKS_PER_SEC);
    figures.loss = loss.item();
    figures.norm = gradients.norm();
  }
  figures.mib = mib_of("VmHWM") - before;
  return figures;
}

// The median of the rounds by time; memory is the same in all of them.
Figures median(std::vector<Figures> rounds) {
  std::ranges::sort(rounds, {}, &Figures::seconds);
  return rounds[rounds.size() / 2];
}

void compare(const char* title, Index steps, int rounds, Index segment,
             const std::function<Tensor(const Problem&)>& plain,
             const std::function<Tensor(const Problem&)>& in_segments) {
  std::vector<Figures> of_plain, of_segments;
  for (int i = 0; i < rounds; ++i) {
    of_plain.push_back(measured_apart([&] { return measure(steps, plain); }));
    of_segments.push_back(measured_apart([&] { return measure(steps, in_segments); }));
  }
  const Figures a = median(of_plain), b = median(of_segments);
  const auto row = [&](const std::string& name, const Figures& f) {
    std::printf("%-12s %-14s %10.1f %9.1f%% %10.1f %9.2f %12.6f %12.6f\n", title, name.c_str(),
                f.mib, 100 * f.mib / a.mib, 1e3 * f.seconds, f.seconds / a.seconds, f.loss, f.norm);
  };
  row("whole", a);
  row("segments " + std::to_string(segment), b);
}

}  // namespace

int main(int argc, char** argv) {
  const Index steps = argc > 1 ? std::atol(argv[1]) : 10000;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 5;
  const auto segment = static_cast<Index>(std::lround(std::sqrt(static_cast<double>(steps))));
  std::printf(
      "An LSTM of %d units on %d sequences of %ld steps, f32, one thread: a training step\n\n",
      static_cast<int>(hidden), static_cast<int>(rows), static_cast<long>(steps));
  std::printf("%-12s %-14s %10s %10s %10s %9s %12s %12s\n", "loss on", "run", "peak MiB",
              "of whole", "ms", "of whole", "loss", "|gradient|");
  compare(
      "last state", steps, rounds, segment,
      [](const Problem& p) { return loss_on_last_state(p, {}); },
      [=](const Problem& p) {
        return loss_on_last_state(p, {.segment = segment, .outputs = false});
      });
  compare("every step", steps, rounds, segment, loss_on_every_step,
          [=](const Problem& p) { return loss_on_every_step_in_segments(p, segment); });
}
