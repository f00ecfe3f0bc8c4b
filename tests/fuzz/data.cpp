#include <stdexcept>

#include <reel/datasets/byte_pairs.h>
#include <reel/datasets/conllu.h>
#include <reel/datasets/idx.h>
#include <reel/datasets/piano_roll.h>
#include <reel/datasets/series.h>
#include <reel/datasets/words.h>

#include "memory_file.h"
#include "target.h"

namespace reel::fuzz {
namespace {

using namespace datasets;
using Texts = std::vector<std::string>;

// A megabyte of a text that is repeated, after a beginning.
std::string megabyte(std::string text, std::string_view repeated) {
  while (text.size() + repeated.size() <= 1'000'000) text += repeated;
  return text;
}

std::string many_words() {
  std::string text = "words 80002\n<unk>\t0\n<eos>\t1\n";
  for (int i = 0; i < 80'000; ++i) text += 'w' + std::to_string(100'000 + i) + "\t1\n";
  return text;
}

// Every pair of bytes from 33 on.
std::string many_pairs() {
  std::string text = "byte_pairs 49729\n";
  for (int a = 33; a < 256; ++a)
    for (int b = 33; b < 256; ++b) text += std::to_string(a) + ' ' + std::to_string(b) + '\n';
  return text;
}

constexpr std::string_view word = "1\tsat\tsit\tVERB\tV\tTense=Past\t0\troot\t_\tSpaceAfter=No\n";

void read_treebank(std::string_view input) {
  const MemoryFile file(input);
  if (read_conllu(file.path()).empty()) throw std::logic_error("a treebank without sentences");
}

void read_table(std::string_view input) {
  const MemoryFile file(input);
  const bool header = !input.starts_with('1');
  const Series series = read_series(file.path(), {.header = header});
  if (series.values.shape()[1] != std::ssize(series.columns))
    throw std::logic_error("a table with other columns than names");
}

void read_images(std::string_view input) {
  const MemoryFile file(input);
  const bool has_one_axis = input.size() > 3 && input[3] == 1;
  has_one_axis ? read_idx_labels(file.path()) : read_idx_images(file.path());
}

void read_music(std::string_view input) {
  const MemoryFile file(input);
  for (const Tensor& roll : read_piano_rolls(file.path()).train)
    if (roll.shape()[1] != 88) throw std::logic_error("music on another number of keys");
}

template <class V>
void read_vocabulary(std::string_view input) {
  const MemoryFile file(input);
  const V vocabulary = V::load(file.path());
  if (vocabulary.encode("a b\n").empty()) throw std::logic_error("a text without tokens");
}

}  // namespace

const Target conllu{
    "conllu",
    [] {
      return Texts{"# sent_id = 1\n" + std::string(word) + "\n", std::string(word)};
    },
    [] {
      return Texts{megabyte("", std::string(word) + "\n"), megabyte("# ", "x")};
    },
    read_treebank,
};

const Target series{
    "series",
    [] {
      return Texts{"a,b\n1,2\n-3e5,.5\n", "\"x \"\"y\"\"\"\n 1 \r\n", "1,2\n3,4\n"};
    },
    [] {
      return Texts{megabyte("a,b\n", "1.25,2\n"), megabyte("", "1,"), megabyte("\"", "\"\"")};
    },
    read_table,
};

const Target idx{
    "idx",
    [] {
      using namespace std::string_literals;
      return Texts{"\0\0\10\3\0\0\0\1\0\0\0\1\0\0\0\2ab"s, "\0\0\10\1\0\0\0\2\1\2"s};
    },
    [] {
      using namespace std::string_literals;
      // An image of 1000 x 999, and a header that claims more than the file has.
      std::string image = "\0\0\10\3\0\0\0\1\0\0\3\350\0\0\3\347"s;
      image.append(1000 * 999, 'x');
      return Texts{image, "\0\0\10\3"s + std::string(12, '\xff') + image};
    },
    read_images,
};

const Target piano_rolls{
    "piano_rolls",
    [] { return Texts{R"({"train": [[[60, 64], [], [-1]]], "valid": [], "test": [[[108]]]})"}; },
    [] {
      return Texts{megabyte(R"({"train": [[[60])", ", [60]") + R"(]], "valid": [], "test": []})",
                   megabyte("", "["), megabyte(R"({"train": )", R"({"":)")};
    },
    read_music,
};

const Target words{
    "words",
    [] { return Texts{"words 4\n<unk>\t0\n<eos>\t1\nthe\t2\ncat\t1\n"}; },
    [] {
      return Texts{many_words(), megabyte("words 4\n<unk>\t0\n<eos>\t1\n", "x"),
                   megabyte("words ", "9")};
    },
    read_vocabulary<WordVocabulary>,
};

const Target byte_pairs{
    "byte_pairs",
    [] {
      return Texts{"byte_pairs 2\n97 98\n256 97\n", "byte_pairs 0\n"};
    },
    [] {
      return Texts{many_pairs(), megabyte("byte_pairs 100000\n", "97 98\n"),
                   megabyte("byte_pairs ", "1")};
    },
    read_vocabulary<BytePairs>,
};

}  // namespace reel::fuzz
