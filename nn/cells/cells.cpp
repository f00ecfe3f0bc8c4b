#include <fmt/format.h>

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
std::vector<std::string> lstm_gates() { return {"input", "forget", "cell", "output"}; }

}  // namespace

RnnCell::RnnCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                 const Options& options)
    : activation(options.activation) {
  const Initial initial(p, "RnnCell", input_size, hidden_size, options);
  w_ih = p.create("w_ih", {hidden_size, input_size}, initial.weight);
  w_hh = p.create("w_hh", {hidden_size, hidden_size}, initial.weight);
  b = p.create("b", {hidden_size}, initial.summed_bias);
}

Output<HiddenState> RnnCell::operator()(const Tensor& x, const State& state, const Mode&,
                                        Site site) const {
  const ModuleScope scope(w_hh.name(), site);
  require_features("RnnCell", w_ih, x, input_size(), site);
  const Tensor h = defined_state(state.h, x, w_hh);
  const Tensor next = rnn_step(affine(x, w_ih, b), h, w_hh, activation);
  return {next, {next}};
}

GruCell::GruCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                 const Options& options)
    : reset(options.reset) {
  const Initial initial(p, "GruCell", input_size, hidden_size, options);
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

Output<HiddenState> GruCell::operator()(const Tensor& x, const State& state, const Mode&,
                                        Site site) const {
  const ModuleScope scope(w_hh.name(), site);
  require_features("GruCell", w_ih, x, input_size(), site);
  const Tensor h = defined_state(state.h, x, w_hh);
  const Tensor next = gru_step(affine(x, w_ih, b), h, w_hh, b_hn, reset);
  return {next, {next}};
}

LstmCell::LstmCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                   const Options& options) {
  if (options.forget_bias && !std::isfinite(*options.forget_bias))
    throw ValueError(
        fmt::format("LstmCell: the forget bias must be finite, not {}", *options.forget_bias),
        SiteScope::current());
  const Initial initial(p, "LstmCell", input_size, hidden_size, options);
  w_ih = p.create("w_ih", {4 * hidden_size, input_size}, initial.weight, lstm_gates());
  w_hh = p.create("w_hh", {4 * hidden_size, hidden_size}, initial.weight, lstm_gates());
  const auto bias = [&](Rng& rng, const Shape& shape, DType dtype) {
    Tensor values = initial.summed_bias(rng, shape, dtype);
    if (options.forget_bias)
      dispatch_real(dtype, [&]<class T>() {
        std::fill_n(values.begin_update<T>().begin() + hidden_size, hidden_size,
                    static_cast<T>(*options.forget_bias));
      });
    return values;
  };
  b = p.create("b", {4 * hidden_size}, bias, lstm_gates());
}

Output<LstmState> LstmCell::operator()(const Tensor& x, const State& state, const Mode&,
                                       Site site) const {
  const ModuleScope scope(w_hh.name(), site);
  require_features("LstmCell", w_ih, x, input_size(), site);
  const Tensor h = defined_state(state.h, x, w_hh), c = defined_state(state.c, x, w_hh);
  const LstmStep next = lstm_step(affine(x, w_ih, b), h, c, w_hh);
  return {next.h, {next.h, next.c}};
}

Rnn::Rnn(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
         const Options& options)
    : cell(require_positive(p, "Rnn", {{"input_size", input_size}, {"hidden_size", hidden_size}}),
           input_size, hidden_size, options) {}

Output<HiddenState> Rnn::operator()(const Tensor& x, const State& state, const Mode&,
                                    const SequenceOptions& options, Site site) const {
  const ModuleScope scope(cell.w_hh.name(), site);
  const auto [y, h] = reel::rnn(x, cell.w_ih, cell.w_hh, cell.b,
                                defined_state(state.h, x, cell.w_hh), cell.activation, options);
  return {y, {h}};
}

Gru::Gru(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
         const Options& options)
    : cell(require_positive(p, "Gru", {{"input_size", input_size}, {"hidden_size", hidden_size}}),
           input_size, hidden_size, options) {}

Output<HiddenState> Gru::operator()(const Tensor& x, const State& state, const Mode&,
                                    const SequenceOptions& options, Site site) const {
  const ModuleScope scope(cell.w_hh.name(), site);
  const auto [y, h] = reel::gru(x, cell.w_ih, cell.w_hh, cell.b, cell.b_hn,
                                defined_state(state.h, x, cell.w_hh), cell.reset, options);
  return {y, {h}};
}

Lstm::Lstm(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
           const Options& options)
    : cell(require_positive(p, "Lstm", {{"input_size", input_size}, {"hidden_size", hidden_size}}),
           input_size, hidden_size, options) {}

Output<LstmState> Lstm::operator()(const Tensor& x, const State& state, const Mode&,
                                   const SequenceOptions& options, Site site) const {
  const ModuleScope scope(cell.w_hh.name(), site);
  const auto [y, h, c] =
      reel::lstm(x, cell.w_ih, cell.w_hh, cell.b, defined_state(state.h, x, cell.w_hh),
                 defined_state(state.c, x, cell.w_hh), options);
  return {y, {h, c}};
}

}  // namespace reel::nn
