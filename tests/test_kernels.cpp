#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/error.h>
#include <reel/autograd/kernels/matmul.h>
#include <reel/autograd/kernels/thread_pool.h>
#include <reel/autograd/threads.h>

#include <doctest/doctest.h>

#include <Eigen/Core>

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "testing.h"

using namespace reel;
using namespace reel::kernels;
using testing::sanitized;
using testing::ThreadsScope;

namespace {

template <class T>
std::vector<T> random_values(Index count, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& v : values) v = static_cast<T>(static_cast<double>(generator()) / 4294967296.0 - 0.5);
  return values;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// A random matrix with a gap after each row (or column) of its memory.
template <class T>
struct TestMatrix {
  std::vector<T> values;
  MatrixView<T> view;

  TestMatrix(Index rows, Index cols, bool transposed, unsigned seed) {
    const Index outer = transposed ? cols : rows, inner = transposed ? rows : cols, gap = 3;
    values = random_values<T>(outer * (inner + gap), seed);
    view = MatrixView<T>::row_major(values.data(), outer, inner, inner + gap);
    if (transposed) view = view.transposed();
  }
};

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
Matrix<long double> exact(MatrixView<T> m) {
  using Stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  return Eigen::Map<const Matrix<T>, 0, Stride>(m.data, m.rows, m.cols,
                                                Stride(m.row_stride, m.col_stride))
      .template cast<long double>();
}

// A * B through every entry point into a C with a margin that must stay as it is.
template <class T>
void check_product(Index m, Index k, Index n, bool a_transposed, bool b_transposed) {
  CAPTURE(m);
  CAPTURE(k);
  CAPTURE(n);
  CAPTURE(a_transposed);
  CAPTURE(b_transposed);
  const TestMatrix<T> a(m, k, a_transposed, 1), b(k, n, b_transposed, 2);
  const Matrix<long double> product = exact(a.view) * exact(b.view);
  const PackedMatrix<T> packed(b.view);
  const Index ldc = n + 2;
  const auto size = static_cast<std::size_t>(m * ldc);
  const T untouched = T(77), nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> start = random_values<T>(m * ldc, 3);

  auto check = [&](const std::vector<T>& c, bool added, Index start_stride, T margin) {
    long double worst = 0;
    bool margin_kept = true;
    for (Index i = 0; i < m; ++i)
      for (Index j = 0; j < ldc; ++j) {
        const T got = c[static_cast<std::size_t>(i * ldc + j)];
        if (j >= n) {
          margin_kept &= got == margin;
          continue;
        }
        const long double base =
            added ? start[static_cast<std::size_t>(i * start_stride + j)] : 0.0L;
        const long double error = std::fabs(static_cast<long double>(got) - product(i, j) - base);
        worst = std::max(worst, std::isnan(error) ? 1e9L : error);
      }
    const auto bound = static_cast<long double>(std::numeric_limits<T>::epsilon()) *
                       (2 + 0.25L * static_cast<long double>(k));
    CHECK(margin_kept);
    CHECK(worst <= bound);
  };

  std::vector<T> c(size, nan), other(size, nan);
  for (Index i = 0; i < m; ++i)
    for (Index j = n; j < ldc; ++j)
      c[static_cast<std::size_t>(i * ldc + j)] = other[static_cast<std::size_t>(i * ldc + j)] =
          untouched;
  const std::vector<T> blank = c;
  matmul(a.view, b.view, c.data(), ldc, Write::assign);
  check(c, false, 0, untouched);
  matmul(a.view, packed, other.data(), ldc, Write::assign);
  CHECK(same_bits(c, other));
  other = blank;
  multiply(a.view, packed, other.data(), ldc, Write::assign);
  CHECK(same_bits(c, other));

  other = blank;
  multiply(a.view, packed, start.data(), 0, other.data(), ldc);
  check(other, true, 0, untouched);

  other = blank;
  multiply(a.view, packed, start.data(), ldc, other.data(), ldc);
  check(other, true, ldc, untouched);
  auto set_margin = [&](std::vector<T>& v) {
    for (Index i = 0; i < m; ++i)
      for (Index j = n; j < ldc; ++j) v[static_cast<std::size_t>(i * ldc + j)] = untouched;
  };
  std::vector<T> added = start;
  set_margin(added);
  multiply(a.view, packed, added.data(), ldc, Write::add);
  CHECK(same_bits(added, other));
  added = start;
  set_margin(added);
  matmul(a.view, b.view, added.data(), ldc, Write::add);
  CHECK(same_bits(added, other));
}

}  // namespace

TEST_CASE_TEMPLATE("matmul equals the exact product in every layout", T, float, double) {
  const std::vector<Index> sizes = sanitized
                                       ? std::vector<Index>{0, 1, 2, 7, 17, 33}
                                       : std::vector<Index>{0, 1, 2, 3, 5, 6, 7, 13, 17, 33, 50};
  for (int layout = 0; layout < 4; ++layout)
    for (Index m : sizes)
      for (Index n : sizes)
        for (Index k : {0, 1, 2, 19}) check_product<T>(m, k, n, layout & 1, layout & 2);
}

TEST_CASE_TEMPLATE("matmul equals the exact product across blocks of k, rows and columns", T, float,
                   double) {
  for (int layout = 0; layout < 4; ++layout) {
    check_product<T>(1, 513, 130, layout & 1, layout & 2);
    check_product<T>(3, 256, 257, layout & 1, layout & 2);
    check_product<T>(101, 257, 35, layout & 1, layout & 2);
    check_product<T>(200, 300, 150, layout & 1, layout & 2);
  }
}

