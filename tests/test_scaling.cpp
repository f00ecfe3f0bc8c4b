#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/init.h>
#include <reel/nn/layer_norm.h>
#include <reel/optim/clip.h>

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "optimizers.h"

// Results that are in range although intermediate squares are not, and small differences of large
// numbers.
using namespace reel;
using namespace reel::testing;

namespace {

using Values = std::vector<double>;
using doctest::Contains;

void check_close(const Tensor& x, const Values& expected) {
  const Values values = x.to_vector();
  REQUIRE(values.size() == expected.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    CAPTURE(i);
    CAPTURE(values[i]);
    CAPTURE(expected[i]);
    CHECK(std::abs(values[i] - expected[i]) <= 1e-5 * std::abs(expected[i]));
  }
}

// Value and gradient of f at numbers times `scale`, where f is homogeneous; also the gradient as
// part of a graph.
template <class F>
void check_at(DType dtype, double scale, const Values& numbers, F f, double value,
              const Values& slopes) {
  Values scaled = numbers;
  for (double& x : scaled) x *= scale;
  CAPTURE(scale);
  for (bool create_graph : {false, true}) {
    Tape tape;
    const Tensor x = tape.watch(
        tensor({static_cast<Index>(scaled.size())}, std::span<const double>(scaled), dtype));
    const Tensor y = f(x);
    check_close(y, {value * scale});
    check_close(tape.gradient(y, {x}, {.create_graph = create_graph})[0], slopes);
  }
}

template <class F>
void check_scales(const Values& numbers, F f, double value, const Values& slopes) {
  for (double scale : {1e25, 1e-25, 1e30, 1e-30, 1.0})
    check_at(f32, scale, numbers, f, value, slopes);
  for (double scale : {1e160, 1e-160, 1e250, 1e-250, 1.0})
    check_at(f64, scale, numbers, f, value, slopes);
}

}  // namespace

TEST_CASE("norm at the ends of the range") {
  check_scales({3, -4}, [](const Tensor& x) { return norm(x); }, 5, {0.6, -0.8});
  check_scales({1, 2, 3, 4},
               [](const Tensor& x) {
                 return sum(norm(reshape(x, {2, 2}), {0}));
               },
               std::sqrt(10) + std::sqrt(20),
               {1 / std::sqrt(10), 2 / std::sqrt(20), 3 / std::sqrt(10), 4 / std::sqrt(20)});
  CHECK(norm(zeros({3}, f64)).item() == 0);
  CHECK(norm(tensor({2}, {infinity, 1}, f64)).item() == infinity);
  CHECK(std::isnan(norm(tensor({2}, {not_a_number, 1}, f64)).item()));
  // A small gradient with respect to large numbers.
  Tape tape;
  const Tensor x = tape.watch(tensor({2}, {3e25, 4e25}));
  check_close(tape.gradient(norm(x), {x}, {.seed = scalar(1e-20)})[0], {0.6e-20, 0.8e-20});
}

TEST_CASE("standard deviations at the ends of the range") {
  const double root = std::sqrt(0.5);
  check_scales({1, 3}, [](const Tensor& x) { return reel::std(x, {}, false, 0); }, 1, {-0.5, 0.5});
  check_scales({1, 3}, [](const Tensor& x) { return reel::std(x, {}, false, 1); }, 2 * root,
               {-root, root});
  CHECK(reel::std(tensor({2}, {1e30, 3e30}), {}, false, 0).item() == doctest::Approx(1e30));
  CHECK(reel::std(tensor({2}, {1e-25, 3e-25}), {}, false, 0).item() == doctest::Approx(1e-25));
  CHECK(var(tensor({2}, {1e15, 3e15}), {}, false, 0).item() == doctest::Approx(1e30));
}

