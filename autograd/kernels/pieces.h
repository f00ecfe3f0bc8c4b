#pragma once

#include <algorithm>
#include <span>

#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/kernels/thread_pool.h>

// Work on all numbers of many arrays at once, such as a model's parameters.
namespace reel::kernels {

/// A run of numbers of one of several arrays.
struct Piece {
  std::size_t array;
  Index begin, end;
};

/// Arrays, given by pointers, cut into pieces; the cuts depend on the sizes alone.
template <class Arrays>
PoolVector<Piece> cut(const Arrays& arrays) {
  constexpr Index longest = 1 << 15;
  PoolVector<Piece> pieces;
  for (std::size_t array = 0; array < arrays.size(); ++array)
    for (Index begin = 0, size = arrays[array]->size(); begin < size; begin += longest)
      pieces.push_back({array, begin, std::min(begin + longest, size)});
  return pieces;
}

/// Calls f(k, piece) for every piece k, on the pool's threads when there is enough to do.
template <class F>
void each_piece(std::span<const Piece> pieces, F f) {
  constexpr Index worth_a_fork = 1 << 16;  // numbers
  Index count = 0;
  for (const Piece& piece : pieces) count += piece.end - piece.begin;
  const auto run = [&](std::size_t k) { f(k, pieces[k]); };
  if (count < worth_a_fork)
    for (std::size_t k = 0; k < pieces.size(); ++k) run(k);
  else
    parallel_for(std::ssize(pieces), [&](Index k) { run(static_cast<std::size_t>(k)); });
}

}  // namespace reel::kernels
