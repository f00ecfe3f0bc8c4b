#pragma once

#include <optional>
#include <utility>
#include <vector>

#include <reel/autograd/tape.h>
#include <reel/nn/generate/generate.h>
#include <reel/nn/state.h>

namespace reel::nn {

/// The options of beam_search.
struct BeamOptions {
  Index beams = 5;                       ///< hypotheses of each row that go on after a step
  Index best = 1;                        ///< results of each row, at most `beams`
  Index max_length = 100;                ///< tokens of a hypothesis, at most
  std::optional<std::int32_t> end = {};  ///< ends a hypothesis, of which it is the last token
  double length_penalty = 0;             ///< a, see Hypothesis; 0 compares log-probabilities
};

/// A sequence that beam search found.
struct Hypothesis {
  std::vector<std::int32_t> tokens;  ///< the new ones, without the prompt; the end token included
  double log_probability = 0;        ///< Σ ln p of these
  double score = 0;                  ///< log_probability / ((5 + n) / 6)ᵃ for n tokens
};

namespace detail {

/// The hypotheses of all rows.
class Beams {
 public:
  Beams(const Prompts& prompts, const BeamOptions& options, Site site);

  bool done() const { return live_.empty(); }
  /// The last tokens of the hypotheses that go on, i32 [N], those of each row together.
  Tensor input() const;
  /// The logits that they gave; returns which of the N each of the next ones follows, i32 [M].
  Tensor take(const Tensor& logits);
  std::vector<std::vector<Hypothesis>> result() { return std::move(finished_); }

 private:
  struct Live {
    std::size_t row;
    std::vector<std::int32_t> tokens;  // the prompt, then the new ones
    std::size_t read = 0;              // how many of them the model has read
    double log_probability = 0;
  };
  struct Candidate {
    double log_probability;
    Index parent;  // index in live_
    std::int32_t token;
  };
  struct Next {
    std::vector<Live> live;
    std::vector<std::int32_t> parents;
  };
  std::size_t prompt_length(const Live& live) const { return prompt_lengths_[live.row]; }
  std::vector<Candidate> candidates(const Tensor& logits, Index begin, Index end) const;
  void advance(const Tensor& logits, Index begin, Index end, Next& next);
  void finish(const Live& live);
  bool can_improve(const Live& best) const;
  double score(double log_probability, Index length) const;

  BeamOptions options_;
  Site site_;
  std::vector<std::size_t> prompt_lengths_;
  std::vector<Live> live_;
  std::vector<std::vector<Hypothesis>> finished_;  // by falling score
};

}  // namespace detail

/// The most probable continuations of every prompt, as far as a beam of hypotheses finds them: for
/// each row up to `best` of them by falling score, of equal ones those found first. `step` is that
/// of `generate`, as are prompts of different lengths and what is recorded.
///
/// In each step the hypotheses of a row are continued by every token with a logit above -infinity,
/// and ordered by log-probability; ties by the index of the hypothesis, then of the token. Of the
/// first `beams` those that end, by the end token or at the maximal length, are results, and the
/// first `beams` of those that do not end go on. A row is done when none that goes on could still
/// have a better score than its results. The score is the length normalisation of Wu et al.,
/// "Google's neural machine translation system", 2016.
///
/// The state has a row for each hypothesis that goes on: select_rows puts the rows of all its
/// tensors in order after a step. What belongs to a row, such as the sequence that a decoder
/// attends to, must be part of the state for that reason, with the rows as the first axis.
///
/// Throws ValueError for no prompts, an empty one, options out of range, a logit that is NaN or
/// +infinity and if a row has no continuation at all, ShapeError or DTypeError for logits that are
/// not [N, V], and what the step throws.
template <class Step, RecurrentState State>
std::vector<std::vector<Hypothesis>> beam_search(const Step& step, const State& state,
                                                 const Prompts& prompts, const BeamOptions& options,
                                                 Site site = {}) {
  const NoRecord pause;
  detail::Beams beams(prompts, options, site);
  State last = state;
  while (!beams.done()) {
    auto [logits, next] = step(beams.input(), last);
    const Tensor parents = beams.take(logits);
    if (!beams.done()) last = select_rows(next, parents, site);
  }
  return beams.result();
}

/// The same from the state at the beginning of a sequence.
template <class Step>
std::vector<std::vector<Hypothesis>> beam_search(const Step& step, const Prompts& prompts,
                                                 const BeamOptions& options, Site site = {}) {
  return beam_search(step, typename Step::State{}, prompts, options, site);
}

}  // namespace reel::nn
