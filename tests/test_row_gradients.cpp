// Gradients by rows of parameters that only gather_rows reads: their bits are those of whole ones.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <thread>

#include "row_gradients.h"

using namespace reel;
using namespace reel::testing;
using doctest::Contains;

namespace {

std::vector<std::int32_t> numbers(const Tensor& x) {
  const auto values = x.values<std::int32_t>();
  return {values.begin(), values.end()};
}

Tensor rows_of(std::initializer_list<std::int32_t> rows) {
  return tensor({std::ssize(rows)}, std::span<const std::int32_t>(rows.begin(), rows.size()));
}

}  // namespace

TEST_CASE("a matrix of which rows are read has a gradient of the different rows, in order") {
  for (const DType dtype : {f32, f64}) {
    const Params params(1, dtype);
    const Param w = normal_matrix(params, "w", 9, 3);
    const Tensor tokens = tensor({2, 3}, {7, 2, 7, 2, 5, 7}, i32);
    const Loss loss = [&] { return sum(square(gather_rows(w, tokens))); };
    const Gradients gradients = gradient_of(loss, params);
    const RowGradient* by_rows = gradients.find_rows(*w.entry());
    REQUIRE(by_rows);
    CHECK(numbers(by_rows->rows) == std::vector{2, 5, 7});
    CHECK(by_rows->values.shape() == Shape{3, 3});
    CHECK(by_rows->values.at({1, 0}) == 2 * w.value().at({5, 0}));
    CHECK(same_bits(gradients[w], whole_gradient(loss, w)));
    CHECK(same_bits(*gradients.find(w), gradients["w"]));
    CHECK(is_by_rows(gradients, w));  // also after it was asked for as a whole
  }
}

TEST_CASE("any number of reads of one matrix adds up as it does for whole gradients") {
  // More than 64 f32 contributions are added in chains, whose sums are added in double.
  for (const DType dtype : {f32, f64})
    for (const int reads : {1, 2, 3, 64, 65, 66, 128, 129, 200}) {
      CAPTURE(reads);
      const Params params(1, dtype);
      const Param w = normal_matrix(params, "w", 40, 19);
      Rng rng(static_cast<std::uint64_t>(reads));
      std::vector<Tensor> tokens, weights;
      for (int k = 0; k < reads; ++k) {
        tokens.push_back(some_rows(rng, {rng.integer(3), 2}, 40));  // some have no rows at all
        weights.push_back(rng.normal(tokens.back().shape().insert(2, 19), 0, 1, dtype));
      }
      const Loss loss = [&] {
        Tensor total = scalar(0, dtype);
        for (std::size_t k = 0; k < tokens.size(); ++k)
          total = total + sum(weights[k] * tanh(gather_rows(w, tokens[k])));
        return total;
      };
      const Gradients gradients = gradient_of(loss, params);
      CHECK(is_by_rows(gradients, w));
      CHECK(same_bits(gradients[w], whole_gradient(loss, w)));
    }
}

TEST_CASE("a row that one of several reads lacks makes 0 of -0, as in a whole gradient") {
  const Params params(1);
  const Param w = normal_matrix(params, "w", 3, 1);
  // The sum of these is negative and less than any normal number: -0.
  const Tensor twice = rows_of({0, 0}), weights = tensor({2, 1}, {1.2e-38, -1.3e-38});
  const auto loss = [&](std::initializer_list<Tensor> reads) -> Loss {
    return [&w, weights, reads = std::vector<Tensor>(reads)] {
      Tensor total = scalar(0);
      for (const Tensor& read : reads) total = total + sum(gather_rows(w, read) * weights);
      return total;
    };
  };
  const Tensor other = rows_of({1, 1});
  for (const Loss& f : {loss({twice}), loss({twice, twice}), loss({twice, other}),
                        loss({other, twice}), loss({twice, twice, other})}) {
    const Gradients gradients = gradient_of(f, params);
    CHECK(is_by_rows(gradients, w));
    CHECK(same_bits(gradients[w], whole_gradient(f, w)));
  }
  CHECK(std::signbit(gradient_of(loss({twice}), params)[w].at({0, 0})));
  CHECK_FALSE(std::signbit(gradient_of(loss({twice, other}), params)[w].at({0, 0})));
  // The same in a sum of two gradients.
  const Gradients a = gradient_of(loss({twice}), params), b = gradient_of(loss({other}), params);
  Gradients ab = a, of_whole = whole(a);
  ab += b;
  of_whole += whole(b);
  CHECK(same_bits(ab, of_whole));
  CHECK_FALSE(std::signbit(ab[w].at({0, 0})));
}

