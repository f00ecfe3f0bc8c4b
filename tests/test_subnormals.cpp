#include <reel/autograd/checkpoint.h>
#include <reel/autograd/kernels/flush_subnormals.h>
#include <reel/autograd/kernels/thread_pool.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/generate/stepper.h>
#include <reel/nn/init.h>
#include <reel/optim/clip.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "optimizers.h"
#include "testing.h"

using namespace reel;
using namespace reel::testing;

namespace {

constexpr float smallest = std::numeric_limits<float>::min();

// Whether f takes less than 1.9 times the time of g; with subnormal numbers it is 5 to 30. It is
// about the best of several alternating runs, on one thread, as others that wait take time too,
// and a machine that is busy gets more of them: the ratio of slow code is never small.
bool is_no_slower(auto f, auto g) {
  const ThreadsScope one(1);
  double of_f = std::numeric_limits<double>::infinity(), of_g = of_f;
  for (int run = 0; run < 100; ++run) {
    of_g = std::min(of_g, cpu_seconds(g));
    of_f = std::min(of_f, cpu_seconds(f));
    if (run >= 4 && of_f < 1.9 * of_g) return true;
  }
  MESSAGE("takes " << of_f / of_g << " times as long");
  return false;
}

struct LongLstm {
  Params params{1};
  nn::Lstm lstm{params / "lstm", 64, 64};
  Tensor x = Rng(2).normal({sanitized ? 150 : 400, 16, 64});

  Gradients gradients(bool last_step_alone) const {
    Tape tape;
    const auto [y, state] = lstm(x);
    return tape.gradient(last_step_alone ? sum(state.h) : sum(y), params);
  }
};

}  // namespace

TEST_CASE("a vanishing gradient takes no longer than another one") {
  const LongLstm model;
  CHECK(is_no_slower([&] { model.gradients(true); }, [&] { model.gradients(false); }));
}

TEST_CASE("a vanishing gradient has the same bits on any number of threads") {
  const LongLstm model;
  const Gradients alone = [&] {
    const ThreadsScope one(1);
    return model.gradients(true);
  }();
  for (int n : {2, 4}) {
    const ThreadsScope some(n);
    const Gradients together = model.gradients(true);
    for (const Param& p : model.params.list()) CHECK(same_bits(alone[p], together[p]));
  }
}

TEST_CASE("steps of an optimizer take no longer after a thousand gradients of zero" *
          doctest::skip(testing::sanitized)) {
  for (const Make& make_optimizer : all_optimizers) {
    const auto used = [&](const Params& params, int steps) {
      auto optimizer = make_optimizer(params);
      Gradients gradients(params);
      const Param w = params["w"];
      gradients.set(*w.entry(), full(w.shape(), 1e-15));  // its square decays quickly
      optimizer->step(gradients);
      gradients.set(*w.entry(), zeros(w.shape()));
      for (int step = 0; step < steps; ++step) optimizer->step(gradients);
      return std::pair(std::move(optimizer), gradients);
    };
    const Params params(1);
    params.create("w", {100, 200}, nn::init::constant(0.5));
    const auto fresh_pair = used(params, 0), old_pair = used(params, 1000);
    const auto &fresh = fresh_pair.first, &old = old_pair.first;
    const Gradients &first = fresh_pair.second, &later = old_pair.second;
    const auto steps = [](Optimizer& optimizer, const Gradients& gradients) {
      for (int step = 0; step < 20; ++step) optimizer.step(gradients);
    };
    CAPTURE(fresh->name());
    CHECK(is_no_slower([&] { steps(*old, later); }, [&] { steps(*fresh, first); }));
    for (const auto& [name, moment] : old->state().tensors)
      if (moment.dtype() == f32)
        for (float m : moment.values<float>()) {
          const bool subnormal = m != 0 && std::abs(m) < smallest;
          REQUIRE_FALSE(subnormal);
        }
  }
}

