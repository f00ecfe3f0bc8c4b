#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/init.h>
#include <reel/nn/sizes.h>

namespace reel::nn {
namespace {

// Default initialisation of a cell's parameters. PyTorch draws all of them uniform with bound 1/√H,
// and has two biases where we have their sum.
struct Initial {
  Initial(const ModuleParams& p, const char* cell, Index input_size, Index hidden_size,
          const auto& options) {
    require_positive(p, cell, {{"input_size", input_size}, {"hidden_size", hidden_size}});
    const Initializer uniform = init::uniform(1 / std::sqrt(static_cast<double>(hidden_size)));
    weight = options.weight_init ? options.weight_init : uniform;
    bias = options.bias_init ? options.bias_init : uniform;
    summed_bias = options.bias_init ? options.bias_init
                                    : [uniform](Rng& rng, const Shape& shape, DType dtype) {
                                        const Tensor first = uniform(rng, shape, dtype);
                                        return first + uniform(rng, shape, dtype);
                                      };
  }
  Initializer weight, bias, summed_bias;
};

// The blocks of rows of each cell's parameters; functions, since a global layer may use them before
// main.
std::vector<std::string> gru_gates() { return {"reset", "update", "new"}; }
std::vector<std::string> lstm_gates(LstmVariant variant) {
  using enum LstmVariant;
  std::vector<std::string> gates;
  if (variant != no_input_gate) gates.emplace_back("input");
  if (variant != no_forget_gate && variant != coupled) gates.emplace_back("forget");
  gates.emplace_back("cell");
  if (variant != no_output_gate) gates.emplace_back("output");
  return gates;
}

}  // namespace

RnnCell::RnnCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                 const Options& options)
    : activation(options.activation) {
  const Initial initial(p, RnnCell::name, input_size, hidden_size, options);
  w_ih = p.create("w_ih", {hidden_size, input_size}, initial.weight);
  w_hh = p.create("w_hh", {hidden_size, hidden_size}, initial.weight);
  b = p.create("b", {hidden_size}, initial.summed_bias);
}

GruCell::GruCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                 const Options& options)
    : reset(options.reset) {
  const Initial initial(p, GruCell::name, input_size, hidden_size, options);
  w_ih = p.create("w_ih", {3 * hidden_size, input_size}, initial.weight, gru_gates());
  w_hh = p.create("w_hh", {3 * hidden_size, hidden_size}, initial.weight, gru_gates());
  // The gates r and z have the sum of both biases in b, n has one in b and one in b_hn.
  const auto gates = [&](Rng& rng, const Shape&, DType dtype) {
    return concat({initial.summed_bias(rng, {2 * hidden_size}, dtype),
                   initial.bias(rng, {hidden_size}, dtype)},
                  0);
  };
  b = p.create("b", {3 * hidden_size}, gates, gru_gates());
  b_hn = p.create("b_hn", {hidden_size}, initial.bias);
}

LstmCell::LstmCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                   const Options& options)
    : variant(options.variant) {
  if (options.forget_bias && !std::isfinite(*options.forget_bias))
    throw ValueError(
        fmt::format("LstmCell: the forget bias must be finite, not {}", *options.forget_bias),
        SiteScope::current());
  const Initial initial(p, LstmCell::name, input_size, hidden_size, options);
  const std::vector<std::string> gates = lstm_gates(variant);
  const Index rows = std::ssize(gates) * hidden_size;
  w_ih = p.create("w_ih", {rows, input_size}, initial.weight, gates);
  w_hh = p.create("w_hh", {rows, hidden_size}, initial.weight, gates);
  const auto forget = std::ranges::find(gates, "forget");
  const auto bias = [&](Rng& rng, const Shape& shape, DType dtype) {
    Tensor values = initial.summed_bias(rng, shape, dtype);
    if (options.forget_bias && forget != gates.end())
      dispatch_real(dtype, [&]<class T>() {
        std::fill_n(values.begin_update<T>().begin() + (forget - gates.begin()) * hidden_size,
                    hidden_size, static_cast<T>(*options.forget_bias));
      });
    return values;
  };
  b = p.create("b", {rows}, bias, gates);
  if (!options.peepholes) return;
  std::vector<std::string> with_peephole = gates;
  std::erase(with_peephole, "cell");
  peepholes = p.create("peepholes", {rows - hidden_size}, initial.weight, with_peephole);
}

}  // namespace reel::nn
