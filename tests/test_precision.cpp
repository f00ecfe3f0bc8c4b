// Products with factors rounded to bf16: their definition, number by number, and where it applies.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <thread>
#include <vector>

#include <reel/autograd/checkpoint.h>
#include <reel/autograd/engine/packed_factors.h>
#include <reel/autograd/hash.h>
#include <reel/autograd/kernels/products.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/precision.h>
#include <reel/autograd/rng.h>
#include <reel/autograd/tape.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/linear.h>

#include "testing.h"

using namespace reel;
using namespace reel::kernels;
using testing::same_bits;

namespace {

float rounded(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t lower = bits & 0xffff, upper = bits & 0xffff0000;
  const bool up = lower > 0x8000 || (lower == 0x8000 && (bits & 0x10000) != 0);
  return std::bit_cast<float>(up ? upper + 0x10000 : upper);
}

float flushed(float x) {
  return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.f, x) : x;
}

// start + a * b for one element, from the definition. The other arguments give a and b of k.
template <class A, class B>
float element(Index depth, A a, B b, float start) {
  float sum = flushed(start);
  for (Index k = 0; k < depth; k += 32) {
    float chains[2] = {0, 0};
    for (Index i = k; i < std::min(k + 32, depth); ++i) {
      const float x = flushed(rounded(a(i))), y = flushed(rounded(b(i)));
      chains[i % 2] = flushed(std::fma(x, y, chains[i % 2]));
    }
    sum = flushed(sum + flushed(chains[0] + chains[1]));
  }
  return sum;
}

// A matrix with three numbers between its rows (or columns).
struct TestMatrix {
  std::vector<float> values;
  MatrixView<float> view;

  TestMatrix(Index rows, Index cols, bool transposed, std::uint32_t seed) {
    const Index outer = transposed ? cols : rows, inner = transposed ? rows : cols;
    for (Index i = 0; i < outer * (inner + 3); ++i) {
      seed = seed * 1664525 + 1013904223;
      values.push_back(static_cast<float>(seed >> 8) / (1 << 23) - 1);
    }
    view = MatrixView<float>::row_major(values.data(), outer, inner, inner + 3);
    if (transposed) view = view.transposed();
  }
  float at(Index row, Index col) const {
    return view.data[row * view.row_stride + col * view.col_stride];
  }
};

bool are_same(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Through every entry point. Returns a hash of the bits.
std::uint64_t check_product(Index m, Index k, Index n, bool a_transposed, bool b_transposed) {
  CAPTURE(m);
  CAPTURE(k);
  CAPTURE(n);
  CAPTURE(a_transposed);
  CAPTURE(b_transposed);
  const PrecisionScope scope(Precision::bf16);
  const TestMatrix a(m, k, a_transposed, 1), b(k, n, b_transposed, 2), bias(1, n, false, 3);
  const Index ldc = n + 2;
  std::vector<float> expected(static_cast<std::size_t>(m * ldc), 77), with_bias = expected;
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j) {
      const auto left = [&](Index at) { return a.at(i, at); };
      const auto right = [&](Index at) { return b.at(at, j); };
      const auto at = static_cast<std::size_t>(i * ldc + j);
      expected[at] = element(k, left, right, 0);
      with_bias[at] = element(k, left, right, bias.at(0, j));
    }
  std::vector<float> c(expected.size(), 77);
  matmul(a.view, b.view, c.data(), ldc, Write::assign);
  CHECK(are_same(c, expected));
  c.assign(c.size(), 77);
  const PackedMatrix<float> packed(b.view);
  multiply(a.view, packed, c.data(), ldc, Write::assign);
  CHECK(are_same(c, expected));
  c.assign(c.size(), 77);
  matmul(a.view, packed, bias.values.data(), 0, c.data(), ldc);
  CHECK(are_same(c, with_bias));
  const std::vector<float> before = c;
  matmul(a.view, b.view, c.data(), ldc, Write::add);
  if (m > 0 && n > 0) {
    const float last = element(
        k, [&](Index at) { return a.at(m - 1, at); }, [&](Index at) { return b.at(at, n - 1); },
        before[static_cast<std::size_t>((m - 1) * ldc + n - 1)]);
    CHECK(c[static_cast<std::size_t>((m - 1) * ldc + n - 1)] == last);
  }
  return fnv1a({reinterpret_cast<const char*>(with_bias.data()), with_bias.size() * sizeof(float)});
}

// In the processor's usual mode, unlike in an op.
float product_of(float a, float b) {
  float c = 0;
  const auto view = [](const float& x) { return MatrixView<float>::row_major(&x, 1, 1); };
  matmul(view(a), view(b), &c, 1, Write::assign);
  return c;
}

double largest_difference(const Tensor& a, const Tensor& b) { return max(abs(a - b)).item(); }

}  // namespace