TEST_CASE("negligible weights of a softmax are 0, and their product is fast") {
  std::vector<double> logits{0};
  for (int i = 0; i < 256; ++i) logits.push_back(-86 - 0.05 * i);
  const Tensor weights = softmax(tensor({257}, std::span<const double>(logits)));
  for (float w : weights.values<float>()) {
    const bool normal = w == 0 || w >= smallest;
    CHECK(normal);
  }
  const Tensor tiny = full({256, 256}, 1e-41), zero = zeros({256, 256}), b = ones({256, 64});
  CHECK(is_no_slower([&] { matmul(tiny, b); }, [&] { matmul(zero, b); }));
}

TEST_CASE("ops, passes, steps and steppers leave the caller's mode as it was") {
  const kernels::FloatMode before = kernels::float_mode();
  const auto unchanged = [&] { return kernels::float_mode() == before; };
  const Params params(1);
  const nn::Lstm lstm(params / "lstm", 3, 4);
  const Tensor x = Rng(2).normal({5, 2, 3});

  exp(x);
  CHECK(unchanged());
  CHECK_THROWS_AS(gather_rows(ones({2, 2}), tensor({1}, {7}, i32)), ValueError);  // in the kernel
  CHECK(unchanged());

  Tape tape;
  const auto [y, state] = lstm(x);
  bool seen = false;
  tape.on_gradient(y, [&](const Tensor&) {
    seen = unchanged();
    return Tensor();
  });
  Gradients gradients = tape.gradient(sum(y), params);
  CHECK(seen);
  CHECK(unchanged());
  gradients.norm();
  gradients *= 0.5;
  optim::clip_by_norm(gradients, 1e-3);
  optim::Adam(params).step(gradients);
  CHECK(unchanged());

  Tape second;
  const Tensor z = lstm(x).y;
  second.on_gradient(z, [](const Tensor&) -> Tensor { throw std::runtime_error("no"); });
  CHECK_THROWS_AS(second.gradient(sum(z), params), GradientError);
  CHECK(unchanged());

  const NoRecord suspended;
  const nn::Stepper step(lstm);
  CHECK(unchanged());
  step(ones({2, 3}));
  CHECK(unchanged());
}

TEST_CASE("a function that runs again under a checkpoint has its caller's mode both times") {
  const kernels::FloatMode before = kernels::float_mode();
  int right = 0;
  const auto f = [&](std::span<const Tensor> in) {
    right += kernels::float_mode() == before;
    return Tensors{tanh(in[0])};
  };
  for (bool create_graph : {false, true}) {
    right = 0;
    Tape tape;
    const Tensor x = tape.watch(ones({3}));
    tape.gradient(sum(checkpoint(f, {x})[0]), {x}, {.create_graph = create_graph});
    CHECK(right == 2);
  }
}

TEST_CASE("the threads of the pool have the mode of their caller") {
  const ThreadsScope some(4);
  for (bool flush : {false, true, false}) {
    std::optional<kernels::FlushSubnormals> scope;
    if (flush) scope.emplace();
    const auto bits = kernels::float_mode() & kernels::flushing;
    std::atomic<int> right{0};
    kernels::parallel_for(64, [&](Index) {
      right += (kernels::float_mode() & kernels::flushing) == bits;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    });
    CHECK(right == 64);
  }
}

TEST_CASE("a caller that flushes already goes on doing so, and copies keep what they copy") {
  {
    const kernels::FlushSubnormals own;
    const kernels::FloatMode before = kernels::float_mode();
    exp(ones({3}));
    CHECK(kernels::float_mode() == before);
  }
  const Tensor tiny = full({2}, 1e-41);
  CHECK(reshape(tiny, {2, 1}).to_vector() == tiny.to_vector());
  if (kernels::flushing != 0) CHECK((tiny * 1).to_vector() == std::vector<double>{0, 0});
}
