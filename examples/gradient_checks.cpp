// Three functions whose gradients are wrong, and a model whose gradients are right: gradient_checks
// mean|bias|gate|model prints the report. The examples in docs/gradient_checks.md come from here.
#include <reel/reel.h>

#include <iostream>
#include <string_view>

using namespace reel;
using namespace reel::op;

namespace {

// [mean]
// The mean of the squares.
const Op<> mean_square_op{{
    .name = "mean_square",
    .arguments = {"x"},
    .shape = [](const Arguments&) -> Shape { return {}; },
    .forward =
        []<Real T>(Ctx<T> c) {
          T sum = 0;
          for (const T x : c.in(0)) sum += x * x;
          c.out()[0] = sum / static_cast<T>(c.in(0).size());
        },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return 2 * v.g() * v.in(); }); }, keeps_inputs),
    .samples = {normal({3, 4})},
}};

GradientReport check_mean() {
  const Tensor x = Rng(1).normal({3, 4}, 0, 1, f64);
  return check_gradients([](std::span<const Tensor> in) { return mean_square_op({&in[0]}, {}); },
                         {{"x", x}});
}
// [/mean]

// [bias]
// x + b, with b [F] added to every row of x [N, F].
const Op<> add_bias_op{{
    .name = "add_bias",
    .arguments = {"x", "b"},
    .shape = broadcast_shape,
    .forward =
        []<Real T>(Ctx<T> c) {
          for (std::size_t i = 0; i < c.out().size(); ++i)
            c.out()[i] = c.in(0)[i] + c.in(1)[i % c.in(1).size()];
        },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return v.g(); });
          v.add(1, [&] { return select(v.g(), 0, 0); });
        },
        keeps_nothing),
    .samples = {with_inputs(normal({3, 4}), normal({4}))},
}};

GradientReport check_bias() {
  Rng rng(2);
  const std::vector<NamedInput> inputs{{"x", rng.normal({5, 2}, 0, 1, f64)},
                                       {"b", rng.normal({2}, 0, 1, f64)}};
  return check_gradients(
      [](std::span<const Tensor> in) {
        return sum(tanh(add_bias_op({&in[0], &in[1]}, {})));
      },
      inputs);
}
// [/bias]

// [gate]
// A step of an LSTM in ops; its parameters say what their rows are.
struct Cell {
  Cell(const Params& p, Index n)
      : w(p.create("w", {4 * n, n}, nn::init::normal(0.5), {"input", "forget", "cell", "output"})) {
  }

  LstmStep operator()(const Tensor& x, const Tensor& h, const Tensor& c) const {
    const Tensors gates = split(x + matmul(h, w, false, true), 4, -1);
    const Tensor i = sigmoid(gates[0]), f = sigmoid(gates[1].detach()), g = tanh(gates[2]),
                 o = sigmoid(gates[3]);
    const Tensor next = f * c + i * g;
    return {o * tanh(next), next};
  }

  Param w;
};

GradientReport check_gate() {
  const Params params(3, f64);
  const Cell cell(params / "lstm", 3);
  const Tensor x = Rng(4).normal({4, 1, 12}, 0, 1, f64);
  const auto loss = [&] {
    LstmStep state{zeros({1, 3}, f64), zeros({1, 3}, f64)};
    for (Index t = 0; t < x.size(0); ++t) state = cell(select(x, 0, t), state.h, state.c);
    return sum(state.h);
  };
  return check_gradients(loss, params);
}
// [/gate]

// [model]
struct CharModel {
  explicit CharModel(const Params& p)
      : embed(p / "embed", 5, 3),
        lstm(p / "lstm", 3, 4, {.layers = 2, .dropout = 0.5}),
        head(p / "head", 4, 5) {}

  Tensor loss(const Tensor& text, const Tensor& next, const nn::Mode& mode) const {
    return cross_entropy(head(lstm(embed(text), {}, mode).y), next);
  }

  nn::Embedding embed;
  nn::Stacked<nn::Lstm> lstm;
  nn::Linear head;
};

// The model as it was trained, in f32 and with dropout.
GradientReport check_model(const Params& trained, const Tensor& text, const Tensor& next) {
  const Params params = trained.to(f64);  // copies
  const CharModel model(params);          // the same model, made of the copies
  Rng rng(6);
  return check_gradients([&] { return model.loss(text, next, nn::Train{rng}); }, params,
                         {.order = 2, .replay = {&rng}});
}
// [/model]

GradientReport check(std::string_view name) {
  if (name == "mean") return check_mean();
  if (name == "bias") return check_bias();
  if (name == "gate") return check_gate();
  const Params trained(5);
  const CharModel model(trained);  // training it is left out here
  const Tensor text = tensor({4, 2}, std::vector<std::int32_t>{0, 3, 1, 2, 4, 4, 0, 1});
  return check_model(trained, text, text);
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name != "mean" && name != "bias" && name != "gate" && name != "model")
    throw ValueError("give one of mean, bias, gate and model");
  std::cout << check(name).summary();
} catch (const std::exception& error) {
  return std::cerr << "gradient_checks: " << error.what() << '\n', 1;
}
