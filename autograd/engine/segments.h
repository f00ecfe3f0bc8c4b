#pragma once

#include <functional>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/recurrent.h>

/// Sequences in segments, for layers that run over them (SequenceOptions::segment).
namespace reel {

/// Whether the options ask for segments. Throws ValueError, naming the op, for a negative length of
/// segments, and for `outputs = false` without any.
bool in_segments(const SequenceOptions& options, const char* op, Site site = {});

/// Consecutive steps of a sequence.
struct Segment {
  Index first;              ///< the step of the whole sequence that it begins with
  Index begin, end;         ///< its steps in the tensor that comes with it
  SequenceOptions options;  ///< for a layer that runs over them alone: direction, lengths within

  /// The steps themselves.
  Tensor of(const Tensor& x) const;
};

/// Calls `f(part, segment)` for the segments of x [T, B, D] in the order in which a layer runs over
/// them; `segment.of(part)` are the steps. A constant x is passed whole, so that nothing is copied
/// before the steps are used. Throws ValueError, naming the op, for a length outside 0 .. T.
void each_segment(const Tensor& x, const SequenceOptions& options, const char* op, Site site,
                  const std::function<void(const Tensor& part, const Segment& segment)>& f);

/// The outputs of all segments, from the order in which they ran to that of the sequence; undefined
/// where there are none.
Tensor join_segments(Tensors outputs, const SequenceOptions& options);

}  // namespace reel