TEST_CASE("a matrix that is used otherwise too gets a whole gradient, whichever use comes first") {
  for (const DType dtype : {f32, f64})
    for (const int place : {0, 1, 2, 3}) {
      CAPTURE(place);
      const Params params(1, dtype);
      const Param w = normal_matrix(params, "w", 12, 8);
      Rng rng(5);
      const Tensor x = rng.normal({6, 8}, 0, 1, dtype);
      std::vector<Tensor> tokens;
      for (int k = 0; k < 3; ++k) tokens.push_back(some_rows(rng, {4}, 12));
      const Loss loss = [&] {
        Tensor total = scalar(0, dtype);
        for (int k = 0; k < 4; ++k) {
          if (k == place) total = total + sum(tanh(affine(x, w, zeros({12}, dtype))));
          if (k < 3)
            total = total + sum(square(gather_rows(w, tokens[static_cast<std::size_t>(k)])));
        }
        return total;
      };
      const Gradients gradients = gradient_of(loss, params);
      CHECK_FALSE(is_by_rows(gradients, w));
      CHECK(same_bits(gradients[w], whole_gradient(loss, w)));
    }
}

TEST_CASE("what sees a gradient during the pass sees a whole one") {
  const Params params(1);
  const Param w = normal_matrix(params, "w", 5, 2);
  const Tensor tokens = rows_of({3, 1, 3});
  const Loss loss = [&] { return sum(square(gather_rows(w, tokens))); };
  const Tensor expected = whole_gradient(loss, w);
  Tensor seen;
  Tape tape;
  const Tensor y = loss();
  tape.on_gradient(w, [&](const Tensor& g) {
    seen = g;
    return 2 * g;
  });
  const Gradients hooked = tape.gradient(y, params);
  CHECK(same_bits(seen, expected));
  CHECK(same_bits(hooked[w], 2 * expected));
  CHECK_FALSE(is_by_rows(hooked, w));

  Tape checked({.check_finite = true});
  CHECK(same_bits(checked.gradient(loss(), params)[w], expected));
  Tape again;
  const Tensor z = loss();
  CHECK(same_bits(again.gradient(z, params, {.create_graph = true})[w], expected));
  const Gradients first = again.gradient(z, params, {.keep = true});
  CHECK(is_by_rows(first, w));
  CHECK(same_bits(again.gradient(z, params), first));
}

TEST_CASE("a read in a checkpoint has the gradient of one outside") {
  const Params params(1);
  const Param w = normal_matrix(params, "w", 50, 4);
  const nn::Gru gru(params / "gru", 4, 3);
  Rng rng(2);
  const Tensor tokens = some_rows(rng, {5, 3}, 50);
  const auto f = [&](std::span<const Tensor>) -> Tensors {
    return {sum(square(gru(gather_rows(w, tokens)).y))};
  };
  const Gradients plain = gradient_of([&] { return f({})[0]; }, params);
  const Gradients recomputed = gradient_of([&] { return checkpoint(f, {})[0]; }, params);
  CHECK(is_by_rows(plain, w));
  CHECK(same_bits(plain, recomputed));
}

