#include <doctest/doctest.h>

#include <cmath>

#include <reel/autograd/functional.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/recurrent.h>
#include <reel/autograd/tape.h>
#include <reel/nn/init.h>

#include "testing.h"

using namespace reel;
using testing::error_of;

namespace {

using Inputs = std::span<const Tensor>;

std::vector<Tensor> draw(std::initializer_list<Shape> shapes, std::uint64_t seed = 1) {
  Rng rng(seed);
  std::vector<Tensor> inputs;
  for (const Shape& shape : shapes) inputs.push_back(rng.normal(shape, 0, 1, f64));
  return inputs;
}

std::vector<Tensor> draw_like(const std::vector<Tensor>& inputs, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<Tensor> result;
  for (const Tensor& x : inputs) result.push_back(rng.normal(x.shape(), 0, 1, f64));
  return result;
}

double inner(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) total += sum(a[i] * b[i]).item();
  return total;
}

void check_close(const Tensor& found, const Tensor& expected, double tolerance = 1e-12) {
  CHECK(found.shape() == expected.shape());
  REQUIRE(found.size() == expected.size());
  const auto a = found.to_vector(), b = expected.to_vector();
  for (std::size_t i = 0; i < a.size(); ++i)
    CHECK(std::abs(a[i] - b[i]) <= tolerance * std::max(1.0, std::abs(b[i])));
}

// <u, J v> computed both ways, J v against finite differences, and the value against f.
void check_products(const TensorFunction& f, const std::vector<Tensor>& x) {
  const Tensor value = f(x);
  const auto v = draw_like(x, 5);
  const Tensor u = draw_like({value}, 6)[0];
  const JvpResult forward = jvp(f, x, v);
  const VjpResult backward = vjp(f, x, u);
  check_close(forward.value, value);
  check_close(backward.value, value);
  CHECK(inner({u}, {forward.tangent}) == doctest::Approx(inner(backward.gradients, v)));
  constexpr double h = 0x1p-14;
  const auto at = [&](double distance) {
    std::vector<Tensor> moved;
    for (std::size_t i = 0; i < x.size(); ++i) moved.push_back(x[i] + distance * v[i]);
    return f(moved);
  };
  check_close(forward.tangent, (at(h) - at(-h)) / (2 * h), 1e-5);
  for (const Tensor& g : backward.gradients) CHECK(g.trace().generation == 0);
  CHECK(forward.tangent.trace().generation == 0);
}

// Hessian-vector products are symmetric, and the derivative of the gradient.
void check_hessian_products(const TensorFunction& f, const std::vector<Tensor>& x) {
  const auto v = draw_like(x, 7), w = draw_like(x, 8);
  const HvpResult along_v = hvp(f, x, v), along_w = hvp(f, x, w);
  CHECK(inner(along_v.products, w) == doctest::Approx(inner(along_w.products, v)));
  const VjpResult first = vjp(f, x, ones(along_v.value.shape(), f64));
  for (std::size_t i = 0; i < x.size(); ++i) check_close(along_v.gradients[i], first.gradients[i]);
  const TensorFunction slope = [&](Inputs in) {
    return jvp(f, std::vector<Tensor>(in.begin(), in.end()), w).tangent;
  };
  CHECK(inner(along_v.products, w) == doctest::Approx(jvp(slope, x, v).tangent.item()));
}

}  // namespace

TEST_CASE("functional: products with the Jacobian agree with each other and with differences") {
  check_products([](Inputs x) { return tanh(matmul(x[0], x[1])) * exp(x[2]); },
                 draw({{3, 4}, {4, 2}, {2}}));
  check_products(
      [](Inputs x) {
        return concat({softmax(x[0]), square(x[0])}, -1);
      },
      draw({{2, 3}}));
}