TEST_CASE(
    "bf16: an element is a sum over blocks of 32 k, each a chain of the even and of the odd k") {
  for (const bool a_transposed : {false, true})
    for (const bool b_transposed : {false, true}) {
      for (const Index m : {0, 1, 3, 6, 7, 16, 17, 33, 50})
        for (const Index n : {0, 1, 5, 16, 31, 33, 64, 100})
          for (const Index k : {1, 2, 31, 33, 70})
            check_product(m, k, n, a_transposed, b_transposed);
      check_product(37, 513, 70, a_transposed, b_transposed);
      check_product(5, 1100, 130, a_transposed, b_transposed);
      check_product(200, 40, 90, a_transposed, b_transposed);
    }
}

TEST_CASE("bf16: the bits of the definition, on every machine") {
  CHECK(check_product(37, 300, 45, false, true) == 0x40c56c5a00a0f848);
}

TEST_CASE("bf16: the parts of a long sum are added in double") {
  const PrecisionScope scope(Precision::bf16);
  const Index k = longest_sum + 50;
  const TestMatrix a(2, k, false, 5), b(k, 3, true, 6);
  std::vector<float> c(6);
  matmul(a.view, b.view, c.data(), 3, Write::assign);
  for (Index i = 0; i < 2; ++i)
    for (Index j = 0; j < 3; ++j) {
      const auto part = [&](Index begin, Index end) {
        return static_cast<double>(element(
            end - begin, [&](Index at) { return a.at(i, begin + at); },
            [&](Index at) { return b.at(begin + at, j); }, 0));
      };
      CHECK(c[static_cast<std::size_t>(3 * i + j)] ==
            static_cast<float>(part(0, longest_sum) + part(longest_sum, k)));
    }
}

TEST_CASE("bf16: factors are rounded to the nearest, ties to even") {
  const PrecisionScope scope(Precision::bf16);
  const float ulp = 0x1p-7f, infinity = std::numeric_limits<float>::infinity();
  CHECK(product_of(1 + ulp / 2, 1) == 1);
  CHECK(product_of(1, 1 + ulp / 2 + 0x1p-20f) == 1 + ulp);
  CHECK(product_of(1 + 3 * ulp / 2, -1) == -(1 + 2 * ulp));
  CHECK(product_of(std::numeric_limits<float>::max(), 1) == infinity);
  CHECK(product_of(-infinity, 2) == -infinity);
  CHECK(std::isnan(product_of(std::bit_cast<float>(0x7fffffffu), 1)));
  CHECK(std::isnan(product_of(std::bit_cast<float>(0xffffffffu), 1)));
  CHECK(std::isnan(product_of(std::bit_cast<float>(0x7f800001u), 1)));
  CHECK(std::isnan(product_of(infinity, 0)));
}

TEST_CASE("bf16: subnormal numbers count as zero") {
  const PrecisionScope scope(Precision::bf16);
  CHECK(product_of(0x1p-130f, 0x1p100f) == 0);
  CHECK(product_of(0x1p-70f, 0x1p-70f) == 0);
  CHECK(product_of(std::bit_cast<float>(0x007fffffu), 1) == std::numeric_limits<float>::min());
}

TEST_CASE("bf16: tiles and vectors give the same bits") {
  if (!bf16_is_faster()) {
    MESSAGE("skipped: this processor has no matrix tiles");
    return;
  }
  const auto of = [](bool tiles) -> const Products<float>& {
    return with_level(
        [&](auto level) -> const Products<float>& { return bf16_products_at<level()>(tiles); });
  };
  for (const Index m : {1, 5, 16, 20, 32, 47, 96, 200})
    for (const Index k : {1, 32, 77, 512, 1500})
      for (const Index n : {1, 16, 33, 48, 64, 300}) {
        CAPTURE(m);
        CAPTURE(k);
        CAPTURE(n);
        const TestMatrix a(m, k, m % 2 == 0, 1), b(k, n, n % 2 == 0, 2), start(m, n, false, 3);
        std::vector<float> c(static_cast<std::size_t>(m * n)), d = c;
        multiply(a.view, PackedMatrix<float>(b.view, of(false)), start.values.data(),
                 start.view.row_stride, c.data(), n);
        multiply(a.view, PackedMatrix<float>(b.view, of(true)), start.values.data(),
                 start.view.row_stride, d.data(), n);
        CHECK(are_same(c, d));
      }
}

