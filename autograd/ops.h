#pragma once

#include <concepts>
#include <optional>
#include <span>
#include <vector>

#include <reel/autograd/rng.h>
#include <reel/autograd/tensor.h>

/// Every op, by subject. All of them record on the current tape if one of their inputs is on it,
/// have gradients of every order unless they say otherwise, and throw ShapeError or DTypeError,
/// naming op, arguments and call, before any work. Shapes broadcast as in NumPy. Axes may be
/// negative.
namespace reel {

/// An operand of an operator: a tensor, or a number, which takes the other operand's dtype.
class Operand {
 public:
  Operand(const Tensor& tensor, Site site = {}) : tensor_(&tensor), site_(site) {}
  Operand(double number, Site site = {}) : number_(number), site_(site) {}
  /// What stands for a tensor, as a parameter does.
  template <class T>
  requires(!std::same_as<T, Tensor> && std::convertible_to<const T&, Tensor>)
      Operand(const T& x, Site site = {})
      : own_(x), tensor_(&own_), site_(site) {}
  Operand(const Operand&) = delete;
  Operand& operator=(const Operand&) = delete;

  /// The operand as a tensor; a number becomes a scalar with the dtype of `other`, kept in
  /// `number`. Throws DTypeError for a number with a fraction where that dtype is i32.
  const Tensor& resolve(const Operand& other, Tensor& number) const;
  Site site() const { return site_; }

 private:
  Tensor own_;
  const Tensor* tensor_ = nullptr;
  double number_ = 0;
  Site site_;
};

/// The axes of a reduction; by default all.
class Axes {
 public:
  Axes() = default;
  Axes(int axis) : axes_{axis} {}
  Axes(std::initializer_list<int> axes) : axes_(axes) {}

  /// A bit for each axis. Throws ShapeError for an axis out of range.
  std::uint32_t mask(int rank, const char* op, Site site) const;

 private:
  PoolVector<int> axes_;
};

// Elementwise, two operands: z = a + b and so on.
Tensor add(const Tensor& a, const Tensor& b, Site site = {});
Tensor sub(const Tensor& a, const Tensor& b, Site site = {});
Tensor mul(const Tensor& a, const Tensor& b, Site site = {});
Tensor div(const Tensor& a, const Tensor& b, Site site = {});
/// max(a, b); where they are equal each gets half of the gradient.
Tensor maximum(const Tensor& a, const Tensor& b, Site site = {});
/// min(a, b), likewise.
Tensor minimum(const Tensor& a, const Tensor& b, Site site = {});
/// condition ? a : b, with an i32 condition; not 0 is true.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b, Site site = {});

Tensor operator+(const Operand& a, const Operand& b);
Tensor operator-(const Operand& a, const Operand& b);
Tensor operator*(const Operand& a, const Operand& b);
Tensor operator/(const Operand& a, const Operand& b);
Tensor operator-(const Operand& a);

// Comparisons: i32 tensors of 0 and 1, without gradient.
Tensor less(const Tensor& a, const Tensor& b, Site site = {});
Tensor greater(const Tensor& a, const Tensor& b, Site site = {});
Tensor equal(const Tensor& a, const Tensor& b, Site site = {});
Tensor operator<(const Operand& a, const Operand& b);
Tensor operator>(const Operand& a, const Operand& b);

// Elementwise, one operand.
/// -x
Tensor neg(const Tensor& x, Site site = {});
/// eˣ
Tensor exp(const Tensor& x, Site site = {});
/// ln x
Tensor log(const Tensor& x, Site site = {});
/// √x
Tensor sqrt(const Tensor& x, Site site = {});
/// x²
Tensor square(const Tensor& x, Site site = {});
/// |x|, with derivative 0 at 0
Tensor abs(const Tensor& x, Site site = {});
/// -1, 0 or 1; its derivative is 0
Tensor sign(const Tensor& x, Site site = {});
/// (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)
Tensor tanh(const Tensor& x, Site site = {});
/// 1 / (1 + e⁻ˣ)
Tensor sigmoid(const Tensor& x, Site site = {});
/// max(x, 0), with derivative 0 at 0
Tensor relu(const Tensor& x, Site site = {});

// Products.
/// op(a)·op(b), where op transposes if asked: [M, K]·[K, N] -> [M, N]. With b of rank 2 and a not
/// transposed, a may have leading axes: [T, B, K]·[K, N] -> [T, B, N].
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a = false, bool transpose_b = false,
              Site site = {});
