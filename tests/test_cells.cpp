// The cells and their options: parameters, and the layer, its cell step by step, and the stepper as
// three ways to the same numbers.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/check/op_case.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/params.h>
#include <reel/autograd/rng.h>
#include <reel/autograd/tape.h>
#include <reel/autograd/unit_cell.h>
#include <reel/nn/cells/full_gate_lstm.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/ind_rnn.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/mgu.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/cells/slstm.h>
#include <reel/nn/generate/stepper.h>
#include <reel/nn/unroll.h>

#include "testing.h"

using namespace reel;
using testing::same_bits;

namespace {

constexpr Index features = 3, units = 4;

Index parameter_count(const Params& params) {
  Index count = 0;
  for (const Param& p : params.list()) count += p.value().size();
  return count;
}

struct LstmKind {
  LstmVariant variant;
  bool peepholes;
  Index gates;
};

std::vector<LstmKind> lstm_kinds() {
  using enum LstmVariant;
  std::vector<LstmKind> kinds;
  for (const bool peepholes : {false, true}) {
    for (const LstmVariant all : {standard, no_input_activation, no_output_activation})
      kinds.push_back({all, peepholes, 4});
    for (const LstmVariant three : {coupled, no_input_gate, no_forget_gate, no_output_gate})
      kinds.push_back({three, peepholes, 3});
  }
  return kinds;
}

// Texts that the derivation cannot serve: a sum in two nonlinearities, and one that nothing reads.
struct TwoWays {
  static constexpr kernels::CellLayout layout{.sums = 2, .states = 1};
  static auto unit(const auto& sums, const auto&) {
    const auto& [a, b] = sums;
    return std::tuple(sigmoid(a) * tanh(b) + tanh(a));
  }
};
struct Unread {
  static constexpr kernels::CellLayout layout{.sums = 2, .states = 1};
  static auto unit(const auto& sums, const auto&) { return std::tuple(tanh(std::get<0>(sums))); }
};

template <class C>
std::string refusal() {
  const CellSpec cell = cell_spec<C>("mine");
  const CellSpec* const cells[] = {&cell};
  return testing::error_of<ValueError>([&] { op::RecurrentOp("misused_cell", cells); });
}

template <class L>
void check_three_ways(const Params& params, const typename L::Options& options) {
  const L layer(params / "layer", features, units, options);
  const nn::Unroll<decltype(layer.cell)> unrolled(layer.cell);
  const Tensor x = Rng(1).normal({5, 2, features}, 0, 1, params.list()[0].dtype());
  const Tensor lengths = tensor({2}, {3, 5}, i32);
  const auto a = layer(x, {.lengths = lengths}), b = unrolled(x, {.lengths = lengths});
  CHECK(op::detail::relative_difference(a.y, b.y) < 1e-6);
  const auto states = nn::flatten(a.state), expected = nn::flatten(b.state);
  for (std::size_t k = 0; k < states.size(); ++k)
    CHECK(op::detail::relative_difference(states[k], expected[k]) < 1e-6);

  const nn::Stepper step(layer);
  const Tensor y = layer(x).y;
  typename L::State state;
  for (Index t = 0; t < 5; ++t) {
    auto [out, next] = step(select(x, 0, t), state);
    CHECK(same_bits(out, select(y, 0, t)));
    state = next;
  }
}

}  // namespace

