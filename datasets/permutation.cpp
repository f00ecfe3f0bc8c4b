#include <reel/datasets/permutation.h>

#include <fmt/format.h>

#include <numeric>

#include <reel/autograd/error.h>

namespace reel::datasets {

Rng epoch_rng(const Rng& rng, Arg<Index> epoch, Site site) {
  if (epoch < 1)
    throw ValueError(fmt::format("the epoch is {}, but they count from 1", Index(epoch)), site);
  return rng.stream(fmt::format("epoch {}", Index(epoch)));
}

std::vector<Index> permutation(Arg<Index> n, Rng& rng, Site site) {
  if (n < 0) throw ValueError(fmt::format("permutation: n is {}, negative", Index(n)), site);
  std::vector<Index> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), Index{0});
  shuffle(std::span(order), rng);
  return order;
}

std::vector<Index> permutation(Arg<Index> n, const Rng& rng, Arg<Index> epoch, Site site) {
  Rng of_epoch = epoch_rng(rng, epoch, site);
  return permutation(n, of_epoch, site);
}

}  // namespace reel::datasets
