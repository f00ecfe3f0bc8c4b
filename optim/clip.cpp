#include <reel/optim/clip.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace reel::optim {

double clip_by_norm(Gradients& gradients, Arg<double> max_norm, Site site) {
  if (!(max_norm > 0))
    throw ValueError(
        fmt::format("clip_by_norm: max_norm is {}, but has to be positive", double(max_norm)),
        site);
  const double norm = gradients.norm();
  const double factor = max_norm / (norm + std::min(1e-6, 1e-5 * norm));
  if (std::isfinite(norm) && factor < 1) gradients *= factor;
  return norm;
}

void clip_by_value(Gradients& gradients, Arg<double> limit, Site site) {
  if (!(limit > 0))
    throw ValueError(
        fmt::format("clip_by_value: limit is {}, but has to be positive", double(limit)), site);
  gradients.each([&](const std::shared_ptr<ParamEntry>&, Tensor& gradient) {
    dispatch_real(gradient.dtype(), [&]<class T>() {
      for (T& g : gradient.begin_update<T>()) g = std::clamp(g, T(-limit), T(limit));
    });
  });
}

}  // namespace reel::optim
