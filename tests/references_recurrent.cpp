#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <reel/autograd/cell.h>
#include <reel/autograd/kernels/masks.h>

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
  Array w_ih, w_hh, b, recurrent_bias, numbers, projection;
  Arrays states;
};

Parameters parameters_of(const Arrays& in, const CellCall& call, Index direction) {
  const auto states = static_cast<std::size_t>(call.cell->layout.states);
  const OptionalParameters& takes = *call.takes;
  std::size_t next =
      2 + static_cast<std::size_t>(direction) *
              (2 + takes.w_hh + takes.recurrent_bias + takes.numbers + takes.projection + states);
  Parameters p;
  p.w_ih = in[next++];
  if (takes.w_hh) p.w_hh = in[next++];
  p.b = in[next++];
  if (takes.recurrent_bias) p.recurrent_bias = in[next++];
  if (takes.numbers) p.numbers = in[next++];
  if (takes.projection) p.projection = in[next++];
  for (std::size_t k = 0; k < states; ++k) p.states.push_back(in[next++]);
  return p;
}

// Layer normalisation with the gains of the numbers from block `first` on.
Vector normalized(Vector x, const Parameters& w, Index first, std::size_t units) {
  double mean = 0, variance = 0;
  const auto n = static_cast<double>(x.size());
  for (const double number : x) mean += number / n;
  for (const double number : x) variance += (number - mean) * (number - mean) / n;
  for (std::size_t j = 0; j < x.size(); ++j)
    x[j] = (x[j] - mean) / std::sqrt(variance + 1e-5) *
           w.numbers.x[static_cast<std::size_t>(first) * units + j];
  return x;
}

// One step of one row, for the equations of a cell.
struct ReferenceStep {
  const Parameters& w;
  const kernels::CellLayout& layout;
  std::size_t n;  // H
  Vector p;       // W x + b
  Vector h;       // as the recurrent product reads it
  Vector mask;    // of the candidate
  double bound;   // of c
  std::vector<Vector>& states;

  // U h, or LN(U h), of the first blocks of w_hh.
  Vector recurrent() const {
    const int blocks = layout.recurrent.count;
    Vector u = product(w.w_hh, 0, blocks * static_cast<Index>(n), h);
    return layout.norm ? normalized(u, w, layout.recurrent_norm(), n) : u;
  }
  double number(std::size_t block, std::size_t j) const { return w.numbers.x[block * n + j]; }
};

Vector mask_of(const CellCall& call, kernels::Mask kind, Index rows, std::size_t units, Index d,
               Index t, Index row, std::size_t size, double otherwise) {
  Vector mask(size, otherwise);
  const kernels::Masks<double> masks(call.options, rows, static_cast<Index>(units),
                                     static_cast<std::size_t>(d));
  if (masks.has(kind)) masks.draw(kind, t, row, static_cast<Index>(size), mask.data());
  return mask;
}

// Runs step(ReferenceStep) over each row of x [T, B, D] up to its length, in each direction.
// Returns y, the first of the states at all steps and zero beyond the length, and the last states.
template <class Step>
Arrays over_sequence(const Arrays& in, const CellCall& call, Step step) {
  const Array &x = in[0], &lengths = in[1];
  const kernels::CellLayout& layout = call.cell->layout;
  const auto states = static_cast<std::size_t>(layout.states);
  const Index steps = x.shape[0], rows = x.shape[1], features = x.shape[2];
  const Index directions = call.both ? 2 : 1;
  const Parameters first_way = parameters_of(in, call, 0);
  const Index units = first_way.w_ih.shape[0] / layout.inputs;
  const bool projected = first_way.projection.given();
  const Index output = projected ? first_way.projection.shape[0] : units;
  const auto n = static_cast<std::size_t>(units);
  Arrays out{Array(Shape{steps, rows, directions * output})};
  for (Index d = 0; d < directions; ++d) {
    const Parameters parameters = parameters_of(in, call, d);
    const bool reverse = call.reverse != (d == 1);
    const std::size_t first = out.size();
    for (std::size_t k = 0; k < states; ++k) out.emplace_back(Shape{rows, k == 0 ? output : units});
    for (Index row = 0; row < rows; ++row) {
      std::vector<Vector> state;
      for (std::size_t k = 0; k < states; ++k) {
        const Array& initial = parameters.states[k];
        const Index size = k == 0 ? output : units;
        state.push_back(initial.given() ? row_of(initial, row, size)
                                        : Vector(static_cast<std::size_t>(size)));
      }
      for (Index s = 0; s < steps; ++s) {
        const Index t = reverse ? steps - 1 - s : s;
        if (lengths.given() && static_cast<double>(t) >= lengths[row]) continue;
        const auto mask = [&](kernels::Mask kind, std::size_t size, double otherwise) {
          return mask_of(call, kind, rows, n, d, t, row, size, otherwise);
        };
        Vector p = product(parameters.w_ih, 0, parameters.w_ih.shape[0],
                           row_of(x, t * rows + row, features));
        if (layout.norm) p = normalized(p, parameters, layout.input_norm(), n);
        for (std::size_t k = 0; parameters.b.given() && k < p.size(); ++k)
          p[k] += parameters.b.x[k];
        const std::vector<Vector> before = state;
        Vector h = state[0];
        const Vector hidden = mask(kernels::Mask::hidden, h.size(), 1);
        for (std::size_t j = 0; j < h.size(); ++j) h[j] *= hidden[j];
        state[0].resize(n);
        step(ReferenceStep{parameters, layout, n, p, h, mask(kernels::Mask::update, n, 1),
                           call.options.cell_bound, state});
        if (projected) state[0] = product(parameters.projection, 0, output, state[0]);
        for (std::size_t k = 0; k < states; ++k) {
          const Vector share = mask(kernels::Masks<double>::zoneout_of(k), state[k].size(), 0);
          for (std::size_t j = 0; j < state[k].size(); ++j)
            state[k][j] = share[j] == 0   ? state[k][j]
                          : share[j] == 1 ? before[k][j]
                                          : share[j] * before[k][j] + (1 - share[j]) * state[k][j];
        }
        std::copy(state[0].begin(), state[0].end(),
                  out[0].x.begin() + ((t * rows + row) * directions + d) * output);
      }
      for (std::size_t k = 0; k < states; ++k)
        std::copy(state[k].begin(), state[k].end(),
                  out[first + k].x.begin() + row * std::ssize(state[k]));
    }
  }
  return out;
}

