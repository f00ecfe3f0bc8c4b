#include <reel/optim/adam.h>

#include <algorithm>
#include <cmath>

namespace reel::optim {

Adam::Adam(const nn::ModuleParams& params, const AdamOptions& options)
    : Adam("adam", params, options, Decay::coupled) {}

Adam::Adam(std::string name, const nn::ModuleParams& params, const AdamOptions& options,
           Decay decay)
    : Optimizer(
          std::move(name), params, common_of(options),
          {{"beta1", options.beta1, 1}, {"beta2", options.beta2, 1}, {"epsilon", options.epsilon}},
          options.amsgrad ? std::vector<Moment>{{"m"}, {"v", 0}, {"v_max", 0}}
                          : std::vector<Moment>{{"m"}, {"v", 0}},
          decay),
      options_(options) {
  check_epsilon(options.epsilon, options.beta2);
}

void Adam::update(const Piece& piece) const {
  const double beta1 = options_.beta1, beta2 = options_.beta2, epsilon = options_.epsilon;
  const double rate = piece.learning_rate / (1 - std::pow(beta1, piece.slot.steps));
  const double scale = std::sqrt(1 - std::pow(beta2, piece.slot.steps));
  const auto formula = [=]<class T>(T& p, T g, T& m, T& v, auto&... v_max) {
    m = T(beta1) * m + T(1 - beta1) * g;
    v = T(beta2) * v + T(1 - beta2) * g * g;
    T square = v;
    ((square = v_max = std::max(v_max, v)), ...);
    p -= T(rate) * m / (std::sqrt(square) / T(scale) + T(epsilon));
  };
  options_.amsgrad ? each<3>(piece, formula) : each<2>(piece, formula);
}

}  // namespace reel::optim
