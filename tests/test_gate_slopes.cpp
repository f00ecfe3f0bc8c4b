// Slopes of gates far out, where a gate rounds to 0 or 1: kernels, specifications and cells against
// dual numbers in long double, in which every gate has its complement.
#include <doctest/doctest.h>

#include <reel/reel.h>

#include <cmath>
#include <vector>

#include "testing.h"

using namespace reel;

namespace {

using Real = long double;

struct Dual {
  Real value = 0, slope = 0;
};
Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.slope + b.slope}; }
Dual operator*(Dual a, Dual b) {
  return {a.value * b.value, a.value * b.slope + a.slope * b.value};
}
Dual sigmoid_of(Dual x) {
  const Real e = std::exp(-std::fabs(x.value));
  return {(x.value < 0 ? e : 1) / (1 + e), x.slope * (e / ((1 + e) * (1 + e)))};
}
Dual tanh_of(Dual x) {
  const Real e = std::exp(-2 * std::fabs(x.value));
  return {std::tanh(x.value), x.slope * (4 * e / ((1 + e) * (1 + e)))};
}
Dual minus(Dual x) { return {-x.value, -x.slope}; }

enum class Kind { rnn, gru_after, gru_before, lstm };
constexpr Kind kinds[] = {Kind::rnn, Kind::gru_after, Kind::gru_before, Kind::lstm};

Index gates_of(Kind kind) { return kind == Kind::rnn ? 1 : kind == Kind::lstm ? 4 : 3; }
bool is_gru(Kind kind) { return kind == Kind::gru_after || kind == Kind::gru_before; }

// One unit, one feature. The numbers are positive, so that little cancels.
struct Problem {
  Kind kind;
  DType dtype;
  std::vector<double> b;
  std::vector<std::int32_t> lengths{3, 2, 0, 1};
  bool reverse = false;

  static constexpr Index steps = 3, rows = 4;
  static constexpr double h0 = 0.5, c0 = 0.25, b_hn = 0.125;
  double x(Index t, Index row) const { return 0.25 + 0.125 * static_cast<double>(t + row); }
  double w_ih(std::size_t gate) const { return 0.125 * static_cast<double>(1 + gate); }
  double w_hh(std::size_t gate) const { return 0.0625 * static_cast<double>(4 - gate); }
};

// The state h after the last step of a row, summed over the steps; `seed` is the number that has
// slope 1: a gate's bias, or the state h0 (one beyond the biases), or b_hn (two beyond).
Dual sum_of_row(const Problem& p, Index row, std::size_t seed) {
  const std::size_t gates = p.b.size();
  Dual h{p.h0, seed == gates ? 1.0L : 0}, c{p.c0}, total;
  const Dual b_hn{p.b_hn, seed == gates + 1 ? 1.0L : 0};
  const auto u = [&](std::size_t gate, Dual state) { return Dual{p.w_hh(gate)} * state; };
  for (Index s = 0; s < p.steps; ++s) {
    const Index t = p.reverse ? p.steps - 1 - s : s;
    if (t >= p.lengths[static_cast<std::size_t>(row)]) continue;
    const auto in = [&](std::size_t gate) {
      return Dual{static_cast<Real>(p.w_ih(gate)) * p.x(t, row) + p.b[gate],
                  seed == gate ? 1.0L : 0};
    };
    const auto sum = [&](std::size_t gate) { return in(gate) + u(gate, h); };
    if (p.kind == Kind::rnn) {
      h = tanh_of(sum(0));
    } else if (p.kind == Kind::lstm) {
      c = sigmoid_of(sum(1)) * c + sigmoid_of(sum(0)) * tanh_of(sum(2));
      h = sigmoid_of(sum(3)) * tanh_of(c);
    } else {
      const Dual r = sigmoid_of(sum(0)), z = sum(1);
      const Dual inner = p.kind == Kind::gru_after ? r * (u(2, h) + b_hn) : u(2, r * h) + b_hn;
      h = sigmoid_of(minus(z)) * tanh_of(in(2) + inner) + sigmoid_of(z) * h;
    }
    total = total + h;
  }
  return total;
}

