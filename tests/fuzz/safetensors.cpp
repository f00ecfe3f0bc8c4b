#include <utility>

#include <reel/autograd/ops.h>
#include <reel/nn/files/safetensors.h>

#include "../safetensors_file.h"
#include "memory_file.h"
#include "target.h"

namespace reel::fuzz {
namespace {

using testing::entry;
using testing::file_of;

std::vector<std::string> examples() {
  std::vector<std::string> files{
      file_of("{}", 0),
      file_of(R"({"__metadata__":{"a":"b","c":"\u00e9\n"},)" +
                  entry("w", "F32", "[2,2]", "[0,16]") + "," + entry("b", "F64", "[]", "[16,24]") +
                  "," + entry("none", "I32", "[0,3]", "[24,24]") + "}",
              24)};
  constexpr std::pair<const char*, int> formats[] = {
      {"F16", 8}, {"BF16", 8}, {"I64", 2}, {"U64", 2},   {"U32", 4}, {"I16", 8},      {"U16", 8},
      {"I8", 16}, {"U8", 16},  {"C64", 2}, {"BOOL", 16}, {"X", 1},   {"F8_E5M2", 16},
  };
  for (const auto& [format, count] : formats)
    files.push_back(testing::one_tensor(format, "[" + std::to_string(count) + "]", "[0,16]"));
  return files;
}

// Headers with as many tensors and texts as they have room for.
std::vector<std::string> large() {
  std::string tensors, texts;
  for (int i = 0; i < 14'000; ++i) {
    const std::string end = std::to_string(4 * i + 4);
    tensors += (i ? "," : "{") + entry(std::to_string(i), "F32", "[1]",
                                       "[" + std::to_string(4 * i) + "," + end + "]");
  }
  for (int i = 0; i < 80'000; ++i) texts += (i ? ",\"" : "\"") + std::to_string(i) + "\":\"\"";
  return {file_of(tensors + "}", 4 * 14'000), file_of("{\"__metadata__\":{" + texts + "}}", 0),
          file_of("{\"a\":" + std::string(900'000, '['), 0), file_of("{}", 1'000'000)};
}

void read(std::string_view input) {
  const MemoryFile file(input);
  const nn::NamedTensors content = nn::load_safetensors(file.path());
  for (const auto& [name, value] : content.tensors) value.to_vector();
}

}  // namespace

const Target safetensors{"safetensors", examples, large, read};

}  // namespace reel::fuzz
