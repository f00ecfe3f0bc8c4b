// States: rows selected and repeated, names, files, and those of every step.
#include <doctest/doctest.h>

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

// A user's state without names, of tensors of any rank.
struct Memory {
  Tensor cells, ages;

  template <class F>
  Memory map(F&& f) const {
    return {f(cells), f(ages)};
  }
};

using Mixed = nn::Stacked<nn::Gru, nn::Bidirectional<nn::Stacked<nn::Lstm>>>;

Mixed::State some_state(Index rows) {
  Mixed::State state;
  std::uint64_t seed = 1;
  std::get<1>(state.layers).forward.layers.resize(2);
  std::get<1>(state.layers).backward.layers.resize(2);
  return state.map([&](const Tensor&) { return Rng(seed++).normal({rows, 3}); });
}

template <class State>
void check_same(const State& a, const State& b) {
  const std::vector<Tensor> x = nn::flatten(a), y = nn::flatten(b);
  REQUIRE(x.size() == y.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    CAPTURE(i);
    REQUIRE(x[i].defined() == y[i].defined());
    if (x[i].defined()) CHECK(same_bits(x[i], y[i]));
  }
}

Tensor rows_of(std::initializer_list<std::int32_t> rows) {
  return tensor({static_cast<Index>(rows.size())}, std::span(rows.begin(), rows.size()));
}

void check_starts(const std::string& text, const std::string& start) {
  CHECK_MESSAGE(text.starts_with(start), text);
}

}  // namespace

TEST_CASE("rows of a state are selected, repeated and reordered") {
  const auto state = some_state(3);
  const auto selected = nn::select_rows(state, rows_of({2, 0, 2, 2}));
  const std::vector<Tensor> before = nn::flatten(state), after = nn::flatten(selected);
  REQUIRE(after.size() == before.size());
  for (std::size_t i = 0; i < before.size(); ++i) {
    const Tensor two = slice(before[i], 0, 2, 3);
    CHECK(same_bits(after[i], concat({two, slice(before[i], 0, 0, 1), two, two}, 0)));
  }
  CHECK(nn::flatten(nn::select_rows(state, rows_of({})))[0].shape() == Shape{0, 3});

  const Memory memory{Rng(1).normal({3, 2, 2}), arange(3)};
  const Memory chosen = nn::select_rows(memory, rows_of({1, 1}));
  const Tensor one = slice(memory.cells, 0, 1, 2);
  CHECK(same_bits(chosen.cells, concat({one, one}, 0)));
  CHECK(chosen.ages.to_vector() == std::vector<double>{1, 1});

  nn::LstmState partial{{}, ones({2, 3})};
  partial = nn::select_rows(partial, rows_of({1, 0, 1}));
  CHECK_FALSE(partial.h.defined());
  CHECK(partial.c.shape() == Shape{3, 3});
}

