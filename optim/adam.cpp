#include <reel/optim/adam.h>

#include <cmath>

namespace reel::optim {

Adam::Adam(const nn::ModuleParams& params, const AdamOptions& options)
    : Adam("adam", params, options, 0) {}

Adam::Adam(std::string name, const nn::ModuleParams& params, const AdamOptions& options,
           double decoupled_decay)
    : Optimizer(std::move(name), params, options.learning_rate,
                {{"beta1", options.beta1, 1},
                 {"beta2", options.beta2, 1},
                 {"epsilon", options.epsilon},
                 {"weight_decay", options.weight_decay},
                 {"weight_decay", decoupled_decay}},
                {{"m"}, {"v", 0}}, options.weight_decay),
      options_(options),
      decoupled_decay_(decoupled_decay) {
  check_epsilon(options.epsilon, options.beta2);
}

void Adam::update(const Slot& slot, const Tensor& gradient, const Range& piece) const {
  const double beta1 = options_.beta1, beta2 = options_.beta2, epsilon = options_.epsilon;
  const double rate = learning_rate() / (1 - std::pow(beta1, slot.steps));
  const double scale = std::sqrt(1 - std::pow(beta2, slot.steps));
  const double kept = 1 - learning_rate() * decoupled_decay_, lambda = options_.weight_decay;
  const auto formula = [=]<class T>(T& p, T g, T& m, T& v) {
    m = T(beta1) * m + T(1 - beta1) * g;
    v = T(beta2) * v + T(1 - beta2) * g * g;
    p = T(kept) * p - T(rate) * m / (std::sqrt(v) / T(scale) + T(epsilon));
  };
  if (lambda == 0) return update_each<2>(slot, gradient, piece, formula);
  update_each<2>(slot, gradient, piece,
                 [=]<class T>(T& p, T g, T& m, T& v) { formula(p, g + T(lambda) * p, m, v); });
}

}  // namespace reel::optim
