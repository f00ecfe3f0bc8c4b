#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include <reel/reel.h>

#include "testing.h"

// What the tests of optim::Tbptt share: a model, and the definition of its gradients.
namespace reel::testing {

inline constexpr Index rows = 2, symbols = 5;

inline Tensor tokens(Index steps, std::uint64_t seed, Index batch = rows) {
  Rng rng(seed);
  std::vector<std::int32_t> numbers;
  for (Index i = 0; i < steps * batch; ++i)
    numbers.push_back(static_cast<std::int32_t>(rng.integer(symbols)));
  return tensor({steps, batch}, numbers);
}

template <class L>
L layers_of(const Params& p, Index inputs, Index hidden, double dropout) {
  if constexpr (requires(const L& stack) { stack.layers; })
    return L(p, inputs, hidden, {.layers = 2, .dropout = dropout});
  else
    return L(p, inputs, hidden);
}

template <class L>
struct Net {
  using State = typename L::State;

  explicit Net(const Params& p, Index hidden = 4, double dropout = 0)
      : params(p),
        embed(p / "embed", symbols, 3),
        layers(layers_of<L>(p / "rnn", 3, hidden, dropout)),
        head(p / "head", hidden, symbols) {}

  // The loss of some steps and the state after them.
  std::pair<Tensor, State> operator()(const Tensor& x, const Tensor& targets, const State& state,
                                      const nn::Mode& mode = nn::Eval{}) const {
    const auto [y, next] = layers(embed(x), state, mode);
    return {cross_entropy(head(y), targets), next};
  }

  Params params;
  nn::Embedding embed;
  L layers;
  nn::Linear head;
};

// The parameters of a model before the first update and after each.
using Versions = std::vector<Params>;

struct Expected {
  double loss = 0;
  Gradients gradients;  // of the first of the versions
};

// The gradient at the update after step `end`, by definition: one tape, the steps one by one, each
// with its own copy of the parameters as they were, and the state before the last k2 steps, with
// all that was computed before, a constant. `begin` is the first step since the last update.
template <class L>
Expected by_definition(const Tensor& x, const Tensor& targets, Index k1, Index k2, Index begin,
                       Index end, const Versions& versions) {
  const Index edge = (end + k1 - 1) / k1 * k1 - k2;
  std::vector<Net<L>> nets;
  for (const Params& version : versions) nets.emplace_back(version.clone());
  typename L::State state;
  Tape tape;
  Tensor loss = scalar(0, f64);
  for (Index t = 0; t < end; ++t) {
    std::optional<NoRecord> constant;
    if (t < edge) constant.emplace();
    const Net<L>& net = nets[static_cast<std::size_t>(t / k1)];
    auto [of_step, next] = net(slice(x, 0, t, t + 1), slice(targets, 0, t, t + 1), state);
    constant.reset();
    state = std::move(next);
    if (t >= begin) loss = loss + of_step / static_cast<double>(end - begin);
  }
  Expected expected{loss.item(), Gradients(versions[0])};
  for (const Net<L>& net : nets) {
    if (std::ranges::none_of(tape.parameters(),
                             [&](const Param& p) { return net.params.contains(*p.entry()); }))
      continue;
    const Gradients part = tape.gradient(loss, net.params, {.keep = true});
    Gradients named(versions[0]);
    part.each([&](const auto& entry, const Tensor& g) {
      named.set(*versions[0][entry->name].entry(), g);
    });
    expected.gradients += named;
  }
  return expected;
}

inline double largest_difference(const Gradients& a, const Gradients& b) {
  double largest = 0;
  a.each([&](const auto& entry, const Tensor& g) {
    const Tensor& other = b[entry->name];
    largest = std::max(largest, max(abs(g - other)).item() / (1 + max(abs(other)).item()));
  });
  return largest;
}

inline void check_same_bits(const Gradients& a, const Gradients& b) {
  std::size_t count = 0, others = 0;
  b.each([&](const auto&, const Tensor&) { ++others; });
  a.each([&](const auto& entry, const Tensor& g) {
    CAPTURE(entry->name);
    CHECK(same_bits(g, b[entry->name]));
    ++count;
  });
  CHECK(count == others);
}

inline void check_same_bits(const Params& a, const Params& b) {
  for (const Param& p : a.list()) {
    CAPTURE(p.name());
    CHECK(same_bits(p.value(), b[p.name()].value()));
  }
}

// Every update of every (k1, k2), with parameters that change at each if `rate` is not 0.
template <class L>
void check_definition(double rate) {
  for (Index k1 = 1; k1 <= 7; ++k1)
    for (Index k2 = 1; k2 <= 7; ++k2) {
      if (sanitized && (k1 + k2) % 3 != 0) continue;
      const Index steps = 12 + (5 * k1 + k2) % 9;
      CAPTURE(k1);
      CAPTURE(k2);
      CAPTURE(steps);
      const Tensor x = tokens(steps, 1), targets = tokens(steps, 2);
      const Net<L> net(Params(3, f64));
      optim::Sgd sgd(net.params, {.learning_rate = rate});
      Versions versions{net.params.clone()};
      Index updates = 0, begin = 0;
      double worst = 0;
      const auto update = [&](const Gradients& gradients, double loss) {
        const Index end = std::min(steps, begin + k1);
        const Expected expected = by_definition<L>(x, targets, k1, k2, begin, end, versions);
        Gradients renamed(versions[0]);
        gradients.each([&](const auto& entry, const Tensor& g) {
          renamed.set(*versions[0][entry->name].entry(), g);
        });
        worst = std::max({worst, largest_difference(expected.gradients, renamed),
                          std::abs(loss - expected.loss)});
        if (rate != 0) sgd.step(gradients);
        versions.push_back(net.params.clone());
        begin = end;
        ++updates;
      };
      optim::Tbptt<typename L::State> tbptt(net.params, {.k1 = k1, .k2 = k2});
      const auto model = [&](const Tensor& in, const Tensor& out, const auto& state) {
        return net(in, out, state);
      };
      tbptt.run({x, targets}, model, update);
      CHECK(tbptt.position() == steps);
      CHECK(updates == steps / k1);
      tbptt.finish(update);
      // The steps of the rest before the edge contribute nothing, so there may be no update.
      const Index rest = steps % k1;
      CHECK(updates == steps / k1 + (rest > std::max<Index>(0, k1 - k2) ? 1 : 0));
      CHECK(tbptt.position() == 0);
      CHECK(tbptt.held_bytes() == 0);
      CHECK(worst < 1e-12);
    }
}

}  // namespace reel::testing
