#include <reel/optim/sgd.h>

namespace reel::optim {

Sgd::Sgd(const nn::ModuleParams& params, const SgdOptions& options)
    : Optimizer("sgd", params, options.learning_rate,
                {{"momentum", options.momentum, 1}, {"weight_decay", options.weight_decay}},
                options.momentum != 0 ? std::vector<Moment>{{"m"}} : std::vector<Moment>{},
                options.weight_decay),
      options_(options) {
  if (options.nesterov && options.momentum == 0)
    fail("nesterov needs a momentum; set one, such as 0.9");
}

void Sgd::update(const Slot& slot, const Tensor& gradient, const Range& piece) const {
  const double lr = learning_rate(), mu = options_.momentum, lambda = options_.weight_decay;
  if (mu == 0)
    return update_each<0>(slot, gradient, piece,
                          [=]<class T>(T& p, T g) { p -= T(lr) * (g + T(lambda) * p); });
  if (options_.nesterov)
    return update_each<1>(slot, gradient, piece, [=]<class T>(T& p, T g, T& m) {
      const T decayed = g + T(lambda) * p;
      m = T(mu) * m + decayed;
      p -= T(lr) * (decayed + T(mu) * m);
    });
  update_each<1>(slot, gradient, piece, [=]<class T>(T& p, T g, T& m) {
    m = T(mu) * m + (g + T(lambda) * p);
    p -= T(lr) * m;
  });
}

}  // namespace reel::optim