TEST_CASE("functional: through fused ops") {
  const auto layer = draw({{3, 2, 2}, {8, 2}, {8, 2}, {8}, {2, 2}, {2, 2}});
  const SequenceOptions options{.reverse = true,
                                .lengths = tensor({2}, std::vector<std::int32_t>{3, 2})};
  const TensorFunction lstm_y = [&](Inputs x) {
    return lstm(x[0], x[1], x[2], x[3], x[4], x[5], options).y;
  };
  const auto gru_inputs = draw({{3, 2, 2}, {6, 2}, {6, 2}, {6}, {2}, {2, 2}});
  const TensorFunction gru_y = [](Inputs x) {
    return gru(x[0], x[1], x[2], x[3], x[4], x[5], Reset::before).y;
  };
  const auto rnn_inputs = draw({{3, 2, 2}, {2, 2}, {2, 2}, {2}, {2, 2}});
  const TensorFunction rnn_y = [](Inputs x) { return rnn(x[0], x[1], x[2], x[3], x[4]).y; };
  const Tensor targets = tensor({3}, std::vector<std::int32_t>{0, 3, 1});
  const TensorFunction loss = [&](Inputs x) { return cross_entropy(x[0], targets); };
  const auto total = [](const TensorFunction& f) {
    return [=](Inputs x) { return sum(square(f(x))); };
  };
  SUBCASE("lstm") {
    check_products(lstm_y, layer);
    check_hessian_products(total(lstm_y), layer);
  }
  SUBCASE("gru") {
    check_products(gru_y, gru_inputs);
    check_hessian_products(total(gru_y), gru_inputs);
  }
  SUBCASE("rnn") {
    check_products(rnn_y, rnn_inputs);
    check_hessian_products(total(rnn_y), rnn_inputs);
  }
  SUBCASE("cross entropy") {
    check_products(loss, draw({{3, 4}}));
    check_hessian_products(loss, draw({{3, 4}}));
  }
}

TEST_CASE("functional: a jacobian and a hessian in closed form") {
  const Tensor x = draw({{2, 3}})[0];
  const auto numbers = x.to_vector();
  const Tensor j = jacobian([](Inputs in) { return square(in[0]); }, x);
  const Tensor h = hessian([](Inputs in) { return sum(square(in[0]) * in[0]); }, x);
  CHECK(j.shape() == Shape{6, 6});
  for (Index r = 0; r < 6; ++r)
    for (Index c = 0; c < 6; ++c) {
      const double at = numbers[static_cast<std::size_t>(r)];
      CHECK(j.at({r, c}) == doctest::Approx(r == c ? 2 * at : 0));
      CHECK(h.at({r, c}) == doctest::Approx(r == c ? 6 * at : 0));
    }

  const Tensor a = draw({{3, 2}}, 4)[0];
  const auto product = [&](Inputs in) { return matmul(a, reshape(in[0], {2, 1})); };
  check_close(jacobian(product, draw({{2}})[0]), a);
  const auto form = [&](Inputs in) { return sum(square(product(in))); };
  check_close(hessian(form, draw({{2}})[0]), 2 * matmul(a, a, true));
}

TEST_CASE("functional: rows of the matrices are the products") {
  const auto f = [](Inputs x) { return tanh(cross_entropy(x[0], zeros({2}, i32))) * x[0]; };
  const Tensor x = draw({{2, 3}})[0], v = draw({{2, 3}}, 9)[0];
  const Tensor column = reshape(v, {6, 1});
  check_close(matmul(jacobian(f, x), column), reshape(jvp(f, {x}, {v}).tangent, {6, 1}));
  const auto number = [&](Inputs in) { return sum(f(in)); };
  const Tensor h = hessian(number, x);
  check_close(matmul(h, column), reshape(hvp(number, {x}, {v}).products[0], {6, 1}));
  check_close(h, transpose(h));
}