TEST_CASE_TEMPLATE("the bits of a product depend on its row, its column and K alone", T, float,
                   double) {
  const ThreadsScope restore;
  for (Index k : {40, 300, 700})
    for (bool a_transposed : {false, true})
      for (bool b_transposed : {false, true}) {
        const Index m = 200, n = 150;
        const TestMatrix<T> a(m, k, a_transposed, 4), b(k, n, b_transposed, 5);
        set_threads(1);
        std::vector<T> whole(m * n);
        matmul(a.view, b.view, whole.data(), n, Write::assign);
        for (int count : {2, 3, 7}) {
          set_threads(count);
          std::vector<T> c(m * n);
          matmul(a.view, b.view, c.data(), n, Write::assign);
          CHECK(same_bits(whole, c));
        }
        for (Index rows : {1, 2, 3, 4, 7, 8, 64})
          for (Index cols : {1, 5, 16, 17, 100}) {
            CAPTURE(rows);
            CAPTURE(cols);
            const Index i0 = (m - rows) / 2, j0 = (n - cols) / 3;
            const MatrixView<T> some_a = a.view.row_range(i0, i0 + rows);
            const MatrixView<T> some_b = b.view.col_range(j0, j0 + cols);
            std::vector<T> expected;
            for (Index i = i0; i < i0 + rows; ++i)
              expected.insert(expected.end(), &whole[static_cast<std::size_t>(i * n + j0)],
                              &whole[static_cast<std::size_t>(i * n + j0)] + cols);
            std::vector<T> part(rows * cols);
            matmul(some_a, some_b, part.data(), cols, Write::assign);
            CHECK(same_bits(expected, part));
            part.assign(part.size(), T(0));
            multiply(some_a, PackedMatrix<T>(some_b), part.data(), cols, Write::assign);
            CHECK(same_bits(expected, part));
          }
      }
}

TEST_CASE("products make no heap allocations once the pool is warm") {
  const ThreadsScope restore;
  set_threads(1);
  const TestMatrix<float> a(150, 300, true, 6), b(300, 170, false, 7);
  std::vector<float> c(150 * 170);
  auto work = [&] {
    const PackedMatrix<float> packed(b.view);
    multiply(a.view, packed, c.data(), 170, Write::assign);
    matmul(a.view, b.view, c.data(), 170, Write::add);
  };
  work();
  const std::size_t before = pool::statistics().heap_allocations;
  for (int i = 0; i < 3; ++i) work();
  CHECK(pool::statistics().heap_allocations == before);
}

TEST_CASE("infinities and NaN stay in their rows and columns") {
  const float infinity = std::numeric_limits<float>::infinity();
  const TestMatrix<float> a(7, 20, false, 8);
  TestMatrix<float> b(20, 19, false, 9);
  b.values[0] = infinity;  // element (0, 0)
  std::vector<float> c(7 * 19);
  matmul(a.view, b.view, c.data(), 19, Write::assign);
  for (std::size_t i = 0; i < c.size(); ++i) CHECK(std::isinf(c[i]) == (i % 19 == 0));
}

TEST_CASE("set_threads takes one to 1024") {
  const ThreadsScope restore;
  CHECK(threads() >= 1);
  set_threads(3);
  CHECK(threads() == 3);
  for (int n : {0, -1, 1025}) CHECK_THROWS_AS(set_threads(n), ValueError);
  CHECK_THROWS_WITH(
      set_threads(0),
      doctest::Contains("set_threads: n is 0, but must be from 1 to 1024 (" __FILE__ ":"));
  CHECK(threads() == 3);
}

TEST_CASE("parallel_for runs every task once") {
  const ThreadsScope restore;
  for (int count : {1, 2, 5}) {
    set_threads(count);
    for (Index tasks : {0, 1, 2, 3, 100, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(tasks));
      parallel_for(tasks, [&](Index i) { ++runs[static_cast<std::size_t>(i)]; });
      for (const std::atomic<int>& r : runs) CHECK(r == 1);
    }
  }
}

TEST_CASE("parallel_for uses the pool's threads") {
  const ThreadsScope restore;
  set_threads(2);
  std::atomic<int> arrived{0};
  // Each of the two tasks waits for the other, which only two threads can do.
  parallel_for(2, [&](Index) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
  });
  CHECK(arrived == 2);
}

TEST_CASE("parallel_for inside a task and from several threads") {
  const ThreadsScope restore;
  set_threads(3);
  std::atomic<int> runs{0};
  auto nested = [&] {
    for (int repeat = 0; repeat < 50; ++repeat)
      parallel_for(4, [&](Index) { parallel_for(5, [&](Index) { ++runs; }); });
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) callers.emplace_back(nested);
  for (std::thread& t : callers) t.join();
  CHECK(runs == 3 * 50 * 4 * 5);
}

TEST_CASE("parallel_for rethrows what a task throws and works afterwards") {
  const ThreadsScope restore;
  for (int count : {1, 3}) {
    set_threads(count);
    for (Index failing : {0, 7, 99})
      CHECK_THROWS_WITH_AS(parallel_for(100,
                                        [&](Index i) {
                                          if (i == failing) throw std::runtime_error("task failed");
                                        }),
                           "task failed", std::runtime_error);
    std::atomic<int> runs{0};
    parallel_for(100, [&](Index) { ++runs; });
    CHECK(runs == 100);
  }
}

TEST_CASE("the number of threads cannot be set by a task that they work on") {
  const testing::ThreadsScope restore(2);
  for (const int threads_now : {2, 1}) {
    set_threads(threads_now);
    std::atomic<int> refused = 0;
    kernels::parallel_for(4, [&](Index) {
      try {
        set_threads(1);
      } catch (const Error& e) {
        refused += std::string_view(e.what()).starts_with("set_threads: called by a task");
      }
    });
    CHECK(refused == 4);
    CHECK(threads() == threads_now);
  }
}
