// Marginals and the best labels of a linear-chain CRF; see sequence_losses.h.

#include <fmt/format.h>

#include <cmath>

#include <reel/autograd/kernels/thread_pool.h>
#include <reel/autograd/ops/check_lengths.h>
#include <reel/autograd/ops/crf_chain.h>
#include <reel/autograd/sequence_losses.h>

namespace reel {
using namespace op;
namespace {

using namespace detail;

constexpr int lengths_input = crf_more;

// Throws for the first row whose largest or summed scores say that all its sequences are forbidden.
void require_possible(const char* op, const Scratch<double>& scores, Index rows) {
  for (Index b = 0; b < rows; ++b)
    if (scores[b] == log_zero)
      throw ValueError(fmt::format(
          "{}: row {} has no possible labels: every sequence has a score of -inf", op, b));
}

template <Real T>
void marginals(Ctx<T> c) {
  const CrfCall<T> call(c, lengths_input);
  const Scratch<double> sums(call.rows);
  kernels::parallel_for(call.rows, [&](Index b) {
    const Index length = call.length(b);
    T* const to = c.out().data();
    for (Index t = length; t < call.steps; ++t) std::fill_n(to + call.at(t, b), call.labels, T(0));
    sums[b] = 0;
    if (length == 0) return;
    CrfChain<T> chain(call);
    sums[b] = chain.log_sum(b);
    chain.smooth(nullptr, [&](Index t, const double* p) {
      for (Index j = 0; j < call.labels; ++j) to[call.at(t, b) + j] = static_cast<T>(p[j]);
    });
  });
  require_possible("crf_marginals", sums, call.rows);
}

// The best sequence of a row (Viterbi).
template <Real T>
class BestPath {
 public:
  explicit BestPath(const CrfCall<T>& call)
      : call_(call), k_(call.labels), scores_(k_), next_(k_), from_(call.steps * k_) {}

  /// Writes the labels of a row of at least one step to the row's column of [T, B]; returns their
  /// score.
  double find(Index row, std::int32_t* labels) {
    const Index length = call_.length(row);
    for (Index j = 0; j < k_; ++j) scores_[j] = call_.begin[j] + emission(0, row, j);
    for (Index t = 1; t < length; ++t) step(t, row);
    for (Index j = 0; j < k_; ++j) scores_[j] += call_.end[j];
    const double* best = std::max_element(scores_.data(), scores_.data() + k_);
    auto label = static_cast<std::int32_t>(best - scores_.data());
    for (Index t = length - 1; t >= 0; --t) {
      labels[t * call_.rows + row] = label;
      if (t > 0) label = from_[t * k_ + label];
    }
    return *best;
  }

 private:
  double emission(Index t, Index row, Index j) const {
    return static_cast<double>(call_.emission(t, row)[j]);
  }
  void step(Index t, Index row) {
    std::int32_t* const from = from_.data() + t * k_;
    std::fill_n(next_.data(), k_, log_zero);
    std::fill_n(from, k_, 0);
    for (Index i = 0; i < k_; ++i)
      for (Index j = 0; j < k_; ++j) {
        const double score = scores_[i] + call_.transitions[i * k_ + j];
        if (score > next_[j]) {
          next_[j] = score;
          from[j] = static_cast<std::int32_t>(i);
        }
      }
    for (Index j = 0; j < k_; ++j) scores_[j] = next_[j] + emission(t, row, j);
  }

  const CrfCall<T>& call_;
  Index k_;
  Scratch<double> scores_, next_;
  Scratch<std::int32_t> from_;
};

template <Real T>
void require_numbers(Ctx<T> c, const CrfCall<T>& call) {
  for (int i = crf_transitions; i <= crf_end; ++i)
    for (const T x : c.in(i))
      if (std::isnan(x)) throw ValueError("crf_decode: the transitions, begin or end have a NaN");
  for (Index b = 0; b < call.rows; ++b)
    for (Index t = 0; t < call.length(b); ++t)
      for (Index j = 0; j < call.labels; ++j)
        if (std::isnan(call.emission(t, b)[j]))
          throw ValueError(fmt::format(
              "crf_decode: the emission of label {} at step {} of row {} is NaN", j, t, b));
}

template <Real T>
void decode(Ctx<T> c) {
  const CrfCall<T> call(c, lengths_input);
  require_numbers(c, call);
  const Scratch<double> scores(call.rows);
  std::int32_t* const labels = c.integer_out(0).data();
  kernels::parallel_for(call.rows, [&](Index b) {
    const Index length = call.length(b);
    for (Index t = length; t < call.steps; ++t) labels[t * call.rows + b] = -1;
    scores[b] = length > 0 ? BestPath<T>(call).find(b, labels) : 0;
  });
  require_possible("crf_decode", scores, call.rows);
  std::transform(scores.data(), scores.data() + call.rows, c.out(1).begin(),
                 [](double score) { return static_cast<T>(score); });
}

SampleInputs sample(Index steps, Index rows, Index k, const Generator& lengths) {
  return with_inputs(normal({steps, rows, k}), normal({k, k}), normal({k}), normal({k}), lengths);
}
REEL_EARLY const Samples<NoAttr> samples{
    sample(3, 2, 3, lengths({2}, 3)), sample(5, 4, 2, lengths({4}, 5)), sample(4, 3, 5, absent()),
    sample(1, 2, 4, absent()),        sample(3, 2, 1, absent()),        sample(2, 0, 3, absent())};

REEL_EARLY const Op<> crf_marginals_op{{
    .name = "crf_marginals",
    .arguments = {"emissions", "transitions", "begin", "end", optional(integer("lengths"))},
    .shape = [](const Arguments& in) -> Shape {
      check_crf(in, lengths_input);
      return in[crf_emissions];
    },
    .forward = []<Real T>(Ctx<T> c) { marginals(c); },
    .gradient =
        none("the marginals of crf_marginals have none; they are the gradient of a crf_loss "
             "with respect to its emissions, plus the labels"),
    .samples = samples,
}};

REEL_EARLY const Op<> crf_decode_op{{
    .name = "crf_decode",
    .arguments = {"emissions", "transitions", "begin", "end", optional(integer("lengths"))},
    .shape = [](const Arguments& in) -> Shapes {
      check_crf(in, lengths_input);
      const Shape labels = in[crf_emissions].erase(2);
      return {integer(labels), Shape{labels[1]}};
    },
    .forward = []<Real T>(Ctx<T> c) { decode(c); },
    .gradient = none("the best labels are integers, and their scores are not differentiated"),
    .samples = samples,
}};

}  // namespace

Tensor crf_marginals(const Tensor& emissions, const Tensor& transitions, const Tensor& begin,
                     const Tensor& end, const std::optional<Tensor>& lengths, Site site) {
  const Tensor given =
      given_lengths(lengths, "lengths", emissions, "emissions", "crf_marginals", site);
  return crf_marginals_op({&emissions, &transitions, &begin, &end, &given}, site);
}

CrfPath crf_decode(const Tensor& emissions, const Tensor& transitions, const Tensor& begin,
                   const Tensor& end, const std::optional<Tensor>& lengths, Site site) {
  const Tensor given =
      given_lengths(lengths, "lengths", emissions, "emissions", "crf_decode", site);
  const std::array<const Tensor*, 5> inputs{&emissions, &transitions, &begin, &end, &given};
  const Tensors both = crf_decode_op.all(inputs, {}, site);
  return {both[0], both[1]};
}

}  // namespace reel

namespace reel::op::linked {
void crf_decode() {}
}  // namespace reel::op::linked
