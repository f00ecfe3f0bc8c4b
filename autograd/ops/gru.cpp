// The gated recurrent unit over a sequence; the equations are in recurrent.h.
//
// T steps, B rows, D features, H units. The forward pass keeps for the backward pass, per token:
//   gates  [T, B, 3H]  r, z, n after their nonlinearities, in the form of gates.h
//   inner  [T, B, H]   q = U_n h + b_hn (reset after the product), or s = r ∘ h (reset before it)
// and y [T, B, H] is the output itself: 5 H numbers. The backward pass needs 4 H more for
//   d      [T, B, 4H]  the gradients before the nonlinearities, in the order n, r, z, q
// where q is what reaches the recurrent product of n. Its first three blocks belong to W x + b, its
// last three, with the reset after the product, to U h. With the reset before the product, the
// gradient of n is that of q.

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

enum Input { X, W_IH, W_HH, B, B_HN, H0, LENGTHS };
enum Output { Y, H_N, GATES, INNER };

struct Kind {
  Reset reset;
  bool reverse;
};

// The last part of every step: h' = (1 - z) n + z h. `candidate` holds the values of n.
template <Real T>
[[gnu::noinline]] void mix(Index n, const T* __restrict z, const T* __restrict candidate,
                           T* __restrict h, T* __restrict y) {
  for (Index j = 0; j < n; ++j) {
    h[j] = kernels::sigmoid_complement(z[j]) * candidate[j] + kernels::sigmoid_value(z[j]) * h[j];
    y[j] = h[j];
  }
}

// Reset after the product: `product` holds U h for r, z and n, on return the values of n.
template <Real T>
[[gnu::noinline]] void row_after(Index n, T* __restrict gates, T* __restrict product,
                                 const T* __restrict b_hn, T* __restrict q) {
  T *r = gates, *candidate = gates + 2 * n;
  for (Index j = 0; j < 2 * n; ++j) gates[j] = kernels::sigmoid_gate(gates[j] + product[j]);
  for (Index j = 0; j < n; ++j) {
    q[j] = product[2 * n + j] + b_hn[j];
    candidate[j] = kernels::tanh_gate(candidate[j] + kernels::sigmoid_value(r[j]) * q[j]);
    product[j] = kernels::tanh_value(candidate[j]);
  }
}

// Reset before the product, up to the operand of that product, s = r h.
template <Real T>
[[gnu::noinline]] void row_before(Index n, T* __restrict gates, const T* __restrict product,
                                  const T* __restrict h, T* __restrict s) {
  for (Index j = 0; j < 2 * n; ++j) gates[j] = kernels::sigmoid_gate(gates[j] + product[j]);
  for (Index j = 0; j < n; ++j) s[j] = kernels::sigmoid_value(gates[j]) * h[j];
}

// After that product: n from its pre-activations without b_hn, and its values.
template <Real T>
[[gnu::noinline]] void row_candidate(Index n, T* __restrict candidate, const T* __restrict b_hn,
                                     T* __restrict values) {
  for (Index j = 0; j < n; ++j) {
    candidate[j] = kernels::tanh_gate(candidate[j] + b_hn[j]);
    values[j] = kernels::tanh_value(candidate[j]);
  }
}

// The gradients of n and z and of the direct path to the previous state; d is n, r, z, q. On entry
// dh is the gradient of the state after the step.
template <Real T>
[[gnu::noinline]] void row_backward_mix(Index n, const T* __restrict gates,
                                        const T* __restrict h_before, const T* __restrict dy,
                                        T* __restrict dh, T* __restrict d) {
  const T *z = gates + n, *candidate = gates + 2 * n;
  kernels::add_gradient(dy, n, dh);
  for (Index j = 0; j < n; ++j) {
    const T dhj = dh[j];
    const auto [value, slope] = kernels::tanh_slope(candidate[j]);
    d[j] = dhj * kernels::sigmoid_complement(z[j]) * slope;
    d[2 * n + j] = dhj * (h_before[j] - value) * kernels::sigmoid_slope(z[j]);
    dh[j] = dhj * kernels::sigmoid_value(z[j]);
  }
}

template <Real T>
[[gnu::noinline]] void row_backward_after(Index n, const T* __restrict r, const T* __restrict q,
                                          T* __restrict d) {
  for (Index j = 0; j < n; ++j) {
    d[n + j] = d[j] * q[j] * kernels::sigmoid_slope(r[j]);
    d[3 * n + j] = d[j] * kernels::sigmoid_value(r[j]);
  }
}

