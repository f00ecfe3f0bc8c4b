// LibTorch's side of the benchmark, a worker of bench/compare.py: libtorch_layers THREADS
#include <ATen/Parallel.h>
#include <torch/torch.h>
#include <torch/version.h>

#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "../protocol.h"

namespace {

using protocol::Json;
using protocol::Prepared;
using protocol::size_in;
using torch::Tensor;

Tensor normal(const Json& row, const char* width) {
  return torch::randn({size_in(row, "steps"), size_in(row, "batch"), size_in(row, width)});
}

template <class L, class Options>
L make_layers(const Json& row) {
  return L(
      Options(size_in(row, "inputs"), size_in(row, "hidden")).num_layers(size_in(row, "layers")));
}

template <class L, class Options>
Prepared forward(const Json& row) {
  const auto call = [layers = make_layers<L, Options>(row), x = normal(row, "inputs")]() mutable {
    const torch::NoGradGuard no_grad;
    layers(x);
  };
  return {call, {}};
}

template <class L, class Options>
Prepared training(const Json& row) {
  L layers = make_layers<L, Options>(row);
  const Tensor x = normal(row, "inputs").requires_grad_(), seed = normal(row, "hidden");
  std::vector<Tensor> wanted = layers->parameters();
  wanted.push_back(x);
  const auto call = [=]() mutable {
    torch::autograd::grad({std::get<0>(layers(x))}, wanted, {seed});
  };
  return {call, {}};
}

Tensor detached(const Tensor& state) { return state.detach(); }
std::tuple<Tensor, Tensor> detached(const std::tuple<Tensor, Tensor>& state) {
  return {std::get<0>(state).detach(), std::get<1>(state).detach()};
}

// The same text in every step, which costs as much as any other.
template <class L, class Options>
Prepared char_lm(const Json& row) {
  struct Model : torch::nn::Module {
    explicit Model(const Json& row)
        : embed(register_module(
              "embed", torch::nn::Embedding(size_in(row, "symbols"), size_in(row, "inputs")))),
          layers(register_module("layers", make_layers<L, Options>(row))),
          head(register_module(
              "head", torch::nn::Linear(size_in(row, "hidden"), size_in(row, "symbols")))) {}
    torch::nn::Embedding embed;
    L layers;
    torch::nn::Linear head;
  };
  const auto model = std::make_shared<Model>(row);
  const auto adam =
      std::make_shared<torch::optim::Adam>(model->parameters(), torch::optim::AdamOptions(2e-3));
  const std::vector<std::int64_t> shape{size_in(row, "steps"), size_in(row, "batch")};
  const Tensor inputs = torch::randint(size_in(row, "symbols"), shape, torch::kLong);
  const Tensor targets = inputs.roll(-1, 0).flatten();
  auto state = std::get<1>(model->layers(model->embed(inputs)));
  const auto call = [=]() mutable {
    adam->zero_grad();
    auto [y, next] = model->layers(model->embed(inputs), detached(state));
    const Tensor loss = torch::cross_entropy_loss(model->head(y).flatten(0, 1), targets);
    loss.backward();
    torch::nn::utils::clip_grad_norm_(model->parameters(), 5);
    adam->step();
    state = next;
    loss.item<float>();
  };
  return {call, {}};
}

// A cell, since that is the fastest way to do one step.
template <class Cell>
Prepared stepping(const Json& row) {
  const auto call = [cell = Cell(size_in(row, "inputs"), size_in(row, "hidden")),
                     x = torch::randn({1, size_in(row, "inputs")}),
                     zeros = torch::zeros({1, size_in(row, "hidden")}),
                     steps = size_in(row, "steps")]() mutable {
    const torch::NoGradGuard no_grad;
    if constexpr (std::is_same_v<Cell, torch::nn::LSTMCell>) {
      std::tuple<Tensor, Tensor> state{zeros, zeros};
      for (std::int64_t t = 0; t < steps; ++t) state = cell(x, state);
    } else {
      Tensor state = zeros;
      for (std::int64_t t = 0; t < steps; ++t) state = cell(x, state);
    }
  };
  return {call, {}};
}

Prepared matmul(const Json& row) {
  const std::int64_t m = size_in(row, "m"), k = size_in(row, "k"), n = size_in(row, "n");
  const auto call = [a = torch::randn({m, k}), b = torch::randn({k, n}),
                     c = torch::empty({m, n})]() mutable { torch::mm_out(c, a, b); };
  return {call, {}};
}

template <class L, class Options, class Cell>
Prepared layer_work(const Json& row) {
  const std::string work = row.at("work");
  if (work == "forward") return forward<L, Options>(row);
  if (work == "training") return training<L, Options>(row);
  if (work == "char_lm") return char_lm<L, Options>(row);
  if (work == "stepping") return stepping<Cell>(row);
  return {};
}

Prepared prepare(const Json& row) {
  using namespace torch::nn;
  if (row.at("work") == "matmul") return matmul(row);
  const std::string kind = row.at("kind");
  if (kind == "rnn") return layer_work<RNN, RNNOptions, RNNCell>(row);
  if (kind == "gru") return layer_work<GRU, GRUOptions, GRUCell>(row);
  return layer_work<LSTM, LSTMOptions, LSTMCell>(row);
}

}  // namespace

int main(int argc, char** argv) try {
  torch::set_num_threads(argc > 1 ? std::stoi(argv[1]) : 1);
  return protocol::serve({{"peer", "LibTorch"}, {"version", TORCH_VERSION}, {"detail", "C++"}},
                         prepare);
} catch (const std::exception& error) {
  return std::cerr << "libtorch_layers: " << error.what() << '\n', 1;
}
