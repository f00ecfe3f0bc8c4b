// The gradients that nn::Diagnostics sees in recurrent layers, and when it sees them.
#include <doctest/doctest.h>

#include <reel/reel.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "layer_reports.h"
#include "testing.h"

using namespace reel;
using namespace reel::testing;

namespace {

// A layer by the definition: its cell, step by step in ops. `states` gets h after each step, a
// tensor on the tape that is all that y and later steps depend on.
template <class C>
Tensor run(const C& cell, const Tensor& x, const Tensor& lengths, bool reverse, Tensors& states) {
  const Index steps = x.size(0);
  states.resize(static_cast<std::size_t>(steps));
  Tensors y(states.size());
  typename C::State state;
  for (Index s = 0; s < steps; ++s) {
    const Index t = reverse ? steps - 1 - s : s;
    const auto at = static_cast<std::size_t>(t);
    auto next = cell(select(x, 0, t), state);
    y[at] = states[at] = next.y;
    if (lengths.defined()) {
      const Tensor active = active_rows(lengths, t);
      const Tensor zero = scalar(0, f64);
      y[at] = active.defined() ? where(active, next.y, zero) : next.y;
      std::vector<Tensor> before = nn::flatten(state);
      std::size_t k = 0;
      if (active.defined())
        next.state = next.state.map([&](const Tensor& after) {
          const Tensor held =
              before.empty() || !before[k].defined() ? zeros(after.shape(), f64) : before[k];
          ++k;
          return where(active, after, held);
        });
    }
    state = next.state;
  }
  return stack(y);
}

Numbers norms_of(const std::vector<Tensor>& gradients) {
  Numbers norms;
  for (const Tensor& g : gradients) norms.push_back(norm(g).item());
  return norms;
}

template <class L, class... Options>
void check_gradient_norms(const Options&... options) {
  const Params params(1, f64);
  const L layer(params / "layer", 3, 4, options...);
  const Tensor x = draw({7, 5, 3}, 2);
  for (const bool reverse : {false, true})
    for (const Tensor& lengths : {Tensor(), some_lengths()}) {
      CAPTURE(reverse);
      CAPTURE(lengths.defined());
      SequenceOptions call{.reverse = reverse};
      if (lengths.defined()) call.lengths = lengths;
      Tape tape;
      const Tensor in = tape.watch(x);
      Tensors states;
      const Tensor y = run(layer.cell, in, lengths, reverse, states);
      const std::vector<Tensor> expected = tape.gradient(project(y), std::span(states));
      const auto reports = reports_of(layer, x, {}, call);
      REQUIRE(reports.size() == 1);
      CHECK(reports[0].name == "layer");
      check_close(reports[0].gradient_norms, norms_of(expected));
    }
}

}  // namespace

TEST_CASE("Diagnostics: the gradients are dL/dh of every step, by the definition") {
  SUBCASE("rnn") { check_gradient_norms<nn::Rnn>(); }
  SUBCASE("gru") { check_gradient_norms<nn::Gru>(); }
  SUBCASE("gru, reset before") {
    check_gradient_norms<nn::Gru>(nn::GruOptions{.reset = Reset::before});
  }
  SUBCASE("lstm") { check_gradient_norms<nn::Lstm>(); }
  SUBCASE("lstm with peepholes") {
    check_gradient_norms<nn::Lstm>(nn::LstmOptions{.peepholes = true});
  }
  SUBCASE("in ops") { check_gradient_norms<nn::Unroll<nn::LstmCell>>(); }
}

TEST_CASE("Diagnostics: the layers of a stack, and both directions of a layer") {
  const Params params(1, f64);
  const Tensor x = draw({5, 3, 3}, 2);
  SUBCASE("a stack") {
    const nn::Stacked<nn::Gru> stacked(params / "rnn", 3, 4, {.layers = 2});
    Tape tape;
    Tensors lower, upper;
    const Tensor y =
        run(stacked.layers[1].cell, run(stacked.layers[0].cell, tape.watch(x), {}, false, lower),
            {}, false, upper);
    const Tensor loss = project(y);
    const auto of_lower = tape.gradient(loss, std::span(lower), {.keep = true});
    const auto of_upper = tape.gradient(loss, std::span(upper));
    const auto reports = reports_of(stacked, x);
    REQUIRE(reports.size() == 2);
    CHECK(reports[0].name == "rnn.0");
    CHECK(reports[1].name == "rnn.1");
    check_close(reports[0].gradient_norms, norms_of(of_lower));
    check_close(reports[1].gradient_norms, norms_of(of_upper));
  }
  SUBCASE("both directions") {
    const nn::Bidirectional<nn::Lstm> both(params / "rnn", 3, 4);
    Tape tape;
    const Tensor in = tape.watch(x);
    Tensors there, back;
    const Tensor y = concat(
        {run(both.forward.cell, in, {}, false, there), run(both.backward.cell, in, {}, true, back)},
        -1);
    const Tensor loss = project(y);
    const auto of_there = tape.gradient(loss, std::span(there), {.keep = true});
    const auto of_back = tape.gradient(loss, std::span(back));
    const auto reports = reports_of(both, x);
    REQUIRE(reports.size() == 2);
    CHECK(reports[0].name == "rnn.forward");
    CHECK(reports[1].name == "rnn.backward");
    check_close(reports[0].gradient_norms, norms_of(of_there));
    check_close(reports[1].gradient_norms, norms_of(of_back));
    CHECK(reports[1].jacobian_norms.size() == 4);
  }
}

