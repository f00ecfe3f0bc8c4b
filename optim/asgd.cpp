#include <reel/optim/asgd.h>

#include <algorithm>
#include <cmath>

namespace reel::optim {

Asgd::Asgd(const nn::ModuleParams& params, const AsgdOptions& options)
    : Optimizer("asgd", params, common_of(options),
                {{"decay", options.decay}, {"power", options.power}, {"start", options.start}},
                {{"average"}}),
      options_(options) {}

// The average of a row that has no gradient yet is the row.
void Asgd::begin(Slot& slot, const Tensor&, double) const {
  if (slot.steps == 1) slot.moments[0] = slot.param.value().copy();
}

void Asgd::update(const Piece& piece) const {
  const double before = piece.slot.steps - 1;
  const double rate = piece.learning_rate /
                      std::pow(1 + options_.decay * piece.learning_rate * before, options_.power);
  const double kept = 1 - options_.decay * rate;
  const double weight = 1 / std::max(1.0, before - options_.start);
  if (weight == 1)
    return each<1>(piece, [=]<class T>(T& p, T g, T& average) {
      p = T(kept) * p - T(rate) * g;
      average = p;
    });
  each<1>(piece, [=]<class T>(T& p, T g, T& average) {
    p = T(kept) * p - T(rate) * g;
    average += T(weight) * (p - average);
  });
}

}  // namespace reel::optim
