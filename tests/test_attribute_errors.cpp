// Every op with attributes refuses values out of range, before any work is done.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>
#include <string>

#include <reel/autograd/cell.h>
#include <reel/autograd/engine/op.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/recurrent.h>
#include <reel/autograd/sequence_losses.h>

#include "testing.h"

using namespace reel;

namespace {

using Call = std::function<void(const Tensor& x)>;  // of a matrix [3, 4]
using Calls = std::multimap<std::string, Call>;

// Describes a call that throws nothing, by name.
std::string fault_of(const std::string& op, const Call& call) {
  try {
    call(Rng(1).normal({3, 4}, 0, 1, f64));
  } catch (const Error& e) {
    const std::string message = e.what();
    if (message.find(op) == std::string::npos) return "does not name the op: " + message;
    if (message.find("test_attribute_errors.cpp:") == std::string::npos)
      return "does not name the call: " + message;
    return "";
  } catch (const std::exception& e) {
    return std::string("an error of the wrong type: ") + e.what();
  }
  return "no error";
}

Tensor some_indices() { return full({3, 4}, 0, i32); }

void add_axes(Calls& calls) {
  for (const int axis : {2, -3}) {
    const auto add = [&](const char* op, auto f) {
      calls.emplace(op, [axis, f](const Tensor& x) { f(x, axis); });
    };
    add("softmax", [](const Tensor& x, int a) { softmax(x, a); });
    add("log_softmax", [](const Tensor& x, int a) { log_softmax(x, a); });
    add("take_along", [](const Tensor& x, int a) { take_along(x, some_indices(), a); });
    add("scatter_along", [](const Tensor& x, int a) { scatter_along(x, some_indices(), 2, a); });
    add("cumsum", [](const Tensor& x, int a) { cumsum(x, a); });
    add("argmax", [](const Tensor& x, int a) { argmax(x, a); });
    add("argmin", [](const Tensor& x, int a) { argmin(x, a); });
    add("sort", [](const Tensor& x, int a) { sort(x, a); });
    add("argsort", [](const Tensor& x, int a) { argsort(x, a); });
    add("topk", [](const Tensor& x, int a) { topk(x, 1, a); });
    add("topk_indices", [](const Tensor& x, int a) { topk_indices(x, 1, a); });
    add("concat", [](const Tensor& x, int a) { concat({x, x}, a); });
    add("stack", [](const Tensor& x, int a) { stack({x, x}, a < 0 ? a - 1 : a + 1); });
    add("repeat", [](const Tensor& x, int a) { repeat(x, 2, a); });
    add("slice", [](const Tensor& x, int a) { slice(x, a, 0, 1); });
    add("pad", [](const Tensor& x, int a) { pad(x, a, 1, 1); });
    add("flip", [](const Tensor& x, int a) { flip(x, a); });
    add("squeeze", [](const Tensor& x, int a) { squeeze(x, a); });
    add("expand", [](const Tensor& x, int a) { expand(x, a < 0 ? a - 1 : a + 1); });
    add("permute", [](const Tensor& x, int a) { permute(x, {0, a}); });
    add("transpose", [](const Tensor& x, int a) { transpose(x, 0, a); });
    add("sum", [](const Tensor& x, int a) { sum(x, a); });
    add("mean", [](const Tensor& x, int a) { mean(x, a); });
    add("prod", [](const Tensor& x, int a) { prod(x, a); });
    add("var", [](const Tensor& x, int a) { var(x, a); });
    add("std", [](const Tensor& x, int a) { reel::std(x, a); });
    add("norm", [](const Tensor& x, int a) { norm(x, {a}); });
    add("max", [](const Tensor& x, int a) { max(x, a); });
    add("min", [](const Tensor& x, int a) { min(x, a); });
    add("logsumexp", [](const Tensor& x, int a) { logsumexp(x, a); });
    add("any", [](const Tensor& x, int a) { any(x, a); });
    add("all", [](const Tensor& x, int a) { all(x, a); });
  }
}

void add_sizes(Calls& calls) {
  const auto add = [&](const char* op, const Call& call) { calls.emplace(op, call); };
  add("reshape", [](const Tensor& x) { reshape(x, Shape{5}); });
  add("broadcast_to", [](const Tensor& x) { broadcast_to(x, {3, 5}); });
  add("sum_to", [](const Tensor& x) { sum_to(x, {2}); });
  add("permute", [](const Tensor& x) { permute(x, {0}); });
  add("permute", [](const Tensor& x) { permute(x, {1, 1}); });
  add("squeeze", [](const Tensor& x) { squeeze(x, 0); });
  add("scatter_along", [](const Tensor& x) { scatter_along(x, some_indices(), -1, 0); });
  add("scatter_along", [](const Tensor& x) { scatter_along(x, some_indices(), 0, 0); });
  add("scatter_add_rows", [](const Tensor& x) { scatter_add_rows(x, full({3}, 0, i32), -1); });
  add("scatter_add_rows", [](const Tensor& x) { scatter_add_rows(x, full({3}, 0, i32), 0); });
  add("one_hot", [](const Tensor&) { one_hot(some_indices(), -1); });
  add("one_hot", [](const Tensor&) { one_hot(some_indices(), 0); });
  add("topk", [](const Tensor& x) { topk(x, 5, 1); });
  add("topk", [](const Tensor& x) { topk(x, -1, 1); });
  add("topk_indices", [](const Tensor& x) { topk_indices(x, 5, 1); });
  add("topk_indices", [](const Tensor& x) { topk_indices(x, -1, 1); });
  add("repeat", [](const Tensor& x) { repeat(x, -1, 0); });
  add("repeat", [](const Tensor& x) { repeat(x, Shape::max_size, 0); });
  add("slice", [](const Tensor& x) { slice(x, 0, 2, 1); });
  add("slice", [](const Tensor& x) { slice(x, 0, 0, 4); });
  add("slice", [](const Tensor& x) { slice(x, 0, 0, 2, 0); });
  add("pad", [](const Tensor& x) { pad(x, 0, -1, 0); });
  add("pad", [](const Tensor& x) { pad(x, 0, 0, 0, 0); });
  add("pad", [](const Tensor& x) { pad(x, 0, Shape::max_size + 1, 0); });
  add("var", [](const Tensor& x) { var(x, 0, false, -1); });
  add("var", [](const Tensor& x) { var(x, 0, false, 3); });
  add("std", [](const Tensor& x) { reel::std(x, 0, false, 3); });
}

void add_numbers(Calls& calls) {
  const auto add = [&](const char* op, auto f, std::initializer_list<double> refused) {
    for (const double number : refused)
      calls.emplace(op, [f, number](const Tensor& x) { f(x, number); });
  };
  add("clamp", [](const Tensor& x, double a) { clamp(x, a, 1); }, {2, NAN});
  add("clamp", [](const Tensor& x, double a) { clamp(x, -1, a); }, {-2, NAN});
  add("masked_fill",
      [](const Tensor&, double a) { masked_fill(some_indices(), some_indices(), a); },
      {0.5, NAN, 1e10});
  add("dropout",
      [](const Tensor& x, double a) {
        Rng rng(1);
        dropout(x, a, rng);
      },
      {1, -0.1, NAN});
  add("huber", [](const Tensor& x, double a) { huber(x, x, a); }, {0, -1, NAN});
  add("pinball", [](const Tensor& x, double a) { pinball(x, x, a); }, {0, 1, -1, NAN});
  add("leaky_relu", [](const Tensor& x, double a) { leaky_relu(x, a); }, {NAN, INFINITY});
  add("elu", [](const Tensor& x, double a) { elu(x, a); }, {NAN, INFINITY});
  add("bce_with_logits",
      [](const Tensor& x, double a) { bce_with_logits(x, x, {.positive_weight = a}); },
      {NAN, -1, INFINITY});
  const Tensor targets = full({3}, 1, i32);
  add("cross_entropy",
      [=](const Tensor& x, double a) { cross_entropy(x, targets, {.label_smoothing = a}); },
      {-0.1, 1.1, NAN});
  add("nll", [=](const Tensor& x, double a) { nll(x, targets, {.label_smoothing = a}); },
      {-0.1, 1.1, NAN});
  add("linear_cross_entropy",
      [=](const Tensor& x, double a) {
        linear_cross_entropy(x, ones({3, x.size(-1)}, f64), {}, targets, {.label_smoothing = a});
      },
      {-0.1, 1.1, NAN});
}

void add_sequences(Calls& calls) {
  const auto add = [&](const SequenceOptions& options) {
    const auto w = [](Index rows, Index columns) { return ones({rows, columns}, f64); };
    const auto b = [](Index size) { return ones({size}, f64); };
    const auto sequence = [](const Tensor& x) { return reshape(x, Shape{3, 2, 2}); };
    calls.emplace("rnn", [=](const Tensor& x) {
      rnn(sequence(x), w(2, 2), w(2, 2), b(2), w(2, 2), Activation::tanh, options);
    });
    calls.emplace("gru", [=](const Tensor& x) {
      gru(sequence(x), w(6, 2), w(6, 2), b(6), b(2), w(2, 2), Reset::after, options);
    });
    calls.emplace("lstm", [=](const Tensor& x) {
      lstm(sequence(x), w(8, 2), w(8, 2), b(8), w(2, 2), w(2, 2), options);
    });
    for (const FusedCell& cell : {ind_rnn_cell(Activation::relu), minimal_gated_cell(),
                                  full_gate_lstm_cell(), slstm_cell(ForgetGate::sigmoid)})
      calls.emplace(cell.spec.name, [=](const Tensor& x) {
        const kernels::CellLayout& layout = cell.spec.layout;
        CellInputs in{w(2 * layout.inputs, 2), {}};
        if (layout.recurrent_blocks() > 0) in.w_hh = w(2 * layout.recurrent_blocks(), 2);
        if (layout.numbers() > 0) in.numbers = b(2 * layout.numbers());
        cell.over_sequence(cell.spec, sequence(x), {&in, 1}, options);
      });
    calls.emplace("linear_scan", [=](const Tensor& x) {
      linear_scan(sequence(x), sequence(x), w(2, 2), options);
    });
  };
  for (const Index blank : {-1, 2})
    calls.emplace("ctc_loss", [=](const Tensor& x) {
      ctc_loss(reshape(x, Shape{3, 2, 2}), full({1, 2}, 1, i32), {.blank = blank});
    });
  add({.lengths = full({2}, 4, i32)});
  add({.lengths = full({2}, -1, i32)});
  add({.segment = -1});
  add({.outputs = false});
}

Calls refused_calls() {
  Calls calls;
  add_axes(calls);
  add_sizes(calls);
  add_numbers(calls);
  add_sequences(calls);
  return calls;
}

}  // namespace

