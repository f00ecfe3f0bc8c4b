#pragma once

#include <reel/autograd/kernels/cell.h>
#include <reel/autograd/kernels/level.h>
#include <reel/autograd/unit.h>

#include <utility>

// From the text of a cell (see unit.h) to its functions of a row: the text runs for every unit of
// the row, in loops that the compiler vectorises.
namespace reel::kernels {

// The rows of a call never overlap, which a compiler cannot know. Clang warns where it does not
// vectorise such a loop, as with sanitizers.
#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpass-failed"
#define REEL_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define REEL_INDEPENDENT _Pragma("GCC ivdep")
#endif

/// The text, which names the numbers that there are.
template <class C>
[[gnu::always_inline]] inline auto unit_of(const auto& sums, const auto& before,
                                           const auto& weights, const auto& constants) {
  constexpr bool has_weights = C::layout.weights > 0, has_constants = C::layout.constants > 0;
  if constexpr (has_weights && has_constants)
    return C::unit(sums, before, weights, constants);
  else if constexpr (has_weights)
    return C::unit(sums, before, weights);
  else if constexpr (has_constants)
    return C::unit(sums, before, constants);
  else
    return C::unit(sums, before);
}
template <class C>
[[gnu::always_inline]] inline auto operand_of(const auto& sums, const auto& before,
                                              const auto& constants) {
  if constexpr (requires { C::operand(sums, before, constants); })
    return C::operand(sums, before, constants);
  else
    return C::operand(sums, before);
}

template <class C>
struct UnitRows {
  static constexpr CellLayout layout = C::layout;
  static constexpr auto sum_count = static_cast<std::size_t>(layout.sums),
                        state_count = static_cast<std::size_t>(layout.states),
                        weight_count = static_cast<std::size_t>(layout.weights),
                        constant_count = static_cast<std::size_t>(layout.constants);

  // The inputs of a unit have a bit each: first the sums, then the states, then the weights.
  static constexpr unsigned sum_bit(std::size_t i) { return 1u << i; }
  static constexpr unsigned state_bit(std::size_t k) { return sum_bit(sum_count + k); }
  static constexpr unsigned weight_bit(std::size_t i) { return state_bit(state_count + i); }

  template <std::size_t count, class F>
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

  // The inputs of the operand. What a sum of it keeps is there when the unit runs.
  static constexpr unsigned operand_inputs = [] {
    if constexpr (layout.second.count == 0)
      return 0u;
    else
      return decltype(operand_of<C>(each<sum_count>([](auto i) __attribute__((always_inline)) {
                                      return unit::Sum<float, sum_bit(i), unit::Mode::kept>(
                                          0, nullptr);
                                    }),
                                    each<state_count>([](auto k) __attribute__((always_inline)) {
                                      return unit::Number<float, state_bit(k)>(0);
                                    }),
                                    each<constant_count>([](auto) __attribute__((always_inline)) {
                                      return unit::Number<float, 0>(0);
                                    })))::inputs;
  }();

  // The unit or the operand of unit j.
  template <Run run, bool operand, Real T, class Row>
  [[gnu::always_inline, gnu::flatten]] static auto call(const Row& row, const T* const* states,
                                                        Index j) {
    constexpr bool with_slopes = run == Run::with_slopes;
    const auto sums = each<sum_count>([&](auto i) __attribute__((always_inline)) {
      constexpr unsigned bit = with_slopes ? sum_bit(i) : 0;
      T* place = row.sums + Index(i) * row.n + j;
      constexpr bool fresh = run == Run::first && (operand || (operand_inputs & sum_bit(i)) == 0);
      constexpr unit::Mode mode = fresh ? unit::Mode::fresh : unit::Mode::kept;
      return input<sum_bit(i), with_slopes>(unit::Sum<T, bit, mode>(*place, place));
    });
    const auto before = each<state_count>([&](auto k) __attribute__((always_inline)) {
      constexpr unsigned bit = with_slopes ? state_bit(k) : 0;
      return input<state_bit(k), with_slopes>(unit::Number<T, bit>(states[k][j]));
    });
    const auto weights = each<weight_count>([&](auto i) __attribute__((always_inline)) {
      constexpr unsigned bit = with_slopes ? weight_bit(i) : 0;
      return input<weight_bit(i), with_slopes>(
          unit::Number<T, bit>(row.weights[Index(i) * row.n + j]));
    });
    const auto constants = each<constant_count>([&](auto i) __attribute__((always_inline)) {
      return unit::Number<T, 0>(row.constants[Index(i) * row.n + j]);
    });
    if constexpr (operand)
      return std::tuple(operand_of<C>(sums, before, constants));
    else
      return unit_of<C>(sums, before, weights, constants);
  }

  template <Real T>
  [[gnu::always_inline]] static std::array<const T*, max_states> states_before(
      const UnitRow<T>& row) {
    std::array<const T*, max_states> before = {row.h};
    for (std::size_t k = 1; k < state_count; ++k) before[k] = row.states[k];
    return before;
  }

  template <Real T>
  [[gnu::always_inline, gnu::flatten]] static void unit(const UnitRow<T> row) {
    const auto before = states_before(row);
    REEL_INDEPENDENT
    for (Index j = 0; j < row.n; ++j) call<Run::first, false, T>(row, before.data(), j);
    REEL_INDEPENDENT
    for (Index j = 0; j < row.n; ++j) {
      const auto after = call<Run::again, false, T>(row, before.data(), j);
      each<state_count>([&](auto k) __attribute__((always_inline)) {
        return row.states[k][j] = std::get<k>(after).value;
      });
    }
  }

