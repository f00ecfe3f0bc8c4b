#pragma once

#include <reel/autograd/kernels/cell.h>
#include <reel/autograd/unit.h>

#include <utility>

// From the text of a cell (see unit.h) to its functions of a row: the text runs for every unit of
// the row, in loops that the compiler vectorises.
namespace reel::kernels {

// The rows of a call never overlap, which a compiler cannot know.
#if defined(__clang__)
#define REEL_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define REEL_INDEPENDENT _Pragma("GCC ivdep")
#endif

template <class C>
struct UnitRows {
  static constexpr CellLayout layout = C::layout;

  // The inputs of a unit have a bit each: first the sums, then the states, then the weights.
  static constexpr unsigned sum_bit(std::size_t i) { return 1u << i; }
  static constexpr unsigned state_bit(std::size_t k) { return sum_bit(layout.sums + k); }
  static constexpr unsigned weight_bit(std::size_t i) { return state_bit(layout.states + i); }

  template <int count, class F>
  [[gnu::always_inline]] static auto each(F f) {
    return [&]<std::size_t... i>(std::index_sequence<i...>) __attribute__((always_inline)) {
      return std::tuple(f(std::integral_constant<std::size_t, i>{})...);
    }
    (std::make_index_sequence<count>{});
  }

  // Input `Bit` of a pass: of the forward pass, where nothing has a slope, or of the backward pass.
  template <unsigned Bit, bool with_slopes, class N>
  [[gnu::always_inline]] static auto input(N number) {
    if constexpr (with_slopes) unit::slope<Bit>(number) = 1;
    return number;
  }

  enum class Run { first, again, with_slopes };

  // The unit or the operand of unit j.
  template <Run run, bool operand, Real T, class Row>
  [[gnu::always_inline, gnu::flatten]] static auto call(const Row& row, const T* const* states,
                                                        Index j) {
    constexpr bool with_slopes = run == Run::with_slopes;
    const auto sums = each<layout.sums>([&](auto i) {
      constexpr unsigned bit = with_slopes ? sum_bit(i) : 0;
      T* place = row.sums + Index(i) * row.n + j;
      return input<sum_bit(i), with_slopes>(unit::Sum<T, bit, run == Run::first>(*place, place));
    });
    const auto before = each<layout.states>([&](auto k) {
      constexpr unsigned bit = with_slopes ? state_bit(k) : 0;
      return input<state_bit(k), with_slopes>(unit::Number<T, bit>(states[k][j]));
    });
    const auto weights = each<layout.weights>([&](auto i) {
      constexpr unsigned bit = with_slopes ? weight_bit(i) : 0;
      return input<weight_bit(i), with_slopes>(
          unit::Number<T, bit>(row.weights[Index(i) * row.n + j]));
    });
    if constexpr (operand)
      return std::tuple(C::operand(sums, before));
    else if constexpr (layout.weights > 0)
      return C::unit(sums, before, weights);
    else
      return C::unit(sums, before);
  }

  template <Real T>
  [[gnu::noinline, gnu::flatten]] static void unit(const UnitRow<T>& call_row) {
    const UnitRow<T> row = call_row;
    REEL_INDEPENDENT
    for (Index j = 0; j < row.n; ++j) call<Run::first, false, T>(row, row.states.data(), j);
    REEL_INDEPENDENT
    for (Index j = 0; j < row.n; ++j) {
      const auto after = call<Run::again, false, T>(row, row.states.data(), j);
      each<layout.states>(
          [&](auto k) { return row.states[k][j] = row.kept[k][j] = std::get<k>(after).value; });
    }
  }

  template <Real T>
  [[gnu::noinline, gnu::flatten]] static void operand(const UnitRow<T>& call_row) {
    const UnitRow<T> row = call_row;
    REEL_INDEPENDENT
    for (Index j = 0; j < row.n; ++j)
      row.operand[j] = std::get<0>(call<Run::first, true, T>(row, row.states.data(), j)).value;
  }

