// The loss of a linear-chain conditional random field; see sequence_losses.h.
//
// Its gradient is that of ln Σ e^s, the marginals of labels and of pairs, minus the labels and
// pairs that are there. They take few more operations than the loss itself, and everything that the
// loss has at hand, so the forward pass makes the gradient, and the backward pass multiplies it by
// the one that arrives.

#include <fmt/format.h>

#include <numeric>
#include <optional>

#include <reel/autograd/kernels/thread_pool.h>
#include <reel/autograd/ops/check_lengths.h>
#include <reel/autograd/ops/crf_chain.h>
#include <reel/autograd/ops/sequence_loss.h>
#include <reel/autograd/recurrent.h>
#include <reel/autograd/sequence_losses.h>

namespace reel {
using namespace op;

void detail::check_crf(const Arguments& in, int lengths_input) {
  const Shape& x = in[crf_emissions];
  if (x.rank() != 3 || x[0] == 0 || x[2] == 0)
    in.fail("the emissions must be [T, B, K] with steps and labels");
  const Index k = x[2];
  if (in[crf_transitions] != Shape{k, k})
    in.fail(fmt::format("the transitions must be [{}, {}] for {} labels", k, k, k));
  for (const int i : {crf_begin, crf_end})
    if (in[i] != Shape{k}) in.fail(fmt::format("{} must be [{}] for {} labels", in.name(i), k, k));
  if (in.has(lengths_input) && in[lengths_input] != Shape{x[1]})
    in.fail(fmt::format("lengths must be [{}] for these emissions", x[1]));
}

namespace {

using namespace detail;

constexpr int labels_input = crf_more, lengths_input = crf_more + 1;
enum Output { loss_output, emissions_output, transitions_output, begin_output, end_output };

struct CrfAttr {
  CrfReduction reduction;
};

double divisor(CrfReduction reduction, Index rows, Index steps) {
  if (reduction == CrfReduction::sum) return 1;
  const Index count = reduction == CrfReduction::mean ? rows : steps;
  if (count == 0) throw ValueError("crf_loss: there is nothing to average: all rows are empty");
  return static_cast<double>(count);
}

// The loss of each row, and the gradients of the sum of all.
template <Real T>
class Losses {
 public:
  Losses(Ctx<T> c, const CrfAttr& attr)
      : c_(c), call_(c, lengths_input), labels_(c.indices(labels_input)), losses_(call_.rows) {
    Index steps = 0;
    for (Index b = 0; b < call_.rows; ++b) steps += call_.length(b);
    factor_ = 1 / divisor(attr.reduction, call_.rows, steps);
  }

  void run() {
    for (Index b = 0; b < call_.rows; ++b) check(b);
    // A block of rows has its own sums of gradients; how many there are depends on the rows alone.
    constexpr Index most_blocks = 64;
    const Index k = call_.labels, size = k * k + 2 * k;
    const Index block_rows = std::max<Index>(1, (call_.rows + most_blocks - 1) / most_blocks);
    const Index blocks = (call_.rows + block_rows - 1) / block_rows;
    const Scratch<double> sums(c_.recording() ? blocks * size : 0);
    if (c_.recording()) std::fill_n(sums.data(), blocks * size, 0.0);
    kernels::parallel_for(blocks, [&](Index block) {
      CrfChain<T> chain(call_);
      double* own = c_.recording() ? sums.data() + block * size : nullptr;
      const Index end = std::min(call_.rows, (block + 1) * block_rows);
      for (Index b = block * block_rows; b < end; ++b) row(b, chain, own);
    });
    c_.out(loss_output)[0] =
        static_cast<T>(std::accumulate(losses_.data(), losses_.data() + call_.rows, 0.0) * factor_);
    if (!c_.recording()) return;
    write_sum(transitions_output, sums.data(), blocks, size);
    write_sum(begin_output, sums.data() + k * k, blocks, size);
    write_sum(end_output, sums.data() + k * k + k, blocks, size);
  }

 private:
  Index label(Index t, Index b) const {
    return labels_[static_cast<std::size_t>(t * call_.rows + b)];
  }
  double emission(Index t, Index b) const {
    return static_cast<double>(call_.emission(t, b)[label(t, b)]);
  }
  double transition(Index t, Index b) const {
    return call_.transitions[label(t - 1, b) * call_.labels + label(t, b)];
  }

