#pragma once

#include <concepts>
#include <optional>
#include <span>
#include <vector>

#include <reel/autograd/argument.h>
#include <reel/autograd/rng.h>
#include <reel/autograd/tensor.h>

/// Every op, by subject. All of them record on the current tape if one of their inputs is on it,
/// have gradients of every order unless stated otherwise, and throw ShapeError or DTypeError,
/// naming op, arguments and call, before any work is done. Shapes broadcast as in NumPy. Axes may
/// be negative. Subnormal numbers are treated as 0. An Arg<int> is an int to which only integers
/// convert; see argument.h.
namespace reel {

/// An operand: a tensor, or a number, which takes the other operand's dtype.
class Operand {
 public:
  Operand(const Tensor& tensor, Site site = {}) : tensor_(&tensor), site_(site) {}
  template <GivenAs<double> Number>
  Operand(Number number, Site site = {}) : number_(static_cast<double>(number)), site_(site) {}
  template <MistakenFor<double> Bool>
  Operand(Bool, Site site = {}) = delete;
  /// Anything that converts to a tensor, such as a parameter.
  template <class T>
  requires(!std::same_as<T, Tensor> && std::convertible_to<const T&, Tensor>)
      Operand(const T& x, Site site = {})
      : own_(x), tensor_(&own_), site_(site) {}
  Operand(const Operand&) = delete;
  Operand& operator=(const Operand&) = delete;

  /// The operand as a tensor; a number becomes a scalar with the dtype of `other`, stored in
  /// `number`; f32 if both are numbers. Throws DTypeError for a non-integral number if that dtype
  /// is i32.
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
  template <GivenAs<int> Axis>
  Axes(Axis axis) : axes_{Arg<int>(axis)} {}
  template <MistakenFor<int> Number>
  Axes(Number) = delete;
  Axes(std::initializer_list<Arg<int>> axes) : axes_(axes.begin(), axes.end()) {}
  Axes(std::span<const int> axes) : axes_(axes.begin(), axes.end()) {}
  Axes(const std::vector<int>& axes) : Axes(std::span(axes)) {}

  /// A bit mask of the axes. Throws ShapeError for an axis out of range.
  std::uint32_t mask(int rank, const char* op, Site site) const;

