// Connectionist temporal classification; see sequence_losses.h.
//
// A path that gives a target of U labels runs through 2U + 1 states: the labels, with a blank
// before, between and after them. At each step it stays, goes to the next state, or skips a blank
// between two labels that differ. Forward filtering, α_t[s] = ln of the probability of all paths
// through t steps that end in s, gives the loss; backward smoothing, which splits the probability
// of a state among the three that it can come from, the expected number of times that each symbol
// is read at each step, and with softmax minus that the gradient. As in crf.cpp the forward pass
// makes it.

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include <reel/autograd/kernels/thread_pool.h>
#include <reel/autograd/ops/check_lengths.h>
#include <reel/autograd/ops/log_sum.h>
#include <reel/autograd/ops/sequence_loss.h>
#include <reel/autograd/recurrent.h>
#include <reel/autograd/sequence_losses.h>

namespace reel {
using namespace op;
namespace {

using namespace detail;

enum Input { logits_input, targets_input, lengths_input, target_lengths_input };
enum Output { loss_output, gradient_output };

struct CtcAttr {
  std::int32_t blank;
  bool skip_impossible;
  LossReduction reduction;
};

constexpr double log_zero = -std::numeric_limits<double>::infinity();

// The targets of a call, also for its specification.
struct Targets {
  Index steps, rows, symbols, most;  // T, B, V, S
  const std::int32_t *labels, *lengths, *target_lengths;
  CtcAttr attr;

  Targets(const Shape& logits, const Shape& targets, const std::int32_t* labels,
          const std::int32_t* lengths, const std::int32_t* target_lengths, const CtcAttr& attr)
      : steps(logits[0]),
        rows(logits[1]),
        symbols(logits[2]),
        most(targets[0]),
        labels(labels),
        lengths(lengths),
        target_lengths(target_lengths),
        attr(attr) {}

  Index length(Index b) const { return lengths ? lengths[b] : steps; }
  Index count(Index b) const { return target_lengths ? target_lengths[b] : most; }
  Index states(Index b) const { return 2 * count(b) + 1; }
  std::int32_t label(Index i, Index b) const { return labels[i * rows + b]; }
  // What a state reads.
  std::int32_t symbol(Index state, Index b) const {
    return state % 2 == 0 ? attr.blank : label(state / 2, b);
  }
  // Whether the state two before may come right before this one.
  bool skips(Index state, Index b) const {
    return state >= 2 && symbol(state, b) != attr.blank && symbol(state, b) != symbol(state - 2, b);
  }
  // The steps that a target needs at least.
  Index needs(Index b) const {
    Index steps_needed = count(b);
    for (Index i = 1; i < count(b); ++i) steps_needed += label(i, b) == label(i - 1, b);
    return steps_needed;
  }
  bool fits(Index b) const { return needs(b) <= length(b); }
  // What the loss of a row is multiplied by.
  double factor(Index b) const {
    if (attr.reduction == LossReduction::sum) return 1;
    return 1 / (static_cast<double>(std::max<Index>(count(b), 1)) * static_cast<double>(rows));
  }

  void check() const {
    for (Index b = 0; b < rows; ++b) {
      for (Index i = 0; i < count(b); ++i)
        if (label(i, b) < 0 || label(i, b) >= symbols)
          throw ValueError(
              fmt::format("ctc_loss: label {} at place {} of target {} is not among the {} symbols "
                          "(0 to {})",
                          label(i, b), i, b, symbols, symbols - 1));
      if (!fits(b) && !attr.skip_impossible)
        throw ValueError(fmt::format(
            "ctc_loss: target {} needs {} steps for {} labels{}, but row {} has {}; "
            "skip_impossible leaves such rows out",
            b, needs(b), count(b), needs(b) > count(b) ? " and the blanks between equal ones" : "",
            b, length(b)));
    }
  }
};

// How the probability of a state is made of those of the states before it.
struct Split {
  double stay, next, skip;  // relative to e^largest
  double largest;
  double sum() const { return stay + (next + skip); }
};
// `alpha` points at the state; `two` is 0 or -∞.
[[gnu::always_inline]] inline Split split(const double* alpha, double two) {
  const double stay = alpha[0], next = alpha[-1], skip = alpha[-2] + two;
  double largest = next > stay ? next : stay;
  largest = skip > largest ? skip : largest;
  largest = largest == log_zero ? 0 : largest;
  return {kernels::vexp(stay - largest), kernels::vexp(next - largest),
          kernels::vexp(skip - largest), largest};
}

// The states of one row: two of probability 0 before the first, so that each has two before it.
template <Real T>
class Lattice {
 public:
  Lattice(const Targets& targets, const T* logits, Index row)
      : targets_(targets),
        logits_(logits + row * targets.symbols),
        row_(row),
        length_(targets.length(row)),
        states_(targets.states(row)),
        sums_(length_),
        symbols_(states_),
        alpha_(length_ * width()),
        skip_(states_),
        read_(std::max(states_, targets.symbols)) {
    for (Index s = 0; s < states_; ++s) {
      symbols_[s] = targets.symbol(s, row);
      skip_[s] = targets.skips(s, row) ? 0 : log_zero;
    }
  }

