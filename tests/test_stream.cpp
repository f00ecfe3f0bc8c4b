// Streams: the bits of the layers over a sequence, one step at a time, without allocations.
#include <doctest/doctest.h>

#include <array>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <reel/autograd/kernels/flush_subnormals.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/rng.h>
#include <reel/nn/cells/full_gate_lstm.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/ind_rnn.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/mgu.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/cells/slstm.h>
#include <reel/nn/cells/unit_cell.h>
#include <reel/nn/generate/stream.h>

#include "testing.h"

using namespace reel;
using testing::error_of;
using testing::same_bits;

namespace {

// A cell as a program writes it: two sums, one of them of an operand.
struct OwnUnit {
  static constexpr const char* name = "stream_test_cell";
  static constexpr kernels::CellLayout layout{
      .sums = 2, .states = 1, .weights = 1, .recurrent = {0, 1}, .second = {1, 1}};

  static auto operand(const auto& sums, const auto& before) {
    return sigmoid(std::get<0>(sums)) * std::get<0>(before);
  }
  static auto unit(const auto& sums, const auto& before, const auto& weights) {
    const auto& h = std::get<0>(before);
    const auto z = sigmoid(std::get<0>(sums));
    return std::tuple((1 - z) * h + z * tanh(std::get<1>(sums) + std::get<0>(weights) * h));
  }
};
using OwnLayer = nn::Recurrent<nn::UnitCell<OwnUnit>>;

// The outputs of all steps, [T, 1, P].
template <Real T>
Tensor streamed(nn::Stream<T>& stream, const Tensor& x) {
  const Index steps = x.size(0), in = stream.input_size(), out = stream.output_size();
  Tensor y({steps, 1, out}, x.dtype());
  const std::span<T> to = y.edit<T>();
  const std::span<const T> from = x.values<T>();
  for (Index t = 0; t < steps; ++t)
    stream.step(from.subspan(static_cast<std::size_t>(t * in), static_cast<std::size_t>(in)),
                to.subspan(static_cast<std::size_t>(t * out), static_cast<std::size_t>(out)));
  return y;
}

// That the parts give the bits of `expected`, twice.
template <Real T, class... Parts>
void check_stream(const Tensor& x, const Tensor& expected, const Parts&... parts) {
  nn::Stream<T> stream(parts...);
  for (int time = 0; time < 2; ++time) {
    CHECK(same_bits(streamed(stream, x), expected));
    stream.reset();
  }
}

template <class L>
void check_layer(const typename L::Options& options, Index features, Index units) {
  CAPTURE(features);
  CAPTURE(units);
  const auto check = [&]<Real T>(T) {
    const Params params(7, dtype_of<T>);
    const L layer(params / "layer", features, units, options);
    const Tensor x = Rng(1).normal({5, 1, features}, 0, 1, dtype_of<T>);
    check_stream<T>(x, layer(x).y, layer);
  };
  check(float());
  check(double());
}

template <class L>
void check_sizes(const typename L::Options& options = {}) {
  for (const Index units : {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 129})
    check_layer<L>(options, 1 + units % 5, units);
  check_layer<L>(options, 300, 5);
}

}  // namespace

TEST_CASE("a stream has the bits of a layer of any cell and size") {
  const nn::CellDropout zoneout{.zoneout_h = 0.2, .zoneout_c = 0.1};
  const nn::CellDropout dropped{.input = 0.1, .hidden = 0.3, .update = 0.2, .weights = 0.2};
  SUBCASE("rnn") {
    check_sizes<nn::Rnn>();
    check_sizes<nn::Rnn>({.activation = Activation::relu});
    check_sizes<nn::Rnn>({.layer_norm = true});
    check_sizes<nn::IndRnn>();
    check_sizes<nn::IndRnn>({.activation = Activation::tanh});
    check_sizes<nn::Mgu>();
  }
  SUBCASE("gru") {
    check_sizes<nn::Gru>();
    check_sizes<nn::Gru>({.reset = Reset::before});
    check_sizes<nn::Gru>({.layer_norm = true});
    check_sizes<nn::Gru>({.dropout = {.zoneout_h = 0.5}});
    check_sizes<nn::Gru>({.dropout = dropped});
  }
  SUBCASE("lstm") {
    using enum LstmVariant;
    for (const bool peepholes : {false, true})
      for (const LstmVariant variant : {standard, coupled, no_input_gate, no_forget_gate,
                                        no_output_gate, no_input_activation, no_output_activation})
        check_sizes<nn::Lstm>({.variant = variant, .peepholes = peepholes});
    check_sizes<nn::Lstm>({.layer_norm = true});
    check_sizes<nn::Lstm>({.cell_clip = 0.1});
    check_sizes<nn::Lstm>({.dropout = zoneout});
    check_sizes<nn::Lstm>({.dropout = dropped});
    for (const Index units : {2, 9, 16, 50}) {
      check_layer<nn::Lstm>({.projection_size = 1 + units / 3}, 3, units);
      check_layer<nn::Lstm>({.projection_size = 1, .dropout = zoneout}, 3, units);
      check_layer<nn::Lstm>({.projection_size = 1, .layer_norm = true}, 3, units);
    }
  }
  SUBCASE("others") {
    for (const auto candidate :
         {nn::MinCandidate::positive, nn::MinCandidate::linear, nn::MinCandidate::tanh})
      check_sizes<nn::MinGru>({.candidate = candidate});
    check_sizes<nn::FullGateLstm>();
    check_sizes<nn::Slstm>();
    check_sizes<nn::Slstm>({.forget = ForgetGate::exponential});
    check_sizes<OwnLayer>();
  }
}

