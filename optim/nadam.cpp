#include <reel/optim/nadam.h>

#include <cmath>

namespace reel::optim {

NAdam::NAdam(const nn::ModuleParams& params, const NAdamOptions& options)
    : Optimizer("nadam", params, common_of(options),
                {{"beta1", options.beta1, 1},
                 {"beta2", options.beta2, 1},
                 {"epsilon", options.epsilon},
                 {"momentum_decay", options.momentum_decay}},
                {{"m"},
                 {"v", 0},
                 {.name = "mu_product", .least = 0, .initial = 1, .extent = Extent::scalar}},
                options.decoupled ? Decay::decoupled : Decay::coupled),
      options_(options) {
  check_epsilon(options.epsilon, options.beta2);
}

double NAdam::mu(double step) const {
  return options_.beta1 * (1 - 0.5 * std::pow(0.96, step * options_.momentum_decay));
}

void NAdam::begin(Slot& slot, const Tensor&, double) const {
  Tensor& product = slot.moments[2];
  product = scalar(product.item() * mu(slot.steps), f64);
}

void NAdam::update(const Piece& piece) const {
  const double beta1 = options_.beta1, beta2 = options_.beta2, epsilon = options_.epsilon;
  const double t = piece.slot.steps, product = piece.slot.moments[2].item();
  const double of_gradient = piece.learning_rate * (1 - mu(t)) / (1 - product);
  const double of_mean = piece.learning_rate * mu(t + 1) / (1 - product * mu(t + 1));
  const double correction = 1 - std::pow(beta2, t);
  each<2>(piece, [=]<class T>(T& p, T g, T& m, T& v) {
    m = T(beta1) * m + T(1 - beta1) * g;
    v = T(beta2) * v + T(1 - beta2) * g * g;
    p -= (T(of_gradient) * g + T(of_mean) * m) / (std::sqrt(v / T(correction)) + T(epsilon));
  });
}

}  // namespace reel::optim
