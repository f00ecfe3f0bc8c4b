#pragma once

namespace reel::kernels {

/// a + w (b - a), exact at the ends and without overflow in between.
template <class T>
[[gnu::always_inline]] inline T interpolate(T a, T b, T w) {
  const bool near_a = w < T(0.5);
  const T from_end = (near_a ? a : b) + (near_a ? w : w - 1) * (b - a);
  const T across_zero = (1 - w) * a + w * b;
  const bool undefined = from_end != from_end;  // ∞ - ∞
  const T inner = (((a < 0) != (b < 0)) | undefined) ? across_zero : from_end;
  return w == 0 ? a : w == 1 ? b : inner;
}

}  // namespace reel::kernels
