#pragma once

#include <string>

#include <reel/autograd/check/op_checks.h>

/// Deliberately wrong ops, made from right ones, to test the checks (mutation testing).
namespace reel::testing {
using namespace op;

/// The kind of damage.
enum class Way {
  scaled,      ///< by 1.001, integers by 2
  shifted,     ///< by 0.001, integers by 1
  transposed,  ///< the last axis written as rows; of a vector, the order reversed
  zeroed,
  off_by_one,  ///< every number one place further on, the last one first
  detached,    ///< of a gradient: right, but a constant when it is differentiated
};
inline constexpr Way ways[] = {Way::scaled, Way::shifted,    Way::transposed,
                               Way::zeroed, Way::off_by_one, Way::detached};

/// The damaged part.
enum class Part {
  value,          ///< an output
  gradient,       ///< the gradient of an input, however it is computed
  kernel,         ///< the same, but only in the backward kernel
  specification,  ///< the same, but only in the specification
};
inline constexpr Part parts[] = {Part::value, Part::gradient, Part::kernel, Part::specification};

struct Damage {
  const OpSpec* op;
  Part part;
  int place;  ///< index of the output, or of the input
  Way way;

  std::string str() const;
};

/// Whether an op has such a part.
bool applies(const Damage& damage);

/// A copy of the op with the damage. It is stored in a global variable, so there is only one at a
/// time.
OpSpec damaged(const Damage& damage);

}  // namespace reel::testing
