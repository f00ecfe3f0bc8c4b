#include <reel/optim/adagrad.h>

#include <cmath>

namespace reel::optim {

Adagrad::Adagrad(const nn::ModuleParams& params, const AdagradOptions& options)
    : Optimizer("adagrad", params, common_of(options),
                {{"learning_rate_decay", options.learning_rate_decay},
                 {"initial_sum", options.initial_sum},
                 {"epsilon", options.epsilon}},
                {{.name = "v", .least = 0, .initial = options.initial_sum}}),
      options_(options) {
  check_epsilon(options.epsilon, 0);
}

void Adagrad::update(const Piece& piece) const {
  const double epsilon = options_.epsilon;
  const double rate =
      piece.learning_rate / (1 + (piece.slot.steps - 1) * options_.learning_rate_decay);
  each<1>(piece, [=]<class T>(T& p, T g, T& v) {
    v += g * g;
    p -= T(rate) * g / (std::sqrt(v) + T(epsilon));
  });
}

}  // namespace reel::optim