  /// -ln p of a row of at least one step.
  double loss() {
    for (Index t = 0; t < length_; ++t) {
      double* const alpha = alpha_of(t);
      alpha[-2] = alpha[-1] = log_zero;
      read(t);
      for (Index s = 0; t == 0 && s < states_; ++s)
        alpha[s] = s < 2 ? read_[s] : log_zero + read_[s];
      if (t > 0) advance(alpha_of(t - 1), alpha);
    }
    const double* last = alpha_of(length_ - 1) + states_ - 1;
    end_ = split(last, log_zero);
    return -(end_.largest + kernels::vlog(end_.sum()));
  }

  /// After loss(): writes factor · d loss / d logits.
  void gradient(double factor, T* to, Index stride) {
    const Scratch<double> now(states_ + 2), stay(states_), next(states_ + 2), skip(states_ + 2);
    std::fill_n(now.data(), states_, 0.0);
    now[states_ - 1] = end_.stay / end_.sum();
    if (states_ > 1) now[states_ - 2] = end_.next / end_.sum();
    for (Scratch<double> const* const share : {&next, &skip})
      (*share)[states_] = (*share)[states_ + 1] = 0;
    for (Index t = length_ - 1; t >= 0; --t) {
      write(t, factor, now.data(), to + t * stride);
      if (t == 0) return;
      const double* before = alpha_of(t - 1);
      for (Index s = 0; s < states_; ++s) {
        const Split parts = split(before + s, skip_[s]);
        const double share = now[s] == 0 ? 0 : now[s] / parts.sum();
        stay[s] = share * parts.stay;
        next[s] = share * parts.next;
        skip[s] = share * parts.skip;
      }
      for (Index s = 0; s < states_; ++s) now[s] = stay[s] + (next[s + 1] + skip[s + 2]);
    }
  }

 private:
  Index width() const { return states_ + 2; }
  double* alpha_of(Index t) const { return alpha_.data() + t * width() + 2; }
  double logit(Index t, Index symbol) const {
    return static_cast<double>(logits_[t * targets_.rows * targets_.symbols + symbol]);
  }

  // The log-probability of what each state reads.
  void read(Index t) {
    double* const x = read_.data();
    for (Index k = 0; k < targets_.symbols; ++k) x[k] = logit(t, k);
    sums_[t] = log_sum_exp(x, targets_.symbols);
    for (Index s = 0; s < states_; ++s) x[s] = sums_[t].log_share(logit(t, symbols_[s]));
  }
  void advance(const double* __restrict before, double* __restrict alpha) const {
    const double *skip = skip_.data(), *read = read_.data();
    for (Index s = 0; s < states_; ++s) {
      const Split parts = split(before + s, skip[s]);
      alpha[s] = parts.largest + kernels::vlog(parts.sum()) + read[s];
    }
  }
  void write(Index t, double factor, const double* states, T* to) {
    double* const d = read_.data();
    for (Index k = 0; k < targets_.symbols; ++k)
      d[k] = kernels::vexp(sums_[t].log_share(logit(t, k)));
    for (Index s = 0; s < states_; ++s) d[symbols_[s]] -= states[s];
    for (Index k = 0; k < targets_.symbols; ++k) to[k] = static_cast<T>(factor * d[k]);
  }

