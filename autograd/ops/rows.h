#pragma once

#include <algorithm>

#include <reel/autograd/kernels/thread_pool.h>

namespace reel {

/// Calls `f(row)` for each row, in blocks of a fixed size that are distributed over the threads.
template <class F>
void each_row(Index rows, F f) {
  constexpr Index block_rows = 64;
  kernels::parallel_for((rows + block_rows - 1) / block_rows, [&](Index block) {
    const Index end = std::min(rows, (block + 1) * block_rows);
    for (Index r = block * block_rows; r < end; ++r) f(r);
  });
}

/// Calls `f(i)` for 0 <= i < count, in blocks that are distributed over the threads if all together
/// cost at least `worth_a_fork`; `cost` is that of one i, in the same unit.
template <class F>
void spread(Index count, Index cost, Index worth_a_fork, F f) {
  const Index block = std::max<Index>(worth_a_fork / 8 / std::max<Index>(cost, 1), 1);
  const Index blocks =
      count * cost < worth_a_fork ? std::min<Index>(count, 1) : (count + block - 1) / block;
  kernels::parallel_for(blocks, [&](Index k) {
    const Index end = blocks == 1 ? count : std::min(count, (k + 1) * block);
    for (Index i = k * block; i < end; ++i) f(i);
  });
}

}  // namespace reel
