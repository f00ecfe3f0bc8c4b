#include <reel/nn/embedding.h>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/dropout.h>
#include <reel/nn/init.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

Embedding::Embedding(const ModuleParams& p, Arg<Index> count, Arg<Index> size,
                     const Initializer& init, Arg<double> rate)
    : dropout(rate) {
  begin_module(p, "Embedding", {{"count", count}, {"size", size}});
  require_rate("Embedding", rate, SiteScope::current());
  w = p.create("w", {count, size}, init ? init : init::normal(1));
}

Tensor Embedding::operator()(const Tensor& symbols, Site site) const {
  return (*this)(symbols, Eval{}, site);  // which says so where a tape records and it has dropout
}

Tensor Embedding::operator()(const Tensor& symbols, const Mode& mode, Site site) const {
  const ModuleScope scope(w.name(), site);
  const Tensor vectors = gather_rows(w, symbols);
  if (dropout == 0 || !mode.training()) {
    note_eval_while_recorded(dropout, vectors);
    return vectors;
  }
  const Index count = w.shape()[0];
  const Tensor mask = reel::dropout(ones({count, 1}, w.dtype()), dropout, mode.rng());
  return vectors * gather_rows(mask, symbols);
}

}  // namespace reel::nn
