#pragma once

#include <span>
#include <utility>
#include <vector>

#include <reel/autograd/rng.h>

namespace reel::datasets {

/// The generator of an epoch, counted from 1: a stream of its own for each, independent of the
/// position of `rng`. Whatever draws from it is a function of seed, stream and epoch, so a resumed
/// run needs only the number of its epoch. Throws ValueError if epoch < 1.
Rng epoch_rng(const Rng& rng, Arg<Index> epoch, Site site = {});

/// Brings items into a random order, each with equal probability: the shuffle of Fisher and Yates,
/// with one draw for each item but the first (Durstenfeld, 1964).
template <class T>
void shuffle(std::span<T> items, Rng& rng) {
  for (std::size_t i = items.size(); i > 1; --i)
    std::swap(items[i - 1], items[static_cast<std::size_t>(rng.integer(i))]);
}

/// 0, 1, ..., n - 1 in a random order. Throws ValueError if n is negative.
std::vector<Index> permutation(Arg<Index> n, Rng& rng, Site site = {});
/// The same as a function of seed, stream and epoch: permutation(n, epoch_rng(rng, epoch)).
std::vector<Index> permutation(Arg<Index> n, const Rng& rng, Arg<Index> epoch, Site site = {});

}  // namespace reel::datasets
