#include "mutations.h"

#include <algorithm>
#include <cmath>

namespace reel::testing {
using namespace op;
namespace {

// The attribute of all these ops.
struct Is {
  bool wrong;
};

constexpr auto first_shape = [](const Arguments& in) -> Shape { return in[0]; };
constexpr auto one_number = [](const Arguments&) -> Shape { return {}; };

template <class T, class F>
void map(Ctx<T> c, F f) {
  std::ranges::transform(c.in(0), c.out().begin(), f);
}
template <class T, class F>
void map2(Ctx<T> c, F f) {
  std::ranges::transform(c.in(0), c.in(1), c.out().begin(), f);
}

const auto multiply = []<Real T>(Ctx<T> c) { map2(c, [](T a, T b) { return a * b; }); };
const auto two = with_inputs(normal({3, 4}), normal({3, 4}));

using D = Definition<Is>;

std::vector<D> definitions_of_two_operands() {
  return {
      D{"mul: wrong sign",
        {"a", "b"},
        first_shape,
        multiply,
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] { return v.g() * v.in(1); });
              v.add(1, [&] { return (is.wrong ? -1.0 : 1.0) * (v.g() * v.in(0)); });
            },
            keeps_inputs),
        {two}},
      D{"mul: missing term",
        {"a", "b"},
        first_shape,
        multiply,
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] { return v.g() * v.in(1); });
              if (!is.wrong) v.add(1, [&] { return v.g() * v.in(0); });
            },
            keeps_inputs),
        {two}},
      D{"sub: sign of the second operand",
        {"a", "b"},
        first_shape,
        []<Real T>(Ctx<T> c) { map2(c, [](T a, T b) { return a - b; }); },
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] { return v.g(); });
              v.add(1, [&] { return is.wrong ? v.g() : -v.g(); });
            },
            keeps_nothing),
        {two}},
      D{"div: the denominator is not squared",
        {"a", "b"},
        first_shape,
        []<Real T>(Ctx<T> c) { map2(c, [](T a, T b) { return a / b; }); },
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] { return v.g() / v.in(1); });
              v.add(1, [&] { return -(v.g() * v.in(0) / (is.wrong ? v.in(1) : square(v.in(1)))); });
            },
            keeps_inputs),
        {with_inputs(normal({3, 4}), away_from_zero({3, 4}))}},
      D{"matmul: wrong transpose",
        {"a", "b"},
        first_shape,
        []<Real T>(Ctx<T> c) {
          const Index n = c.shape(0)[0];
          for (Index i = 0; i < n; ++i)
            for (Index j = 0; j < n; ++j) {
              T sum = 0;
              for (Index k = 0; k < n; ++k) sum += c.in(0)[i * n + k] * c.in(1)[k * n + j];
              c.out()[i * n + j] = sum;
            }
        },
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] { return matmul(v.g(), v.in(1), false, !is.wrong); });
              v.add(1, [&] { return matmul(v.in(0), v.g(), true, false); });
            },
            keeps_inputs),
        {with_inputs(normal({3, 3}), normal({3, 3}))}},
      D{"add: missing broadcast sum",
        {"a", "b"},
        first_shape,
        []<Real T>(Ctx<T> c) {
          for (std::size_t i = 0; i < c.out().size(); ++i)
            c.out()[i] = c.in(0)[i] + c.in(1)[i % c.in(1).size()];
        },
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] { return v.g(); });
              v.add(1, [&] { return is.wrong ? select(v.g(), 0, 0) : v.g(); });
            },
            keeps_nothing),
        {with_inputs(normal({3, 4}), normal({4}))}},
      D{"gather: repeated rows are overwritten, not added",
        {"table", integer("rows")},
        [](const Arguments& in) -> Shape {
          return {in[1][0], in[0][1]};
        },
        []<Real T>(Ctx<T> c) {
          const Index features = c.shape(0)[1];
          for (Index r = 0; r < c.shape(1)[0]; ++r)
            std::copy_n(c.in(0).begin() + c.indices(1)[static_cast<std::size_t>(r)] * features,
                        features, c.out().begin() + r * features);
        },
        fused(
            []<Real T>(BackwardCtx<T> c, Is is) {
              const Index features = c.shape(0)[1];
              std::fill_n(c.grad(0), c.shape(0).size(), T(0));
              for (Index r = 0; r < c.shape(1)[0]; ++r)
                for (Index f = 0; f < features; ++f) {
                  T& to = c.grad(0)[c.indices(1)[r] * features + f];
                  to = (is.wrong ? 0 : to) + c.g()[r * features + f];
                }
            },
            [](std::span<const Tensor> in) -> Tensors { return {gather_rows(in[0], in[1])}; }),
        {with_inputs(normal({3, 2}), indices({7}, 3))}},
  };
}