  const Targets& targets_;
  const T* logits_;
  Index row_, length_, states_;
  Scratch<LogSum<double>> sums_;
  Scratch<std::int32_t> symbols_;
  Scratch<double> alpha_, skip_, read_;
  Split end_{};
};

// -ln p, or +∞, and the gradient unless `to` is null.
template <Real T>
double row_loss(const Targets& targets, Index b, const T* logits, T* to) {
  const Index stride = targets.rows * targets.symbols, length = targets.length(b);
  if (to) to += b * targets.symbols;
  const auto clear = [&](Index from) {
    for (Index t = from; to && t < targets.steps; ++t)
      std::fill_n(to + t * stride, targets.symbols, T(0));
  };
  const bool fits = targets.fits(b);
  if (length == 0 || !fits) {
    clear(0);
    return fits ? 0 : -log_zero;
  }
  Lattice<T> lattice(targets, logits, b);
  const double loss = lattice.loss();
  clear(loss == -log_zero ? 0 : length);
  if (to && loss != -log_zero) lattice.gradient(targets.factor(b), to, stride);
  return loss;
}

template <Real T>
void forward(Ctx<T> c, const CtcAttr& attr) {
  const Targets targets(c.shape(logits_input), c.shape(targets_input),
                        c.indices(targets_input).data(), c.indices(lengths_input).data(),
                        c.indices(target_lengths_input).data(), attr);
  targets.check();
  const T* logits = c.in(logits_input).data();
  T* const gradient = c.recording() ? c.out(gradient_output).data() : nullptr;
  const Scratch<double> losses(targets.rows);
  kernels::parallel_for(targets.rows,
                        [&](Index b) { losses[b] = row_loss(targets, b, logits, gradient); });
  double sum = 0;
  for (Index b = 0; b < targets.rows; ++b) {
    const bool impossible = losses[b] == -log_zero;
    if (impossible && !attr.skip_impossible)
      throw ValueError(
          fmt::format("ctc_loss: target {} is impossible: each of its paths needs a logit of -inf; "
                      "skip_impossible leaves such rows out",
                      b));
    if (!impossible) sum += targets.factor(b) * losses[b];
  }
  c.out(loss_output)[0] = static_cast<T>(sum);
}

// --- the specification ---

// i32 [B, states], of f(state, row).
template <class F>
Tensor of_states(Index rows, Index states, F f) {
  Tensor result({rows, states}, i32);
  std::int32_t* to = result.begin_update<std::int32_t>().data();
  for (Index b = 0; b < rows; ++b)
    for (Index s = 0; s < states; ++s) *to++ = static_cast<std::int32_t>(f(s, b));
  return result;
}

// The states [B, L] moved by some places, with probability 0 before the first.
Tensor later(const Tensor& alpha, Index places) {
  const Tensor none = full({alpha.size(0), places}, log_zero, alpha.dtype());
  return slice(concat({none, alpha}, 1), 1, 0, alpha.size(1));
}

// Rows that are shorter than others have states after their last, which no path comes back from.
Tensors specification(std::span<const Tensor> in, const CtcAttr& attr) {
  const auto numbers = [](const Tensor& x) {
    return x.defined() ? x.values<std::int32_t>().data() : nullptr;
  };
  const Targets targets(in[logits_input].shape(), in[targets_input].shape(),
                        numbers(in[targets_input]), numbers(in[lengths_input]),
                        numbers(in[target_lengths_input]), attr);
  const Index rows = targets.rows, states = 2 * targets.most + 1;
  const RealSteps real(targets.steps, rows, in[lengths_input]);
  const auto table = [&](auto f) {
    return of_states(rows, states, [&](Index s, Index b) {
      return s < targets.states(b) ? f(s, b) : std::int32_t{0};
    });
  };
  const Tensor symbols = table([&](Index s, Index b) { return targets.symbol(s, b); });
  const Tensor skips = table([&](Index s, Index b) { return std::int32_t{targets.skips(s, b)}; });
  const Tensor starts = table([](Index s, Index) { return std::int32_t{s < 2}; });
  const Tensor ends =
      table([&](Index s, Index b) { return std::int32_t{s + 2 >= targets.states(b)}; });

  const Tensor log_p = log_softmax(with_zero_padding(in[logits_input], in[lengths_input]));
  const auto read = [&](Index t) { return take_along(select(log_p, 0, t), symbols, -1); };
  Tensor alpha = where(starts, read(0), log_zero);
  for (Index t = 1; t < targets.steps; ++t) {
    const Tensor skipping = where(skips, later(alpha, 2), log_zero);
    const Tensor next = logsumexp(stack({alpha, later(alpha, 1), skipping}), {0}) + read(t);
    alpha = where(expand(real.at(t), -1), next, alpha);
  }
  const Tensor losses = -logsumexp(where(ends, alpha, log_zero), {-1});

  Tensor counted({rows}, i32), factors({rows}, f64);
  for (Index b = 0; b < rows; ++b) {
    const auto i = static_cast<std::size_t>(b);
    counted.begin_update<std::int32_t>()[i] = targets.fits(b) && targets.length(b) > 0;
    factors.begin_update<double>()[i] = targets.factor(b);
  }
  const Tensor possible = less(losses.detach(), -log_zero);
  const Tensor kept = where(logical_and(counted, possible), losses, 0);
  return {sum(kept * factors.to(losses.dtype()))};
}

// --- the op ---

SampleInputs sample(Index steps, Index rows, Index symbols, Index most, bool with_lengths = true) {
  return with_inputs(normal({steps, rows, symbols}), indices({most, rows}, symbols),
                     with_lengths ? lengths({rows}, steps) : absent(),
                     with_lengths ? lengths({rows}, most) : absent());
}
constexpr CtcAttr mean_of(std::int32_t blank) { return {blank, true, LossReduction::mean}; }
constexpr CtcAttr sum_of(std::int32_t blank) { return {blank, true, LossReduction::sum}; }

REEL_EARLY const Op<CtcAttr> ctc_loss_op{{
    .name = "ctc_loss",
    .arguments = {"logits", integer("targets"), optional(integer("lengths")),
                  optional(integer("target_lengths"))},
    .shape = [](const Arguments& in, const CtcAttr& attr) -> Shapes {
      const Shape &x = in[logits_input], &y = in[targets_input];
      if (x.rank() != 3 || x[0] == 0 || x[2] == 0)
        in.fail("the logits must be [T, B, V] with steps and symbols");
      if (y.rank() != 2 || y[1] != x[1])
        in.fail(fmt::format("the targets must be [S, {}] for these logits", x[1]));
      for (const int i : {lengths_input, target_lengths_input})
        if (in.has(i) && in[i] != Shape{x[1]})
          in.fail(fmt::format("{} must be [{}] for these logits", in.name(i), x[1]));
      if (attr.blank < 0 || attr.blank >= x[2])
        in.fail<ValueError>(fmt::format("the blank {} is not among the {} symbols (0 to {})",
                                        attr.blank, x[2], x[2] - 1));
      if (x[1] == 0 && attr.reduction == LossReduction::mean)
        in.fail<ValueError>("there is nothing to average");
      return {Shape{}, x};
    },
    .forward = []<Real T>(Ctx<T> c, const CtcAttr& attr) { forward(c, attr); },
    .gradient = fused(
        []<Real T>(BackwardCtx<T> c, const CtcAttr&) {
          scale_gradient(c, logits_input, gradient_output);
        },
        [](std::span<const Tensor> in, const CtcAttr& attr) { return specification(in, attr); }),
    .samples = {sample(4, 2, 3, 2).attr(mean_of(0)), sample(3, 2, 3, 1, false).attr(mean_of(2)),
                sample(6, 5, 4, 3).attr(mean_of(1)), sample(7, 3, 2, 3).attr(sum_of(0)),
                sample(5, 4, 3, 2, false).attr(sum_of(0)),
                sample(2, 3, 4, 0, false).attr(mean_of(0)), sample(1, 2, 3, 1).attr(mean_of(0)),
                sample(3, 0, 2, 2, false).attr(sum_of(1)), sample(2, 2, 1, 1).attr(sum_of(0)),
                sample(4, 70, 3, 2).attr(mean_of(0))},
    .hidden_outputs = 1,
}};

// The op itself could take them, and they are part of its samples.
void refuse_blanks(const Tensor& targets, const Tensor& target_lengths, Index blank, Site site) {
  if (!targets.defined() || targets.dtype() != i32 || targets.rank() != 2) return;
  const auto labels = targets.values<std::int32_t>();
  const auto lengths = target_lengths.defined() ? target_lengths.values<std::int32_t>()
                                                : std::span<const std::int32_t>{};
  const Index rows = targets.size(1);
  for (Index b = 0; b < rows; ++b) {
    const auto row = static_cast<std::size_t>(b);
    const Index count = lengths.empty() ? targets.size(0) : lengths[row];
    for (Index i = 0; i < count; ++i)
      if (labels[static_cast<std::size_t>(i * rows) + row] == blank)
        throw ValueError(
            fmt::format("ctc_loss: place {} of target {} is the blank, {}; targets have "
                        "the labels alone",
                        i, b, blank),
            site);
  }
}

}  // namespace

Tensor ctc_loss(const Tensor& logits, const Tensor& targets, const CtcLossOptions& options,
                Site site) {
  const Tensor lengths =
      given_lengths(options.lengths, "lengths", logits, "logits", "ctc_loss", site);
  const Tensor target_lengths =
      given_lengths(options.target_lengths, "target_lengths", targets, "targets", "ctc_loss", site);
  const auto blank = static_cast<std::int32_t>(
      std::clamp<Index>(options.blank, -1, std::numeric_limits<std::int32_t>::max()));
  refuse_blanks(targets, target_lengths, blank, site);
  return ctc_loss_op({&logits, &targets, &lengths, &target_lengths},
                     {blank, options.skip_impossible, options.reduction}, site);
}

}  // namespace reel

namespace reel::op::linked {
void ctc() {}
}  // namespace reel::op::linked