TEST_CASE("parameters by formula: G H (D + H + 1), peepholes, the second bias of a GRU") {
  const auto count = [](auto make) {
    const Params params(1);
    make(params);
    return parameter_count(params);
  };
  for (const auto& sizes : std::vector<std::pair<Index, Index>>{{3, 4}, {4, 4}, {1, 5}}) {
    const Index d = sizes.first, h = sizes.second;
    const Index one = h * (d + h + 1);
    CHECK(count([&](const Params& p) { nn::Rnn(p, d, h); }) == one);
    CHECK(count([&](const Params& p) { nn::Gru(p, d, h); }) == 3 * one + h);
    CHECK(count([&](const Params& p) { nn::GruCell(p, d, h, {.reset = Reset::before}); }) ==
          3 * one + h);
    CHECK(count([&](const Params& p) { nn::Lstm(p, d, h); }) == 4 * one);
    CHECK(count([&](const Params& p) { nn::Unroll<nn::LstmCell>(p, d, h); }) == 4 * one);
    CHECK(count([&](const Params& p) { nn::Mgu(p, d, h); }) == 2 * one);
    CHECK(count([&](const Params& p) { nn::IndRnn(p, d, h); }) == h * (d + 2));
    CHECK(count([&](const Params& p) { nn::Slstm(p, d, h); }) == 4 * one);
    CHECK(count([&](const Params& p) { nn::FullGateLstm(p, d, h); }) ==
          4 * one + 9 * h * h + 3 * h);
    CHECK(count([&](const Params& p) { nn::Rnn(p, d, h, {.layer_norm = true}); }) == one + 2 * h);
    CHECK(count([&](const Params& p) { nn::Gru(p, d, h, {.layer_norm = true}); }) ==
          3 * one + h + 6 * h);
    CHECK(count([&](const Params& p) { nn::Lstm(p, d, h, {.layer_norm = true}); }) ==
          4 * one + 10 * h);
    CHECK(count([&](const Params& p) { nn::Lstm(p, d, h, {.projection_size = 2}); }) ==
          4 * h * (d + 2 + 1) + 2 * h);
    for (const LstmKind& kind : lstm_kinds()) {
      const nn::LstmOptions options{.variant = kind.variant, .peepholes = kind.peepholes};
      CHECK(count([&](const Params& p) { nn::Lstm(p, d, h, options); }) ==
            kind.gates * one + (kind.peepholes ? (kind.gates - 1) * h : 0));
    }
  }
}

TEST_CASE("a GRU has three times the weights and biases of an RNN, an LSTM four times") {
  const Params params(1);
  const nn::Rnn rnn(params / "rnn", features, units);
  const nn::Gru gru(params / "gru", features, units);
  const nn::Lstm lstm(params / "lstm", features, units);
  const auto size = [](const auto& layer) {
    const auto& cell = layer.cell;
    return cell.w_ih.shape().size() + cell.w_hh.shape().size() + cell.b.shape().size();
  };
  CHECK(size(gru) == 3 * size(rnn));
  CHECK(size(lstm) == 4 * size(rnn));
}

TEST_CASE("an LSTM of any variant is its cell step by step, and its stepper") {
  for (const LstmKind& kind : lstm_kinds()) {
    CAPTURE(static_cast<int>(kind.variant));
    CAPTURE(kind.peepholes);
    const nn::LstmOptions options{.variant = kind.variant, .peepholes = kind.peepholes};
    check_three_ways<nn::Lstm>(Params(2), options);
    check_three_ways<nn::Lstm>(Params(2, f64), options);
  }
}

TEST_CASE("the other cells and options are their cells step by step, and their steppers") {
  for (const DType dtype : {f32, f64}) {
    check_three_ways<nn::Rnn>(Params(2, dtype), {.layer_norm = true});
    check_three_ways<nn::Rnn>(
        Params(2, dtype),
        {.activation = Activation::relu, .identity_start = true, .dropout = {.zoneout_h = 0.3}});
    check_three_ways<nn::Gru>(Params(2, dtype), {.layer_norm = true});
    check_three_ways<nn::Gru>(Params(2, dtype), {.dropout = {.update = 0.2, .zoneout_h = 0.3}});
    check_three_ways<nn::Mgu>(Params(2, dtype), {});
    check_three_ways<nn::IndRnn>(Params(2, dtype), {});
    check_three_ways<nn::FullGateLstm>(Params(2, dtype), {});
    check_three_ways<nn::Slstm>(Params(2, dtype), {});
    check_three_ways<nn::Slstm>(Params(2, dtype), {.forget = ForgetGate::exponential});
    check_three_ways<nn::Lstm>(Params(2, dtype), {.projection_size = 2});
    check_three_ways<nn::Lstm>(Params(2, dtype), {.cell_clip = 0.2});
    check_three_ways<nn::Lstm>(Params(2, dtype), {.layer_norm = true});
    check_three_ways<nn::Lstm>(Params(2, dtype), {.projection_size = 2,
                                                  .layer_norm = true,
                                                  .dropout = {.zoneout_h = 0.1, .zoneout_c = 0.2}});
  }
}

