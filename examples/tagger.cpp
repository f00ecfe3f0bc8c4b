// Parts of speech: labels every word of a sentence, from its spelling and its context on both
// sides. Trains on a treebank in CoNLL-U, and tags new text with what it learned.
#include <fmt/format.h>

#include <iostream>
#include <sstream>

#include <reel/reel.h>

#include "support/layers.h"
#include "support/program.h"
#include "support/tagger.h"
#include "support/training.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings : TaggerSettings {
  std::string train, valid, test, tag;
};

using Sentences = std::vector<LabelledSentence>;

Sentences read(const std::string& path) {
  Sentences sentences;
  for (const auto& sentence : datasets::read_conllu(path))
    sentences.push_back({sentence.forms(), sentence.upos()});
  return sentences;
}

// If only one treebank is given, its first 80 % are for training and the rest for testing.
struct Parts {
  explicit Parts(const Settings& s) : train(read(s.train)) {
    if (!s.test.empty()) {
      test = read(s.test);
      if (!s.valid.empty()) valid = read(s.valid);
      return;
    }
    const auto rest = train.begin() + static_cast<std::ptrdiff_t>(train.size() * 8 / 10);
    test.assign(rest, train.end());
    train.erase(rest, train.end());
  }
  Sentences train, valid, test;
};

datasets::ConfusionMatrix compared(const Sentences& sentences, const std::vector<Words>& found,
                                   const datasets::Labels& labels) {
  datasets::ConfusionMatrix matrix(labels.names());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto numbers = [&](const Words& names) {
      return tensor({std::ssize(names)}, std::span<const std::int32_t>(labels.encode(names)));
    };
    matrix.add(numbers(sentences[i].labels), numbers(found[i]));
  }
  return matrix;
}

// Prints each line of a text, its words between spaces, as word/LABEL.
template <class L>
void tag(const Tagger<L>& tagger, const std::string& path) {
  std::istringstream text(datasets::read_text(path));
  Sentences sentences;
  for (std::string line; std::getline(text, line);) {
    std::istringstream words(line);
    sentences.push_back({{std::istream_iterator<std::string>(words), {}}, {}});
    if (sentences.back().words.empty()) sentences.pop_back();
  }
  const std::vector<Words> labels = tagger.label(sentences);
  for (std::size_t i = 0; i < labels.size(); ++i)
    for (std::size_t t = 0; t < labels[i].size(); ++t)
      std::cout << sentences[i].words[t] << '/' << labels[i][t]
                << (t + 1 < labels[i].size() ? ' ' : '\n');
}

template <class L>
void run(const Settings& s, const std::string& settings) {
  if (!s.tag.empty() && s.save.empty()) throw ValueError("--tag takes the --save of a training");
  const Parts parts(s);
  Sentences all = parts.train;  // a label of the others may be missing in it
  all.insert(all.end(), parts.valid.begin(), parts.valid.end());
  all.insert(all.end(), parts.test.begin(), parts.test.end());
  Tagger<L> tagger(s, parts.train, labels_of(all));
  if (!s.tag.empty()) {
    tagger.load();
    return tag(tagger, s.tag);
  }
  tagger.train(parts.train, parts.valid, settings, [&](const std::vector<Words>& found) {
    return compared(parts.valid, found, tagger.labels()).accuracy();
  });
  const auto matrix = compared(parts.test, tagger.label(parts.test), tagger.labels());
  std::cout << matrix.str();
  print_result(fmt::format("% of the test's words with the right tag, by a {}-directional {}{}",
                           s.one_way ? "one" : "bi", s.cell, s.crf ? " with a CRF" : ""),
               100 * matrix.accuracy(), "94.96 after training on the whole English Web Treebank");
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("tagger", "Labels the words of sentences with their parts of speech.");
  program.option("--train", s.train, "treebank in CoNLL-U to learn from").required();
  program.option("--valid", s.valid,
                 "treebank that chooses the epoch; otherwise it is the last one");
  program.option("--test", s.test, "treebank to test on; otherwise the last 20 % of --train");
  program.option("--tag", s.tag, "text to tag with what is in --save, words between spaces");
  s.add_to(program);
  return program.run(argc, argv, [&] {
    with_layer(s.cell, [&](auto layer) {
      using L = typename decltype(layer)::type;
      s.one_way ? run<L>(s, program.settings()) : run<nn::Bidirectional<L>>(s, program.settings());
    });
  });
}
