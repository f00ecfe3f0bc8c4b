#include <cmath>

#include <reel/autograd/ops.h>
#include <reel/nn/gru_cell.h>
#include <reel/nn/init.h>
#include <reel/nn/lstm_cell.h>
#include <reel/nn/rnn_cell.h>
#include <reel/nn/sizes.h>

namespace reel::nn {
namespace {

Initializer resolve(const Initializer& init, const char* cell, Index input_size,
                    Index hidden_size) {
  require_positive(cell, {{"input_size", input_size}, {"hidden_size", hidden_size}});
  return init ? init : init::uniform(1 / std::sqrt(static_cast<double>(hidden_size)));
}

}  // namespace

RnnCell::RnnCell(const Params& p, Index input_size, Index hidden_size, const Options& options)
    : activation(options.activation) {
  const Initializer init = resolve(options.init, "RnnCell", input_size, hidden_size);
  w_ih = p.create("w_ih", {hidden_size, input_size}, init);
  w_hh = p.create("w_hh", {hidden_size, hidden_size}, init);
  b = p.create("b", {hidden_size}, init);
}

Output<HiddenState> RnnCell::operator()(const Tensor& x, const State& state, const Mode&,
                                        Site site) const {
  const SiteScope scope(site);
  const Tensor h = defined_state(state.h, x, w_hh);
  const Tensor next = rnn_step(affine(x, w_ih, b), h, w_hh, activation);
  return {next, {next}};
}

GruCell::GruCell(const Params& p, Index input_size, Index hidden_size, const Options& options)
    : reset(options.reset) {
  const Initializer init = resolve(options.init, "GruCell", input_size, hidden_size);
  w_ih = p.create("w_ih", {3 * hidden_size, input_size}, init);
  w_hh = p.create("w_hh", {3 * hidden_size, hidden_size}, init);
  b = p.create("b", {3 * hidden_size}, init);
  b_hn = p.create("b_hn", {hidden_size}, init);
}

Output<HiddenState> GruCell::operator()(const Tensor& x, const State& state, const Mode&,
                                        Site site) const {
  const SiteScope scope(site);
  const Tensor h = defined_state(state.h, x, w_hh);
  const Tensor next = gru_step(affine(x, w_ih, b), h, w_hh, b_hn, reset);
  return {next, {next}};
}

LstmCell::LstmCell(const Params& p, Index input_size, Index hidden_size, const Options& options) {
  const Initializer init = resolve(options.init, "LstmCell", input_size, hidden_size);
  w_ih = p.create("w_ih", {4 * hidden_size, input_size}, init);
  w_hh = p.create("w_hh", {4 * hidden_size, hidden_size}, init);
  const auto bias = [&](Rng& rng, const Shape& shape, DType dtype) {
    Tensor values = init(rng, shape, dtype);
    if (options.forget_bias)
      dispatch_real(dtype, [&]<class T>() {
        std::fill_n(values.edit<T>().begin() + hidden_size, hidden_size,
                    static_cast<T>(*options.forget_bias));
      });
    return values;
  };
  b = p.create("b", {4 * hidden_size}, bias);
}

Output<LstmState> LstmCell::operator()(const Tensor& x, const State& state, const Mode&,
                                       Site site) const {
  const SiteScope scope(site);
  const Tensor h = defined_state(state.h, x, w_hh), c = defined_state(state.c, x, w_hh);
  const LstmStep next = lstm_step(affine(x, w_ih, b), h, c, w_hh);
  return {next.h, {next.h, next.c}};
}

}  // namespace reel::nn
