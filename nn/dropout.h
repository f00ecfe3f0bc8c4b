#pragma once

#include <reel/nn/mode.h>

namespace reel::nn {

/// In training, zeroes each element with probability `rate` and divides the others by 1 - rate;
/// otherwise the identity (Srivastava et al., 2014).
struct Dropout {
  /// Throws ValueError unless 0 <= rate < 1.
  explicit Dropout(Arg<double> rate, Site site = {});

  /// The mode has no default here. Eval with a rate above 0 on a tensor that is being recorded may
  /// be a training step that omits its mode: a note on standard error says so, once per process.
  Tensor operator()(const Tensor& x, const Mode& mode, Site site = {}) const;

  double rate;
};

/// Says once per process, on standard error, that dropout of this rate runs in Eval and drops
/// nothing, if x is being recorded: a forgotten mode trains without dropout, which would otherwise
/// go unnoticed.
void note_eval_while_recorded(double rate, const Tensor& x, Site site = {});

}  // namespace reel::nn
