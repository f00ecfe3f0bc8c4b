// What nn::Diagnostics tells of gates, of what they remember, and of the Jacobian of a step.
#include <doctest/doctest.h>

#include <reel/autograd/unit_cell.h>
#include <reel/reel.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "layer_reports.h"

using namespace reel;
using namespace reel::testing;

namespace {

// h' = (1 - z) h + z tanh(n), whose sums have no names but one.
struct Leaky {
  static constexpr const char* name = "leaky";
  static constexpr kernels::CellLayout layout{
      .sums = 2, .states = 1, .gates = {nullptr, "new"}, .forget = 0, .forget_is_complement = true};

  static auto unit(const auto& sums, const auto& before) {
    const auto& [z_sum, n_sum] = sums;
    const auto z = sigmoid(z_sum);
    return std::tuple((1 - z) * std::get<0>(before) + z * tanh(n_sum));
  }
};

// The largest singular value of J: a high power of JᵀJ, by squaring, maps almost every vector to
// the one that J makes longest.
double largest_singular_value(const Tensor& jacobian) {
  Tensor power = matmul(jacobian, jacobian, true, false);
  for (int i = 0; i < 15; ++i) {
    power = (1 / norm(power).item()) * power;
    power = matmul(power, power);
  }
  const Tensor v = matmul(power, ones({power.size(0), 1}, f64));
  return (norm(matmul(jacobian, v)) / norm(v)).item();
}

// The norms of the Jacobians of all steps of all rows, by the definition.
template <class C>
Numbers jacobian_norms(const C& cell, const Tensor& x, const Tensor& lengths, bool reverse,
                       const std::vector<Tensor>& initial) {
  Numbers norms;
  const Index h = cell.output_size();
  for (Index row = 0; row < x.size(1); ++row) {
    const Index steps = lengths.defined() ? lengths.begin<std::int32_t>()[row] : x.size(0);
    std::vector<Tensor> of_row;
    for (const Tensor& s : initial) of_row.push_back(slice(s, 0, row, row + 1));
    Tensor state = concat(of_row, -1);
    for (Index s = 0; s < steps; ++s) {
      const Index t = reverse ? steps - 1 - s : s;
      const auto step = [&](const Tensor& before) {
        const std::vector<Tensor> parts = [&] {
          const Tensors all = split(before, before.size(1) / h, -1);
          return std::vector<Tensor>(all.begin(), all.end());
        }();
        const typename C::State from = nn::unflatten(typename C::State(), parts);
        return concat(nn::flatten(cell(slice(x[t], 0, row, row + 1), from).state), -1);
      };
      norms.push_back(largest_singular_value(
          jacobian([&](std::span<const Tensor> in) { return step(in[0]); }, state)));
      state = step(state);
    }
  }
  return norms;
}

template <class L, class... Options>
void check_jacobians(const Options&... options) {
  const Params params(1, f64);
  const L layer(params / "layer", 3, 4, options...);
  const Tensor x = draw({6, 5, 3}, 2);
  const typename L::State form;
  std::vector<Tensor> initial;
  for (std::size_t k = 0; k < nn::flatten(form).size(); ++k)
    initial.push_back(draw({5, 4}, 10 + k));
  for (const bool reverse : {false, true})
    for (const Tensor& lengths : {Tensor(), some_lengths()}) {
      SequenceOptions call{.reverse = reverse};
      if (lengths.defined()) call.lengths = lengths;
      Numbers expected = jacobian_norms(layer.cell, x, lengths, reverse, initial);
      const auto reports = reports_of(layer, x, nn::unflatten(form, initial), call,
                                      {.jacobians = 100, .iterations = 20000});
      REQUIRE(reports.size() == 1);
      Numbers norms = reports[0].jacobian_norms;
      std::ranges::sort(norms);
      std::ranges::sort(expected);
      check_close(norms, expected, 1e-4);
    }
}

}  // namespace

TEST_CASE("Diagnostics: |J| is the largest singular value of a step's Jacobian") {
  SUBCASE("rnn") { check_jacobians<nn::Rnn>(); }
  SUBCASE("gru") { check_jacobians<nn::Gru>(); }
  SUBCASE("gru, reset before") { check_jacobians<nn::Gru>(nn::GruOptions{.reset = Reset::before}); }
  SUBCASE("lstm: of h and c") { check_jacobians<nn::Lstm>(); }
}

