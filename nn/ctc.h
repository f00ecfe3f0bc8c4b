#pragma once

#include <optional>
#include <vector>

#include <reel/autograd/tensor.h>

/// Label sequences from the logits [T, B, V] of a model that was trained with ctc_loss, one list or
/// sequence for each row. All throw ShapeError for other shapes, and ValueError for a blank outside
/// 0 .. V-1 and for logits of a step that are no distribution (one is NaN, or all are -∞), naming
/// row and step. Padding, from a row's length on, has no part in anything.
namespace reel::nn {

/// Labels without blanks, and a natural logarithm of a probability: of what, the function says.
struct CtcSequence {
  std::vector<std::int32_t> labels;
  double log_probability;
};

/// The labels of the most probable path: the largest logit of each step (of equal ones the first),
/// repeated ones merged, without blanks. The probability is that of this path, not of all that give
/// the same labels. `lengths` are i32 [B].
std::vector<CtcSequence> ctc_greedy(const Tensor& logits, const std::optional<Tensor>& lengths = {},
                                    Index blank = 0, Site site = {});

/// The options of ctc_beam.
struct CtcBeamOptions {
  Index beams = 16;  ///< how many sequences are kept after each step
  Index blank = 0;
};
/// The most probable label sequences, best first, by a prefix beam search (Graves, 2012; Hannun et
/// al., 2014), which adds up the paths that give the same labels. A probability is that of the
/// paths within the beam, so it is at most that of ctc_loss, and equal to it if no sequence was
/// dropped. At most `beams` sequences, none of probability 0. Throws ValueError unless `beams` is
/// positive.
std::vector<std::vector<CtcSequence>> ctc_beam(const Tensor& logits,
                                               const std::optional<Tensor>& lengths = {},
                                               const CtcBeamOptions& options = {}, Site site = {});

}  // namespace reel::nn
