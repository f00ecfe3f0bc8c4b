#include <reel/autograd/kernels/masks.h>

#include <algorithm>

#include <reel/autograd/kernels/philox.h>

namespace reel::kernels {
namespace {

constexpr std::uint64_t masks = 4, directions = 2, words = 4;

std::uint64_t blocks_of_row(Index units) {
  return (static_cast<std::uint64_t>(units) + words - 1) / words;
}

}  // namespace

std::uint64_t StepOptions::blocks(Index steps, Index rows, Index units) const {
  const bool draws = zoneout_h > 0 || zoneout_c > 0 || update_dropout > 0 || hidden_dropout > 0;
  if (!training || !draws) return 0;
  return static_cast<std::uint64_t>(steps * rows) * directions * masks * blocks_of_row(units);
}

template <Real T>
double Masks<T>::rate(Mask mask) const {
  switch (mask) {
    case Mask::zoneout_h:
      return options_.zoneout_h;
    case Mask::zoneout_c:
      return options_.zoneout_c;
    case Mask::update:
      return options_.update_dropout;
    case Mask::hidden:
      return options_.hidden_dropout;
  }
  return 0;
}

template <Real T>
bool Masks<T>::has(Mask mask) const {
  const bool is_zoneout = mask == Mask::zoneout_h || mask == Mask::zoneout_c;
  return rate(mask) > 0 && (is_zoneout || options_.training);
}

template <Real T>
void Masks<T>::draw(Mask mask, Index t, Index row, Index size, T* to) const {
  const double p = rate(mask);
  const bool is_zoneout = mask == Mask::zoneout_h || mask == Mask::zoneout_c;
  if (!options_.training) {
    std::fill_n(to, size, static_cast<T>(p));
    return;
  }
  const T hit = is_zoneout ? T(1) : T(0);
  const T missed = is_zoneout ? T(0) : static_cast<T>(1 / (1 - p));
  const Index step = mask == Mask::hidden ? 0 : options_.first_step + t;
  const auto place = static_cast<std::uint64_t>(step * rows_ + row);
  const std::uint64_t of_call =
      ((place * directions + direction_) * masks + static_cast<std::uint64_t>(mask)) *
      blocks_of_row(units_);
  const auto threshold = static_cast<std::uint32_t>(p * 0x1p32);
  each_word(options_.rng.seed, options_.rng.stream, options_.rng.position + of_call,
            static_cast<std::size_t>(size),
            [&](std::size_t i, std::uint32_t word) { to[i] = word < threshold ? hit : missed; });
}

template class Masks<float>;
template class Masks<double>;

}  // namespace reel::kernels