std::vector<double> expected_slopes(const Problem& p) {
  std::vector<double> slopes;
  for (std::size_t seed = 0; seed < p.b.size() + (is_gru(p.kind) ? 2 : 1); ++seed) {
    Real total = 0;
    for (Index row = 0; row < p.rows; ++row) total += sum_of_row(p, row, seed).slope;
    slopes.push_back(static_cast<double>(total));
  }
  return slopes;
}

enum class Way { kernel, kept, segments, graph, cells };
constexpr Way ways[] = {Way::kernel, Way::kept, Way::segments, Way::graph, Way::cells};

// The layer, or its cell unrolled.
Tensor outputs(const Problem& p, const Tensors& in, Way way) {
  SequenceOptions options{.reverse = p.reverse,
                          .lengths = tensor({p.rows}, std::span<const std::int32_t>(p.lengths)),
                          .segment = way == Way::segments ? 2 : 0};
  const Tensor c0 = full({p.rows, 1}, p.c0, p.dtype);
  const Reset reset = p.kind == Kind::gru_before ? Reset::before : Reset::after;
  if (way != Way::cells) {
    if (p.kind == Kind::rnn)
      return rnn(in[0], in[1], in[2], in[3], in[4], Activation::tanh, options).y;
    if (p.kind == Kind::lstm) return lstm(in[0], in[1], in[2], in[3], in[4], c0, options).y;
    return gru(in[0], in[1], in[2], in[3], in[5], in[4], reset, options).y;
  }
  Tensor h = in[4], c = c0, total;
  Tensors y(static_cast<std::size_t>(p.steps));
  for (Index s = 0; s < p.steps; ++s) {
    const Index t = p.reverse ? p.steps - 1 - s : s;
    const Tensor active = active_rows(*options.lengths, t);
    const Tensor gates = affine(select(in[0], 0, t), in[1], in[3]);
    Tensor next, next_c = c;
    if (p.kind == Kind::rnn) {
      next = rnn_step(gates, h, in[2], Activation::tanh);
    } else if (p.kind == Kind::lstm) {
      const LstmStep step = lstm_step(gates, h, c, in[2]);
      next = step.h, next_c = step.c;
    } else {
      next = gru_step(gates, h, in[2], in[5], reset);
    }
    y[static_cast<std::size_t>(t)] = where(active, next, scalar(0, p.dtype));
    h = where(active, next, h), c = where(active, next_c, c);
  }
  return stack(y);
}

// x, w_ih, w_hh, b, h0, b_hn.
Tensors inputs_of(const Problem& p, Tape& tape) {
  const Index gates = gates_of(p.kind);
  const auto column = [&](auto number) {
    std::vector<double> numbers;
    for (Index gate = 0; gate < gates; ++gate)
      numbers.push_back(number(static_cast<std::size_t>(gate)));
    return tensor({gates, 1}, numbers, p.dtype);
  };
  std::vector<double> x;
  for (Index t = 0; t < p.steps; ++t)
    for (Index row = 0; row < p.rows; ++row) x.push_back(p.x(t, row));
  return {tape.watch(tensor({p.steps, p.rows, 1}, x, p.dtype)),
          tape.watch(column([&](std::size_t gate) { return p.w_ih(gate); })),
          tape.watch(column([&](std::size_t gate) { return p.w_hh(gate); })),
          tape.watch(tensor({gates}, p.b, p.dtype)),
          tape.watch(full({p.rows, 1}, p.h0, p.dtype)),
          tape.watch(full({1}, p.b_hn, p.dtype))};
}

