#pragma once

#include <functional>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/recurrent.h>

/// Sequences in segments, for layers that run over them (SequenceOptions::segment).
namespace reel {

/// Whether the options ask for segments. Throws ValueError, naming the op, for a negative segment
/// length, and for `outputs = false` without segments.
bool in_segments(const SequenceOptions& options, const char* op, Site site = {});

/// Consecutive steps of a sequence.
struct Segment {
  Index first;       ///< its first step in the whole sequence
  Index begin, end;  ///< its steps in the tensor that comes with it
  SequenceOptions
      options;  ///< for a layer that runs over this segment: direction, lengths within it

  /// The steps themselves.
  Tensor of(const Tensor& x) const;
};

/// Calls `f(part, segment)` for the segments of x [T, B, D] in the order in which a layer runs over
/// them; `segment.of(part)` selects its steps. A constant x is passed whole, so that nothing is
/// copied before the steps are used. Throws ValueError, naming the op, for a length outside 0 .. T.
void each_segment(const Tensor& x, const SequenceOptions& options, const char* op, Site site,
                  const std::function<void(const Tensor& part, const Segment& segment)>& f);

/// Joins the outputs of all segments, given in the order in which they ran, in the order of the
/// sequence; undefined if there are none.
Tensor join_segments(Tensors outputs, const SequenceOptions& options);

}  // namespace reel