std::vector<D> definitions_of_one_operand() {
  const auto fold = []<Real T>(Ctx<T> c) {
    c.out()[0] = 0;
    for (T x : c.in(0)) c.out()[0] += x / static_cast<T>(c.in(0).size());
  };
  return {
      D{"mean: 1/n forgotten",
        {"x"},
        one_number,
        fold,
        rule(
            [](Vjp& v, Is is) {
              const double n = is.wrong ? 1 : static_cast<double>(v.shape().size());
              v.add(0, [&] { return broadcast_to(v.g() / n, v.shape()); });
            },
            keeps_nothing),
        {normal({3, 4})}},
      D{"softmax: without the sum term",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) {
          T sum = 0;
          for (T x : c.in(0)) sum += std::exp(x);
          map(c, [=](T x) { return std::exp(x) / sum; });
        },
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] {
                const Tensor gy = v.g() * v.out();
                return is.wrong ? gy : gy - v.out() * sum(gy);
              });
            },
            keeps_output),
        {normal({5})}},
      D{"logsumexp: uniform in place of softmax",
        {"x"},
        one_number,
        []<Real T>(Ctx<T> c) {
          T sum = 0;
          for (T x : c.in(0)) sum += std::exp(x);
          c.out()[0] = std::log(sum);
        },
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] {
                return v.g() * (is.wrong ? full(v.shape(), 0.2, v.g().dtype()) : softmax(v.in()));
              });
            },
            keeps_inputs),
        {normal({5})}},
      D{"clip: treated as identity",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::clamp(x, T(-0.5), T(0.5)); }); },
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] {
                const Tensor inside = (0.5 - abs(v.in().detach()) > 0.0).to(v.g().dtype());
                return is.wrong ? v.g() : v.g() * inside;
              });
            },
            keeps_inputs),
        {normal({3, 4})}},
      D{"max: equal elements all get the whole gradient",
        {"x"},
        one_number,
        []<Real T>(Ctx<T> c) { c.out()[0] = std::ranges::max(c.in(0)); },
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] {
                const Tensor largest = equal(v.in().detach(), v.out().detach()).to(v.g().dtype());
                return v.g() * (is.wrong ? largest : largest / sum(largest));
              });
            },
            keeps_all),
        {values({1, 3, 2, 3})}},
      D{"tanh: y in place of y²",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::tanh(x); }); },
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] { return v.g() * (1 - (is.wrong ? v.out() : square(v.out()))); });
            },
            keeps_output),
        {normal({3, 4})}},
      D{"sigmoid: 1 - y forgotten",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) { map(c, [](T x) { return 1 / (1 + std::exp(-x)); }); },
        rule(
            [](Vjp& v, Is is) {
              v.add(0,
                    [&] { return is.wrong ? v.g() * v.out() : v.g() * (v.out() * (1 - v.out())); });
            },
            keeps_output),
        {normal({3, 4})}},
      D{"relu: passes everything",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::max(x, T(0)); }); },
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] {
                const Tensor active = (v.out().detach() > 0.0).to(v.g().dtype());
                return is.wrong ? v.g() : v.g() * active;
              });
            },
            keeps_output),
        {away_from_zero({3, 4})}},
      D{"sqrt: divides by x, not by its root",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::sqrt(x); }); },
        rule([](Vjp& v,
                Is is) { v.add(0, [&] { return 0.5 * v.g() / (is.wrong ? v.in() : v.out()); }); },
             keeps_all),
        {positive({3, 4})}},
      D{"transpose: the gradient is not transposed",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) {
          const Index n = c.shape(0)[0];
          for (Index i = 0; i < n * n; ++i) c.out()[i] = c.in(0)[i % n * n + i / n];
        },
        rule([](Vjp& v, Is is) { v.add(0, [&] { return is.wrong ? v.g() : transpose(v.g()); }); },
             keeps_nothing),
        {normal({3, 3})}},
      D{"cumsum: the gradient sums forwards",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) {
          T sum = 0;
          map(c, [&](T x) { return sum += x; });
        },
        fused(
            []<Real T>(BackwardCtx<T> c, Is is) {
              const Index n = c.shape(0).size();
              T sum = 0;
              for (Index s = 0; s < n; ++s) {
                const Index i = is.wrong ? s : n - 1 - s;
                c.grad(0)[i] = sum += c.g()[i];
              }
            },
            [](std::span<const Tensor> in) -> Tensors {
              std::vector<Tensor> sums{select(in[0], 0, 0)};
              for (Index i = 1; i < in[0].size(); ++i)
                sums.push_back(sums.back() + select(in[0], 0, i));
              return {stack(sums)};
            }),
        {normal({6})}},
      D{"square: off by a factor of 1.001",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) { map(c, [](T x) { return x * x; }); },
        rule([](Vjp& v,
                Is is) { v.add(0, [&] { return (is.wrong ? 2.002 : 2.0) * (v.g() * v.in()); }); },
             keeps_inputs),
        {normal({3, 4})}},
      D{"square: one element of 300 off by a factor of 1.00001",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) { map(c, [](T x) { return x * x; }); },
        fused(
            []<Real T>(BackwardCtx<T> c, Is is) {
              for (Index i = 0; i < c.shape(0).size(); ++i)
                c.grad(0)[i] = 2 * c.in(0)[i] * c.g()[i];
              if (is.wrong) c.grad(0)[123] *= static_cast<T>(1.00001);
            },
            [](std::span<const Tensor> in) -> Tensors { return {square(in[0])}; }),
        {away_from_zero({300})}},
  };
}

