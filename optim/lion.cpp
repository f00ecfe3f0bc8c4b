#include <reel/optim/lion.h>

namespace reel::optim {

Lion::Lion(const nn::ModuleParams& params, const LionOptions& options)
    : Optimizer("lion", params, common_of(options),
                {{"beta1", options.beta1, 1}, {"beta2", options.beta2, 1}}, {{"m"}},
                Decay::decoupled),
      options_(options) {}

void Lion::update(const Piece& piece) const {
  const double lr = piece.learning_rate, beta1 = options_.beta1, beta2 = options_.beta2;
  each<1>(piece, [=]<class T>(T& p, T g, T& m) {
    const T d = T(beta1) * m + T(1 - beta1) * g;
    p -= T(lr) * (d > 0 ? T(1) : d < 0 ? T(-1) : d);  // NaN stays, and can be found
    m = T(beta2) * m + T(1 - beta2) * g;
  });
}

}  // namespace reel::optim
