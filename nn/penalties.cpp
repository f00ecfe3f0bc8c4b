#include <reel/nn/penalties.h>

#include <fmt/format.h>

#include <cmath>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/sizes.h>

namespace reel::nn {
namespace {

// The tokens of y that are within the lengths, and zeros elsewhere.
struct Real {
  Tensor y, lengths;

  Real(const char* caller, const Tensor& given, double weight, const Tensor& given_lengths) {
    require_sequence(caller, given);
    if (!(weight >= 0 && std::isfinite(weight)))
      throw ValueError(
          fmt::format("{}: the weight must be a finite number >= 0, not {}", caller, weight),
          SiteScope::current());
    SequenceOptions options;
    if (given_lengths.defined()) options.lengths = given_lengths;
    lengths = resolve_lengths(options, given, caller);
    y = with_zero_padding(given, lengths);
  }

  // How many steps rows have, each less by `fewer`.
  double steps(Index fewer) const {
    if (!lengths.defined()) return static_cast<double>((y.size(0) - fewer) * y.size(1));
    double count = 0;
    for (const std::int32_t length : lengths.values<std::int32_t>())
      count += static_cast<double>(std::max<Index>(0, length - fewer));
    return count;
  }
  Tensor mean(const Tensor& squares, double weight, Index fewer) const {
    const double count = steps(fewer) * static_cast<double>(y.size(2));
    return count == 0 ? scalar(0, y.dtype()) : (weight / count) * sum(squares);
  }
};

}  // namespace

Tensor activation_penalty(const Tensor& y, Arg<double> weight, const Tensor& lengths, Site site) {
  const SiteScope scope(site);
  const Real real("activation_penalty", y, weight, lengths);
  return real.mean(square(real.y), weight, 0);
}

Tensor temporal_penalty(const Tensor& y, Arg<double> weight, const Tensor& lengths, Site site) {
  const SiteScope scope(site);
  const Real real("temporal_penalty", y, weight, lengths);
  const Index steps = y.size(0);
  Tensor change = slice(real.y, 0, 1, steps) - slice(real.y, 0, 0, steps - 1);
  // From its last step to the padding a row does not change.
  if (real.lengths.defined()) change = with_zero_padding(change, real.lengths - 1);
  return real.mean(square(change), weight, 1);
}

}  // namespace reel::nn
