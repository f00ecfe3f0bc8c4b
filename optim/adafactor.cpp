#include <reel/optim/adafactor.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

namespace reel::optim {
namespace {

// Divided before it is squared: the sum of squares of large numbers overflows.
Tensor mean_of_squares(const Tensor& x, const Axes& axes, Index count) {
  return sum(square(x * (1 / std::sqrt(static_cast<double>(count)))), axes, true);
}

double rms(const Tensor& x) { return std::sqrt(mean_of_squares(x, {}, x.size()).item()); }

double precision(DType dtype) {
  return dispatch_real(
      dtype, []<class T>() { return static_cast<double>(std::numeric_limits<T>::epsilon()); });
}

}  // namespace

Adafactor::Adafactor(const nn::ModuleParams& params, const AdafactorOptions& options)
    : Optimizer("adafactor", params, common_of(options),
                {{"epsilon", options.epsilon.value_or(1)},
                 {"least_size", options.least_size},
                 {"threshold", options.threshold}},
                {{.name = "rows", .least = 0, .extent = Extent::rows},
                 {.name = "columns", .least = 0, .extent = Extent::columns},
                 {.name = "v", .least = 0, .extent = Extent::vector}},
                Decay::decoupled),
      options_(options) {
  if (!(options.beta2_decay <= 0 && std::isfinite(options.beta2_decay)))
    fail(
        fmt::format("beta2_decay is {}, but has to be 0 or less, and finite", options.beta2_decay));
  if (options.threshold < 1)
    fail(fmt::format("threshold is {}, but has to be 1 or more", options.threshold));
  if (options.epsilon) check_epsilon(*options.epsilon, 0);
  refuse_lazy_rows();
}

void Adafactor::begin(Slot& slot, const Tensor& gradient, double clip) const {
  const NoRecord pause;
  const double epsilon = options_.epsilon.value_or(precision(gradient.dtype()));
  const Tensor g = gradient.detach() * clip;
  const Tensor step = g / maximum(root_mean_square(slot, g, epsilon), epsilon);
  const double rate =
      std::min(learning_rate() * slot.learning_rate_factor, 1 / std::sqrt(slot.steps));
  const double size = std::max(options_.least_size, rms(slot.param.value()));
  slot.direction = step * (size * rate / std::max(1.0, rms(step) / options_.threshold));
}

Tensor Adafactor::root_mean_square(Slot& slot, const Tensor& gradient, double epsilon) const {
  const double weight = std::pow(slot.steps, options_.beta2_decay);
  const auto move = [&](Tensor& moment, const Tensor& mean) {
    moment = (1 - weight) * moment + weight * mean;
  };
  Tensor &rows = slot.moments[0], &columns = slot.moments[1], &v = slot.moments[2];
  if (v.defined()) {
    move(v, square(gradient));
    return sqrt(v);
  }
  move(rows, mean_of_squares(gradient, {-1}, gradient.size(-1)));
  move(columns, mean_of_squares(gradient, {-2}, gradient.size(-2)));
  return sqrt(rows / maximum(mean(rows, {-2}, true), epsilon)) * sqrt(columns);
}

void Adafactor::update(const Piece& piece) const {
  each<0>(of_direction(piece), [](auto& p, auto d) { p -= d; });
}

}  // namespace reel::optim
