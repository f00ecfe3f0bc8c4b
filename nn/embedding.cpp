#include <reel/nn/embedding.h>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/init.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

Embedding::Embedding(const ModuleParams& p, Arg<Index> count, Arg<Index> size,
                     const Initializer& init) {
  require_positive(p, "Embedding", {{"count", count}, {"size", size}});
  w = p.create("w", {count, size}, init ? init : init::normal(1));
}

Tensor Embedding::operator()(const Tensor& symbols, Site site) const {
  const ModuleScope scope(w.name(), site);
  return gather_rows(w, symbols);
}

}  // namespace reel::nn
