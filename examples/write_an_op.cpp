// Two ops of a program's own, defined as the library defines its own, checked, and used in a model.
// Exit code 1 when a check has a complaint. docs/add_an_op.md explains it part by part.
#include <reel/autograd/check/op_checks.h>
#include <reel/reel.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <numbers>

using namespace reel;
using namespace reel::op;

namespace {

// [log_cosh]
// ln cosh x, a loss like x²/2 near zero and like |x| far from it; it cannot overflow.
const Op<> log_cosh_op{{
    .name = "log_cosh",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c) {
          std::ranges::transform(c.in(0), c.out().begin(), [](T x) {
            return std::abs(x) + std::log1p(std::exp(-2 * std::abs(x))) - std::numbers::ln2_v<T>;
          });
        },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return v.g() * tanh(v.in()); }); }, keeps_inputs),
    .samples = {normal({3, 4}), values({-30, 0, 30}), normal({0, 2})},
}};

Tensor log_cosh(const Tensor& x, Site site = {}) { return log_cosh_op({&x}, site); }
// [/log_cosh]

// [attributes]
// The linear recurrence h = a ∘ h_before + b, from the first step to the last or the other way.
struct Direction {
  bool reverse;

  Index step(Index i, Index steps) const { return reverse ? steps - 1 - i : i; }
};
enum Input { A, B, H0 };
// [/attributes]

// [forward]
template <Real T>
void scan_forward(Ctx<T> c, const Direction& direction) {
  const Index steps = c.shape(A)[0], size = c.shape(H0).size();
  const T* before = c.in(H0).data();
  for (Index i = 0; i < steps; ++i) {
    const Index at = direction.step(i, steps) * size;
    const T *a = c.in(A).data() + at, *b = c.in(B).data() + at;
    T* h = c.out().data() + at;
    for (Index j = 0; j < size; ++j) h[j] = a[j] * before[j] + b[j];
    before = h;
  }
}
// [/forward]

// [backward]
// With g the gradient of a step's h from all that comes after it: da = g ∘ h_before, db = g, and
// a ∘ g goes on to the step before.
template <Real T>
void scan_backward(BackwardCtx<T> c, const Direction& direction) {
  const Index steps = c.shape(A)[0], size = c.shape(H0).size();
  T *da = c.grad(A), *db = c.grad(B), *dh0 = c.grad(H0);
  Scratch<T> g(size);
  std::fill_n(g.data(), size, T(0));
  for (Index i = steps - 1; i >= 0; --i) {
    const Index at = direction.step(i, steps) * size;
    const T* before = i > 0 ? c.out() + direction.step(i - 1, steps) * size : c.in(H0);
    for (Index j = 0; j < size; ++j) {
      g[j] += c.g()[at + j];
      if (da) da[at + j] = g[j] * before[j];
      if (db) db[at + j] = g[j];
      g[j] *= c.in(A)[at + j];
    }
  }
  if (dh0) std::copy_n(g.data(), size, dh0);
}
// [/backward]

// [specification]
Tensors scan_specification(std::span<const Tensor> in, const Direction& direction) {
  const Index steps = in[A].size(0);
  Tensors h(static_cast<std::size_t>(steps));
  Tensor state = in[H0];
  for (Index i = 0; i < steps; ++i) {
    const Index t = direction.step(i, steps);
    state = select(in[A], 0, t) * state + select(in[B], 0, t);
    h[static_cast<std::size_t>(t)] = state;
  }
  return {stack(h)};
}
// [/specification]

// [scan]
SampleInputs sample(Index steps, Index rows, Index units) {
  const Shape sequence{steps, rows, units};
  return with_inputs(normal(sequence), normal(sequence), normal({rows, units}));
}

const Op<Direction> scan_op{{
    .name = "scan",
    .arguments = {"a", "b", "h0"},
    .shape = [](const Arguments& in) -> Shape {
      if (in[A].rank() != 3 || in[A][0] == 0) in.fail("a must be [T, B, H] with T > 0");
      if (in[B] != in[A]) in.fail("b must have the shape of a");
      if (in[H0] != in[A].erase(0)) in.fail("h0 must be [B, H]");
      return in[A];
    },
    .forward = []<Real T>(Ctx<T> c, const Direction& d) { scan_forward(c, d); },
    .gradient = fused(
        []<Real T>(BackwardCtx<T> c, const Direction& d) { scan_backward(c, d); },
        [](std::span<const Tensor> in, const Direction& d) { return scan_specification(in, d); },
        keeps_all),
    .samples = {sample(3, 2, 2).attr(Direction{false}), sample(4, 1, 3).attr(Direction{true}),
                sample(1, 1, 1).attr(Direction{false}), sample(2, 0, 2).attr(Direction{true})},
}};

