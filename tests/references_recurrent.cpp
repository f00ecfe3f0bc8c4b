#include <cmath>

#include <reel/autograd/recurrent.h>

#include "references.h"

namespace reel::testing {
namespace {

struct RnnKind {
  Activation activation;
  bool reverse;
};
struct GruKind {
  Reset reset;
  bool reverse;
};
struct LstmKind {
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

// Runs step(p, states), p = W x + b, over each row of x [T, B, D] up to its length. Returns y, the
// first of the states at all steps and zero beyond the length, and the last states.
template <class Step>
Arrays over_sequence(const Arrays& in, const Arrays& initial, bool reverse, Step step) {
  const Array &x = in[0], &w_ih = in[1], &b = in[3], &lengths = in.back();
  const Index steps = x.shape[0], rows = x.shape[1], features = x.shape[2];
  const Index units = in[2].shape[1];
  Arrays out{Array(Shape{steps, rows, units})};
  out.insert(out.end(), initial.begin(), initial.end());
  for (Index row = 0; row < rows; ++row) {
    std::vector<Vector> states;
    for (const Array& state : initial) states.push_back(row_of(state, row, units));
    for (Index s = 0; s < steps; ++s) {
      const Index t = reverse ? steps - 1 - s : s;
      if (static_cast<double>(t) >= lengths[row]) continue;
      Vector p = product(w_ih, 0, b.size(), row_of(x, t * rows + row, features));
      for (std::size_t k = 0; k < p.size(); ++k) p[k] += b.x[k];
      step(p, states);
      std::copy(states[0].begin(), states[0].end(), out[0].x.begin() + (t * rows + row) * units);
    }
    for (std::size_t i = 0; i < states.size(); ++i)
      std::copy(states[i].begin(), states[i].end(), out[i + 1].x.begin() + row * units);
  }
  return out;
}

Arrays rnn(const Arrays& in, const RnnKind& kind) {
  return over_sequence(in, {in[4]}, kind.reverse, [&](const Vector& p, auto& states) {
    const Vector u = product(in[2], 0, std::ssize(p), states[0]);
    for (std::size_t j = 0; j < p.size(); ++j) {
      const double sum = p[j] + u[j];
      states[0][j] = kind.activation == Activation::tanh ? std::tanh(sum) : sum < 0 ? 0 : sum;
    }
  });
}

Arrays lstm(const Arrays& in, const LstmKind& kind) {
  return over_sequence(in, {in[4], in[5]}, kind.reverse, [&](const Vector& p, auto& states) {
    const Vector u = product(in[2], 0, std::ssize(p), states[0]);
    const std::size_t n = states[0].size();
    for (std::size_t j = 0; j < n; ++j) {
      const auto sum = [&](std::size_t gate) { return p[gate * n + j] + u[gate * n + j]; };
      double& c = states[1][j];
      c = sigmoid(sum(1)) * c + sigmoid(sum(0)) * std::tanh(sum(2));
      states[0][j] = sigmoid(sum(3)) * std::tanh(c);
    }
  });
}

Arrays gru(const Arrays& in, const GruKind& kind) {
  return over_sequence(in, {in[5]}, kind.reverse, [&](const Vector& p, auto& states) {
    Vector& h = states[0];
    const std::size_t n = h.size();
    const Index units = std::ssize(h);
    const Vector u = product(in[2], 0, 2 * units, h);
    Vector r(n), z(n), before(n);
    for (std::size_t j = 0; j < n; ++j) {
      r[j] = sigmoid(p[j] + u[j]);
      z[j] = sigmoid(p[n + j] + u[n + j]);
      before[j] = kind.reset == Reset::before ? r[j] * h[j] : h[j];
    }
    const Vector inner = product(in[2], 2 * units, units, before);
    for (std::size_t j = 0; j < n; ++j) {
      const double recurrent = inner[j] + in[4].x[j];
      const double candidate =
          std::tanh(p[2 * n + j] + (kind.reset == Reset::after ? r[j] * recurrent : recurrent));
      h[j] = (1 - z[j]) * candidate + z[j] * h[j];
    }
  });
}

}  // namespace

void add_recurrent_references(References& table) {
  table["rnn"] = reference<RnnKind>(rnn);
  table["gru"] = reference<GruKind>(gru);
  table["lstm"] = reference<LstmKind>(lstm);
}

}  // namespace reel::testing