TEST_CASE("an sLSTM's h is that of the equations without a stabiliser") {
  for (const ForgetGate forget : {ForgetGate::sigmoid, ForgetGate::exponential}) {
    const Params params(2, f64);
    const nn::Slstm layer(params, features, units, {.forget = forget});
    const Tensor x = Rng(1).normal({5, 2, features}, 0, 1, f64);
    const Tensor y = layer(x).y;
    Tensor h = zeros({2, units}, f64), c = h, n = h;
    for (Index t = 0; t < 5; ++t) {
      const Tensor p = affine(select(x, 0, t), layer.cell.w_ih, layer.cell.b);
      const Tensors sums = split(p + matmul(h, layer.cell.w_hh, false, true), 4, -1);
      const Tensor i = exp(sums[0]);
      const Tensor f = forget == ForgetGate::sigmoid ? sigmoid(sums[1]) : exp(sums[1]);
      c = f * c + i * tanh(sums[2]);
      n = f * n + i;
      h = sigmoid(sums[3]) * c / n;
      CHECK(op::detail::relative_difference(h, select(y, 0, t)) < 1e-12);
    }
  }
}

TEST_CASE("an sLSTM does not overflow where its exponentials would") {
  const Params params(2);
  nn::Slstm layer(params, features, units, {.forget = ForgetGate::exponential});
  layer.cell.b.set(full({4 * units}, 200));
  const auto [y, state] = layer(Rng(1).normal({50, 2, features}));
  CHECK(std::ranges::all_of(y.to_vector(), [](double v) { return std::isfinite(v); }));
  layer.cell.b.set(full({4 * units}, -200));
  CHECK(std::ranges::all_of(layer(Rng(1).normal({50, 2, features})).y.to_vector(),
                            [](double v) { return std::isfinite(v); }));
}

TEST_CASE("gradients of every variant of the LSTM, to second order") {
  for (const LstmKind& kind : lstm_kinds()) {
    CAPTURE(static_cast<int>(kind.variant));
    const Params params(3, f64);
    const nn::Lstm layer(params, 2, 3, {.variant = kind.variant, .peepholes = kind.peepholes});
    const Tensor x = Rng(4).normal({4, 3, 2}, 0, 1, f64), lengths = tensor({3}, {2, 4, 1}, i32);
    const auto loss = [&] {
      const auto [y, last] = layer(x, {.lengths = lengths});
      return sum(square(y)) + sum(last.c * last.h);
    };
    CHECK(check_gradients(loss, params, {.mode = GradcheckOptions::Mode::fast}).ok);
    // The gradient of a gradient's norm is a second derivative.
    const auto norm = [&] {
      const TapeScope outside(nullptr);
      Tape tape;
      const Gradients g = tape.gradient(loss(), params, {.create_graph = true});
      Tensor sum_of_squares = scalar(0, f64);
      for (const Param& p : params.list()) sum_of_squares = sum_of_squares + sum(square(g[p]));
      return std::pair(sum_of_squares.item(), tape.gradient(sum_of_squares, params));
    };
    const auto [value, gradient] = norm();
    const Param w = layer.cell.w_hh;
    constexpr double h = 1e-5;
    const Tensor start = w.value().copy();
    const auto moved = [&](double by) {
      Param moving = w;
      Tensor to = start.copy();
      to.edit<double>()[1] += by;
      moving.set(to);
      return norm().first;
    };
    const double difference = (moved(h) - moved(-h)) / (2 * h);
    CHECK(gradient[w].to_vector()[1] ==
          doctest::Approx(difference).epsilon(1e-6 + 1e-9 * std::abs(value)));
  }
}

TEST_CASE("the forget gate's bias is set where the variant has that gate") {
  using enum LstmVariant;
  const auto ones_at = [](LstmVariant variant) {
    const Params params(5);
    const nn::Lstm layer(params, features, units, {.variant = variant});
    std::vector<Index> places;
    const auto b = layer.cell.b.value().to_vector();
    for (Index k = 0; k < std::ssize(b); k += units)
      if (b[static_cast<std::size_t>(k)] == 1 && b[static_cast<std::size_t>(k + units - 1)] == 1)
        places.push_back(k / units);
    return places;
  };
  CHECK(ones_at(standard) == std::vector<Index>{1});
  CHECK(ones_at(no_input_gate) == std::vector<Index>{0});
  CHECK(ones_at(no_output_gate) == std::vector<Index>{1});
  CHECK(ones_at(no_forget_gate).empty());
  CHECK(ones_at(coupled).empty());
}