TEST_CASE("gradients pass through selected rows") {
  const GradientReport report = check_gradients(
      [](std::span<const Tensor> in) {
        const auto state = nn::select_rows(nn::LstmState{in[0], in[1]}, rows_of({1, 1, 2}));
        return sum(state.h * state.h * state.c);
      },
      {Rng(1).normal({3, 2}, 0, 1, f64), Rng(2).normal({3, 2}, 0, 1, f64)}, {.order = 2});
  CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE("a row that is selected continues as in its own batch") {
  const Params params(1);
  const nn::Stacked<nn::Lstm> lstm(params, 2, 3);
  const nn::Stepper step(lstm);
  const Tensor x = Rng(1).normal({5, 3, 2});
  const auto whole = lstm(x);
  const auto beams = step(x[1], nn::select_rows(whole.state, rows_of({2, 2, 0})));
  const auto rows = step(x[1], whole.state);
  const auto alone = step(slice(x[1], 0, 1, 2), nn::select_rows(whole.state, rows_of({2})));
  CHECK(same_bits(slice(beams.y, 0, 1, 2), alone.y));
  CHECK_FALSE(same_bits(beams.y, rows.y));
}

TEST_CASE("what cannot be selected") {
  const nn::LstmState state{ones({2, 3}), ones({2, 3})};
  check_starts(error_of<DTypeError>([&] { nn::select_rows(state, ones({2})); }),
               "select_rows: rows must be i32 [K], not f32 [2] (" __FILE__);
  check_starts(error_of<ShapeError>([&] {
                 nn::select_rows(state, zeros({2, 1}, i32));
               }),
               "select_rows: rows must be i32 [K], not i32 [2, 1] (");
  check_starts(error_of<ValueError>([&] { nn::select_rows(state, Tensor()); }),
               "select_rows: rows is undefined (");
  const std::string text = error_of<ValueError>([&] { nn::select_rows(state, rows_of({0, 2})); });
  CHECK(text.find("row 2 at position 1 is not among the 2 rows") != std::string::npos);
  const nn::LstmState uneven{ones({2, 3}), ones({4, 3})};
  check_starts(error_of<ShapeError>([&] { nn::select_rows(uneven, rows_of({0})); }),
               "select_rows: the tensors of a state must have the same rows, but h is f32 [2, 3] "
               "and c is f32 [4, 3] (");
  check_starts(
      error_of<ShapeError>([&] { nn::select_rows(nn::HiddenState{scalar(1)}, rows_of({0})); }),
      "select_rows: h is f32 [], but its first axis must be that of the batch (");
}

TEST_CASE("the tensors of a state have names") {
  CHECK(nn::names_of(some_state(1)) ==
        std::vector<std::string>{"layers.0.h", "layers.1.forward.layers.0.h",
                                 "layers.1.forward.layers.0.c", "layers.1.forward.layers.1.h",
                                 "layers.1.forward.layers.1.c", "layers.1.backward.layers.0.h",
                                 "layers.1.backward.layers.0.c", "layers.1.backward.layers.1.h",
                                 "layers.1.backward.layers.1.c"});
  CHECK(nn::names_of(Memory{}) == std::vector<std::string>{"0", "1"});
}

TEST_CASE("a state is saved with the parameters and loaded") {
  const TemporaryDirectory directory;
  const Params params(1);
  const Mixed layer(params / "rnn", 2, 3);
  Tape tape;
  const auto state = layer(Rng(1).normal({4, 2, 2})).state;
  nn::NamedTensors content = nn::from_params(params);
  content.insert("", nn::from_state(state));
  nn::save_safetensors(directory / "file", content);
  const nn::NamedTensors loaded = nn::load_safetensors(directory / "file");
  CHECK(loaded.tensors.contains("state.layers.1.backward.layers.0.c"));
  check_same(nn::to_state<Mixed::State>(loaded), detach(state));
  CHECK(layer(zeros({1, 2, 2}), nn::to_state<Mixed::State>(loaded)).y.shape() == Shape{1, 2, 6});
}

TEST_CASE("undefined tensors and empty stacks survive") {
  const auto check = [](const auto& state) {
    const TemporaryDirectory directory;
    nn::save_safetensors(directory / "file", nn::from_state(state, "s."));
    using State = std::remove_cvref_t<decltype(state)>;
    check_same(nn::to_state<State>(nn::load_safetensors(directory / "file"), "s."), state);
  };
  check(nn::HiddenState{});
  check(nn::LstmState{{}, ones({2, 3})});
  check(nn::Stacked<nn::Lstm>::State{});
  check(nn::Bidirectional<nn::Stacked<nn::Lstm>>::State{});
  check(Mixed::State{});
  check(Memory{ones({2, 3, 4}), {}});
  auto state = some_state(2);
  std::get<1>(state.layers).backward.layers.clear();
  std::get<1>(state.layers).forward.layers[1] = {};
  check(state);
  nn::Stacked<nn::Gru>::State many;
  for (int i = 0; i < 12; ++i) many.layers.push_back({full({1, 1}, i)});
  check(many);
}

TEST_CASE("tensors that are not a state name the one that is wrong") {
  const auto state = some_state(2);
  const nn::NamedTensors good = nn::from_state(state);
  const auto error = [&]<class E>(std::type_identity<E>, auto change,
                                  std::string_view prefix = "state.") {
    nn::NamedTensors content = good;
    change(content.tensors);
    return error_of<E>([&] { nn::to_state<Mixed::State>(content, prefix); });
  };
  const std::type_identity<ValueError> value;
  const std::type_identity<ShapeError> shape;
  const std::string name = "state.layers.1.forward.layers.0.c";
  check_starts(error(value, [&](auto& t) { t.erase(name); }), "there is no tensor " + name);
  check_starts(error(value,
                     [](auto& t) {
                       t["state.layers.2.h"] = ones({2, 3});
                     }),
               "to_state: state.layers.2.h is not a tensor of this state (" __FILE__);
  check_starts(error(shape,
                     [&](auto& t) {
                       t[name] = ones({5, 3});
                     }),
               "to_state: the tensors of a state must have the same rows, but state.layers.0.h is "
               "f32 [2, 3] and " +
                   name + " is f32 [5, 3] (" __FILE__);
  check_starts(error(shape, [&](auto& t) { t[name] = scalar(1); }),
               "to_state: " + name + " is f32 [], but its first axis must be that of the batch (");
  check_starts(error(
                   value, [](auto&) {}, "carried."),
               "to_state: no name begins with carried., so there is no state (" __FILE__);
}

TEST_CASE_TEMPLATE("the states of every step", L, nn::Rnn, nn::Lstm, nn::Unroll<nn::LstmCell>,
                   nn::WithInitialState<nn::Gru>, nn::Stacked<nn::Lstm>) {
  const Params params(2, f64);
  const L layer(params, 2, 3);
  for (Param p : params.list()) p.set(p.value() + 0.1);
  const Tensor x = Rng(1).normal({5, 3, 2}, 0, 1, f64), lengths = rows_of({5, 0, 3});
  for (const bool reverse : {false, true}) {
    const SequenceOptions options{.reverse = reverse, .lengths = lengths};
    const auto all = nn::all_states(layer, x, {}, nn::Eval{}, options);
    const auto whole = layer(x, options);
    CHECK(same_bits(all.y, whole.y));
    const std::vector<Tensor> states = nn::flatten(all.state), last = nn::flatten(whole.state);
    REQUIRE(states.size() == last.size());
    for (std::size_t i = 0; i < states.size(); ++i)
      CHECK(same_bits(select(states[i], 0, reverse ? 0 : 4), last[i]));
  }
  const auto all = nn::all_states(layer, x);
  for (Index t = 0; t < 5; ++t) {
    const std::vector<Tensor> states = nn::flatten(all.state),
                              last = nn::flatten(layer(slice(x, 0, 0, t + 1)).state);
    for (std::size_t i = 0; i < states.size(); ++i)
      CHECK(same_bits(select(states[i], 0, t), last[i]));
  }
  const GradientReport report = check_gradients(
      [&](std::span<const Tensor> in) {
        Tensor total = scalar(0, f64);
        for (const Tensor& s :
             nn::flatten(nn::all_states(layer, in[0], {}, nn::Eval{}, {.lengths = lengths}).state))
          total = total + sum(s * s);
        return total;
      },
      params, {{"x", x}}, {.mode = GradcheckOptions::Mode::fast});
  CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE("states of every step: what is refused") {
  const nn::Lstm lstm(Params(1), 2, 3);
  const Tensor x = ones({4, 2, 2});
  check_starts(
      error_of<ValueError>([&] { nn::all_states(lstm, x, {}, nn::Eval{}, {.segment = 2}); }),
      "all_states: leave out segment and outputs: everything is kept (" __FILE__);
  check_starts(error_of<ShapeError>([&] {
                 nn::all_states(lstm, zeros({0, 2, 2}));
               }),
               "all_states: x must be [T, B, D] with at least one step, not [0, 2, 2] (");
  check_starts(error_of<ShapeError>([&] { nn::all_states(lstm, x[0]); }),
               "all_states: x must be [T, B, D] with at least one step, not [2, 2] (");
}
