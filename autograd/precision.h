#pragma once

#include <optional>

namespace reel {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"  // GCC 12 says that Precision::f32 hides the dtype f32
/// How the factors of a matrix product are rounded. Sums, and everything else, stay in f32.
enum class Precision {
  f32,  ///< not at all
  bf16  ///< to 8 bits, ties to even: the upper half of an f32
};
#pragma GCC diagnostic pop

/// "f32" or "bf16".
const char* name_of(Precision precision);

/// Sets the precision of matrix products of f32 tensors, initially f32, for all threads: of
/// `matmul`, `affine`, `linear_cross_entropy` and the recurrent layers, forward and backward.
/// Tensors, states and optimizers stay f32; `dot`, nn::Stream and products of f64 tensors are not
/// affected. A product has the precision that is set while it is computed, so a backward pass
/// should have that of its forward pass; a checkpoint is recomputed in that of its first run.
///
/// With bf16 an element of C [M, N] = start + A [M, K] B [K, N] is, on every processor: for each
/// block of 32 k, a chain of fused multiply-adds over the even k and one over the odd k, both from
/// zero, whose sum is added to the element; subnormal numbers count as zero. Sums over more than
/// 8,192 k are cut into parts of that length, which are added in double. (Processors without fused
/// multiply-add differ only where a product of two factors overflows or is subnormal.) That is what
/// the matrix tiles of x86 processors (AMX) compute. Without them bf16 is not faster than f32: see
/// `bf16_is_faster`. (Intel, "64 and IA-32 Architectures Software Developer's Manual", TDPBF16PS.)
void set_matmul_precision(Precision precision);

/// That of this thread's products.
Precision matmul_precision();

/// Whether this processor has matrix tiles for bf16, and this process may use them. Throws
/// ValueError for a wrong REEL_CPU.
bool bf16_is_faster();

/// Sets the precision of this thread's products, those that it spreads over other threads included,
/// for its own lifetime.
class PrecisionScope {
 public:
  /// From now on.
  explicit PrecisionScope(Precision precision);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  std::optional<Precision> before_;
};

}  // namespace reel
