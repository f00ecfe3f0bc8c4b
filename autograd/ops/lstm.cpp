#include <reel/autograd/unit_cell.h>

namespace reel {
namespace {

// A gate that is always open.
struct Open {};
const auto& operator*(Open, const auto& x) { return x; }

// The sums are i, f, g, o, and the peepholes those of i, f, o, each without the gates that the
// variant lacks.
template <LstmVariant variant, bool peepholes>
struct LstmUnit {
  static constexpr bool has_i = variant != LstmVariant::no_input_gate;
  static constexpr bool has_f =
      variant != LstmVariant::no_forget_gate && variant != LstmVariant::coupled;
  static constexpr bool has_o = variant != LstmVariant::no_output_gate;
  static constexpr int f = has_i, g = f + has_f, o = g + 1;  // where they are; i is first
  static constexpr kernels::CellLayout layout = [] {
    constexpr bool coupled = variant == LstmVariant::coupled;
    kernels::CellLayout all{.sums = o + has_o,
                            .states = 2,
                            .weights = peepholes ? o + has_o - 1 : 0,
                            .forget = coupled ? 0
                                      : has_f ? f
                                              : -1,
                            .forget_is_complement = coupled};
    auto name = all.gates.begin();
    if (has_i) *name++ = "input";
    if (has_f) *name++ = "forget";
    *name++ = "cell";
    if (has_o) *name = "output";
    return all;
  }();

  // The gate of sum k, which sees c through peephole `hole`.
  template <bool exists, int k, int hole>
  static auto gate(const auto& sums, const auto& c, const auto&... weights) {
    if constexpr (!exists)
      return Open();
    else if constexpr (peepholes)
      return sigmoid(std::get<k>(sums) + std::get<hole>(weights...) * c);
    else
      return sigmoid(std::get<k>(sums));
  }

  static auto unit(const auto& sums, const auto& before, const auto&... weights) {
    const auto& c = std::get<1>(before);
    const auto input = gate<has_i, 0, 0>(sums, c, weights...);
    const auto forget = [&] {
      if constexpr (variant == LstmVariant::coupled)
        return 1 - input;
      else
        return gate<has_f, f, f>(sums, c, weights...);
    }();
    const auto candidate = [&] {
      if constexpr (variant == LstmVariant::no_input_activation)
        return number(std::get<g>(sums));
      else
        return tanh(std::get<g>(sums));
    }();
    const auto c_next = forget * c + input * candidate;
    const auto output = gate<has_o, o, g>(sums, c_next, weights...);
    if constexpr (variant == LstmVariant::no_output_activation)
      return std::tuple(output * c_next, c_next);
    else
      return std::tuple(output * tanh(c_next), c_next);
  }
};

template <LstmVariant variant, bool peepholes>
constinit const CellSpec cell = cell_spec<LstmUnit<variant, peepholes>>("lstm");

using enum LstmVariant;
constinit const CellSpec* const cells[][2] = {
    {&cell<standard, false>, &cell<standard, true>},
    {&cell<coupled, false>, &cell<coupled, true>},
    {&cell<no_input_gate, false>, &cell<no_input_gate, true>},
    {&cell<no_forget_gate, false>, &cell<no_forget_gate, true>},
    {&cell<no_output_gate, false>, &cell<no_output_gate, true>},
    {&cell<no_input_activation, false>, &cell<no_input_activation, true>},
    {&cell<no_output_activation, false>, &cell<no_output_activation, true>},
};

REEL_EARLY const op::RecurrentOp lstm_op("lstm", std::span(&cells[0][0], 2 * std::size(cells)),
                                         {.states = {"h0", "c0"}, .weights = "peepholes"});

}  // namespace

FusedCell lstm_cell(LstmVariant variant, bool peepholes) {
  return {*cells[static_cast<int>(variant)][peepholes ? 1 : 0], lstm_op};
}

LstmResult lstm(const Tensor& x, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b,
                const Tensor& h0, const Tensor& c0, const SequenceOptions& options, Site site) {
  const CellInputs inputs{w_ih, w_hh, b, {}, {}, {h0, c0}};
  Tensors out = lstm_op(cell<standard, false>, x, {&inputs, 1}, options, site);
  return {out[0], out[1], out[2]};
}

LstmStep lstm_step(const Tensor& p, const Tensor& h, const Tensor& c, const Tensor& w_hh) {
  const Tensors after = cell<standard, false>.step(p, {h, c}, {{}, w_hh});
  return {after[0], after[1]};
}

}  // namespace reel
