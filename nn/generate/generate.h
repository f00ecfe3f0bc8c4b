#pragma once

#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <reel/autograd/tape.h>
#include <reel/nn/generate/sample.h>
#include <reel/nn/state.h>

namespace reel::nn {

/// The tokens that each row begins with; their lengths may differ.
using Prompts = std::vector<std::vector<std::int32_t>>;

/// A token that was just chosen for a row.
struct NewToken {
  Index row;
  std::int32_t token;
  double log_probability;  ///< ln p under softmax(logits), before any sampling setting
};

/// The options of generate.
struct GenerateOptions {
  Index max_length = 100;                ///< new tokens of each row, at most
  std::optional<std::int32_t> end = {};  ///< ends a row, of which it is the last token
  Sampling sampling = {};                ///< {.temperature = 0} is greedy
  /// Called after every step with the tokens that were chosen in it, if there are any, in the order
  /// of their rows; false stops the generation.
  std::function<bool(std::span<const NewToken>)> on_tokens = {};
};

/// What was generated for one row.
struct Generated {
  std::vector<std::int32_t> tokens;  ///< the new ones, without the prompt; the end token included
  double log_probability = 0;        ///< Σ ln p of these, under softmax(logits)
};

namespace detail {

/// The tokens of all rows, and where each row is.
class Generation {
 public:
  Generation(const Prompts& prompts, const GenerateOptions& options, const Rng& rng, Site site);

  bool done() const { return done_; }
  /// The tokens of the next step, i32 [B].
  Tensor input() const;
  /// The logits that it gave.
  void take(const Tensor& logits);
  std::vector<Generated> result() const;

 private:
  struct Row {
    std::vector<std::int32_t> tokens;  // the prompt, then the new ones
    std::size_t prompt, read;          // lengths of the prompt and of what the model has read
    double log_probability = 0;
    bool ended = false;
  };
  NewToken choose(const Tensor& logits, Index row);

  GenerateOptions options_;
  Site site_;
  std::vector<Row> rows_;
  std::vector<Rng> rngs_;
  bool done_ = false;
};

}  // namespace detail

/// Continues every prompt, token by token. `step(tokens i32 [B], state)` returns the logits [B, V]
/// and the next state, as a TokenStepper does, or a function of ones own with any state that has a
/// `map`: a decoder whose state includes what it attends to.
///
/// All rows begin with the first token of their prompt and take one token in each step, their own
/// next one: of the prompt as long as it lasts, then the one chosen last. So prompts of different
/// lengths need no padding. A row that has ended takes the end token (without one, its last token)
/// until all have, and its logits are not looked at. Row b draws from the stream "b" of `rng`, so
/// with a step that computes each row by itself it gets the tokens it would get alone. The penalty
/// for repetition is of prompt and new tokens. Nothing is recorded on a tape.
///
/// Throws ValueError for no prompts, an empty one or options out of range, what `sample` throws,
/// and what the step throws.
template <class Step, RecurrentState State>
std::vector<Generated> generate(const Step& step, const State& state, const Prompts& prompts,
                                const GenerateOptions& options, const Rng& rng, Site site = {}) {
  const NoRecord pause;
  detail::Generation generation(prompts, options, rng, site);
  State last = state;
  while (!generation.done()) {
    auto [logits, next] = step(generation.input(), last);
    generation.take(logits);
    last = std::move(next);
  }
  return generation.result();
}

/// The same from the state at the beginning of a sequence.
template <class Step>
std::vector<Generated> generate(const Step& step, const Prompts& prompts,
                                const GenerateOptions& options, const Rng& rng, Site site = {}) {
  return generate(step, typename Step::State{}, prompts, options, rng, site);
}

}  // namespace reel::nn
