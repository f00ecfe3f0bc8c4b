#pragma once

#include <algorithm>
#include <span>

#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/kernels/thread_pool.h>

// Work on all elements of many arrays at once, such as a model's parameters.
namespace reel::kernels {

/// A contiguous range of one of several arrays.
struct Piece {
  std::size_t array;
  Index begin, end;
};

inline constexpr Index longest_piece = 1 << 15;

/// Splits an array of this size into pieces, which follow `pieces`.
inline void cut(std::size_t array, Index size, PoolVector<Piece>& pieces) {
  for (Index begin = 0; begin < size; begin += longest_piece)
    pieces.push_back({array, begin, std::min(begin + longest_piece, size)});
}
/// Splits arrays, given by pointers, into pieces; the split depends only on the sizes.
template <class Arrays>
PoolVector<Piece> cut(const Arrays& arrays) {
  PoolVector<Piece> pieces;
  for (std::size_t array = 0; array < arrays.size(); ++array)
    cut(array, arrays[array]->size(), pieces);
  return pieces;
}

/// Calls f(k, piece) for every piece k, on the pool's threads if there is enough work.
template <class F>
void each_piece(std::span<const Piece> pieces, F f) {
  constexpr Index worth_a_fork = 1 << 16;  // elements
  Index count = 0;
  for (const Piece& piece : pieces) count += piece.end - piece.begin;
  const auto run = [&](std::size_t k) { f(k, pieces[k]); };
  if (count < worth_a_fork)
    at_level([&] {
      for (std::size_t k = 0; k < pieces.size(); ++k) run(k);
    });
  else
    parallel_for(std::ssize(pieces), [&](Index k) { run(static_cast<std::size_t>(k)); });
}

}  // namespace reel::kernels
