#include <doctest/doctest.h>
#include <sys/resource.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>

#include <reel/reel.h>

#include "testing.h"

namespace {
std::atomic<std::size_t> allocations{0}, allocated_bytes{0};

long page_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}
}  // namespace

// Every allocation of the test program passes here and is counted.
void* operator new(std::size_t bytes) {
  ++allocations;
  allocated_bytes += bytes;
  if (void* block = std::malloc(bytes == 0 ? 1 : bytes)) return block;
  throw std::bad_alloc();
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  ++allocations;
  allocated_bytes += bytes;
  const std::size_t unit = static_cast<std::size_t>(alignment);
  if (void* block = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit)) return block;
  throw std::bad_alloc();
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  ++allocations;
  allocated_bytes += bytes;
  return std::malloc(bytes == 0 ? 1 : bytes);
}
void operator delete(void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }
void operator delete(void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }

using namespace reel;

namespace {

Tensor draw(Rng& rng, const Shape& shape, DType dtype) { return rng.normal(shape, 0, 0.1, dtype); }

// The allocations of each of several calls.
template <class F>
std::vector<std::size_t> counted(int calls, F f) {
  std::vector<std::size_t> counts;
  for (int i = 0; i < calls; ++i) {
    const std::size_t before = allocations;
    f();
    counts.push_back(allocations - before);
  }
  return counts;
}

}  // namespace

TEST_CASE("a training step makes no heap allocations from the third on") {
  const Params params(1);
  const Param embedding = params.create("embedding", {11, 16}, draw),
              w = params.create("w", {16, 16}, draw), bias = params.create("bias", {16}, draw),
              head = params.create("head", {11, 16}, draw), out = params.create("out", {11}, draw),
              gain = params.create("gain", {16}, draw);
  Rng rng(1);
  const Tensor rows = tensor({4}, {1, 3, 5, 7}, i32), targets = tensor({4}, {2, 4, 6, 8}, i32);
  Tensor state = zeros({4, 16});
  double loss = 0;
  const auto step = [&] {
    Tape tape;
    Tensor h = state;
    for (int t = 0; t < 5; ++t) {
      const Tensor x = gather_rows(embedding, rows);
      h = tanh(matmul(h, w) + x + bias);
      h = dropout(layer_norm(h, gain, bias), 0.1, rng);
      h = sigmoid(concat({slice(h, 1, 0, 8), slice(h, 1, 8, 16)}, 1));
    }
    const Tensor logits = affine(h, head, out);
    const Tensor y =
        cross_entropy(logits, targets) + 1e-3 * mean(square(h)) + sum(softmax(logits), {0, 1});
    loss = y.item();
    Gradients gradients = tape.gradient(y, params);
    gradients *= 0.5;
    gradients.each([&](const std::shared_ptr<ParamEntry>& entry, const Tensor& g) {
      const std::span<const float> from = g.values<float>();
      const std::span<float> to = Param(entry).edit<float>();
      for (std::size_t i = 0; i < to.size(); ++i) to[i] -= 0.1f * from[i];
    });
    state = h.detach();
  };
  const auto counts = counted(6, step);
  CHECK(loss > 0);
  CHECK(counts[0] > 0);
  for (std::size_t i = 2; i < counts.size(); ++i) CHECK(counts[i] == 0);
}

TEST_CASE("training a model allocates no memory and causes no page faults once it is warm") {
  const testing::ThreadsScope restore;
  set_threads(1);
  const Params params(1);
  const nn::Embedding embed(params / "embed", 65, 64);
  const nn::Stacked<nn::Lstm> lstm(params / "lstm", 64, 128);
  const nn::Linear head(params / "head", 128, 65);
  optim::Adam adam(params);
  const Tensor tokens = full({50, 16}, 3, i32);
  nn::Stacked<nn::Lstm>::State state;
  const auto step = [&] {
    Tape tape;
    const auto [y, next] = lstm(embed(tokens), state);
    Gradients gradients = tape.gradient(cross_entropy(head(y), tokens), params);
    optim::clip_by_norm(gradients, 0.1);
    adam.step(gradients);
    state = detach(next);
  };
  const auto counts = counted(4, step);
  CHECK(counts[3] == 0);
  if (testing::sanitized) return;  // shadow memory has its own page faults
  // The system may reclaim a page at any time, but not in every step.
  auto fewest = std::numeric_limits<long>::max();
  for (int i = 0; i < 10; ++i) {
    const long before = page_faults();
    step();
    fewest = std::min(fewest, page_faults() - before);
  }
  CHECK(fewest == 0);
}

