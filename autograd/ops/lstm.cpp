// Long short-term memory over a sequence; the equations are in recurrent.h.
//
// T steps, B rows, D features, H units. The forward pass keeps for the backward pass, per token:
//   gates  [T, B, 4H]  i, f, g, o after their nonlinearities, in the form of gates.h
//   cells  [T, B, H]   c after the step
// and y [T, B, H] is the output itself: 6 H numbers. In the backward pass the place of the gates is
// taken by d [T, B, 4H] the gradients before the nonlinearities
// from which the gradients of x, the weights and the bias follow in one product each at the end.

#include <memory>

#include <reel/autograd/engine/segments.h>
#include <reel/autograd/kernels/gates.h>
#include <reel/autograd/kernels/recurrent.h>
#include <reel/autograd/kernels/step.h>
#include <reel/autograd/ops/recurrent_common.h>

namespace reel {
using namespace op;
namespace {

using kernels::MatrixView;
using kernels::PackedMatrix;
using kernels::Schedule;
using kernels::Write;

enum Input { X, W_IH, W_HH, B, H0, C0, LENGTHS };
enum Output { Y, H_N, C_N, GATES, CELLS };

struct Direction {
  bool reverse;
};

// One row of one step. gates: the pre-activations, overwritten by the gates. Several loops, because
// one would need more registers than there are.
template <Real T>
[[gnu::noinline]] void row_forward(Index n, T* __restrict gates, T* __restrict c, T* __restrict h,
                                   T* __restrict y, T* __restrict cell) {
  T *i = gates, *f = gates + n, *g = gates + 2 * n, *o = gates + 3 * n;
  for (Index j = 0; j < 2 * n; ++j) gates[j] = kernels::sigmoid_gate(gates[j]);
  for (Index j = 0; j < n; ++j) o[j] = kernels::sigmoid_gate(o[j]);
  for (Index j = 0; j < n; ++j) {
    g[j] = kernels::tanh_gate(g[j]);
    c[j] = kernels::sigmoid_value(f[j]) * c[j] +
           kernels::sigmoid_value(i[j]) * kernels::tanh_value(g[j]);
    cell[j] = c[j];
  }
  for (Index j = 0; j < n; ++j) {
    h[j] = kernels::sigmoid_value(o[j]) * kernels::vtanh(c[j]);
    y[j] = h[j];
  }
}

// The backward pass of the same. The gradients of the pre-activations overwrite the gates. On entry
// dh and dc are the gradients of the state after the step, on return those of the state before it;
// dh lacks the part through the recurrent product, which the caller adds.
template <Real T>
[[gnu::noinline]] void row_backward(Index n, T* __restrict gates, const T* __restrict cell,
                                    const T* __restrict c_before, const T* __restrict dy,
                                    T* __restrict dh, T* __restrict dc) {
  T *i = gates, *f = gates + n, *g = gates + 2 * n, *o = gates + 3 * n;
  kernels::add_gradient(dy, n, dh);
  for (Index j = 0; j < n; ++j) {
    const auto tanh_c = kernels::tanh_slope(kernels::tanh_gate(cell[j]));
    const auto tanh_g = kernels::tanh_slope(g[j]);
    const T ij = i[j], fj = f[j], oj = o[j];
    const T dcj = dc[j] + dh[j] * kernels::sigmoid_value(oj) * tanh_c.slope;
    i[j] = dcj * tanh_g.value * kernels::sigmoid_slope(ij);
    f[j] = dcj * c_before[j] * kernels::sigmoid_slope(fj);
    g[j] = dcj * kernels::sigmoid_value(ij) * tanh_g.slope;
    o[j] = dh[j] * tanh_c.value * kernels::sigmoid_slope(oj);
    dc[j] = dcj * kernels::sigmoid_value(fj);
    dh[j] = 0;
  }
}

template <Real T>
void forward(Ctx<T> c, const Direction& direction) {
  const Index steps = c.shape(X)[0], rows = c.shape(X)[1], features = c.shape(X)[2];
  const Index n = c.shape(W_HH)[1], width = 4 * n;
  const Schedule schedule{steps, rows, direction.reverse, c.indices(LENGTHS).data()};
  std::ranges::copy(c.in(H0), c.out(H_N).begin());
  std::ranges::copy(c.in(C0), c.out(C_N).begin());

  Scratch<T> own_gates(c.recording() ? 0 : steps * rows * width), own_cells(rows * n);
  T* gates = c.recording() ? c.out(GATES).data() : own_gates.data();
  kernels::input_product(c.in(X).data(), steps * rows, features, c.in(W_IH).data(), c.in(B).data(),
                         width, gates);
  const PackedMatrix<T> w(MatrixView<T>::row_major(c.in(W_HH).data(), width, n).transposed());
  T *h = c.out(H_N).data(), *state = c.out(C_N).data(), *y = c.out(Y).data();

  kernels::each_row_block(rows, [&](Index begin, Index end) {
    for (Index s = 0; s < steps; ++s) {
      const Index t = schedule.time(s);
      T* p = gates + t * rows * width;
      step_product(MatrixView<T>::row_major(h + begin * n, end - begin, n), w, p + begin * width,
                   width, Write::add);
      T* cells = c.recording() ? c.out(CELLS).data() + t * rows * n : own_cells.data();
      for (Index row = begin; row < end; ++row) {
        T* y_row = y + (t * rows + row) * n;
        if (schedule.active(t, row))
          row_forward(n, p + row * width, state + row * n, h + row * n, y_row, cells + row * n);
        else
          std::fill_n(y_row, n, T(0));
      }
    }
  });
}

template <Real T>
void backward(BackwardCtx<T> c, const Direction& direction) {
  const Index steps = c.shape(X)[0], rows = c.shape(X)[1], features = c.shape(X)[2];
  const Index n = c.shape(W_HH)[1], width = 4 * n;
  const Schedule schedule{steps, rows, direction.reverse, c.indices(LENGTHS)};

  // The gradients overwrite the gates, unless the tape is kept.
  T* const gates = c.reusable(GATES);
  Scratch<T> own(gates ? 0 : steps * rows * width), dh(rows * n), dc(rows * n);
  T* const d = gates ? gates : own.data();
  kernels::start_gradient(c.g(H_N), rows * n, dh.data());
  kernels::start_gradient(c.g(C_N), rows * n, dc.data());
  const PackedMatrix<T> w(MatrixView<T>::row_major(c.in(W_HH), width, n));

  kernels::each_row_block(rows, [&](Index begin, Index end) {
    for (Index s = steps - 1; s >= 0; --s) {
      const Index t = schedule.time(s);
      T* d_t = d + t * rows * width;
      for (Index row = begin; row < end; ++row) {
        const Index token = t * rows + row;
        T* d_row = d_t + row * width;
        if (!schedule.active(t, row)) {
          std::fill_n(d_row, width, T(0));
          continue;
        }
        schedule.prefetch(s - 1, row, width, gates ? gates : c.out(GATES));
        schedule.prefetch(s - 2, row, n, c.out(CELLS));
        if (c.g(Y)) schedule.prefetch(s - 1, row, n, c.g(Y));
        if (!gates) std::copy_n(c.out(GATES) + token * width, width, d_row);
        row_backward(n, d_row, c.out(CELLS) + token * n,
                     kernels::previous_state(schedule, t, row, n, c.out(CELLS), c.in(C0)),
                     c.g(Y) ? c.g(Y) + token * n : nullptr, dh.data() + row * n,
                     dc.data() + row * n);
      }
      step_product(MatrixView<T>::row_major(d_t + begin * width, end - begin, width), w,
                   dh.data() + begin * n, n, Write::add);
    }
  });

  const auto all = MatrixView<T>::row_major(d, steps * rows, width);
  kernels::input_gradients(all, c.in(X), c.in(W_IH), features, Write::assign, c.grad(X),
                           c.grad(W_IH));
  if (T* dw = c.grad(W_HH))
    recurrent_weight_gradient(schedule, d, width, width, c.out(Y), c.in(H0), n, dw);
  if (T* db = c.grad(B)) kernels::column_sums(all, db);
  if (T* dh0 = c.grad(H0)) std::copy_n(dh.data(), rows * n, dh0);
  if (T* dc0 = c.grad(C0)) std::copy_n(dc.data(), rows * n, dc0);
}

Tensors specification(std::span<const Tensor> in, const Direction& direction) {
  return detail::unroll_specification(
      in, {in[H0], in[C0]}, direction.reverse, [&](const Tensor& p, Tensors& state) {
        const auto [h, c] = lstm_step(p, state[0], state[1], in[W_HH]);
        state = {h, c};
      });
}

SampleInputs sample(Index steps, Index rows, Index features, Index n) {
  return with_inputs(normal({steps, rows, features}), normal({4 * n, features}), normal({4 * n, n}),
                     normal({4 * n}), normal({rows, n}), normal({rows, n}), lengths({rows}, steps));
}

REEL_EARLY const Op<Direction> lstm_op{{
    .name = "lstm",
    .arguments = {"x", "w_ih", "w_hh", "b", "h0", "c0", integer("lengths")},
    .shape = [](const Arguments& in) -> Shapes {
      const Shape y = detail::check_sequence(in, 4, H0, 2), state = y.erase(0);
      return {y, state, state, y.with(2, 4 * y[2]), y};
    },
    .forward = []<Real T>(Ctx<T> c, const Direction& direction) { forward(c, direction); },
    .gradient =
        fused([]<Real T>(BackwardCtx<T> c, const Direction& direction) { backward(c, direction); },
              [](std::span<const Tensor> in, const Direction& direction) {
                return specification(in, direction);
              }),
    .samples = {sample(3, 2, 2, 3).attr(Direction{false}), sample(4, 3, 1, 2).attr(Direction{true}),
                sample(1, 1, 1, 1).attr(Direction{false}), sample(2, 9, 2, 2).attr(Direction{true}),
                sample(2, 0, 2, 2).attr(Direction{false})},
    .hidden_outputs = 2,
    .one_thread = detail::keeps_one_thread_busy,
}};

}  // namespace

LstmResult lstm(const Tensor& x, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b,
                const Tensor& h0, const Tensor& c0, const SequenceOptions& options, Site site) {
  if (in_segments(options, "lstm", site)) {
    const auto whole = [site](std::span<const Tensor> in, const SequenceOptions& within) {
      const auto [y, h, c] = lstm(in[0], in[1], in[2], in[3], in[4], in[5], within, site);
      return Tensors{y, h, c};
    };
    Tensors out =
        detail::run_in_segments("lstm", whole, x, {w_ih, w_hh, b}, {h0, c0}, options, site);
    return {out[Y], out[H_N], out[C_N]};
  }
  const Tensor lengths = resolve_lengths(options, x, "lstm", site);
  const Tensor real = options.lengths ? detail::with_finite_padding(x, lengths, site) : x;
  const std::array<const Tensor*, 7> inputs{&real, &w_ih, &w_hh, &b, &h0, &c0, &lengths};
  Tensors out = lstm_op.all(inputs, {options.reverse}, site);
  return {out[Y], out[H_N], out[C_N]};
}

template <Real T>
kernels::StepFunction<T> kernels::lstm_step(const T* w_hh, Index n) {
  const auto rows_of_w = MatrixView<T>::row_major(w_hh, 4 * n, n);
  const auto w = std::make_shared<const PackedMatrix<T>>(rows_of_w.transposed());
  return [w, n](Index rows, T* gates, const T* const* before, T* const* after) {
    step_product(MatrixView<T>::row_major(before[0], rows, n), *w, gates, 4 * n, Write::add);
    std::copy_n(before[1], rows * n, after[1]);
    const Scratch<T> y(n), cell(n);
    for (Index row = 0; row < rows; ++row)
      row_forward(n, gates + row * 4 * n, after[1] + row * n, after[0] + row * n, y.data(),
                  cell.data());
  };
}
template kernels::StepFunction<float> kernels::lstm_step(const float*, Index);
template kernels::StepFunction<double> kernels::lstm_step(const double*, Index);

LstmStep lstm_step(const Tensor& p, const Tensor& h, const Tensor& c, const Tensor& w_hh) {
  const Tensors gates = split(p + matmul(h, w_hh, false, true), 4, -1);
  const Tensor i = sigmoid(gates[0]), f = sigmoid(gates[1]), g = tanh(gates[2]),
               o = sigmoid(gates[3]);
  const Tensor c_next = f * c + i * g;
  return {o * tanh(c_next), c_next};
}

}  // namespace reel
