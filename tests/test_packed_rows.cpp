// Rows that have ended leave the computation: each row of a batch of any lengths has the bits of
// that row by itself, whatever stands beside it.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/cell.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/rng.h>
#include <reel/autograd/tape.h>

#include "testing.h"

using namespace reel;
using testing::same_bits;

namespace {

constexpr Index steps = 7, features = 5, units = 9;

std::vector<FusedCell> all_cells() {
  std::vector<FusedCell> cells{gru_cell(Reset::before),
                               gru_cell(Reset::after),
                               gru_cell(Reset::after, true),
                               minimal_gated_cell(),
                               lstm_cell(),
                               layer_norm_lstm_cell(),
                               full_gate_lstm_cell()};
  for (const Activation activation : {Activation::tanh, Activation::relu}) {
    cells.push_back(rnn_cell(activation));
    cells.push_back(rnn_cell(activation, true));
    cells.push_back(ind_rnn_cell(activation));
  }
  for (const ForgetGate forget : {ForgetGate::sigmoid, ForgetGate::exponential})
    cells.push_back(slstm_cell(forget));
  for (int variant = 0; variant <= static_cast<int>(LstmVariant::no_output_activation); ++variant)
    for (const bool peepholes : {false, true})
      cells.push_back(lstm_cell(static_cast<LstmVariant>(variant), peepholes, true));
  if (!testing::sanitized) return cells;
  std::vector<FusedCell> some;  // every third, as sanitizers are slow
  for (std::size_t i = 0; i < cells.size(); i += 3) some.push_back(cells[i]);
  return some;
}

Tensor draw(const Shape& shape, std::uint64_t seed) { return Rng(seed).normal(shape); }

// Random parameters of a cell, and states for some rows.
CellInputs inputs_of(const CellSpec& cell, Index rows, std::uint64_t seed) {
  const auto& layout = cell.layout;
  CellInputs in{
      draw({layout.inputs * units, features}, seed), {}, draw({layout.inputs * units}, seed + 2)};
  if (layout.recurrent_blocks() > 0)
    in.w_hh = draw({layout.recurrent_blocks() * units, units}, seed + 1);
  if (layout.recurrent_bias >= 0) in.recurrent_bias = draw({units}, seed + 3);
  if (layout.numbers() > 0) in.numbers = draw({layout.numbers() * units}, seed + 4);
  for (int k = 0; k < layout.states; ++k)
    in.states[static_cast<std::size_t>(k)] = draw({rows, units}, seed + 5 + std::uint64_t(k));
  return in;
}

// y, the last states and the gradients of x, the states and the parameters, of a fixed loss.
struct Results {
  Tensors y_and_states, of_rows, of_parameters;
};

Results run(const FusedCell& cell, Tensor x, std::vector<CellInputs> directions,
            const SequenceOptions& options, const Tensors& seeds) {
  Tape tape;
  Tensors of_rows{x = tape.watch(x)}, parameters;
  for (CellInputs& in : directions) {
    for (Tensor* p : {&in.w_ih, &in.w_hh, &in.b, &in.recurrent_bias, &in.numbers})
      if (p->defined()) parameters.push_back(*p = tape.watch(*p));
    for (Tensor& state : in.states)
      if (state.defined()) of_rows.push_back(state = tape.watch(state));
  }
  Results results;
  Tensor loss = scalar(0);
  const Tensors out = cell.over_sequence(cell.spec, x, directions, options, {});
  for (std::size_t i = 0; i < out.size(); ++i) {
    results.y_and_states.push_back(out[i].detach());
    loss = loss + sum(out[i] * seeds[i]);
  }
  const std::size_t rows = of_rows.size();
  of_rows.insert(of_rows.end(), parameters.begin(), parameters.end());
  const auto gradients = tape.gradient(loss, of_rows);
  results.of_rows.assign(gradients.begin(), gradients.begin() + std::ptrdiff_t(rows));
  results.of_parameters.assign(gradients.begin() + std::ptrdiff_t(rows), gradients.end());
  return results;
}

// Row `row` of a tensor whose axis `axis` is the batch, up to its length if it is a sequence.
Tensor row_of(const Tensor& x, Index row, Index length) {
  if (x.rank() == 2) return slice(x, 0, row, row + 1);
  return slice(slice(x, 1, row, row + 1), 0, 0, length);
}

}  // namespace