TEST_CASE("a layout that speaks of sums or states that there are not does not compile") {
  using Layout = kernels::CellLayout;
  CHECK(Layout{.sums = 4, .states = 2, .projects = true}.is_consistent());
  CHECK_FALSE(Layout{.sums = 9, .states = 1}.is_consistent());
  CHECK_FALSE(Layout{.sums = 4, .states = 6}.is_consistent());
  CHECK_FALSE(Layout{.sums = 4, .states = 1, .inputs = 5}.is_consistent());
  CHECK_FALSE(Layout{.sums = 4, .states = 1, .inputs = 2, .input = {1, 1}}.is_consistent());
  CHECK_FALSE(Layout{.sums = 4, .states = 1, .inputs = 1, .input = {4}}.is_consistent());
  CHECK_FALSE(Layout{.sums = 4, .states = 1, .recurrent = {1, 4}}.is_consistent());
  CHECK_FALSE(Layout{.sums = 4, .states = 1, .second = {-1, 1}}.is_consistent());
  CHECK_FALSE(Layout{.sums = 4, .states = 2, .read = {0, 2}, .read_by = {0, 1}}.is_consistent());
  CHECK_FALSE(Layout{.sums = 4, .states = 2, .read = {1, 2}, .read_by = {0, 1}}.is_consistent());
  CHECK_FALSE(
      Layout{.sums = 2, .states = 1, .recurrent = {0, 1}, .second = {1, 1}, .projects = true}
          .is_consistent());
}

TEST_CASE("a cell whose text uses a sum in two ways, or not at all, is refused") {
  CHECK(refusal<TwoWays>().starts_with("mine: sum 0 has to go through one sigmoid or tanh"));
  CHECK(refusal<Unread>().starts_with("mine: sum 1 has to go through one sigmoid or tanh"));
}

namespace {

// The names of a cell's gates in the order of the blocks of w_ih.
std::vector<std::string> gates_of(const CellSpec& cell) {
  std::vector<std::string> names;
  for (int block = 0; block < cell.layout.inputs; ++block)
    names.emplace_back(
        cell.layout
            .gates[static_cast<std::size_t>(cell.layout.input[static_cast<std::size_t>(block)])]);
  return names;
}

}  // namespace

TEST_CASE("the gates of a cell have the names of its parameters' blocks") {
  const Params params(1, f64);
  const nn::Gru after(params / "after", 2, 3),
      before(params / "before", 2, 3, {.reset = Reset::before});
  CHECK(gates_of(after.cell.fused().spec) == after.cell.b.entry()->blocks);
  CHECK(gates_of(before.cell.fused().spec) == before.cell.b.entry()->blocks);
  using enum LstmVariant;
  for (const LstmVariant variant : {standard, coupled, no_input_gate, no_forget_gate,
                                    no_output_gate, no_input_activation, no_output_activation})
    for (const bool peepholes : {false, true}) {
      const Params own(1, f64);
      const nn::Lstm lstm(own, 2, 3, {.variant = variant, .peepholes = peepholes});
      CHECK(gates_of(lstm.cell.fused().spec) == lstm.cell.b.entry()->blocks);
    }
}

TEST_CASE("a cell knows what its sums keep, and which gate forgets") {
  using enum kernels::GateForm;
  const auto forms = [](const CellSpec& cell) {
    std::vector<kernels::GateForm> all;
    for (int sum = 0; sum < cell.layout.sums; ++sum) all.push_back(cell.form(sum));
    return all;
  };
  const auto forget = [](const CellSpec& cell) {
    const int sum = cell.layout.forget;
    return std::string(sum < 0 ? "" : cell.layout.gates[static_cast<std::size_t>(sum)]);
  };
  using Forms = std::vector<kernels::GateForm>;
  CHECK(forms(rnn_cell(Activation::tanh).spec) == Forms{tanh});
  CHECK(forms(rnn_cell(Activation::relu).spec) == Forms{number});
  CHECK(forms(gru_cell(Reset::after).spec) == Forms{tanh, sigmoid, sigmoid, number});
  CHECK(forms(gru_cell(Reset::before).spec) == Forms{sigmoid, sigmoid, tanh});
  CHECK(forms(lstm_cell().spec) == Forms{sigmoid, sigmoid, tanh, sigmoid});
  CHECK(forms(lstm_cell(LstmVariant::no_input_activation, true).spec) ==
        Forms{sigmoid, sigmoid, number, sigmoid});
  CHECK(forget(rnn_cell(Activation::tanh).spec).empty());
  CHECK(forget(gru_cell(Reset::after).spec) == "update");
  CHECK(forget(gru_cell(Reset::before).spec) == "update");
  CHECK(forget(lstm_cell().spec) == "forget");
  CHECK(forget(lstm_cell(LstmVariant::coupled).spec) == "input");
  CHECK(lstm_cell(LstmVariant::coupled).spec.layout.forget_is_complement);
  CHECK(forget(lstm_cell(LstmVariant::no_forget_gate).spec).empty());
}
