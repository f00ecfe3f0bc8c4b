#pragma once

#include <string>
#include <utility>

#include <reel/autograd/error.h>
#include <reel/autograd/shape.h>

namespace reel::char_lm {

/// A training diverged: a loss, a gradient or a parameter is not finite. The message also tells
/// what is saved and what to try.
class Diverged : public Error {
 public:
  Diverged(const std::string& message, std::string how, Index step)
      : Error(message), how_(std::move(how)), step_(step) {}
  /// "the loss is nan".
  const std::string& how() const { return how_; }
  Index step() const { return step_; }

 private:
  std::string how_;
  Index step_;
};

}  // namespace reel::char_lm
