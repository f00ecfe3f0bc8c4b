#include <reel/optim/rprop.h>

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace reel::optim {
namespace {

// A size of 0 is that of an element that has made no step, so no other becomes 0.
constexpr double smallest = std::numeric_limits<float>::min();

}  // namespace

Rprop::Rprop(const nn::ModuleParams& params, const RpropOptions& options)
    : Optimizer("rprop", params, common_of(options),
                {{"shrink", options.shrink, 1},
                 {"grow", options.grow},
                 {"least_step", options.least_step},
                 {"greatest_step", options.greatest_step}},
                {{"gradient"}, {"size", 0}}),
      options_(options) {
  if (options.shrink == 0) fail("shrink is 0, but has to be in (0, 1)");
  if (options.grow <= 1)
    fail(fmt::format("grow is {}, but has to be greater than 1", options.grow));
  if (options.least_step < smallest || options.least_step > options.greatest_step)
    fail(fmt::format("least_step is {}, but has to be in [{:.2g}, {}], up to greatest_step",
                     options.least_step, smallest, options.greatest_step));
}

void Rprop::update(const Piece& piece) const {
  const double lr = piece.learning_rate, shrink = options_.shrink, grow = options_.grow;
  const double least = options_.least_step, greatest = options_.greatest_step;
  const auto sign = []<class T>(T x) { return x > 0 ? T(1) : x < 0 ? T(-1) : x; };  // NaN stays
  each<2>(piece, [=]<class T>(T& p, T g, T& before, T& size) {
    const T agreement = sign(g) * sign(before);
    const T factor = agreement > 0 ? T(grow) : agreement < 0 ? T(shrink) : T(1);
    size = std::clamp((size == 0 ? T(lr) : size) * factor, T(least), T(greatest));
    before = agreement < 0 ? T(0) : g;
    p -= size * sign(before);
  });
}

}  // namespace reel::optim
