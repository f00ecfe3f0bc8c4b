#include <reel/nn/generate/sample.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <reel/autograd/error.h>

namespace reel::nn {
namespace {

// The logits; -infinity means that a symbol is forbidden.
template <class T>
std::span<const T> checked_row(const Tensor& logits, Site site) {
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const std::span<const T> row = logits.values<T>();
  for (std::size_t i = 0; i < row.size(); ++i)
    if (!(row[i] < infinity))
      throw ValueError(fmt::format("sample: logit {} is {}; the model has diverged", i, row[i]),
                       site);
  if (std::ranges::all_of(row, [](T x) { return x == -infinity; }))
    throw ValueError(
        fmt::format(
            "sample: nothing is left to choose: all {} logits are -inf, which forbids a symbol",
            row.size()),
        site);
  return row;
}

template <class T>
std::int32_t draw(std::span<const T> logits, const Sampling& sampling, Rng& rng) {
  const auto largest = std::ranges::max_element(logits);
  if (sampling.temperature == 0) return static_cast<std::int32_t>(largest - logits.begin());

  const auto size = static_cast<Index>(logits.size());
  const auto logit = [&](std::int32_t i) { return logits[static_cast<std::size_t>(i)]; };
  Scratch<std::int32_t> order(size);
  std::iota(order.data(), order.data() + size, 0);
  Index kept = sampling.top_k > 0 ? std::min(sampling.top_k, size) : size;
  if (kept < size || sampling.top_p < 1)
    std::partial_sort(order.data(), order.data() + kept, order.data() + size,
                      [&](std::int32_t a, std::int32_t b) {
                        return logit(a) > logit(b) || (logit(a) == logit(b) && a < b);
                      });

  Scratch<double> below(kept);  // cumulative weights
  double total = 0;
  for (Index i = 0; i < kept; ++i)
    below[i] = total +=
        std::exp((static_cast<double>(logit(order[i])) - static_cast<double>(*largest)) /
                 sampling.temperature);
  const auto first_reaching = [&](double level) {
    return std::lower_bound(below.data(), below.data() + kept - 1, level) - below.data();
  };
  if (sampling.top_p < 1) {
    kept = first_reaching(sampling.top_p * total) + 1;
    total = below[kept - 1];
  }
  // 1 - u is in (0, 1], so a token of weight 0 is never the first to reach the level.
  return order[first_reaching((1 - rng.uniform()) * total)];
}

}  // namespace

void Sampling::validate(Site site) const {
  if (!(temperature >= 0 && std::isfinite(temperature)))
    throw ValueError(fmt::format("temperature is {}, not a finite number >= 0", temperature), site);
  if (top_k < 0) throw ValueError(fmt::format("top_k is {}, not >= 0 (0 keeps all)", top_k), site);
  if (!(top_p > 0 && top_p <= 1))
    throw ValueError(fmt::format("top_p is {}, not in (0, 1]", top_p), site);
}

std::int32_t sample(const Tensor& logits, const Sampling& sampling, Rng& rng, Site site) {
  sampling.validate(site);
  if (logits.rank() == 0 || logits.size() == 0 || logits.size(-1) != logits.size())
    throw ShapeError(fmt::format("sample: logits have shape {}, not [V] or one row [1, V]",
                                 logits.shape().str()),
                     site);
  if (!is_real(logits.dtype())) throw DTypeError("sample: logits are i32, not f32 or f64", site);
  return dispatch_real(
      logits.dtype(), [&]<class T>() { return draw(checked_row<T>(logits, site), sampling, rng); });
}

}  // namespace reel::nn