  [[noreturn]] void fail(Index t, Index b, const char* why) const {
    throw ValueError(
        fmt::format("crf_loss: label {} at step {} of row {} {}", label(t, b), t, b, why));
  }
  void check(Index b) const {
    const Index length = call_.length(b);
    for (Index t = 0; t < length; ++t) {
      if (label(t, b) < 0 || label(t, b) >= call_.labels)
        fail(t, b,
             fmt::format("is not among the {} (0 to {})", call_.labels, call_.labels - 1).c_str());
      if (emission(t, b) == log_zero) fail(t, b, "is forbidden: its emission is -inf");
      if (t == 0 && call_.begin[label(t, b)] == log_zero)
        fail(t, b, "is forbidden: its begin is -inf");
      if (t > 0 && transition(t, b) == log_zero)
        fail(t, b,
             fmt::format("is forbidden: the transition from {} is -inf", label(t - 1, b)).c_str());
    }
    if (length > 0 && call_.end[label(length - 1, b)] == log_zero)
      fail(length - 1, b, "is forbidden: its end is -inf");
  }

  double score(Index b) const {
    const Index length = call_.length(b);
    double sum = call_.begin[label(0, b)] + call_.end[label(length - 1, b)];
    for (Index t = 0; t < length; ++t) sum += emission(t, b) + (t > 0 ? transition(t, b) : 0);
    return sum;
  }

  // `sums`: of transitions, begin and end, null if there is no gradient.
  void row(Index b, CrfChain<T>& chain, double* sums) {
    const Index length = call_.length(b), k = call_.labels;
    losses_[b] = length > 0 ? chain.log_sum(b) - score(b) : 0;
    if (!sums) return;
    T* const dx = c_.out(emissions_output).data();
    for (Index t = length; t < call_.steps; ++t) std::fill_n(dx + call_.at(t, b), k, T(0));
    if (length == 0) return;
    double *begin = sums + k * k, *end = begin + k;
    chain.smooth(sums, [&](Index t, const double* p) {
      const Index there = label(t, b);
      T* const d = dx + call_.at(t, b);
      for (Index j = 0; j < k; ++j) {
        const double slope = p[j] - (j == there ? 1 : 0);
        d[j] = static_cast<T>(factor_ * slope);
        if (t == 0) begin[j] += slope;
        if (t == length - 1) end[j] += slope;
      }
      if (t > 0) sums[label(t - 1, b) * k + there] -= 1;
    });
  }

  void write_sum(Output output, const double* sums, Index blocks, Index stride) {
    const std::span<T> to = c_.out(output);
    for (std::size_t i = 0; i < to.size(); ++i) {
      double sum = 0;
      for (Index block = 0; block < blocks; ++block)
        sum += sums[block * stride + static_cast<Index>(i)];
      to[i] = static_cast<T>(factor_ * sum);
    }
  }

  Ctx<T> c_;
  CrfCall<T> call_;
  std::span<const std::int32_t> labels_;
  Scratch<double> losses_;
  double factor_ = 1;
};

// --- the specification ---

// The labels, with 0 in the padding, and what the other places of a score are, as indices.
struct Places {
  Tensor labels, pairs, last;  // i32 [T, B], [T - 1, B], [B]

