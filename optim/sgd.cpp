#include <reel/optim/sgd.h>

#include <fmt/format.h>

namespace reel::optim {

Sgd::Sgd(const nn::ModuleParams& params, const SgdOptions& options)
    : Optimizer("sgd", params, common(options),
                {{"momentum", options.momentum, 1}, {"dampening", options.dampening}},
                options.momentum != 0 ? std::vector<Moment>{{"m"}} : std::vector<Moment>{}),
      options_(options) {
  if (options.dampening > 1)
    fail(fmt::format("dampening is {}, but has to be at most 1", options.dampening));
  if (options.nesterov && (options.momentum == 0 || options.dampening != 0))
    fail("nesterov needs a momentum, such as 0.9, and no dampening");
}

Optimizer::Common Sgd::common(const SgdOptions& options) {
  Common common = common_of(options);
  common.keeps_at_zero = options.momentum == 0;
  return common;
}

void Sgd::update(const Piece& piece) const {
  const double lr = piece.learning_rate, mu = options_.momentum;
  const double weight = piece.slot.steps == 1 ? 1 : 1 - options_.dampening;
  if (mu == 0) return each<0>(piece, [=]<class T>(T& p, T g) { p -= T(lr) * g; });
  if (options_.nesterov)
    return each<1>(piece, [=]<class T>(T& p, T g, T& m) {
      m = T(mu) * m + g;
      p -= T(lr) * (g + T(mu) * m);
    });
  each<1>(piece, [=]<class T>(T& p, T g, T& m) {
    m = T(mu) * m + T(weight) * g;
    p -= T(lr) * m;
  });
}

}  // namespace reel::optim
