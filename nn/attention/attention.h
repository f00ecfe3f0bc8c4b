#pragma once

#include <concepts>
#include <optional>
#include <string>
#include <vector>

#include <reel/autograd/tensor.h>
#include <reel/nn/mode.h>

/// What the kinds of attention have in common. Each has `memory(x, lengths)`, which prepares a
/// sequence [T, B, D] once, and a call that weighs its steps for each query and returns their
/// weighted sum:
///
///     const nn::AttentionMemory memory = attention.memory(encoded, lengths);
///     const auto [context, weights] = attention(query, memory);
///
/// A query is that of one step, [B, D], as in a decoder, or of many, [Q, B, D].
namespace reel::nn {

/// A sequence whose keys [T, B, K], which the scores see, differ from its values [T, B, V], whose
/// weighted sum is the context: `attention.memory({.keys = k, .values = v}, lengths)`.
struct KeysAndValues {
  Tensor keys, values;
};

/// A sequence of T steps prepared by the `memory` of an attention, for any number of its calls. The
/// first axis of each tensor is that of the batch, so select_rows and detach take it as they take a
/// state.
struct AttentionMemory {
  Tensor keys, values;  ///< in the layout of the attention
  Tensor hidden;        ///< i32 [B, 1, T], 1 in the padding; undefined if there is none

  /// See RecurrentState.
  template <class F>
  AttentionMemory map(F&& f) const {
    return {f(keys), f(values), f(hidden)};
  }
  static std::vector<std::string> names() { return {"keys", "values", "hidden"}; }
};

/// What a query may attend to, besides what the lengths of the memory exclude.
struct AttentionOptions {
  /// Query q attends to the steps t <= q only; for queries [Q, B, D].
  bool causal = false;
  /// i32 [Q, B, T], or [B, T] for the query of one step, where any size may be 1: a query attends
  /// where it is not 0. Steps that it excludes must still be finite, unlike padding, since their
  /// values are multiplied by 0.
  std::optional<Tensor> mask = {};
};

/// What attention returns.
struct AttentionResult {
  Tensor context;  ///< Σ over t of weight · value, [Q, B, D] or [B, D]
  Tensor weights;  ///< softmax of the scores over t before dropout, [Q, B, T] or [B, T]
};

/// The short form of the call of an attention A that has a(query, memory, mode, options, site):
/// a(query, memory, {.causal = true}) in Eval.
template <class A>
class AttentionCalls {
 public:
  /// The attention in Eval.
  template <class Options = AttentionOptions>
  requires(std::same_as<Options, AttentionOptions>) AttentionResult operator()(
      const Tensor& query, const AttentionMemory& memory, const Options& options,
      Site site = {}) const {
    return static_cast<const A&>(*this)(query, memory, Eval{}, options, site);
  }
};

}  // namespace reel::nn
