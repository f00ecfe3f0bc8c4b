#include <reel/optim/radam.h>

#include <cmath>

namespace reel::optim {

RAdam::RAdam(const nn::ModuleParams& params, const RAdamOptions& options)
    : Optimizer(
          "radam", params, common_of(options),
          {{"beta1", options.beta1, 1}, {"beta2", options.beta2, 1}, {"epsilon", options.epsilon}},
          {{"m"}, {"v", 0}}, options.decoupled ? Decay::decoupled : Decay::coupled),
      options_(options) {
  check_epsilon(options.epsilon, options.beta2);
}

void RAdam::update(const Piece& piece) const {
  const double beta1 = options_.beta1, beta2 = options_.beta2, epsilon = options_.epsilon;
  const double t = piece.slot.steps, correction = 1 - std::pow(beta2, t);
  const double rate = piece.learning_rate / (1 - std::pow(beta1, t));
  const double r = 2 / (1 - beta2) - 1, r_t = r - 2 * t * std::pow(beta2, t) / correction;
  const auto moments = [=]<class T>(T g, T& m, T& v) {
    m = T(beta1) * m + T(1 - beta1) * g;
    v = T(beta2) * v + T(1 - beta2) * g * g;
  };
  if (!(r_t > 5))
    return each<2>(piece, [=]<class T>(T& p, T g, T& m, T& v) {
      moments(g, m, v);
      p -= T(rate) * m;
    });
  const double rectified =
      rate * std::sqrt((r_t - 4) * (r_t - 2) * r / ((r - 4) * (r - 2) * r_t) * correction);
  each<2>(piece, [=]<class T>(T& p, T g, T& m, T& v) {
    moments(g, m, v);
    p -= T(rectified) * m / (std::sqrt(v) + T(epsilon));
  });
}

}  // namespace reel::optim
