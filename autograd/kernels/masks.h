#pragma once

#include <limits>

#include <reel/autograd/rng.h>

// What a recurrent layer drops at random. Masks are never stored: a row of them is a function of
// the generator's state, the place in the batch and the unit, so the backward pass draws it again,
// and no bit depends on how rows are split, sorted or packed.
namespace reel::kernels {

/// What a call does to the states beside the equations of its cell.
struct StepOptions {
  double zoneout_h = 0;       ///< the probability that a number of h keeps its value
  double zoneout_c = 0;       ///< the same for the other states
  double update_dropout = 0;  ///< of what a step adds to the state
  double hidden_dropout = 0;  ///< of h in the products, with one mask for a sequence
  /// The cell state stays between -bound and bound.
  double cell_bound = std::numeric_limits<double>::infinity();
  bool training = false;  ///< if not, zoneout mixes by its probability, and nothing is dropped
  Rng::State rng = {};
  Index first_step = 0;     ///< the step of a longer sequence at which this one begins
  int first_direction = 0;  ///< the direction of a layer that is the first of this call

  /// How much of the generator a call uses.
  std::uint64_t blocks(Index steps, Index rows, Index units) const;
};

enum class Mask { zoneout_h, zoneout_c, update, hidden };

/// The masks of one direction of a call.
template <Real T>
class Masks {
 public:
  Masks(const StepOptions& options, Index rows, Index units, std::size_t direction)
      : options_(options),
        rows_(rows),
        units_(units),
        direction_(direction + static_cast<std::size_t>(options.first_direction)) {}

  /// Whether there is such a mask.
  bool has(Mask mask) const;
  bool zoneout() const { return has(Mask::zoneout_h) || has(Mask::zoneout_c); }
  static Mask zoneout_of(std::size_t state) {
    return state == 0 ? Mask::zoneout_h : Mask::zoneout_c;
  }
  /// The `size` numbers of a row of step t: for zoneout the share of the old value, for dropout 0
  /// or 1 / (1 - rate). The mask of h in the products is the same at all steps.
  void draw(Mask mask, Index t, Index row, Index size, T* to) const;

 private:
  double rate(Mask mask) const;

  const StepOptions& options_;
  Index rows_, units_;
  std::size_t direction_;
};

/// A state under zoneout. What is not taken has no effect, even if it is infinite.
template <Real T>
[[gnu::always_inline]] inline T zoned_out(T share, T before, T after) {
  return share == 0 ? after : share == 1 ? before : share * before + (1 - share) * after;
}
/// part · g, 0 where the part is 0.
template <Real T>
[[gnu::always_inline]] inline T part_of(T part, T g) {
  return part == 0 ? T(0) : part * g;
}

}  // namespace reel::kernels
