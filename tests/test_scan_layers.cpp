// The layers on linear_scan: MinGru, MinLstm, RgLru, Sru, Qrnn.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/bidirectional.h>
#include <reel/nn/cells/min_gru.h>
#include <reel/nn/cells/min_lstm.h>
#include <reel/nn/cells/qrnn.h>
#include <reel/nn/cells/rg_lru.h>
#include <reel/nn/cells/sru.h>
#include <reel/nn/stacked.h>

#include "testing.h"

using namespace reel;
using testing::error_of;
using testing::same_bits;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
using Vector = std::vector<double>;
using Place = std::size_t;

double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

double candidate_of(double p, nn::MinCandidate candidate) {
  if (candidate == nn::MinCandidate::linear) return p;
  if (candidate == nn::MinCandidate::tanh) return std::tanh(p);
  return p >= 0 ? p + 0.5 : sigmoid_of(p);
}

// The layers with their options, and each one's step in plain doubles: `p` has the products of the
// rows of w_ih with the input, without biases, `b` and `c` the biases and the state, one unit after
// the other; it returns the output.
struct OneStep {
  const Params& params;
  Index units;

  // Element j of block k of a parameter.
  double bias(Index k, Place j, const char* name = "b") const {
    return params[name].value().to_vector()[static_cast<Place>(k * units) + j];
  }
};

template <nn::MinCandidate kind>
struct MinGru : nn::MinGru {
  static constexpr bool wide = false;
  MinGru(const Params& p, Index d, Index h) : nn::MinGru(p, d, h, {.candidate = kind}) {}

  static double step(const OneStep& s, Place j, const Vector& p, double, double& h) {
    const double z = sigmoid_of(p[0] + s.bias(0, j));
    return h = (1 - z) * h + z * candidate_of(p[1] + s.bias(1, j), kind);
  }
};

template <bool normal, nn::MinCandidate kind>
struct MinLstm : nn::MinLstm {
  static constexpr bool wide = false;
  MinLstm(const Params& p, Index d, Index h)
      : nn::MinLstm(p, d, h, {.normalise = normal, .candidate = kind}) {}

  static double step(const OneStep& s, Place j, const Vector& p, double, double& h) {
    const double i = sigmoid_of(p[0] + s.bias(0, j)), f = sigmoid_of(p[1] + s.bias(1, j));
    const double total = normal ? f + i : 1;
    return h = f / total * h + i / total * candidate_of(p[2] + s.bias(2, j), kind);
  }
};

struct RgLru : nn::RgLru {
  static constexpr bool wide = false;
  RgLru(const Params& p, Index d, Index h) : nn::RgLru(p, d, h) {}

  static double step(const OneStep& s, Place j, const Vector& p, double x, double& h) {
    const double r = sigmoid_of(p[0] + s.bias(0, j)), i = sigmoid_of(p[1] + s.bias(1, j));
    const double base = 1 / (1 + std::exp(s.bias(0, j, "lambda")));  // exp(-softplus)
    const double a = std::pow(base, 8 * r);
    return h = a * h + std::sqrt(1 - a * a) * (i * (p.size() == 3 ? p[2] : x));
  }
};

struct Sru : nn::Sru {
  static constexpr bool wide = false;
  Sru(const Params& p, Index d, Index h)
      : nn::Sru(p, d, h, {.bias_init = [](Rng& rng, const Shape& shape, DType dtype) {
                  return rng.normal(shape, 0, 1, dtype);
                }}) {}

  static double step(const OneStep& s, Place j, const Vector& p, double x, double& c) {
    const double f = sigmoid_of(p[1] + s.bias(0, j)), r = sigmoid_of(p[2] + s.bias(1, j));
    c = f * c + (1 - f) * p[0];
    return r * c + (1 - r) * (p.size() == 4 ? p[3] : x);
  }
};

template <int width, nn::Pooling pool>
struct Qrnn : nn::Qrnn {
  static constexpr bool wide = width == 2;
  Qrnn(const Params& p, Index d, Index h) : nn::Qrnn(p, d, h, {.window = width, .pooling = pool}) {}

  static double step(const OneStep& s, Place j, const Vector& p, double, double& c) {
    const auto gate = [&](Index k) { return sigmoid_of(p[static_cast<Place>(k)] + s.bias(k, j)); };
    const double z = std::tanh(p[0] + s.bias(0, j)), f = gate(1);
    c = f * c + (pool == nn::Pooling::ifo ? gate(3) : 1 - f) * z;
    return pool == nn::Pooling::f ? c : gate(2) * c;
  }
};

