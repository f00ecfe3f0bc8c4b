#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/cells/full_gate_lstm.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/ind_rnn.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/mgu.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/cells/slstm.h>
#include <reel/nn/init.h>
#include <reel/nn/sizes.h>

namespace reel::nn {
namespace {

// Default initialisation of a cell's parameters. PyTorch draws all of them uniform with bound 1/√H,
// and has two biases where we have their sum.
struct Initial {
  /// Checks what all cells check.
  Initial(const ModuleParams& p, const char* cell, const FusedCell& fused, Index input_size,
          Index hidden_size, const auto& options) {
    begin_module(p, cell, {{"input_size", input_size}, {"hidden_size", hidden_size}});
    detail::check_dropout(p, cell, options.dropout, fused.spec.layout);
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

// Throws ValueError, naming the module.
[[noreturn]] void refuse(const ModuleParams& p, const char* cell, std::string_view why) {
  throw ValueError(fmt::format("{}: {}", module_name(p, cell), why), SiteScope::current());
}

// The numbers per unit and the dropout of a cell.
template <class C>
void finish(C& cell, const ModuleParams& p, const FusedCell& fused, Index hidden_size,
            const auto& options, const char* weights, const Initializer& weight) {
  cell.numbers = detail::create_numbers(p, fused.spec.layout, hidden_size, weights, weight);
  cell.dropout = options.dropout;
  if (cell.dropout.zoneout_h > 0 || cell.dropout.zoneout_c > 0)
    p.set_kind(std::string(C::name) + " with zoneout");
}

void check_forget_bias(const ModuleParams& p, const char* cell, std::optional<double> bias) {
  if (bias && !std::isfinite(*bias))
    refuse(p, cell, fmt::format("the forget bias must be finite, not {}", *bias));
}

void check_options(const ModuleParams& p, const LstmOptions& options, Index hidden_size) {
  check_forget_bias(p, LstmCell::name, options.forget_bias);
  if (options.projection_size < 0 || options.projection_size >= hidden_size)
    if (options.projection_size != 0)
      refuse(p, LstmCell::name,
             fmt::format("projection_size must be between 1 and hidden_size - 1 = {}, not {}; 0 is "
                         "none",
                         hidden_size - 1, options.projection_size));
  if (options.cell_clip && !(*options.cell_clip > 0))
    refuse(p, LstmCell::name,
           fmt::format("cell_clip must be positive, not {}", *options.cell_clip));
  if (options.layer_norm && (options.peepholes || options.variant != LstmVariant::standard))
    refuse(p, LstmCell::name, "layer_norm is only for the standard variant, without peepholes");
}

// `bias` with the forget gate's block, if there is one, set to a value, if there is one.
Initializer with_forget_bias(const Initializer& bias, std::optional<double> value,
                             const std::vector<std::string>& gates) {
  const auto forget = std::ranges::find(gates, "forget");
  if (!value || forget == gates.end()) return bias;
  const auto block = forget - gates.begin(), count = std::ssize(gates);
  return [=](Rng& rng, const Shape& shape, DType dtype) {
    Tensor values = bias(rng, shape, dtype);
    const Index size = shape[0] / count;
    dispatch_real(dtype, [&]<class T>() {
      std::fill_n(values.begin_update<T>().begin() + block * size, size, static_cast<T>(*value));
    });
    return values;
  };
}

}  // namespace

RnnCell::RnnCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                 const Options& options)
    : activation(options.activation) {
  const FusedCell fused = rnn_cell(activation, options.layer_norm);
  Initial initial(p, RnnCell::name, fused, input_size, hidden_size, options);
  Initializer recurrent = initial.weight;
  if (options.identity_start) {
    if (options.weight_init || options.bias_init)
      refuse(p, RnnCell::name,
             "an identity start sets w_hh and b: leave out weight_init and bias_init");
    recurrent = init::identity();
    initial.summed_bias = init::constant(0);
  }
  w_ih = p.create("w_ih", {hidden_size, input_size}, initial.weight);
  w_hh = p.create("w_hh", {hidden_size, hidden_size}, recurrent);
  b = p.create("b", {hidden_size}, initial.summed_bias);
  finish(*this, p, fused, hidden_size, options, nullptr, {});
}

IndRnnCell::IndRnnCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                       const Options& options)
    : activation(options.activation) {
  const Initial initial(p, IndRnnCell::name, fused(), input_size, hidden_size, options);
  w_ih = p.create("w_ih", {hidden_size, input_size}, initial.weight);
  b = p.create("b", {hidden_size}, options.bias_init ? options.bias_init : init::constant(0));
  const Initializer decay = [](Rng& rng, const Shape& shape, DType dtype) {
    return rng.uniform(shape, 0, 1, dtype);
  };
  finish(*this, p, fused(), hidden_size, options, "u",
         options.recurrent_init ? options.recurrent_init : decay);
}

MguCell::MguCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                 const Options& options) {
  const Initial initial(p, MguCell::name, fused(), input_size, hidden_size, options);
  const std::vector<std::string> gates{"forget", "new"};
  w_ih = p.create("w_ih", {2 * hidden_size, input_size}, initial.weight, gates);
  w_hh = p.create("w_hh", {2 * hidden_size, hidden_size}, initial.weight, gates);
  b = p.create("b", {2 * hidden_size}, initial.summed_bias, gates);
  dropout = options.dropout;
}

