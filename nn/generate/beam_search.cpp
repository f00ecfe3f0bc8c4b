#include <reel/nn/generate/beam_search.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include <reel/autograd/error.h>
#include <reel/nn/generate/logits.h>
#include <reel/nn/generate/prompts.h>

namespace reel::nn::detail {
namespace {

void check_options(const BeamOptions& options, Site site) {
  if (options.beams <= 0)
    throw ValueError(fmt::format("beam_search: beams must be positive, not {}", options.beams),
                     site);
  if (options.best <= 0 || options.best > options.beams)
    throw ValueError(fmt::format("beam_search: best is {}, not from 1 to the number of beams, {}",
                                 options.best, options.beams),
                     site);
  if (!(options.length_penalty >= 0 && std::isfinite(options.length_penalty)))
    throw ValueError(fmt::format("beam_search: length_penalty is {}, not a finite number >= 0",
                                 options.length_penalty),
                     site);
}

// Leaves the first `count` in the order of `before`.
template <class T, class Before>
void keep_first(std::vector<T>& all, Index count, Before before) {
  const auto end = all.begin() + std::min(count, std::ssize(all));
  std::partial_sort(all.begin(), end, all.end(), before);
  all.erase(end, all.end());
}

}  // namespace

Beams::Beams(const Prompts& prompts, const BeamOptions& options, Site site)
    : options_(options), site_(site), finished_(prompts.size()) {
  check_prompts("beam_search", prompts, options.max_length, options.end, site);
  check_options(options, site);
  for (const auto& prompt : prompts) {
    prompt_lengths_.push_back(prompt.size());
    live_.push_back({live_.size(), prompt});
  }
}

Tensor Beams::input() const {
  std::vector<std::int32_t> tokens;
  for (const Live& live : live_) tokens.push_back(live.tokens[live.read]);
  return tensor({std::ssize(tokens)}, tokens);
}

Tensor Beams::take(const Tensor& logits) {
  const Index count = std::ssize(live_);
  check_logits("beam_search", logits, count, site_);
  check_end("beam_search", options_.end, logits, site_);
  for (Live& live : live_) ++live.read;
  Next next;
  for (Index begin = 0, end = 0; begin < count; begin = end) {
    const auto first = live_.begin() + begin;
    end = std::find_if(first, live_.end(), [&](const Live& l) { return l.row != first->row; }) -
          live_.begin();
    if (first->read < first->tokens.size()) {  // within the prompt
      next.parents.push_back(static_cast<std::int32_t>(begin));
      next.live.push_back(*first);
    } else {
      advance(logits, begin, end, next);
    }
  }
  live_ = std::move(next.live);
  return tensor({std::ssize(next.parents)}, next.parents);
}

// At most one continuation of a hypothesis has the end token, so that among the first 2 · beams
// there are as many as are needed of those that go on.
std::vector<Beams::Candidate> Beams::candidates(const Tensor& logits, Index begin,
                                                Index end) const {
  const auto before = [](const Candidate& a, const Candidate& b) {
    if (a.log_probability != b.log_probability) return a.log_probability > b.log_probability;
    return a.parent != b.parent ? a.parent < b.parent : a.token < b.token;
  };
  std::vector<Candidate> all, own;
  for (Index parent = begin; parent < end; ++parent) {
    const LogitRow x = logit_row("beam_search", logits, parent, site_);
    const double before_it = live_[static_cast<std::size_t>(parent)].log_probability;
    const double sum = log_sum_exp(x);
    own.clear();
    for (std::size_t i = 0; i < x.size(); ++i)
      if (x[i] > -std::numeric_limits<double>::infinity())
        own.push_back({before_it + (x[i] - sum), parent, static_cast<std::int32_t>(i)});
    keep_first(own, 2 * options_.beams, before);
    all.insert(all.end(), own.begin(), own.end());
  }
  keep_first(all, 2 * options_.beams, before);
  return all;
}

void Beams::advance(const Tensor& logits, Index begin, Index end, Next& next) {
  const std::size_t row = live_[static_cast<std::size_t>(begin)].row;
  const std::size_t earlier = next.live.size();
  Index rank = 0;
  for (const Candidate& c : candidates(logits, begin, end)) {
    Live live = live_[static_cast<std::size_t>(c.parent)];
    live.tokens.push_back(c.token);
    live.log_probability = c.log_probability;
    const auto length = static_cast<Index>(live.tokens.size() - prompt_length(live));
    const bool ends = c.token == options_.end || length == options_.max_length;
    if (ends && rank < options_.beams) finish(live);
    if (!ends && static_cast<Index>(next.live.size() - earlier) < options_.beams) {
      next.parents.push_back(static_cast<std::int32_t>(c.parent));
      next.live.push_back(std::move(live));
    }
    ++rank;
  }
  if (next.live.size() > earlier && !can_improve(next.live[earlier])) {
    next.live.resize(earlier);
    next.parents.resize(earlier);
  }
  if (next.live.size() == earlier && finished_[row].empty())
    throw ValueError(fmt::format("beam_search: row {} has no continuation: all its logits are "
                                 "-inf, which forbids a symbol",
                                 row),
                     site_);
}

void Beams::finish(const Live& live) {
  const auto prompt = static_cast<std::ptrdiff_t>(prompt_length(live));
  Hypothesis found{{live.tokens.begin() + prompt, live.tokens.end()}, live.log_probability};
  found.score = score(found.log_probability, std::ssize(found.tokens));
  auto& results = finished_[live.row];
  const auto place =
      std::ranges::upper_bound(results, found.score, std::greater<double>{}, &Hypothesis::score);
  results.insert(place, std::move(found));
  if (std::ssize(results) > options_.best) results.pop_back();
}

// Log-probabilities only fall, and the divisor is largest at the maximal length.
bool Beams::can_improve(const Live& best) const {
  const auto& results = finished_[best.row];
  return std::ssize(results) < options_.best ||
         score(best.log_probability, options_.max_length) > results.back().score;
}

double Beams::score(double log_probability, Index length) const {
  return log_probability / std::pow((5 + static_cast<double>(length)) / 6, options_.length_penalty);
}

}  // namespace reel::nn::detail