TEST_CASE("deviations of numbers far from zero") {
  // Their mean lies between two neighbours of f32.
  const Tensor start = tensor({2}, {16777215, 16777216});
  for (bool create_graph : {false, true}) {
    Tape tape;
    const Tensor x = tape.watch(start);
    const Tensor v = var(x, {}, false, 0), s = reel::std(x, {}, false, 0);
    check_close(v, {0.25});
    check_close(s, {0.5});
    check_close(tape.gradient(v, {x}, {.create_graph = create_graph, .keep = true})[0],
                {-0.5, 0.5});
    check_close(tape.gradient(s, {x}, {.create_graph = create_graph})[0], {-0.5, 0.5});
  }
}

TEST_CASE("layer_norm of numbers far from zero") {
  const Tensor start = tensor({2}, {16777215, 16777216});
  for (bool create_graph : {false, true}) {
    Tape tape;
    const Tensor x = tape.watch(start), gain = tape.watch(tensor({2}, {1, 2})),
                 bias = tape.watch(zeros({2}));
    const Tensor y = layer_norm(x, gain, bias);
    const double n = 0.5 / std::sqrt(0.25 + 1e-5);
    check_close(y, {-n, 2 * n});
    const auto gradients = tape.gradient(sum(y * tensor({2}, {1, 3})), {x, gain, bias},
                                         {.create_graph = create_graph});
    check_close(gradients[1], {-n, 3 * n});
    check_close(gradients[2], {1, 3});
    // With d = (1, 6): r (d - mean d - n mean(d n)), where 1 - n² = e / (0.25 + e).
    const double r = 2 * n, slope = 2.5 * r * (1 - n * n);
    const Values dx = gradients[0].to_vector();
    CHECK(dx[0] == doctest::Approx(-slope).epsilon(0.01));
    CHECK(dx[1] == doctest::Approx(slope).epsilon(0.01));
  }
  check_close(layer_norm(start, ones({2}), zeros({2})), {-0.99998, 0.99998});
}

TEST_CASE("normalisation at the ends of the range") {
  for (bool create_graph : {false, true})
    for (DType dtype : {f32, f64})
      for (double scale : {dtype == f32 ? 1e25 : 1e160, dtype == f32 ? 1e30 : 1e250}) {
        const Tensor numbers = tensor({3}, {1, 2, 6}, f64) * scale;
        Tape tape;
        const Tensor x = tape.watch(numbers.to(dtype)), gain = ones({3}, dtype);
        const Tensor y = layer_norm(x, gain, zeros({3}, dtype)), z = rms_norm(x, gain);
        const double s = std::sqrt(14.0 / 3), q = std::sqrt(41.0 / 3);
        check_close(y, {-2 / s, -1 / s, 3 / s});
        check_close(z, {1 / q, 2 / q, 6 / q});
        const GradientOptions options{.create_graph = create_graph, .keep = true};
        const Tensor seed = tensor({3}, {1, 0, 0}, f64).to(dtype);
        // dn/dx of the first: (1 - 1/3 - n² / 3) / s, and so on.
        const Tensor dy = tape.gradient(sum(y * seed), {x}, options)[0];
        check_close(dy.to(f64) * scale,
                    {(2.0 / 3 - 4 / (s * s) / 3) / s, (-1.0 / 3 - 2 / (s * s) / 3) / s,
                     (-1.0 / 3 + 6 / (s * s) / 3) / s});
        const Tensor dz = tape.gradient(sum(z * seed), {x}, options)[0];
        check_close(dz.to(f64) * scale,
                    {(1 - 1 / (q * q) / 3) / q, -2 / (q * q * q) / 3, -6 / (q * q * q) / 3});
      }
}