TEST_CASE("Diagnostics: a scan's gradients, its factors and what they remember") {
  const Params params(1, f64);
  const nn::MinGru layer(params / "layer", 3, 4);
  const Tensor x = draw({6, 5, 3}, 2);
  for (const bool reverse : {false, true}) {
    CAPTURE(reverse);
    Tape tape;
    const Tensors p = split(affine(tape.watch(x), layer.w_ih, layer.b), 2, -1);
    const Tensor z = sigmoid(p[0]), b = z * nn::min_candidate(p[1], layer.candidate);
    Tensors states(6);
    Tensor h = zeros({5, 4}, f64);
    for (Index s = 0; s < 6; ++s) {
      const Index t = reverse ? 5 - s : s;
      h = states[static_cast<std::size_t>(t)] = (1 - z[t]) * h + b[t];
    }
    const auto expected = tape.gradient(project(stack(states)), std::span(states));
    const auto reports = reports_of(layer, x, {}, {.reverse = reverse});
    REQUIRE(reports.size() == 1);
    check_close(reports[0].gradient_norms, norms_of(expected));
    REQUIRE(reports[0].gates.size() == 1);
    CHECK(reports[0].gates[0].name == "forget");
    Index counted = 0;
    for (const Index count : reports[0].gates[0].histogram) counted += count;
    CHECK(counted == 6 * 5 * 4);
    // τ of each unit from the mean of 1 - z.
    const Numbers means = mean(1 - z, {0, 1}).to_vector();
    Numbers taus;
    for (const double f : means) taus.push_back(-1 / std::log(f));
    std::ranges::sort(taus);
    REQUIRE(reports[0].time_constants);
    check_close({reports[0].time_constants->p5, reports[0].time_constants->median,
                 reports[0].time_constants->p95},
                {taus[0], taus[2], taus[3]});
  }
}

TEST_CASE("Diagnostics: parts of a sequence are one sequence") {
  const Params params(1, f64);
  const nn::Lstm lstm(params / "lstm", 3, 4);
  const nn::MinGru scan(params / "scan", 3, 4);
  const nn::Unroll<nn::GruCell> unrolled(params / "unrolled", 3, 4);
  const Tensor x = draw({9, 5, 3}, 2);
  for (const bool reverse : {false, true}) {
    CAPTURE(reverse);
    const auto check = [&](const auto& layer) {
      const auto whole = reports_of(layer, x, {}, {.reverse = reverse});
      const auto parts = reports_of(layer, x, {}, {.reverse = reverse, .segment = 4});
      REQUIRE(whole.size() == 1);
      REQUIRE(parts.size() == 1);
      CHECK(whole[0].gradient_norms.size() == 9);
      check_close(parts[0].gradient_norms, whole[0].gradient_norms, 1e-12);
    };
    check(lstm);
    check(scan);
    check(unrolled);
  }
}

TEST_CASE("Diagnostics: an update of Tbptt has the steps that it looks back over") {
  const Params params(1, f64);
  const nn::Lstm lstm(params / "lstm", 3, 4);
  const Tensor x = draw({12, 5, 3}, 2);
  nn::Diagnostics diagnostics;
  const auto watch = diagnostics.watch();
  optim::Tbptt<nn::LstmState> tbptt(params, {.k1 = 4, .k2 = 8});
  int updates = 0;
  tbptt.run(
      {x},
      [&](const Tensor& part, const nn::LstmState& state) {
        auto [y, next] = lstm(part, state);
        return std::pair(project(y), std::move(next));
      },
      [&](const Gradients&, double) {
        ++updates;
        REQUIRE(diagnostics.layers().size() == 1);
      });
  CHECK(updates == 3);
  CHECK(diagnostics.layers()[0].gradient_norms.size() == 4 + 8 + 8);
}

