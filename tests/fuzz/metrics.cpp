#include <stdexcept>

#include <nlohmann/json.hpp>

#include "../../examples/char_lm/json_lines.h"
#include "../../examples/char_lm/metrics.h"
#include "memory_file.h"
#include "target.h"

namespace reel::fuzz {
namespace {

std::vector<std::string> examples() {
  return {
      "",
      "{\"step\":1,\"epoch\":1,\"train_loss\":2.5,\"lr\":0.002,\"elapsed_s\":1.5}\n",
      "{\"elapsed_s\":1e3,\"diagnostics\":{\"layers\":[{\"gradient_norms\":[1.5,2]}]}}\nrest",
  };
}

std::vector<std::string> large() {
  std::string zeros, keys;
  while (zeros.size() < 900'000) zeros += "0,";
  for (int i = 0; i < 100'000; ++i) keys += ",\"" + std::to_string(i) + "\":0";
  return {
      "{\"elapsed_s\":1,\"padding\":\"" + std::string(900'000, 'x') + "\"}\n",
      "{\"elapsed_s\":1,\"padding\":[" + zeros + "0]}\n",
      "{\"elapsed_s\":1,\"padding\":" + std::string(400'000, '[') + std::string(400'000, ']') +
          "}\n",
      "{\"elapsed_s\":1" + keys + "}\n",
      std::string(1'000'000, '\n'),
  };
}

void read(std::string_view input) {
  const MemoryFile file(input);
  const double elapsed = char_lm::MetricsFile(file.path(), 1).elapsed_s();
  if (!(elapsed >= 0 && elapsed < 1e9)) throw std::logic_error("no time of a run");
  if (char_lm::MetricsFile(file.path(), 1).elapsed_s() != elapsed)
    throw std::logic_error("a file of metrics, cut off after a line, is read as another one");
  const MemoryFile whole(input);
  char_lm::each_object(whole.path(), [](const char_lm::Json& object, std::uint64_t) {
    char_lm::number_if(object, "elapsed_s");
    return true;
  });
}

}  // namespace

const Target metrics{"metrics", examples, large, read};

}  // namespace reel::fuzz