TEST_CASE("an epsilon that is no small number is refused") {
  const Tensor x = ones({2, 3}), gain = ones({3}), bias = zeros({3});
  for (double bad : {-1.0, not_a_number, infinity}) {
    CHECK_THROWS_AS(layer_norm(x, gain, bias, bad), ValueError);
    CHECK_THROWS_AS(rms_norm(x, gain, bad), ValueError);
    CHECK_THROWS_AS(nn::LayerNorm(Params(1), 3, bad), ValueError);
    nn::LayerNorm norm(Params(1), 3);
    norm.epsilon = bad;
    CHECK_THROWS_AS(norm(x), ValueError);
  }
  CHECK_THROWS_WITH_AS(layer_norm(x, gain, bias, -1),
                       Contains("layer_norm: epsilon is -1, but has to be a finite number >= 0"),
                       ValueError);
  for (double bad : {-1.0, not_a_number, infinity}) {
    CHECK_THROWS_AS(nn::init::uniform(bad), ValueError);
    CHECK_THROWS_AS(nn::init::normal(bad), ValueError);
  }
}

TEST_CASE("gradients are measured and clipped at the ends of the range") {
  for (DType dtype : {f32, f64})
    for (double scale :
         dtype == f32 ? Values{1e25, 1e-25, 5e37, 1e-30} : Values{1e160, 1e-160, 1e307, 1e-250}) {
      const Params params(1, dtype);
      const Param p = create(params, "p", {0, 0}), q = create(params, "q", {0});
      Gradients gradients(params);
      gradients.set(*p.entry(), (tensor({2}, {1, 2}, f64) * scale).to(dtype));
      gradients.set(*q.entry(), (tensor({1}, {2}, f64) * scale).to(dtype));
      CAPTURE(scale);
      CHECK(gradients.norm() / scale == doctest::Approx(3).epsilon(1e-5));
      CHECK(clip_by_norm(gradients, 0.3 * scale) / scale == doctest::Approx(3).epsilon(1e-5));
      CHECK(gradients.norm() / scale == doctest::Approx(0.3).epsilon(1e-5));
      if (scale > 1) {
        clip_by_norm(gradients, 1);
        CHECK(gradients.norm() == doctest::Approx(1).epsilon(1e-5));
        CHECK(gradients[q].item() == doctest::Approx(2.0 / 3).epsilon(1e-5));
      }
    }
}

TEST_CASE("a gradient that would make a moment infinite is an error before anything changes") {
  const std::vector<Make> squaring = {make<Adam>(AdamOptions{}), make<AdamW>(AdamWOptions{}),
                                      make<RmsProp>(RmsPropOptions{}),
                                      make<RmsProp>(RmsPropOptions{.momentum = 0.9})};
  for (const Make& make_optimizer : squaring)
    for (DType dtype : {f32, f64}) {
      const Params params(1, dtype);
      const Param first = create(params, "first", {1, 2}), w = create(params, "w", {3, 4, 5});
      const auto optimizer = make_optimizer(params);
      const double large = dtype == f32 ? 1e22 : 1e160;
      Gradients gradients(params);
      gradients.set(*first.entry(), ones({2}, dtype));
      gradients.set(*w.entry(), tensor({3}, {1, -large, 1}, dtype));
      const auto before = optimizer->state().tensors;
      const std::string text = error_of<ValueError>([&] { optimizer->step(gradients); });
      CHECK_MESSAGE(text.find("the gradient of w[1] is -1e+") != std::string::npos, text);
      CHECK_MESSAGE(text.find(optimizer->name() + ".v.w would be infinite") != std::string::npos,
                    text);
      CHECK(first.value().to_vector() == Values{1, 2});
      CHECK(w.value().to_vector() == Values{3, 4, 5});
      for (const auto& [name, tensor] : optimizer->state().tensors)
        CHECK(same_bits(tensor, before.at(name)));
      // Large, but no moment overflows; non-finite values propagate as usual.
      gradients.set(*w.entry(), tensor({3}, {1, dtype == f32 ? 1e19 : 1e153, 1}, dtype));
      optimizer->step(gradients);
      CHECK(std::isfinite(w.value().at({1})));
      gradients.set(*w.entry(), tensor({3}, {1, not_a_number, 1}, dtype));
      optimizer->step(gradients);
      CHECK(std::isnan(w.value().at({1})));
    }
}

