#include <array>

#include <reel/autograd/unit_cell.h>

namespace reel {
namespace {

// A gate that is always open.
struct Open {};
const auto& operator*(Open, const auto& x) { return x; }

constexpr std::array<const char*, kernels::max_sums> gate_names(bool i, bool f, bool o) {
  std::array<const char*, kernels::max_sums> names{};
  std::size_t next = 0;
  if (i) names[next++] = "input";
  if (f) names[next++] = "forget";
  names[next++] = "cell";
  if (o) names[next] = "output";
  return names;
}

// The sums are i, f, g, o, and the peepholes those of i, f, o, each without the gates that the
// variant lacks.
template <LstmVariant variant, bool peepholes, bool masked>
struct LstmUnit {
  static constexpr bool has_i = variant != LstmVariant::no_input_gate;
  static constexpr bool has_f =
      variant != LstmVariant::no_forget_gate && variant != LstmVariant::coupled;
  static constexpr bool has_o = variant != LstmVariant::no_output_gate;
  static constexpr int f = has_i, g = f + has_f, o = g + 1;  // where they are; i is first
  static constexpr bool is_coupled = variant == LstmVariant::coupled;
  static constexpr kernels::CellLayout layout{.sums = o + has_o,
                                              .states = 2,
                                              .weights = peepholes ? o + has_o - 1 : 0,
                                              .constants = masked ? 2 : 0,
                                              .projects = true,
                                              .gates = gate_names(has_i, has_f, has_o),
                                              .forget = is_coupled ? 0
                                                        : has_f    ? f
                                                                   : -1,
                                              .forget_is_complement = is_coupled};

  // The gate of sum k, which sees c through peephole `hole`; `given` are the weights and constants.
  template <bool exists, int k, int hole>
  static auto gate(const auto& sums, const auto& c, const auto& given) {
    if constexpr (!exists)
      return Open();
    else if constexpr (peepholes)
      return sigmoid(std::get<k>(sums) + std::get<hole>(std::get<0>(given)) * c);
    else
      return sigmoid(std::get<k>(sums));
  }

  static auto unit(const auto& sums, const auto& before, const auto&... more) {
    const auto given = std::tie(more...);
    const auto& c = std::get<1>(before);
    const auto input = gate<has_i, 0, 0>(sums, c, given);
    const auto forget = [&] {
      if constexpr (variant == LstmVariant::coupled)
        return 1 - input;
      else
        return gate<has_f, f, f>(sums, c, given);
    }();
    const auto candidate = [&] {
      if constexpr (variant == LstmVariant::no_input_activation)
        return number(std::get<g>(sums));
      else
        return tanh(std::get<g>(sums));
    }();
    const auto c_next = [&] {
      if constexpr (masked) {
        const auto& [mask, bound] = std::get<sizeof...(more) - 1>(given);
        return clipped(forget * c + input * (candidate * mask), bound);
      } else {
        return forget * c + input * candidate;
      }
    }();
    const auto output = gate<has_o, o, g>(sums, c_next, given);
    if constexpr (variant == LstmVariant::no_output_activation)
      return std::tuple(output * c_next, c_next);
    else
      return std::tuple(output * tanh(c_next), c_next);
  }
};

// The normalised c' is a sum of its own: h' = o ∘ tanh(LN(c')) (Ba et al., 2016).
struct LayerNormLstmUnit {
  static constexpr kernels::CellLayout layout{.sums = 5,
                                              .states = 2,
                                              .constants = 2,
                                              .inputs = 4,
                                              .recurrent = {0, 4},
                                              .second = {4, 1},
                                              .norm = true,
                                              .second_is_norm = true,
                                              .projects = true,
                                              .gates = {"input", "forget", "cell", "output"},
                                              .forget = 1};

  static auto operand(const auto& sums, const auto& before, const auto& constants) {
    const auto& [mask, bound] = constants;
    const auto i = sigmoid(std::get<0>(sums));
    const auto f = sigmoid(std::get<1>(sums));
    const auto g = tanh(std::get<2>(sums));
    return clipped(f * std::get<1>(before) + i * (g * mask), bound);
  }
  static auto unit(const auto& sums, const auto& before, const auto& constants) {
    const auto o = sigmoid(std::get<3>(sums));
    return std::tuple(o * tanh(std::get<4>(sums)), operand(sums, before, constants));
  }
};

template <ForgetGate forget>
[[gnu::always_inline]] inline auto log_of_gate(const auto& sum) {
  if constexpr (forget == ForgetGate::sigmoid)
    return log_sigmoid(sum);
  else
    return sum;
}

// Exponential gates, with a normaliser n and a stabiliser m: i and f are both divided by e^m'. An n
// of 0 is the beginning of a sequence, which has no m.
template <ForgetGate forget>
struct SlstmUnit {
  static constexpr kernels::CellLayout layout{
      .sums = 4, .states = 4, .constants = 1, .gates = {"input", "forget", "cell", "output"}};