/// x·wᵀ + b: x [..., D], w [H, D], b [H] -> [..., H]
Tensor affine(const Tensor& x, const Tensor& w, const Tensor& b, Site site = {});

// Shape.
/// The same numbers in another shape of the same size; one size may be -1.
Tensor reshape(const Tensor& x, std::initializer_list<Index> shape, Site site = {});
Tensor reshape(const Tensor& x, const Shape& shape, Site site = {});
/// Exchanges two axes.
Tensor transpose(const Tensor& x, int axis0 = -2, int axis1 = -1, Site site = {});
/// Repeats along axes of size 1 and new leading axes.
Tensor broadcast_to(const Tensor& x, const Shape& shape, Site site = {});
/// The adjoint of broadcast_to: sums over the axes along which `shape` would be broadcast.
Tensor sum_to(const Tensor& x, const Shape& shape, Site site = {});
/// Elements begin <= i < end of one axis; negative ends count from the end.
Tensor slice(const Tensor& x, int axis, Index begin, Index end, Site site = {});
/// Element i of one axis, which goes away.
Tensor select(const Tensor& x, int axis, Index i, Site site = {});
/// Puts `before` and `after` zeros at the ends of one axis.
Tensor pad(const Tensor& x, int axis, Index before, Index after, Site site = {});
/// Joins tensors along an axis that they have.
Tensor concat(std::span<const Tensor> inputs, int axis, Site site = {});
inline Tensor concat(std::initializer_list<Tensor> inputs, int axis, Site site = {}) {
  return concat(std::span(inputs.begin(), inputs.size()), axis, site);
}
/// Joins tensors of one shape along a new axis.
Tensor stack(std::span<const Tensor> inputs, int axis = 0, Site site = {});
inline Tensor stack(std::initializer_list<Tensor> inputs, int axis = 0, Site site = {}) {
  return stack(std::span(inputs.begin(), inputs.size()), axis, site);
}
/// Cuts an axis in `parts` equal parts.
std::vector<Tensor> split(const Tensor& x, int parts, int axis, Site site = {});
/// Reverses an axis.
Tensor flip(const Tensor& x, int axis, Site site = {});

// Reductions over some or all axes, which go away unless `keepdims`.
Tensor sum(const Tensor& x, const Axes& axes = {}, bool keepdims = false, Site site = {});
Tensor mean(const Tensor& x, const Axes& axes = {}, bool keepdims = false, Site site = {});
/// The largest element; equal ones share the gradient. Throws ShapeError over an empty axis.
Tensor max(const Tensor& x, const Axes& axes = {}, bool keepdims = false, Site site = {});
/// ln Σ eˣ, without overflow
Tensor logsumexp(const Tensor& x, const Axes& axes = {}, bool keepdims = false, Site site = {});

// Rows.
/// table [N, F], rows i32 [...] -> [..., F]. Throws ValueError for a row outside 0 .. N-1.
Tensor gather_rows(const Tensor& table, const Tensor& rows, Site site = {});
/// The adjoint of gather_rows: adds source [..., F] to the rows of zeros [N, F]. Throws likewise.
Tensor scatter_add_rows(const Tensor& source, const Tensor& rows, Index row_count, Site site = {});

// Normalisation and losses.
/// eˣ / Σ eˣ along one axis
Tensor softmax(const Tensor& x, int axis = -1, Site site = {});
/// x - ln Σ eˣ along one axis
Tensor log_softmax(const Tensor& x, int axis = -1, Site site = {});
/// The mean over positions of -ln softmax(logits)[target], in nats: logits [..., V], targets i32
/// [...]. With a mask or weights w [...]: Σ w·loss / Σ w. Throws ValueError for a target outside
/// 0 .. V-1, also where the weight is 0.
Tensor cross_entropy(const Tensor& logits, const Tensor& targets,
                     const std::optional<Tensor>& weights = {}, Site site = {});
/// gain·(x - mean) / √(variance + epsilon) + bias over the last axis: x [..., F], gain and bias [F]
/// (Ba et al., "Layer normalization", 2016).
Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double epsilon = 1e-5,
                  Site site = {});
/// Zeroes each element with probability `rate` and divides the others by 1 - rate. The mask is a
/// function of the generator's position, so the backward pass draws it again instead of storing it.
/// Throws ValueError unless 0 <= rate < 1.
Tensor dropout(const Tensor& x, double rate, Rng& rng, Site site = {});

}  // namespace reel
