#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/bidirectional.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/stacked.h>
#include <reel/nn/unroll.h>

#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "testing.h"

// Padding, in x or in the initial states of rows without steps, affects no value and no gradient:
// all are as with zeros there.
using namespace reel;
using namespace reel::testing;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr Index steps = 5, rows = 4, features = 3, units = 2;

Tensor lengths() { return tensor({rows}, {5, 2, 0, 3}, i32); }

// Random in the valid part, `padding` elsewhere, with both signs.
Tensor padded(float padding) {
  Tensor x = Rng(1).normal({steps, rows, features});
  const Tensor all = lengths();
  float* to = x.edit<float>().data();
  for (Index t = 0; t < steps; ++t)
    for (std::int32_t length : all.values<std::int32_t>())
      for (Index f = 0; f < features; ++f, ++to)
        if (t >= length) *to = f % 2 == 0 ? padding : -padding;
  return x;
}

// A state whose row without steps holds `padding`.
Tensor padded_state(float padding, const Shape& shape) {
  Tensor state = Rng(2).normal(shape);
  for (Index i = 0; i < shape[1]; ++i) state.edit<float>()[2 * shape[1] + i] = padding;
  return state;
}

// Values and gradients of everything, with respect to x, the states and the weights.
template <class L>
Tensors results(float padding, const SequenceOptions& options, bool create_graph) {
  const Params params(3);
  const L layer(params, features, units);
  const auto [unused, form] = layer(padded(0), {}, nn::Eval{}, options);
  Tape tape;
  Tensors watched{tape.watch(padded(padding))};
  // The initial state has the structure of a last one.
  const auto initial = form.map([&](const Tensor& s) {
    return watched.emplace_back(tape.watch(padded_state(padding, s.shape())));
  });
  const auto [y, last] = layer(watched[0], initial, nn::Eval{}, options);
  Tensor loss = sum(square(y));
  Tensors all{y.detach()};
  last.map([&](const Tensor& s) {
    // The last state of the row without steps is its initial state.
    const Tensor real = slice(s, 0, 3, 4);
    loss = loss + sum(square(real)) + sum(square(slice(s, 0, 0, 2)));
    all.push_back(real.detach());
    return s;
  });
  for (const Param& p : params.list()) watched.push_back(p);
  for (const Tensor& g : tape.gradient(loss, watched, {.create_graph = create_graph}))
    all.push_back(g.detach());
  return all;
}

template <class L>
void check_padding() {
  for (bool reverse : {false, true})
    for (Index segment : {0, 2})
      for (bool create_graph : {false, true}) {
        const SequenceOptions options{.reverse = reverse, .lengths = lengths(), .segment = segment};
        const Tensors zero = results<L>(0, options, create_graph);
        for (float padding : {not_a_number, infinity, 3e38f}) {
          CAPTURE(reverse);
          CAPTURE(segment);
          CAPTURE(create_graph);
          CAPTURE(padding);
          const Tensors other = results<L>(padding, options, create_graph);
          REQUIRE(other.size() == zero.size());
          for (std::size_t i = 0; i < zero.size(); ++i) {
            CAPTURE(i);
            CHECK(other[i].to_vector() == zero[i].to_vector());
          }
        }
      }
}

struct GruBefore : nn::Gru {
  GruBefore(const Params& p, Index d, Index h) : nn::Gru(p, d, h, {.reset = Reset::before}) {}
};
struct ReluRnn : nn::Rnn {
  ReluRnn(const Params& p, Index d, Index h) : nn::Rnn(p, d, h, {.activation = Activation::relu}) {}
};

}  // namespace

TEST_CASE("padding of the fused layers") {
  SUBCASE("rnn") { check_padding<nn::Rnn>(); }
  SUBCASE("rnn with relu") { check_padding<ReluRnn>(); }
  SUBCASE("gru") { check_padding<nn::Gru>(); }
  SUBCASE("gru, reset before") { check_padding<GruBefore>(); }
  SUBCASE("lstm") { check_padding<nn::Lstm>(); }
}

TEST_CASE("padding of unrolled cells") {
  SUBCASE("rnn") { check_padding<nn::Unroll<nn::RnnCell>>(); }
  SUBCASE("gru") { check_padding<nn::Unroll<nn::GruCell>>(); }
  SUBCASE("lstm") { check_padding<nn::Unroll<nn::LstmCell>>(); }
}

TEST_CASE("padding of stacks and of both directions") {
  SUBCASE("stack") { check_padding<nn::Stacked<nn::Lstm>>(); }
  SUBCASE("bidirectional") { check_padding<nn::Bidirectional<nn::Gru>>(); }
  SUBCASE("both") { check_padding<nn::Stacked<nn::Bidirectional<nn::Rnn>>>(); }
  SUBCASE("unrolled") { check_padding<nn::Stacked<nn::Bidirectional<nn::Unroll<nn::LstmCell>>>>(); }
}
