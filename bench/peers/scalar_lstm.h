#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <vector>

/// An LSTM in plain loops over numbers of any type, for tools that differentiate such code, and
/// what their programs measure and print.
namespace scalar_lstm {

struct Sizes {
  int steps = 20, rows = 8, inputs = 32, units = 32;

  int parameters() const { return 4 * units * (inputs + units + 1); }
};

/// Numbers between -0.4 and 0.4 that look drawn: the same in every program.
inline std::vector<double> drawn(int count, double seed) {
  std::vector<double> numbers(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = 0.4 * std::sin(seed + 12.9898 * static_cast<double>(i * i % 7919));
  return numbers;
}
inline std::vector<double> inputs_of(const Sizes& size) {
  return drawn(size.steps * size.rows * size.inputs, 1);
}

template <class T>
T sigmoid(const T& x) {
  using std::exp;
  return 1.0 / (1.0 + exp(-x));
}

/// The sum of the squares of all outputs of an LSTM. Parameters w_ih [4 H, D], w_hh [4 H, H] and
/// b [4 H], one after another, with the gates i, f, g, o; x [steps, rows, inputs].
template <class T>
T loss(const Sizes& size, const std::vector<T>& parameters, const std::vector<double>& x) {
  using std::tanh;
  const int units = size.units, inputs = size.inputs;
  const T* const w_ih = parameters.data();
  const T* const w_hh = w_ih + 4 * units * inputs;
  const T* const b = w_hh + 4 * units * units;
  T total = 0.0;
  std::vector<T> gates(static_cast<std::size_t>(4 * units));
  for (int row = 0; row < size.rows; ++row) {
    std::vector<T> h(static_cast<std::size_t>(units), T(0.0)), c = h;
    for (int t = 0; t < size.steps; ++t) {
      const double* const in = x.data() + (t * size.rows + row) * inputs;
      for (int k = 0; k < 4 * units; ++k) {
        T sum = b[k];
        for (int j = 0; j < inputs; ++j) sum += w_ih[k * inputs + j] * in[j];
        for (int j = 0; j < units; ++j) sum += w_hh[k * units + j] * h[j];
        gates[k] = sum;
      }
      for (int j = 0; j < units; ++j) {
        const T i = sigmoid(gates[j]), f = sigmoid(gates[units + j]);
        const T g = tanh(gates[2 * units + j]), o = sigmoid(gates[3 * units + j]);
        c[j] = f * c[j] + i * g;
        h[j] = o * tanh(c[j]);
        total += h[j] * h[j];
      }
    }
  }
  return total;
}

/// The median of the milliseconds of a call, over half a second and at least 5 calls.
template <class F>
double milliseconds(F call) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  double sum = 0;
  while (times.size() < 5 || sum < 500) {
    const Clock::time_point begin = Clock::now();
    call();
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
    sum += times.back();
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

/// Prints the times of a function and of its gradient, and one number made of the gradient.
inline void report(double function, double gradient, const std::vector<double>& result) {
  double mixed = 0;
  for (std::size_t i = 0; i < result.size(); ++i)
    mixed += result[i] * std::cos(static_cast<double>(i));
  std::printf("{\"function\": %.17g, \"gradient\": %.17g, \"mixed\": %.17g}\n", function, gradient,
              mixed);
}

/// The same for a tool: `gradient(size, parameters, x)` is its own.
template <class F>
int measure(F gradient) {
  const Sizes size;
  const std::vector<double> parameters = drawn(size.parameters(), 2), x = inputs_of(size);
  std::vector<double> result;
  double value = 0;
  const double function = milliseconds([&] { value += loss(size, parameters, x); });
  const double time = milliseconds([&] { result = gradient(size, parameters, x); });
  if (!std::isfinite(value)) return 1;
  report(function, time, result);
  return 0;
}

}  // namespace scalar_lstm
