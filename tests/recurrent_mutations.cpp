// An LSTM and a GRU over a sequence, written as plainly as can be, with a backward kernel in which
// one error at a time can be switched on.
#include <cmath>

#include <reel/autograd/recurrent.h>

#include "mutations.h"

namespace reel::testing {
using namespace op;
namespace {

enum class Error {
  none,
  bias_detached,
  bias_only_of_last_step,
  cell_candidate_without_tanh,
  cell_of_the_step_before,
  cell_state_dropped,
  direction_swapped,
  dx_only_of_last_step,
  factor_near_one,
  factor_nearer_one,
  final_cell_ignored,
  final_state_ignored,
  first_row_only,
  forget_gate_not_applied,
  forget_gate_reads_next_cell,
  gates_swapped,
  gate_without_sigmoid,
  hidden_state_detached,
  initial_cell_dropped,
  initial_state_dropped,
  lengths_ignored,
  output_gate_dropped,
  recurrent_bias_not_reset,
  recurrent_weights_read_next_state,
  recurrent_weights_transposed,
  reset_convention_swapped,
  state_not_carried_by_update,
  step_lost,
  tanh_of_cell_missing,
  update_gate_sign,
  wrong_beyond_first_step,
};

struct Kind {
  Error error;
  bool reverse;
};

// Everything about the sizes and the order of the steps.
struct Sequence {
  Index steps, rows, features, n;
  const std::int32_t* lengths;
  bool reverse;