using Layers =
    std::tuple<MinGru<nn::MinCandidate::positive>, MinGru<nn::MinCandidate::linear>,
               MinGru<nn::MinCandidate::tanh>, MinLstm<true, nn::MinCandidate::positive>,
               MinLstm<false, nn::MinCandidate::tanh>, RgLru, Sru, Qrnn<1, nn::Pooling::f>,
               Qrnn<2, nn::Pooling::f>, Qrnn<2, nn::Pooling::fo>, Qrnn<1, nn::Pooling::ifo>,
               Qrnn<2, nn::Pooling::ifo>>;

// Calls f.operator()<L>() for each of them.
template <class F>
void each_layer(F f) {
  const auto call = [&]<class L>() {
    CAPTURE(L::name);
    f.template operator()<L>();
  };
  [&]<class... L>(const std::tuple<L...>*) {
    (call.template operator()<L>(), ...);
  }(static_cast<const Layers*>(nullptr));
}

constexpr Index steps = 5, rows = 4, units = 3;
const std::vector<Index> row_lengths{5, 2, 0, 3};

Tensor draw(const Shape& shape, std::uint64_t seed, DType dtype = f64) {
  return Rng(seed).normal(shape, 0, 1, dtype);
}

Tensor lengths() { return tensor({rows}, {5, 2, 0, 3}, i32); }

// A state with all tensors drawn.
template <class L>
typename L::State drawn_state(const L& layer, Index features, Index count = rows) {
  std::uint64_t seed = 20;
  return layer(draw({1, count, features}, 5)).state.map([&](const Tensor& s) {
    return draw(s.shape(), ++seed);
  });
}

Tensor padded(double padding, Index features, DType dtype = f64) {
  Tensor x = draw({steps, rows, features}, 1);
  double* to = x.edit<double>().data();
  for (Index t = 0; t < steps; ++t)
    for (const Index length : row_lengths)
      for (Index f = 0; f < features; ++f, ++to)
        if (t >= length) *to = padding;
  return x.to(dtype);
}

Tensor part(const Tensor& x, Index row, Index length) {
  return slice(slice(x, 1, row, row + 1), 0, 0, length);
}

// Values, and gradients with respect to x, the state and the parameters, of first or second order.
template <class L>
std::vector<Tensor> results(const L& layer, const Params& params, const Tensor& input,
                            const SequenceOptions& options, int order) {
  Tape tape;
  Tensors watched{tape.watch(input)};
  const auto initial = drawn_state(layer, input.size(2)).map([&](const Tensor& s) {
    return watched.emplace_back(tape.watch(s.to(input.dtype())));
  });
  const auto [y, last] = layer(watched[0], initial, nn::Eval{}, options);
  std::vector<Tensor> all{y.detach()};
  Tensor loss = sum(square(y));
  for (const Tensor& s : nn::flatten(last)) {
    all.push_back(s.detach());
    loss = loss + sum(square(s));
  }
  for (const Param& p : params.list()) watched.push_back(p);
  auto gradients = tape.gradient(loss, watched, {.create_graph = order == 2, .keep = true});
  if (order == 2) {
    Tensor again = scalar(0, input.dtype());
    for (const Tensor& g : gradients) again = again + sum(square(g));
    gradients = tape.gradient(again, watched);
  }
  for (const Tensor& g : gradients) all.push_back(g.detach());
  return all;
}

}  // namespace