// ds is the gradient of s = r h.
template <Real T>
[[gnu::noinline]] void row_backward_before(Index n, const T* __restrict r,
                                           const T* __restrict h_before, const T* __restrict ds,
                                           T* __restrict dh, T* __restrict d) {
  for (Index j = 0; j < n; ++j) {
    d[n + j] = ds[j] * h_before[j] * kernels::sigmoid_slope(r[j]);
    d[3 * n + j] = d[j];
    dh[j] += ds[j] * kernels::sigmoid_value(r[j]);
  }
}

// The recurrent weights, packed as the steps use them: all together, or r and z separate from n.
template <Real T>
struct Packed {
  PackedMatrix<T> first, second;

  Packed(const T* w, Index n, Reset reset, bool transposed)
      : Packed(w, n, reset == Reset::after ? 3 : 2, transposed) {}

 private:
  Packed(const T* w, Index n, int together, bool transposed)
      : first(block(w, n, 0, together, transposed)), second(block(w, n, together, 3, transposed)) {}

  static MatrixView<T> block(const T* w, Index n, Index begin, Index end, bool transposed) {
    const auto rows = MatrixView<T>::row_major(w + begin * n * n, (end - begin) * n, n);
    return transposed ? rows.transposed() : rows;
  }
};

// One step of some rows, except for the final interpolation: on entry `gates` [rows, 3 H] is W x +
// b; `products` of that size is scratch memory for U h, and each of its rows, as wide as w.first,
// on return begins with the values of n.
template <Real T>
void step_gates(Reset reset, const Packed<T>& w, const T* b_hn, Index rows, Index n, const T* h,
                T* gates, T* products, T* inner) {
  const bool after = reset == Reset::after;
  const Index width = 3 * n, product_width = w.first.cols();
  step_product(MatrixView<T>::row_major(h, rows, n), w.first, products, product_width,
               Write::assign);
  for (Index row = 0; row < rows; ++row) {
    T* product = products + row * product_width;
    if (after)
      row_after(n, gates + row * width, product, b_hn, inner + row * n);
    else
      row_before(n, gates + row * width, product, h + row * n, inner + row * n);
  }
  if (after) return;
  step_product(MatrixView<T>::row_major(inner, rows, n), w.second, gates + 2 * n, width,
               Write::add);
  for (Index row = 0; row < rows; ++row)
    row_candidate(n, gates + row * width + 2 * n, b_hn, products + row * product_width);
}

template <Real T>
void forward(Ctx<T> c, const Kind& kind) {
  const Index steps = c.shape(X)[0], rows = c.shape(X)[1], features = c.shape(X)[2];
  const Index n = c.shape(W_HH)[1], width = 3 * n;
  const Schedule schedule{steps, rows, kind.reverse, c.indices(LENGTHS).data()};
  std::ranges::copy(c.in(H0), c.out(H_N).begin());

  Scratch<T> own_gates(c.recording() ? 0 : steps * rows * width), own_inner(rows * n);
  Scratch<T> products(rows * width);
  T* gates = c.recording() ? c.out(GATES).data() : own_gates.data();
  kernels::input_product(c.in(X).data(), steps * rows, features, c.in(W_IH).data(), c.in(B).data(),
                         width, gates);
  const Packed<T> w(c.in(W_HH).data(), n, kind.reset, true);
  const T* b_hn = c.in(B_HN).data();
  T *h = c.out(H_N).data(), *y = c.out(Y).data();

  kernels::each_row_block(rows, [&](Index begin, Index end) {
    const Index count = end - begin;
    for (Index s = 0; s < steps; ++s) {
      const Index t = schedule.time(s);
      T* p = gates + t * rows * width;
      T* inner = c.recording() ? c.out(INNER).data() + t * rows * n : own_inner.data();
      step_gates(kind.reset, w, b_hn, count, n, h + begin * n, p + begin * width,
                 products.data() + begin * width, inner + begin * n);
      for (Index row = begin; row < end; ++row) {
        const T* candidate = products.data() + begin * width + (row - begin) * w.first.cols();
        T* y_row = y + (t * rows + row) * n;
        if (schedule.active(t, row)) {
          mix(n, p + row * width + n, candidate, h + row * n, y_row);
        } else {
          std::fill_n(y_row, n, T(0));
          std::fill_n(inner + row * n, n, T(0));  // the gradient's product reads all of it
        }
      }
    }
  });
}