TEST_CASE("Diagnostics: histograms, saturated shares and time constants of an lstm's gates") {
  const Params params(1, f64);
  const nn::Lstm lstm(params / "lstm", 3, 4, {.weight_init = nn::init::uniform(3)});
  const Tensor x = draw({6, 5, 3}, 2);
  const CellInputs in = lstm.cell.params().values();
  // The gates of all tokens, by the definition.
  const Tensor y = lstm(x).y;
  const Tensor before = concat({zeros({1, 5, 4}, f64), slice(y, 0, 0, 5)}, 0);
  const Tensors sums =
      split(affine(x, in.w_ih, in.b) + matmul(before, in.w_hh, false, true), 4, -1);
  const std::vector<std::pair<std::string, Tensor>> gates{{"input", sigmoid(sums[0])},
                                                          {"forget", sigmoid(sums[1])},
                                                          {"cell", reel::tanh(sums[2])},
                                                          {"output", sigmoid(sums[3])}};
  const auto reports = reports_of(lstm, x);
  REQUIRE(reports.size() == 1);
  REQUIRE(reports[0].gates.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    const nn::GateReport& report = reports[0].gates[i];
    CAPTURE(gates[i].first);
    CHECK(report.name == gates[i].first);
    CHECK(report.lowest == (report.name == "cell" ? -1 : 0));
    nn::GateReport expected{.name = report.name, .lowest = report.lowest};
    double saturated = 0;
    for (const double value : gates[i].second.to_vector()) {
      const double place = (value - report.lowest) / (1 - report.lowest);
      ++expected.histogram[static_cast<std::size_t>(20 * place)];
      saturated += value < report.lowest + 0.05 || value > 0.95;
    }
    CHECK(report.histogram == expected.histogram);
    CHECK(report.saturated == doctest::Approx(saturated / 120));
    CHECK(saturated > 0);
    CHECK(saturated < 120);
  }
  Numbers taus;
  for (const double f : mean(gates[1].second, {0, 1}).to_vector()) taus.push_back(-1 / std::log(f));
  std::ranges::sort(taus);
  REQUIRE(reports[0].time_constants);
  const nn::TimeConstants& tau = *reports[0].time_constants;
  check_close({tau.p5, tau.median, tau.p95}, {taus[0], taus[2], taus[3]});
}

TEST_CASE("Diagnostics: time constants of other cells") {
  const Tensor x = draw({6, 5, 3}, 2);
  const auto time_constants = [&](const auto& layer) {
    return reports_of(layer, x).at(0).time_constants;
  };
  const Params params(1, f64);
  CHECK_FALSE(time_constants(nn::Rnn(params / "rnn", 3, 4)));
  CHECK(time_constants(nn::Gru(params / "gru", 3, 4)));
  CHECK_FALSE(
      time_constants(nn::Lstm(params / "no_f", 3, 4, {.variant = LstmVariant::no_forget_gate})));
  // With weights and biases of 0 but for the bias of i, -2, all f are 1 - σ(-2) = σ(2).
  nn::Lstm coupled(params / "coupled", 3, 4, {.variant = LstmVariant::coupled});
  coupled.cell.w_ih.set(zeros({12, 3}, f64));
  coupled.cell.w_hh.set(zeros({12, 4}, f64));
  coupled.cell.b.set(concat({full({4}, -2, f64), zeros({8}, f64)}, 0));
  const auto tau = time_constants(coupled);
  REQUIRE(tau);
  const double expected = 1 / std::log1p(std::exp(-2.0));
  CHECK(tau->p5 == doctest::Approx(expected).epsilon(1e-12));
  CHECK(tau->p95 == doctest::Approx(expected).epsilon(1e-12));
  // Where f rounds to 1 in f32, τ does not become infinite.
  const Params f32_params(1);
  nn::Lstm lstm(f32_params / "lstm", 3, 4, {.forget_bias = 30});
  lstm.cell.w_ih.set(zeros({16, 3}));
  lstm.cell.w_hh.set(zeros({16, 4}));
  const auto long_tau = reports_of(lstm, x.to(f32)).at(0).time_constants;
  CHECK(long_tau->median == doctest::Approx(std::exp(30.0)).epsilon(1e-4));
}

TEST_CASE("Diagnostics: a cell of a program's own") {
  const CellSpec spec = cell_spec<Leaky>(Leaky::name);
  const CellSpec* variants[] = {&spec};
  const op::RecurrentOp leaky(Leaky::name, variants);
  // Without weights all gates are those of the biases.
  const CellInputs inputs{zeros({8, 3}, f64), zeros({8, 4}, f64),
                          concat({full({4}, -1, f64), full({4}, 3, f64)}, 0)};
  nn::Diagnostics diagnostics;
  {
    const auto watch = diagnostics.watch();
    Tape tape;
    const Tensor x = tape.watch(draw({6, 5, 3}, 2));
    tape.gradient(project(leaky(spec, x, {&inputs, 1}, {}, {})[0]), {x});
  }
  const auto reports = diagnostics.layers();
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].name == "leaky");
  REQUIRE(reports[0].gates.size() == 2);
  CHECK(reports[0].gates[0].name == "sum 0");
  CHECK(reports[0].gates[1].name == "new");
  CHECK(reports[0].gates[0].saturated == 0);
  CHECK(reports[0].gates[1].saturated == 1);  // tanh 3 = 0.995
  REQUIRE(reports[0].time_constants);
  CHECK(reports[0].time_constants->median == doctest::Approx(1 / std::log1p(std::exp(-1.0))));
  // ∂h'/∂h = 1 - z on the diagonal.
  for (const double norm : reports[0].jacobian_norms)
    CHECK(norm == doctest::Approx(1 / (1 + std::exp(-1.0))));
}