TEST_CASE("layers on a scan: values are those of plain loops") {
  each_layer([]<class L>() {
    for (const Index features : {Index{2}, units})
      for (const bool reverse : {false, true}) {
        const Params params(3, f64);
        const L layer(params, features, units);
        const auto initial = drawn_state(layer, features);
        const std::vector<Tensor> states = nn::flatten(initial);
        const Tensor x = padded(not_a_number, features);
        const auto [y, last] =
            layer(x, initial, SequenceOptions{.reverse = reverse, .lengths = lengths()});
        const Vector numbers = x.to_vector(), w = params["w_ih"].value().to_vector();
        const Place width = w.size() / static_cast<Place>(params["w_ih"].shape()[0]);
        const Index blocks = params["w_ih"].shape()[0] / units;
        Vector expected(static_cast<Place>(y.size())), c = states[0].to_vector();
        for (Index row = 0; row < rows; ++row) {
          const auto step_of_x = [&](Index t) {
            const auto from = numbers.begin() + (t * rows + row) * features;
            return Vector(from, from + features);
          };
          Vector before(static_cast<Place>(features));
          if (states.size() > 1) {
            const Vector all = states[1].to_vector();
            before.assign(all.begin() + row * features, all.begin() + (row + 1) * features);
          }
          const Index length = row_lengths[static_cast<Place>(row)];
          for (Index s = 0; s < length; ++s) {
            const Index t = reverse ? length - 1 - s : s;
            const Vector now = step_of_x(t);
            Vector input = L::wide ? before : Vector{};
            input.insert(input.end(), now.begin(), now.end());
            REQUIRE(input.size() == width);
            for (Place j = 0; j < static_cast<Place>(units); ++j) {
              Vector p(static_cast<Place>(blocks));
              for (Place k = 0; k < p.size(); ++k)
                for (Place i = 0; i < width; ++i)
                  p[k] += w[(k * static_cast<Place>(units) + j) * width + i] * input[i];
              const double own = features == units ? now[j] : not_a_number;
              expected[static_cast<Place>((t * rows + row) * units) + j] =
                  L::step({params, units}, j, p, own, c[static_cast<Place>(row * units) + j]);
            }
            before = now;
          }
        }
        const Vector got = y.to_vector(), got_state = nn::flatten(last)[0].to_vector();
        for (Place i = 0; i < got.size(); ++i)
          CHECK(got[i] == doctest::Approx(expected[i]).epsilon(1e-12));
        for (Place i = 0; i < c.size(); ++i)
          CHECK(got_state[i] == doctest::Approx(c[i]).epsilon(1e-12));
      }
  });
}

TEST_CASE("layers on a scan: gradients to the second order") {
  each_layer([]<class L>() {
    for (const Index features : {Index{2}, units})
      for (const bool reverse : {false, true}) {
        if (testing::sanitized && reverse != (features == units)) continue;
        const Params params(4, f64);
        const L layer(params, features, units);
        const auto form = drawn_state(layer, features);
        std::vector<Tensor> inputs{draw({3, 3, features}, 1)};
        for (const Tensor& s : nn::flatten(drawn_state(layer, features, 3))) inputs.push_back(s);
        const auto f = [&](std::span<const Tensor> in) {
          const auto [y, last] =
              layer(in[0], nn::unflatten(form, in.subspan(1)),
                    SequenceOptions{.reverse = reverse, .lengths = tensor({3}, {3, 0, 2}, i32)});
          Tensor loss = sum(square(y));
          for (const Tensor& s : nn::flatten(last)) loss = loss + sum(tanh(s));
          return loss;
        };
        std::vector<NamedInput> named{{"x", inputs[0]}};
        for (std::size_t i = 1; i < inputs.size(); ++i)
          named.push_back({"state" + std::to_string(i), inputs[i]});
        const auto report = check_gradients(f, params, named, {.order = 2});
        CHECK_MESSAGE(report.ok, report.str());
      }
  });
}

TEST_CASE("layers on a scan: padding has no effect, in segments neither") {
  each_layer([]<class L>() {
    const Params params(3, f64);
    const L layer(params, 2, units);
    for (const bool reverse : {false, true})
      for (const int order : {1, 2}) {
        const SequenceOptions options{.reverse = reverse, .lengths = lengths()};
        const auto expected = results(layer, params, padded(0, 2), options, order);
        for (const double padding :
             {not_a_number, std::numeric_limits<double>::infinity(), 1e300}) {
          const auto got = results(layer, params, padded(padding, 2), options, order);
          for (std::size_t i = 0; i < got.size(); ++i) {
            CAPTURE(i);
            CHECK(got[i].to_vector() == expected[i].to_vector());
          }
        }
        for (const Index segment : {1, 2, 9}) {
          SequenceOptions within = options;
          within.segment = segment;
          const auto got = results(layer, params, padded(not_a_number, 2), within, order);
          const std::size_t values = 1 + nn::flatten(drawn_state(layer, 2)).size();
          for (std::size_t i = 0; i < got.size(); ++i) {
            CAPTURE(i);
            if (i < values) CHECK(same_bits(got[i], expected[i]));
            CHECK(max(abs(got[i] - expected[i])).item() <= 1e-11);
          }
        }
      }
  });
}

