#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/datasets/bucketed_batches.h>
#include <reel/datasets/labels.h>
#include <reel/datasets/pad.h>
#include <reel/datasets/words.h>
#include <reel/nn/bidirectional.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/crf.h>
#include <reel/nn/dropout.h>
#include <reel/nn/embedding.h>
#include <reel/nn/init.h>
#include <reel/nn/linear.h>
#include <reel/nn/stacked.h>
#include <reel/optim/adam.h>
#include <reel/optim/clip.h>
#include <reel/optim/schedule.h>

#include "program.h"
#include "training.h"

/// What programs that label the words of sentences share: the sentences as numbers, and a model.
namespace reel::examples {

using Words = std::vector<std::string>;

/// A sentence, and a label for each of its words; none where they are to be found.
struct LabelledSentence {
  Words words, labels;
};

/// The labels of some sentences.
datasets::Labels labels_of(std::span<const LabelledSentence> sentences);

/// The words of a training part that occur twice at least, and all labels, as numbers.
struct Alphabets {
  Alphabets(std::span<const LabelledSentence> sentences, datasets::Labels all);

  datasets::WordVocabulary words;
  datasets::Labels labels;
};

/// Sentences side by side, T words the longest of B.
struct SentenceBatch {
  Tensor words, labels;  ///< i32 [T, B]
  Tensor lengths;        ///< i32 [B]
  /// Each of the W different words once, as bytes i32 [C, W], their lengths [W], and which of them
  /// a word is, i32 [T, B].
  Tensor spellings, spelling_lengths, spelling_of;
};

/// Throws ValueError for a label that the alphabet lacks.
SentenceBatch make_batch(std::span<const LabelledSentence> sentences, const Alphabets& alphabets);

std::vector<LabelledSentence> pick(std::span<const LabelledSentence> sentences,
                                   std::span<const Index> chosen);
/// In words.
std::vector<Index> lengths_of(std::span<const LabelledSentence> sentences);
/// Adds the labels of each sentence, given their numbers i32 [T, B].
void add_labels(const Tensor& numbers, std::span<const LabelledSentence> sentences,
                const datasets::Labels& labels, std::vector<Words>& to);

/// The options of such a program.
struct TaggerSettings {
  std::string cell = "lstm", save;
  bool one_way = false, crf = false;
  Index embed = 100, bytes = 32, spelling = 100, hidden = 128, layers = 1;
  Index batch = 8, epochs = 30, seed = 1;
  double dropout = 0.5, word_dropout = 0.5, learning_rate = 2e-3, clip = 5;

  void add_to(Program& program);
};

/// Scores of the labels of each word, from its embedding and its spelling in their context: a layer
/// L, such as nn::Bidirectional<nn::Lstm>, reads the words, a bidirectional GRU their bytes (Ma and
/// Hovy, "End-to-end sequence labeling via bi-directional LSTM-CNNs-CRF", 2016, where a convolution
/// reads the characters).
template <class L>
struct TaggerModel {
  TaggerModel(const Params& p, const TaggerSettings& s, Index word_count, Index label_count,
              const nn::CrfConstraints& constraints)
      : words(p / "words", word_count, s.embed, nn::init::normal(0.1), s.word_dropout),
        bytes(p / "bytes", 256, s.bytes),
        spelling(p / "spelling", s.bytes, s.spelling),
        context(p / "context", s.embed + 2 * s.spelling, s.hidden,
                {.layers = static_cast<int>(s.layers), .dropout = s.dropout}),
        head(p / "head", context.output_size(), label_count),
        dropout(s.dropout) {
    if (s.crf) crf.emplace(p / "crf", label_count, constraints);
  }

