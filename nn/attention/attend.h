#pragma once

#include <string_view>

#include <reel/nn/attention/attention.h>
#include <reel/nn/dropout.h>

// Shared by the kinds of attention.
namespace reel::nn::detail {

/// An attention in error messages: "AdditiveAttention decoder.attention".
struct AttentionName {
  const char* module;
  std::string_view part = {};
  std::string str() const;
};

/// A memory without what its padding holds: keys and values [T, B, ...], zero in the padding, and
/// where that is, as in AttentionMemory. Throws ShapeError unless both are [T, B, ...] with T > 0,
/// and ValueError for lengths that are not those of the rows or for a row of length 0.
AttentionMemory without_padding(const AttentionName& name, const KeysAndValues& x,
                                const std::optional<Tensor>& lengths);

/// One call of an attention: its queries, and what is hidden from them.
class AttentionCall {
 public:
  /// Throws ShapeError unless the query is [B, D] or [Q, B, D] with the rows of the memory, or if
  /// the mask does not fit; ValueError for an undefined memory, or if a query may attend to
  /// nothing.
  AttentionCall(const AttentionName& name, const Tensor& query, const AttentionMemory& memory,
                const AttentionOptions& options);

  /// [Q, B, D]; Q is 1 for the query of one step.
  const Tensor& queries() const { return queries_; }
  Index steps() const { return memory_.values.size(-2); }
  /// Context [B, Q, D] or [B, heads, Q, D] and weights, from scores [B, Q, T] or [B, heads, Q, T].
  AttentionResult attend(const Tensor& scores, const Dropout& dropout, const Mode& mode) const;
  /// [Q, B, ...] as the caller's query has it: without the first axis for that of one step.
  Tensor as_query(const Tensor& y) const;
  /// The result of a single head.
  AttentionResult attend_once(const Tensor& scores, const Dropout& dropout, const Mode& mode) const;

 private:
  Tensor hidden_from(const AttentionName& name, const AttentionOptions& options) const;

  const AttentionMemory& memory_;
  bool one_step_;
  Tensor queries_, hidden_;
};

/// Throws ShapeError, naming the attention, unless the memory's keys have this shape: those of
/// another attention do not.
void require_keys(const AttentionName& name, const AttentionMemory& memory, const Shape& keys);

/// x with its first two axes swapped: [Q, B, D] <-> [B, Q, D].
Tensor swap_rows(const Tensor& x);

}  // namespace reel::nn::detail
