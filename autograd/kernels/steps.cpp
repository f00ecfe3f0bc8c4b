#include <reel/autograd/kernels/steps.h>

#include <algorithm>
#include <numeric>

namespace reel::kernels {

Steps::Steps(Index steps, Index rows, const std::int32_t* lengths) : total_(steps), rows_(rows) {
  const auto length = [&](Index row) { return lengths ? Index{lengths[row]} : steps; };
  Index longest = rows > 0 ? 0 : steps, shortest = steps;
  for (Index row = 0; row < rows; ++row) {
    longest = std::max(longest, length(row));
    shortest = std::min(shortest, length(row));
  }
  if (shortest < longest && rows > 0) {
    order_.resize(static_cast<std::size_t>(rows));
    std::iota(order_.begin(), order_.end(), Index{0});
    std::ranges::stable_sort(order_, [&](Index a, Index b) { return length(a) > length(b); });
  }
  first_.assign(static_cast<std::size_t>(longest) + 1, 0);
  Index active = rows;
  for (Index t = 0; t < longest; ++t) {
    while (active > 0 && length(row(active - 1)) <= t) --active;
    first_[static_cast<std::size_t>(t) + 1] = first(t) + active;
  }
}

PoolVector<Index> Steps::blocks(Index at_most) const {
  constexpr Index smallest_block = 4;
  const Index count = std::max<Index>(1, std::min(at_most, rows_ / smallest_block));
  PoolVector<Index> bounds(static_cast<std::size_t>(count) + 1, rows_);
  bounds[0] = 0;
  if (uniform()) {
    const Index size = (rows_ + count - 1) / count;
    for (Index b = 1; b < count; ++b)
      bounds[static_cast<std::size_t>(b)] = std::min(b * size, rows_);
    return bounds;
  }
  // Row r has as many tokens as there are steps in which more than r rows take part.
  Index row = 0, so_far = 0, length = this->count();
  for (Index b = 1; b < count; ++b) {
    while (row < rows_ && so_far * count < b * tokens()) {
      while (length > 0 && active(length - 1) <= row) --length;
      so_far += length;
      ++row;
    }
    bounds[static_cast<std::size_t>(b)] = row;
  }
  return bounds;
}

}  // namespace reel::kernels
