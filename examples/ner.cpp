// Names in sentences: spans of several words with a type, labelled in the BIO scheme. What begins a
// long span decides the label of each of its words, which a softmax for each word does not see of
// the others; a conditional random field chooses the labels of a sentence together, and never a
// sequence that is none.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <iostream>

#include <reel/reel.h>

#include "support/layers.h"
#include "support/program.h"
#include "support/tagger.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings : TaggerSettings {
  Index sentences = 1500, corpus = 1;
};

using Sentences = std::vector<LabelledSentence>;

// A made-up language. Names of people, places and works have 1 to 8 words, most of which occur in
// names of every type and outside of names too: only the first word, and sometimes what stands
// before or after the name, tells its type.
class Corpus {
 public:
  explicit Corpus(Rng rng) : rng_(rng) {}

  Sentences draw(Index count) {
    Sentences sentences(static_cast<std::size_t>(count));
    for (LabelledSentence& sentence : sentences) {
      add_words(sentence, 4);
      for (Index names = 1 + rng_.integer(3); names > 0; --names) {
        add_name(sentence);
        add_words(sentence, 5);
      }
    }
    return sentences;
  }

 private:
  void add(LabelledSentence& to, std::string word, std::string label) {
    to.words.push_back(std::move(word));
    to.labels.push_back(std::move(label));
  }
  std::string word(const char* kind, Index many) {
    return fmt::format("{}{}", kind, rng_.integer(many));
  }
  void add_words(LabelledSentence& to, Index most) {
    for (Index n = 1 + rng_.integer(most); n > 0; --n)
      add(to, rng_.uniform() < 0.3 ? word("common", 60) : word("plain", 200), "O");
  }
  void add_name(LabelledSentence& to) {
    static constexpr const char* types[] = {"PER", "LOC", "WORK"};
    static constexpr const char* hints[] = {"says", "near", "wrote"};
    const Index type = rng_.integer(3);
    if (rng_.uniform() < 0.5) add(to, hints[type], "O");
    const Index length = 1 + rng_.integer(8);
    for (Index i = 0; i < length; ++i)
      add(to, i == 0 && rng_.uniform() < 0.7 ? word(types[type], 40) : word("common", 60),
          fmt::format("{}-{}", i == 0 ? 'B' : 'I', types[type]));
    if (rng_.uniform() < 0.5) add(to, fmt::format("after{}", type), "O");
  }

  Rng rng_;
};

// Whether every I continues a span of its type.
bool is_valid(const Words& labels) {
  for (std::size_t i = 0; i < labels.size(); ++i)
    if (labels[i].starts_with("I-") &&
        (i == 0 || labels[i - 1] == "O" || labels[i - 1].substr(2) != labels[i].substr(2)))
      return false;
  return true;
}

datasets::SpanScores compared(const Sentences& sentences, const std::vector<Words>& found) {
  datasets::SpanScores scores;
  for (std::size_t i = 0; i < found.size(); ++i) scores.add(sentences[i].labels, found[i]);
  return scores;
}

template <class L>
void run(const Settings& s, const std::string& settings) {
  Corpus corpus{Rng(static_cast<std::uint64_t>(s.corpus))};
  const Sentences train = corpus.draw(s.sentences), valid = corpus.draw(500),
                  test = corpus.draw(500);
  Tagger<L> tagger(s, train, labels_of(train),
                   [](const Words& labels) { return nn::span_constraints(labels); });
  tagger.train(train, valid, settings, [&](const std::vector<Words>& found) {
    return compared(valid, found).total().f1();
  });
  const std::vector<Words> found = tagger.label(test);
  const datasets::SpanScores scores = compared(test, found);
  std::cout << scores.str();
  const std::string model = fmt::format("{}{}", s.cell, s.crf ? " with a CRF" : " with a softmax");
  print_result(fmt::format("% of sentences with an impossible label, by a {}", model),
               100 * static_cast<double>(std::ranges::count_if(found, std::not_fn(is_valid))) /
                   static_cast<double>(found.size()),
               "0 by construction with a CRF");
  print_result(fmt::format("F1 of names in %, by a {}", model), 100 * scores.total().f1(),
               "generated text, so nothing was published");
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("ner", "Finds names of several words in sentences of a made-up language.");
  program.option("--sentences", s.sentences, "sentences to learn from").fast(400);
  program.option("--corpus", s.corpus, "seed of the sentences", 0);
  s.add_to(program);
  return program.run(argc, argv, [&] {
    with_layer(s.cell, [&](auto layer) {
      using L = typename decltype(layer)::type;
      s.one_way ? run<L>(s, program.settings()) : run<nn::Bidirectional<L>>(s, program.settings());
    });
  });
}
