#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <reel/autograd/dtype.h>
#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/shape.h>

namespace reel::kernels {

/// How to iterate over N operands that broadcast to one shape: at most four nested loops, collapsed
/// where all operands allow it, so that equal shapes need a single loop. Stride 0 repeats an
/// element.
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

  /// Calls `matrix(offset, rows, columns, row_stride, stride)` of the first operand for each run of
  /// the two innermost loops, in row-major order.
  template <class F>
  void each_matrix(F&& matrix) const {
    if (sizes_[0] == 0) return;
    Strides offset3{};
    for (Index i = 0; i < sizes_[3]; ++i, advance(offset3, 3)) {
      Strides offset2 = offset3;
      for (Index j = 0; j < sizes_[2]; ++j, advance(offset2, 2))
        matrix(offset2[0], sizes_[1], sizes_[0], strides_[1][0], strides_[0][0]);
    }
  }
  /// Whether an element of the first operand belongs to several of these matrices.
  bool repeats() const {
    return (sizes_[2] > 1 && strides_[2][0] == 0) || (sizes_[3] > 1 && strides_[3][0] == 0);
  }

 private:
  static Index stride_of(const Shape& operand, int rank, int axis) {
    const int own = axis - (rank - operand.rank());
    return own < 0 || operand[own] == 1 ? 0 : operand.stride(own);
  }

