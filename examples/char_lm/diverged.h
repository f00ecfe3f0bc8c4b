#pragma once

#include <string>
#include <utility>

#include <reel/autograd/error.h>

namespace reel::char_lm {

/// A training that diverged: its message also tells what is saved and what to try.
class Diverged : public Error {
 public:
  Diverged(const std::string& message, std::string how) : Error(message), how_(std::move(how)) {}
  /// "step 12: the loss is nan".
  const std::string& how() const { return how_; }

 private:
  std::string how_;
};

}  // namespace reel::char_lm
