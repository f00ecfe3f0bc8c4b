#include <reel/optim/adamax.h>

#include <algorithm>
#include <cmath>

namespace reel::optim {

Adamax::Adamax(const nn::ModuleParams& params, const AdamaxOptions& options)
    : Optimizer(
          "adamax", params, common_of(options),
          {{"beta1", options.beta1, 1}, {"beta2", options.beta2, 1}, {"epsilon", options.epsilon}},
          {{"m"}, {"u", 0}}),
      options_(options) {
  check_epsilon(options.epsilon);
}

void Adamax::update(const Piece& piece) const {
  const double beta1 = options_.beta1, beta2 = options_.beta2, epsilon = options_.epsilon;
  const double rate = piece.learning_rate / (1 - std::pow(beta1, piece.slot.steps));
  each<2>(piece, [=]<class T>(T& p, T g, T& m, T& u) {
    m = T(beta1) * m + T(1 - beta1) * g;
    u = std::max(T(beta2) * u, std::abs(g) + T(epsilon));
    p -= T(rate) * m / u;
  });
}

}  // namespace reel::optim