 private:
  PoolVector<int> axes_;
};

/// An argument that is not a list of axes: a non-integral number or another tensor.
template <class T>
concept NoAxis = MistakenFor<T, int> || std::convertible_to<const T&, Tensor>;

/// Elementwise, two operands, one of which may be a number: maximum(x, 0.0). i32 sums and products
/// wrap around. Division does not take i32.
Tensor add(const Operand& a, const Operand& b, Site site = {});
Tensor sub(const Operand& a, const Operand& b, Site site = {});
Tensor mul(const Operand& a, const Operand& b, Site site = {});
Tensor div(const Operand& a, const Operand& b, Site site = {});
/// aᵇ, f32 or f64, with the special values of std::pow: NaN where a < 0 is finite and b is not an
/// integer, ∞ for (-∞)^0.5, 1 where b = 0, also for NaN. The gradient of b is NaN where a < 0; at
/// 0⁰ both gradients are 0.
Tensor pow(const Operand& a, const Operand& b, Site site = {});
/// a + w (b - a), f32 or f64, with a tensor or a number as w: exactly a for w = 0, b for w = 1.
Tensor lerp(const Operand& a, const Operand& b, const Operand& w, Site site = {});
/// max(a, b); ties split the gradient equally. NaN where a or b is. The operand that was not taken
/// gets the gradient 0, also where the result's is infinite or NaN: log(maximum(x, 0)) has the
/// gradient 0 where x < 0.
Tensor maximum(const Operand& a, const Operand& b, Site site = {});
/// min(a, b); ties, NaN and what was not taken as for maximum.
Tensor minimum(const Operand& a, const Operand& b, Site site = {});
/// condition ? a : b, with an i32 condition; nonzero is true. Either or both may be numbers. Both
/// are computed, and the one that is not selected gets a gradient of 0, which is multiplied by its
/// own derivative: for an unselected log(x) at x = 0, 0 times 1/x is NaN. Mask the argument
/// instead: log(where(x > 0, x, 1)).
Tensor where(const Tensor& condition, const Operand& a, const Operand& b, Site site = {});

/// add, sub, mul, div and neg.
Tensor operator+(const Operand& a, const Operand& b);
Tensor operator-(const Operand& a, const Operand& b);
Tensor operator*(const Operand& a, const Operand& b);
Tensor operator/(const Operand& a, const Operand& b);
Tensor operator-(const Operand& a);
/// a = a + b and so on: a becomes a new value; other handles and the tape keep the old one. Throws
/// ShapeError if the shape of a would change.
Tensor& operator+=(Tensor& a, const Operand& b);
Tensor& operator-=(Tensor& a, const Operand& b);
Tensor& operator*=(Tensor& a, const Operand& b);
Tensor& operator/=(Tensor& a, const Operand& b);

/// Comparisons: i32 tensors of 0 and 1, without a gradient. With NaN only not_equal is true. == and
/// != are not overloaded: they would suggest a comparison of whole tensors.
Tensor less(const Operand& a, const Operand& b, Site site = {});
Tensor less_equal(const Operand& a, const Operand& b, Site site = {});
Tensor greater(const Operand& a, const Operand& b, Site site = {});
Tensor greater_equal(const Operand& a, const Operand& b, Site site = {});
Tensor equal(const Operand& a, const Operand& b, Site site = {});
Tensor not_equal(const Operand& a, const Operand& b, Site site = {});
Tensor operator<(const Operand& a, const Operand& b);
Tensor operator<=(const Operand& a, const Operand& b);
Tensor operator>(const Operand& a, const Operand& b);
Tensor operator>=(const Operand& a, const Operand& b);

/// Logic: from i32, where nonzero is true, to i32 tensors of 0 and 1, without a gradient.
Tensor logical_and(const Operand& a, const Operand& b, Site site = {});
Tensor logical_or(const Operand& a, const Operand& b, Site site = {});
Tensor logical_xor(const Operand& a, const Operand& b, Site site = {});
Tensor logical_not(const Tensor& x, Site site = {});

// Elementwise, one operand: f32 or f64, and i32 where stated. NaN where a function is undefined (ln
// and √ of negative numbers) and for NaN, except that sign(NaN) is 0.
/// -x, also i32
Tensor neg(const Tensor& x, Site site = {});
/// x², also i32
Tensor square(const Tensor& x, Site site = {});
/// √x
Tensor sqrt(const Tensor& x, Site site = {});
/// 1 / √x
Tensor rsqrt(const Tensor& x, Site site = {});
/// 1 / x
Tensor reciprocal(const Tensor& x, Site site = {});
/// x to the power of a number, with the same special values.
Tensor pow(const Tensor& x, double exponent, Site site = {});
template <MistakenFor<double> Bool>
Tensor pow(const Tensor& x, Bool, Site site = {}) = delete;
/// eˣ
Tensor exp(const Tensor& x, Site site = {});
/// eˣ - 1, accurate near 0
Tensor expm1(const Tensor& x, Site site = {});
/// ln x
Tensor log(const Tensor& x, Site site = {});
/// ln(1 + x), accurate near 0
Tensor log1p(const Tensor& x, Site site = {});
/// sin x
Tensor sin(const Tensor& x, Site site = {});
/// cos x
Tensor cos(const Tensor& x, Site site = {});
/// sin x / cos x
Tensor tan(const Tensor& x, Site site = {});
/// 2/√π ∫₀ˣ e^(-t²) dt
Tensor erf(const Tensor& x, Site site = {});
/// 1 - erf x, accurate where that is small
Tensor erfc(const Tensor& x, Site site = {});
/// |x|, also i32; its derivative is 0 at 0
Tensor abs(const Tensor& x, Site site = {});
/// -1, 0 or 1, also i32; its derivative is 0
Tensor sign(const Tensor& x, Site site = {});
/// The largest integer not above x; its derivative is 0
Tensor floor(const Tensor& x, Site site = {});
/// The nearest integer, ties to even; its derivative is 0
Tensor round(const Tensor& x, Site site = {});
/// min(max(x, low), high), also i32; NaN propagates. Its derivative is 1 from low to high, bounds
/// included, and 0 elsewhere; the function that computed x then gets 0 times its own derivative, as
/// with where(): clamp before a root or a logarithm, not after it. Either bound may be infinite.
/// Throws ValueError if low > high or one is NaN, and DTypeError for an i32 tensor and a
/// non-integral bound.
Tensor clamp(const Tensor& x, Arg<double> low, Arg<double> high, Site site = {});

// Activations.
/// (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)
Tensor tanh(const Tensor& x, Site site = {});
/// 1 / (1 + e⁻ˣ)
Tensor sigmoid(const Tensor& x, Site site = {});
/// -ln(1 + e⁻ˣ), without overflow
Tensor log_sigmoid(const Tensor& x, Site site = {});
/// ln(1 + eˣ), without overflow
Tensor softplus(const Tensor& x, Site site = {});
/// max(x, 0), also i32; NaN propagates. Its derivative is 0 at 0
Tensor relu(const Tensor& x, Site site = {});
/// x where x > 0, elsewhere slope·x; its derivative at 0 is the slope (Maas et al., "Rectifier
/// nonlinearities improve neural network acoustic models", 2013).
Tensor leaky_relu(const Tensor& x, Arg<double> slope = 0.01, Site site = {});
/// x where x > 0, elsewhere alpha·(eˣ - 1); its derivative at 0 is alpha (Clevert et al., "Fast and
/// accurate deep network learning by exponential linear units", 2016).
Tensor elu(const Tensor& x, Arg<double> alpha = 1, Site site = {});
/// x·(1 + erf(x / √2)) / 2 (Hendrycks and Gimpel, "Gaussian error linear units", 2016).
Tensor gelu(const Tensor& x, Site site = {});
/// x·sigmoid(x) (Elfwing et al., "Sigmoid-weighted linear units", 2018).
Tensor silu(const Tensor& x, Site site = {});

// Products: f32 or f64.
/// op(a)·op(b), where op optionally transposes the last two axes: [..., M, K]·[..., K, N] ->
/// [..., M, N]. Leading axes broadcast; if b has rank 2 and a is not transposed, this is a single
/// product over all rows of a. Throws ShapeError for vectors, mismatched inner sizes, and leading
/// axes that do not broadcast.
Tensor matmul(const Tensor& a, const Tensor& b, Arg<bool> transpose_a = false,
              Arg<bool> transpose_b = false, Site site = {});
/// x·wᵀ + b: x [..., N, D], w [H, D], b [H] -> [..., N, H]
Tensor affine(const Tensor& x, const Tensor& w, const Tensor& b, Site site = {});
/// aᵢ·bⱼ of vectors, also i32: [M], [N] -> [M, N]
Tensor outer(const Tensor& a, const Tensor& b, Site site = {});
/// Σ aᵢ·bᵢ of vectors: [N], [N] -> []
Tensor dot(const Tensor& a, const Tensor& b, Site site = {});

// Shape. reshape, squeeze and expand return views: the result shares the memory of x.
/// The same elements in another shape; one size may be -1 (inferred), unless another is 0. Throws
/// ShapeError if the number of elements differs.
Tensor reshape(const Tensor& x, std::initializer_list<Index> shape, Site site = {});
Tensor reshape(const Tensor& x, const Shape& shape, Site site = {});
/// Removes one axis of size 1: [T, 1, F] -> [T, F]. Throws ShapeError for an axis of another size.
Tensor squeeze(const Tensor& x, Arg<int> axis, Site site = {});
/// Removes all axes of size 1.
Tensor squeeze(const Tensor& x, Site site = {});
/// Inserts an axis of size 1 at `axis` of the result, as NumPy's expand_dims: the inverse of
/// squeeze. [T, F] -> [T, 1, F] for axis 1, [T, F, 1] for -1. Throws ShapeError for rank 4.
Tensor expand(const Tensor& x, Arg<int> axis, Site site = {});
/// The axes in another order: axis a of the result is axis axes[a] of x. Throws ShapeError unless
/// `axes` names each axis once.
Tensor permute(const Tensor& x, std::span<const int> axes, Site site = {});
Tensor permute(const Tensor& x, std::initializer_list<Arg<int>> axes, Site site = {});
/// Swaps two axes.
Tensor transpose(const Tensor& x, Arg<int> axis0 = -2, Arg<int> axis1 = -1, Site site = {});
/// Repeats along axes of size 1 and along new leading axes.
Tensor broadcast_to(const Tensor& x, const Shape& shape, Site site = {});
/// The adjoint of broadcast_to: sums over the axes along which `shape` would be broadcast.
Tensor sum_to(const Tensor& x, const Shape& shape, Site site = {});
/// Elements begin, begin + step, ... < end of one axis; a negative begin or end counts from the
/// end. Throws ShapeError unless 0 <= begin <= end <= size and step >= 1; flip() reverses.
Tensor slice(const Tensor& x, Arg<int> axis, Arg<Index> begin, Arg<Index> end, Arg<Index> step = 1,
             Site site = {});
/// Element i of one axis, which is removed; a negative i counts from the end. Throws ShapeError if
/// i is out of range.
Tensor select(const Tensor& x, Arg<int> axis, Arg<Index> i, Site site = {});
/// The adjoint of slice: zeros, with the elements of one axis at before, before + step, ..., and
/// `after` zeros following the last.
Tensor pad(const Tensor& x, Arg<int> axis, Arg<Index> before, Arg<Index> after, Arg<Index> step = 1,
           Site site = {});
/// Concatenates tensors along an existing axis. Throws ShapeError if other axes differ, and
/// ValueError for an empty list.
Tensor concat(std::span<const Tensor> inputs, Arg<int> axis, Site site = {});
inline Tensor concat(std::initializer_list<Tensor> inputs, Arg<int> axis, Site site = {}) {
  return concat(std::span(inputs.begin(), inputs.size()), axis, site);
}
/// Stacks tensors of equal shape along a new axis. Throws as concat does.
Tensor stack(std::span<const Tensor> inputs, Arg<int> axis = 0, Site site = {});
inline Tensor stack(std::initializer_list<Tensor> inputs, Arg<int> axis = 0, Site site = {}) {
  return stack(std::span(inputs.begin(), inputs.size()), axis, site);
}
/// Splits an axis into `parts` equal parts. Throws ShapeError unless the axis is divisible.
Tensors split(const Tensor& x, Arg<int> parts, Arg<int> axis, Site site = {});
/// Splits an axis into parts of these sizes. Throws ShapeError unless they add up to its size.
Tensors split(const Tensor& x, std::span<const Index> sizes, Arg<int> axis, Site site = {});
inline Tensors split(const Tensor& x, std::initializer_list<Index> sizes, Arg<int> axis,
                     Site site = {}) {
  return split(x, std::span(sizes.begin(), sizes.size()), axis, site);
}
/// Reverses an axis.
Tensor flip(const Tensor& x, Arg<int> axis, Site site = {});
/// Each element of an axis `count` times in a row, as in NumPy: (a, b) -> (a, a, b, b).
Tensor repeat(const Tensor& x, Arg<Index> count, Arg<int> axis, Site site = {});
/// Zeroes everything above the k-th diagonal of the last two axes: keeps x[i, j] where j <= i + k.
/// Throws ShapeError below rank 2.
Tensor tril(const Tensor& x, Arg<Index> k = 0, Site site = {});
/// Zeroes everything below it: keeps x[i, j] where j >= i + k.
Tensor triu(const Tensor& x, Arg<Index> k = 0, Site site = {});

// Reductions over some or all axes, which are removed unless `keepdims`. f32 or f64, and i32 where
// stated. Throw ShapeError for an axis that is out of range or given twice.
/// Σ x, also i32, which wraps around; 0 over an empty axis.
Tensor sum(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
/// Σ x / n; NaN over an empty axis.
Tensor mean(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
/// Π x, also i32, which wraps around; 1 over an empty axis. The gradient uses no division, so it is
/// correct where elements are 0.
Tensor prod(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
/// Σ (x - mean)² / (n - correction). Throws ShapeError unless n > correction, and ValueError for a
/// negative correction.
Tensor var(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false,
           Arg<int> correction = 0, Site site = {});
/// √var, which throws in the same cases; its gradient is 0 where it is 0. With `using namespace
/// reel` it needs its full name, reel::std(x).
Tensor std(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false,
           Arg<int> correction = 0, Site site = {});
/// √(Σ x²), without overflow; its gradient is 0 where it is 0. A single axis is given in braces, as
/// in norm(x, {1}): the 1 in norm(x, 1) could be taken for an order.
Tensor norm(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
template <class Number>
requires(std::is_arithmetic_v<Number>) Tensor
    norm(const Tensor& x, Number, Arg<bool> = false, Site = {})
= delete;  // norm(x, {axis})
/// The largest element, also i32, or NaN if there is one; ties share the gradient equally, and the
/// others get 0, also where the result's is infinite or NaN. Throws ShapeError for an empty axis.
Tensor max(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
/// The smallest element; otherwise as max.
Tensor min(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
template <NoAxis T>
Tensor max(const Tensor& x, const T&, Site site = {}) = delete;  // maximum(x, y) compares two
template <NoAxis T>
Tensor min(const Tensor& x, const T&, Site site = {}) = delete;  // minimum(x, y) compares two
/// ln Σ eˣ, without overflow; -∞, with a gradient of 0, if all x are. Throws ShapeError for an
/// empty axis.
Tensor logsumexp(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false,
                 Site site = {});
/// 1 if any element is nonzero, otherwise 0; x of any dtype -> i32, without a gradient.
Tensor any(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
/// 1 if all elements are nonzero, otherwise 0; x of any dtype -> i32, without a gradient.
Tensor all(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});

// Along one axis.
/// The index of the largest element, the first one in case of ties; NaN counts as the largest. x of
/// any dtype -> i32, without a gradient. Throws ShapeError for an empty axis.
Tensor argmax(const Tensor& x, Arg<int> axis = -1, Arg<bool> keepdims = false, Site site = {});
/// The index of the smallest element; otherwise as argmax, with NaN as the smallest.
Tensor argmin(const Tensor& x, Arg<int> axis = -1, Arg<bool> keepdims = false, Site site = {});
/// Cumulative sum y[i] = x[0] + ... + x[i], or in reverse y[i] = x[i] + ... + x[n-1]; also i32,
/// which wraps around.
Tensor cumsum(const Tensor& x, Arg<int> axis = -1, Arg<bool> reverse = false, Site site = {});

// Indices, i32. An index out of range throws ValueError naming it and its position.
/// table [N, F], rows i32 [...] -> [..., F].
Tensor gather_rows(const Tensor& table, const Tensor& rows, Site site = {});
/// The adjoint of gather_rows: adds source [..., F] to the rows of zeros [N, F].
Tensor scatter_add_rows(const Tensor& source, const Tensor& rows, Arg<Index> row_count,
                        Site site = {});
/// Gathers elements along one axis: y[i, j] = x[indices[i, j], j] for axis 0. The indices have the
/// rank of x and its size in all other axes; the result has their shape.
Tensor take_along(const Tensor& x, const Tensor& indices, Arg<int> axis, Site site = {});
/// The adjoint of take_along: adds source, which has the shape of the indices, to zeros whose axis
/// has `size` elements.
Tensor scatter_along(const Tensor& source, const Tensor& indices, Arg<Index> size, Arg<int> axis,
                     Site site = {});
/// 1 at each index and 0 elsewhere, along a new last axis: i32 [...] -> [..., classes]. Without a
/// gradient.
Tensor one_hot(const Tensor& indices, Arg<Index> classes, DType dtype = f32, Site site = {});
/// `value` where the mask, i32 and broadcast to the shape of x, is nonzero, and x elsewhere. The
/// function that computed a masked x gets 0 times its own derivative, as with where(): mask its
/// arguments instead. Throws ValueError if x is i32 and the value is not.
Tensor masked_fill(const Tensor& x, const Tensor& mask, Arg<double> value, Site site = {});

/// Sorted elements along an axis, and their indices.
struct Ordered {
  Tensor values;   ///< with gradients
  Tensor indices;  ///< i32
};
/// Sorts an axis in ascending or descending order. The sort is stable, and NaN comes last in both
/// directions.
Ordered sort(const Tensor& x, Arg<int> axis = -1, Arg<bool> descending = false, Site site = {});
/// The k largest elements of an axis in descending order: the first k of a descending sort. Throws
/// ShapeError unless 0 <= k <= size.
Ordered topk(const Tensor& x, Arg<Index> k, Arg<int> axis = -1, Site site = {});
/// Only the indices of sort and of topk, without a gradient.
Tensor argsort(const Tensor& x, Arg<int> axis = -1, Arg<bool> descending = false, Site site = {});
Tensor topk_indices(const Tensor& x, Arg<Index> k, Arg<int> axis = -1, Site site = {});

// Normalisation.
/// eˣ / Σ eˣ along one axis: 0 for x = -∞, and NaN if all x are.
Tensor softmax(const Tensor& x, Arg<int> axis = -1, Site site = {});
/// x - ln Σ eˣ along one axis, NaN if all x are -∞; not rounded at the magnitude of x.
Tensor log_softmax(const Tensor& x, Arg<int> axis = -1, Site site = {});
/// gain·(x - mean) / √(variance + epsilon) + bias over the last axis: x [..., F], gain and bias [F]
/// (Ba et al., "Layer normalization", 2016).
Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias,
                  Arg<double> epsilon = 1e-5, Site site = {});
/// gain·x / √(mean(x²) + epsilon) over the last axis: x [..., F], gain [F] (Zhang and Sennrich,
/// "Root mean square layer normalization", 2019).
Tensor rms_norm(const Tensor& x, const Tensor& gain, Arg<double> epsilon = 1e-5, Site site = {});
/// Zeroes each element with probability `rate` and divides the others by 1 - rate. The mask is a
/// function of the generator's position, so the backward pass regenerates it instead of storing it.
/// Throws ValueError unless 0 <= rate < 1.
Tensor dropout(const Tensor& x, Arg<double> rate, Rng& rng, Site site = {});

// Losses: scalars in nats, means by default. Weights, which may be a mask of zeros and ones, have
// the dtype of the prediction and give a weighted mean; a position of weight 0 contributes nothing,
// whatever its values. An empty mean (no positions, or weights that sum to 0) throws ValueError; an
// empty sum is 0. Floating-point targets and weights have gradients too.
/// Whether a loss is the mean over its positions or the plain sum Σ w·loss (PyTorch's reduction).
enum class LossReduction { mean, sum };

/// Weights passed in place of options: a tensor, a parameter, an optional tensor.
template <class W>
concept LossWeights = std::convertible_to<const W&, std::optional<Tensor>>;

/// The options of cross_entropy and nll.
struct CrossEntropyOptions {
  Tensor weights = {};         ///< p [...], position weights
  Tensor class_weights = {};   ///< c [V]
  double label_smoothing = 0;  ///< e, from 0 to 1
  /// Positions with this target are ignored; it need not be one of the classes.
  std::optional<std::int32_t> ignore_index = {};
  LossReduction reduction = LossReduction::mean;  ///< a sum omits the divisor
};
/// The negative log-likelihood of the targets under softmax(logits), logits [..., V]; with ℓ =
/// log_softmax(logits):
///
///     Σ p·((1 - e)·c[t]·(-ℓ[t]) + e/V·Σ c·(-ℓ)) / Σ p·c[t]    for targets t i32 [...]
///     Σ p·Σ c·((1 - e)·q + e/V)·(-ℓ) / Σ p                    for probabilities q [..., V]
///
/// These are PyTorch's definitions. A term with a factor of 0 is skipped: a class of weight 0 may
/// have a logit of -∞. Throws ValueError for a target outside 0 .. V-1 other than ignore_index,
/// even where the weight is 0, and for ignore_index with probabilities.
Tensor cross_entropy(const Tensor& logits, const Tensor& targets,
                     const CrossEntropyOptions& options = {}, Site site = {});
/// The options of linear_cross_entropy.
struct LinearCrossEntropyOptions {
  Tensor weights = {};                            ///< p [...], position weights
  double label_smoothing = 0;                     ///< e, from 0 to 1
  std::optional<std::int32_t> ignore_index = {};  ///< as in CrossEntropyOptions
  LossReduction reduction = LossReduction::mean;
};
/// cross_entropy(x wᵀ + b, targets), for x [..., H], w [V, H], b [V] or undefined and targets i32
/// [...], without the logits [..., V]: these are made for some hundred rows at a time, and the
/// gradients of x, w and b in the same pass over them. So large vocabularies take little memory.
/// The loss has the bits of cross_entropy, its gradients agree up to rounding.
Tensor linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& b,
                            const Tensor& targets, const LinearCrossEntropyOptions& options = {},
                            Site site = {});
/// The same as cross_entropy for targets i32 [...], from log-probabilities ℓ [..., V].
Tensor nll(const Tensor& log_probabilities, const Tensor& targets,
           const CrossEntropyOptions& options = {}, Site site = {});

/// The losses below are means over elements, for targets of exactly the shape of x. Weights have
/// the leading axes of x (none, some or all): each applies to all elements under it.
struct LossOptions {
  Tensor weights = {};
  LossReduction reduction = LossReduction::mean;
};
/// The options of bce_with_logits.
struct BceOptions {
  Tensor weights = {};
  double positive_weight = 1;  ///< w, weight of positive examples
  LossReduction reduction = LossReduction::mean;
};
/// (x - t)²
Tensor mse(const Tensor& x, const Tensor& targets, const LossOptions& options = {}, Site site = {});
/// |x - t|, with derivative 0 at 0
Tensor l1(const Tensor& x, const Tensor& targets, const LossOptions& options = {}, Site site = {});
/// d²/2 where |d| <= delta, and delta·(|d| - delta/2) beyond, with d = x - t (Huber, "Robust
/// estimation of a location parameter", 1964). Throws ValueError unless delta > 0.
Tensor huber(const Tensor& x, const Tensor& targets, Arg<double> delta = 1,
             const LossOptions& options = {}, Site site = {});
/// q·(t - x) where x < t, and (1 - q)·(x - t) elsewhere, with derivative 0 at x = t: least where x
/// is the quantile q of t (Koenker and Bassett, "Regression quantiles", 1978). Throws ValueError
/// unless 0 < q < 1.
Tensor pinball(const Tensor& x, const Tensor& targets, Arg<double> quantile,
               const LossOptions& options = {}, Site site = {});
/// -(w·t·ln σ(x) + (1 - t)·ln(1 - σ(x))) for logits x and probabilities t, without overflow; a term
/// with a factor of 0 is skipped, so an infinite logit can be valid.
Tensor bce_with_logits(const Tensor& logits, const Tensor& targets, const BceOptions& options = {},
                       Site site = {});
/// The Kullback-Leibler divergence Σ t·(ln t - ℓ) over the last axis, for probabilities t and
/// log-probabilities ℓ [..., V], with 0 ln 0 = 0; the mean over the positions [...], to which the
/// weights apply (PyTorch's "batchmean"). At t = 0 the gradient of t ln t is taken as 0.
Tensor kl_div(const Tensor& log_probabilities, const Tensor& targets,
              const LossOptions& options = {}, Site site = {});

namespace detail {
inline Tensor loss_weights(const std::optional<Tensor>& weights) {
  return weights.value_or(Tensor());
}
}  // namespace detail
/// The same with weights in place of options.
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, const LossWeights auto& weights,
                     Site site = {}) {
  return cross_entropy(logits, targets, {.weights = detail::loss_weights(weights)}, site);
}
Tensor mse(const Tensor& x, const Tensor& targets, const LossWeights auto& weights,
           Site site = {}) {
  return mse(x, targets, {.weights = detail::loss_weights(weights)}, site);
}
Tensor l1(const Tensor& x, const Tensor& targets, const LossWeights auto& weights, Site site = {}) {
  return l1(x, targets, {.weights = detail::loss_weights(weights)}, site);
}
Tensor huber(const Tensor& x, const Tensor& targets, Arg<double> delta,
             const LossWeights auto& weights, Site site = {}) {
  return huber(x, targets, delta, {.weights = detail::loss_weights(weights)}, site);
}
Tensor pinball(const Tensor& x, const Tensor& targets, Arg<double> quantile,
               const LossWeights auto& weights, Site site = {}) {
  return pinball(x, targets, quantile, {.weights = detail::loss_weights(weights)}, site);
}
Tensor bce_with_logits(const Tensor& logits, const Tensor& targets, const LossWeights auto& weights,
                       Arg<double> positive_weight = 1, Site site = {}) {
  return bce_with_logits(
      logits, targets,
      {.weights = detail::loss_weights(weights), .positive_weight = positive_weight}, site);
}
Tensor kl_div(const Tensor& log_probabilities, const Tensor& targets,
              const LossWeights auto& weights, Site site = {}) {
  return kl_div(log_probabilities, targets, {.weights = detail::loss_weights(weights)}, site);
}

}  // namespace reel
