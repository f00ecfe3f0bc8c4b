// The evals of whole arrays.
#include <reel/autograd/functional.h>
#include <reel/autograd/ops.h>

#include <numeric>
#include <utility>
#include <vector>

#include "evals.h"

using namespace reel;

namespace gradbench {

Tensor vector_of(const Json& numbers) {
  const auto values = numbers.get<std::vector<double>>();
  return tensor({std::ssize(values)}, values, f64);
}

Tensor matrix_of(const Json& rows) {
  std::vector<double> values;
  for (const Json& row : rows)
    for (const Json& x : row) values.push_back(x);
  const Index count = std::ssize(rows);
  return tensor({count, count == 0 ? 0 : std::ssize(values) / count}, values, f64);
}

Json to_json(const Tensor& x) {
  if (x.rank() == 0) return x.item();
  Json list = Json::array();
  if (x.rank() == 1)
    for (const double value : x.values<double>()) list.push_back(value);
  else
    for (Index i = 0; i < x.size(0); ++i) list.push_back(to_json(select(x, 0, i)));
  return list;
}

Json first_to_json(const Tensors& outputs) { return to_json(outputs[0]); }

namespace {

using Inputs = std::span<const Tensor>;

// A function of one tensor that returns a number: itself, and its gradient. `made` gives the
// function and the tensor.
template <class F>
Module number_and_gradient(const char* number, F made) {
  const auto value = [made](const Json& input) {
    const auto function = made(input);
    return Prepared{[function] { return Tensors{function.first(Inputs(&function.second, 1))}; },
                    first_to_json};
  };
  const auto gradient = [made](const Json& input) {
    const auto function = made(input);
    return Prepared{[function] {
                      const Tensor one = scalar(1, f64);
                      return Tensors{vjp(function.first, {function.second}, one).gradients[0]};
                    },
                    first_to_json};
  };
  return {{number, value}, {"gradient", gradient}};
}

// The powers 0 to count - 1 of each element of t [N], a matrix [N, count], doubling their number.
Tensor powers(const Tensor& t, Index count) {
  const Tensor column = expand(t, 1);
  Tensor all = full({t.size(), 1}, 1, f64), next = column;  // next: the power `all.size(1)`
  while (all.size(1) < count) {
    all = concat({all, all * next}, 1);
    next = square(next);
  }
  return slice(all, 1, 0, count);
}

// Four stages of the method of Runge and Kutta for y₀' = x₀, yᵢ' = xᵢ yᵢ₋₁, y(0) = 0, up to t = 2.
Tensor integrate(const Tensor& x, Index steps) {
  const double h = 2.0 / static_cast<double>(steps);
  const Index n = x.size();
  const Tensor one = full({1}, 1, f64);
  const auto slope = [&](const Tensor& y) { return x * concat({one, slice(y, 0, 0, n - 1)}, 0); };
  Tensor y = zeros({n}, f64);
  for (Index i = 0; i < steps; ++i) {
    const Tensor k1 = slope(y), k2 = slope(y + h / 2 * k1), k3 = slope(y + h / 2 * k2),
                 k4 = slope(y + h * k3);
    y = y + h / 6 * (k1 + 2 * (k2 + k3) + k4);
  }
  return y;
}

// Σ |p - c|² over the points p, where c is the centroid next to p.
Tensor cost(const Tensor& points, const Tensor& centroids) {
  const Tensor c = centroids.detach();
  const Tensor nearest = argmin(affine(points, -2 * c, sum(square(c), 1)), 1);
  return sum(square(gather_rows(centroids, nearest) - points));
}

}  // namespace

Module lse() {
  return number_and_gradient("primal", [](const Json& input) {
    return std::pair([](Inputs x) { return logsumexp(x[0]); }, vector_of(input.at("x")));
  });
}

Module llsq() {
  return number_and_gradient("primal", [](const Json& input) {
    const Tensor x = vector_of(input.at("x"));
    const Index n = input.at("n"), m = x.size();
    const auto f = [n, m](Inputs in) {
      const Tensor t = arange(n).to(f64) * (2.0 / static_cast<double>(n - 1)) - 1;
      return 0.5 * sum(square(expand(sign(t), 1) - matmul(powers(t, m), expand(in[0], 1))));
    };
    return std::pair(f, x);
  });
}

Module kmeans() {
  const auto made = [](const Json& input, bool direction) {
    const Tensor points = matrix_of(input.at("points"));
    const Tensor centroids = matrix_of(input.at("centroids"));
    const auto f = [points](Inputs in) { return cost(points, in[0]); };
    if (!direction)
      return Prepared{[=] { return Tensors{cost(points, centroids)}; }, first_to_json};
    const Tensor ones = full(centroids.shape(), 1, f64);
    return Prepared{[=] {
                      // The Hessian is diagonal, so its product with ones has the diagonal.
                      const HvpResult result = hvp(f, {centroids}, {ones});
                      return Tensors{result.gradients[0] / result.products[0]};
                    },
                    first_to_json};
  };
  return {{"cost", [made](const Json& input) { return made(input, false); }},
          {"dir", [made](const Json& input) { return made(input, true); }}};
}

Module ode() {
  const auto made = [](const Json& input, bool gradient) {
    const Tensor x = vector_of(input.at("x"));
    const Index steps = input.at("s");
    if (!gradient) return Prepared{[=] { return Tensors{integrate(x, steps)}; }, first_to_json};
    const Tensor last = pad(full({1}, 1, f64), 0, x.size() - 1, 0);
    const auto f = [steps](Inputs in) { return integrate(in[0], steps); };
    return Prepared{[=] { return Tensors{vjp(f, {x}, last).gradients[0]}; }, first_to_json};
  };
  return {{"primal", [made](const Json& input) { return made(input, false); }},
          {"gradient", [made](const Json& input) { return made(input, true); }}};
}

}  // namespace gradbench