template <Real T>
void backward(BackwardCtx<T> c, const Kind& kind) {
  const Index steps = c.shape(X)[0], rows = c.shape(X)[1], features = c.shape(X)[2];
  const Index n = c.shape(W_HH)[1], width = 4 * n, tokens = steps * rows;
  const Schedule schedule{steps, rows, kind.reverse, c.indices(LENGTHS)};
  const bool after = kind.reset == Reset::after;
  Scratch<T> d(tokens * width), dh(rows * n), ds(rows * n);
  kernels::start_gradient(c.g(H_N), rows * n, dh.data());
  const Packed<T> w(c.in(W_HH), n, kind.reset, false);

  kernels::each_row_block(rows, [&](Index begin, Index end) {
    const Index count = end - begin;
    for (Index s = steps - 1; s >= 0; --s) {
      const Index t = schedule.time(s);
      T* d_t = d.data() + t * rows * width;
      const auto state_before = [&](Index row) {
        return kernels::previous_state(schedule, t, row, n, c.out(Y), c.in(H0));
      };
      for (Index row = begin; row < end; ++row) {
        const Index token = t * rows + row;
        T* d_row = d_t + row * width;
        if (!schedule.active(t, row)) {
          std::fill_n(d_row, width, T(0));
          continue;
        }
        schedule.prefetch(s - 1, row, 3 * n, c.out(GATES));
        schedule.prefetch(s - 1, row, n, c.out(INNER));
        schedule.prefetch(s - 2, row, n, c.out(Y));
        if (c.g(Y)) schedule.prefetch(s - 1, row, n, c.g(Y));
        const T* gates = c.out(GATES) + token * 3 * n;
        row_backward_mix(n, gates, state_before(row), c.g(Y) ? c.g(Y) + token * n : nullptr,
                         dh.data() + row * n, d_row);
        if (after) row_backward_after(n, gates, c.out(INNER) + token * n, d_row);
      }
      const auto gates = [&](Index block, Index blocks) {
        return MatrixView<T>::row_major(d_t + begin * width + block * n, count, blocks * n, width);
      };
      T* dh_block = dh.data() + begin * n;
      if (after) {
        step_product(gates(1, 3), w.first, dh_block, n, Write::add);
        continue;
      }
      step_product(gates(0, 1), w.second, ds.data() + begin * n, n, Write::assign);
      for (Index row = begin; row < end; ++row)
        if (schedule.active(t, row))
          row_backward_before(n, c.out(GATES) + (t * rows + row) * 3 * n, state_before(row),
                              ds.data() + row * n, dh.data() + row * n, d_t + row * width);
      step_product(gates(1, 2), w.first, dh_block, n, Write::add);
    }
  });

  const auto block = [&](Index first, Index count) {
    return MatrixView<T>::row_major(d.data() + first * n, tokens, count * n, width);
  };
  // W x + b, whose rows are r, z, n.
  T *dx = c.grad(X), *dw_ih = c.grad(W_IH), *db = c.grad(B);
  kernels::input_gradients(block(1, 2), c.in(X), c.in(W_IH), features, Write::assign, dx, dw_ih);
  kernels::input_gradients(block(0, 1), c.in(X), c.in(W_IH) + 2 * n * features, features,
                           Write::add, dx, dw_ih ? dw_ih + 2 * n * features : nullptr);
  if (db) {
    kernels::column_sums(block(1, 2), db);
    kernels::column_sums(block(0, 1), db + 2 * n);
  }
  // U h + b_hn.
  if (T* dw = c.grad(W_HH)) {
    recurrent_weight_gradient(schedule, d.data() + n, after ? 3 * n : 2 * n, width, c.out(Y),
                              c.in(H0), n, dw);
    if (!after)
      matmul(block(0, 1).transposed(), MatrixView<T>::row_major(c.out(INNER), tokens, n),
             dw + 2 * n * n, n, Write::assign);
  }
  if (T* db_hn = c.grad(B_HN)) kernels::column_sums(block(3, 1), db_hn);
  if (T* dh0 = c.grad(H0)) std::copy_n(dh.data(), rows * n, dh0);
}

SampleInputs sample(Index steps, Index rows, Index features, Index n) {
  return with_inputs(normal({steps, rows, features}), normal({3 * n, features}), normal({3 * n, n}),
                     normal({3 * n}), normal({n}), normal({rows, n}), lengths({rows}, steps));
}