  // Whether number k of the tuple Numbers depends on the input with that bit.
  template <unsigned Bit, std::size_t k, class Numbers>
  static constexpr bool depends = (std::tuple_element_t<k, std::remove_cvref_t<Numbers>>::inputs &
                                   Bit) != 0;
  template <unsigned Bit, class Numbers>
  static constexpr bool any_depends = []<std::size_t... k>(std::index_sequence<k...>) {
    return (depends<Bit, k, Numbers> || ...);
  }
  (std::make_index_sequence<std::tuple_size_v<std::remove_cvref_t<Numbers>>>{});

  // The gradient of an input: the sum of the slopes of all numbers times their gradients.
  template <unsigned Bit, std::size_t k = 0, bool begun = false, Real T, class Numbers, class Given>
  [[gnu::always_inline]] static T gradient(const Numbers& numbers, const Given& given, T sum = 0) {
    if constexpr (k == std::tuple_size_v<Numbers>) {
      return sum;
    } else if constexpr (depends<Bit, k, Numbers>) {
      const T term = std::get<k>(given) * unit::slope<Bit>(std::get<k>(numbers));
      return gradient<Bit, k + 1, true, T>(numbers, given, begun ? sum + term : term);
    } else {
      return gradient<Bit, k + 1, begun, T>(numbers, given, sum);
    }
  }

  // The sums that the function reads get their gradients; the others are left to the other
  // function.
  template <Real T, class Numbers, class Given>
  [[gnu::always_inline]] static void store_gradients(const UnitRowGradient<T>& row, Index j,
                                                     const Numbers& numbers, const Given& given) {
    each<layout.sums>([&](auto i) {
      if constexpr (any_depends<sum_bit(i), Numbers>)
        row.sums[Index(i) * row.n + j] = gradient<sum_bit(i), 0, false, T>(numbers, given);
      return 0;
    });
    each<layout.weights>([&](auto i) {
      if constexpr (any_depends<weight_bit(i), Numbers>)
        row.weight_gradients[Index(i) * row.n + j] +=
            static_cast<double>(gradient<weight_bit(i), 0, false, T>(numbers, given));
      return 0;
    });
  }

  template <Real T>
  [[gnu::noinline, gnu::flatten]] static void unit_gradient(const UnitRowGradient<T>& call_row) {
    const UnitRowGradient<T> row = call_row;
    if (row.dy) REEL_INDEPENDENT
    for (Index j = 0; j < row.n; ++j) row.gradients[0][j] += row.dy[j];
    REEL_INDEPENDENT
    for (Index j = 0; j < row.n; ++j) {
      const auto after = call<Run::with_slopes, false, T>(row, row.before.data(), j);
      const auto given = each<layout.states>([&](auto k) { return row.gradients[k][j]; });
      store_gradients(row, j, after, given);
      each<layout.states>([&](auto k) {
        return row.gradients[k][j] = gradient<state_bit(k), 0, false, T>(after, given);
      });
    }
  }

  template <Real T>
  [[gnu::noinline, gnu::flatten]] static void operand_gradient(const UnitRowGradient<T>& call_row) {
    const UnitRowGradient<T> row = call_row;
    REEL_INDEPENDENT
    for (Index j = 0; j < row.n; ++j) {
      const auto operand = call<Run::with_slopes, true, T>(row, row.before.data(), j);
      const std::tuple given(row.d_operand[j]);
      store_gradients(row, j, operand, given);
      each<layout.states>([&](auto k) {
        if constexpr (any_depends<state_bit(k), decltype(operand)>)
          row.gradients[k][j] += gradient<state_bit(k), 0, false, T>(operand, given);
        return 0;
      });
      row.operand[j] = std::get<0>(operand).value;
    }
  }
};
#undef REEL_INDEPENDENT

/// The functions of cell C.
template <class C, Real T>
constexpr CellKernels<T> cell_kernels() {
  using Rows = UnitRows<C>;
  CellKernels<T> kernels{C::layout, &Rows::template unit<T>, &Rows::template unit_gradient<T>};
  if constexpr (C::layout.second.count > 0) {
    kernels.operand = &Rows::template operand<T>;
    kernels.operand_gradient = &Rows::template operand_gradient<T>;
  }
  return kernels;
}

}  // namespace reel::kernels
