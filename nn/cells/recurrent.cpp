#include <reel/nn/cells/recurrent.h>

#include <fmt/format.h>

#include <reel/nn/dropout.h>
#include <reel/nn/init.h>

namespace reel::nn {
namespace {

template <class F>
CellInputs inputs(const CellParams& params, F f) {
  const auto of = [&](const Param& p) { return p.defined() ? f(p) : Tensor(); };
  Tensors numbers;
  for (const Param& p : params.numbers)
    if (p.defined()) numbers.push_back(f(p));
  return {of(params.w_ih),
          of(params.w_hh),
          of(params.b),
          of(params.recurrent_bias),
          numbers.empty()       ? Tensor()
          : numbers.size() == 1 ? numbers[0]
                                : concat(numbers, 0),
          of(params.projection),
          {}};
}

}  // namespace

CellInputs CellParams::tensors() const {
  return inputs(*this, [](const Param& p) { return p.tensor(); });
}
CellInputs CellParams::values() const {
  return inputs(*this, [](const Param& p) { return p.value(); });
}

namespace detail {

void check_dropout(const ModuleParams& p, const char* cell, const CellDropout& dropout,
                   const kernels::CellLayout& layout) {
  const auto check = [&](const char* name, double rate, bool exists, const char* without) {
    const std::string place = fmt::format("{}: dropout.{}", module_name(p, cell), name);
    if (!(rate >= 0 && rate < 1))
      throw ValueError(fmt::format("{} must be in [0, 1), not {}", place, rate),
                       SiteScope::current());
    if (rate > 0 && !exists)
      throw ValueError(
          fmt::format("{} is {}, but this cell has no {}; leave it out", place, rate, without),
          SiteScope::current());
  };
  const bool recurrent = layout.recurrent_blocks() > 0;
  check("input", dropout.input, true, "");
  check("hidden", dropout.hidden, layout.recurrent.count > 0, "recurrent product");
  check("update", dropout.update, layout.constants > 0, "candidate beside its state");
  check("weights", dropout.weights, recurrent, "recurrent weights");
  check("zoneout_h", dropout.zoneout_h, true, "");
  check("zoneout_c", dropout.zoneout_c, layout.states == 2, "cell state that stands for itself");
}

std::array<Param, 4> create_numbers(const ModuleParams& p, const kernels::CellLayout& layout,
                                    Index units, const char* weights, const Initializer& init) {
  const auto create = [&](const char* name, int count, const Initializer& values) {
    return count > 0 ? p.create(name, {count * units}, values) : Param();
  };
  // Gains begin at 1; the norm of the operand has a bias after its gain.
  const Initializer gain_and_bias = [](Rng&, const Shape& shape, DType dtype) {
    return concat({ones({shape[0] / 2}, dtype), zeros({shape[0] / 2}, dtype)}, 0);
  };
  return {create(weights, layout.weights, init),
          create("norm_ih", layout.norm ? layout.inputs : 0, init::constant(1)),
          create("norm_hh", layout.norm ? layout.recurrent.count : 0, init::constant(1)),
          create("norm_c", layout.second_is_norm ? 2 : 0, gain_and_bias)};
}

PreparedCall prepare(const Tensor& x, const CellParams& params, const kernels::CellLayout& layout,
                     const CellDropout& dropout, const kernels::StepOptions& in_eval,
                     const Mode& mode) {
  PreparedCall call{x, params.tensors(), in_eval};
  if (dropout == CellDropout{}) return call;
  if (!mode.training()) {
    for (const double rate : {dropout.input, dropout.hidden, dropout.update, dropout.weights,
                              dropout.zoneout_h, dropout.zoneout_c})
      note_eval_while_recorded(rate, x);
    return call;
  }
  if (!x.defined() || x.rank() < 2) return call;  // which the op refuses
  Rng& rng = mode.rng();
  const bool sequence = x.rank() == 3;
  const Index steps = sequence ? x.size(0) : 1, rows = x.size(-2);
  if (dropout.input > 0) {
    const Shape one_step = sequence ? Shape{1, rows, x.size(-1)} : x.shape();
    call.x = x * reel::dropout(ones(one_step, x.dtype()), dropout.input, rng);
  }
  if (dropout.weights > 0) call.inputs.w_hh = reel::dropout(call.inputs.w_hh, dropout.weights, rng);
  call.step.training = true;
  call.step.rng = rng.state();
  rng.skip(call.step.blocks(steps, rows, call.inputs.sizes(layout).units));
  return call;
}

}  // namespace detail
}  // namespace reel::nn