REEL_EARLY const Op<Kind> gru_op{{
    .name = "gru",
    .arguments = {"x", "w_ih", "w_hh", "b", "b_hn", "h0", integer("lengths")},
    .shape = [](const Arguments& in) -> Shapes {
      const Shape y = detail::check_sequence(in, 3, H0, 1);
      if (in[B_HN] != Shape{y[2]}) in.fail("b_hn must be [H]");
      return {y, y.erase(0), y.with(2, 3 * y[2]), y};
    },
    .forward = []<Real T>(Ctx<T> c, const Kind& kind) { forward(c, kind); },
    .gradient = fused([]<Real T>(BackwardCtx<T> c, const Kind& kind) { backward(c, kind); },
                      [](std::span<const Tensor> in, const Kind& kind) {
                        return detail::unroll_specification(
                            in, {in[H0]}, kind.reverse, [&](const Tensor& p, Tensors& state) {
                              state[0] = gru_step(p, state[0], in[W_HH], in[B_HN], kind.reset);
                            });
                      }),
    .samples = {sample(3, 2, 2, 3).attr(Kind{Reset::after, false}),
                sample(4, 3, 1, 2).attr(Kind{Reset::after, true}),
                sample(3, 2, 2, 3).attr(Kind{Reset::before, false}),
                sample(4, 3, 1, 2).attr(Kind{Reset::before, true}),
                sample(1, 1, 1, 1).attr(Kind{Reset::after, false}),
                sample(2, 9, 2, 2).attr(Kind{Reset::before, true}),
                sample(2, 0, 2, 2).attr(Kind{Reset::after, false})},
    .hidden_outputs = 2,
    .one_thread = detail::keeps_one_thread_busy,
}};

}  // namespace

GruResult gru(const Tensor& x, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b,
              const Tensor& b_hn, const Tensor& h0, Reset reset, const SequenceOptions& options,
              Site site) {
  if (in_segments(options, "gru", site)) {
    const auto whole = [reset, site](std::span<const Tensor> in, const SequenceOptions& within) {
      const auto [y, h] = gru(in[0], in[1], in[2], in[3], in[4], in[5], reset, within, site);
      return Tensors{y, h};
    };
    Tensors out =
        detail::run_in_segments("gru", whole, x, {w_ih, w_hh, b, b_hn}, {h0}, options, site);
    return {out[Y], out[H_N]};
  }
  const Tensor lengths = resolve_lengths(options, x, "gru", site);
  const Tensor real = options.lengths ? detail::with_finite_padding(x, lengths, site) : x;
  const std::array<const Tensor*, 7> inputs{&real, &w_ih, &w_hh, &b, &b_hn, &h0, &lengths};
  Tensors out = gru_op.all(inputs, {reset, options.reverse}, site);
  return {out[Y], out[H_N]};
}

template <Real T>
kernels::StepFunction<T> kernels::gru_step(const T* w_hh, const T* b_hn, Index n, Reset reset) {
  const auto w = std::make_shared<const Packed<T>>(w_hh, n, reset, true);
  return [w, bias = PoolVector<T>(b_hn, b_hn + n), n, reset](
             Index rows, T* gates, const T* const* before, T* const* after) {
    const Scratch<T> products(rows * 3 * n), inner(rows * n), y(n);
    step_gates(reset, *w, bias.data(), rows, n, before[0], gates, products.data(), inner.data());
    std::copy_n(before[0], rows * n, after[0]);
    for (Index row = 0; row < rows; ++row)
      mix(n, gates + row * 3 * n + n, products.data() + row * w->first.cols(), after[0] + row * n,
          y.data());
  };
}
template kernels::StepFunction<float> kernels::gru_step(const float*, const float*, Index, Reset);
template kernels::StepFunction<double> kernels::gru_step(const double*, const double*, Index,
                                                         Reset);

Tensor gru_step(const Tensor& p, const Tensor& h, const Tensor& w_hh, const Tensor& b_hn,
                Reset reset) {
  const Tensors in = split(p, 3, -1);
  // With the reset after the product, one product for all gates; otherwise that of n waits for r.
  const bool after = reset == Reset::after;
  const Index n = h.size(-1);
  const Tensor w = after ? w_hh : slice(w_hh, 0, 0, 2 * n);
  const Tensors u = split(matmul(h, w, false, true), after ? 3 : 2, -1);
  const Tensor r = sigmoid(in[0] + u[0]), z_sum = in[1] + u[1];
  const Tensor inner =
      after ? r * (u[2] + b_hn) : matmul(r * h, slice(w_hh, 0, 2 * n, 3 * n), false, true) + b_hn;
  const Tensor candidate = tanh(in[2] + inner);
  // 1 - z would be rounded at the size of 1, and with it the gradient of the candidate.
  const Tensor z = sigmoid(z_sum), one_minus_z = sigmoid(-z_sum);
  return one_minus_z * candidate + z * h;
}

}  // namespace reel
