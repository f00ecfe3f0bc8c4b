#pragma once

#include <utility>

#include <reel/nn/generate/stepper.h>

namespace reel::nn {

/// A language model one token at a time: embedding, recurrent part and head as steppers, which is
/// what `generate` and `beam_search` call.
///
///     const nn::TokenStepper step(embed, rnn, head);
///     const auto written = nn::generate(step, {{start}}, {.max_length = 20}, rng);
///
/// What holds for a Stepper, of parameters that change and of tapes, holds for it.
template <class Part>
class TokenStepper {
 public:
  using State = typename Stepper<Part>::State;

  TokenStepper(const Embedding& embed, const Part& rnn, const Linear& head, Site site = {})
      : step_(embed, rnn, site), predict_(head) {}

  /// Tokens i32 [B] -> the logits [B, V] of those that follow, as y, and the next state. Throws as
  /// the steppers do.
  Output<State> operator()(const Tensor& tokens, const State& state = {}, Site site = {}) const {
    Output<State> last = step_(tokens, state, site);
    return {predict_(last.y, site), std::move(last.state)};
  }

 private:
  Stepper<Part> step_;
  Stepper<Linear> predict_;
};

}  // namespace reel::nn
