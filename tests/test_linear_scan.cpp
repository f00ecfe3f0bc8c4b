// linear_scan; the checks of all ops cover its values and derivatives for plain arguments.
#include <doctest/doctest.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/recurrent.h>
#include <reel/autograd/tape.h>

#include "testing.h"

using namespace reel;
using testing::error_of;
using testing::same_bits;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

Tensor draw(const Shape& shape, std::uint64_t seed, DType dtype = f64) {
  return Rng(seed).normal(shape, 0, 1, dtype);
}

Tensor lengths_of(std::initializer_list<std::int32_t> lengths) {
  return tensor({static_cast<Index>(lengths.size())}, std::span(lengths.begin(), lengths.size()));
}

// With `padding` in the steps after each row's length.
Tensor with_padding(Tensor x, const Tensor& lengths, double padding) {
  double* to = x.edit<double>().data();
  for (Index t = 0; t < x.size(0); ++t)
    for (std::int32_t length : lengths.values<std::int32_t>())
      for (Index j = 0; j < x.size(2); ++j, ++to)
        if (t >= length) *to = padding;
  return x;
}

// y and the last state, the gradients of a nonlinear function of them, and those of a projection of
// these gradients.
std::vector<Tensor> results(const Tensors& inputs, const SequenceOptions& options, int orders = 2) {
  Tape tape;
  Tensors in;
  for (const Tensor& x : inputs) in.push_back(tape.watch(x));
  const auto [y, h] = linear_scan(in[0], in[1], in[2], options);
  std::vector<Tensor> all{y.detach(), h.detach()};
  Tensor loss = sum(square(h) * draw(h.shape(), 8, h.dtype()));
  if (options.outputs) loss = loss + sum(square(y) * draw(y.shape(), 7, y.dtype()));
  const auto first = tape.gradient(loss, in, {.create_graph = orders > 1, .keep = true});
  for (const Tensor& g : first) all.push_back(g.detach());
  if (orders == 1) return all;
  Tensor again = scalar(0, y.dtype());
  for (const Tensor& g : first) again = again + sum(g * draw(g.shape(), 9, g.dtype()));
  for (const Tensor& g : tape.gradient(again, in)) all.push_back(g.detach());
  return all;
}

Tensors drawn_inputs(const Shape& sequence, DType dtype = f64) {
  return {draw(sequence, 1, dtype), draw(sequence, 2, dtype), draw(sequence.erase(0), 3, dtype)};
}

}  // namespace

TEST_CASE("linear_scan: padding affects no value and no gradient") {
  const Tensor lengths = lengths_of({5, 2, 0, 3});
  for (const bool reverse : {false, true}) {
    const SequenceOptions options{.reverse = reverse, .lengths = lengths};
    Tensors inputs = drawn_inputs({5, 4, 2});
    for (std::size_t i = 0; i < 2; ++i) inputs[i] = with_padding(inputs[i], lengths, 0);
    const auto expected = results(inputs, options);
    for (const double padding : {not_a_number, infinity, 1e300}) {
      CAPTURE(padding);
      Tensors other = inputs;
      for (std::size_t i = 0; i < 2; ++i) other[i] = with_padding(other[i], lengths, padding);
      const auto got = results(other, options);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        CAPTURE(i);
        CHECK(got[i].to_vector() == expected[i].to_vector());
      }
    }
  }
}

TEST_CASE("linear_scan: a row of a batch is as by itself, and the rest of y is 0") {
  const std::vector<std::int32_t> lengths{3, 6, 0, 6, 1};
  const Tensors inputs = drawn_inputs({6, 5, 3});
  for (const bool reverse : {false, true}) {
    const auto [y, h] = linear_scan(inputs[0], inputs[1], inputs[2],
                                    {.reverse = reverse, .lengths = lengths_of({3, 6, 0, 6, 1})});
    for (Index row = 0; row < 5; ++row) {
      CAPTURE(row);
      const Index length = lengths[static_cast<std::size_t>(row)];
      const Tensor rest = slice(slice(y, 1, row, row + 1), 0, length, 6);
      CHECK(max(abs(concat({rest, zeros({1, 1, 3}, f64)}, 0))).item() == 0);
      const auto part = [&](const Tensor& x) {
        return slice(slice(x, 1, row, row + 1), 0, 0, length);
      };
      const Tensor initial = slice(inputs[2], 0, row, row + 1), last = slice(h, 0, row, row + 1);
      if (length == 0) {
        CHECK(same_bits(last, initial));
        continue;
      }
      const auto alone =
          linear_scan(part(inputs[0]), part(inputs[1]), initial, {.reverse = reverse});
      CHECK(same_bits(alone.y, part(y)));
      CHECK(same_bits(alone.h, last));
      const Index end = reverse ? 0 : length - 1;
      CHECK(same_bits(select(alone.y, 0, end), last));
    }
  }
}

