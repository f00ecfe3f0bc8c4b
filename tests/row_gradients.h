#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <span>
#include <vector>

#include <reel/reel.h>

#include "testing.h"

// What the tests of gradients by rows share.
namespace reel::testing {

/// The loss of a step, recorded anew on each tape.
using Loss = std::function<Tensor()>;

/// The gradient as a list of tensors, which are of whole parameters from the first contribution on:
/// what those by rows are compared with.
inline Tensor whole_gradient(const Loss& loss, const Param& param) {
  Tape tape;
  const Tensor y = loss();
  return tape.gradient(y, std::span(&param, 1))[0];
}

inline Gradients gradient_of(const Loss& loss, const Params& params) {
  Tape tape;
  const Tensor y = loss();
  return tape.gradient(y, params);
}

/// The same gradients, all of them whole.
inline Gradients whole(const Gradients& gradients) {
  Gradients all(gradients.params());
  gradients.each([&](const auto& entry, const Tensor& g) { all.set(*entry, g.copy()); });
  return all;
}

inline bool is_by_rows(const Gradients& gradients, const Param& param) {
  return gradients.find_rows(*param.entry()) != nullptr;
}

inline bool same_bits(const Gradients& a, const Gradients& b) {
  bool same = true;
  a.each([&](const auto& entry, const Tensor& g) { same &= same_bits(g, b[Param(entry)]); });
  b.each([&](const auto& entry, const Tensor&) { same &= a.find(*entry) != nullptr; });
  return same;
}

inline Param normal_matrix(const Params& params, const char* name, Index rows, Index width) {
  return params.create(name, {rows, width}, [](Rng& rng, const Shape& shape, DType dtype) {
    return rng.normal(shape, 0, 1, dtype);
  });
}

/// Some rows, with repetitions, of which the first ones are the most frequent.
inline Tensor some_rows(Rng& rng, const Shape& shape, Index count) {
  std::vector<std::int32_t> rows;
  for (Index i = 0; i < shape.size(); ++i)
    rows.push_back(static_cast<std::int32_t>(rng.uniform() * rng.uniform() * double(count)));
  return tensor(shape, std::span<const std::int32_t>(rows));
}

/// Gradients by rows of two matrices, and a whole one of a vector.
struct TwoTables {
  Params params;
  Param a, b, bias;

  explicit TwoTables(DType dtype, Index rows = 300, Index width = 37)
      : params(1, dtype),
        a(normal_matrix(params, "a", rows, width)),
        b(normal_matrix(params, "b", rows / 2, 5)),
        bias(params.create("bias", {5}, nn::init::uniform(1))) {}

  Gradients gradients(std::uint64_t seed) const {
    Rng rng(seed);
    const Tensor of_a = some_rows(rng, {6, 4}, a.shape()[0]), of_b = some_rows(rng, {7}, 40);
    return gradient_of(
        [&] { return sum(tanh(gather_rows(a, of_a))) + sum(square(gather_rows(b, of_b) + bias)); },
        params);
  }
};

}  // namespace reel::testing
