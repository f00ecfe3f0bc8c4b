#include <reel/datasets/splits.h>

#include <fmt/format.h>

#include <algorithm>

#include <reel/autograd/error.h>
#include <reel/datasets/permutation.h>

namespace reel::datasets {
namespace {

// The sizes of a part of n items for training and of the next for validation.
struct Sizes {
  std::size_t train, valid;
};

Sizes sizes_of(std::size_t n, double train_frac, double valid_frac, Site site) {
  if (!(train_frac > 0 && train_frac <= 1))
    throw ValueError(fmt::format("split: train_frac is {}, not in (0, 1]", train_frac), site);
  // A sum such as 0.7 + 0.2 + 0.1 may be rounded to more than 1.
  if (!(valid_frac >= 0 && train_frac + valid_frac <= 1 + 1e-12))
    throw ValueError(fmt::format("split: valid_frac is {}, not in [0, 1 - train_frac], where "
                                 "train_frac is {}",
                                 valid_frac, train_frac),
                     site);
  const auto share = [&](double fraction) {
    return static_cast<std::size_t>(fraction * static_cast<double>(n));
  };
  const std::size_t train = share(train_frac);
  return {train, std::min(share(valid_frac), n - train)};
}

// A part of `items` for training, the next for validation, and the rest.
template <class T>
struct Parts {
  std::span<T> train, valid, rest;
};

template <class T>
Parts<T> parts_of(std::span<T> items, double train_frac, double valid_frac, Site site) {
  const Sizes sizes = sizes_of(items.size(), train_frac, valid_frac, site);
  return {items.first(sizes.train), items.subspan(sizes.train, sizes.valid),
          items.subspan(sizes.train + sizes.valid)};
}

}  // namespace

Split split(std::span<const std::int32_t> tokens, Arg<double> train_frac, Site site) {
  const auto parts = parts_of(tokens, train_frac, 0, site);
  return {parts.train, parts.rest};
}

SourceSplit split(const TokenSource& tokens, Arg<double> train_frac, Site site) {
  const auto train = static_cast<Index>(
      sizes_of(static_cast<std::size_t>(tokens.size()), train_frac, 0, site).train);
  return {{tokens, 0, train}, {tokens, train, tokens.size() - train}};
}

TestSplit split(std::span<const std::int32_t> tokens, Arg<double> train_frac,
                Arg<double> valid_frac, Site site) {
  const auto parts = parts_of(tokens, train_frac, valid_frac, site);
  return {parts.train, parts.valid, parts.rest};
}

ItemSplit split_items(Arg<Index> n, Arg<double> train_frac, Arg<double> valid_frac, const Rng& rng,
                      Site site) {
  Rng of_split = rng.stream("split");
  std::vector<Index> order = permutation(n, of_split, site);
  const auto parts = parts_of(std::span(order), train_frac, valid_frac, site);
  const auto sorted = [](std::span<Index> part) {
    std::ranges::sort(part);
    return std::vector<Index>(part.begin(), part.end());
  };
  return {sorted(parts.train), sorted(parts.valid), sorted(parts.rest)};
}

}  // namespace reel::datasets
