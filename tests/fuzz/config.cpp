#include <stdexcept>

#include <reel/autograd/utf8.h>

#include "../../examples/char_lm/run_config.h"
#include "target.h"

namespace reel::fuzz {
namespace {

std::string json_of(std::string_view characters, bool bytes) {
  char_lm::Settings settings;
  settings.bytes = bytes;
  complete(settings, char_lm::all_given);
  return char_lm::RunConfig{
      settings, {"/a.txt", 3, 0xabc}, char_lm::vocabulary_of(characters, settings)}
      .json();
}

std::vector<std::string> examples() { return {json_of("abc", false), json_of("\xff\n", true)}; }

std::vector<std::string> large() {
  std::string symbols;
  for (char32_t c = 0x10000; c < 0x4A000; ++c) utf8::append(symbols, c);
  return {json_of(symbols, false), std::string(1'000'000, '['), std::string(1'000'000, ' ')};
}

char_lm::RunConfig parse(std::string_view text) {
  return char_lm::parse_config(text, "/dev/null/vocabulary.txt");
}

void read(std::string_view input) {
  const char_lm::RunConfig config = parse(input);
  const std::string json = config.json();
  const char_lm::RunConfig again = parse(json);
  if (again.json() != json || again.identity() != config.identity())
    throw std::logic_error("a configuration that is written is read as another one");
}

}  // namespace

const Target config{"config", examples, large, read};

}  // namespace reel::fuzz
