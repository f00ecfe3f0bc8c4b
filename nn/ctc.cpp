#include <reel/nn/ctc.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include <reel/autograd/ops.h>
#include <reel/autograd/ops/check_lengths.h>

namespace reel::nn {
namespace {

constexpr double log_zero = -std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
  const double largest = std::max(a, b);
  return largest == log_zero ? log_zero : largest + std::log1p(std::exp(-std::abs(a - b)));
}

// Log-probabilities of a batch.
class Batch {
 public:
  Batch(const Tensor& logits, const std::optional<Tensor>& lengths, Index blank, const char* op,
        Site site) {
    if (!logits.defined()) throw ValueError(fmt::format("{}: logits are undefined", op), site);
    if (logits.rank() != 3 || logits.size(2) == 0)
      throw ShapeError(fmt::format("{}: the logits must be [T, B, V] with symbols; they are {} {}",
                                   op, name_of(logits.dtype()), logits.shape().str()),
                       site);
    if (blank < 0 || blank >= logits.size(2))
      throw ValueError(fmt::format("{}: the blank {} is not among the {} symbols (0 to {})", op,
                                   blank, logits.size(2), logits.size(2) - 1),
                       site);
    lengths_ = given_lengths(lengths, "lengths", logits, "logits", op, site);
    log_p_ = log_softmax(logits.detach().to(f64), -1, site);
    for (Index b = 0; b < rows(); ++b)
      for (Index t = 0; t < length(b); ++t)
        if (std::ranges::any_of(at(t, b), [](double x) { return std::isnan(x); }))
          throw ValueError(fmt::format("{}: the logits at step {} of row {} are no distribution: "
                                       "one is NaN, or all are -inf",
                                       op, t, b),
                           site);
  }

  Index rows() const { return log_p_.size(1); }
  Index length(Index b) const {
    return lengths_.defined() ? lengths_.values<std::int32_t>()[static_cast<std::size_t>(b)]
                              : log_p_.size(0);
  }
  std::span<const double> at(Index t, Index b) const {
    const Index symbols = log_p_.size(2);
    return log_p_.values<double>().subspan(static_cast<std::size_t>((t * rows() + b) * symbols),
                                           static_cast<std::size_t>(symbols));
  }

 private:
  Tensor log_p_, lengths_;
};

// The label sequences of a search, as a tree: each is another one and a last label.
class Prefixes {
 public:
  static constexpr std::int32_t root = 0, none = -1;

  explicit Prefixes(Index symbols) : symbols_(static_cast<std::uint64_t>(symbols)) {}

  std::int32_t last(std::int32_t prefix) const { return node(prefix).label; }
  /// `none` if there is no such prefix yet.
  std::int32_t find(std::int32_t parent, std::int32_t label) const {
    const auto found = children_.find(key(parent, label));
    return found == children_.end() ? none : found->second;
  }
  std::int32_t extended(std::int32_t parent, std::int32_t label) {
    const auto found = children_.try_emplace(key(parent, label), std::ssize(nodes_));
    if (found.second) nodes_.push_back({parent, label});
    return found.first->second;
  }
  std::vector<std::int32_t> labels(std::int32_t prefix) const {
    std::vector<std::int32_t> result;
    for (; prefix != root; prefix = node(prefix).parent) result.push_back(last(prefix));
    std::ranges::reverse(result);
    return result;
  }

 private:
  struct Node {
    std::int32_t parent, label;
  };
  const Node& node(std::int32_t prefix) const { return nodes_[static_cast<std::size_t>(prefix)]; }
  std::uint64_t key(std::int32_t parent, std::int32_t label) const {
    return static_cast<std::uint64_t>(parent) * symbols_ + static_cast<std::uint64_t>(label);
  }

  std::uint64_t symbols_;
  std::vector<Node> nodes_{{none, none}};
  std::unordered_map<std::uint64_t, std::int32_t> children_;
};

// A prefix, and the log-probabilities of its paths that end with a blank, that end with its last
// label, and of both. One that is not in the tree yet has a label to be added to `prefix`.
struct Beam {
  std::int32_t prefix, added;
  double blank, label, total;
};

class BeamSearch {
 public:
  BeamSearch(Index symbols, const CtcBeamOptions& options)
      : prefixes_(symbols),
        most_(static_cast<std::size_t>(options.beams)),
        blank_(static_cast<std::int32_t>(options.blank)),
        beams_{{Prefixes::root, Prefixes::none, 0, log_zero, 0}} {}