  Index time(Index s) const { return reverse ? steps - 1 - s : s; }
  bool active(Index t, Index row) const { return t < lengths[row]; }
};

template <class T>
T sigmoid_of(T x) {
  return 1 / (1 + std::exp(-x));
}

template <class T>
T dot(Index count, const T* a, const T* b) {
  T sum = 0;
  for (Index i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

// to [rows, count] += d [rows] · vᵀ
template <class T>
void add_outer(Index rows, Index count, const T* d, const T* v, T* to) {
  for (Index k = 0; k < rows; ++k)
    for (Index j = 0; j < count; ++j) to[k * count + j] += d[k] * v[j];
}

// to [count] += wᵀ d; `transposed` takes each square block the other way round, which is the error.
template <class T>
void add_product(Index rows, Index count, const T* w, const T* d, T* to, bool transposed = false) {
  for (Index k = 0; k < rows; ++k)
    for (Index j = 0; j < count; ++j)
      to[j] +=
          d[k] * (transposed ? w[(k / count * count + j) * count + k % count] : w[k * count + j]);
}

// The state of one row before every step and after the last.
template <class T>
struct Path {
  Path(Index steps, Index n, Index gate_count)
      : h(static_cast<std::size_t>((steps + 1) * n)),
        c(h.size()),
        gates(static_cast<std::size_t>(steps * gate_count * n)) {}
  std::vector<T> h, c, gates;
};

// The LSTM's inputs; the GRU's are the first four, b_hn and h0.
enum Input { X, W_IH, W_HH, B, H0, C0, LENGTHS };

// in: x, w_ih, w_hh, b as pointers; runs one row.
template <class T>
Path<T> lstm_path(const Sequence& q, Index row, const auto& in) {
  const Index n = q.n, width = 4 * n;
  Path<T> p(q.steps, n, 4);
  std::copy_n(in(H0) + row * n, n, p.h.begin());
  std::copy_n(in(C0) + row * n, n, p.c.begin());
  for (Index s = 0; s < q.steps; ++s) {
    const Index t = q.time(s);
    T *h = p.h.data() + s * n, *c = p.c.data() + s * n, *gates = p.gates.data() + s * width;
    const T* x = in(X) + (t * q.rows + row) * q.features;
    for (Index k = 0; k < width; ++k) {
      const T sum =
          dot(q.features, in(W_IH) + k * q.features, x) + dot(n, in(W_HH) + k * n, h) + in(B)[k];
      gates[k] = k / n == 2 ? std::tanh(sum) : sigmoid_of(sum);
    }
    for (Index j = 0; j < n; ++j) {
      const T next = gates[n + j] * c[j] + gates[j] * gates[2 * n + j];
      c[n + j] = q.active(t, row) ? next : c[j];
      h[n + j] = q.active(t, row) ? gates[3 * n + j] * std::tanh(next) : h[j];
    }
  }
  return p;
}

const auto lstm_forward = []<Real T>(Ctx<T> c, const Kind& kind) {
  const Sequence q{
      c.shape(0)[0], c.shape(0)[1], c.shape(0)[2], c.shape(W_HH)[1], c.indices(LENGTHS).data(),
      kind.reverse};
  for (Index row = 0; row < q.rows; ++row) {
    const auto p = lstm_path<T>(q, row, [&](int i) { return c.in(i).data(); });
    for (Index s = 0; s < q.steps; ++s)
      for (Index j = 0; j < q.n; ++j)
        c.out(0)[(q.time(s) * q.rows + row) * q.n + j] =
            q.active(q.time(s), row) ? p.h[(s + 1) * q.n + j] : T(0);
    std::copy_n(p.h.end() - q.n, q.n, c.out(1).begin() + row * q.n);
    std::copy_n(p.c.end() - q.n, q.n, c.out(2).begin() + row * q.n);
  }
};

const auto lstm_backward = []<Real T>(BackwardCtx<T> c, const Kind& kind) {
  const Sequence q{c.shape(0)[0],    c.shape(0)[1],      c.shape(0)[2],
                   c.shape(W_HH)[1], c.indices(LENGTHS), kind.reverse};
  const auto is = [&](Error error) { return kind.error == error; };
  const Index n = q.n, width = 4 * n, last = q.steps - 1;
  for (const int i : {X, W_IH, W_HH, B, H0, C0}) std::fill_n(c.grad(i), c.shape(i).size(), T(0));
  for (Index row = 0; row < q.rows; ++row) {
    const auto p = lstm_path<T>(q, row, [&](int i) { return c.in(i); });
    std::vector<T> dh(static_cast<std::size_t>(n)), dc(dh), d(static_cast<std::size_t>(width));
    if (!is(Error::final_state_ignored)) std::copy_n(c.g(1) + row * n, n, dh.begin());
    if (!is(Error::final_cell_ignored)) std::copy_n(c.g(2) + row * n, n, dc.begin());
    for (Index s = last; s >= 0; --s) {
      const Index t = q.time(s), token = t * q.rows + row;
      if (!q.active(t, row) && !is(Error::lengths_ignored)) continue;
      const T *gates = p.gates.data() + s * width, *h = p.h.data() + s * n,
              *before = p.c.data() + s * n;
      for (Index j = 0; j < n; ++j) {
        const T i = gates[j], f = gates[n + j], g = gates[2 * n + j], o = gates[3 * n + j];
        const T tanh_c = std::tanh(before[is(Error::cell_of_the_step_before) ? j : n + j]);
        const T dhj = dh[j] + c.g(0)[token * n + j];
        const T dcj = dc[j] + dhj * o * (is(Error::tanh_of_cell_missing) ? 1 : 1 - tanh_c * tanh_c);
        d[j] = dcj * g * i * (is(Error::gate_without_sigmoid) ? 1 : 1 - i);
        d[n + j] = dcj * before[is(Error::forget_gate_reads_next_cell) ? n + j : j] * f * (1 - f);
        d[2 * n + j] = dcj * i * (is(Error::cell_candidate_without_tanh) ? 1 : 1 - g * g);
        d[3 * n + j] = is(Error::output_gate_dropped) ? 0 : dhj * tanh_c * o * (1 - o);
        if (is(Error::gates_swapped)) std::swap(d[j], d[n + j]);
        dc[j] = is(Error::cell_state_dropped)        ? 0
                : is(Error::forget_gate_not_applied) ? dcj
                                                     : dcj * f;
        dh[j] = 0;
      }
      if (!is(Error::hidden_state_detached))
        add_product(width, n, c.in(W_HH), d.data(), dh.data(),
                    is(Error::recurrent_weights_transposed));
      if (!is(Error::dx_only_of_last_step) || s == last)
        add_product(width, q.features, c.in(W_IH), d.data(), c.grad(X) + token * q.features);
      if (is(Error::step_lost) && s == 1) continue;
      if (is(Error::wrong_beyond_first_step) && s > 0)
        for (T& x : d) x *= T(1.1);
      const Index from = is(Error::direction_swapped) ? q.steps - 1 - t : t;
      add_outer(width, q.features, d.data(), c.in(X) + (from * q.rows + row) * q.features,
                c.grad(W_IH));
      if (!is(Error::first_row_only) || row == 0)
        add_outer(width, n, d.data(), is(Error::recurrent_weights_read_next_state) ? h + n : h,
                  c.grad(W_HH));
      if (!is(Error::bias_detached) && (!is(Error::bias_only_of_last_step) || s == last))
        for (Index k = 0; k < width; ++k) c.grad(B)[k] += d[k];
    }
    if (!is(Error::initial_state_dropped)) std::copy_n(dh.begin(), n, c.grad(H0) + row * n);
    if (!is(Error::initial_cell_dropped)) std::copy_n(dc.begin(), n, c.grad(C0) + row * n);
  }
  const auto scale = [&](int i, double factor) {
    for (Index k = 0; k < c.shape(i).size(); ++k) c.grad(i)[k] *= static_cast<T>(factor);
  };
  if (is(Error::factor_near_one)) scale(W_HH, 1.001);
  if (is(Error::factor_nearer_one)) scale(W_IH, 1.00001);
};

Definition<Kind> lstm_definition(const char* name, Index steps, Index rows) {
  return {name,
          {"x", "w_ih", "w_hh", "b", "h0", "c0", integer("lengths")},
          [](const Arguments& in) -> Shapes {
            return {in[0].with(2, in[H0][1]), in[H0], in[C0]};
          },
          lstm_forward,
          fused(lstm_backward,
                [](std::span<const Tensor> in, const Kind& kind) -> Tensors {
                  const LstmResult r = lstm(in[0], in[1], in[2], in[3], in[4], in[5],
                                            {.reverse = kind.reverse, .lengths = in[6]});
                  return {r.y, r.h, r.c};
                }),
          {with_inputs(normal({steps, rows, 2}), normal({12, 2}), normal({12, 3}), normal({12}),
                       normal({rows, 3}), normal({rows, 3}), indices({rows}, 1))}};
}

// One row of a GRU whose reset gate acts after the product; gates are r, z, n and q = U h + b.
template <class T>
Path<T> gru_path(const Sequence& s, Index row, const auto& in, const T* h0) {
  const Index n = s.n;
  Path<T> p(s.steps, n, 4);
  std::copy_n(h0 + row * n, n, p.h.begin());
  for (Index t = 0; t < s.steps; ++t) {
    T *h = p.h.data() + t * n, *gates = p.gates.data() + t * 4 * n;
    const T* x = in(X) + (t * s.rows + row) * s.features;
    for (Index k = 0; k < 3 * n; ++k) {
      const T outer = dot(s.features, in(W_IH) + k * s.features, x) + in(B)[k];
      const T inner = dot(n, in(W_HH) + k * n, h);
      if (k < 2 * n) {
        gates[k] = sigmoid_of(outer + inner);
      } else {
        gates[n + k] = inner + in(4)[k - 2 * n];
        gates[k] = std::tanh(outer + gates[k - 2 * n] * gates[n + k]);
      }
    }
    for (Index j = 0; j < n; ++j)
      h[n + j] = (1 - gates[n + j]) * gates[2 * n + j] + gates[n + j] * h[j];
  }
  return p;
}

const auto gru_forward = []<Real T>(Ctx<T> c) {
  const Sequence s{c.shape(0)[0], c.shape(0)[1], c.shape(0)[2], c.shape(W_HH)[1], nullptr, false};
  for (Index row = 0; row < s.rows; ++row) {
    const auto p = gru_path<T>(
        s, row, [&](int i) { return c.in(i).data(); }, c.in(5).data());
    for (Index t = 0; t < s.steps; ++t)
      std::copy_n(p.h.begin() + (t + 1) * s.n, s.n, c.out().begin() + (t * s.rows + row) * s.n);
  }
};

const auto gru_backward = []<Real T>(BackwardCtx<T> c, const Kind& kind) {
  const Sequence s{c.shape(0)[0], c.shape(0)[1], c.shape(0)[2], c.shape(W_HH)[1], nullptr, false};
  const auto is = [&](Error error) { return kind.error == error; };
  const Index n = s.n;
  for (int i = 0; i < 6; ++i) std::fill_n(c.grad(i), c.shape(i).size(), T(0));
  for (Index row = 0; row < s.rows; ++row) {
    const auto p = gru_path<T>(
        s, row, [&](int i) { return c.in(i); }, c.in(5));
    std::vector<T> dh(static_cast<std::size_t>(n)), outer(static_cast<std::size_t>(3 * n)),
        inner(outer);
    for (Index t = s.steps - 1; t >= 0; --t) {
      const Index token = t * s.rows + row;
      const T *gates = p.gates.data() + t * 4 * n, *h = p.h.data() + t * n;
      for (Index j = 0; j < n; ++j) {
        const T r = gates[j], z = gates[n + j], new_h = gates[2 * n + j], q = gates[3 * n + j];
        const T dhj = dh[j] + c.g()[token * n + j];
        const T dn = dhj * (1 - z) * (1 - new_h * new_h);
        const T sign = is(Error::update_gate_sign) ? -1 : 1;
        outer[j] = dn * (is(Error::reset_convention_swapped) ? h[j] : q) * r * (1 - r);
        outer[n + j] = sign * dhj * (h[j] - new_h) * z * (1 - z);
        outer[2 * n + j] = dn;
        if (is(Error::gates_swapped)) std::swap(outer[j], outer[n + j]);
        inner[j] = outer[j];
        inner[n + j] = outer[n + j];
        inner[2 * n + j] = dn * r;
        dh[j] = is(Error::state_not_carried_by_update) ? 0 : dhj * z;
      }
      add_product(3 * n, n, c.in(W_HH), inner.data(), dh.data(),
                  is(Error::recurrent_weights_transposed));
      add_product(3 * n, s.features, c.in(W_IH), outer.data(), c.grad(X) + token * s.features);
      add_outer(3 * n, s.features, outer.data(), c.in(X) + token * s.features, c.grad(W_IH));
      add_outer(3 * n, n, inner.data(), h, c.grad(W_HH));
      for (Index k = 0; k < 3 * n; ++k) c.grad(B)[k] += outer[k];
      for (Index j = 0; j < n; ++j)
        c.grad(4)[j] += is(Error::recurrent_bias_not_reset) ? outer[2 * n + j] : inner[2 * n + j];
    }
    std::copy_n(dh.begin(), n, c.grad(5) + row * n);
  }
};

Definition<Kind> gru_definition(const char* name) {
  return {name,
          {"x", "w_ih", "w_hh", "b", "b_hn", "h0"},
          [](const Arguments& in) -> Shape { return in[0].with(2, in[5][1]); },
          gru_forward,
          fused(gru_backward,
                [](std::span<const Tensor> in) -> Tensors {
                  return {gru(in[0], in[1], in[2], in[3], in[4], in[5]).y};
                }),
          {with_inputs(normal({3, 2, 2}), normal({9, 2}), normal({9, 3}), normal({9}), normal({3}),
                       normal({2, 3}))}};
}

}  // namespace

std::vector<Mutation> recurrent_mutations() {
  std::vector<Mutation> all;
  const auto add = [&](const Definition<Kind>& definition, const Kind& kind) -> Mutation& {
    return all.emplace_back(mutation_of(definition, 1, kind, {Error::none, kind.reverse}));
  };
  const auto add_lstm = [&](const char* name, Error error, const std::vector<std::int32_t>& lengths,
                            bool reverse = false) {
    const Index rows = std::ssize(lengths);
    add(lstm_definition(name, 3, rows), {error, reverse}).inputs[LENGTHS] = tensor({rows}, lengths);
  };
  const std::vector<std::int32_t> one{3}, two{3, 3};
  add_lstm("lstm: the bias is not trained", Error::bias_detached, two);
  add_lstm("lstm: only the last step reaches the bias", Error::bias_only_of_last_step, one);
  add_lstm("lstm: the cell candidate's tanh is missing", Error::cell_candidate_without_tanh, two);
  add_lstm("lstm: reads the cell of the step before", Error::cell_of_the_step_before, two);
  add_lstm("lstm: the gradient of the cell state is dropped", Error::cell_state_dropped, one);
  add_lstm("lstm: the inputs are read in the other direction", Error::direction_swapped, two);
  add_lstm("lstm: the same in reverse", Error::direction_swapped, two, true);
  add_lstm("lstm: only the last step's input gets a gradient", Error::dx_only_of_last_step, two);
  add_lstm("lstm: recurrent weights off by a factor of 1.001", Error::factor_near_one, two);
  add_lstm("lstm: input weights off by a factor of 1.00001", Error::factor_nearer_one, two);
  add_lstm("lstm: the final cell's gradient is ignored", Error::final_cell_ignored, one);
  add_lstm("lstm: the final state's gradient is ignored", Error::final_state_ignored, one);
  add_lstm("lstm: only the first row reaches the weights", Error::first_row_only, two);
  add_lstm("lstm: the forget gate is not applied", Error::forget_gate_not_applied, one);
  add_lstm("lstm: the forget gate reads the next cell", Error::forget_gate_reads_next_cell, one);
  add_lstm("lstm: input and forget gate change places", Error::gates_swapped, two);
  add_lstm("lstm: the input gate's 1 - i is missing", Error::gate_without_sigmoid, two);
  add_lstm("lstm: the hidden state is detached", Error::hidden_state_detached, one);
  add_lstm("lstm: the initial cell gets no gradient", Error::initial_cell_dropped, two);
  add_lstm("lstm: the initial state gets no gradient", Error::initial_state_dropped, two);
  add_lstm("lstm: steps beyond the lengths count", Error::lengths_ignored, {3, 2});
  add_lstm("lstm: the same in reverse, a row of length 0", Error::lengths_ignored, {3, 0}, true);
  add_lstm("lstm: the output gate gets no gradient", Error::output_gate_dropped, two);
  add_lstm("lstm: the weights meet the state after the step",
           Error::recurrent_weights_read_next_state, one);
  add_lstm("lstm: recurrent weights transposed", Error::recurrent_weights_transposed, one);
  add_lstm("lstm: one step does not reach the parameters", Error::step_lost, two);
  add_lstm("lstm: the tanh of the cell is missing", Error::tanh_of_cell_missing, one);
  add_lstm("lstm: wrong beyond the first step", Error::wrong_beyond_first_step, one);
  const auto add_gru = [&](const char* name, Error error) {
    add(gru_definition(name), {error, false});
  };
  add_gru("gru: the reset gate as if before the product", Error::reset_convention_swapped);
  add_gru("gru: b_hn is not reset", Error::recurrent_bias_not_reset);
  add_gru("gru: the update gate's sign", Error::update_gate_sign);
  add_gru("gru: the update gate carries no gradient", Error::state_not_carried_by_update);
  add_gru("gru: reset and update gate change places", Error::gates_swapped);
  add_gru("gru: recurrent weights transposed", Error::recurrent_weights_transposed);
  return all;
}

}  // namespace reel::testing
