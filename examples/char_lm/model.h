#pragma once

#include <string>
#include <string_view>

#include <reel/autograd/ops.h>
#include <reel/autograd/precision.h>
#include <reel/autograd/rng.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/linear.h>
#include <reel/nn/named_tensors.h>
#include <reel/nn/stacked.h>

#include "input_vectors.h"
#include "settings.h"

namespace reel::char_lm {

/// From this many symbols on, the logits [T, B, V] of a step, which with their gradient would be
/// most of the memory, are made and used in parts. Below, their memory does not matter, and in
/// parts the gradients of the weights would have other last bits.
constexpr Index large_vocabulary = 2000;

/// The length of the vectors that the first layer reads.
inline Index input_size(const Settings& s, Index vocabulary_size) {
  return s.embed == 0 ? vocabulary_size : s.embed;
}

/// Gives the parameters of a new model the values of --init-uniform, if there are any: each draws
/// from the stream of its name.
void initialize(const Params& params, const Settings& settings);

/// Predicts each next symbol of a text: its vector, a stack of recurrent layers, and a linear layer
/// with one output for each symbol of the vocabulary.
template <nn::Layer L>
struct CharLm {
  using State = typename nn::Stacked<L>::State;
  struct Loss {
    Tensor mean;  ///< in nats
    State state;  ///< after the last step
  };

  CharLm(const Params& p, Index vocabulary_size, const Settings& s)
      : embed(p / "embed", vocabulary_size, s.embed),
        rnn(p / "rnn", embed.size(), s.hidden, {.layers = s.layers, .dropout = s.dropout}),
        head(p / "head", s.hidden, vocabulary_size) {}

  /// The mean loss of predicting the targets i32 [T, B] from the tokens i32 [T, B] up to each.
  Loss loss(const Tensor& tokens, const Tensor& targets, const State& state,
            const nn::Mode& mode = nn::Eval{}) const {
    return loss_from_vectors(embed(tokens), targets, state, mode);
  }
  /// The same from the symbols' vectors [T, B, E].
  Loss loss_from_vectors(const Tensor& x, const Tensor& targets, const State& state,
                         const nn::Mode& mode) const {
    auto [y, next] = rnn(x, state, mode);
    return {loss_of(y, targets), std::move(next)};
  }
  /// The mean loss of predicting the targets [T, B] from outputs [T, B, H] of the last layer.
  Tensor loss_of(const Tensor& y, const Tensor& targets) const {
    return head.w.shape()[0] < large_vocabulary ? cross_entropy(head(y), targets)
                                                : head.cross_entropy(y, targets);
  }

  InputVectors embed;
  nn::Stacked<L> rnn;
  nn::Linear head;
};

/// Calls f(name, shape) for each parameter of the model that the settings describe, without
/// creating it.
template <class F>
void each_parameter(const Settings& s, Index vocabulary_size, F&& f) {
  const Index gates = s.model == "lstm" ? 4 : s.model == "gru" ? 3 : 1, rows = gates * s.hidden;
  if (s.embed > 0) f("embed.w", Shape{vocabulary_size, s.embed});
  f("head.w", Shape{vocabulary_size, s.hidden});
  f("head.b", Shape{vocabulary_size});
  for (int i = 0; i < s.layers; ++i) {
    const std::string layer = "rnn." + std::to_string(i);
    f(layer + ".w_ih", Shape{rows, i == 0 ? input_size(s, vocabulary_size) : s.hidden});
    f(layer + ".w_hh", Shape{rows, s.hidden});
    f(layer + ".b", Shape{rows});
    if (s.model == "gru") f(layer + ".b_hn", Shape{s.hidden});
  }
}

/// Calls f.operator()<L>() with the kind of layer that `--model` names.
template <class F>
decltype(auto) with_layer(std::string_view model, F&& f) {
  if (model == "rnn") return f.template operator()<nn::Rnn>();
  if (model == "gru") return f.template operator()<nn::Gru>();
  return f.template operator()<nn::Lstm>();
}

bool is_finite(const Tensor& x);
/// The square root of the sum of squares, accumulated in double.
double norm_of(const Tensor& x);
/// The name of the first tensor that holds an infinite number or NaN; empty if none does.
std::string first_not_finite(const nn::NamedTensors& tensors);

/// The generator that dropout draws from, at its beginning.
inline Rng dropout_rng(const Settings& s) { return Rng(s.seed).stream("dropout"); }

inline DType dtype_of(const Settings& settings) { return settings.dtype == "f64" ? f64 : f32; }

inline Precision precision_of(const Settings& settings) {
  return settings.matmul == "bf16" ? Precision::bf16 : Precision::f32;
}

/// What whoever asked for bf16 should know on this machine; empty if there is nothing.
inline std::string_view note_on_precision(const Settings& settings) {
  return precision_of(settings) == Precision::bf16 && !bf16_is_faster()
             ? "products in bf16 are not faster than in f32 here: the processor has no AMX"
             : "";
}

}  // namespace reel::char_lm
