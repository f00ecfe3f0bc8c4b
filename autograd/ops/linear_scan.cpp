// The linear recurrence h_t = a_t ∘ h_(t-1) + b_t over a sequence; see recurrent.h.
//
// T steps, and B·H columns that do not depend on each other: a thread takes a block of columns
// through all the steps, reading a and b once. With dy and dh the gradients of y and of the last
// state, the gradient is a scan the other way, with a one step later, in one pass as well:
//   g_t = dy_t + a_(t+1) ∘ g_(t+1), beginning with dh after the last step
//   da_t = g_t ∘ h_(t-1)     db_t = g_t     dh0 = a_1 ∘ g_1
// It is an op of its own, linear_scan_gradient. That is linear in dy and dh, and its gradient with
// respect to them is the scan of tangents p_t = a_t ∘ p_(t-1) + (u_t ∘ h_(t-1) + v_t) from p_0 = w,
// where u, v, w are the gradients of da, db, dh0. So derivatives of every order are made of these
// two ops, and none runs step by step.

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include <reel/autograd/checkpoint.h>
#include <reel/autograd/engine/op.h>
#include <reel/autograd/engine/segments.h>
#include <reel/autograd/kernels/thread_pool.h>
#include <reel/autograd/observer.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/recurrent.h>

namespace reel {
using namespace op;
namespace {

struct Direction {
  bool reverse;
};

// Arguments of linear_scan, and of linear_scan_gradient, which has Y in place of B.
enum Input { A, B, H0, LENGTHS, DY, DH };
constexpr int Y_IN = B;
enum Output { Y, H_N };
enum GradientOutput { DA, DB, DH0 };

// What a step is for a row.
enum class Step { padding, first, later };

// The steps of a sequence [T, B, H], for blocks of its B·H columns.
struct Columns {
  Index steps, units, count;
  bool reverse;
  const std::int32_t* lengths;  // null: all rows have all steps

  Columns(const Shape& sequence, const Direction& direction, std::span<const std::int32_t> lengths)
      : steps(sequence[0]),
        units(sequence[2]),
        count(sequence[1] * sequence[2]),
        reverse(direction.reverse),
        lengths(lengths.data()) {}

  // The step that a scan takes as its s-th, and the one before step t.
  Index time(Index s) const { return reverse ? steps - 1 - s : s; }
  Index before(Index t) const { return reverse ? t + 1 : t - 1; }

  // Calls f(begin, end) for blocks of columns, in parallel. A block is so wide that a step's
  // numbers are long streams in memory, and so narrow that its states stay in the nearest cache.
  template <Real T, class F>
  void each_block(F f) const {
    constexpr Index widest = 16384 / sizeof(T), line = 64 / sizeof(T);
    constexpr Index worth_a_fork = 1 << 17;  // elements of the sequence
    Index width = std::max<Index>(1, count);
    if (steps * count >= worth_a_fork) {
      const Index share = (count + threads() - 1) / threads();
      width = std::min(widest, (share + line - 1) / line * line);
    }
    kernels::parallel_for((count + width - 1) / width, [&](Index block) {
      f(block * width, std::min(count, (block + 1) * width));
    });
  }

  // Calls f(step, begin, count) for neighbouring columns of a block for which step t is the same.
  template <class F>
  void each_run(Index t, Index begin, Index end, F f) const {
    while (begin < end) {
      Index row = begin / units;
      const Step step = kind(t, row);
      while (++row * units < end && kind(t, row) == step) {
      }
      const Index next = std::min(end, row * units);
      f(step, begin, next - begin);
      begin = next;
    }
  }