GruCell::GruCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                 const Options& options)
    : reset(options.reset) {
  if (options.layer_norm && reset == Reset::before)
    refuse(p, GruCell::name, "layer_norm normalises the product: it needs Reset::after");
  const FusedCell any = gru_cell(reset, options.layer_norm, true);
  const Initial initial(p, GruCell::name, any, input_size, hidden_size, options);
  w_ih = p.create("w_ih", {3 * hidden_size, input_size}, initial.weight, gru_gates());
  w_hh = p.create("w_hh", {3 * hidden_size, hidden_size}, initial.weight, gru_gates());
  if (reset == Reset::before) p.set_kind("GruCell with Reset::before");
  // The gates r and z have the sum of both biases in b, n has one in b and one in b_hn.
  const auto gates = [&](Rng& rng, const Shape&, DType dtype) {
    return concat({initial.summed_bias(rng, {2 * hidden_size}, dtype),
                   initial.bias(rng, {hidden_size}, dtype)},
                  0);
  };
  b = p.create("b", {3 * hidden_size}, gates, gru_gates());
  b_hn = p.create("b_hn", {hidden_size}, initial.bias);
  finish(*this, p, any, hidden_size, options, nullptr, {});
}

LstmCell::LstmCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                   const Options& options)
    : variant(options.variant) {
  check_options(p, options, hidden_size);
  const FusedCell any =
      options.layer_norm ? layer_norm_lstm_cell() : lstm_cell(variant, options.peepholes, true);
  const Initial initial(p, LstmCell::name, any, input_size, hidden_size, options);
  const std::vector<std::string> gates = lstm_gates(variant);
  const Index rows = std::ssize(gates) * hidden_size;
  const Index output = options.projection_size > 0 ? options.projection_size : Index{hidden_size};
  w_ih = p.create("w_ih", {rows, input_size}, initial.weight, gates);
  w_hh = p.create("w_hh", {rows, output}, initial.weight, gates);
  b = p.create("b", {rows}, with_forget_bias(initial.summed_bias, options.forget_bias, gates),
               gates);
  if (output < hidden_size) w_hr = p.create("w_hr", {output, hidden_size}, initial.weight);
  if (options.cell_clip) cell_bound = *options.cell_clip;
  if (variant != LstmVariant::standard) p.set_kind("LstmCell of another variant");
  if (options.cell_clip) p.set_kind("LstmCell with a cell_clip");
  finish(*this, p, any, hidden_size, options, "peepholes", initial.weight);
}

FusedCell LstmCell::fused() const {
  if (numbers[1].defined()) return layer_norm_lstm_cell();
  return lstm_cell(variant, numbers[0].defined(), dropout.update > 0 || std::isfinite(cell_bound));
}

FullGateLstmCell::FullGateLstmCell(const ModuleParams& p, Arg<Index> input_size,
                                   Arg<Index> hidden_size, const Options& options) {
  check_forget_bias(p, FullGateLstmCell::name, options.forget_bias);
  const Initial initial(p, FullGateLstmCell::name, fused(), input_size, hidden_size, options);
  const std::vector<std::string> gates{"input", "forget", "output", "cell"};
  w_ih = p.create("w_ih", {4 * hidden_size, input_size}, initial.weight, gates);
  w_hh = p.create("w_hh", {13 * hidden_size, hidden_size}, initial.weight);
  b = p.create("b", {4 * hidden_size},
               with_forget_bias(initial.summed_bias, options.forget_bias, gates), gates);
  finish(*this, p, fused(), hidden_size, options, "peepholes", initial.weight);
}

SlstmCell::SlstmCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                     const Options& options)
    : forget(options.forget) {
  check_forget_bias(p, SlstmCell::name, options.forget_bias);
  const Initial initial(p, SlstmCell::name, fused(), input_size, hidden_size, options);
  const std::vector<std::string> gates{"input", "forget", "cell", "output"};
  w_ih = p.create("w_ih", {4 * hidden_size, input_size}, initial.weight, gates);
  w_hh = p.create("w_hh", {4 * hidden_size, hidden_size}, initial.weight, gates);
  b = p.create("b", {4 * hidden_size},
               with_forget_bias(initial.summed_bias, options.forget_bias, gates), gates);
  dropout = options.dropout;
}

}  // namespace reel::nn