TEST_CASE("Diagnostics change no bit, and have the same ones for any number of threads") {
  const Params params(1);
  const nn::Stacked<nn::Lstm> model(params / "rnn", 16, 32, {.layers = 2});
  const nn::Bidirectional<nn::Gru> both(params / "both", 16, 32);
  const Tensor x = Rng(2).normal({20, 24, 16}, 0, 1);
  const auto gradients = [&] {
    Tape tape;
    const Tensor loss = sum(square(model(x).y)) + sum(square(both(x).y));
    return tape.gradient(loss, params);
  };
  const Gradients plain = gradients();
  std::vector<nn::LayerReport> first;
  for (const int count : {1, 2, 3}) {
    const ThreadsScope scope(count);
    nn::Diagnostics diagnostics;
    const Gradients watched = [&] {
      const auto watch = diagnostics.watch();
      return gradients();
    }();
    for (const Param& param : params.list())
      CHECK(same_bits(watched[param.name()], plain[param.name()]));
    REQUIRE(diagnostics.layers().size() == 4);
    if (first.empty()) first = diagnostics.layers();
    CHECK(diagnostics.layers() == first);
  }
}

TEST_CASE("Diagnostics see a vanishing gradient whose square f32 cannot hold") {
  const Params params(1);
  const nn::Rnn rnn(params / "rnn", 2, 4);
  const Tensor x = Rng(2).normal({3, 2, 2}, 0, 1);
  nn::Diagnostics diagnostics;
  const auto watch = diagnostics.watch();
  Tape tape;
  const Tensor loss = 1e-30 * sum(rnn(x).y);
  tape.gradient(loss, params);
  const double last = diagnostics.layers().at(0).gradient_norms.at(2);
  CHECK(last / (1e-30 * std::sqrt(8.0)) == doctest::Approx(1).epsilon(1e-5));
}

TEST_CASE("Diagnostics watch as long as asked to, and begin anew") {
  const Params params(1, f64);
  const nn::Lstm first(params / "first", 3, 4), second(params / "second", 3, 4);
  const Tensor x = draw({6, 5, 3}, 2);
  const auto differentiate = [&](const nn::Lstm& layer, bool graph) {
    Tape tape;
    const Tensor in = tape.watch(x);
    tape.gradient(project(layer(in).y), {in}, {.create_graph = graph});
  };
  auto diagnostics = std::make_unique<nn::Diagnostics>();
  differentiate(first, false);
  CHECK(diagnostics->layers().empty());
  for (const nn::Lstm* layer : {&first, &second}) {
    const auto watch = diagnostics->watch();
    differentiate(*layer, false);
  }
  REQUIRE(diagnostics->layers().size() == 1);
  CHECK(diagnostics->layers()[0].name == "second");
  differentiate(first, false);
  CHECK(diagnostics->layers().size() == 1);
  {
    const auto watch = diagnostics->watch();
    differentiate(first, true);
  }
  CHECK(diagnostics->layers().empty());
  // Hooks on a tape may outlive the diagnostics.
  const nn::Unroll<nn::LstmCell> unrolled(params / "unrolled", 3, 4);
  Tape tape;
  const Tensor in = tape.watch(x);
  const Tensor loss = [&] {
    const auto watch = diagnostics->watch();
    return project(unrolled(in).y);
  }();
  tape.gradient(loss, {in}, {.keep = true});
  CHECK(diagnostics->layers().empty());
  diagnostics.reset();
  CHECK(tape.gradient(loss, {in})[0].defined());
}

TEST_CASE("Diagnostics: options, and tables of what was seen") {
  const auto error = [](const nn::DiagnosticsOptions& options) {
    return message_without_line<ValueError>([&] { const nn::Diagnostics d(options); });
  };
  CHECK(
      error({.tokens = 0}) ==
      "Diagnostics: 0 tokens, 4 Jacobians and 10 iterations; there have to be at least 1, 0 and 1");
  CHECK(error({.jacobians = -1}).find("-1 Jacobians") != std::string::npos);
  CHECK(error({.iterations = 0}).find("0 iterations") != std::string::npos);

  const Params params(1, f64);
  const nn::Gru gru(params / "gru", 3, 4);
  nn::Diagnostics diagnostics({.tokens = 7, .jacobians = 0});
  {
    const auto watch = diagnostics.watch();
    Tape tape;
    const Tensor loss = project(gru(draw({6, 5, 3}, 2)).y);
    tape.gradient(loss, params);
  }
  const nn::LayerReport report = diagnostics.layers().at(0);
  CHECK(report.jacobian_norms.empty());
  for (const nn::GateReport& gate : report.gates) {
    Index counted = 0;
    for (const Index count : gate.histogram) counted += count;
    CHECK(counted == 7 * 4);
  }
  const std::string text = diagnostics.str();
  for (const char* part : {"gru", "new", "reset", "update", "median tau"})
    CHECK(text.find(part) != std::string::npos);
}