TEST_CASE("bf16 is set for all threads, or for one and its lifetime") {
  const auto elsewhere = [] {
    Precision seen;
    std::thread([&] { seen = matmul_precision(); }).join();
    return seen;
  };
  CHECK(matmul_precision() == Precision::f32);
  {
    const PrecisionScope scope(Precision::bf16);
    CHECK(matmul_precision() == Precision::bf16);
    CHECK(elsewhere() == Precision::f32);
    {
      const PrecisionScope inner(Precision::f32);
      CHECK(matmul_precision() == Precision::f32);
    }
    CHECK(matmul_precision() == Precision::bf16);
  }
  CHECK(matmul_precision() == Precision::f32);
  set_matmul_precision(Precision::bf16);
  CHECK(elsewhere() == Precision::bf16);
  CHECK(matmul_precision() == Precision::bf16);
  set_matmul_precision(Precision::f32);
  CHECK(std::string_view(name_of(matmul_precision())) == "f32");
}

TEST_CASE("bf16: products have the same bits on any number of threads") {
  const testing::ThreadsScope restored;
  const PrecisionScope scope(Precision::bf16);
  const Tensor a = Rng(1).normal({200, 300}), b = Rng(2).normal({300, 500});
  const Tensor batch = Rng(3).normal({64, 64, 64});
  set_threads(1);
  const Tensor product = matmul(a, b), products = matmul(batch, batch);
  for (const int threads : {2, 3}) {
    set_threads(threads);
    CHECK(same_bits(matmul(a, b), product));
    CHECK(same_bits(matmul(batch, batch), products));  // each a task of the threads
  }
  for (Index i = 0; i < 64; i += 21)
    CHECK(same_bits(select(products, 0, i), matmul(select(batch, 0, i), select(batch, 0, i))));
}

TEST_CASE("bf16: what is not a product of f32 matrices is not rounded") {
  const Tensor a = Rng(1).normal({50}), x = Rng(2).normal({20, 20}, 0, 1, f64);
  const Tensor of_vectors = dot(a, a), in_f64 = matmul(x, x), rows = matmul(x.to(f32), x.to(f32));
  const PrecisionScope scope(Precision::bf16);
  CHECK(same_bits(dot(a, a), of_vectors));
  CHECK(same_bits(matmul(x, x), in_f64));
  CHECK_FALSE(same_bits(matmul(x.to(f32), x.to(f32)), rows));
}

TEST_CASE("bf16: a kept factor is one of the precision that is set") {
  const Tensor x = Rng(1).normal({8, 64}), w = Rng(2).normal({64, 64});
  const Tensor in_f32 = matmul(x, w);
  const PackedFactors packed;
  const auto third = [&] {
    for (int i = 0; i < 2; ++i) static_cast<void>(matmul(x, w));
    return matmul(x, w);
  };
  CHECK(same_bits(third(), in_f32));
  {
    const PrecisionScope scope(Precision::bf16);
    const Tensor in_bf16 = third();
    CHECK_FALSE(same_bits(in_bf16, in_f32));
    CHECK(same_bits(in_bf16, matmul(x, w.copy())));
  }
  CHECK(same_bits(third(), in_f32));
}

TEST_CASE("bf16: a checkpoint is recomputed in the precision of its first run") {
  const Tensor x = Rng(1).normal({8, 32}), w = Rng(2).normal({32, 16});
  Tensors runs;
  Tape tape;
  const Tensor v = tape.watch(w);
  const auto f = [&](std::span<const Tensor> in) {
    const Tensor y = matmul(x, in[0]);
    runs.push_back(y.detach());
    return y;
  };
  Tensor loss;
  {
    const PrecisionScope scope(Precision::bf16);
    loss = sum(square(checkpoint(f, {v})));
  }
  tape.gradient(loss, {v});
  REQUIRE(runs.size() == 2);
  CHECK(same_bits(runs[0], runs[1]));
  CHECK_FALSE(same_bits(runs[0], matmul(x, w)));
}

TEST_CASE_TEMPLATE("bf16: losses and gradients of a model are near those with f32", Layer, nn::Gru,
                   nn::Lstm) {
  const Index features = 40, hidden = 48, classes = 21;
  Params params(1);
  const Layer layer(params / "layer", features, hidden);
  const nn::Linear head(params / "head", hidden, classes);
  const Tensor x = Rng(2).normal({12, 7, features});
  std::vector<std::int32_t> numbers;
  for (int i = 0; i < 12 * 7; ++i) numbers.push_back(i * i % static_cast<int>(classes));
  const Tensor targets = tensor(Shape{12, 7}, numbers);
  const auto run = [&](Precision precision) {
    const PrecisionScope scope(precision);
    Tape tape;
    const Tensor y = layer(x).y;
    const Tensor loss = cross_entropy(head(y), targets);
    Tensors all{loss.detach(), y.detach()};
    const Gradients gradients = tape.gradient(loss, params);
    for (const Param& p : params.list()) all.push_back(gradients[p.name()]);
    return all;
  };
  const Tensors exact = run(Precision::f32), found = run(Precision::bf16);
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double scale = max(abs(exact[i])).item();
    CHECK(largest_difference(found[i], exact[i]) < 0.02 * scale);
    CHECK(largest_difference(found[i], exact[i]) > 0);
  }
}
