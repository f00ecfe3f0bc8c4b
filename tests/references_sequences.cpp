// The losses of label sequences, by recursions from the last step to the first, where the kernels
// run from the first to the last.
#include <algorithm>
#include <cmath>
#include <functional>

#include <reel/autograd/sequence_losses.h>

#include "references.h"

namespace reel::testing {
namespace {

struct CrfAttr {
  CrfReduction reduction;
};
struct CtcAttr {
  std::int32_t blank;
  bool skip_impossible;
  LossReduction reduction;
};

using Numbers = std::vector<double>;

// ln Σ eˣ
double log_sum(const Numbers& x) {
  double largest = -INFINITY, sum = 0;
  for (const double value : x) largest = value > largest ? value : largest;
  const double shift = largest == -INFINITY ? 0 : largest;
  for (const double value : x) sum += std::exp(value - shift);
  return shift + std::log(sum);
}

double& at(Numbers& x, Index i) { return x[static_cast<std::size_t>(i)]; }

// The scores of a CRF.
struct Chain {
  const Array &x, &transitions, &begin, &end, &lengths;
  Index steps, rows, k;

  Chain(const Arrays& in, const Array& lengths)
      : x(in[0]),
        transitions(in[1]),
        begin(in[2]),
        end(in[3]),
        lengths(lengths),
        steps(x.shape[0]),
        rows(x.shape[1]),
        k(x.shape[2]) {}

  Index length(Index b) const { return lengths.given() ? static_cast<Index>(lengths[b]) : steps; }
  double emission(Index t, Index b, Index j) const { return x[(t * rows + b) * k + j]; }
  double transition(Index i, Index j) const { return transitions[i * k + j]; }

