#include "tagger.h"

#include "layers.h"

#include <algorithm>
#include <map>

namespace reel::examples {
namespace {

datasets::WordVocabulary words_of(std::span<const LabelledSentence> sentences) {
  std::string text;
  for (const LabelledSentence& sentence : sentences)
    for (const std::string& word : sentence.words) text += word + ' ';
  return datasets::WordVocabulary(text, {.min_count = 2});
}

using Tokens = std::vector<std::int32_t>;

Tokens bytes_of(const std::string& word) {
  return {reinterpret_cast<const unsigned char*>(word.data()),
          reinterpret_cast<const unsigned char*>(word.data()) + word.size()};
}

}  // namespace

datasets::Labels labels_of(std::span<const LabelledSentence> sentences) {
  std::vector<Words> labels;
  for (const LabelledSentence& sentence : sentences) labels.push_back(sentence.labels);
  return datasets::Labels::of(labels);
}

Alphabets::Alphabets(std::span<const LabelledSentence> sentences, datasets::Labels all)
    : words(words_of(sentences)), labels(std::move(all)) {}

std::vector<LabelledSentence> pick(std::span<const LabelledSentence> sentences,
                                   std::span<const Index> chosen) {
  std::vector<LabelledSentence> picked;
  for (const Index i : chosen) picked.push_back(sentences[static_cast<std::size_t>(i)]);
  return picked;
}

std::vector<Index> lengths_of(std::span<const LabelledSentence> sentences) {
  std::vector<Index> lengths;
  for (const LabelledSentence& sentence : sentences) lengths.push_back(std::ssize(sentence.words));
  return lengths;
}

void add_labels(const Tensor& numbers, std::span<const LabelledSentence> sentences,
                const datasets::Labels& labels, std::vector<Words>& to) {
  const std::span<const std::int32_t> values = numbers.values<std::int32_t>();
  for (std::size_t b = 0; b < sentences.size(); ++b) {
    Words& names = to.emplace_back();
    for (std::size_t t = 0; t < sentences[b].words.size(); ++t)
      names.push_back(labels.name(values[t * sentences.size() + b]));
  }
}

SentenceBatch make_batch(std::span<const LabelledSentence> sentences, const Alphabets& alphabets) {
  std::vector<Tokens> words, labels, spellings, spelling_of;
  std::map<std::string, std::int32_t> seen;
  for (const LabelledSentence& sentence : sentences) {
    Tokens& numbers = words.emplace_back();
    Tokens& places = spelling_of.emplace_back();
    for (const std::string& word : sentence.words) {
      numbers.push_back(alphabets.words.token(word));
      const auto [place, is_new] = seen.emplace(word, static_cast<std::int32_t>(seen.size()));
      if (is_new) spellings.push_back(bytes_of(word));
      places.push_back(place->second);
    }
    labels.push_back(sentence.labels.empty() ? Tokens(sentence.words.size(), 0)
                                             : alphabets.labels.encode(sentence.labels));
  }
  const auto [padded, lengths] = datasets::pad(words, 0);
  const auto [letters, letter_counts] = datasets::pad(spellings, 0);
  return {.words = padded,
          .labels = datasets::pad(labels, 0).x,
          .lengths = lengths,
          .spellings = letters,
          .spelling_lengths = letter_counts,
          .spelling_of = datasets::pad(spelling_of, 0).x};
}

void TaggerSettings::add_to(Program& program) {
  program.option("--cell", cell, "recurrent layer", layer_names);
  program.flag("--one-way", one_way, "read only forwards");
  program.flag("--crf", crf, "a random field chooses the labels of a sentence together");
  program.option("--hidden", hidden, "units of a layer and direction").fast(64);
  program.option("--layers", layers, "layers");
  program.option("--embed", embed, "size of a word's vector").fast(50);
  program.option("--dropout", dropout, "dropout rate", 0, 0.99);
  program.option("--word-dropout", word_dropout, "rate at which whole words are dropped", 0, 0.99);
  program.option("--spelling", spelling, "units that read a word's bytes, in each direction");
  program.option("--batch", batch, "sentences of a step");
  program.option("--epochs", epochs, "passes over the sentences").fast(2);
  program.option("--learning-rate", learning_rate, "of Adam, at first").fast(5e-3);
  program.option("--clip", clip, "largest norm of the gradient");
  program.option("--seed", seed, "of initial values, order and dropout", 0);
  program.option("--save", save, "file to keep the training in, and to go on from");
}

}  // namespace reel::examples