  Tensor loss(const SentenceBatch& batch, const nn::Mode& mode) const {
    const Tensor all = scores(batch, mode);
    if (crf)
      return crf->loss(all, batch.labels,
                       {.lengths = batch.lengths, .reduction = CrfReduction::token_mean});
    return cross_entropy(all, batch.labels,
                         datasets::length_mask(batch.lengths, batch.words.size(0)));
  }
  /// The most probable labels, i32 [T, B].
  Tensor labels(const SentenceBatch& batch) const {
    const Tensor all = scores(batch, nn::Eval{});
    return crf ? crf->decode(all, batch.lengths).labels : argmax(all);
  }
  /// Scores [T, B, labels].
  Tensor scores(const SentenceBatch& batch, const nn::Mode& mode) const {
    const auto last = spelling(bytes(batch.spellings), {.lengths = batch.spelling_lengths}).state;
    const Tensor spelled =
        gather_rows(concat({last.forward.h, last.backward.h}, 1), batch.spelling_of);
    const Tensor x = dropout(concat({words(batch.words, mode), spelled}, 2), mode);
    return head(dropout(context(x, {}, mode, {.lengths = batch.lengths}).y, mode));
  }

  nn::Embedding words, bytes;
  nn::Bidirectional<nn::Gru> spelling;
  nn::Stacked<L> context;
  nn::Linear head;
  nn::Dropout dropout;
  std::optional<nn::Crf> crf;
};

/// A model with all that it is trained and used with.
template <class L>
class Tagger {
 public:
  /// `constraints_of` gives those of a CRF for the labels.
  Tagger(const TaggerSettings& settings, std::span<const LabelledSentence> train,
         const datasets::Labels& labels,
         nn::CrfConstraints (*constraints_of)(const Words& labels) = nullptr)
      : settings_(settings),
        alphabets_(train, labels),
        params_(static_cast<std::uint64_t>(settings.seed)),
        model_(params_, settings, alphabets_.words.size(), alphabets_.labels.size(),
               constraints_of ? constraints_of(alphabets_.labels.names()) : nn::CrfConstraints{}) {}

  const datasets::Labels& labels() const { return alphabets_.labels; }

  /// The most probable labels of the words of each sentence.
  std::vector<Words> label(std::span<const LabelledSentence> sentences) const {
    constexpr std::size_t rows = 64;
    std::vector<Words> result;
    for (std::size_t begin = 0; begin < sentences.size(); begin += rows) {
      const auto part = sentences.subspan(begin, std::min(rows, sentences.size() - begin));
      const SentenceBatch batch = make_batch(part, alphabets_);
      add_labels(model_.labels(batch), part, alphabets_.labels, result);
    }
    return result;
  }

  /// Trains, or goes on; ends with the parameters of the epoch whose score is the best, or of the
  /// last one if there are no sentences to validate with. `score` is a function of what `label`
  /// finds in these.
  template <class F>
  void train(std::span<const LabelledSentence> train, std::span<const LabelledSentence> valid,
             const std::string& settings, F score) {
    Rng rng(static_cast<std::uint64_t>(settings_.seed), 1);
    optim::Adam adam(params_, {.learning_rate = settings_.learning_rate});
    const optim::CosineDecay schedule{.learning_rate = settings_.learning_rate,
                                      .length = settings_.epochs};
    const datasets::BucketedBatches batches(lengths_of(train), {.batch_size = settings_.batch},
                                            rng.stream("batches"));
    Training training(params_, adam, rng,
                      {.epochs = settings_.epochs,
                       .better = optim::Better::larger,
                       .save = settings_.save,
                       .settings = settings});
    while (training.next()) {
      adam.set_learning_rate(schedule.at(training.epoch()));
      for (Index step = 0; const auto& chosen : batches.epoch(training.epoch())) {
        const SentenceBatch batch = make_batch(pick(train, chosen), alphabets_);
        Tape tape;
        const Tensor loss = model_.loss(batch, nn::Train{rng});
        Gradients gradients = tape.gradient(loss, params_);
        optim::clip_by_norm(gradients, settings_.clip);
        adam.step(gradients);
        training.step(step++, batches.count(), loss.item(), sum(batch.lengths).item());
      }
      const double result =
          valid.empty() ? static_cast<double>(training.epoch()) : score(label(valid));
      training.end_epoch(result, valid.empty() ? "" : fmt::format("valid {:.2f} %", 100 * result));
    }
    training.load_best();
  }

  /// Takes the parameters that a training saved.
  void load() { nn::load_params(best_params_in(settings_.save), params_); }

 private:
  TaggerSettings settings_;
  Alphabets alphabets_;
  Params params_;
  TaggerModel<L> model_;
};

}  // namespace reel::examples