TEST_CASE("momentum that overflows is an error too") {
  const Params params(1);
  const Param w = create(params, "w", {1});
  Sgd sgd(params, {.learning_rate = 1e-30, .momentum = 0.9});
  const Gradients large = gradient_of(params, w, {3e38});
  sgd.step(large);
  CHECK_THROWS_WITH_AS(sgd.step(large), Contains("sgd.m.w would be infinite"), ValueError);
  CHECK(sgd.state().tensors.at("sgd.steps.w").item() == 1);
}

TEST_CASE("weight decay of a parameter that would make a moment infinite is an error too") {
  struct Case {
    Make make_optimizer;
    double lambda, small, large;  // of f32
  };
  const Case cases[] = {
      {make<Adam>(AdamOptions{.weight_decay = 1}), 1, 1e18, 1e22},
      {make<Adam>(AdamOptions{.weight_decay = 1e-4}), 1e-4, 1e22, 1e26},
      {make<Adam>(AdamOptions{.weight_decay = 1e10}), 1e10, 1e8, 1e12},
      {make<Sgd>(SgdOptions{.momentum = 0.9, .weight_decay = 10}), 10, 1e37, 1e38},
      {make<Sgd>(SgdOptions{.momentum = 0.9, .nesterov = true, .weight_decay = 10}), 10, 1e37,
       1e38},
  };
  for (const Case& item : cases) {
    const Params params(1);
    const Param first = create(params, "first", {1, 2}), w = create(params, "w", {3, 0, 5});
    const auto optimizer = item.make_optimizer(params);
    const bool squares = optimizer->name() == "adam";
    const std::string moment = optimizer->name() + (squares ? ".v.w" : ".m.w");
    CAPTURE(optimizer->name());
    CAPTURE(item.lambda);
    const auto set_w = [&](double value) {
      Param(w).set(tensor({3}, {3, value, 5}));
      return w.value().to_vector();
    };
    Gradients gradients(params);
    gradients.set(*first.entry(), ones({2}));
    gradients.set(*w.entry(), ones({3}));
    const Values too_large = set_w(-item.large);
    const auto before = optimizer->state().tensors;
    const std::string text = error_of<ValueError>([&] { optimizer->step(gradients); });
    CHECK_MESSAGE(text.starts_with(optimizer->name() + ": the parameter w[1] is -1"), text);
    CHECK_MESSAGE(text.find(moment + " would be infinite") != std::string::npos, text);
    CHECK_MESSAGE(text.find("weight_decay") != std::string::npos, text);
    CHECK(first.value().to_vector() == Values{1, 2});
    CHECK(w.value().to_vector() == too_large);
    for (const auto& [name, tensor] : optimizer->state().tensors)
      CHECK(same_bits(tensor, before.at(name)));
    // Large, and yet no moment overflows.
    set_w(item.small);
    optimizer->step(gradients);
    for (const auto& [name, tensor] : optimizer->state().tensors)
      for (const double x : tensor.to_vector()) CHECK(std::isfinite(x));
    // What is large without a gradient is of no account, and what is not finite goes its way.
    set_w(item.large);
    optimizer->step(gradient_of(params, first, {1, 1}));
    set_w(infinity);
    CHECK_NOTHROW(optimizer->step(gradients));
  }
}

TEST_CASE("an optimizer without weight decay in its moments takes parameters of any size") {
  const Make makers[] = {make<Sgd>(SgdOptions{.weight_decay = 0.1}),
                         make<Sgd>(SgdOptions{.momentum = 0.9}), make<Adam>(AdamOptions{}),
                         make<AdamW>(AdamWOptions{.weight_decay = 0.1}),
                         make<RmsProp>(RmsPropOptions{.momentum = 0.9})};
  for (const Make& make_optimizer : makers) {
    const Params params(1);
    const Param w = create(params, "w", {1e30, -3e38});
    const auto optimizer = make_optimizer(params);
    CAPTURE(optimizer->name());
    CHECK_NOTHROW(optimizer->step(gradient_of(params, w, {1, 1})));
    CHECK(std::isfinite(w.value().at({1})));
  }
}
