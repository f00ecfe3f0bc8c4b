#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <reel/autograd/cell.h>

#include "references.h"

namespace reel::testing {
namespace {

struct ScanDirection {
  bool reverse;
};

using Vector = std::vector<double>;

double sigmoid(double x) {
  return x > 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}

// Rows [begin, begin + count) of w, times v.
Vector product(const Array& w, Index begin, Index count, const Vector& v) {
  const Index columns = w.shape[1];
  Vector y(static_cast<std::size_t>(count));
  for (Index k = 0; k < count; ++k)
    for (Index j = 0; j < columns; ++j)
      y[static_cast<std::size_t>(k)] +=
          w[(begin + k) * columns + j] * v[static_cast<std::size_t>(j)];
  return y;
}

Vector row_of(const Array& x, Index row, Index size) {
  return Vector(x.x.begin() + row * size, x.x.begin() + (row + 1) * size);
}

// The inputs of one direction.
struct Parameters {
  Array w_ih, w_hh, b, recurrent_bias, weights;
  Arrays states;
};

Parameters parameters_of(const Arrays& in, const CellCall& call, Index direction) {
  const auto states = static_cast<std::size_t>(call.cell->layout.states);
  std::size_t next = 2 + static_cast<std::size_t>(direction) *
                             (3 + call.takes_recurrent_bias + call.takes_weights + states);
  Parameters p;
  for (Array* to : {&p.w_ih, &p.w_hh, &p.b}) *to = in[next++];
  if (call.takes_recurrent_bias) p.recurrent_bias = in[next++];
  if (call.takes_weights) p.weights = in[next++];
  for (std::size_t k = 0; k < states; ++k) p.states.push_back(in[next++]);
  return p;
}

// Runs step(p, states, parameters), p = W x + b, over each row of x [T, B, D] up to its length, in
// each direction. Returns y, the first of the states at all steps and zero beyond the length, and
// the last states.
template <class Step>
Arrays over_sequence(const Arrays& in, const CellCall& call, Step step) {
  const Array &x = in[0], &lengths = in[1];
  const auto states = static_cast<std::size_t>(call.cell->layout.states);
  const Index steps = x.shape[0], rows = x.shape[1], features = x.shape[2];
  const Index directions = call.both ? 2 : 1;
  const Index units = parameters_of(in, call, 0).w_ih.shape[0] / call.cell->layout.inputs;
  Arrays out{Array(Shape{steps, rows, directions * units})};
  for (Index d = 0; d < directions; ++d) {
    const Parameters parameters = parameters_of(in, call, d);
    const bool reverse = call.reverse != (d == 1);
    const std::size_t first = out.size();
    for (std::size_t k = 0; k < states; ++k) out.emplace_back(Shape{rows, units});
    for (Index row = 0; row < rows; ++row) {
      std::vector<Vector> state;
      for (const Array& initial : parameters.states)
        state.push_back(initial.given() ? row_of(initial, row, units)
                                        : Vector(static_cast<std::size_t>(units)));
      for (Index s = 0; s < steps; ++s) {
        const Index t = reverse ? steps - 1 - s : s;
        if (lengths.given() && static_cast<double>(t) >= lengths[row]) continue;
        const Index gates = parameters.w_ih.shape[0];
        Vector p = product(parameters.w_ih, 0, gates, row_of(x, t * rows + row, features));
        for (std::size_t k = 0; parameters.b.given() && k < p.size(); ++k)
          p[k] += parameters.b.x[k];
        step(p, state, parameters);
        std::copy(state[0].begin(), state[0].end(),
                  out[0].x.begin() + ((t * rows + row) * directions + d) * units);
      }
      for (std::size_t k = 0; k < states; ++k)
        std::copy(state[k].begin(), state[k].end(), out[first + k].x.begin() + row * units);
    }
  }
  return out;
}

Arrays rnn(const Arrays& in, const CellCall& call) {
  const bool tanh = call.cell == &rnn_cell(Activation::tanh).spec;
  return over_sequence(in, call, [&](const Vector& p, auto& states, const Parameters& w) {
    const Vector u = product(w.w_hh, 0, std::ssize(p), states[0]);
    for (std::size_t j = 0; j < p.size(); ++j) {
      const double sum = p[j] + u[j];
      states[0][j] = tanh ? std::tanh(sum) : sum < 0 ? 0 : sum;
    }
  });
}

Arrays lstm(const Arrays& in, const CellCall& call) {
  using enum LstmVariant;
  LstmVariant variant = standard;
  bool peepholes = false;
  for (int v = 0; v < 7; ++v)
    for (const bool holes : {false, true})
      if (call.cell == &lstm_cell(static_cast<LstmVariant>(v), holes).spec) {
        variant = static_cast<LstmVariant>(v);
        peepholes = holes;
      }
  return over_sequence(in, call, [&](const Vector& p, auto& states, const Parameters& w) {
    const std::size_t n = states[0].size();
    const Vector u = product(w.w_hh, 0, std::ssize(p), states[0]);
    for (std::size_t j = 0; j < n; ++j) {
      double& c = states[1][j];
      std::size_t next = 0, next_hole = 0;
      const auto sum = [&] {
        const std::size_t k = next++ * n + j;
        return p[k] + u[k];
      };
      const auto gate = [&](double cell) {
        return sigmoid(sum() + (peepholes ? w.weights.x[next_hole++ * n + j] * cell : 0));
      };
      const double i = variant == no_input_gate ? 1 : gate(c);
      const double f = variant == no_forget_gate ? 1 : variant == coupled ? 1 - i : gate(c);
      const double candidate = sum();
      c = f * c + i * (variant == no_input_activation ? candidate : std::tanh(candidate));
      const double o = variant == no_output_gate ? 1 : gate(c);
      states[0][j] = o * (variant == no_output_activation ? c : std::tanh(c));
    }
  });
}

Arrays gru(const Arrays& in, const CellCall& call) {
  const bool before_product = call.cell == &gru_cell(Reset::before).spec;
  return over_sequence(in, call, [&](const Vector& p, auto& states, const Parameters& w) {
    Vector& h = states[0];
    const std::size_t n = h.size();
    const Index units = std::ssize(h);
    const Vector u = product(w.w_hh, 0, 2 * units, h);
    Vector r(n), z(n), operand(n);
    for (std::size_t j = 0; j < n; ++j) {
      r[j] = sigmoid(p[j] + u[j]);
      z[j] = sigmoid(p[n + j] + u[n + j]);
      operand[j] = before_product ? r[j] * h[j] : h[j];
    }
    const Vector inner = product(w.w_hh, 2 * units, units, operand);
    for (std::size_t j = 0; j < n; ++j) {
      const double recurrent = inner[j] + (w.recurrent_bias.given() ? w.recurrent_bias.x[j] : 0);
      const double candidate =
          std::tanh(p[2 * n + j] + (before_product ? recurrent : r[j] * recurrent));
      h[j] = (1 - z[j]) * candidate + z[j] * h[j];
    }
  });
}

// The steps of a row in the order in which a scan runs through them.
std::vector<Index> steps_of_row(const Arrays& in, Index row, bool reverse) {
  const double length = in[3].given() ? in[3][row] : static_cast<double>(in[0].shape[0]);
  std::vector<Index> steps(static_cast<std::size_t>(length));
  std::iota(steps.begin(), steps.end(), 0);
  if (reverse) std::ranges::reverse(steps);
  return steps;
}

Arrays linear_scan(const Arrays& in, const ScanDirection& kind) {
  const Index units = in[0].shape[2], columns = in[0].shape[1] * units;
  Array y(in[0].shape), h = in[2].given() ? in[2] : Array(in[0].shape.erase(0));
  for (Index j = 0; j < columns; ++j)
    for (const Index t : steps_of_row(in, j / units, kind.reverse)) {
      const Index at = t * columns + j;
      y[at] = h[j] = in[0][at] * h[j] + in[1][at];
    }
  return {y, h};
}

// The gradient of state t is Σ over the later states s of dy_s times all a between them, with dh
// for the last state; a sum of its own for each t.
Arrays linear_scan_gradient(const Arrays& in, const ScanDirection& kind) {
  const Array &a = in[0], &y = in[1], &dy = in[4], &dh = in[5];
  const Index columns = dh.size(), units = dh.shape[1];
  const Array h0 = in[2].given() ? in[2] : Array(dh.shape);
  Array da(a.shape), db(a.shape), dh0(dh.shape);
  for (Index j = 0; j < columns; ++j) {
    const std::vector<Index> order = steps_of_row(in, j / units, kind.reverse);
    const auto gradient_of_state = [&](std::size_t place) {
      double sum = dh[j];
      for (std::size_t s = order.size(); s-- > place;) {
        if (s + 1 < order.size()) sum *= a[order[s + 1] * columns + j];
        sum += dy[order[s] * columns + j];
      }
      return sum;
    };
    for (std::size_t s = 0; s < order.size(); ++s) {
      const Index at = order[s] * columns + j;
      db[at] = gradient_of_state(s);
      da[at] = db[at] * (s == 0 ? h0[j] : y[order[s - 1] * columns + j]);
    }
    dh0[j] = order.empty() ? dh[j] : a[order[0] * columns + j] * gradient_of_state(0);
  }
  return {da, db, dh0};
}

}  // namespace

void add_recurrent_references(References& table) {
  table["rnn"] = reference<CellCall>(rnn);
  table["gru"] = reference<CellCall>(gru);
  table["lstm"] = reference<CellCall>(lstm);
  table["linear_scan"] = reference<ScanDirection>(linear_scan);
  table["linear_scan_gradient"] = reference<ScanDirection>(linear_scan_gradient);
}

}  // namespace reel::testing