TEST_CASE("functional: what does not depend on an input is zero") {
  const auto first = [](Inputs x) { return square(x[0]); };
  const auto x = draw({{2}, {3}}), v = draw({{2}, {3}}, 3);
  check_close(vjp(first, x, ones({2}, f64)).gradients[1], zeros({3}, f64));
  check_close(jvp(first, x, {zeros({2}, f64), v[1]}).tangent, zeros({2}, f64));

  const auto constant = [](Inputs) { return ones({2}, f64); };
  check_close(vjp(constant, x, ones({2}, f64)).gradients[0], zeros({2}, f64));
  check_close(jvp(constant, x, v).tangent, zeros({2}, f64));
  check_close(jacobian(constant, x[1]), zeros({2, 3}, f64));

  const auto linear = [](Inputs in) { return 3 * sum(in[0]); };
  check_close(hvp(linear, x, v).products[0], zeros({2}, f64));
  check_close(hvp(linear, x, v).gradients[0], full({2}, 3, f64));
  check_close(hessian(linear, x[1]), zeros({3, 3}, f64));
}

TEST_CASE("functional: empty inputs and results") {
  const auto f = [](Inputs x) { return square(x[0]); };
  const Tensor none = zeros({0, 2}, f64);
  CHECK(vjp(f, {none}, none).gradients[0].shape() == Shape{0, 2});
  CHECK(jvp(f, {none}, {none}).tangent.shape() == Shape{0, 2});
  CHECK(jacobian(f, none).shape() == Shape{0, 0});
  CHECK(jacobian([](Inputs x) { return slice(x[0], 0, 0, 0); }, ones({3}, f64)).shape() ==
        Shape{0, 3});
  CHECK(hessian([](Inputs x) { return sum(x[0]); }, none).shape() == Shape{0, 0});
}

TEST_CASE("functional: on a current tape the results can be differentiated again") {
  const auto cube = [](Inputs x) { return sum(square(x[0]) * x[0]); };
  const Tensor start = tensor({2}, {0.5, -2}, f64);
  Tape tape;
  const Tensor x = tape.watch(start);
  SUBCASE("a penalty on the gradient") {
    const VjpResult r = vjp(cube, {x}, scalar(1, f64));  // g = 3 x²
    const Tensor g = tape.gradient(r.value + sum(square(r.gradients[0])), {x})[0];
    check_close(g, 3 * square(start) + 36 * square(start) * start);
  }
  SUBCASE("a third derivative") {
    const Tensor product = hvp(cube, {x}, {ones({2}, f64)}).products[0];  // 6 x
    check_close(tape.gradient(sum(product), {x})[0], full({2}, 6, f64));
  }
  SUBCASE("a tangent") {
    const Tensor v = tape.watch(tensor({2}, {1, 3}, f64));
    const Tensor change = jvp(cube, {x}, {v}).tangent;  // Σ 3 x² v
    const auto g = tape.gradient(change, {x, v});
    check_close(g[0], 6 * start * v.detach());
    check_close(g[1], 3 * square(start));
  }
  SUBCASE("a jacobian") {
    const Tensor j = jacobian([](Inputs in) { return square(in[0]); }, x);
    check_close(tape.gradient(sum(j), {x})[0], full({2}, 2, f64));
  }
  SUBCASE("one input computed from the other is an input of its own") {
    const Tensor squared = square(x);
    const auto f = [](Inputs in) { return sum(in[0] * in[1]); };
    const VjpResult r = vjp(f, {x, squared}, scalar(1, f64));
    check_close(r.gradients[0], square(start));
    check_close(r.gradients[1], start);
    check_close(tape.gradient(r.value, {x})[0], 3 * square(start));
  }
  SUBCASE("parameters") {
    const Params params(0, f64);
    const Param w = params.create("w", {2}, nn::init::constant(2));
    const auto f = [&](Inputs in) { return sum(w * square(in[0])); };
    const Tensor g = vjp(f, {x}, scalar(1, f64)).gradients[0];  // 2 w x
    check_close(tape.gradient(sum(g), params)["w"], 2 * start);
  }
  SUBCASE("suspended, they are constants") {
    const NoRecord no_record;
    const VjpResult r = vjp(cube, {x}, scalar(1, f64));
    CHECK(r.gradients[0].trace().generation == 0);
    check_close(r.gradients[0], 3 * square(start));
    check_close(jvp(cube, {x}, {x}).tangent, 3 * sum(square(start) * start));
  }
}