TEST_CASE("inference makes no heap allocations once it is warm") {
  Rng rng(1);
  const Tensor w = rng.normal({16, 16});
  Tensor h = rng.normal({1, 16});
  const auto counts = counted(4, [&] { h = tanh(matmul(h, w) * 0.5 + h); });
  CHECK(counts[3] == 0);
}

TEST_CASE("a stepper makes no heap allocations once it is warm") {
  const Params params(1);
  const nn::Embedding embed(params / "embed", 11, 8);
  const nn::Stacked<nn::Lstm> lstm(params / "lstm", 8, 16);
  const nn::Stacked<nn::Gru> gru(params / "gru", 8, 16, {}, nn::GruOptions{.reset = Reset::before});
  const nn::Linear head(params / "head", 16, 11);
  const nn::Stepper predict(head);
  Rng rng(1);
  const auto generate = [&](const auto& stepper) {
    auto last = stepper(full({1}, 3, i32));
    const auto counts = counted(6, [&] {
      const std::int32_t token = nn::sample(predict(last.y), {.top_k = 5, .top_p = 0.9}, rng);
      last = stepper(full({1}, token, i32), last.state);
    });
    for (std::size_t i = 3; i < counts.size(); ++i) CHECK(counts[i] == 0);
  };
  generate(nn::Stepper(embed, lstm));
  generate(nn::Stepper(embed, gru));
  const nn::WithInitialState<nn::Stacked<nn::Gru, nn::Lstm>> mixed(
      params / "mixed", 8, 16,
      nn::StackOptions{.connection = nn::Connection::highway, .layer_norm = true});
  generate(nn::Stepper(embed, mixed));
}

TEST_CASE("a step of a stream makes no heap allocations, nor does a reset") {
  const Params params(1);
  const nn::Embedding embed(params / "embed", 11, 8);
  const nn::WithInitialState<nn::Stacked<nn::Gru, nn::Lstm>> mixed(
      params / "mixed", 8, 16,
      nn::StackOptions{.connection = nn::Connection::highway, .layer_norm = true});
  const nn::Lstm norms(params / "norms", 16, 20, {.projection_size = 9, .layer_norm = true});
  const nn::FullGateLstm gates(params / "gates", 9, 16);
  const nn::Linear head(params / "head", 16, 11);
  nn::Stream stream(embed, mixed, norms, gates, head, reel::tanh);
  static_assert(noexcept(stream.step(0, {}))&& noexcept(stream.reset()));
  std::array<float, 11> out{};
  const std::size_t blocks = pool::statistics().heap_allocations;
  const auto counts = counted(3, [&] {
    for (std::int32_t symbol = 0; symbol < 11; ++symbol) stream.step(symbol, out);
    stream.reset();
  });
  for (const std::size_t count : counts) CHECK(count == 0);
  CHECK(pool::statistics().heap_allocations == blocks);
}

TEST_CASE("a record takes at most 200 bytes in addition to the tensors") {
  constexpr std::size_t records = 200'000, tensor_bytes = 64 + 64;  // header and 8 floats, aligned
  pool::trim();
  Tape tape;
  const Tensor x = tape.watch(full({8}, 0.5));
  const std::size_t before = allocated_bytes;
  Tensor y = x;
  for (std::size_t i = 0; i < records; ++i) y = tanh(y);  // keeps its input
  const std::size_t recorded = allocated_bytes;
  tape.gradient(y, {x}, {.seed = ones({8})});
  const std::size_t per_record = (recorded - before) / records - tensor_bytes;
  const std::size_t backward = (allocated_bytes - recorded) / records;
  INFO("forward ", per_record, " bytes a record, backward ", backward);
  CHECK(per_record >= 100);  // a lower bound, to check the test itself
  CHECK(per_record + backward <= 200);
}
