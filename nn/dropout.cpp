#include <reel/nn/dropout.h>

#include <fmt/format.h>

#include <atomic>
#include <iostream>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

Dropout::Dropout(Arg<double> rate, Site site) : rate(rate) { require_rate("Dropout", rate, site); }

namespace {

// What was recorded before a gradient used up the tape is a plain value, as for metrics.
bool is_being_recorded(const Tensor& x) {
  const Tape* tape = Tape::current();
  return tape && x.trace().generation != 0 && !tape->used_up(x);
}

}  // namespace

void note_eval_while_recorded(double rate, const Tensor& x, Site site) {
  static std::atomic<bool> noted = false;
  if (rate == 0 || !is_being_recorded(x) || noted.exchange(true)) return;
  std::cerr << fmt::format(
      "reel: Dropout of rate {} runs in nn::Eval while a tape records, and drops nothing; to "
      "train, call the model with nn::Train{{rng}} ({}). This note is printed once.\n",
      rate, SiteScope::resolve(site).str());
}

Tensor Dropout::operator()(const Tensor& x, const Mode& mode, Site site) const {
  if (mode.training() && rate > 0) return dropout(x, rate, mode.rng(), site);
  note_eval_while_recorded(rate, x, site);
  return x;
}

}  // namespace reel::nn