TEST_CASE("functional: they leave no tape behind, even if the function throws") {
  const Tensor x = ones({2}, f64);
  CHECK_THROWS_WITH_AS(
      jacobian([](Inputs) -> Tensor { throw std::runtime_error("out of luck"); }, x), "out of luck",
      std::runtime_error);
  CHECK(Tape::current() == nullptr);
}

TEST_CASE("functional: may be checked themselves") {
  const auto f = [](Inputs x) {
    const auto cube = [](Inputs in) { return sum(square(in[0]) * in[0] * in[1]); };
    return hvp(cube, {x[0], x[1]}, {x[1], x[0]}).products[0];
  };
  const GradientReport report = check_gradients(f, draw({{3}, {3}}), {.order = 2});
  CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE("functional: bad calls say what is wrong, and where") {
  const auto f = [](Inputs x) { return square(x[0]); };
  const Tensor x = ones({2}, f64);
  const auto says = [](const std::string& message, Site site = {}) {
    return fmt::format("{} ({})", message, site.place());
  };
  // clang-format off
  CHECK(error_of<ShapeError>([&] { vjp(f, {x}, ones({3}, f64)); }) == says("vjp: the cotangent is f64 [3], but the result of the function is f64 [2]"));
  CHECK(error_of<DTypeError>([&] { vjp(f, {x}, ones({2}, f32)); }) == says("vjp: the cotangent is f32 [2], but the result of the function is f64 [2]"));
  CHECK(error_of<ValueError>([&] { vjp(f, {x}, Tensor()); }) == says("vjp: the cotangent is undefined"));
  CHECK(error_of<ShapeError>([&] { jvp(f, {x}, {}); }) == says("jvp: there are 1 inputs, but 0 tangents; give one for each"));
  CHECK(error_of<ShapeError>([&] { jvp(f, {x}, {ones({2, 1}, f64)}); }) == says("jvp: tangent 0 is f64 [2, 1], but input 0 is f64 [2]"));
  CHECK(error_of<DTypeError>([&] { hvp(f, {x}, {ones({2}, f32)}); }) == says("hvp: vector 0 is f32 [2], but input 0 is f64 [2]"));
  CHECK(error_of<ShapeError>([&] { hvp(f, {x}, {x}); }) == says("hvp: the result of the function has shape [2], not a single number; reduce it with sum() or mean()"));
  CHECK(error_of<ShapeError>([&] { hessian(f, x); }) == says("hessian: the result of the function has shape [2], not a single number; reduce it with sum() or mean()"));
  CHECK(error_of<DTypeError>([&] { jacobian(f, ones({2}, i32)); }) == says("jacobian: input 0 is i32, and integers have no derivative"));
  CHECK(error_of<ValueError>([&] { vjp(f, {Tensor()}, x); }) == says("vjp: input 0 is undefined"));
  CHECK(error_of<DTypeError>([&] { jacobian([](Inputs in) { return in[0] > 0.0; }, x); }) == says("jacobian: the result of the function is i32, and integers have no derivative"));
  // clang-format on
  // The line within the function, and the call.
  const std::string inside =
      error_of<ShapeError>([&] { vjp([](Inputs in) { return in[0] + ones({3}, f64); }, {x}, x); });
  CHECK(inside.find("called at " __FILE__ ":") == std::string::npos);  // the same line
  CHECK(inside.find("(" __FILE__ ":") != std::string::npos);
}
