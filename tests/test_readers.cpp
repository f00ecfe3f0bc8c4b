// What reads files, with valid files, with those cut off, and with those changed at random.
// ./dev fuzz looks for harm in the same ones for longer.
#include <doctest/doctest.h>

#include <algorithm>

#include <reel/autograd/ops.h>

#include "fuzz/target.h"
#include "testing.h"

using namespace reel;

namespace {

// A number from 0 to less than `end`.
std::size_t any(Rng& rng, std::size_t end) {
  return static_cast<std::size_t>(rng.uniform() * static_cast<double>(end));
}

// A few bytes changed, left out or repeated.
std::string changed(std::string input, Rng& rng) {
  for (std::size_t times = 1 + any(rng, 3); times > 0 && !input.empty(); --times) {
    const std::size_t at = any(rng, input.size());
    const std::size_t count = std::min(1 + any(rng, 8), input.size() - at);
    const std::size_t way = any(rng, 3);
    if (way == 0) input[at] = static_cast<char>(any(rng, 256));
    if (way == 1) input.erase(at, count);
    if (way == 2) input.insert(at, input.substr(at, count));
  }
  return input;
}

}  // namespace

TEST_CASE("readers: valid files are read, changed ones are read or refused, and none does harm") {
  Rng rng(1);
  for (const fuzz::Target* target : fuzz::targets()) {
    CAPTURE(target->name);
    for (const std::string& example : target->examples()) {
      CHECK(fuzz::accepts(*target, example));
      for (Index i = 0; i < testing::rounds(20, 5000); ++i) {
        fuzz::accepts(*target, changed(example, rng));
        fuzz::accepts(*target, example.substr(0, any(rng, example.size() + 1)));
      }
    }
  }
}

TEST_CASE("readers: a megabyte takes less than a second, whatever it holds") {
  for (const fuzz::Target* target : fuzz::targets())
    for (const std::string& input : target->large()) {
      CAPTURE(target->name);
      CAPTURE(input.substr(0, 40));
      CHECK(input.size() < 1'000'100);
      CHECK(testing::cpu_seconds([&] { fuzz::accepts(*target, input); }) <
            (testing::sanitized ? 10 : 1));
    }
}
