#pragma once

#include <doctest/doctest.h>

#include <reel/reel.h>

#include <cmath>
#include <vector>

/// Shared by the tests of nn::Diagnostics.
namespace reel::testing {

using Numbers = std::vector<double>;

inline Tensor draw(const Shape& shape, std::uint64_t seed, double scale = 1) {
  return Rng(seed).normal(shape, 0, scale, f64);
}

/// A number that depends on every output.
inline Tensor project(const Tensor& y) { return sum(y * draw(y.shape(), 77).to(y.dtype())); }

inline void check_close(const Numbers& a, const Numbers& b, double tolerance = 1e-10) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(i);
    CHECK(std::abs(a[i] - b[i]) <= tolerance * std::abs(b[i]));
  }
}

/// The report of the layers of `model` for the loss that projects its outputs.
template <class M>
std::vector<nn::LayerReport> reports_of(const M& model, const Tensor& x,
                                        const nn::StateOf<M>& initial = {},
                                        const SequenceOptions& options = {},
                                        const nn::DiagnosticsOptions& how = {}) {
  nn::Diagnostics diagnostics(how);
  const auto watch = diagnostics.watch();
  Tape tape;
  const Tensor in = tape.watch(x);
  tape.gradient(project(model(in, initial, nn::Eval{}, options).y), {in});
  return diagnostics.layers();
}

inline const Tensor& some_lengths() {
  static const std::vector<std::int32_t> lengths{4, 1, 6, 0, 3};
  static const Tensor all = tensor({5}, std::span<const std::int32_t>(lengths));
  return all;
}

}  // namespace reel::testing