TEST_CASE("each row of a batch has the bits of that row by itself, in every cell and direction") {
  const std::vector<std::int32_t> counts{3, 7, 1, 5, 7, 0, 2, 6, 3};
  const Index rows = std::ssize(counts);
  const Tensor lengths = tensor({rows}, counts);
  const Tensor x = draw({steps, rows, features}, 1);
  for (const FusedCell& cell : all_cells())
    for (const int directions : {1, 2})
      for (const bool reverse : {false, true}) {
        CAPTURE(std::string(cell.spec.name));
        std::vector<CellInputs> in;
        for (int d = 0; d < directions; ++d)
          in.push_back(inputs_of(cell.spec, rows, 10 + 20 * std::uint64_t(d)));
        Tensors seeds{draw({steps, rows, directions * units}, 2)};
        for (int k = 0; k < directions * cell.spec.layout.states; ++k)
          seeds.push_back(draw({rows, units}, 3 + std::uint64_t(k)));
        const Results batch = run(cell, x, in, {.reverse = reverse, .lengths = lengths}, seeds);
        for (Index row = 0; row < rows; ++row) {
          const Index length = counts[static_cast<std::size_t>(row)];
          if (length == 0) continue;
          std::vector<CellInputs> own = in;
          for (CellInputs& direction : own)
            for (Tensor& state : direction.states)
              if (state.defined()) state = row_of(state, row, length);
          Tensors own_seeds;
          for (const Tensor& seed : seeds) own_seeds.push_back(row_of(seed, row, length));
          const Results alone =
              run(cell, row_of(x, row, length), own, {.reverse = reverse}, own_seeds);
          for (std::size_t i = 0; i < alone.y_and_states.size(); ++i)
            CHECK(same_bits(row_of(batch.y_and_states[i], row, length), alone.y_and_states[i]));
          for (std::size_t i = 0; i < alone.of_rows.size(); ++i)
            CHECK(same_bits(row_of(batch.of_rows[i], row, length), alone.of_rows[i]));
        }
      }
}

// `copies` times the rows of x.
Tensor repeated(const Tensor& x, Index copies) {
  Tensors parts;
  for (Index t = 0; t < x.size(0); ++t) {
    const Tensors same(static_cast<std::size_t>(copies), slice(x, 0, t, t + 1));
    parts.push_back(concat(same, 1));
  }
  return concat(parts, 0);
}

// y, the last states and, where it is watched, the gradient of x.
Tensors results_of(const FusedCell& cell, const Tensor& x, bool reverse, bool watched) {
  CellInputs in = inputs_of(cell.spec, x.size(1), 10);
  in.states = {};
  std::optional<Tape> tape;
  if (watched) tape.emplace();
  const Tensor input = watched ? tape->watch(x) : x;
  Tensors results = cell.over_sequence(cell.spec, input, {&in, 1}, {.reverse = reverse}, {});
  if (watched) results.push_back(tape->gradient(sum(results[0] * results[0]), {input})[0]);
  return results;
}

// One thread makes fewer sums at once than several.
TEST_CASE("a batch so large that few steps get their sums at once has the bits of a small one") {
  const Index rows = 50, copies = 600;
  const FusedCell cells[] = {lstm_cell(), gru_cell(Reset::after), gru_cell(Reset::after, true),
                             layer_norm_lstm_cell()};
  const Tensor x = draw({steps, rows, features}, 1), many = repeated(x, copies);
  for (const FusedCell& cell : cells)
    for (const bool reverse : {false, true})
      for (const bool watched : {false, true}) {
        CAPTURE(std::string(cell.spec.name));
        CAPTURE(reverse);
        CAPTURE(watched);
        const Tensors few = results_of(cell, x, reverse, watched);
        for (const int count : {1, 2}) {
          CAPTURE(count);
          const testing::ThreadsScope scope(count);
          const Tensors all = results_of(cell, many, reverse, watched);
          for (std::size_t i = 0; i < few.size(); ++i) {
            const Index axis = few[i].rank() - 2;
            for (const Index begin : {Index{0}, rows * (copies - 1)})
              CHECK(same_bits(slice(all[i], axis, begin, begin + rows), few[i]));
          }
        }
      }
}

// Seconds for a unit of a cell in a forward or backward pass over a row, per sum: the best of five
// attempts, or, as other programs may disturb all of these, of many more until it is below `goal`.
double seconds_of_unit(const CellSpec& cell, bool backward,
                       double goal = std::numeric_limits<double>::infinity()) {
  constexpr Index n = 512, times = 200;
  const auto& layout = cell.layout;
  const auto numbers = [&](int count, double value) {
    return std::vector<float>(static_cast<std::size_t>(count * n), static_cast<float>(value));
  };
  std::vector<float> sums = numbers(layout.sums, 0.5), operand = numbers(1, 0.5),
                     weights = numbers(layout.weights, 0.1), d_weights = weights,
                     constants = numbers(layout.constants, 1), parts = sums,
                     states = numbers(layout.states, 0.5), gradients = states;
  kernels::UnitRow<float> row{
      n, sums.data(), states.data(), {}, operand.data(), weights.data(), constants.data()};
  kernels::UnitRowGradient<float> gradient{n,
                                           sums.data(),
                                           {},
                                           {},
                                           nullptr,
                                           operand.data(),
                                           operand.data(),
                                           weights.data(),
                                           constants.data(),
                                           d_weights.data(),
                                           parts.data()};
  for (std::size_t k = 0; k < static_cast<std::size_t>(layout.states); ++k) {
    gradient.before[k] = row.states[k] = states.data() + static_cast<Index>(k) * n;
    gradient.gradients[k] = gradients.data() + static_cast<Index>(k) * n;
  }
  double best = std::numeric_limits<double>::infinity();
  for (int attempt = 0; attempt < 5 || (attempt < 500 && best >= goal); ++attempt) {
    const double seconds = testing::cpu_seconds([&] {
      for (Index i = 0; i < times; ++i) {
        std::ranges::fill(sums, 0.5f);
        std::ranges::fill(gradients, 0.5f);
        backward ? cell.of_f32.unit_gradient(gradient) : cell.of_f32.unit(row);
      }
    });
    best = std::min(best, seconds / static_cast<double>(times * n * layout.sums));
  }
  return best;
}