  template <Real T>
  [[gnu::always_inline, gnu::flatten]] static void operand(const UnitRow<T> row) {
    const auto before = states_before(row);
    REEL_INDEPENDENT
    for (Index j = 0; j < row.n; ++j)
      row.operand[j] = std::get<0>(call<Run::first, true, T>(row, before.data(), j)).value;
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

  // The gradients of the sums take their place. Of those that the operand reads too, the unit's
  // part waits in row.parts: its gradient needs what they keep.
  template <bool of_operand, Real T, class Numbers, class Given>
  [[gnu::always_inline]] static void store_gradients(const UnitRowGradient<T>& row, Index j,
                                                     const Numbers& numbers, const Given& given) {
    each<sum_count>([&](auto i) __attribute__((always_inline)) {
      constexpr unsigned bit = sum_bit(i);
      constexpr bool waits = (operand_inputs & bit) != 0;
      const Index at = Index(i) * row.n + j;
      if constexpr (of_operand && waits)
        row.sums[at] = row.parts[at] + gradient<bit, 0, false, T>(numbers, given);
      else if constexpr (!of_operand && waits)
        row.parts[at] = gradient<bit, 0, false, T>(numbers, given);
      else if constexpr (!of_operand)
        row.sums[at] = gradient<bit, 0, false, T>(numbers, given);
      return 0;
    });
    each<weight_count>([&](auto i) __attribute__((always_inline)) {
      if constexpr (any_depends<weight_bit(i), Numbers>)
        row.weight_gradients[Index(i) * row.n + j] +=
            gradient<weight_bit(i), 0, false, T>(numbers, given);
      return 0;
    });
  }

  template <Real T>
  [[gnu::always_inline, gnu::flatten]] static void unit_gradient(const UnitRowGradient<T> row) {
    if (row.dy) REEL_INDEPENDENT
    for (Index j = 0; j < row.n; ++j) row.gradients[0][j] += row.dy[j];
    REEL_INDEPENDENT
    for (Index j = 0; j < row.n; ++j) {
      const auto after = call<Run::with_slopes, false, T>(row, row.before.data(), j);
      const auto given = each<state_count>([&](auto k) __attribute__((always_inline)) {
        return row.gradients[k][j];
      });
      store_gradients<false>(row, j, after, given);
      each<state_count>([&](auto k) __attribute__((always_inline)) {
        return row.gradients[k][j] = gradient<state_bit(k), 0, false, T>(after, given);
      });
    }
  }

  template <Real T>
  [[gnu::always_inline, gnu::flatten]] static void operand_gradient(const UnitRowGradient<T> row) {
    REEL_INDEPENDENT
    for (Index j = 0; j < row.n; ++j) {
      const auto operand = call<Run::with_slopes, true, T>(row, row.before.data(), j);
      const std::tuple given(row.d_operand[j]);
      store_gradients<true>(row, j, operand, given);
      each<state_count>([&](auto k) __attribute__((always_inline)) {
        if constexpr (any_depends<state_bit(k), decltype(operand)>)
          row.gradients[k][j] += gradient<state_bit(k), 0, false, T>(operand, given);
        return 0;
      });
      row.operand[j] = std::get<0>(operand).value;
    }
  }

  // How the text uses its sums.
  static std::array<unit::Use<double>, sum_count> uses() {
    std::array<unit::Use<double>, sum_count> all{};
    const auto sums = each<sum_count>([&](auto i) __attribute__((always_inline)) {
      return unit::Sum<double, 0, unit::Mode::counted>(0.25 * (Index(i) + 1), &all[i]);
    });
    const auto states = each<state_count>([](auto k) __attribute__((always_inline)) {
      return unit::Number<double, 0>(0.3 + 0.1 * Index(k));
    });
    const auto weights = each<weight_count>([](auto i) __attribute__((always_inline)) {
      return unit::Number<double, 0>(0.7 + 0.1 * Index(i));
    });
    const auto constants = each<constant_count>(
        [](auto) __attribute__((always_inline)) { return unit::Number<double, 0>(1.5); });
    if constexpr (layout.second.count > 0) operand_of<C>(sums, states, constants);
    unit_of<C>(sums, states, weights, constants);
    return all;
  }
};
#undef REEL_INDEPENDENT

/// The functions of cell C, for the instructions that the process uses.
template <class C, Real T>
struct RowFunctions {
  using Rows = UnitRows<C>;

  static void unit(const UnitRow<T>& row) {
    at_level([&] { Rows::unit(row); });
  }
  static void unit_gradient(const UnitRowGradient<T>& row) {
    at_level([&] { Rows::unit_gradient(row); });
  }
  static void operand(const UnitRow<T>& row) {
    at_level([&] { Rows::operand(row); });
  }
  static void operand_gradient(const UnitRowGradient<T>& row) {
    at_level([&] { Rows::operand_gradient(row); });
  }
};

#if defined(__clang__)
#pragma clang diagnostic pop
#endif

/// The kernels of cell C.
template <class C, Real T>
constexpr CellKernels<T> cell_kernels() {
  using Functions = RowFunctions<C, T>;
  CellKernels<T> kernels{C::layout, &Functions::unit, &Functions::unit_gradient};
  if constexpr (C::layout.second.count > 0) {
    kernels.operand = &Functions::operand;
    kernels.operand_gradient = &Functions::operand_gradient;
  }
  return kernels;
}

}  // namespace reel::kernels