 private:
  Step kind(Index t, Index row) const {
    const Index length = lengths ? lengths[row] : steps;
    if (t >= length) return Step::padding;
    return t == (reverse ? length - 1 : 0) ? Step::first : Step::later;
  }
};

template <Real T>
[[gnu::noinline]] void step_forward(Index n, const T* __restrict a, const T* __restrict b,
                                    T* __restrict h, T* __restrict y) {
  for (Index j = 0; j < n; ++j) {
    h[j] = a[j] * h[j] + b[j];
    y[j] = h[j];
  }
}

// On entry `g` is the gradient of the state after the step, on return that of the state before it.
template <Real T>
[[gnu::noinline]] void step_backward(Index n, const T* __restrict a, const T* __restrict before,
                                     const T* __restrict dy, T* __restrict g, T* __restrict da,
                                     T* __restrict db) {
  for (Index j = 0; j < n; ++j) {
    const T total = g[j] + dy[j];
    da[j] = total * before[j];
    db[j] = total;
    g[j] = a[j] * total;
  }
}

template <Real T>
void forward(Ctx<T> c, const Direction& direction) {
  const Columns columns(c.shape(A), direction, c.indices(LENGTHS));
  const T *a = c.in(A).data(), *b = c.in(B).data();
  T *y = c.out(Y).data(), *h = c.out(H_N).data();
  if (c.has(H0))
    std::ranges::copy(c.in(H0), h);
  else
    std::fill_n(h, columns.count, T(0));
  columns.each_block<T>([&](Index begin, Index end) {
    for (Index s = 0; s < columns.steps; ++s) {
      const Index t = columns.time(s);
      columns.each_run(t, begin, end, [&](Step step, Index first, Index n) {
        const Index at = t * columns.count + first;
        if (step == Step::padding)
          std::fill_n(y + at, n, T(0));
        else
          step_forward(n, a + at, b + at, h + first, y + at);
      });
    }
  });
}

template <Real T>
void gradient_forward(Ctx<T> c, const Direction& direction) {
  const Columns columns(c.shape(A), direction, c.indices(LENGTHS));
  const T *a = c.in(A).data(), *y = c.in(Y_IN).data(), *dy = c.in(DY).data();
  const Index missing = c.has(H0) ? 0 : columns.count;
  const Scratch<T> zero(missing);
  std::fill_n(zero.data(), missing, T(0));
  const T* h0 = c.has(H0) ? c.in(H0).data() : zero.data();
  T *da = c.out(DA).data(), *db = c.out(DB).data(), *g = c.out(DH0).data();
  std::ranges::copy(c.in(DH), g);
  columns.each_block<T>([&](Index begin, Index end) {
    for (Index s = columns.steps - 1; s >= 0; --s) {
      const Index t = columns.time(s);
      columns.each_run(t, begin, end, [&](Step step, Index first, Index n) {
        const Index at = t * columns.count + first;
        if (step == Step::padding) {
          std::fill_n(da + at, n, T(0));
          std::fill_n(db + at, n, T(0));
          return;
        }
        const T* before =
            step == Step::first ? h0 + first : y + columns.before(t) * columns.count + first;
        step_backward(n, a + at, before, dy + at, g + first, da + at, db + at);
      });
    }
  });
}

// i32 [T, 1], for comparison with lengths [B].
Tensor step_indices(Index steps) { return expand(arange(steps), -1); }
// i32 [T, B, 1]: whether it is a row's last step.
Tensor last_steps(Index steps, const Tensor& lengths) {
  const Tensor last =
      lengths.defined() ? lengths - 1 : full({1}, static_cast<double>(steps - 1), i32);
  return expand(equal(step_indices(steps), last), -1);
}

Tensors scan(const Tensor& a, const Tensor& b, const Tensor& h0, const Tensor& lengths,
             const Direction& direction, Site site);
Tensors scan_gradient(Vjp& v, const Direction& direction);
void differentiate_gradient(Vjp& v, const Direction& direction);

Shape check_scan(const Arguments& in, const char* second) {
  if (in[A].rank() != 3 || in[A][0] == 0) in.fail("a must be [T, B, H] with T > 0");
  if (in[B] != in[A]) in.fail(fmt::format("{} must have the shape of a", second));
  if (in.has(H0) && in[H0] != in[A].erase(0))
    in.fail(fmt::format("h0 must be {} for this a", in[A].erase(0).str()));
  if (in.has(LENGTHS) && in[LENGTHS] != Shape{in[A][1]})
    in.fail(fmt::format("lengths must be [{}] for this a", in[A][1]));
  return in[A];
}

SampleInputs sample(const Shape& sequence, const Generator& h0) {
  return with_inputs(normal(sequence), normal(sequence), h0, lengths({sequence[1]}, sequence[0]));
}
SampleInputs unpadded_sample(const Shape& sequence) {
  return with_inputs(normal(sequence), normal(sequence), normal(sequence.erase(0)), absent());
}
SampleInputs sample(const Shape& sequence) { return sample(sequence, normal(sequence.erase(0))); }

REEL_EARLY const Op<Direction> linear_scan_op{{
    .name = "linear_scan",
    .arguments = {"a", "b", optional("h0"), optional(integer("lengths"))},
    .shape = [](const Arguments& in) -> Shapes {
      const Shape y = check_scan(in, "b");
      return {y, y.erase(0)};
    },
    .forward = []<Real T>(Ctx<T> c, const Direction& d) { forward(c, d); },
    .gradient = rule(
        [](Vjp& v, const Direction& d) {
          const Tensors gradients = scan_gradient(v, d);
          v.add(A, [&] { return gradients[DA]; });
          v.add(B, [&] { return gradients[DB]; });
          v.add(H0, [&] { return gradients[DH0]; });
        },
        Keeps::input(A) | Keeps::input(H0) | Keeps::input(LENGTHS) | Keeps::output(Y)),
    .samples = {sample({3, 2, 2}).attr(Direction{false}), sample({3, 2, 2}).attr(Direction{true}),
                sample({4, 5, 3}).attr(Direction{false}), sample({5, 4, 1}).attr(Direction{true}),
                sample({1, 1, 1}).attr(Direction{false}), sample({1, 3, 2}).attr(Direction{true}),
                sample({2, 0, 2}).attr(Direction{true}), sample({3, 2, 0}).attr(Direction{false}),
                sample({3, 3, 2}, absent()).attr(Direction{false}),
                unpadded_sample({3, 2, 2}).attr(Direction{false}),
                unpadded_sample({2, 3, 2}).attr(Direction{true})},
}};

SampleInputs with_gradients(SampleInputs inputs) {
  const Shape sequence = inputs.inputs[A].shape;
  inputs.inputs.push_back(normal(sequence));
  inputs.inputs.push_back(normal(sequence.erase(0)));
  return inputs;
}

REEL_EARLY const Op<Direction> linear_scan_gradient_op{{
    .name = "linear_scan_gradient",
    .arguments = {"a", "y", optional("h0"), optional(integer("lengths")), "dy", "dh"},
    .shape = [](const Arguments& in) -> Shapes {
      const Shape sequence = check_scan(in, "y");
      if (in[DY] != sequence) in.fail("dy must have the shape of a");
      if (in[DH] != sequence.erase(0)) in.fail("dh must be [B, H]");
      return {sequence, sequence, sequence.erase(0)};
    },
    .forward = []<Real T>(Ctx<T> c, const Direction& d) { gradient_forward(c, d); },
    .gradient = rule([](Vjp& v, const Direction& d) { differentiate_gradient(v, d); },
                     Keeps::input(A) | Keeps::input(Y_IN) | Keeps::input(H0) |
                         Keeps::input(LENGTHS) | Keeps::output(DB)),
    .samples = {with_gradients(sample({3, 2, 2})).attr(Direction{false}),
                with_gradients(sample({3, 2, 2})).attr(Direction{true}),
                with_gradients(sample({4, 5, 3})).attr(Direction{true}),
                with_gradients(sample({5, 4, 1})).attr(Direction{false}),
                with_gradients(sample({1, 1, 1})).attr(Direction{true}),
                with_gradients(sample({2, 0, 2})).attr(Direction{false}),
                with_gradients(sample({3, 3, 2}, absent())).attr(Direction{true}),
                with_gradients(unpadded_sample({3, 2, 2})).attr(Direction{false}),
                with_gradients(unpadded_sample({2, 3, 2})).attr(Direction{true})},
}};

Tensors scan(const Tensor& a, const Tensor& b, const Tensor& h0, const Tensor& lengths,
             const Direction& direction, Site site) {
  const std::array<const Tensor*, 4> inputs{&a, &b, &h0, &lengths};
  return linear_scan_op.all(inputs, direction, site);
}

Tensors scan_gradient(Vjp& v, const Direction& direction) {
  const Tensor a = v.in(A), y = v.out(Y), h0 = v.in(H0), lengths = v.in(LENGTHS);
  const Tensor dy = v.g(Y), dh = v.g(H_N);
  const std::array<const Tensor*, 6> inputs{&a, &y, &h0, &lengths, &dy, &dh};
  return linear_scan_gradient_op.all(inputs, direction, {});
}

void differentiate_gradient(Vjp& v, const Direction& direction) {
  const Tensor y = v.in(Y_IN), lengths = v.in(LENGTHS), g = v.out(DB), w = v.g(DH0);
  const Index steps = y.size(0);
  // da is 0 in the padding, so its gradient there, which may not be finite, has no part in this.
  const Tensor u = with_zero_padding(v.g(DA), lengths);
  const auto before = [&](const Tensor& sequence, const Tensor& initial) {
    return previous_steps(sequence, initial, lengths, direction.reverse);
  };
  const Tensors p = scan(v.in(A), u * before(y, v.in(H0)) + v.g(DB), w, lengths, direction, {});
  v.add(A, [&] { return g * before(p[Y], w); });
  v.add(DY, [&] { return p[Y]; });
  v.add(DH, [&] { return p[H_N]; });
  // To y and h0, the states before: the adjoint of previous_steps.
  const Tensor to_before = u * g;
  if (!direction.reverse) {
    v.add(Y_IN, [&] { return pad(slice(to_before, 0, 1, steps), 0, 0, 1); });
    v.add(H0, [&] { return select(to_before, 0, 0); });
    return;
  }
  const Tensor initial = last_steps(steps, lengths);
  v.add(Y_IN, [&] { return pad(slice(where(initial, 0, to_before), 0, 0, steps - 1), 0, 1, 0); });
  v.add(H0, [&] { return sum(where(initial, to_before, 0), {0}); });
}

// Each segment under a checkpoint, which has one input for both sequences.
RnnResult scan_in_segments(const Tensor& a, const Tensor& b, const Tensor& h0,
                           const SequenceOptions& options, Site site) {
  RnnResult result{{}, h0.defined() ? h0 : zeros(a.shape().erase(0), a.dtype())};
  Tensors outputs;
  const auto scan_segment = [&](const Tensor& part, const Segment& segment) {
    const auto run = [segment, site, wanted = options.outputs](std::span<const Tensor> in) {
      const Tensors both = split(segment.of(in[0]), 2, -1);
      const RnnResult within = linear_scan(both[0], both[1], in[1], segment.options, site);
      return wanted ? Tensors{within.h, within.y} : Tensors{within.h};
    };
    const Tensors results = checkpoint(run, {part, result.h}, site);
    result.h = results[0];
    if (options.outputs) outputs.push_back(results[1]);
  };
  each_segment(concat({a, b}, -1, site), options, "linear_scan", site, scan_segment);
  result.y = join_segments(std::move(outputs), options);
  return result;
}

}  // namespace

RnnResult linear_scan(const Tensor& a, const Tensor& b, const Tensor& h0,
                      const SequenceOptions& options, Site site) {
  const bool one_sequence = a.defined() && b.defined() && a.rank() == 3 && a.size(0) > 0 &&
                            a.shape() == b.shape() && a.dtype() == b.dtype();
  if (in_segments(options, "linear_scan", site) && one_sequence)
    return scan_in_segments(a, b, h0, options, site);
  const Tensor lengths = resolve_lengths(options, a, "linear_scan", site);
  if (Observer* observer = Observer::current()) observer->scan(a, b, lengths, options.reverse);
  const Tensors out = scan(a, b, h0, lengths, {options.reverse}, site);
  return {out[Y], out[H_N]};
}

Tensor previous_steps(const Tensor& x, const Tensor& initial, const Tensor& lengths, bool reverse,
                      Site site) {
  const Index steps = x.size(0);
  const Tensor start = initial.defined() ? initial : zeros(x.shape().erase(0), x.dtype());
  const Tensor first = expand(start, 0, site);
  if (!reverse) return concat({first, slice(x, 0, 0, steps - 1, 1, site)}, 0, site);
  const Tensor shifted = concat({slice(x, 0, 1, steps, 1, site), first}, 0, site);
  return lengths.defined() ? where(last_steps(steps, lengths), start, shifted, site) : shifted;
}

}  // namespace reel

namespace reel::op::linked {
void linear_scan() {}
}  // namespace reel::op::linked