TEST_CASE("attributes out of range are refused, and the error names op and call") {
  for (const auto& refused : refused_calls()) {
    CAPTURE(refused.first);
    CHECK(fault_of(refused.first, refused.second) == "");
  }
}

TEST_CASE("every op with attributes refuses some values, or accepts all") {
  const std::set<std::string> take_all{"pow_scalar",
                                       "matmul",  // transposed or not
                                       "tril",
                                       "triu",  // diagonals outside of the matrix, too
                                       "crf_loss",
                                       "kl_div",
                                       "l1",
                                       "mse",
                                       "soft_cross_entropy",
                                       "times_log_softmax_jacobian",
                                       "times_sech_square",
                                       "layer_norm",
                                       "rms_norm",
                                       "linear_scan_gradient"};
  const Calls calls = refused_calls();
  for (const op::OpSpec* op : op::registry()) {
    if (op->attr_size == 0) continue;
    const std::string name(op->name);
    CHECK_MESSAGE(calls.contains(name) != take_all.contains(name), name);
  }
}

TEST_CASE("an attribute that is not checked is caught") {
  CHECK(fault_of("abs", [](const Tensor& x) { abs(x); }) == "no error");
  CHECK(fault_of("sum", [](const Tensor& x) { sum(x, 7); }) == "");
  CHECK(fault_of("mean", [](const Tensor& x) { sum(x, 7); }).starts_with("does not name the op"));
  CHECK(fault_of("x", [](const Tensor&) { throw Error("x"); }) == "does not name the call: x");
  CHECK(fault_of("x", [](const Tensor&) { throw std::logic_error("x"); }) ==
        "an error of the wrong type: x");
}

TEST_CASE("a threshold that is 0 in the element type is refused") {
  const Tensor x = ones({1});
  CHECK_THROWS_WITH_AS(huber(x, x, 1e-50), doctest::Contains("huber: delta 1e-50 is 0 in f32"),
                       ValueError);
  CHECK(huber(x.to(f64), zeros({1}, f64), 1e-50).item() == doctest::Approx(1e-50));
}