// h_t = a_t ∘ h_(t-1) + b_t: a and b [T, B, H], h0 [B, H] -> [T, B, H]. Throws ShapeError.
Tensor scan(const Tensor& a, const Tensor& b, const Tensor& h0, bool reverse = false,
            Site site = {}) {
  return scan_op({&a, &b, &h0}, {reverse}, site);
}
// [/scan]

// [model]
// A gated recurrent unit whose gates do not see the state, so that all steps of the products are
// one (Feng et al., "Were RNNs all we needed?", 2024), and a linear output.
struct Model {
  Model(const Params& p, Index input_size, Index hidden_size)
      : gate(p / "gate", input_size, hidden_size),
        candidate(p / "candidate", input_size, hidden_size),
        head(p / "head", hidden_size, 1) {}

  Tensor operator()(const Tensor& x) const {
    const Tensor z = sigmoid(gate(x));
    const Tensor h0 = zeros({x.size(1), head.w.shape()[1]}, x.dtype());
    return head(scan(1 - z, z * candidate(x), h0));
  }

  nn::Linear gate, candidate, head;
};
// [/model]

// The input's running average over about ten steps.
Tensor running_average(const Tensor& x) {
  const Tensor rate = full(x.shape(), 0.9, x.dtype());
  return scan(rate, 0.1 * x, zeros({x.size(1), x.size(2)}, x.dtype()));
}

void train(const Params& params, const Model& model) {
  optim::Adam adam(params, {.learning_rate = 1e-2});
  Rng rng(1);
  for (int step = 0; step <= 300; ++step) {
    const Tensor x = rng.normal({50, 16, 1});
    Tape tape;
    const Tensor loss = mean(log_cosh(10 * (model(x) - running_average(x))));
    adam.step(tape.gradient(loss, params));
    if (step % 100 == 0) std::cout << "step " << step << ", loss " << loss.item() << '\n';
  }
}

// [checks]
// What the ops should give, in plain doubles: ln cosh x, and h = a h + b of one element at a time.
const Reference log_cosh_values = reference([](const Arrays& in) -> Arrays {
  Array y = in[0];
  for (double& x : y.x) x = std::abs(x) < 300 ? std::log(std::cosh(x)) : std::abs(x) - std::log(2);
  return {y};
});
const Reference scan_values =
    reference<Direction>([](const Arrays& in, const Direction& direction) -> Arrays {
      const Index steps = in[A].shape[0], size = in[H0].size();
      Array y(in[A].shape), h = in[H0];
      for (Index i = 0; i < steps; ++i)
        for (Index j = 0; j < size; ++j) {
          const Index at = direction.step(i, steps) * size + j;
          y[at] = h[j] = in[A][at] * h[j] + in[B][at];
        }
      return {y};
    });

int count_complaints(const OpSpec& op, const Reference& reference) {
  const Complaints complaints = check_op(op, reference);
  for (const std::string& complaint : complaints) std::cout << complaint << '\n';
  std::cout << op.name << ": " << complaints.size() << " complaints\n";
  return static_cast<int>(complaints.size());
}

// The model once more in f64, with its gradients and their gradients against differences.
bool gradients_are_right() {
  const Params params(2, f64);
  const Model model(params, 1, 3);
  const GradientReport report =
      check_gradients([&](std::span<const Tensor> in) { return mean(log_cosh(model(in[0]))); },
                      params, {{"x", Rng(3).normal({5, 2, 1}, 0, 1, f64)}}, {.order = 2});
  std::cout << report.str();
  return report.ok;
}
// [/checks]

}  // namespace

int main() try {
  const int complaints = count_complaints(log_cosh_op.spec(), log_cosh_values) +
                         count_complaints(scan_op.spec(), scan_values);
  if (complaints > 0 || !gradients_are_right()) return 1;
  const Params params(1);
  train(params, Model(params, 1, 8));
} catch (const std::exception& error) {
  return std::cerr << "write_an_op: " << error.what() << '\n', 1;
}
