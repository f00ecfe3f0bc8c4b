// The pool: what it holds, to whom blocks belong, and running out of memory.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include <reel/reel.h>

#include "testing.h"

using namespace reel;
using doctest::Contains;
using testing::error_of;

namespace {

constexpr std::size_t always_held = std::size_t{32} << 20;

// Hands tensors from one thread to another, at most four at a time.
class Queue {
 public:
  void put(Tensor x) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return items_.size() < 4; });
    items_.push_back(std::move(x));
    changed_.notify_all();
  }
  Tensor take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !items_.empty(); });
    Tensor x = std::move(items_.front());
    items_.pop_front();
    changed_.notify_all();
    return x;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Tensor> items_;
};

// What the pools of a thread that creates tensors and of one that releases them hold at the end,
// and how many blocks the first one allocated from the heap.
struct Handover {
  pool::Statistics producer, consumer;
};
Handover hand_over(int count, Index size) {
  Handover result;
  Queue queue;
  std::thread producer([&] {
    for (int i = 0; i < count; ++i) queue.put(full({size}, i));
    queue.put(full({1}, -1));
    result.producer = pool::statistics();
  });
  std::thread consumer([&] {
    while (queue.take().at({0}) >= 0)
      ;
    result.consumer = pool::statistics();
  });
  producer.join();
  consumer.join();
  return result;
}

}  // namespace

TEST_CASE("tensors made on one thread and released on another serve the first one again") {
  const Index size = 16 << 10;  // 64 kB
  const Handover few = hand_over(100, size), many = hand_over(5000, size);
  CHECK(few.producer.held_bytes < 1'000'000);
  CHECK(many.producer.held_bytes < 1'000'000);
  CHECK(many.producer.heap_allocations < 12);
  CHECK(many.consumer.held_bytes == 0);
  CHECK(many.consumer.cached_bytes == 0);
}

TEST_CASE("two threads that exchange tensors hold no more than they use") {
  Queue there, back;
  const auto play = [](Queue& out, Queue& in, pool::Statistics& statistics) {
    return std::thread([&] {
      for (int i = 0; i < 2000; ++i) {
        out.put(full({1 << 14}, i));
        in.take();
      }
      statistics = pool::statistics();
    });
  };
  pool::Statistics a, b;
  std::thread first = play(there, back, a), second = play(back, there, b);
  first.join();
  second.join();
  CHECK(a.held_bytes < 1'000'000);
  CHECK(b.held_bytes < 1'000'000);
}

TEST_CASE("blocks outlive the thread that asked for them") {
  std::vector<Tensor> made;
  std::thread([&] {
    for (int i = 0; i < 100; ++i) made.push_back(full({1000}, i));
  }).join();
  for (int i = 0; i < 100; ++i) CHECK(made[static_cast<std::size_t>(i)].at({999}) == i);
  const std::size_t cached = pool::statistics().cached_bytes;
  made.clear();
  CHECK(pool::statistics().cached_bytes == cached);
}

TEST_CASE("many threads that release each other's tensors lose none") {
  std::array<Queue, 4> queues;
  std::array<double, 4> sums{};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 3000; ++i) {
        queues[(t + 1) % 4].put(full({1 + i % 50}, i));
        const Tensor x = queues[t].take() * 2;
        sums[t] += x.at({0});
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const double total : sums) CHECK(total == 3000.0 * 2999);
}