TEST_CASE("layers on a scan: a row of a batch, and one step at a time") {
  each_layer([]<class L>() {
    const Params params(3);
    const L layer(params, 2, units);
    const auto initial =
        drawn_state(L(Params(3, f64), 2, units), 2).map([](const Tensor& s) { return s.to(f32); });
    const Tensor x = padded(7, 2, f32);
    for (const bool reverse : {false, true}) {
      const auto [y, last] =
          layer(x, initial, SequenceOptions{.reverse = reverse, .lengths = lengths()});
      for (Index row = 0; row < rows; ++row) {
        const Index length = row_lengths[static_cast<std::size_t>(row)];
        const auto own = [&](const Tensor& s) { return slice(s, 0, row, row + 1); };
        const auto expected = nn::flatten(last.map(own));
        auto state = initial.map(own);
        if (length > 0) {
          const auto alone = layer(part(x, row, length), state, {.reverse = reverse});
          CHECK(same_bits(alone.y, part(y, row, length)));
          for (std::size_t i = 0; i < expected.size(); ++i)
            CHECK(same_bits(nn::flatten(alone.state)[i], expected[i]));
        }
        for (Index s = 0; s < length; ++s) {
          const Index t = reverse ? length - 1 - s : s;
          const auto step = layer(slice(part(x, row, length), 0, t, t + 1), state,
                                  SequenceOptions{.reverse = reverse});
          CHECK(same_bits(step.y, slice(part(y, row, length), 0, t, t + 1)));
          // Through the tensors of a checkpoint.
          state = nn::unflatten(step.state, nn::flatten(nn::detach(step.state)));
        }
        for (std::size_t i = 0; i < expected.size(); ++i)
          CHECK(same_bits(nn::flatten(state)[i], expected[i]));
      }
    }
  });
}

TEST_CASE("layers on a scan: the same bits for any number of threads") {
  each_layer([]<class L>() {
    const Params params(3);
    const L layer(params, 16, 96);
    const Tensor x = draw({60, 24, 16}, 1, f32);
    std::vector<Tensor> expected;
    for (const int count : {1, 2, 3, 8}) {
      const testing::ThreadsScope scope(count);
      Tape tape;
      const Tensor input = tape.watch(x);
      const Tensor y = layer(input).y;
      std::vector<Tensor> watched{input};
      for (const Param& p : params.list()) watched.push_back(p);
      std::vector<Tensor> got{y.detach()};
      for (const Tensor& g : tape.gradient(mean(square(y)), watched)) got.push_back(g.detach());
      if (expected.empty()) expected = got;
      for (std::size_t i = 0; i < got.size(); ++i) CHECK(same_bits(got[i], expected[i]));
    }
  });
}

TEST_CASE("layers on a scan: stacks in both directions") {
  each_layer([]<class L>() {
    const Params params(3, f64);
    const nn::Stacked<nn::Bidirectional<L>> layers(params / "rnn", 2, units, {.layers = 2});
    CHECK(layers.output_size() == 2 * units);
    const Tensor x = padded(not_a_number, 2);
    const auto [y, state] = layers(x, {.lengths = lengths()});
    CHECK(y.shape() == Shape{steps, rows, 2 * units});
    const L& forward = layers.layers[0].forward;
    const L& backward = layers.layers[0].backward;
    const Tensor below = concat({forward(x, {.lengths = lengths()}).y,
                                 backward(x, {.reverse = true, .lengths = lengths()}).y},
                                -1);
    CHECK(same_bits(y, layers.layers[1](below, {.lengths = lengths()}).y));
    const auto again = layers(x, state, {.lengths = lengths()});
    CHECK(max(abs(again.y - y)).item() > 0);
  });
}

TEST_CASE("layers on a scan: numbers of parameters") {
  const auto count = [](auto make) {
    const Params params(1);
    make(params);
    return params.count();
  };
  for (const Index d : {5, 4}) {
    const Index h = d == 5 ? 3 : 4;
    CHECK(count([&](const Params& p) { nn::MinGru(p, d, h); }) == 2 * h * (d + 1));
    CHECK(count([&](const Params& p) { nn::MinLstm(p, d, h); }) == 3 * h * (d + 1));
    const Index extra = d == h ? 0 : h * d;
    CHECK(count([&](const Params& p) { nn::RgLru(p, d, h); }) == 2 * h * (d + 1) + h + extra);
    CHECK(count([&](const Params& p) { nn::Sru(p, d, h); }) == 3 * h * d + 2 * h + extra);
    for (const int window : {1, 2})
      for (const auto pooling : {nn::Pooling::f, nn::Pooling::fo, nn::Pooling::ifo}) {
        const Index gates = 2 + static_cast<Index>(pooling);
        CHECK(count([&](const Params& p) {
                nn::Qrnn(p, d, h, {.window = window, .pooling = pooling});
              }) == gates * h * (window * d + 1));
      }
  }
}