  // For each step t and label i of a row, what `merge` makes of the scores of all that may come
  // after.
  std::vector<Numbers> after(Index b, const std::function<double(const Numbers&)>& merge) const {
    std::vector<Numbers> result(static_cast<std::size_t>(length(b)),
                                Numbers(static_cast<std::size_t>(k)));
    for (Index t = length(b) - 1; t >= 0; --t)
      for (Index i = 0; i < k; ++i) {
        Numbers& now = result[static_cast<std::size_t>(t)];
        if (t == length(b) - 1) {
          at(now, i) = end[i];
          continue;
        }
        Numbers ways(static_cast<std::size_t>(k));
        for (Index j = 0; j < k; ++j)
          at(ways, j) = transition(i, j) + emission(t + 1, b, j) +
                        at(result[static_cast<std::size_t>(t + 1)], j);
        at(now, i) = merge(ways);
      }
    return result;
  }
  // The scores of the labels of a first step, with what comes after.
  Numbers first(Index b, const Numbers& after) const {
    Numbers result = after;
    for (Index j = 0; j < k; ++j) at(result, j) += begin[j] + emission(0, b, j);
    return result;
  }
};

Arrays crf_loss(const Arrays& in, const CrfAttr& attr) {
  const Chain chain(in, in[5]);
  double sum = 0, count = 0;
  for (Index b = 0; b < chain.rows; ++b) {
    const Index length = chain.length(b);
    count += attr.reduction == CrfReduction::token_mean ? static_cast<double>(length) : 1;
    if (length == 0) continue;
    const auto label = [&](Index t) { return static_cast<Index>(in[4][t * chain.rows + b]); };
    double score = chain.begin[label(0)] + chain.end[label(length - 1)];
    for (Index t = 0; t < length; ++t) {
      score += chain.emission(t, b, label(t));
      if (t > 0) score += chain.transition(label(t - 1), label(t));
    }
    sum += log_sum(chain.first(b, chain.after(b, log_sum)[0])) - score;
  }
  return {Array(Shape{}, attr.reduction == CrfReduction::sum ? sum : sum / count)};
}

// The sums over what comes before as well, and their product.
Arrays crf_marginals(const Arrays& in) {
  const Chain chain(in, in[4]);
  Array p(chain.x.shape);
  for (Index b = 0; b < chain.rows; ++b) {
    if (chain.length(b) == 0) continue;
    const auto after = chain.after(b, log_sum);
    Numbers before = chain.first(b, Numbers(static_cast<std::size_t>(chain.k)));
    const double total = log_sum(chain.first(b, after[0]));
    for (Index t = 0; t < chain.length(b); ++t) {
      if (t > 0) {
        const Numbers last = before;
        for (Index j = 0; j < chain.k; ++j) {
          Numbers ways = last;
          for (Index i = 0; i < chain.k; ++i) at(ways, i) += chain.transition(i, j);
          at(before, j) = log_sum(ways) + chain.emission(t, b, j);
        }
      }
      for (Index j = 0; j < chain.k; ++j)
        p[(t * chain.rows + b) * chain.k + j] =
            std::exp(at(before, j) +
                     after[static_cast<std::size_t>(t)][static_cast<std::size_t>(j)] - total);
    }
  }
  return {p};
}

Arrays crf_decode(const Arrays& in) {
  const Chain chain(in, in[4]);
  Array labels(chain.x.shape.erase(2), -1), scores(Shape{chain.rows});
  for (Index b = 0; b < chain.rows; ++b) {
    if (chain.length(b) == 0) continue;
    const auto after =
        chain.after(b, [](const Numbers& x) { return *std::ranges::max_element(x); });
    Numbers ways = chain.first(b, after[0]);
    scores[b] = *std::ranges::max_element(ways);
    for (Index t = 0; t < chain.length(b); ++t) {
      const Index best = std::ranges::max_element(ways) - ways.begin();
      labels[t * chain.rows + b] = static_cast<double>(best);
      if (t + 1 == chain.length(b)) break;
      for (Index j = 0; j < chain.k; ++j)
        at(ways, j) = chain.transition(best, j) + chain.emission(t + 1, b, j) +
                      after[static_cast<std::size_t>(t + 1)][static_cast<std::size_t>(j)];
    }
  }
  return {labels, scores};
}

// ln softmax(x)[i] of a row; an infinite logit has probability 1.
double log_share(const double* x, Index size, Index i) {
  const double largest = *std::max_element(x, x + size);
  Numbers shifted(x, x + size);
  for (double& value : shifted) value = value == INFINITY ? 0 : value - largest;
  return at(shifted, i) - log_sum(shifted);
}

// -ln p of a row, from what each state may be followed by: itself, the next, or the second next if
// both are labels and differ.
double ctc_row(const std::vector<Index>& labels, Index blank, Index length,
               const std::function<double(Index, Index)>& log_p) {
  std::vector<Index> states{blank};
  for (const Index label : labels) states.insert(states.end(), {label, blank});
  const auto count = std::ssize(states);
  if (length == 0) return count == 1 ? 0 : INFINITY;
  const auto state = [&](Index s) { return states[static_cast<std::size_t>(s)]; };
  Numbers after(static_cast<std::size_t>(count), -INFINITY);
  after.back() = 0;
  if (count > 1) at(after, count - 2) = 0;
  for (Index t = length - 1; t > 0; --t) {
    const Numbers then = after;
    const auto value = [&](Index s) {
      return then[static_cast<std::size_t>(s)] + log_p(t, state(s));
    };
    for (Index s = 0; s < count; ++s) {
      Numbers ways{value(s)};
      if (s + 1 < count) ways.push_back(value(s + 1));
      if (s + 2 < count && state(s + 2) != blank && state(s + 2) != state(s))
        ways.push_back(value(s + 2));
      at(after, s) = log_sum(ways);
    }
  }
  Numbers ways{at(after, 0) + log_p(0, blank)};
  if (count > 1) ways.push_back(at(after, 1) + log_p(0, state(1)));
  return -log_sum(ways);
}

Arrays ctc_loss(const Arrays& in, const CtcAttr& attr) {
  const Array &x = in[0], &targets = in[1];
  const Index rows = x.shape[1], symbols = x.shape[2];
  double sum = 0;
  for (Index b = 0; b < rows; ++b) {
    const auto count = in[3].given() ? static_cast<Index>(in[3][b]) : targets.shape[0];
    const auto length = in[2].given() ? static_cast<Index>(in[2][b]) : x.shape[0];
    std::vector<Index> labels;
    Index needed = count;
    for (Index i = 0; i < count; ++i) {
      labels.push_back(static_cast<Index>(targets[i * rows + b]));
      if (i > 0) needed += labels.back() == labels[static_cast<std::size_t>(i - 1)];
    }
    if (needed > length) continue;
    Array log_p(Shape{length, symbols});
    for (Index t = 0; t < length; ++t)
      for (Index k = 0; k < symbols; ++k)
        log_p[t * symbols + k] = log_share(x.x.data() + (t * rows + b) * symbols, symbols, k);
    const double loss = ctc_row(labels, attr.blank, length,
                                [&](Index t, Index k) { return log_p[t * symbols + k]; });
    if (loss == INFINITY) continue;
    const bool mean = attr.reduction == LossReduction::mean;
    sum += mean ? loss / static_cast<double>(std::max<Index>(count, 1)) / static_cast<double>(rows)
                : loss;
  }
  return {Array(Shape{}, sum)};
}

}  // namespace

void add_sequence_references(References& table) {
  table["crf_loss"] = reference<CrfAttr>(crf_loss);
  table["crf_marginals"] = reference(crf_marginals);
  table["crf_decode"] = reference(crf_decode);
  table["crf_decode"].special = false;  // it refuses NaN, and special numbers make ties
  table["ctc_loss"] = reference<CtcAttr>(ctc_loss);
}

}  // namespace reel::testing