TEST_CASE("a stream adds long sums as the layers do") {
  check_layer<nn::Gru>({}, 9000, 3);
  check_layer<nn::Gru>({}, 2, 300);
  const Params params(1);
  const nn::Linear linear(params / "linear", 8200, 40);
  const Tensor x = Rng(2).normal({2, 1, 8200});
  check_stream<float>(x, linear(x), linear);
}

TEST_CASE("a stream of a whole model") {
  const Params params(1);
  const Tensor x = Rng(2).normal({7, 1, 3});
  const nn::Linear head(params / "head", 20, 5), plain(params / "plain", 5, 17, {.bias = false});
  for (const nn::Connection connection :
       {nn::Connection::none, nn::Connection::residual, nn::Connection::highway})
    for (const bool norm : {false, true}) {
      const Params own = params / fmt::format("{}{}", static_cast<int>(connection), norm);
      nn::WithInitialState<nn::Stacked<nn::Gru, nn::Lstm, nn::MinGru>> rnn(
          own, 3, 20,
          nn::StackOptions{.dropout = 0.5, .connection = connection, .layer_norm = norm});
      for (Param& p : rnn.initial) p.set(Rng(3).normal(p.shape()));
      const nn::LayerNorm last(own / "last", 5);
      check_stream<float>(x, sigmoid(plain(relu(last(tanh(head(rnn(x).y)))))), rnn, head,
                          reel::tanh, last, reel::relu, nn::Dropout(0.5), plain, reel::sigmoid);
    }
}

TEST_CASE("a stream with an embedding takes symbols") {
  const Params params(1);
  const nn::Embedding embed(params / "embed", 11, 6);
  const nn::Stacked<nn::Gru> rnn(params / "rnn", 6, 9, {.layers = 3});
  const nn::Linear head(params / "head", embed);
  const nn::Linear down(params / "down", 9, 6);
  const std::vector<std::int32_t> symbols{3, 10, 0, 7};
  const Tensor expected = head(down(rnn(embed(tensor({4, 1}, symbols))).y));
  nn::Stream stream(embed, rnn, down, head);
  CHECK(stream.input_size() == 0);
  std::vector<float> logits(11);
  for (Index t = 0; t < 4; ++t) {
    stream.step(symbols[static_cast<std::size_t>(t)], logits);
    CHECK(same_bits(tensor({1, 11}, logits), select(expected, 0, t)));
  }
}

TEST_CASE("copies of a stream and other streams run side by side") {
  const Params params(1);
  const nn::Lstm lstm(params / "lstm", 2, 24);
  const nn::Linear head(params / "head", 24, 1);
  const Tensor x = Rng(2).normal({50, 1, 2});
  const Tensor expected = head(lstm(x).y);
  const nn::Stream stream(lstm, head);
  std::array<Tensor, 4> results;
  std::vector<std::thread> threads;
  for (Tensor& y : results)
    threads.emplace_back([&] {
      nn::Stream own = stream;
      y = streamed(own, x);
    });
  for (std::thread& thread : threads) thread.join();
  for (const Tensor& y : results) CHECK(same_bits(y, expected));
}

TEST_CASE("a stream flushes subnormal numbers and leaves the caller's mode as it is") {
  const Params params(1);
  nn::Rnn rnn(params / "rnn", 1, 12, {.activation = Activation::relu});
  rnn.cell.w_hh.set(0.1 * eye(12));
  rnn.cell.b.set(zeros({12}));
  Tensor x = zeros({60, 1, 1});
  x.edit<float>()[0] = 1;
  const auto mode = kernels::float_mode();
  check_stream<float>(x, rnn(x).y, rnn);
  CHECK(kernels::float_mode() == mode);
}

TEST_CASE("parts that are no stream are refused with the reason") {
  const Params params(1), doubles(1, f64);
  const nn::Gru gru(params / "gru", 2, 8), other(doubles / "gru", 2, 8);
  const nn::Linear head(params / "head", 7, 1);
  const nn::Embedding embed(params / "embed", 5, 8);
  const auto contains = [](const std::string& message, const char* part) {
    CAPTURE(message);
    CHECK(message.find(part) != std::string::npos);
  };
  contains(error_of<ShapeError>([&] { nn::Stream(gru, head); }),
           "Stream: head takes 7 features, but what comes before it gives 8");
  contains(error_of<DTypeError>([&] { nn::Stream{other}; }),
           "Stream: gru.w_ih is f64, but this is a stream of f32 numbers; convert the parameters "
           "with to(), or make it an nn::Stream<double>");
  contains(error_of<DTypeError>([&] { nn::Stream<double>{gru}; }),
           "or make it an nn::Stream<float>");
  contains(error_of<ValueError>([&] { nn::Stream(gru, embed); }),
           "Stream: the embedding embed is not the first part");
  contains(error_of<ValueError>([&] { nn::Stream(gru, reel::exp); }), "reel::tanh, reel::sigmoid");
  contains(error_of<ValueError>([&] { nn::Stream{reel::tanh}; }), "begin with a layer");
  contains(error_of<ValueError>([&] { nn::Stream{nn::Dropout(0.5)}; }), "no part that computes");
}
