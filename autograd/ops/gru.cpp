#include <reel/autograd/unit_cell.h>

namespace reel {
namespace {

// What a step adds, n, may be dropped by a mask.
template <bool dropped>
auto next_h(const auto& z, const auto& n, const auto& h, const auto&... constants) {
  if constexpr (dropped)
    return std::tuple((1 - z) * (n * std::get<0>(constants...)) + z * h);
  else
    return std::tuple((1 - z) * n + z * h);
}

// The reset gate acts on the product: q = U_n h + b_hn is a sum of its own, and with it last and n
// first the sums of each product follow each other.
template <bool layer_norm, bool dropped>
struct ResetAfter {
  static constexpr kernels::CellLayout layout{.sums = 4,
                                              .states = 1,
                                              .constants = dropped,
                                              .inputs = 3,
                                              .input = {1, 2, 0},
                                              .recurrent = {1, 3},
                                              .norm = layer_norm,
                                              .recurrent_bias = 3,
                                              .gates = {"new", "reset", "update"},
                                              .forget = 2};

  static auto unit(const auto& sums, const auto& before, const auto&... constants) {
    const auto& [n_sum, r_sum, z_sum, q] = sums;
    const auto& [h] = before;
    const auto r = sigmoid(r_sum);
    const auto z = sigmoid(z_sum);
    const auto n = tanh(n_sum + r * number(q));
    return next_h<dropped>(z, n, h, constants...);
  }
};

// The reset gate acts on h, before the product of n.
template <bool dropped>
struct ResetBefore {
  static constexpr kernels::CellLayout layout{.sums = 3,
                                              .states = 1,
                                              .constants = dropped,
                                              .recurrent = {0, 2},
                                              .second = {2, 1},
                                              .recurrent_bias = 2,
                                              .gates = {"reset", "update", "new"},
                                              .forget = 1};

  static auto operand(const auto& sums, const auto& before) {
    return sigmoid(std::get<0>(sums)) * std::get<0>(before);
  }
  static auto unit(const auto& sums, const auto& before, const auto&... constants) {
    const auto& [r_sum, z_sum, n_sum] = sums;
    const auto z = sigmoid(z_sum);
    const auto n = tanh(n_sum);
    return next_h<dropped>(z, n, std::get<0>(before), constants...);
  }
};

// A gate f in both roles (Zhou et al., 2016).
struct MinimalGatedUnit {
  static constexpr kernels::CellLayout layout{.sums = 2,
                                              .states = 1,
                                              .constants = 1,
                                              .recurrent = {0, 1},
                                              .second = {1, 1},
                                              .gates = {"forget", "new"},
                                              .forget = 0,
                                              .forget_is_complement = true};

  static auto operand(const auto& sums, const auto& before) {
    return sigmoid(std::get<0>(sums)) * std::get<0>(before);
  }
  static auto unit(const auto& sums, const auto& before, const auto& constants) {
    const auto& h = std::get<0>(before);
    const auto f = sigmoid(std::get<0>(sums));
    return std::tuple((1 - f) * h + f * (tanh(std::get<1>(sums)) * std::get<0>(constants)));
  }
};

constinit const CellSpec after_cell = cell_spec<ResetAfter<false, false>>("gru");
constinit const CellSpec dropped_after_cell = cell_spec<ResetAfter<false, true>>("gru");
constinit const CellSpec norm_cell = cell_spec<ResetAfter<true, true>>("gru, layer norm");
constinit const CellSpec before_cell = cell_spec<ResetBefore<false>>("gru, reset before");
constinit const CellSpec dropped_before_cell = cell_spec<ResetBefore<true>>("gru, reset before");
constinit const CellSpec minimal_cell = cell_spec<MinimalGatedUnit>("mgu");
constinit const CellSpec* const cells[] = {&after_cell, &dropped_after_cell, &norm_cell,
                                           &before_cell, &dropped_before_cell};
constinit const CellSpec* const minimal_cells[] = {&minimal_cell};
REEL_EARLY const op::RecurrentOp gru_op("gru", cells, {.recurrent_bias = "b_hn"});
REEL_EARLY const op::RecurrentOp minimal_op("mgu", minimal_cells);

}  // namespace

FusedCell gru_cell(Reset reset, bool layer_norm, bool dropped) {
  if (layer_norm) return {norm_cell, gru_op};
  if (reset == Reset::after) return {dropped ? dropped_after_cell : after_cell, gru_op};
  return {dropped ? dropped_before_cell : before_cell, gru_op};
}
FusedCell minimal_gated_cell() { return {minimal_cell, minimal_op}; }

GruResult gru(const Tensor& x, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b,
              const Tensor& b_hn, const Tensor& h0, Reset reset, const SequenceOptions& options,
              Site site) {
  const CellInputs inputs{w_ih, w_hh, b, b_hn, {}, {}, {h0}};
  Tensors out = gru_op(gru_cell(reset).spec, x, {&inputs, 1}, options, {}, site);
  return {out[0], out[1]};
}

Tensor gru_step(const Tensor& p, const Tensor& h, const Tensor& w_hh, const Tensor& b_hn,
                Reset reset) {
  return states_after(gru_cell(reset).spec, p, {h}, {{}, w_hh, {}, b_hn}, {})[0];
}

}  // namespace reel

namespace reel::op::linked {
void gru() {}
}  // namespace reel::op::linked