TEST_CASE("linear_scan: the steps one at a time, and in segments") {
  const Tensors inputs = drawn_inputs({7, 3, 4});
  const Tensor lengths = lengths_of({7, 3, 0});
  const auto whole = linear_scan(inputs[0], inputs[1], inputs[2]);
  Tensor h = inputs[2];
  for (Index t = 0; t < 7; ++t) {
    const auto step = linear_scan(slice(inputs[0], 0, t, t + 1), slice(inputs[1], 0, t, t + 1), h);
    CHECK(same_bits(select(step.y, 0, 0), select(whole.y, 0, t)));
    h = step.h;
  }
  CHECK(same_bits(h, whole.h));
  for (const bool reverse : {false, true}) {
    const auto expected = results(inputs, {.reverse = reverse, .lengths = lengths});
    for (const Index segment : {1, 3, 7, 20}) {
      CAPTURE(segment);
      const SequenceOptions options{.reverse = reverse, .lengths = lengths, .segment = segment};
      const auto got = results(inputs, options);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        CAPTURE(i);
        if (i < 5) CHECK(same_bits(got[i], expected[i]));
        CHECK(max(abs(got[i] - expected[i])).item() <= 1e-12);
      }
    }
  }
  const auto last = linear_scan(inputs[0], inputs[1], inputs[2], {.segment = 2, .outputs = false});
  CHECK_FALSE(last.y.defined());
  CHECK(same_bits(last.h, whole.h));
}

TEST_CASE("linear_scan: the same bits for any number of threads") {
  // Above the size at which columns are split, in blocks that end within a row.
  const Shape sequence{40, 9, 701};
  const Tensor lengths = lengths_of({40, 3, 40, 40, 0, 17, 17, 40, 39});
  const Tensors inputs = drawn_inputs(sequence, f32);
  for (const bool reverse : {false, true})
    for (const bool ragged : {false, true}) {
      SequenceOptions options{.reverse = reverse};
      if (ragged) options.lengths = lengths;
      std::vector<Tensor> expected;
      for (const int count : {1, 2, 3, 8}) {
        const testing::ThreadsScope scope(count);
        const auto got = results(inputs, options, 1);
        if (expected.empty()) expected = got;
        for (std::size_t i = 0; i < got.size(); ++i) CHECK(same_bits(got[i], expected[i]));
      }
    }
}

TEST_CASE("linear_scan: gradients with lengths to the third order") {
  for (const bool reverse : {false, true}) {
    const auto f = [&](std::span<const Tensor> in) {
      const auto [y, h] =
          linear_scan(in[0], in[1], in[2], {.reverse = reverse, .lengths = lengths_of({4, 2, 0})});
      return sum(square(y)) + sum(tanh(h));
    };
    const Tensors inputs = drawn_inputs({4, 3, 2});
    const auto report =
        check_gradients(f, std::vector<Tensor>(inputs.begin(), inputs.end()), {.order = 3});
    CHECK_MESSAGE(report.ok, report.str());
  }
}

TEST_CASE("linear_scan: the tape holds a and y, and not b") {
  Tape tape;
  const Tensor x = tape.watch(draw({50, 4, 8}, 1, f32));
  const std::size_t before = tape.held_bytes();
  const auto y = linear_scan(2 * x, 3 * x, zeros({4, 8})).y;
  const std::size_t sequence = 50 * 4 * 8 * sizeof(float);
  CHECK(tape.held_bytes() - before < 2 * sequence + 1000);
}

TEST_CASE("linear_scan: without h0 as from zeros") {
  const Tensors inputs = drawn_inputs({4, 3, 2});
  for (const bool reverse : {false, true})
    for (const Index segment : {0, 2}) {
      const SequenceOptions options{
          .reverse = reverse, .lengths = lengths_of({4, 2, 0}), .segment = segment};
      const auto run = [&](const Tensor& h0) {
        Tape tape;
        const Tensor a = tape.watch(inputs[0]), b = tape.watch(inputs[1]);
        const auto [y, h] = linear_scan(a, b, h0, options);
        auto all = tape.gradient(sum(square(y)) + sum(h), {a, b});
        all.insert(all.end(), {y.detach(), h.detach()});
        return all;
      };
      const auto without = run({}), with = run(zeros({3, 2}, f64));
      for (std::size_t i = 0; i < with.size(); ++i) CHECK(same_bits(without[i], with[i]));
    }
}

TEST_CASE("linear_scan: errors") {
  const Tensor a = zeros({3, 2, 4}), h = zeros({2, 4});
  const auto message = [](auto f) { return error_of<ShapeError>(f); };
  CHECK(message([&] {
          linear_scan(zeros({3, 4}), a, h);
        }).find("linear_scan: a must be [T, B, H] with T > 0; a is f32 [3, 4]") == 0);
  CHECK(message([&] {
          linear_scan(a, zeros({3, 2, 1}), h);
        }).find("linear_scan: b must have the shape of a") == 0);
  CHECK(message([&] {
          linear_scan(a, zeros({3, 2, 1}), h, {.segment = 2});
        }).find("linear_scan: b must have the shape of a") == 0);
  CHECK(message([&] {
          linear_scan(a, a, zeros({4}));
        }).find("linear_scan: h0 must be [2, 4] for this a") == 0);
  CHECK(error_of<DTypeError>([&] { linear_scan(a, a, h.to(f64)); }).find("linear_scan: ") == 0);
  CHECK(error_of<ValueError>([&] {
          linear_scan(a, a, h, {.lengths = lengths_of({4, 1})});
        }).find("linear_scan: lengths must be i32 [2]") == 0);
}