std::vector<double> found_slopes(const Problem& p, Way way) {
  Tape tape;
  const Tensors in = inputs_of(p, tape);
  const Tensor y = sum(outputs(p, in, way));
  std::vector<Tensor> of{in[3], in[4]};
  if (is_gru(p.kind)) of.push_back(in[5]);
  const auto slopes =
      tape.gradient(y, of, {.create_graph = way == Way::graph, .keep = way == Way::kept});
  std::vector<double> found = slopes[0].to_vector();
  found.push_back(sum(slopes[1]).item());
  if (is_gru(p.kind)) found.push_back(slopes[2].item());
  return found;
}

void check_slopes(const Problem& p) {
  // A pre-activation of 40 is itself rounded, and that moves its slope by as much. Slopes far below
  // the least normal number are not told from it.
  const bool single = p.dtype == f32;
  const double tolerance = single ? 1e-5 : 1e-13;
  const double least = single ? 4e-37 : 7e-307;
  const std::vector<double> right = expected_slopes(p);
  for (const Way way : ways) {
    CAPTURE(static_cast<int>(way));
    const std::vector<double> found = found_slopes(p, way);
    REQUIRE(found.size() == right.size());
    for (std::size_t i = 0; i < right.size(); ++i) {
      CAPTURE(i);
      CAPTURE(found[i]);
      CAPTURE(right[i]);
      CHECK(std::abs(found[i] - right[i]) <= tolerance * std::abs(right[i]) + least);
    }
  }
}

}  // namespace

TEST_CASE("numerics: gates far out have their slopes, in the layers and their cells") {
  for (const Kind kind : kinds)
    for (const DType dtype : {f32, f64})
      for (const double size : {0.5, 10.0, 14.0, 20.0, 40.0, 100.0})
        for (const double bias : {size, -size})
          for (const bool reverse : {false, true}) {
            CAPTURE(static_cast<int>(kind));
            CAPTURE(name_of(dtype));
            CAPTURE(bias);
            CAPTURE(reverse);
            const auto gates = static_cast<std::size_t>(gates_of(kind));
            Problem p{.kind = kind, .dtype = dtype, .b = std::vector(gates, bias)};
            p.reverse = reverse;
            check_slopes(p);  // all gates far out, then each one alone
            for (std::size_t gate = 0; gate < gates; ++gate) {
              CAPTURE(gate);
              p.b.assign(gates, 0.25);
              p.b[gate] = bias;
              check_slopes(p);
            }
          }
}

TEST_CASE("numerics: gates far out have their second derivatives") {
  for (const Kind kind : kinds)
    for (const DType dtype : {f32, f64})
      for (const double bias : {10.0, -10.0, 14.0, -14.0})
        for (std::size_t gate = 0; gate < static_cast<std::size_t>(gates_of(kind)); ++gate) {
          CAPTURE(static_cast<int>(kind));
          CAPTURE(name_of(dtype));
          CAPTURE(bias);
          CAPTURE(gate);
          Problem p{.kind = kind,
                    .dtype = dtype,
                    .b = std::vector(static_cast<std::size_t>(gates_of(kind)), 0.25)};
          const double step = 0x1p-16;
          p.b[gate] = bias + step;
          double right = expected_slopes(p)[gate];
          p.b[gate] = bias - step;
          right = (right - expected_slopes(p)[gate]) / (2 * step);
          p.b[gate] = bias;
          Tape tape;
          const Tensors in = inputs_of(p, tape);
          const Tensor y = sum(outputs(p, in, Way::graph));
          const Tensor slopes = tape.gradient(y, {in[3]}, {.create_graph = true})[0];
          const Tensor slope = select(slopes, 0, static_cast<Index>(gate));
          const double found = tape.gradient(slope, {in[3]})[0].to_vector()[gate];
          CAPTURE(found);
          CAPTURE(right);
          CHECK(std::abs(found - right) <= (dtype == f32 ? 2e-5 : 1e-8) * std::abs(right));
        }
}
