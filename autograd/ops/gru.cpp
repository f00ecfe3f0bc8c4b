#include <reel/autograd/unit_cell.h>

namespace reel {
namespace {

// The reset gate acts on the product: q = U_n h + b_hn is a sum of its own, and with it last and n
// first the sums of each product follow each other.
struct ResetAfter {
  static constexpr kernels::CellLayout layout{.sums = 4,
                                              .states = 1,
                                              .inputs = 3,
                                              .input = {1, 2, 0},
                                              .recurrent = {1, 3},
                                              .recurrent_bias = 3,
                                              .gates = {"new", "reset", "update"},
                                              .forget = 2};

  static auto unit(const auto& sums, const auto& before) {
    const auto& [n_sum, r_sum, z_sum, q] = sums;
    const auto& [h] = before;
    const auto r = sigmoid(r_sum);
    const auto z = sigmoid(z_sum);
    const auto n = tanh(n_sum + r * number(q));
    return std::tuple((1 - z) * n + z * h);
  }
};

// The reset gate acts on h, before the product of n.
struct ResetBefore {
  static constexpr kernels::CellLayout layout{.sums = 3,
                                              .states = 1,
                                              .recurrent = {0, 2},
                                              .second = {2, 1},
                                              .recurrent_bias = 2,
                                              .gates = {"reset", "update", "new"},
                                              .forget = 1};

  static auto operand(const auto& sums, const auto& before) {
    return sigmoid(std::get<0>(sums)) * std::get<0>(before);
  }
  static auto unit(const auto& sums, const auto& before) {
    const auto& [r_sum, z_sum, n_sum] = sums;
    const auto& [h] = before;
    const auto z = sigmoid(z_sum);
    const auto n = tanh(n_sum);
    return std::tuple((1 - z) * n + z * h);
  }
};

constinit const CellSpec after_cell = cell_spec<ResetAfter>("gru");
constinit const CellSpec before_cell = cell_spec<ResetBefore>("gru, reset before");
constinit const CellSpec* const cells[] = {&after_cell, &before_cell};
REEL_EARLY const op::RecurrentOp gru_op("gru", cells, {.recurrent_bias = "b_hn"});

}  // namespace

FusedCell gru_cell(Reset reset) {
  return {reset == Reset::after ? after_cell : before_cell, gru_op};
}

GruResult gru(const Tensor& x, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b,
              const Tensor& b_hn, const Tensor& h0, Reset reset, const SequenceOptions& options,
              Site site) {
  const CellInputs inputs{w_ih, w_hh, b, b_hn, {}, {h0}};
  Tensors out = gru_op(gru_cell(reset).spec, x, {&inputs, 1}, options, site);
  return {out[0], out[1]};
}

Tensor gru_step(const Tensor& p, const Tensor& h, const Tensor& w_hh, const Tensor& b_hn,
                Reset reset) {
  return gru_cell(reset).spec.step(p, {h}, {{}, w_hh, {}, b_hn})[0];
}

}  // namespace reel
