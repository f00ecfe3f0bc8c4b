// What a recurrent layer shows of its backward pass.
#include <doctest/doctest.h>

#include <reel/reel.h>

#include <string>
#include <vector>

using namespace reel;

namespace {

// The names of a cell's gates in the order of the blocks of w_ih.
std::vector<std::string> gates_of(const CellSpec& cell) {
  std::vector<std::string> names;
  for (int block = 0; block < cell.layout.inputs; ++block)
    names.emplace_back(cell.layout.gates[static_cast<std::size_t>(
        cell.layout.input[static_cast<std::size_t>(block)])]);
  return names;
}

}  // namespace

TEST_CASE("the gates of a cell have the names of its parameters' blocks") {
  const Params params(1, f64);
  const nn::Gru after(params / "after", 2, 3), before(params / "before", 2, 3, {.reset = Reset::before});
  CHECK(gates_of(after.cell.fused().spec) == after.cell.b.entry()->blocks);
  CHECK(gates_of(before.cell.fused().spec) == before.cell.b.entry()->blocks);
  using enum LstmVariant;
  for (const LstmVariant variant :
       {standard, coupled, no_input_gate, no_forget_gate, no_output_gate, no_input_activation,
        no_output_activation})
    for (const bool peepholes : {false, true}) {
      const Params own(1, f64);
      const nn::Lstm lstm(own, 2, 3, {.variant = variant, .peepholes = peepholes});
      CHECK(gates_of(lstm.cell.fused().spec) == lstm.cell.b.entry()->blocks);
    }
}

TEST_CASE("a cell knows what its sums keep, and which gate forgets") {
  using enum kernels::GateForm;
  const auto forms = [](const CellSpec& cell) {
    std::vector<kernels::GateForm> all;
    for (int sum = 0; sum < cell.layout.sums; ++sum) all.push_back(cell.form(sum));
    return all;
  };
  const auto forget = [](const CellSpec& cell) {
    const int sum = cell.layout.forget;
    return std::string(sum < 0 ? "" : cell.layout.gates[static_cast<std::size_t>(sum)]);
  };
  using Forms = std::vector<kernels::GateForm>;
  CHECK(forms(rnn_cell(Activation::tanh).spec) == Forms{tanh});
  CHECK(forms(rnn_cell(Activation::relu).spec) == Forms{number});
  CHECK(forms(gru_cell(Reset::after).spec) == Forms{tanh, sigmoid, sigmoid, number});
  CHECK(forms(gru_cell(Reset::before).spec) == Forms{sigmoid, sigmoid, tanh});
  CHECK(forms(lstm_cell().spec) == Forms{sigmoid, sigmoid, tanh, sigmoid});
  CHECK(forms(lstm_cell(LstmVariant::no_input_activation, true).spec) ==
        Forms{sigmoid, sigmoid, number, sigmoid});
  CHECK(forget(rnn_cell(Activation::tanh).spec).empty());
  CHECK(forget(gru_cell(Reset::after).spec) == "update");
  CHECK(forget(gru_cell(Reset::before).spec) == "update");
  CHECK(forget(lstm_cell().spec) == "forget");
  CHECK(forget(lstm_cell(LstmVariant::coupled).spec) == "input");
  CHECK(lstm_cell(LstmVariant::coupled).spec.layout.forget_is_complement);
  CHECK(forget(lstm_cell(LstmVariant::no_forget_gate).spec).empty());
}
