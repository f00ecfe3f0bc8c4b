#include <reel/nn/generate/sample.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <reel/autograd/error.h>
#include <reel/autograd/ops/check_indices.h>
#include <reel/nn/generate/draw.h>

namespace reel::nn {
namespace {

using detail::LogitRow;

// Draws from the symbols in `order`, of which the first are the most probable ones where that
// matters. `largest` is the largest logit.
class Draw {
 public:
  Draw(const LogitRow& logits, const Sampling& sampling, double largest)
      : logits_(logits),
        sampling_(sampling),
        largest_(largest),
        kept_(std::ssize(logits)),
        order_(kept_),
        below_(kept_) {
    std::iota(order_.data(), order_.data() + kept_, 0);
  }

  std::int32_t operator()(Rng& rng) {
    keep_top_k();
    add_up();
    if (sampling_.top_p < 1) kept_ = first_reaching(sampling_.top_p * total()) + 1;
    if (sampling_.min_p > 0) {
      keep_min_p();
      add_up();
    }
    // 1 - u is in (0, 1], so a token of weight 0 is never the first to reach the level.
    return order_[first_reaching((1 - rng.uniform()) * total())];
  }

 private:
  double logit(std::int32_t i) const { return logits_[static_cast<std::size_t>(i)]; }
  // Of the largest logit it is 1.
  double weight(std::int32_t i) const {
    return std::exp((logit(i) - largest_) / sampling_.temperature);
  }
  double total() const { return below_[kept_ - 1]; }
  Index first_reaching(double level) const {
    return std::lower_bound(below_.data(), below_.data() + kept_ - 1, level) - below_.data();
  }

  void keep_top_k() {
    const Index size = kept_;
    if (sampling_.top_k > 0) kept_ = std::min(sampling_.top_k, size);
    if (kept_ == size && sampling_.top_p == 1) return;
    std::partial_sort(order_.data(), order_.data() + kept_, order_.data() + size,
                      [&](std::int32_t a, std::int32_t b) {
                        return logit(a) > logit(b) || (logit(a) == logit(b) && a < b);
                      });
  }
  void keep_min_p() {
    kept_ = std::remove_if(order_.data(), order_.data() + kept_,
                           [&](std::int32_t i) { return !(weight(i) >= sampling_.min_p); }) -
            order_.data();
  }
  void add_up() {
    double sum = 0;
    for (Index i = 0; i < kept_; ++i) below_[i] = sum += weight(order_[i]);
  }

  const LogitRow& logits_;
  const Sampling& sampling_;
  double largest_;
  Index kept_;
  Scratch<std::int32_t> order_;
  Scratch<double> below_;  // cumulative weights
};

void penalise(LogitRow& logits, std::span<const std::int32_t> seen, double penalty) {
  const LogitRow before = logits;
  for (const std::int32_t token : seen) {
    const double x = before[static_cast<std::size_t>(token)];
    logits[static_cast<std::size_t>(token)] = x > 0 ? x / penalty : x * penalty;
  }
}

void check_row(const Tensor& logits, Site site) {
  if (logits.rank() == 0 || logits.size() == 0 || logits.size(-1) != logits.size())
    throw ShapeError(fmt::format("sample: logits have shape {}, not [V] or one row [1, V]",
                                 logits.shape().str()),
                     site);
  if (!is_real(logits.dtype())) throw DTypeError("sample: logits are i32, not f32 or f64", site);
}

}  // namespace

namespace detail {

std::int32_t draw(const char* caller, LogitRow logits, const Sampling& sampling,
                  std::span<const std::int32_t> seen, Rng& rng, Site site) {
  if (sampling.repetition_penalty != 1) {
    check_indices(caller, "seen token", "tokens", seen, std::ssize(logits), {}, site);
    penalise(logits, seen, sampling.repetition_penalty);
  }
  const auto largest = std::ranges::max_element(logits);
  if (*largest == -std::numeric_limits<double>::infinity())
    throw ValueError(
        fmt::format("{}: nothing is left to choose: all {} logits are -inf, which forbids a symbol",
                    caller, logits.size()),
        site);
  if (sampling.temperature == 0) return static_cast<std::int32_t>(largest - logits.begin());
  return Draw(logits, sampling, *largest)(rng);
}

}  // namespace detail

void Sampling::validate(Site site) const {
  if (!(repetition_penalty > 0 && std::isfinite(repetition_penalty)))
    throw ValueError(
        fmt::format("repetition_penalty is {}, not a finite number > 0 (1 changes nothing)",
                    repetition_penalty),
        site);
  if (!(temperature >= 0 && std::isfinite(temperature)))
    throw ValueError(fmt::format("temperature is {}, not a finite number >= 0", temperature), site);
  if (top_k < 0) throw ValueError(fmt::format("top_k is {}, not >= 0 (0 keeps all)", top_k), site);
  if (!(top_p > 0 && top_p <= 1))
    throw ValueError(fmt::format("top_p is {}, not in (0, 1]", top_p), site);
  if (!(min_p >= 0 && min_p <= 1))
    throw ValueError(fmt::format("min_p is {}, not in [0, 1] (0 keeps all)", min_p), site);
}

std::int32_t sample(const Tensor& logits, const Sampling& sampling, Rng& rng, Site site) {
  if (sampling.repetition_penalty != 1)
    throw ValueError("sample: a repetition penalty needs the tokens that were seen; pass them",
                     site);
  return sample(logits, sampling, std::span<const std::int32_t>(), rng, site);
}

std::int32_t sample(const Tensor& logits, const Sampling& sampling,
                    std::span<const std::int32_t> seen, Rng& rng, Site site) {
  sampling.validate(site);
  check_row(logits, site);
  return detail::draw("sample", detail::logit_row("sample", logits, 0, site), sampling, seen, rng,
                      site);
}

Tensor sample(const Tensor& logits, const Sampling& sampling, std::span<Rng> rngs,
              std::span<const std::vector<std::int32_t>> seen, Site site) {
  sampling.validate(site);
  const Index rows = std::ssize(rngs);
  detail::check_logits("sample", logits, rows, site);
  const bool penalised = sampling.repetition_penalty != 1;
  if (std::ssize(seen) != rows && (penalised || !seen.empty()))
    throw ShapeError(
        fmt::format("sample: there are {} lists of seen tokens for {} rows", seen.size(), rows),
        site);
  std::vector<Rng> drawn_from(rngs.begin(), rngs.end());  // so that an error has no effect
  std::vector<std::int32_t> tokens;
  for (Index b = 0; b < rows; ++b) {
    const auto i = static_cast<std::size_t>(b);
    const auto seen_by_row =
        seen.empty() ? std::span<const std::int32_t>() : std::span<const std::int32_t>(seen[i]);
    tokens.push_back(detail::draw("sample", detail::logit_row("sample", logits, b, site), sampling,
                                  seen_by_row, drawn_from[i], site));
  }
  std::ranges::copy(drawn_from, rngs.begin());
  return tensor({rows}, tokens);
}

std::vector<Rng> row_streams(const Rng& rng, Arg<Index> rows, Site site) {
  if (rows < 0) throw ValueError(fmt::format("row_streams: there are {} rows", Index{rows}), site);
  std::vector<Rng> result;
  for (Index b = 0; b < rows; ++b) result.push_back(rng.stream(std::to_string(b)));
  return result;
}

}  // namespace reel::nn