TEST_CASE("a program whose lengths vary holds at most twice what it used at its peak") {
  std::thread([] {  // with its own pool
    const Params params(1);
    const nn::Lstm lstm(params / "lstm", 16, 32);
    optim::Sgd sgd(params, {.learning_rate = 1e-3});
    Rng rng(1);
    const auto held_within_bound = [] {
      const pool::Statistics pool = pool::statistics();
      return pool.held_bytes <= std::max(2 * pool.peak_bytes, always_held);
    };
    for (int i = 0; i < 1000; ++i) {
      const Index steps = 1 + i * 7919 % 50, rows = 1 + i % 7;
      Tape tape;
      const Tensor y = lstm(rng.normal({steps, rows, 16})).y;
      sgd.step(tape.gradient(mean(square(y)), params));
      if (i % 50 == 0) REQUIRE(held_within_bound());
    }
    // Large ones, so that the bound applies and not the 32 MiB: 8 to 64 MB, each in a new class.
    for (int i = 0; i < 60; ++i) {
      const Index size = 2'000'000 + i * 230'000;
      { const std::array<Tensor, 2> pair{Tensor({size}, f32), Tensor({size}, f32)}; }
      REQUIRE(held_within_bound());
    }
    CHECK(pool::statistics().peak_bytes > 100'000'000);
    // The most recently allocated sizes remain.
    const std::size_t before = pool::statistics().heap_allocations;
    for (int i = 0; i < 5; ++i) const Tensor again({2'000'000 + 59 * 230'000}, f32);
    CHECK(pool::statistics().heap_allocations == before);
  })
      .join();
}

TEST_CASE(
    "without a tape a layer's memory for a long sequence is its input and output, and a constant") {
  std::thread([] {
    const Index steps = 2000, rows = 64, units = 64;
    const Params params(1);
    const nn::Lstm lstm(params / "lstm", 1, units);
    const Tensor x = zeros({steps, rows, 1});
    const auto y_bytes = static_cast<std::size_t>(steps * rows * units) * sizeof(float);
    const std::size_t before = pool::statistics().peak_bytes;
    lstm(x);
    CHECK(pool::statistics().peak_bytes - before < 2 * y_bytes);  // the gates are 4 times y
  }).join();
}

TEST_CASE("new blocks are full of NaN where a test asks for it, which this program does") {
  for (int i = 0; i < 2; ++i) {  // from the heap, and from the pool
    const Tensor x({5}, f32), y({5}, f64), n({5}, i32);
    for (const double value : x.to_vector()) CHECK(std::isnan(value));
    for (const double value : y.to_vector()) CHECK(std::isnan(value));
    CHECK(n.to_vector() == std::vector<double>(5, -1));
  }
  const Scratch<float> scratch(3);
  CHECK(std::isnan(scratch[2]));
}

TEST_CASE("running out of memory is an error that says for what") {
  const Index huge = Index{1} << 50;
  const Site site("big.cpp", 3);
  const auto says = [&](const char* call, auto make) {
    CHECK(error_of<MemoryError>(make) ==
          fmt::format("{}: f32 [1125899906842624]: 4503599627370496 bytes are more than the system "
                      "grants (big.cpp:3)",
                      call));
  };
  says("zeros", [&] { zeros({huge}, f32, site); });
  says("full", [&] { full({huge}, 1, f32, site); });
  says("arange", [&] { arange(0, huge, 1, f32, site); });
  says("Rng::normal", [&] { Rng(1).normal({huge}, 0, 1, f32, site); });
  says("Rng::uniform", [&] { Rng(1).uniform({huge}, 0, 1, f32, site); });
  CHECK_THROWS_AS(ones({Shape::max_size}, f64), MemoryError);
  CHECK_THROWS_AS((Shape{Index{1} << 32, Index{1} << 32}), ShapeError);
  CHECK_THROWS_AS((Shape{Index{1} << 60, 0, 16}), ShapeError);

  const Tensor x = ones({Index{1} << 13, 1}), line = ones({1});
  const std::string text =
      error_of<MemoryError>([&] { broadcast_to(line, {huge}, Site("big.cpp", 7)); });
  CHECK(text ==
        "broadcast_to: f32 [1125899906842624]: 4503599627370496 bytes are more than the "
        "system grants; x is f32 [1] (big.cpp:7)");
  // Everything works as before.
  CHECK(sum(x).item() == 8192);
}

TEST_CASE("an op whose result does not fit leaves its tape as it was" *
          doctest::skip(testing::sanitized)) {  // they end the program
  Tape tape;
  const Tensor x = tape.watch(ones({Index{1} << 22}));
  const Tensor y = square(x);
  const std::size_t records = tape.size();
  // 64 TiB: a system may overcommit this much; nothing may be written to it then.
  CHECK_THROWS_AS(Tensor({Index{1} << 44}, f32), MemoryError);
  CHECK_THROWS_AS(outer(x, x), MemoryError);
  CHECK(tape.size() == records);
  CHECK(tape.gradient(sum(y), {x})[0].at({5}) == 2);
}