// Right gradients whose own gradients are wrong.
std::vector<D> definitions_of_the_second_order() {
  return {
      D{"order 2, square: the input is held constant",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) { map(c, [](T x) { return x * x; }); },
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] { return 2.0 * (v.g() * (is.wrong ? v.in().detach() : v.in())); });
            },
            keeps_inputs),
        {normal({3, 4})}},
      D{"order 2, tanh: the output is held constant",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::tanh(x); }); },
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] {
                const Tensor y = is.wrong ? v.out().detach() : v.out();
                return v.g() * (1 - square(y));
              });
            },
            keeps_output),
        {normal({3, 4})}},
      D{"order 2, exp: the incoming gradient is held constant",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::exp(x); }); },
        rule([](Vjp& v,
                Is is) { v.add(0, [&] { return (is.wrong ? v.g().detach() : v.g()) * v.out(); }); },
             keeps_output),
        {normal({3, 4})}},
      D{"order 2, mul: one operand is held constant",
        {"a", "b"},
        first_shape,
        multiply,
        rule(
            [](Vjp& v, Is is) {
              v.add(0, [&] { return v.g() * (is.wrong ? v.in(1).detach() : v.in(1)); });
              v.add(1, [&] { return v.g() * v.in(0); });
            },
            keeps_inputs),
        {two}},
      D{"order 2, a fused op: the specification's gradient is twice the kernel's",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) { map(c, [](T x) { return x * x; }); },
        fused(
            []<Real T>(BackwardCtx<T> c) {
              for (Index i = 0; i < c.shape(0).size(); ++i)
                c.grad(0)[i] = 2 * c.in(0)[i] * c.g()[i];
            },
            [](std::span<const Tensor> in, Is is) -> Tensors {
              return {(is.wrong ? 2.0 : 1.0) * square(in[0])};
            }),
        {normal({3, 4})}},
      D{"order 2, a fused op: the specification holds its input constant",
        {"x"},
        same_shape,
        []<Real T>(Ctx<T> c) { map(c, [](T x) { return x * x; }); },
        fused(
            []<Real T>(BackwardCtx<T> c) {
              for (Index i = 0; i < c.shape(0).size(); ++i)
                c.grad(0)[i] = 2 * c.in(0)[i] * c.g()[i];
            },
            [](std::span<const Tensor> in, Is is) -> Tensors {
              const Tensor& x = in[0];
              return {is.wrong ? 2.0 * x * x.detach() - square(x.detach()) : square(x)};
            }),
        {normal({3, 4})}},
  };
}

}  // namespace

std::vector<Mutation> op_mutations() {
  std::vector<Mutation> mutations;
  const auto add = [&](const std::vector<D>& definitions, int order) {
    for (const D& d : definitions) mutations.push_back(mutation_of(d, order, Is{true}, Is{false}));
  };
  add(definitions_of_two_operands(), 1);
  add(definitions_of_one_operand(), 1);
  add(definitions_of_the_second_order(), 2);
  return mutations;
}

}  // namespace reel::testing
