#pragma once

#include <reel/autograd/tensor.h>

namespace reel {

namespace kernels {
template <Real T>
struct MatrixView;
template <Real T>
class PackedMatrix;
}  // namespace kernels

/// While one is alive, a right factor that products of this thread have in common is packed once:
/// the weights of a loop over time, forward, and in a backward pass. Packing takes as long as some
/// twenty rows of the product, of which a step has as many as the batch.
///
/// A factor is held once it is packed, so whoever writes to it meanwhile gets a copy, and packed
/// numbers are never stale. Results have the same bits with and without.
class PackedFactors {
 public:
  PackedFactors();
  /// The last one of the thread releases all factors.
  ~PackedFactors();
  PackedFactors(const PackedFactors&) = delete;
  PackedFactors& operator=(const PackedFactors&) = delete;

  /// Says that b, or its transpose, will be the right factor of a product: at the second time it is
  /// worth keeping. A few are kept, those of the most recent products.
  static void expect(const Tensor& b, bool transpose);
  /// The factor, if it is kept, for the product that was expected; otherwise null.
  template <Real T>
  static const kernels::PackedMatrix<T>* find(const kernels::MatrixView<T>& b);
};

}  // namespace reel
