// The file of metrics of char_lm when system calls fail, and when it is damaged.
#include <doctest/doctest.h>

#include <limits>
#include <random>

#include <reel/autograd/error.h>

#include "../examples/char_lm/metrics.h"
#include "faults.h"
#include "temporary_directory.h"

using namespace reel;
using char_lm::Metrics;
using char_lm::MetricsFile;
using testing::Faults;
using testing::Injection;

namespace {

constexpr std::size_t chunk = 32;  // what a short write takes

Metrics line(Index step) {
  return {.step = step, .epoch = 1, .train_loss = 2.5, .lr = 0.25, .elapsed_s = 1.5};
}

std::string text_of(const Metrics& metrics) {
  const TemporaryDirectory directory;
  MetricsFile(directory / "metrics", 0).append(metrics);
  return content_of(directory / "metrics");
}

int writes_of(const std::string& text) {
  return static_cast<int>((text.size() + chunk - 1) / chunk);
}

}  // namespace

TEST_CASE("metrics: short writes go on, interrupted ones are made again") {
  const std::string first = text_of(line(1)), second = text_of(line(2));
  CHECK(first.ends_with("}\n"));
  const int writes = writes_of(second);
  REQUIRE(writes > 2);
  for (int call = -1; call < writes; ++call) {
    CAPTURE(call);
    const TemporaryDirectory directory;
    const auto path = directory.file("metrics", first);
    MetricsFile file(path, 1);
    Faults f{.at = call, .error = EINTR, .longest_write = chunk, .only = "write"};
    {
      const Injection injection(f);
      file.append(line(2));
    }
    CHECK(content_of(path) == first + second);
    CHECK(f.calls == writes + (call == -1 ? 0 : 1));
  }
}

TEST_CASE("metrics: whichever write fails, the file holds whole lines, and the next one fits") {
  const std::string first = text_of(line(1)), second = text_of(line(2)), third = text_of(line(3));
  for (int call = 0; call < writes_of(second); ++call) {
    CAPTURE(call);
    const TemporaryDirectory directory;
    const auto path = directory.file("metrics", first);
    MetricsFile file(path, 1);
    Faults f{.at = call, .error = ENOSPC, .longest_write = chunk, .only = "write"};
    std::string message;
    {
      const Injection injection(f);
      message = message_of<FileError>([&] { file.append(line(2)); });
    }
    CHECK(message == path.string() + ": cannot write: No space left on device");
    CHECK(content_of(path) == first);
    CHECK(file.elapsed_s() == 1.5);
    file.append(line(3));
    CHECK(content_of(path) == first + third);
  }
}

TEST_CASE("metrics: half a line that cannot be taken back goes when training is resumed") {
  const std::string first = text_of(line(1)), second = text_of(line(2)), third = text_of(line(3));
  const TemporaryDirectory directory;
  const auto path = directory.file("metrics", first);
  Faults f{
      .at = 1, .error = EIO, .and_after = true, .longest_write = chunk, .only = "write ftruncate"};
  {
    MetricsFile file(path, 1);
    const Injection injection(f);
    CHECK(message_of<FileError>([&] { file.append(line(2)); }) ==
          path.string() + ": cannot write: Input/output error");
  }
  CHECK(content_of(path) == first + second.substr(0, chunk));
  MetricsFile resumed(path, 1);
  CHECK(content_of(path) == first);
  CHECK(resumed.elapsed_s() == 1.5);
  resumed.append(line(3));
  CHECK(content_of(path) == first + third);
}

TEST_CASE("metrics: lines with bytes changed at random are read, or refused with their line") {
  nn::LayerReport layer{.name = "rnn.0",
                        .gradient_norms = {1, std::numeric_limits<double>::infinity()},
                        .jacobian_norms = {0.5},
                        .gates = {{.name = "forget", .lowest = 0, .saturated = 0.25}},
                        .time_constants = nn::TimeConstants{1, 2, 3}};
  Metrics given = line(1);
  given.clip = optim::ClipCount{2, 1, 3, 4};
  given.skipped = 5;
  given.diagnosis = char_lm::Diagnosis{{layer}};
  const std::string good = json_line(given);
  const TemporaryDirectory directory;
  int read = 0, refused = 0;
  const auto read_back = [&](const std::string& text) {
    const auto path = directory.file("metrics", text);
    try {
      char_lm::each_metrics(path, [&](const Metrics& m) {
        if (text != good) return;
        CHECK(m.diagnosis->layers.front() == layer);
        CHECK(m.skipped == 5);
        CHECK(m.clip->clipped == 1);
        CHECK(m.clip->largest_norm == 4);
      });
      ++read;
    } catch (const FileError& error) {
      CHECK(std::string(error.what()).find(path.string() + ": line ") == 0);
      ++refused;
    }
  };
  read_back(good);
  REQUIRE(read == 1);
  std::mt19937 source(1);
  for (int trial = 0; trial < 500; ++trial) {
    std::string text = good + good;
    for (int changes = 1 + static_cast<int>(source() % 3); changes > 0; --changes)
      text[source() % text.size()] = static_cast<char>(source() % 256);
    read_back(text);
  }
  CHECK(read > 1);
  CHECK(refused > 100);
}
