// Adafactor: moments that are the factors of a matrix.
#include <reel/autograd/ops.h>

#include <cmath>
#include <map>

#include "optimizers.h"
#include "temporary_directory.h"

using namespace reel;
using namespace reel::testing;

namespace {

Param create(const Params& params, std::string_view name, const Tensor& value) {
  return params.create(name, value.shape(),
                       [&](Rng&, const Shape&, DType dtype) { return value.to(dtype); });
}

Gradients gradient_of(const Params& params, const Param& param, const Tensor& gradient) {
  Gradients gradients(params);
  gradients.set(*param.entry(), gradient.to(param.dtype()));
  return gradients;
}

}  // namespace

TEST_CASE("Adafactor stores rows and columns of a matrix, and every element of a vector") {
  const Params params(0, f32);
  create(params, "a", ones({3, 7}));
  create(params, "b", ones({2, 3, 4}));
  create(params, "v", ones({5}));
  create(params, "s", ones({}));
  const nn::NamedTensors state = Adafactor(params).state();
  std::map<std::string, Shape> shapes;
  for (const auto& [name, value] : state.tensors)
    if (!contains(name, "steps")) shapes[name] = value.shape();
  CHECK(shapes == std::map<std::string, Shape>{{"adafactor.rows.a", {3, 1}},
                                               {"adafactor.columns.a", {1, 7}},
                                               {"adafactor.rows.b", {2, 3, 1}},
                                               {"adafactor.columns.b", {2, 1, 4}},
                                               {"adafactor.v.v", {5}},
                                               {"adafactor.v.s", {}}});
  nn::NamedTensors other = state;
  other.tensors["adafactor.rows.a"] = ones({3, 7});
  CHECK_THROWS_WITH_AS(Adafactor(params).restore(other),
                       doctest::Contains("adafactor: entry adafactor.rows.a of the state is f32 "
                                         "[3, 7], but has to be f32 [3, 1]"),
                       ValueError);
  other.tensors["adafactor.rows.a"] = full({3, 1}, -1);
  CHECK_THROWS_AS(Adafactor(params).restore(other), ValueError);
}

TEST_CASE("Adafactor: the matrices of a parameter with three axes are factored by themselves") {
  Rng rng(4);
  const Params params(0, f64);
  const Tensor start = rng.normal({1, 3, 4}, 0, 1, f64);
  const Param one = create(params, "one", reshape(start, {3, 4}));
  const Param two = create(params, "two", concat({start, start}, 0));
  Adafactor adafactor(params, {.learning_rate = 0.1});
  for (int step = 0; step < 3; ++step) {
    const Tensor g = rng.normal({1, 3, 4}, 0, 1, f64);
    Gradients gradients(params);
    gradients.set(*one.entry(), reshape(g, {3, 4}));
    gradients.set(*two.entry(), concat({g, g}, 0));
    adafactor.step(gradients);
  }
  const Tensor expected = reshape(one.value(), {1, 3, 4});
  CHECK(distance(two.value(), concat({expected, expected}, 0)) < 1e-14);
}

TEST_CASE("Adafactor: large gradients make a step of the usual size, or are refused by name") {
  const Params params(0, f32);
  const Param w = create(params, "w", ones({4, 64}));
  Adafactor adafactor(params, {.learning_rate = 0.5});
  adafactor.step(gradient_of(params, w, full({4, 64}, 9e18)));
  for (const double x : w.value().to_vector()) CHECK(x == doctest::Approx(0.5));

  const nn::NamedTensors before = adafactor.state();
  const std::vector<double> values = w.value().to_vector();
  Tensor g = ones({4, 64});
  g.edit<float>()[64 + 3] = 1e21f;
  CHECK_THROWS_WITH_AS(adafactor.step(gradient_of(params, w, g)),
                       doctest::Contains("adafactor: the gradient of w[1, 3] is 1e+21, with which "
                                         "adafactor.rows.w would be infinite"),
                       ValueError);
  CHECK(w.value().to_vector() == values);
  for (const auto& [name, value] : adafactor.state().tensors)
    CHECK(value.to_vector() == before[name].to_vector());
}

TEST_CASE("Adafactor: zero gradients change nothing but by weight decay") {
  const Params params(0, f32);
  const Param w = create(params, "w", ones({2, 3}));
  Adafactor adafactor(params, {.learning_rate = 0.5, .weight_decay = 0.5});
  adafactor.step(gradient_of(params, w, zeros({2, 3})));
  for (const double x : w.value().to_vector()) CHECK(x == 0.75);
}

TEST_CASE("Adafactor: options out of range and lazy rows are refused") {
  const Params params = two_parameters();
  const auto refused = [&](const AdafactorOptions& options, const char* message) {
    CHECK_THROWS_WITH_AS(Adafactor(params, options), doctest::Contains(message), ValueError);
  };
  refused({.beta2_decay = 0.1}, "adafactor: beta2_decay is 0.1, but has to be 0 or less");
  refused({.beta2_decay = not_a_number}, "adafactor: beta2_decay is nan");
  refused({.epsilon = 1e-20}, "adafactor: epsilon is 1e-20, but has to be at least 1.1e-19");
  refused({.epsilon = not_a_number}, "adafactor: epsilon is nan");
  refused({.least_size = -1}, "adafactor: least_size is -1, but has to be in [0, inf)");
  refused({.threshold = 0.5}, "adafactor: threshold is 0.5, but has to be 1 or more");
  refused({.weight_decay = -1}, "adafactor: weight_decay is -1");
  refused({.groups = {{.params = "w", .lazy_rows = true}}},
          "adafactor: lazy_rows of w is not possible: a step is of the whole matrix");
}
