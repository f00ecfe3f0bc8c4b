// Stacks of any layers with what lies between them, both directions, and trained initial states.
#include <doctest/doctest.h>

#include <functional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include <reel/reel.h>

#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using testing::error_of;
using testing::same_bits;

namespace {

// A user's cell in ops.
struct LeakyCell {
  using State = nn::HiddenState;
  LeakyCell(const Params& p, Index input_size, Index hidden_size)
      : in(p / "in", input_size, hidden_size), back(p / "back", hidden_size, hidden_size) {}
  nn::Output<State> operator()(const Tensor& x, const State& state, const nn::Mode&) const {
    const Tensor h = state.h.defined() ? state.h : zeros({x.size(0), output_size()}, x.dtype());
    const Tensor next = 0.6 * h + 0.4 * reel::tanh(in(x) + back(h));
    return {next, {next}};
  }
  Index output_size() const { return back.w.shape()[0]; }
  nn::Linear in, back;
};
using Leaky = nn::Unroll<LeakyCell>;

using nn::Connection;
using nn::Merge;
using nn::StackOptions;

// y and then the tensors of the last state, for the tensors of an initial state, or none.
using Run = std::function<Tensors(const Tensor& x, const std::vector<Tensor>& initial,
                                  const SequenceOptions& options, const nn::Mode& mode)>;

template <class L>
Run run_of(const L& layer) {
  return [layer](const Tensor& x, const std::vector<Tensor>& initial,
                 const SequenceOptions& options, const nn::Mode& mode) {
    typename L::State state;
    if (!initial.empty()) {
      const NoRecord pause;
      state = layer(x.detach()).state;
    }
    if (!initial.empty()) state = nn::unflatten(state, initial);
    const auto output = layer(x, state, mode, options);
    Tensors all{output.y};
    for (const Tensor& s : nn::flatten(output.state)) all.push_back(s);
    return all;
  };
}

struct Container {
  const char* name;
  std::function<Run(const Params&, Index inputs, Index units)> make;
};

template <class L, class... Options>
Container container(const char* name, const Options&... options) {
  return {name, [=](const Params& p, Index inputs, Index units) {
            return run_of(L(p, inputs, units, options...));
          }};
}

// Each with another combination of what stacks, directions and initial states can have.
const std::vector<Container>& containers() {
  static const StackOptions residual{.connection = Connection::residual};
  static const std::vector<Container> all{
      container<nn::Stacked<nn::Rnn>>(
          "residual", StackOptions{.layers = 3, .connection = Connection::residual}),
      container<nn::Stacked<nn::Gru>>(
          "highway and norm", StackOptions{.connection = Connection::highway, .layer_norm = true}),
      container<nn::Stacked<nn::Lstm>>("norm", StackOptions{.layer_norm = true}),
      container<nn::Stacked<nn::Gru, nn::Lstm, Leaky>>(
          "three types", StackOptions{.connection = Connection::residual, .layer_norm = true}),
      container<nn::Stacked<nn::Rnn, nn::Bidirectional<nn::Lstm>>>("two types"),
      container<nn::Bidirectional<nn::Stacked<nn::Lstm>>>(
          "both directions of a stack", nn::BidirectionalOptions{.merge = Merge::sum}, residual),
      container<nn::Stacked<nn::Bidirectional<nn::Gru>>>(
          "a stack of both directions", residual, nn::BidirectionalOptions{.merge = Merge::mean}),
      container<nn::Bidirectional<nn::Bidirectional<nn::Rnn>>>("nested directions"),
      container<nn::WithInitialState<nn::Lstm>>("initial state"),
      container<nn::WithInitialState<nn::Stacked<nn::Gru, nn::Lstm>>>("initial state of a stack"),
      container<nn::Bidirectional<nn::WithInitialState<nn::Stacked<Leaky>>>>(
          "initial states in both directions"),
  };
  return all;
}

// Zeros and ones at first, such as initial states and gains, would hide errors.
void disturb(const Params& params) {
  std::uint64_t seed = 50;
  for (Param p : params.list()) p.set(p.value() + Rng(seed++).normal(p.shape(), 0, 0.3, p.dtype()));
}

constexpr Index steps = 4, rows = 3, features = 2, units = 3;
Tensor draw(const Shape& shape, std::uint64_t seed) { return Rng(seed).normal(shape, 0, 1, f64); }
Tensor some_lengths() { return tensor({rows}, {3, 0, 4}, i32); }

Tensor project(const Tensors& all) {
  std::uint64_t seed = 77;
  Tensor total = scalar(0, f64);
  for (const Tensor& x : all) total = total + sum(x * draw(x.shape(), seed++));
  return total;
}

void check_same(const Tensors& a, const Tensors& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(i);
    CHECK(same_bits(a[i], b[i]));
  }
}

double difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  return max(abs(a - b)).item();
}

std::vector<std::string> names_in(const Params& params) {
  std::vector<std::string> names;
  for (const Param& p : params.list()) names.push_back(p.name());
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("containers: gradients with and without lengths, of first and second order") {
  for (const Container& c : containers())
    for (const bool padded : {false, true}) {
      CAPTURE(c.name);
      CAPTURE(padded);
      const Params params(1, f64);
      const Run run = c.make(params, features, units);
      disturb(params);
      SequenceOptions options;
      if (padded) options.lengths = some_lengths();
      const auto loss = [&](std::span<const Tensor> in) {
        return project(run(in[0], {}, options, nn::Eval{}));
      };
      for (const GradcheckOptions& how :
           {GradcheckOptions{},
            GradcheckOptions{.order = 2, .mode = GradcheckOptions::Mode::fast, .directions = 1}}) {
        const GradientReport report =
            check_gradients(loss, params, {{"x", draw({steps, rows, features}, 9)}}, how);
        CHECK_MESSAGE(report.ok, report.str());
      }
    }
}

TEST_CASE("containers: gradients of given states") {
  for (const Container& c : containers()) {
    CAPTURE(c.name);
    const Params params(2, f64);
    const Run run = c.make(params, features, units);
    disturb(params);
    const Tensor x = draw({steps, rows, features}, 9);
    const Tensors all = run(x, {}, {}, nn::Eval{});
    const std::vector<Tensor> initial(all.begin() + 1, all.end());
    const GradientReport report = check_gradients(
        [&](std::span<const Tensor> in) {
          return project(run(x, {in.begin(), in.end()}, {.lengths = some_lengths()}, nn::Eval{}));
        },
        initial, {.mode = GradcheckOptions::Mode::fast});
    CHECK_MESSAGE(report.ok, report.str());
  }
}

TEST_CASE(
    "containers: a padded batch gives what each sequence gives alone; padding has no effect") {
  for (const Container& c : containers()) {
    CAPTURE(c.name);
    const Params params(3, f64);
    const Run run = c.make(params, features, units);
    disturb(params);
    const std::vector<std::int32_t> lengths{3, 1, 4};
    const SequenceOptions options{.lengths = tensor({rows}, lengths)};
    Tensor x = draw({steps, rows, features}, 9);
    const Tensors clean = run(x, {}, options, nn::Eval{});
    for (Index row = 0; row < rows; ++row) {
      const Index length = lengths[static_cast<std::size_t>(row)];
      const Tensors alone = run(slice(slice(x, 1, row, row + 1), 0, 0, length), {}, {}, nn::Eval{});
      const Tensor ours = slice(clean[0], 1, row, row + 1);
      CHECK(same_bits(slice(ours, 0, 0, length), alone[0]));
      const Tensor padding = slice(ours, 0, length, steps);
      CHECK(same_bits(padding, zeros(padding.shape(), f64)));
      for (std::size_t i = 1; i < alone.size(); ++i)
        CHECK(same_bits(slice(clean[i], 0, row, row + 1), alone[i]));
    }
    const auto with_gradients = [&](double fill) {
      for (Index t = 0; t < steps; ++t)
        for (Index row = 0; row < rows; ++row)
          if (t >= lengths[static_cast<std::size_t>(row)])
            x.edit<double>()[static_cast<std::size_t>((t * rows + row) * features)] = fill;
      Tape tape;
      Tensors all = run(tape.watch(x), {}, options, nn::Eval{});
      const Gradients gradients = tape.gradient(project(all), params);
      for (Tensor& result : all) result = result.detach();
      gradients.each([&](const auto&, const Tensor& g) { all.push_back(g); });
      return all;
    };
    const Tensors zero = with_gradients(0);
    check_same(zero, with_gradients(std::numeric_limits<double>::quiet_NaN()));
    CHECK(same_bits(zero[0], clean[0]));
  }
}

TEST_CASE("containers: backwards is forwards over the mirror image") {
  for (const Container& c : containers()) {
    CAPTURE(c.name);
    const Params params(4, f64);
    const Run run = c.make(params, features, units);
    disturb(params);
    const Tensor x = draw({steps, rows, features}, 9);
    Tensors mirrored = run(flip(x, 0), {}, {}, nn::Eval{});
    mirrored[0] = flip(mirrored[0], 0);
    check_same(run(x, {}, {.reverse = true}, nn::Eval{}), mirrored);
  }
}

TEST_CASE("containers: in segments, and without outputs") {
  for (const Container& c : containers()) {
    CAPTURE(c.name);
    const Params params(5, f64);
    const Run run = c.make(params, features, units);
    disturb(params);
    const Tensor x = draw({steps, rows, features}, 9);
    const auto with_gradients = [&](Index segment) {
      Tape tape;
      Tensors all = run(x, {}, {.lengths = some_lengths(), .segment = segment}, nn::Eval{});
      Gradients gradients = tape.gradient(project(all), params);
      for (Tensor& result : all) result = result.detach();
      return std::pair(all, gradients);
    };
    const auto [whole, gradients] = with_gradients(0);
    const auto [parts, same] = with_gradients(3);
    check_same(whole, parts);
    for (const Param& p : params.list()) CHECK(difference(gradients[p], same[p]) <= 1e-12);
    Tensors last =
        run(x, {}, {.lengths = some_lengths(), .segment = 3, .outputs = false}, nn::Eval{});
    CHECK_FALSE(last[0].defined());
    last[0] = whole[0];
    check_same(whole, last);
  }
}

TEST_CASE("containers: bits do not depend on the number of threads") {
  for (const Container& c : containers()) {
    CAPTURE(c.name);
    const Params params(6);
    const Run run = c.make(params, 9, 12);
    disturb(params);
    const auto on = [&](int threads) {
      const testing::ThreadsScope some(threads);
      Tape tape;
      const Tensors all = run(Rng(7).normal({5, 17, 9}), {}, {}, nn::Eval{});
      const Gradients gradients = tape.gradient(sum(square(all[0])), params);
      Tensors results{all[0].detach()};
      gradients.each([&](const auto&, const Tensor& g) { results.push_back(g); });
      return results;
    };
    const Tensors expected = on(1);
    for (const int threads : {2, 3, 8}) check_same(expected, on(threads));
  }
}

TEST_CASE("containers: a saved model is the same when it is loaded") {
  const TemporaryDirectory directory;
  for (const Container& c : containers()) {
    CAPTURE(c.name);
    const Params params(7, f64), others(8, f64);
    const Run run = c.make(params, features, units), loaded = c.make(others, features, units);
    disturb(params);
    nn::save_safetensors(directory / "model", nn::from_params(params));
    nn::load_params(nn::load_safetensors(directory / "model"), others);
    const Tensor x = draw({steps, rows, features}, 9);
    check_same(run(x, {}, {}, nn::Eval{}), loaded(x, {}, {}, nn::Eval{}));
  }
}

TEST_CASE("a plain stack is its layers in order, with dropout between them") {
  const Params params(9);
  const nn::Stacked<nn::Lstm> stack(params / "rnn", 3, 4, {.layers = 2, .dropout = 0.3});
  CHECK(names_in(params) ==
        Names{"rnn.0.w_ih", "rnn.0.w_hh", "rnn.0.b", "rnn.1.w_ih", "rnn.1.w_hh", "rnn.1.b"});
  const Params same(9);
  const nn::Lstm first(same / "rnn" / "0", 3, 4), second(same / "rnn" / "1", 4, 4);
  const Tensor x = Rng(1).normal({5, 2, 3});
  Rng rng(2), by_hand(2);
  const auto output = stack(x, nn::Train{rng});
  const Tensor y = second(dropout(first(x).y, 0.3, by_hand)).y;
  CHECK(same_bits(output.y, y));
  CHECK(rng.state() == by_hand.state());
}

TEST_CASE("connections and norms are their equations") {
  for (const Connection connection : {Connection::none, Connection::residual, Connection::highway})
    for (const bool norm : {false, true}) {
      const Params params(10, f64);
      const nn::Stacked<nn::Gru> stack(
          params, 2, 3,
          {.layers = 3, .dropout = 0.4, .connection = connection, .layer_norm = norm});
      if (connection == Connection::highway)
        CHECK(params["highway1.b"].value().to_vector() == std::vector<double>(3, -1));
      disturb(params);
      const Tensor draws = draw({4, 2, 2}, 11);
      Rng rng(2), by_hand(2);
      Tensor x = stack.layers[0](draws).y;
      for (std::size_t i = 1; i < 3; ++i) {
        const auto part = [&](const char* kind, std::size_t n, const char* name) {
          return params[fmt::format("{}{}.{}", kind, n, name)];
        };
        if (norm) x = layer_norm(x, part("norm", i - 1, "gain"), part("norm", i - 1, "bias"));
        const Tensor y = stack.layers[i](dropout(x, 0.4, by_hand)).y;
        if (connection == Connection::none) x = y;
        if (connection == Connection::residual) x = y + x;
        if (connection == Connection::highway) {
          const Tensor w = part("highway", i, "w"), b = part("highway", i, "b");
          const Tensor t = sigmoid(matmul(x, w, false, true) + b);
          x = t * y + (1 - t) * x;
        }
      }
      CHECK(difference(stack(draws, nn::Train{rng}).y, x) <= 1e-14);
    }
}

TEST_CASE("parameters of stacks are named by their place") {
  const Params params(11);
  const nn::Stacked<nn::Rnn> a(params / "a", 2, 3,
                               {.connection = Connection::highway, .layer_norm = true});
  CHECK(names_in(params / "a") == Names{"a.0.w_ih", "a.0.w_hh", "a.0.b", "a.1.w_ih", "a.1.w_hh",
                                        "a.1.b", "a.norm0.gain", "a.norm0.bias", "a.highway1.w",
                                        "a.highway1.b"});
  const nn::Stacked<nn::Gru, nn::Bidirectional<nn::Rnn>> b(params / "b", 2, 3);
  CHECK(names_in(params / "b") ==
        Names{"b.0.w_ih", "b.0.w_hh", "b.0.b", "b.0.b_hn", "b.1.forward.w_ih", "b.1.forward.w_hh",
              "b.1.forward.b", "b.1.backward.w_ih", "b.1.backward.w_hh", "b.1.backward.b"});
  const nn::WithInitialState<nn::Lstm> c(params / "c", 2, 3);
  CHECK(names_in(params / "c") == Names{"c.w_ih", "c.w_hh", "c.b", "c.initial.h", "c.initial.c"});
  CHECK(params["c.initial.c"].shape() == Shape{3});
  const nn::WithInitialState<nn::Stacked<nn::Rnn>> d(params / "d", 2, 3, StackOptions{.layers = 1});
  CHECK(names_in(params / "d") == Names{"d.0.w_ih", "d.0.w_hh", "d.0.b", "d.initial.layers.0.h"});
}

TEST_CASE("layers of a stack have widths and options of their own") {
  const Params params(12);
  const nn::Stacked<nn::Lstm> one(params / "one", 2, 3, {.widths = {5, 4, 3}});
  CHECK(one.layers.size() == 3);
  CHECK(params["one.1.w_ih"].shape() == Shape{16, 5});
  CHECK(one.output_size() == 3);
  CHECK(one.input_size() == 2);
  const nn::Stacked<nn::Rnn, nn::Bidirectional<nn::Lstm>, nn::Gru> three(
      params / "three", 2, 3, {.widths = {5, 4, 3}}, nn::RnnOptions{.activation = Activation::relu},
      nn::LstmOptions{.forget_bias = 2}, nn::GruOptions{.reset = Reset::before});
  CHECK(std::get<0>(three.layers).cell.activation == Activation::relu);
  CHECK(params["three.1.backward.b"].value().at({4}) == 2);
  CHECK(params["three.2.w_ih"].shape() == Shape{9, 8});
  CHECK(std::get<2>(three.layers).cell.reset == Reset::before);
  const Tensor x = Rng(1).normal({4, 2, 2});
  CHECK(three(x).y.shape() == Shape{4, 2, 3});
  CHECK(std::get<1>(three(x).state.layers).backward.c.shape() == Shape{2, 4});
}

TEST_CASE("containers of layers that exist share their weights") {
  const Params params(13);
  const nn::Gru gru(params / "gru", 2, 3);
  const nn::Lstm lstm(params / "lstm", 3, 3);
  const Tensor x = Rng(1).normal({4, 2, 2});
  const nn::Stacked mixed(params / "mixed", {.connection = Connection::residual},
                          std::tuple(gru, lstm));
  const Tensor h = gru(x).y;
  CHECK(same_bits(mixed(x).y, lstm(h).y + h));
  const nn::Stacked tied(params / "tied", {.layer_norm = true}, std::vector{lstm, lstm, lstm});
  CHECK(names_in(params / "tied").size() == 4);
  CHECK(tied(h).state.layers.size() == 3);
  const nn::Bidirectional both(gru, gru, {.merge = Merge::sum});
  CHECK(same_bits(both(x).y, gru(x).y + gru(x, {.reverse = true}).y));
  const nn::WithInitialState started(params / "started", mixed, 2);
  CHECK(started.initial.size() == 3);
  CHECK(same_bits(started(x).y, mixed(x).y));
}

TEST_CASE("outputs of both directions are concatenated, added or averaged") {
  const Params params(14);
  const Tensor x = Rng(1).normal({4, 2, 2});
  const auto made = [&](const char* name, Merge merge) {
    return nn::Bidirectional<nn::Gru>(params / name, 2, 3, {.merge = merge});
  };
  const auto concatenated = made("concat", Merge::concat), added = made("sum", Merge::sum),
             averaged = made("mean", Merge::mean);
  const auto parts = [&](const auto& layer) {
    return std::pair(layer.forward(x).y, layer.backward(x, {.reverse = true}).y);
  };
  const auto [a, b] = parts(concatenated);
  CHECK(same_bits(concatenated(x).y, concat({a, b}, -1)));
  CHECK(concatenated.output_size() == 6);
  const auto [c, d] = parts(added);
  CHECK(same_bits(added(x).y, c + d));
  CHECK(added.output_size() == 3);
  const auto [e, f] = parts(averaged);
  CHECK(same_bits(averaged(x).y, 0.5 * (e + f)));
  CHECK(averaged.output_size() == 3);
}

TEST_CASE("a trained initial state is used where none is given") {
  const Params params(15, f64);
  const nn::WithInitialState<nn::Lstm> lstm(params, features, units);
  const Tensor x = draw({steps, rows, features}, 9);
  CHECK(same_bits(lstm(x).y, lstm.layer(x).y));  // zeros at first
  disturb(params);
  const Tensor h = broadcast_to(params["initial.h"], {rows, units}),
               c = broadcast_to(params["initial.c"], {rows, units});
  const Tensor given = draw({rows, units}, 3);
  CHECK(same_bits(lstm(x).y, lstm.layer(x, {h, c}).y));
  CHECK(same_bits(lstm(x, {{}, given}).y, lstm.layer(x, {h, given}).y));
  CHECK(same_bits(lstm(x, {given, {}}).y, lstm.layer(x, {given, c}).y));
  CHECK(same_bits(lstm(x, {given, given}).y, lstm.layer(x, {given, given}).y));
  const auto last = lstm(x, {.lengths = some_lengths()}).state;
  CHECK(same_bits(slice(last.c, 0, 1, 2), slice(c, 0, 1, 2)));  // the row without steps

  // Of stacks, parts of which may be given.
  using Layer = nn::WithInitialState<nn::Bidirectional<nn::Stacked<nn::Rnn>>>;
  const Layer both(params / "both", features, units);
  disturb(params / "both");
  const auto initial = both.completed({}, rows);
  CHECK(initial.forward.layers.size() == 2);
  Layer::State forward;
  forward.forward = initial.forward;
  CHECK(same_bits(both(x, forward).y, both(x).y));
  forward.forward.layers[1].h = given;
  auto expected = initial;
  expected.forward.layers[1].h = given;
  CHECK(same_bits(both(x, forward).y, both.layer(x, expected).y));
  forward.forward.layers.resize(3);
  CHECK(error_of<ShapeError>([&] {
          both(x, forward);
        }).starts_with("Stacked: the state has 3 layers, the stack 2 ("));
}

TEST_CASE("stacks and directions that do not fit are refused and leave nothing behind") {
  const Params params(16);
  const auto says = [&](const std::string& text, auto make, Site site = {}) {
    CHECK(error_of<ValueError>(make) == fmt::format("{} ({})", text, site.place()));
    CHECK(params.list().empty());
  };
  const Params p = params / "enc";
  using Stack = nn::Stacked<nn::Lstm>;
  using Mixed = nn::Stacked<nn::Lstm, nn::Gru>;
  const auto stack = [&](const StackOptions& options, Site site = {}) {
    Stack(nn::ModuleParams(p, site), 2, 3, options);
  };
  // clang-format off
  says("Stacked enc: 2 widths for 3 layers", [&] { stack({.layers = 3, .widths = {4, 3}}); });
  says("Stacked enc: hidden_size is 3, but the last of the widths 4; both are that of the last layer", [&] { stack({.widths = {3, 4}}); });
  says("Stacked enc: every width must be positive, not -1", [&] { stack({.widths = {-1, 3}}); });
  says("Stacked enc: layers must be positive, not 0", [&] { stack({.layers = 0}); });
  says("Stacked enc: 3 layers, but 2 types of layers", [&] { Mixed(p, 2, 3, {.layers = 3}); });
  says("Stacked enc: 1 widths for 2 layers", [&] { Mixed(p, 2, 3, {.widths = {3}}); });
  says("Dropout: the dropout rate must be in [0, 1), not 1.5", [&] { stack({.dropout = 1.5}); });
  says("Stacked enc: a residual connection needs an output of the size of the input, but layer 1 has 3 outputs and 4 inputs", [&] { stack({.widths = {4, 3}, .connection = Connection::residual}); });
  says("Stacked enc: a highway connection needs an output of the size of the input, but layer 2 has 3 outputs and 4 inputs", [&] { stack({.widths = {4, 4, 3}, .connection = Connection::highway}); });
  says("Stacked enc: layer 1 takes 5 features, but layer 0 gives 4", [&] { nn::Stacked(p, {}, std::tuple(nn::Gru(p / "0", 3, 4), nn::Lstm(p / "1", 5, 5))); });
  says("Stacked enc: the layers exist already: leave out their number and widths", [&] { nn::Stacked(p, {.layers = 1}, std::vector{nn::Gru(p / "0", 3, 4)}); });
  says("Stacked enc: there are no layers", [&] { nn::Stacked(p, {}, std::vector<nn::Gru>()); });
  says("Bidirectional: outputs of sizes 4 and 5 cannot be added", [&] { nn::Bidirectional<nn::Gru>(nn::Gru(p / "0", 3, 4), nn::Gru(p / "1", 3, 5), {.merge = Merge::mean}); });
  // clang-format on
}

TEST_CASE("a state of another batch or width is refused by the layer that it belongs to") {
  const Params params(17);
  const nn::Stacked<nn::Gru, nn::Lstm> stack(params / "rnn", 2, 3);
  const Tensor x = Rng(1).normal({4, 2, 2});
  auto state = stack(x).state;
  std::get<1>(state.layers).c = zeros({2, 4});
  CHECK(error_of<ShapeError>([&] {
          stack(x, state);
        }).starts_with("rnn.1: the state is f32 [2, 4], but has to be [2, 3] for x [4, 2, 3] ("));
  state = stack(Rng(1).normal({4, 5, 2})).state;
  CHECK(error_of<ShapeError>([&] {
          stack(x, state);
        }).starts_with("rnn.0: the state is f32 [5, 3], but has to be [2, 3] for x [4, 2, 2] ("));
}