TEST_CASE("MinLstm: quotients of gates that are both 0 in f32") {
  const Params params(1);
  const nn::MinLstm layer(params, 1, 1, {.candidate = nn::MinCandidate::linear});
  Param w = params["w_ih"], b = params["b"];
  w.set(zeros({3, 1}));
  // σ(-200) = e^-200 and σ(-201) = e^-201 are below the smallest number.
  b.set(tensor({3}, {-201, -200, 1}));
  const double f = 1 / (1 + std::exp(-1.0));
  const Tensor h = layer(zeros({1, 1, 1}), {full({1, 1}, 2)}).y;
  CHECK(h.item() == doctest::Approx(f * 2 + (1 - f)).epsilon(1e-6));
}

TEST_CASE("RgLru: decays are drawn from [0.9, 0.999), and √(1 - a²) is accurate near 1") {
  const Params params(1);
  const nn::RgLru layer(params, 4, 2000);
  double lowest = 1, highest = 0, total = 0;
  for (const double lambda : params["lambda"].value().to_vector()) {
    const double decay = std::exp(-8 * std::log1p(std::exp(lambda)));
    lowest = std::min(lowest, decay);
    highest = std::max(highest, decay);
    total += decay;
  }
  CHECK(lowest >= 0.9 - 1e-6);
  CHECK(lowest < 0.901);
  CHECK(highest < 0.999 + 1e-6);
  CHECK(highest > 0.998);
  CHECK(total / 2000 == doctest::Approx(0.9495).epsilon(0.005));

  const Params small(2);
  const nn::RgLru unit(small, 1, 1);
  Param w = small["w_ih"], b = small["b"], lambda = small["lambda"];
  w.set(zeros({2, 1}));
  lambda.set(full({1}, -3));
  b.set(tensor({2}, {-15, 0}));  // r = σ(-15): 1 - a rounds to 0 or one unit in f32
  const double log_a = -8 * std::log1p(std::exp(-3.0)) / (1 + std::exp(15.0));
  CHECK(unit(ones({1, 1, 1})).y.item() ==
        doctest::Approx(std::sqrt(-std::expm1(2 * log_a)) / 2).epsilon(1e-5));
  // Where r is 0 in f32 nothing enters, and gradients are finite.
  b.set(tensor({2}, {-200, 0}));
  Tape tape;
  const Tensor y = unit(ones({1, 1, 1})).y;
  CHECK(std::abs(y.item()) < 1e-14);
  for (const Tensor& g : tape.gradient(sum(y), std::vector<Tensor>{b, w, lambda}))
    for (const double number : g.to_vector()) CHECK(std::isfinite(number));
}

TEST_CASE("layers on a scan: errors name the layer and the remedy") {
  const Params params(1);
  const nn::MinGru layer(params / "rnn", 2, 3);
  CHECK(error_of<ShapeError>([&] {
          layer(zeros({4, 1, 5}));
        }).find("MinGru rnn: x is f32 [4, 1, 5], but its last axis must have 2 elements") == 0);
  CHECK(error_of<ShapeError>([&] {
          layer(zeros({0, 1, 2}));
        }).find("MinGru: the sequence has no steps; x is f32 [0, 1, 2]") == 0);
  CHECK(error_of<ValueError>([&] { layer(Tensor()); }).find("MinGru: x is undefined") == 0);
  CHECK(error_of<ShapeError>([&] {
          layer(zeros({4, 1, 2}), {zeros({2, 3})});
        }).find("rnn: the state is f32 [2, 3], but has to be [1, 3] for x [4, 1, 2]") == 0);
  const nn::Qrnn window(params / "qrnn", 2, 3);
  CHECK(error_of<ShapeError>([&] {
          window(zeros({4, 1, 2}), {{}, zeros({1, 3})});
        }).find("qrnn: the state is f32 [1, 3], but has to be [1, 2] for x [4, 1, 2]") == 0);
  CHECK(error_of<ValueError>([&] {
          nn::MinLstm(params / "a", 0, 3);
        }).find("MinLstm a: input_size must be positive, not 0") == 0);
  CHECK(error_of<ValueError>([&] {
          nn::Sru(params / "s", 1, -1);
        }).find("Sru s: hidden_size must be positive, not -1") == 0);
  CHECK(error_of<ValueError>([&] {
          nn::Qrnn(params / "q", 1, 1, {.window = 3});
        }).find("Qrnn q: the window must be 1 or 2, not 3") == 0);
  CHECK(error_of<ValueError>([&] {
          layer(zeros({4, 1, 2}), {.segment = -1});
        }).find("MinGru: a segment of -1 steps") == 0);
}
