#include <reel/datasets/bucketed_batches.h>

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include <reel/autograd/error.h>
#include <reel/datasets/permutation.h>

namespace reel::datasets {
namespace {

// Calls f with each part of `size` items, the last of which may be shorter.
template <class T, class F>
void each_part(std::span<T> items, std::size_t size, F f) {
  for (; !items.empty(); items = items.subspan(std::min(size, items.size())))
    f(items.first(std::min(size, items.size())));
}

}  // namespace

double PaddingCost::share() const {
  return positions == 0 ? 0 : 1 - static_cast<double>(steps) / static_cast<double>(positions);
}

BucketedBatches::BucketedBatches(std::vector<Index> lengths, const BucketOptions& options,
                                 const Rng& rng, Site site)
    : lengths_(std::move(lengths)), options_(options), rng_(rng) {
  const auto refuse = [&](const std::string& what) {
    throw ValueError("BucketedBatches: " + what, site);
  };
  if (lengths_.empty()) refuse("there are no sequences");
  const auto negative = std::ranges::find_if(lengths_, [](Index length) { return length < 0; });
  if (negative != lengths_.end())
    refuse(fmt::format("the length of sequence {} is {}, negative", negative - lengths_.begin(),
                       *negative));
  if (options.batch_size < 1 || options.pool < 1)
    refuse(fmt::format("batch_size is {} and pool is {}; both must be positive", options.batch_size,
                       options.pool));
  // More would be no different, and their product could overflow.
  options_.batch_size = std::min(options.batch_size, std::ssize(lengths_));
  options_.pool = std::min(options.pool, count());
}

Index BucketedBatches::count() const {
  return (std::ssize(lengths_) - 1) / options_.batch_size + 1;
}

std::vector<std::vector<Index>> BucketedBatches::epoch(Arg<Index> epoch, Site site) const {
  Rng rng = epoch_rng(rng_, epoch, site);
  std::vector<Index> order = permutation(lengths_.size(), rng);
  const auto length = [&](Index i) { return lengths_[static_cast<std::size_t>(i)]; };
  const auto size = static_cast<std::size_t>(options_.batch_size);
  std::vector<std::vector<Index>> batches;
  batches.reserve(static_cast<std::size_t>(count()));
  each_part(std::span(order), size * static_cast<std::size_t>(options_.pool),
            [&](std::span<Index> pool) {
              std::ranges::stable_sort(pool, {}, length);
              each_part(pool, size, [&](std::span<Index> batch) {
                shuffle(batch, rng);
                batches.emplace_back(batch.begin(), batch.end());
              });
            });
  shuffle(std::span(batches), rng);
  return batches;
}

PaddingCost BucketedBatches::cost(Arg<Index> epoch, Site site) const {
  PaddingCost cost;
  for (const std::vector<Index>& batch : this->epoch(epoch, site)) {
    Index longest = 0;
    for (const Index i : batch) {
      const Index length = lengths_[static_cast<std::size_t>(i)];
      cost.steps += length;
      longest = std::max(longest, length);
    }
    cost.positions += longest * std::ssize(batch);
  }
  return cost;
}

}  // namespace reel::datasets