TEST_CASE("gradients by rows have the same bits with any number of threads") {
  const TwoTables tables(f32, 20'000, 64);
  const ThreadsScope restore;
  set_threads(1);
  const Gradients expected = tables.gradients(3);
  for (int n = 1; n <= 8; ++n) {
    set_threads(n);
    const Gradients gradients = tables.gradients(3);
    CHECK(is_by_rows(gradients, tables.a));
    CHECK(same_bits(gradients, expected));
    CHECK(gradients.norm() == expected.norm());
  }
}

TEST_CASE("sums of gradients by rows and whole ones, in every order") {
  for (const DType dtype : {f32, f64}) {
    const TwoTables tables(dtype);
    const Gradients a = tables.gradients(1), b = tables.gradients(2);
    const Gradients whole_a = whole(tables.gradients(1)), whole_b = whole(tables.gradients(2));
    Gradients expected = whole_a;
    expected += whole_b;
    for (const bool first : {true, false})
      for (const bool second : {true, false}) {
        Gradients total;
        total += first ? a : whole_a;
        total += second ? b : whole_b;
        CHECK(is_by_rows(total, tables.a) == (first && second));
        CHECK(same_bits(total, expected));
      }
    Gradients twice = tables.gradients(1), of_whole = whole_a;
    twice += twice;
    of_whole += of_whole;
    CHECK(is_by_rows(twice, tables.b));
    CHECK(same_bits(twice, of_whole));
    // One of them may lack a parameter.
    Gradients some(tables.params);
    some.set(*tables.b.entry(), *b.find_rows(*tables.b.entry()));
    Gradients more = some, all = whole(some);
    more += a;
    all += whole_a;
    CHECK(is_by_rows(more, tables.a));
    CHECK(same_bits(more, all));
    CHECK(same_bits(a, tables.gradients(1)));  // unchanged
  }
}

TEST_CASE("a factor acts as on whole gradients, also on what is 0") {
  for (const DType dtype : {f32, f64})
    for (const double factor : {0.5, 1e-300, 1e300, 0.0, -0.0, -1.0,
                                std::numeric_limits<double>::infinity(), std::nan("")}) {
      CAPTURE(factor);
      const TwoTables tables(dtype);
      Gradients scaled = tables.gradients(1), expected = whole(tables.gradients(1));
      const Gradients before = scaled;
      scaled *= factor;
      expected *= factor;
      CHECK(same_bits(scaled, expected));
      CHECK(is_by_rows(scaled, tables.a) ==
            (factor >= 0 && factor < 1e301 && !std::signbit(factor)));
      CHECK(same_bits(before, tables.gradients(1)));  // the copy has numbers of its own
    }
}

TEST_CASE("the norm of gradients by rows has the bits of that of whole ones") {
  // Rows within a block of the sum, across blocks and pieces, and a tail.
  Rng rng(4);
  for (const Index width : {1, 3, 16, 100, 128, 200, 1000})
    for (const Index count : {1, 5, 40, 700})
      for (const double size : {1.0, 1e-200, 1e200}) {
        CAPTURE(width);
        CAPTURE(count);
        const DType dtype = size == 1 ? f32 : f64;
        const Params params(1, dtype);
        const Param w = normal_matrix(params, "w", count, width),
                    v = normal_matrix(params, "v", 3, 3);
        Gradients gradients(params);
        gradients.set(*v.entry(), rng.normal({3, 3}, 0, size, dtype));
        for (const double share : {0.0, 0.02, 0.5, 1.0}) {
          std::vector<std::int32_t> rows;
          for (std::int32_t row = 0; row < count; ++row)
            if (rng.uniform() < share) rows.push_back(row);
          const Tensor places = tensor({std::ssize(rows)}, std::span<const std::int32_t>(rows));
          gradients.set(*w.entry(),
                        {places, rng.normal({std::ssize(rows), width}, 0, size, dtype)});
          const double norm = gradients.norm();
          CHECK(is_by_rows(gradients, w));
          CHECK(norm == whole(gradients).norm());
        }
      }
}

TEST_CASE("clipping of gradients by rows is that of whole ones") {
  const auto functions = std::vector<std::function<double(Gradients&)>>{
      [](Gradients& g) { return optim::clip_by_norm(g, 0.5); },
      [](Gradients& g) { return optim::clip_by_norm(g, 1e9); },
      [](Gradients& g) { return optim::clip_by_norm(g, 0.25, "[ab]"); },
      [](Gradients& g) { return optim::clip_adaptive(g, 0.01); },
      [](Gradients& g) {
        optim::clip_by_value(g, 0.1);
        return 0.0;
      }};
  for (const DType dtype : {f32, f64})
    for (std::size_t k = 0; k < functions.size(); ++k) {
      CAPTURE(k);
      const TwoTables tables(dtype);
      Gradients clipped = tables.gradients(1), expected = whole(tables.gradients(1));
      CHECK(functions[k](clipped) == functions[k](expected));
      CHECK(is_by_rows(clipped, tables.a));
      CHECK(is_by_rows(clipped, tables.b));
      CHECK(same_bits(clipped, expected));
      CHECK(same_bits(clipped, tables.gradients(1)) == (k == 1));
    }
}

TEST_CASE("a tensor that was asked for stays the one of its gradients") {
  const TwoTables tables(f32);
  Gradients gradients = tables.gradients(1);
  const Gradients before = tables.gradients(1);
  const Tensor& of_a = gradients[tables.a];
  gradients *= 0.5;
  CHECK(same_bits(of_a, 0.5 * before[tables.a]));
  CHECK_FALSE(is_by_rows(gradients, tables.a));
  CHECK(is_by_rows(gradients, tables.b));
  Tensor* const of_b = gradients.find(*tables.b.entry());
  REQUIRE(of_b);
  of_b->edit<float>()[0] = 7;
  CHECK(gradients[tables.b].at({0, 0}) == 7);
  CHECK_FALSE(is_by_rows(gradients, tables.b));
}

TEST_CASE("threads may ask for tensors of the same gradients, and copy them") {
  const TwoTables tables(f32, 5000, 64);
  const Gradients gradients = tables.gradients(1), expected = whole(tables.gradients(1));
  std::vector<std::thread> threads;
  std::array<bool, 6> same{};
  for (std::size_t t = 0; t < same.size(); ++t)
    threads.emplace_back([&, t] {
      const Gradients copy = gradients;
      same[t] =
          same_bits(t % 2 == 0 ? copy : gradients, expected) && gradients.norm() == expected.norm();
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(std::ranges::all_of(same, std::identity{}));
}

TEST_CASE("a gradient by rows that does not fit its parameter is refused") {
  const TwoTables tables(f32, 6, 2);
  Gradients gradients(tables.params);
  const auto set = [&](const Param& param, const Tensor& rows, const Tensor& values) {
    gradients.set(*param.entry(), RowGradient{rows, values});
  };
  const auto shapes = {RowGradient{rows_of({1}), ones({2, 2})},
                       RowGradient{rows_of({1}), ones({1, 3})},
                       RowGradient{ones({1}), ones({1, 2})},
                       RowGradient{rows_of({1}), ones({1, 2}, f64)},
                       RowGradient{},
                       RowGradient{tensor({1, 1}, {1}, i32), ones({1, 2})}};
  for (const RowGradient& g : shapes)
    CHECK_THROWS_WITH_AS(
        set(tables.a, g.rows, g.values),
        "parameter a is f32 [6, 2], its gradient by rows takes i32 [n] and f32 [n, "
        "columns of a matrix]",
        ShapeError);
  CHECK_THROWS_AS(set(tables.bias, rows_of({1}), ones({1, 1})), ShapeError);
  for (const Tensor& rows : {rows_of({2, 2}), rows_of({2, 1}), rows_of({1, 6}), rows_of({-1, 0})})
    CHECK_THROWS_WITH_AS(set(tables.a, rows, ones({2, 2})),
                         Contains("but its rows have to ascend from 0 to 5 at most"), ValueError);
  CHECK(gradients.find(tables.a) == nullptr);
  set(tables.a, rows_of({0, 5}), ones({2, 2}));
  CHECK(gradients[tables.a].to_vector() == std::vector<double>{1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1});
}