double clipped(double x, double bound) { return std::min(std::max(x, -bound), bound); }

Arrays rnn(const Arrays& in, const CellCall& call) {
  const bool tanh = call.cell == &rnn_cell(Activation::tanh).spec ||
                    call.cell == &rnn_cell(Activation::tanh, true).spec;
  return over_sequence(in, call, [&](const ReferenceStep& s) {
    const Vector u = s.recurrent();
    for (std::size_t j = 0; j < s.n; ++j) {
      const double sum = s.p[j] + u[j];
      s.states[0][j] = tanh ? std::tanh(sum) : sum < 0 ? 0 : sum;
    }
  });
}

Arrays ind_rnn(const Arrays& in, const CellCall& call) {
  const bool tanh = call.cell == &ind_rnn_cell(Activation::tanh).spec;
  return over_sequence(in, call, [&](const ReferenceStep& s) {
    for (std::size_t j = 0; j < s.n; ++j) {
      const double sum = s.p[j] + s.number(0, j) * s.states[0][j];
      s.states[0][j] = tanh ? std::tanh(sum) : sum < 0 ? 0 : sum;
    }
  });
}

Arrays mgu(const Arrays& in, const CellCall& call) {
  return over_sequence(in, call, [&](const ReferenceStep& s) {
    const Index units = static_cast<Index>(s.n);
    const Vector u = s.recurrent();
    Vector& h = s.states[0];
    Vector f(s.n), operand(s.n);
    for (std::size_t j = 0; j < s.n; ++j) {
      f[j] = sigmoid(s.p[j] + u[j]);
      operand[j] = f[j] * h[j];
    }
    const Vector inner = product(s.w.w_hh, units, units, operand);
    for (std::size_t j = 0; j < s.n; ++j)
      h[j] = (1 - f[j]) * h[j] + f[j] * s.mask[j] * std::tanh(s.p[s.n + j] + inner[j]);
  });
}

void layer_norm_lstm(const ReferenceStep& s) {
  const Vector u = s.recurrent();
  const auto sum = [&](std::size_t gate, std::size_t j) {
    return s.p[gate * s.n + j] + u[gate * s.n + j];
  };
  Vector& c = s.states[1];
  for (std::size_t j = 0; j < s.n; ++j)
    c[j] = clipped(
        sigmoid(sum(1, j)) * c[j] + sigmoid(sum(0, j)) * s.mask[j] * std::tanh(sum(2, j)), s.bound);
  const Vector v = normalized(c, s.w, s.layout.second_norm(), s.n);
  for (std::size_t j = 0; j < s.n; ++j)
    s.states[0][j] =
        sigmoid(sum(3, j)) *
        std::tanh(v[j] + s.number(static_cast<std::size_t>(s.layout.second_norm()) + 1, j));
}