TEST_CASE("the rows of every cell are vector code: about as fast per sum as those of an LSTM") {
  using kernels::Level;
  // The baseline of x86-64 has no blends, which an sLSTM needs.
  if (testing::sanitized || kernels::level() < std::min(Level::avx2, kernels::highest_level))
    return;
  for (const bool backward : {false, true}) {
    const double of_lstm = seconds_of_unit(lstm_cell().spec, backward);
    for (const FusedCell& cell : all_cells()) {
      CAPTURE(std::string(cell.spec.name));
      CAPTURE(backward);
      // Scalar code takes four to eight times as long; the exponential gates of an sLSTM three.
      const double bound = std::string_view(cell.spec.name) == "slstm" ? 5 : 3;
      CHECK(seconds_of_unit(cell.spec, backward, bound * of_lstm) < bound * of_lstm);
    }
  }
}

TEST_CASE(
    "the bits of all results are the same for any number of threads, and whatever the padding") {
  const Index rows = 40;
  Tensor lengths({rows}, i32);
  Rng rng(4);
  for (std::int32_t& length : lengths.edit<std::int32_t>())
    length = static_cast<std::int32_t>(rng.uniform() * (steps + 1));
  const Tensor x = draw({steps, rows, features}, 1);
  Tensor dirty = x;
  for (Index t = 0; t < steps; ++t)
    for (Index row = 0; row < rows; ++row)
      for (Index f = 0; t >= lengths.begin<std::int32_t>()[row] && f < features; ++f)
        dirty.edit<float>()[static_cast<std::size_t>((t * rows + row) * features + f)] =
            f == 0 ? std::numeric_limits<float>::infinity()
                   : std::numeric_limits<float>::quiet_NaN();
  for (const FusedCell& cell : all_cells()) {
    CAPTURE(std::string(cell.spec.name));
    const std::vector<CellInputs> in{inputs_of(cell.spec, rows, 10),
                                     inputs_of(cell.spec, rows, 30)};
    Tensors seeds{draw({steps, rows, 2 * units}, 2)};
    for (int k = 0; k < 2 * cell.spec.layout.states; ++k)
      seeds.push_back(draw({rows, units}, 3 + std::uint64_t(k)));
    const auto all = [&](int threads, const Tensor& input) {
      const testing::ThreadsScope scope(threads);
      const Results r = run(cell, input, in, {.lengths = lengths}, seeds);
      Tensors results = r.y_and_states;
      results.insert(results.end(), r.of_rows.begin(), r.of_rows.end());
      results.insert(results.end(), r.of_parameters.begin(), r.of_parameters.end());
      return results;
    };
    const Tensors expected = all(1, x);
    for (const int threads : {1, 2, 3, 8}) {
      const Tensors results = all(threads, threads == 1 ? dirty : threads == 3 ? dirty : x);
      for (std::size_t i = 0; i < results.size(); ++i) CHECK(same_bits(results[i], expected[i]));
    }
  }
}

TEST_CASE("without bias and initial states a layer computes what it does with zeros there") {
  const Index rows = 3;
  const Tensor x = draw({steps, rows, features}, 1);
  for (const FusedCell& cell : all_cells()) {
    CAPTURE(std::string(cell.spec.name));
    CellInputs absent = inputs_of(cell.spec, rows, 10);
    CellInputs zero = absent;
    absent.b = absent.recurrent_bias = Tensor();
    zero.b = zeros(zero.b.shape());
    if (zero.recurrent_bias.defined()) zero.recurrent_bias = zeros({units});
    for (std::size_t k = 0; k < static_cast<std::size_t>(cell.spec.layout.states); ++k) {
      absent.states[k] = Tensor();
      zero.states[k] = zeros({rows, units});
    }
    const Tensors a = cell.over_sequence(cell.spec, x, {&absent, 1}, {}, {});
    const Tensors b = cell.over_sequence(cell.spec, x, {&zero, 1}, {}, {});
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(same_bits(a[i], b[i]));
  }
}
