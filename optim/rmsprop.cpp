#include <reel/optim/rmsprop.h>

#include <cmath>

namespace reel::optim {

RmsProp::RmsProp(const nn::ModuleParams& params, const RmsPropOptions& options)
    : Optimizer("rmsprop", params, options.learning_rate,
                {{"alpha", options.alpha, 1},
                 {"epsilon", options.epsilon},
                 {"momentum", options.momentum, 1}},
                options.momentum != 0 ? std::vector<Moment>{{"v", 0}, {"m"}}
                                      : std::vector<Moment>{{"v", 0}}),
      options_(options) {
  check_epsilon(options.epsilon, options.alpha);
}

void RmsProp::update(const Slot& slot, const Tensor& gradient, const Range& piece) const {
  const double lr = learning_rate(), alpha = options_.alpha, epsilon = options_.epsilon;
  const double mu = options_.momentum;
  if (mu == 0)
    return update_each<1>(slot, gradient, piece, [=]<class T>(T& p, T g, T& v) {
      v = T(alpha) * v + T(1 - alpha) * g * g;
      p -= T(lr) * g / (std::sqrt(v) + T(epsilon));
    });
  update_each<2>(slot, gradient, piece, [=]<class T>(T& p, T g, T& v, T& m) {
    v = T(alpha) * v + T(1 - alpha) * g * g;
    m = T(mu) * m + g / (std::sqrt(v) + T(epsilon));
    p -= T(lr) * m;
  });
}

}  // namespace reel::optim