  Places(const Tensor& given, Index k, const RealSteps& real)
      : labels(given.shape(), i32),
        pairs({given.size(0) - 1, given.size(1)}, i32),
        last({given.size(1)}, i32) {
    const Index steps = given.size(0), rows = given.size(1);
    const auto from = given.values<std::int32_t>();
    const auto to = labels.begin_update<std::int32_t>(), pair = pairs.begin_update<std::int32_t>(),
               end = last.begin_update<std::int32_t>();
    for (Index b = 0; b < rows; ++b)
      for (Index t = 0; t < steps; ++t) {
        const auto i = static_cast<std::size_t>(t * rows + b),
                   before = i - static_cast<std::size_t>(rows);
        to[i] = t < real.length(b) ? from[i] : 0;
        if (t > 0) pair[before] = to[before] * static_cast<std::int32_t>(k) + to[i];
        if (t == 0 || t < real.length(b)) end[static_cast<std::size_t>(b)] = to[i];
      }
  }
};

// table[rows] for a vector.
Tensor pick(const Tensor& table, const Tensor& rows) {
  return squeeze(gather_rows(expand(table, -1), rows), -1);
}

// s(y) [B]
Tensor score_of(std::span<const Tensor> in, const Tensor& x, const RealSteps& real) {
  const Index steps = x.size(0), k = x.size(2);
  const Places places(in[labels_input], k, real);
  const Tensor picked = squeeze(take_along(x, expand(places.labels, -1), -1), -1);
  Tensor score = sum(where(real.mask(0), picked, 0), {0}) +
                 pick(in[crf_begin], select(places.labels, 0, 0)) + pick(in[crf_end], places.last);
  if (steps > 1) {
    const Tensor pairs = pick(reshape(in[crf_transitions], {k * k}), places.pairs);
    score = score + sum(where(real.mask(1), pairs, 0), {0});
  }
  return score;
}

// ln Σ e^s [B]
Tensor log_sum_of(std::span<const Tensor> in, const Tensor& x, const RealSteps& real) {
  Tensor alpha = in[crf_begin] + select(x, 0, 0);
  for (Index t = 1; t < x.size(0); ++t) {
    const Tensor next = logsumexp(expand(alpha, -1) + in[crf_transitions], {1}) + select(x, 0, t);
    alpha = where(expand(real.at(t), -1), next, alpha);
  }
  return logsumexp(alpha + in[crf_end], {-1});
}

Tensors specification(std::span<const Tensor> in, const CrfAttr& attr) {
  const Tensor x = with_zero_padding(in[crf_emissions], in[lengths_input]);
  const RealSteps real(x.size(0), x.size(1), in[lengths_input]);
  const Tensor losses = log_sum_of(in, x, real) - score_of(in, x, real);
  const Tensor total = sum(where(real.at(0), losses, 0));
  return {total / divisor(attr.reduction, x.size(1), real.count())};
}

// --- the op ---

SampleInputs sample(Index steps, Index rows, Index k, const Generator& lengths) {
  return with_inputs(normal({steps, rows, k}), normal({k, k}), normal({k}), normal({k}),
                     indices({steps, rows}, k), lengths);
}

REEL_EARLY const Op<CrfAttr> crf_loss_op{{
    .name = "crf_loss",
    .arguments = {"emissions", "transitions", "begin", "end", integer("labels"),
                  optional(integer("lengths"))},
    .shape = [](const Arguments& in, const CrfAttr& attr) -> Shapes {
      check_crf(in, lengths_input);
      const Shape& x = in[crf_emissions];
      if (in[labels_input] != x.erase(2)) in.fail("the labels must be [T, B] for these emissions");
      if (x[1] == 0 && attr.reduction != CrfReduction::sum)
        in.fail<ValueError>("there is nothing to average");
      return {Shape{}, x, in[crf_transitions], in[crf_begin], in[crf_end]};
    },
    .forward = []<Real T>(Ctx<T> c, const CrfAttr& attr) { Losses<T>(c, attr).run(); },
    .gradient = fused(
        []<Real T>(BackwardCtx<T> c, const CrfAttr&) {
          for (int i = 0; i < crf_more; ++i) scale_gradient(c, i, i + 1);
        },
        [](std::span<const Tensor> in, const CrfAttr& attr) { return specification(in, attr); }),
    .samples = {sample(3, 2, 3, lengths({2}, 3)).attr(CrfAttr{CrfReduction::mean}),
                sample(2, 3, 2, absent()).attr(CrfAttr{CrfReduction::token_mean}),
                sample(5, 4, 3, lengths({4}, 5)).attr(CrfAttr{CrfReduction::token_mean}),
                sample(4, 3, 5, lengths({3}, 4)).attr(CrfAttr{CrfReduction::sum}),
                sample(1, 2, 4, absent()).attr(CrfAttr{CrfReduction::mean}),
                sample(3, 2, 1, lengths({2}, 3)).attr(CrfAttr{CrfReduction::sum}),
                sample(2, 0, 3, absent()).attr(CrfAttr{CrfReduction::sum}),
                sample(2, 130, 2, absent()).attr(CrfAttr{CrfReduction::mean})},
    .hidden_outputs = 4,
}};

}  // namespace

Tensor crf_loss(const Tensor& emissions, const Tensor& transitions, const Tensor& begin,
                const Tensor& end, const Tensor& labels, const CrfLossOptions& options, Site site) {
  const Tensor lengths =
      given_lengths(options.lengths, "lengths", emissions, "emissions", "crf_loss", site);
  return crf_loss_op({&emissions, &transitions, &begin, &end, &labels, &lengths},
                     {options.reduction}, site);
}

}  // namespace reel

namespace reel::op::linked {
void crf() {}
}  // namespace reel::op::linked
