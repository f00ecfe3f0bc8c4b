#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <reel/datasets/f_score.h>

namespace reel::datasets {

/// A labelled range of words, begin <= i < end, such as the name of a person.
struct LabelledSpan {
  Index begin = 0, end = 0;
  std::string type;
  bool operator==(const LabelledSpan&) const = default;
};

/// What an I-X means that continues no span of type X: the first word, or after an O or a span of
/// another type.
enum class StrayInside : std::uint8_t {
  begins,   ///< a span, as in conlleval, the script of the CoNLL shared tasks
  ignored,  ///< nothing, as by the words of the scheme: only a B begins a span
};

/// The spans of a sentence's labels in the BIO scheme (Ramshaw and Marcus, 1995; IOB2): B-X begins
/// a span of type X, I-X continues it, O is outside. Throws ValueError for any other label, naming
/// its place.
std::vector<LabelledSpan> spans_of(std::span<const std::string> labels,
                                   StrayInside stray = StrayInside::begins, Site site = {});

/// Scores of labelled spans over any number of sentences, as of the CoNLL shared tasks: a predicted
/// span is correct if one with the same begin, end and type is a target.
class SpanScores {
 public:
  explicit SpanScores(StrayInside stray = StrayInside::begins) : stray_(stray) {}

  /// Counts a sentence: BIO labels of its words. Throws ValueError for a label that is none or
  /// lists of different lengths; then nothing is counted.
  void add(std::span<const std::string> targets, std::span<const std::string> predictions,
           Site site = {});

  /// Of all spans together (the micro average, which is what papers report).
  FScore total() const;
  /// Of each type, by name.
  const std::map<std::string, FScore>& types() const { return types_; }
  /// The mean of the types' F1; 0 without any.
  double macro_f1() const;

  /// An aligned table: a row for each type, and one for all.
  std::string str() const;

 private:
  StrayInside stray_;
  std::map<std::string, FScore> types_;
};

}  // namespace reel::datasets