  void step(std::span<const double> log_p) {
    next_.clear();
    place_of_.clear();
    for (const Beam& beam : beams_) {
      const std::int32_t last = prefixes_.last(beam.prefix);
      place_of_.emplace(beam.prefix, next_.size());
      next_.push_back({beam.prefix, Prefixes::none, beam.total + at(log_p, blank_),
                       last == Prefixes::none ? log_zero : beam.label + at(log_p, last), 0});
    }
    for (const Beam& beam : beams_)
      for (std::int32_t symbol = 0; symbol < std::ssize(log_p); ++symbol)
        if (symbol != blank_) extend(beam, symbol, at(log_p, symbol));
    keep_best();
  }

  std::vector<CtcSequence> result() const {
    std::vector<CtcSequence> sequences;
    for (const Beam& beam : beams_)
      sequences.push_back({prefixes_.labels(beam.prefix), beam.total});
    return sequences;
  }

 private:
  static double at(std::span<const double> log_p, std::int32_t symbol) {
    return log_p[static_cast<std::size_t>(symbol)];
  }

  // A label that repeats the last one is another label only after a blank.
  void extend(const Beam& beam, std::int32_t symbol, double log_p) {
    const bool repeats = symbol == prefixes_.last(beam.prefix);
    const double probability = (repeats ? beam.blank : beam.total) + log_p;
    if (probability == log_zero) return;
    const auto there = place_of_.find(prefixes_.find(beam.prefix, symbol));
    if (there == place_of_.end()) {
      next_.push_back({beam.prefix, symbol, log_zero, probability, 0});
    } else {
      double& label = next_[there->second].label;
      label = log_add(label, probability);
    }
  }

  void keep_best() {
    for (Beam& beam : next_) beam.total = log_add(beam.blank, beam.label);
    std::erase_if(next_, [](const Beam& beam) { return beam.total == log_zero; });
    std::ranges::stable_sort(next_, std::greater(), &Beam::total);
    if (next_.size() > most_) next_.resize(most_);
    for (Beam& beam : next_)
      if (beam.added != Prefixes::none) {
        beam.prefix = prefixes_.extended(beam.prefix, beam.added);
        beam.added = Prefixes::none;
      }
    std::swap(beams_, next_);
  }

  Prefixes prefixes_;
  std::size_t most_;
  std::int32_t blank_;
  std::vector<Beam> beams_, next_;
  std::unordered_map<std::int32_t, std::size_t> place_of_;  // of the prefixes before the step
};

}  // namespace

std::vector<CtcSequence> ctc_greedy(const Tensor& logits, const std::optional<Tensor>& lengths,
                                    Index blank, Site site) {
  const Batch batch(logits, lengths, blank, "ctc_greedy", site);
  std::vector<CtcSequence> result;
  for (Index b = 0; b < batch.rows(); ++b) {
    CtcSequence& sequence = result.emplace_back();
    sequence.log_probability = 0;
    auto last = static_cast<std::ptrdiff_t>(blank);
    for (Index t = 0; t < batch.length(b); ++t) {
      const auto log_p = batch.at(t, b);
      const auto best = std::ranges::max_element(log_p) - log_p.begin();
      sequence.log_probability += log_p[static_cast<std::size_t>(best)];
      if (best != last && best != blank) sequence.labels.push_back(static_cast<std::int32_t>(best));
      last = best;
    }
  }
  return result;
}

std::vector<std::vector<CtcSequence>> ctc_beam(const Tensor& logits,
                                               const std::optional<Tensor>& lengths,
                                               const CtcBeamOptions& options, Site site) {
  const Batch batch(logits, lengths, options.blank, "ctc_beam", site);
  if (options.beams <= 0)
    throw ValueError(fmt::format("ctc_beam: beams must be positive, not {}", options.beams), site);
  std::vector<std::vector<CtcSequence>> result;
  for (Index b = 0; b < batch.rows(); ++b) {
    BeamSearch search(logits.size(2), options);
    for (Index t = 0; t < batch.length(b); ++t) search.step(batch.at(t, b));
    result.push_back(search.result());
  }
  return result;
}

}  // namespace reel::nn