  static auto unit(const auto& sums, const auto& before, const auto& constants) {
    const auto& [i_sum, f_sum, z_sum, o_sum] = sums;
    const auto& [h, c, n, m] = before;
    const auto log_i = number(i_sum);
    const auto log_f = log_of_gate<forget>(number(f_sum));
    const auto shifted = if_positive(n, log_f + m, log_i);
    const auto m_next = maximum(shifted, log_i);
    const auto i = exp(log_i - m_next);
    const auto f = exp(shifted - m_next);
    const auto c_next = f * c + i * (tanh(z_sum) * std::get<0>(constants));
    const auto n_next = f * n + i;
    return std::tuple(sigmoid(o_sum) * (c_next / n_next), c_next, n_next, m_next);
  }
};

// The gates are states too: those of the next step see them, by matrices.
struct FullGateLstmUnit {
  static constexpr kernels::CellLayout layout{.sums = 4,
                                              .states = 5,
                                              .weights = 3,
                                              .constants = 1,
                                              .read = {2, 3},
                                              .read_by = {0, 3},
                                              .gates = {"input", "forget", "output", "cell"},
                                              .forget = 1};

  static auto unit(const auto& sums, const auto& before, const auto& peepholes,
                   const auto& constants) {
    const auto& [i_sum, f_sum, o_sum, g_sum] = sums;
    const auto& [p_i, p_f, p_o] = peepholes;
    const auto& c = std::get<1>(before);
    const auto i = sigmoid(i_sum + p_i * c);
    const auto f = sigmoid(f_sum + p_f * c);
    const auto c_next = f * c + i * (tanh(g_sum) * std::get<0>(constants));
    const auto o = sigmoid(o_sum + p_o * c_next);
    return std::tuple(o * tanh(c_next), c_next, i, f, o);
  }
};

template <LstmVariant variant, bool peepholes, bool masked = true>
constinit const CellSpec cell = cell_spec<LstmUnit<variant, peepholes, masked>>("lstm");
constinit const CellSpec norm_cell = cell_spec<LayerNormLstmUnit>("lstm, layer norm");
constinit const CellSpec full_gate_spec = cell_spec<FullGateLstmUnit>("full_gate_lstm");
template <ForgetGate forget>
constinit const CellSpec slstm_spec = cell_spec<SlstmUnit<forget>>("slstm");

using enum LstmVariant;
constinit const CellSpec* const cells[] = {
    &cell<standard, false, false>,
    &norm_cell,
    &cell<standard, false>,
    &cell<standard, true>,
    &cell<coupled, false>,
    &cell<coupled, true>,
    &cell<no_input_gate, false>,
    &cell<no_input_gate, true>,
    &cell<no_forget_gate, false>,
    &cell<no_forget_gate, true>,
    &cell<no_output_gate, false>,
    &cell<no_output_gate, true>,
    &cell<no_input_activation, false>,
    &cell<no_input_activation, true>,
    &cell<no_output_activation, false>,
    &cell<no_output_activation, true>,
};
constinit const CellSpec* const full_gate_cells[] = {&full_gate_spec};
constinit const CellSpec* const slstm_cells[] = {&slstm_spec<ForgetGate::sigmoid>,
                                                 &slstm_spec<ForgetGate::exponential>};

REEL_EARLY const op::RecurrentOp lstm_op("lstm", cells, {.states = {"h0", "c0"}});
REEL_EARLY const op::RecurrentOp full_gate_op("full_gate_lstm", full_gate_cells,
                                              {.states = {"h0", "c0", "i0", "f0", "o0"}});
REEL_EARLY const op::RecurrentOp slstm_op("slstm", slstm_cells,
                                          {.states = {"h0", "c0", "n0", "m0"}});

}  // namespace

FusedCell lstm_cell(LstmVariant variant, bool peepholes, bool masked) {
  if (variant == standard && !peepholes && !masked) return {cell<standard, false, false>, lstm_op};
  return {*cells[2 + 2 * static_cast<int>(variant) + (peepholes ? 1 : 0)], lstm_op};
}
FusedCell layer_norm_lstm_cell() { return {norm_cell, lstm_op}; }
FusedCell full_gate_lstm_cell() { return {full_gate_spec, full_gate_op}; }
FusedCell slstm_cell(ForgetGate forget) {
  return {*slstm_cells[static_cast<int>(forget)], slstm_op};
}

LstmResult lstm(const Tensor& x, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b,
                const Tensor& h0, const Tensor& c0, const SequenceOptions& options, Site site) {
  const CellInputs inputs{w_ih, w_hh, b, {}, {}, {}, {h0, c0}};
  Tensors out = lstm_op(lstm_cell().spec, x, {&inputs, 1}, options, {}, site);
  return {out[0], out[1], out[2]};
}

LstmStep lstm_step(const Tensor& p, const Tensor& h, const Tensor& c, const Tensor& w_hh) {
  const Tensors after = states_after(lstm_cell().spec, p, {h, c}, {{}, w_hh}, {});
  return {after[0], after[1]};
}

}  // namespace reel

namespace reel::op::linked {
void lstm() {}
}  // namespace reel::op::linked
