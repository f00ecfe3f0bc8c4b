#include <reel/optim/adadelta.h>

#include <cmath>

namespace reel::optim {

Adadelta::Adadelta(const nn::ModuleParams& params, const AdadeltaOptions& options)
    : Optimizer("adadelta", params, common_of(options),
                {{"rho", options.rho, 1}, {"epsilon", options.epsilon}}, {{"v", 0}, {"u", 0}}),
      options_(options) {
  check_epsilon(options.epsilon);
}

void Adadelta::update(const Piece& piece) const {
  const double lr = piece.learning_rate, rho = options_.rho, epsilon = options_.epsilon;
  each<2>(piece, [=]<class T>(T& p, T g, T& v, T& u) {
    v = T(rho) * v + T(1 - rho) * g * g;
    const T d = std::sqrt(u + T(epsilon)) / std::sqrt(v + T(epsilon)) * g;
    u = T(rho) * u + T(1 - rho) * d * d;
    p -= T(lr) * d;
  });
}

}  // namespace reel::optim
