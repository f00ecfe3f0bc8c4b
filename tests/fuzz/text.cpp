#include <reel/datasets/text.h>

#include "memory_file.h"
#include "target.h"

namespace reel::fuzz {
namespace {

using namespace datasets;

std::vector<std::string> examples() { return {"a", "\xef\xbb\xbfna\xc3\xafve\n"}; }

std::vector<std::string> large() {
  std::string lines;
  while (lines.size() < 1'000'000) lines += "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80\r\n";
  return {lines, std::string(1'000'000, '\0'), std::string(1'000'000, 'x') + '\xc3'};
}

void read(std::string_view input) {
  const MemoryFile file(input);
  const std::string text = read_text(file.path());
  const Vocabulary characters(text, TextMode::utf8);  // would throw for what is no text
}

}  // namespace

const Target text{"text", examples, large, read};

}  // namespace reel::fuzz
