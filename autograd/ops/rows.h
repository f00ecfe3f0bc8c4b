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

}  // namespace reel
