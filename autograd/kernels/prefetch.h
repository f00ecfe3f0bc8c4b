#pragma once

#include <reel/autograd/shape.h>

namespace reel::kernels {

/// Asks for elements that will be read soon, where the processor does not foresee it: backward in
/// memory, or in pieces with gaps. Addresses after the end of a buffer do no harm.
template <class T>
[[gnu::always_inline]] inline void prefetch(const T* from, Index count) {
  constexpr Index line = 64 / sizeof(T);
  for (Index i = 0; i < count; i += line) __builtin_prefetch(from + i, 0, 2);
}

}  // namespace reel::kernels
