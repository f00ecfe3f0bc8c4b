#pragma once

#include <algorithm>
#include <array>

#include <reel/autograd/dtype.h>
#include <reel/autograd/shape.h>

namespace reel::kernels {

/// How to walk N operands that broadcast to one shape: at most four nested loops, merged where all
/// operands allow it, so that equal shapes are one loop. Stride 0 repeats an element.
template <int N>
class BroadcastPlan {
 public:
  using Strides = std::array<Index, N>;

  BroadcastPlan(const Shape& shape, const std::array<const Shape*, N>& operands) {
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      if (shape[axis] == 1) continue;
      Strides strides;
      for (std::size_t n = 0; n < N; ++n) strides[n] = stride_of(*operands[n], shape.rank(), axis);
      append(shape[axis], strides);
    }
    if (shape.size() == 0) sizes_[0] = 0;
  }

  /// Calls `row(offsets, count, strides)` for each innermost run, in row-major order.
  template <class F>
  void each_row(F&& row) const {
    if (sizes_[0] == 0) return;
    Strides offset3{};
    for (Index i = 0; i < sizes_[3]; ++i, advance(offset3, 3)) {
      Strides offset2 = offset3;
      for (Index j = 0; j < sizes_[2]; ++j, advance(offset2, 2)) {
        Strides offset1 = offset2;
        for (Index k = 0; k < sizes_[1]; ++k, advance(offset1, 1))
          row(offset1, sizes_[0], strides_[0]);
      }
    }
  }

 private:
  static Index stride_of(const Shape& operand, int rank, int axis) {
    const int own = axis - (rank - operand.rank());
    return own < 0 || operand[own] == 1 ? 0 : operand.stride(own);
  }

  // Adds the next loop outwards, or widens the last one if all operands run on without a step.
  void append(Index size, const Strides& strides) {
    if (loops_ > 0) {
      const std::size_t last = static_cast<std::size_t>(loops_ - 1);
      bool continues = true;
      for (std::size_t n = 0; n < N; ++n)
        continues &= strides[n] == strides_[last][n] * sizes_[last];
      if (continues) {
        sizes_[last] *= size;
        return;
      }
    }
    sizes_[static_cast<std::size_t>(loops_)] = size;
    strides_[static_cast<std::size_t>(loops_++)] = strides;
  }

  void advance(Strides& offset, std::size_t loop) const {
    for (std::size_t n = 0; n < N; ++n) offset[n] += strides_[loop][n];
  }

  std::array<Index, 4> sizes_{1, 1, 1, 1};  // innermost first
  std::array<Strides, 4> strides_{};
  int loops_ = 0;
};

/// What an operand has in an innermost run: consecutive elements, or one that is repeated.
template <class T, bool repeated>
struct Run {
  const T* first;
  T operator[](Index i) const {
    if constexpr (repeated)
      return *first;
    else
      return first[i];
  }
};

/// Calls `f(a, b, ...)` with the run of each operand. A stride in an innermost loop is 0 or 1, and
/// a loop for each case is what the compiler turns into vector code.
template <class F>
void with_runs(F&& f) {
  f();
}
template <class F, class T, class... Rest>
void with_runs(F&& f, const T* first, Index stride, Rest... rest) {
  if (stride == 0) {
    const T value = *first;  // a copy, which no store can change
    with_runs([&](auto... others) { f(Run<T, true>{&value}, others...); }, rest...);
  } else {
    with_runs([&](auto... others) { f(Run<T, false>{first}, others...); }, rest...);
  }
}

/// out = f(a, b), each element, with NumPy broadcasting of a and b to `shape`.
template <class Out, class In, class F>
void broadcast_binary(const Shape& shape, Out* out, const In* a, const Shape& a_shape, const In* b,
                      const Shape& b_shape, F f) {
  if (a_shape == b_shape) {
    const Index n = shape.size();
    for (Index i = 0; i < n; ++i) out[i] = f(a[i], b[i]);
    return;
  }
  const BroadcastPlan<2> plan(shape, {&a_shape, &b_shape});
  plan.each_row(
      [&](const std::array<Index, 2>& offset, Index n, const std::array<Index, 2>& stride) {
        with_runs(
            [&](auto x, auto y) {
              for (Index i = 0; i < n; ++i) out[i] = f(x[i], y[i]);
            },
            a + offset[0], stride[0], b + offset[1], stride[1]);
        out += n;
      });
}

/// out = f(a, b, c), likewise.
template <class Out, class A, class B, class C, class F>
void broadcast_ternary(const Shape& shape, Out* out, const A* a, const Shape& a_shape, const B* b,
                       const Shape& b_shape, const C* c, const Shape& c_shape, F f) {
  const BroadcastPlan<3> plan(shape, {&a_shape, &b_shape, &c_shape});
  plan.each_row(
      [&](const std::array<Index, 3>& offset, Index n, const std::array<Index, 3>& stride) {
        with_runs(
            [&](auto x, auto y, auto z) {
              for (Index i = 0; i < n; ++i) out[i] = f(x[i], y[i], z[i]);
            },
            a + offset[0], stride[0], b + offset[1], stride[1], c + offset[2], stride[2]);
        out += n;
      });
}

/// y = Σ term(x, j) over the elements x that are broadcast from element j of y: `shape` is that of
/// x, and `small`, which broadcasts to it, that of y.
template <class T, class F>
void broadcast_sum(const Shape& shape, const T* x, const Shape& small, T* y, F term) {
  const auto add = [](T a, T b) { return static_cast<T>(Modular<T>(a) + Modular<T>(b)); };
  std::fill_n(y, small.size(), T(0));
  const BroadcastPlan<1> plan(shape, {&small});
  plan.each_row([&](const auto& offset, Index n, const auto& stride) {
    const Index j = offset[0];
    if (stride[0] == 1) {
      for (Index i = 0; i < n; ++i) y[j + i] = add(y[j + i], term(x[i], j + i));
    } else {
      // Sixteen partial sums, added in a fixed order.
      std::array<T, 16> lanes{};
      Index i = 0;
      for (; i + 16 <= n; i += 16)
        for (std::size_t l = 0; l < 16; ++l)
          lanes[l] = add(lanes[l], term(x[i + static_cast<Index>(l)], j));
      for (std::size_t l = 0; i < n; ++i, ++l) lanes[l] = add(lanes[l], term(x[i], j));
      for (std::size_t half = 8; half > 0; half /= 2)
        for (std::size_t l = 0; l < half; ++l) lanes[l] = add(lanes[l], lanes[l + half]);
      y[j] = add(y[j], lanes[0]);
    }
    x += n;
  });
}

template <class T>
void broadcast_sum(const Shape& shape, const T* x, const Shape& small, T* y) {
  broadcast_sum(shape, x, small, y, [](T value, Index) { return value; });
}

}  // namespace reel::kernels
