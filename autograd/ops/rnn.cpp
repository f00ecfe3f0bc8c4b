// The vanilla recurrent layer over a sequence; the equation is in recurrent.h.
//
// T steps, B rows, D features, H units. The forward pass keeps its output y [T, B, H], and for tanh
//   gates  [T, B, H]   the same in the form of gates.h
// because 1 - y² loses the slope where y rounds to 1. In the backward pass the place of the gates
// is taken by d [T, B, H], the gradients of the pre-activations; for relu, whose slope is whether
// y > 0, d takes H numbers per token more.

#include <memory>

#include <reel/autograd/engine/segments.h>
#include <reel/autograd/kernels/gates.h>
#include <reel/autograd/kernels/recurrent.h>
#include <reel/autograd/kernels/step.h>
#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/ops/recurrent_common.h>

namespace reel {
using namespace op;
namespace {

using kernels::MatrixView;
using kernels::PackedMatrix;
using kernels::Schedule;
using kernels::Write;

enum Input { X, W_IH, W_HH, B, H0, LENGTHS };
enum Output { Y, H_N, GATES };

struct Kind {
  Activation activation;
  bool reverse;
};

// y: the pre-activations, overwritten by the activations. The gates of tanh are stored if
// requested.
template <Real T>
[[gnu::noinline]] void row_forward(Index n, Activation activation, T* __restrict y, T* __restrict h,
                                   T* __restrict gates) {
  if (activation == Activation::tanh && gates)
    for (Index j = 0; j < n; ++j) {
      gates[j] = kernels::tanh_gate(y[j]);
      y[j] = kernels::tanh_value(gates[j]);
    }
  else if (activation == Activation::tanh)
    for (Index j = 0; j < n; ++j) y[j] = kernels::vtanh(y[j]);
  else
    for (Index j = 0; j < n; ++j) y[j] = y[j] < 0 ? T(0) : y[j];
  std::copy_n(y, n, h);
}

// On entry dh is the gradient of the state after the step, on return zero, for the recurrent
// product to add to. For tanh, d holds the gates on entry.
template <Real T>
[[gnu::noinline]] void row_backward(Index n, Activation activation, const T* __restrict y,
                                    const T* __restrict dy, T* __restrict dh, T* __restrict d) {
  kernels::add_gradient(dy, n, dh);
  if (activation == Activation::tanh)
    for (Index j = 0; j < n; ++j) d[j] = dh[j] * kernels::tanh_slope(d[j]).slope;
  else
    for (Index j = 0; j < n; ++j) d[j] = y[j] > 0 ? dh[j] : T(0);
  std::fill_n(dh, n, T(0));
}

template <Real T>
void forward(Ctx<T> c, const Kind& kind) {
  const Index steps = c.shape(X)[0], rows = c.shape(X)[1], features = c.shape(X)[2];
  const Index n = c.shape(W_HH)[1];
  const Schedule schedule{steps, rows, kind.reverse, c.indices(LENGTHS).data()};
  std::ranges::copy(c.in(H0), c.out(H_N).begin());
  T *y = c.out(Y).data(), *h = c.out(H_N).data();
  T* const gates = c.recording() ? c.out(GATES).data() : nullptr;
  kernels::input_product(c.in(X).data(), steps * rows, features, c.in(W_IH).data(), c.in(B).data(),
                         n, y);
  const PackedMatrix<T> w(MatrixView<T>::row_major(c.in(W_HH).data(), n, n).transposed());

  kernels::each_row_block(rows, [&](Index begin, Index end) {
    for (Index s = 0; s < steps; ++s) {
      const Index t = schedule.time(s);
      T* y_t = y + t * rows * n;
      step_product(MatrixView<T>::row_major(h + begin * n, end - begin, n), w, y_t + begin * n, n,
                   Write::add);
      for (Index row = begin; row < end; ++row)
        if (schedule.active(t, row))
          row_forward(n, kind.activation, y_t + row * n, h + row * n,
                      gates ? gates + (t * rows + row) * n : nullptr);
        else
          std::fill_n(y_t + row * n, n, T(0));
    }
  });
}

template <Real T>
void backward(BackwardCtx<T> c, const Kind& kind) {
  const Index steps = c.shape(X)[0], rows = c.shape(X)[1], features = c.shape(X)[2];
  const Index n = c.shape(W_HH)[1];
  const Schedule schedule{steps, rows, kind.reverse, c.indices(LENGTHS)};
  const bool tanh = kind.activation == Activation::tanh;

  // The gradients overwrite the gates, unless the tape is kept.
  T* const gates = tanh ? c.reusable(GATES) : nullptr;
  Scratch<T> own(gates ? 0 : steps * rows * n), dh(rows * n);
  T* const d = gates ? gates : own.data();
  kernels::start_gradient(c.g(H_N), rows * n, dh.data());
  const PackedMatrix<T> w(MatrixView<T>::row_major(c.in(W_HH), n, n));

  kernels::each_row_block(rows, [&](Index begin, Index end) {
    for (Index s = steps - 1; s >= 0; --s) {
      const Index t = schedule.time(s);
      T* d_t = d + t * rows * n;
      for (Index row = begin; row < end; ++row) {
        const Index token = t * rows + row;
        T* d_row = d_t + row * n;
        if (!schedule.active(t, row)) {
          std::fill_n(d_row, n, T(0));
          continue;
        }
        schedule.prefetch(s - 1, row, n, gates ? gates : tanh ? c.out(GATES) : c.out(Y));
        if (c.g(Y)) schedule.prefetch(s - 1, row, n, c.g(Y));
        if (tanh && !gates) std::copy_n(c.out(GATES) + token * n, n, d_row);
        row_backward(n, kind.activation, c.out(Y) + token * n,
                     c.g(Y) ? c.g(Y) + token * n : nullptr, dh.data() + row * n, d_row);
      }
      step_product(MatrixView<T>::row_major(d_t + begin * n, end - begin, n), w,
                   dh.data() + begin * n, n, Write::add);
    }
  });

  const auto all = MatrixView<T>::row_major(d, steps * rows, n);
  kernels::input_gradients(all, c.in(X), c.in(W_IH), features, Write::assign, c.grad(X),
                           c.grad(W_IH));
  if (T* dw = c.grad(W_HH)) recurrent_weight_gradient(schedule, d, n, n, c.out(Y), c.in(H0), n, dw);
  if (T* db = c.grad(B)) kernels::column_sums(all, db);
  if (T* dh0 = c.grad(H0)) std::copy_n(dh.data(), rows * n, dh0);
}

SampleInputs sample(Index steps, Index rows, Index features, Index n) {
  return with_inputs(normal({steps, rows, features}), normal({n, features}), normal({n, n}),
                     normal({n}), normal({rows, n}), lengths({rows}, steps));
}

REEL_EARLY const Op<Kind> rnn_op{{
    .name = "rnn",
    .arguments = {"x", "w_ih", "w_hh", "b", "h0", integer("lengths")},
    .shape = [](const Arguments& in, const Kind& kind) -> Shapes {
      const Shape y = detail::check_sequence(in, 1, H0, 1);
      return {y, y.erase(0), kind.activation == Activation::tanh ? y : y.with(2, 0)};
    },
    .forward = []<Real T>(Ctx<T> c, const Kind& kind) { forward(c, kind); },
    .gradient = fused([]<Real T>(BackwardCtx<T> c, const Kind& kind) { backward(c, kind); },
                      [](std::span<const Tensor> in, const Kind& kind) {
                        return detail::unroll_specification(
                            in, {in[H0]}, kind.reverse, [&](const Tensor& p, Tensors& state) {
                              state[0] = rnn_step(p, state[0], in[W_HH], kind.activation);
                            });
                      }),
    .samples = {sample(3, 2, 2, 3).attr(Kind{Activation::tanh, false}),
                sample(4, 3, 1, 2).attr(Kind{Activation::tanh, true}),
                sample(3, 2, 2, 3).attr(Kind{Activation::relu, false}),
                sample(1, 1, 1, 1).attr(Kind{Activation::tanh, false}),
                sample(2, 9, 2, 2).attr(Kind{Activation::relu, true}),
                sample(2, 0, 2, 2).attr(Kind{Activation::tanh, false})},
    .hidden_outputs = 1,
    .one_thread = detail::keeps_one_thread_busy,
}};

}  // namespace

RnnResult rnn(const Tensor& x, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b,
              const Tensor& h0, Activation activation, const SequenceOptions& options, Site site) {
  if (in_segments(options, "rnn", site)) {
    const auto whole = [activation, site](std::span<const Tensor> in,
                                          const SequenceOptions& within) {
      const auto [y, h] = rnn(in[0], in[1], in[2], in[3], in[4], activation, within, site);
      return Tensors{y, h};
    };
    Tensors out = detail::run_in_segments("rnn", whole, x, {w_ih, w_hh, b}, {h0}, options, site);
    return {out[Y], out[H_N]};
  }
  const Tensor lengths = resolve_lengths(options, x, "rnn", site);
  const Tensor real = options.lengths ? detail::with_finite_padding(x, lengths, site) : x;
  const std::array<const Tensor*, 6> inputs{&real, &w_ih, &w_hh, &b, &h0, &lengths};
  Tensors out = rnn_op.all(inputs, {activation, options.reverse}, site);
  return {out[Y], out[H_N]};
}

template <Real T>
kernels::StepFunction<T> kernels::rnn_step(const T* w_hh, Index n, Activation activation) {
  const auto rows_of_w = MatrixView<T>::row_major(w_hh, n, n);
  const auto w = std::make_shared<const PackedMatrix<T>>(rows_of_w.transposed());
  return [w, n, activation](Index rows, T* gates, const T* const* before, T* const* after) {
    step_product(MatrixView<T>::row_major(before[0], rows, n), *w, gates, n, Write::add);
    for (Index row = 0; row < rows; ++row)
      row_forward<T>(n, activation, gates + row * n, after[0] + row * n, nullptr);
  };
}
template kernels::StepFunction<float> kernels::rnn_step(const float*, Index, Activation);
template kernels::StepFunction<double> kernels::rnn_step(const double*, Index, Activation);

Tensor rnn_step(const Tensor& p, const Tensor& h, const Tensor& w_hh, Activation activation) {
  const Tensor sum = p + matmul(h, w_hh, false, true);
  return activation == Activation::tanh ? tanh(sum) : relu(sum);
}

}  // namespace reel