  // Adds the next outer loop, or extends the last one if all operands are contiguous across it.
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

/// An operand in an innermost run: consecutive elements, or one repeated element.
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

/// Calls `f(a, b, ...)` with the run of each operand. Innermost strides are 0 or 1; with a separate
/// loop for each case the compiler can vectorise them.
template <class F>
void with_runs(F&& f) {
  f();
}
template <class F, class T, class... Rest>
void with_runs(F&& f, const T* first, Index stride, Rest... rest) {
  if (stride == 0) {
    const T value = *first;  // a copy, so that no store can alias it
    with_runs([&](auto... others) { f(Run<T, true>{&value}, others...); }, rest...);
  } else {
    with_runs([&](auto... others) { f(Run<T, false>{first}, others...); }, rest...);
  }
}

/// out = f(a, b) elementwise, with NumPy broadcasting of a and b to `shape`.
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

/// out = f(a, b, c), in the same way.
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

/// The accumulator type: double for both floating-point types, so that f32 sums are accurate at any
/// length.
template <Element T>
using Total = std::conditional_t<std::is_same_v<T, std::int32_t>, std::uint32_t, double>;

/// at(0) + ... + at(7), pairwise, with only three roundings.
template <class F>
[[gnu::always_inline]] inline auto sum_of_eight(F at) {
  return ((at(0) + at(1)) + (at(2) + at(3))) + ((at(4) + at(5)) + (at(6) + at(7)));
}

/// As many terms sum_of adds at a time, from the first on, to totals of its own for each lane.
inline constexpr Index sum_lanes = 16, sum_block = 8 * sum_lanes;

// Σ term(i) in groups of eight, then four, two and one; see sum_of. The last loops have no variable
// bound, as the totals then stay in registers.
template <class T, class F>
[[gnu::always_inline]] inline Total<T> sum_in_groups(Index n, F term) {
  using A = Total<T>;
  constexpr Index lanes = sum_lanes;
  A total = 0;
  Index i = 0;
  if (n >= lanes) {
    std::array<A, lanes> totals{};
    const auto add_rows = [&](auto sum) {
      for (Index l = 0; l < lanes; ++l)
        totals[static_cast<std::size_t>(l)] += static_cast<A>(
            sum([&](Index k) { return static_cast<Modular<T>>(term(i + k * lanes + l)); }));
    };
    for (; i + sum_block <= n; i += sum_block) add_rows([](auto at) { return sum_of_eight(at); });
    if (n - i >= 4 * lanes) {
      add_rows([](auto at) { return (at(0) + at(1)) + (at(2) + at(3)); });
      i += 4 * lanes;
    }
    if (n - i >= 2 * lanes) {
      add_rows([](auto at) { return at(0) + at(1); });
      i += 2 * lanes;
    }
    if (n - i >= lanes) {
      add_rows([](auto at) { return at(0); });
      i += lanes;
    }
    std::array<A, lanes / 2> halves;
    for (std::size_t l = 0; l < halves.size(); ++l) halves[l] = totals[l] + totals[l + lanes / 2];
    total = sum_of_eight([&](Index k) { return halves[static_cast<std::size_t>(k)]; });
  }
  for (; i < n; ++i) total += static_cast<A>(term(i));
  return total;
}

/// A group of eight may overflow, or a total in double, even if the sum does not. A sum that is not
/// finite is therefore added a second time, with every term in double and multiplied by `narrow`.
inline constexpr double narrow = 0x1p-64;

/// Whether such a sum of terms of type T has to be added a second time.
template <class T>
bool overflowed(Total<T> total) {
  if constexpr (std::is_integral_v<T>)
    return false;
  else
    return !(std::abs(total) <= std::numeric_limits<double>::max());
}

template <class F>
[[gnu::cold, gnu::noinline]] double wide_sum(Index n, F term) {
  return sum_in_groups<double>(n, [=](Index i) { return static_cast<double>(term(i)) * narrow; }) /
         narrow;
}

/// Σ term(i) over 0 <= i < n, of terms of type T: groups of eight are added in T, the group sums
/// into sixteen totals, and those in a fixed order.
template <class T, class F>
[[gnu::always_inline]] inline Total<T> sum_of(Index n, F term) {
  constexpr Index longest = std::is_same_v<T, double> ? 1 : 127;  // that cannot overflow
  Total<T> total = 0;
  if (n < 16)
    for (Index i = 0; i < n; ++i) total += static_cast<Total<T>>(term(i));
  else
    total = sum_in_groups<T>(n, term);
  if constexpr (!std::is_integral_v<T>)
    if (n > longest && overflowed<T>(total)) [[unlikely]]
      return wide_sum(n, term);
  return total;
}

// totals[c] += Σ at(r, c) in groups of eight; see add_columns.
template <class T, class F>
void add_in_groups(Index rows, Index columns, F at, Total<T>* totals) {
  using A = Total<T>;
  Index r = 0;
  for (; r + 8 <= rows; r += 8)
    for (Index c = 0; c < columns; ++c)
      totals[c] += static_cast<A>(
          sum_of_eight([&](Index k) { return static_cast<Modular<T>>(at(r + k, c)); }));
  for (; r < rows; ++r)
    for (Index c = 0; c < columns; ++c) totals[c] += static_cast<A>(at(r, c));
}

template <class F>
[[gnu::cold, gnu::noinline]] void wide_columns(Index rows, Index columns, F at, double* totals) {
  const Scratch<double> wide(columns);
  std::fill_n(wide.data(), columns, 0.0);
  add_in_groups<double>(
      rows, columns, [=](Index r, Index c) { return static_cast<double>(at(r, c)) * narrow; },
      wide.data());
  for (Index c = 0; c < columns; ++c)
    if (!std::isfinite(totals[c])) totals[c] = wide[c] / narrow;
}

/// totals[c] = Σ at(r, c) over 0 <= r < rows, of terms of type T: groups of eight are added in T.
template <class T, class F>
void add_columns(Index rows, Index columns, F at, Total<T>* totals) {
  std::fill_n(totals, columns, Total<T>(0));
  add_in_groups<T>(rows, columns, at, totals);
  if constexpr (!std::is_integral_v<T>) {
    std::int64_t any = 0;  // of the totals' size, which gives vector code
    for (Index c = 0; c < columns; ++c) any |= overflowed<T>(totals[c]) ? 1 : 0;
    if (any != 0) [[unlikely]]
      wide_columns(rows, columns, at, totals);
  }
}

/// put(c, Σ term(x[r, c], c)) for each column of a matrix whose rows are `stride` apart.
template <class T, class F, class Put>
void sum_columns(const T* x, Index rows, Index columns, Index stride, F term, Put put) {
  using Term = std::invoke_result_t<F, T, Index>;
  constexpr Index run = 512;
  std::array<Total<Term>, run> totals;
  for (Index begin = 0; begin < columns; begin += run) {
    const Index n = std::min(run, columns - begin);
    add_columns<Term>(
        rows, n, [=](Index r, Index c) { return term(x[r * stride + begin + c], begin + c); },
        totals.data());
    for (Index c = 0; c < n; ++c) put(begin + c, totals[static_cast<std::size_t>(c)]);
  }
}

// totals[j] = Σ term(x, j) once more, with every term in double and multiplied by `narrow`, where
// the sum is not finite.
template <class T, class F>
[[gnu::cold, gnu::noinline]] void wide_sums(const BroadcastPlan<1>& plan, Index sums, const T* x,
                                            F term, double* totals) {
  const Scratch<double> wide(sums);
  std::fill_n(wide.data(), sums, 0.0);
  plan.each_row([&](const auto& offset, Index n, const auto& stride) {
    for (Index i = 0; i < n; ++i) {
      const Index j = offset[0] + i * stride[0];
      wide[j] += static_cast<double>(term(x[i], j)) * narrow;
    }
    x += n;
  });
  for (Index j = 0; j < sums; ++j)
    if (overflowed<double>(totals[j])) totals[j] = wide[j] / narrow;
}

/// put(j, Σ term(x, j)) for each element j of a tensor of shape `small`, over the elements x to
/// which it is broadcast; `shape` is the shape of x, to which `small` broadcasts. The order of a
/// sum depends on the shapes alone.
template <class T, class F, class Put>
void broadcast_sum(const Shape& shape, const T* x, const Shape& small, F term, Put put) {
  using Term = std::invoke_result_t<F, T, Index>;
  const BroadcastPlan<1> plan(shape, {&small});
  const bool in_parts = shape.size() == 0 || plan.repeats();
  const Index n = small.size();
  const Scratch<Total<Term>> totals(in_parts ? n : 0);
  std::fill_n(totals.data(), in_parts ? n : 0, Total<Term>(0));
  const auto emit = [&](Index j, Total<Term> total) {
    if (in_parts)
      totals[j] += total;
    else
      put(j, total);
  };
  const T* from = x;
  plan.each_matrix([&](Index first, Index rows, Index columns, Index row_step, Index step) {
    if (step == 0)
      for (Index r = 0, j = first; r < rows; ++r, j += row_step)
        emit(j, sum_of<Term>(columns, [=](Index i) { return term(from[r * columns + i], j); }));
    else
      sum_columns(
          from, rows, columns, columns, [=](T value, Index c) { return term(value, first + c); },
          [&](Index c, Total<Term> total) { emit(first + c, total); });
    from += rows * columns;
  });
  if (!in_parts) return;
  if constexpr (std::is_same_v<Term, double>)
    if (std::any_of(totals.data(), totals.data() + n, overflowed<double>))
      wide_sums(plan, n, x, term, totals.data());
  for (Index j = 0; j < n; ++j) put(j, totals[j]);
}

/// y = Σ x, in the same way.
template <class T>
void broadcast_sum(const Shape& shape, const T* x, const Shape& small, T* y) {
  broadcast_sum(
      shape, x, small, [](T value, Index) { return value; },
      [y](Index j, Total<T> total) { y[j] = static_cast<T>(total); });
}

}  // namespace reel::kernels
