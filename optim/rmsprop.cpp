#include <reel/optim/rmsprop.h>

#include <algorithm>
#include <cmath>

namespace reel::optim {
namespace {

template <class Moment>
std::vector<Moment> moments_of(const RmsPropOptions& options) {
  std::vector<Moment> moments = {{"v", 0}};
  if (options.centered) moments.push_back({"a"});
  if (options.momentum != 0) moments.push_back({"m"});
  return moments;
}

}  // namespace

RmsProp::RmsProp(const nn::ModuleParams& params, const RmsPropOptions& options)
    : Optimizer("rmsprop", params, common_of(options),
                {{"alpha", options.alpha, 1},
                 {"epsilon", options.epsilon},
                 {"momentum", options.momentum, 1}},
                moments_of<Moment>(options)),
      options_(options) {
  check_epsilon(options.epsilon, options.alpha);
}

void RmsProp::update(const Piece& piece) const {
  const double lr = piece.learning_rate, alpha = options_.alpha, epsilon = options_.epsilon;
  const double mu = options_.momentum;
  const auto step = [=]<class T>(T g, T square) { return g / (std::sqrt(square) + T(epsilon)); };
  const auto mean = [=]<class T>(T before, T x) { return T(alpha) * before + T(1 - alpha) * x; };
  const auto variance = [=]<class T>(T g, T& v, T& a) {
    v = T(alpha) * v + T(1 - alpha) * g * g;
    a = mean(a, g);
    return std::max(T(0), v - a * a);
  };
  if (options_.centered && mu != 0)
    return each<3>(piece, [=]<class T>(T& p, T g, T& v, T& a, T& m) {
      m = T(mu) * m + step(g, variance(g, v, a));
      p -= T(lr) * m;
    });
  if (options_.centered)
    return each<2>(
        piece, [=]<class T>(T& p, T g, T& v, T& a) { p -= T(lr) * step(g, variance(g, v, a)); });
  if (mu != 0)
    return each<2>(piece, [=]<class T>(T& p, T g, T& v, T& m) {
      v = T(alpha) * v + T(1 - alpha) * g * g;
      m = T(mu) * m + step(g, v);
      p -= T(lr) * m;
    });
  each<1>(piece, [=]<class T>(T& p, T g, T& v) {
    v = T(alpha) * v + T(1 - alpha) * g * g;
    p -= T(lr) * step(g, v);
  });
}

}  // namespace reel::optim