Arrays lstm(const Arrays& in, const CellCall& call) {
  using enum LstmVariant;
  if (call.cell == &layer_norm_lstm_cell().spec) return over_sequence(in, call, layer_norm_lstm);
  LstmVariant variant = standard;
  bool peepholes = false;
  for (int v = 0; v < 7; ++v)
    for (const bool holes : {false, true})
      if (call.cell == &lstm_cell(static_cast<LstmVariant>(v), holes, true).spec) {
        variant = static_cast<LstmVariant>(v);
        peepholes = holes;
      }
  return over_sequence(in, call, [&](const ReferenceStep& s) {
    const Vector u = s.recurrent();
    for (std::size_t j = 0; j < s.n; ++j) {
      double& c = s.states[1][j];
      std::size_t next = 0, next_hole = 0;
      const auto sum = [&] {
        const std::size_t k = next++ * s.n + j;
        return s.p[k] + u[k];
      };
      const auto gate = [&](double cell) {
        return sigmoid(sum() + (peepholes ? s.number(next_hole++, j) * cell : 0));
      };
      const double i = variant == no_input_gate ? 1 : gate(c);
      const double f = variant == no_forget_gate ? 1 : variant == coupled ? 1 - i : gate(c);
      const double candidate = sum();
      c = clipped(f * c + i * s.mask[j] *
                              (variant == no_input_activation ? candidate : std::tanh(candidate)),
                  s.bound);
      const double o = variant == no_output_gate ? 1 : gate(c);
      s.states[0][j] = o * (variant == no_output_activation ? c : std::tanh(c));
    }
  });
}

Arrays full_gate_lstm(const Arrays& in, const CellCall& call) {
  return over_sequence(in, call, [](const ReferenceStep& s) {
    const std::size_t n = s.n;
    const Index units = static_cast<Index>(n);
    const Vector u = s.recurrent();
    Vector from_gates(3 * n);  // for i, f, o
    for (Index k = 0; k < 3; ++k) {
      const Vector terms = product(s.w.w_hh, (4 + 3 * k) * units, 3 * units,
                                   s.states[2 + static_cast<std::size_t>(k)]);
      for (std::size_t j = 0; j < 3 * n; ++j) from_gates[j] += terms[j];
    }
    for (std::size_t j = 0; j < n; ++j) {
      double &h = s.states[0][j], &c = s.states[1][j];
      const auto gate = [&](std::size_t k, double cell) {
        const std::size_t at = k * n + j;
        return s.states[2 + k][j] =
                   sigmoid(s.p[at] + u[at] + from_gates[at] + s.number(k, j) * cell);
      };
      const double i = gate(0, c), f = gate(1, c);
      c = f * c + i * s.mask[j] * std::tanh(s.p[3 * n + j] + u[3 * n + j]);
      h = gate(2, c) * std::tanh(c);
    }
  });
}

Arrays slstm(const Arrays& in, const CellCall& call) {
  const bool exponential = call.cell == &slstm_cell(ForgetGate::exponential).spec;
  return over_sequence(in, call, [&](const ReferenceStep& s) {
    const Vector u = s.recurrent();
    for (std::size_t j = 0; j < s.n; ++j) {
      const auto sum = [&](std::size_t gate) { return s.p[gate * s.n + j] + u[gate * s.n + j]; };
      double &c = s.states[1][j], &n = s.states[2][j], &m = s.states[3][j];
      const double log_f =
          exponential ? sum(1) : std::min(sum(1), 0.0) - std::log1p(std::exp(-std::abs(sum(1))));
      const double shifted = n > 0 ? log_f + m : sum(0);
      m = std::isnan(sum(0)) || std::isnan(shifted) ? std::nan("") : std::max(shifted, sum(0));
      const double i = std::exp(sum(0) - m), f = std::exp(shifted - m);
      c = f * c + i * s.mask[j] * std::tanh(sum(2));
      n = f * n + i;
      s.states[0][j] = sigmoid(sum(3)) * c / n;
    }
  });
}

Arrays gru(const Arrays& in, const CellCall& call) {
  const bool before_product = call.cell->layout.second.count > 0;
  return over_sequence(in, call, [&](const ReferenceStep& s) {
    const std::size_t n = s.n;
    const Index units = static_cast<Index>(n);
    Vector& h = s.states[0];
    const Vector u = s.recurrent();
    Vector r(n), z(n), operand(n);
    for (std::size_t j = 0; j < n; ++j) {
      r[j] = sigmoid(s.p[j] + u[j]);
      z[j] = sigmoid(s.p[n + j] + u[n + j]);
      operand[j] = r[j] * h[j];
    }
    const Vector inner = before_product ? product(s.w.w_hh, 2 * units, units, operand)
                                        : Vector(u.begin() + 2 * units, u.end());
    for (std::size_t j = 0; j < n; ++j) {
      const double recurrent =
          inner[j] + (s.w.recurrent_bias.given() ? s.w.recurrent_bias.x[j] : 0);
      const double candidate =
          std::tanh(s.p[2 * n + j] + (before_product ? recurrent : r[j] * recurrent));
      h[j] = (1 - z[j]) * s.mask[j] * candidate + z[j] * h[j];
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
  table["ind_rnn"] = reference<CellCall>(ind_rnn);
  table["mgu"] = reference<CellCall>(mgu);
  table["full_gate_lstm"] = reference<CellCall>(full_gate_lstm);
  table["slstm"] = reference<CellCall>(slstm);
  table["gru"] = reference<CellCall>(gru);
  table["lstm"] = reference<CellCall>(lstm);
  table["linear_scan"] = reference<ScanDirection>(linear_scan);
  table["linear_scan_gradient"] = reference<ScanDirection>(linear_scan_gradient);
}

}  // namespace reel::testing
