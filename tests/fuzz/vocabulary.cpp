#include <stdexcept>

#include <reel/datasets/text.h>

#include "target.h"

namespace reel::fuzz {
namespace {

using namespace datasets;

std::vector<std::string> examples() { return {"ab", "\xc3\xa9\xe2\x82\xac\n"}; }

std::vector<std::string> large() {
  std::string letters;
  while (letters.size() < 999'990) letters += "ab\xc3\xa9\xe2\x82\xac\xf4\x8f\xbf\xbf";
  return {letters};
}

void read_as(TextMode mode, std::string_view input) {
  const Vocabulary vocabulary(input, mode);
  if (vocabulary.decode(vocabulary.encode(input)) != input)
    throw std::logic_error("a text is decoded as another one");
  if (Vocabulary(vocabulary.symbols(), mode) != vocabulary)
    throw std::logic_error("a vocabulary of the same symbols is another one");
  for (const char32_t symbol : vocabulary.symbols()) name_of(symbol, mode);
}

void read(std::string_view input) {
  if (!input.empty() && input.size() % 2 == 0) read_as(TextMode::bytes, input);
  read_as(TextMode::utf8, input);
}

}  // namespace

const Target vocabulary{"vocabulary", examples, large, read};

}  // namespace reel::fuzz
