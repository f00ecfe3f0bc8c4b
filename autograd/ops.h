#pragma once

#include <concepts>
#include <optional>
#include <span>
#include <vector>

#include <reel/autograd/argument.h>
#include <reel/autograd/rng.h>
#include <reel/autograd/tensor.h>

/// Every op, by subject. All of them record on the current tape if one of their inputs is on it,
/// have gradients of every order unless they say otherwise, and throw ShapeError or DTypeError,
/// naming op, arguments and call, before any work. Shapes broadcast as in NumPy. Axes may be
/// negative. Subnormal numbers count as 0. An Arg<int> is an int that only integers convert to; see
/// argument.h.
namespace reel {

/// An operand: a tensor, or a number, which takes the other operand's dtype.
class Operand {
 public:
  Operand(const Tensor& tensor, Site site = {}) : tensor_(&tensor), site_(site) {}
  template <GivenAs<double> Number>
  Operand(Number number, Site site = {}) : number_(static_cast<double>(number)), site_(site) {}
  template <MistakenFor<double> Bool>
  Operand(Bool, Site site = {}) = delete;
  /// What stands for a tensor, as a parameter does.
  template <class T>
  requires(!std::same_as<T, Tensor> && std::convertible_to<const T&, Tensor>)
      Operand(const T& x, Site site = {})
      : own_(x), tensor_(&own_), site_(site) {}
  Operand(const Operand&) = delete;
  Operand& operator=(const Operand&) = delete;

  /// The operand as a tensor; a number becomes a scalar with the dtype of `other`, kept in
  /// `number`; of two numbers f32. Throws DTypeError for a number with a fraction where that dtype
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

  /// A bit for each axis. Throws ShapeError for an axis out of range.
  std::uint32_t mask(int rank, const char* op, Site site) const;

 private:
  PoolVector<int> axes_;
};

/// What is compared with a tensor, and names no axis of it: a fraction or another tensor.
template <class T>
concept NoAxis = MistakenFor<T, int> || std::convertible_to<const T&, Tensor>;

// Elementwise, two operands, of which one may be a number: maximum(x, 0.0). Where an op takes i32,
// sums and products wrap around. A division takes no i32.
Tensor add(const Operand& a, const Operand& b, Site site = {});
Tensor sub(const Operand& a, const Operand& b, Site site = {});
Tensor mul(const Operand& a, const Operand& b, Site site = {});
Tensor div(const Operand& a, const Operand& b, Site site = {});
/// aᵇ, f32 or f64, with the special values of std::pow: NaN where a < 0 is finite and b is no whole
/// number, ∞ for (-∞)^0.5, 1 where b = 0, also for NaN. The gradient of b is NaN where a < 0, and
/// both are those of a constant at 0⁰.
Tensor pow(const Operand& a, const Operand& b, Site site = {});
/// a + w (b - a), f32 or f64, with a tensor or a number as w: exactly a for w = 0, b for w = 1.
Tensor lerp(const Operand& a, const Operand& b, const Operand& w, Site site = {});
/// max(a, b); where they are equal each gets half of the gradient. NaN where a or b is.
Tensor maximum(const Operand& a, const Operand& b, Site site = {});
/// min(a, b), likewise.
Tensor minimum(const Operand& a, const Operand& b, Site site = {});
/// condition ? a : b, with an i32 condition; not 0 is true. Either or both may be
/// numbers. Both are computed, and the gradient of
/// the one not taken is 0, which the rule behind it multiplies: where log(x) is not taken at x = 0,
/// 0 times 1/x is NaN. Give that function arguments that it can take: log(where(x > 0, x, 1)).
Tensor where(const Tensor& condition, const Operand& a, const Operand& b, Site site = {});

Tensor operator+(const Operand& a, const Operand& b);
Tensor operator-(const Operand& a, const Operand& b);
Tensor operator*(const Operand& a, const Operand& b);
Tensor operator/(const Operand& a, const Operand& b);
Tensor operator-(const Operand& a);
/// a = a + b and so on: a is a new value afterwards, and its former one stays what it was for other
/// handles and for the tape. Throws ShapeError where a would take another shape.
Tensor& operator+=(Tensor& a, const Operand& b);
Tensor& operator-=(Tensor& a, const Operand& b);
Tensor& operator*=(Tensor& a, const Operand& b);
Tensor& operator/=(Tensor& a, const Operand& b);

// Comparisons: i32 tensors of 0 and 1, without gradient. With a NaN only not_equal holds. == and !=
// are not overloaded: they would be taken for a comparison of whole tensors.
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

// Logic: from i32, where not 0 is true, to i32 tensors of 0 and 1, without gradient.
Tensor logical_and(const Operand& a, const Operand& b, Site site = {});
Tensor logical_or(const Operand& a, const Operand& b, Site site = {});
Tensor logical_xor(const Operand& a, const Operand& b, Site site = {});
Tensor logical_not(const Tensor& x, Site site = {});

// Elementwise, one operand: f32 or f64, and i32 where it says so. NaN where a function is not
// defined (ln and √ of negative numbers), and for NaN, except that sign is 0.
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
/// x to the power of a number, likewise.
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
/// The largest integer that is not above x; its derivative is 0
Tensor floor(const Tensor& x, Site site = {});
/// The nearest integer, ties to even; its derivative is 0
Tensor round(const Tensor& x, Site site = {});
/// min(max(x, low), high), also i32; NaN stays. Its derivative is 1 from low to high, bounds
/// included, and 0 elsewhere; what made x then has a gradient of 0 times its own derivative, as at
/// where(): clamp before a root or a logarithm, not behind it. Either bound may be infinite. Throws
/// ValueError if low > high or one is NaN, and DTypeError for an i32 tensor and a bound with a
/// fraction.
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
/// max(x, 0), also i32; NaN stays. Its derivative is 0 at 0
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
/// op(a)·op(b), where op transposes the last two axes if asked: [..., M, K]·[..., K, N] ->
/// [..., M, N]. Leading axes broadcast; with b of rank 2 and a not transposed all rows of a are
/// one product. Throws ShapeError for vectors, inner sizes that differ, and leading axes that do
/// not broadcast.
Tensor matmul(const Tensor& a, const Tensor& b, Arg<bool> transpose_a = false,
              Arg<bool> transpose_b = false, Site site = {});
/// x·wᵀ + b: x [..., N, D], w [H, D], b [H] -> [..., N, H]
Tensor affine(const Tensor& x, const Tensor& w, const Tensor& b, Site site = {});
/// aᵢ·bⱼ of vectors, also i32: [M], [N] -> [M, N]
Tensor outer(const Tensor& a, const Tensor& b, Site site = {});
/// Σ aᵢ·bᵢ of vectors: [N], [N] -> []
Tensor dot(const Tensor& a, const Tensor& b, Site site = {});

// Shape. reshape, squeeze and expand copy no numbers: the result shares the memory of x.
/// The same numbers in another shape of the same size; one size may be -1, unless another is 0.
/// Throws ShapeError for another size.
Tensor reshape(const Tensor& x, std::initializer_list<Index> shape, Site site = {});
Tensor reshape(const Tensor& x, const Shape& shape, Site site = {});
/// Without one axis of size 1: [T, 1, F] -> [T, F]. Throws ShapeError for an axis of another size.
Tensor squeeze(const Tensor& x, Arg<int> axis, Site site = {});
/// Without all axes of size 1.
Tensor squeeze(const Tensor& x, Site site = {});
/// With a new axis of size 1 at `axis` of the result, as NumPy's expand_dims: the inverse of
/// squeeze. [T, F] -> [T, 1, F] for axis 1, [T, F, 1] for -1. Throws ShapeError for rank 4.
Tensor expand(const Tensor& x, Arg<int> axis, Site site = {});
/// The axes in another order: axis a of the result is axis axes[a] of x. Throws ShapeError unless
/// `axes` names each axis once.
Tensor permute(const Tensor& x, std::span<const int> axes, Site site = {});
inline Tensor permute(const Tensor& x, std::initializer_list<int> axes, Site site = {}) {
  return permute(x, std::span(axes.begin(), axes.size()), site);
}
/// Exchanges two axes.
Tensor transpose(const Tensor& x, Arg<int> axis0 = -2, Arg<int> axis1 = -1, Site site = {});
/// Repeats along axes of size 1 and along new leading axes.
Tensor broadcast_to(const Tensor& x, const Shape& shape, Site site = {});
/// The adjoint of broadcast_to: sums over the axes along which `shape` would be broadcast.
Tensor sum_to(const Tensor& x, const Shape& shape, Site site = {});
/// Elements begin, begin + step, ... < end of one axis; a negative begin or end counts from the
/// end. Throws ShapeError unless 0 <= begin <= end <= size and step >= 1; flip() reverses.
Tensor slice(const Tensor& x, Arg<int> axis, Arg<Index> begin, Arg<Index> end, Arg<Index> step = 1,
             Site site = {});
/// Element i of one axis, which goes away; a negative i counts from the end. Throws ShapeError
/// where there is none.
Tensor select(const Tensor& x, Arg<int> axis, Arg<Index> i, Site site = {});
/// The adjoint of slice: zeros in which the elements of one axis stand at before, before + step,
/// ..., with `after` zeros behind the last.
Tensor pad(const Tensor& x, Arg<int> axis, Arg<Index> before, Arg<Index> after, Arg<Index> step = 1,
           Site site = {});
/// Joins tensors along an axis that they have. Throws ShapeError where other axes differ, and
/// ValueError for no tensors.
Tensor concat(std::span<const Tensor> inputs, Arg<int> axis, Site site = {});
inline Tensor concat(std::initializer_list<Tensor> inputs, Arg<int> axis, Site site = {}) {
  return concat(std::span(inputs.begin(), inputs.size()), axis, site);
}
/// Joins tensors of one shape along a new axis, likewise.
Tensor stack(std::span<const Tensor> inputs, Arg<int> axis = 0, Site site = {});
inline Tensor stack(std::initializer_list<Tensor> inputs, Arg<int> axis = 0, Site site = {}) {
  return stack(std::span(inputs.begin(), inputs.size()), axis, site);
}
/// Cuts an axis in `parts` equal parts. Throws ShapeError unless the axis is divisible.
Tensors split(const Tensor& x, Arg<int> parts, Arg<int> axis, Site site = {});
/// Cuts an axis in parts of these sizes. Throws ShapeError unless they add up to the axis.
Tensors split(const Tensor& x, std::span<const Index> sizes, Arg<int> axis, Site site = {});
inline Tensors split(const Tensor& x, std::initializer_list<Index> sizes, Arg<int> axis,
                     Site site = {}) {
  return split(x, std::span(sizes.begin(), sizes.size()), axis, site);
}
/// Reverses an axis.
Tensor flip(const Tensor& x, Arg<int> axis, Site site = {});
/// Each element of an axis `count` times in a row, as in NumPy: (a, b) -> (a, a, b, b).
Tensor repeat(const Tensor& x, Arg<Index> count, Arg<int> axis, Site site = {});
/// Zeroes what is above the k-th diagonal of the last two axes: x[i, j] stays where j <= i + k.
/// Throws ShapeError below rank 2.
Tensor tril(const Tensor& x, Arg<Index> k = 0, Site site = {});
/// Zeroes what is below it: x[i, j] stays where j >= i + k.
Tensor triu(const Tensor& x, Arg<Index> k = 0, Site site = {});

// Reductions over some or all axes, which go away unless `keepdims`. f32 or f64, and i32 where it
// says so. Throw ShapeError for an axis out of range, and for one that is named twice.
/// Σ x, also i32, which wraps around; 0 over an empty axis.
Tensor sum(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
/// Σ x / n; NaN over an empty axis.
Tensor mean(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
/// Π x, also i32, which wraps around; 1 over an empty axis. The gradient needs no division, so it
/// is right where elements are 0.
Tensor prod(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
/// Σ (x - mean)² / (n - correction). Throws ShapeError unless n > correction, and ValueError for a
/// negative correction.
Tensor var(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false,
           Arg<int> correction = 0, Site site = {});
/// √var, likewise; its gradient is 0 where it is 0. Beside `using namespace reel` it needs its full
/// name, reel::std(x).
Tensor std(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false,
           Arg<int> correction = 0, Site site = {});
/// √(Σ x²), without overflow; its gradient is 0 where it is 0. One axis is given in braces, as in
/// norm(x, {1}): the 1 of norm(x, 1) could be meant for an order.
Tensor norm(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
template <class Number>
requires(std::is_arithmetic_v<Number>) Tensor
    norm(const Tensor& x, Number, Arg<bool> = false, Site = {})
= delete;  // norm(x, {axis})
/// The largest element, also i32, or NaN if there is one; equal ones share the gradient. Throws
/// ShapeError over an empty axis.
Tensor max(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
/// The smallest element, likewise.
Tensor min(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
template <NoAxis T>
Tensor max(const Tensor& x, const T&, Site site = {}) = delete;  // maximum(x, y) compares two
template <NoAxis T>
Tensor min(const Tensor& x, const T&, Site site = {}) = delete;  // minimum(x, y) compares two
/// ln Σ eˣ, without overflow; -∞, with a gradient of 0, where all x are. Throws ShapeError over an
/// empty axis.
Tensor logsumexp(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false,
                 Site site = {});
/// 1 if one of the elements is not 0, otherwise 0; x of any dtype -> i32, without gradient.
Tensor any(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});
/// 1 if none of the elements is 0, otherwise 0; likewise.
Tensor all(const Tensor& x, const Axes& axes = {}, Arg<bool> keepdims = false, Site site = {});

// Along one axis.
/// The index of the largest element, the first of equal ones; a NaN counts as the largest. x of any
/// dtype -> i32, without gradient. Throws ShapeError for an empty axis.
Tensor argmax(const Tensor& x, Arg<int> axis = -1, Arg<bool> keepdims = false, Site site = {});
/// The index of the smallest element, likewise; a NaN counts as the smallest.
Tensor argmin(const Tensor& x, Arg<int> axis = -1, Arg<bool> keepdims = false, Site site = {});
/// y[i] = x[0] + ... + x[i], or in reverse y[i] = x[i] + ... + x[n-1]; also i32, which wraps
/// around.
Tensor cumsum(const Tensor& x, Arg<int> axis = -1, Arg<bool> reverse = false, Site site = {});

// Indices, i32. An index out of range throws ValueError naming it and its position.
/// table [N, F], rows i32 [...] -> [..., F].
Tensor gather_rows(const Tensor& table, const Tensor& rows, Site site = {});
/// The adjoint of gather_rows: adds source [..., F] to the rows of zeros [N, F].
Tensor scatter_add_rows(const Tensor& source, const Tensor& rows, Arg<Index> row_count,
                        Site site = {});
/// Along one axis the elements that the indices name: y[i, j] = x[indices[i, j], j] for axis 0. The
/// indices agree with x in rank and in all other axes; the result has their shape.
Tensor take_along(const Tensor& x, const Tensor& indices, Arg<int> axis, Site site = {});
/// The adjoint of take_along: adds source, which has the shape of the indices, to zeros whose axis
/// has `size` elements.
Tensor scatter_along(const Tensor& source, const Tensor& indices, Arg<Index> size, Arg<int> axis,
                     Site site = {});
/// 1 at each index and 0 elsewhere, along a new last axis: i32 [...] -> [..., classes]. Without
/// gradient.
Tensor one_hot(const Tensor& indices, Arg<Index> classes, DType dtype = f32, Site site = {});
/// `value` where the mask, i32 and broadcast to the shape of x, is not 0, and x elsewhere. What
/// made a masked x has a gradient of 0 times its own derivative, as at where(): mask its arguments.
/// Throws ValueError for a value that is not an i32 where x is.
Tensor masked_fill(const Tensor& x, const Tensor& mask, Arg<double> value, Site site = {});

/// Some elements along an axis, and where they stood.
struct Ordered {
  Tensor values;   ///< with gradients
  Tensor indices;  ///< i32
};
/// The elements of an axis from the smallest to the largest, or the other way. Equal ones stay in
/// the order in which they come, and NaN comes last, in both directions.
Ordered sort(const Tensor& x, Arg<int> axis = -1, Arg<bool> descending = false, Site site = {});
/// The k largest elements of an axis, the largest first: the first k of a descending sort. Throws
/// ShapeError unless 0 <= k <= size.
Ordered topk(const Tensor& x, Arg<Index> k, Arg<int> axis = -1, Site site = {});
/// The indices of sort and of topk alone, without gradient.
Tensor argsort(const Tensor& x, Arg<int> axis = -1, Arg<bool> descending = false, Site site = {});
Tensor topk_indices(const Tensor& x, Arg<Index> k, Arg<int> axis = -1, Site site = {});

// Normalisation.
/// eˣ / Σ eˣ along one axis: 0 for x = -∞, and NaN where all x are.
Tensor softmax(const Tensor& x, Arg<int> axis = -1, Site site = {});
/// x - ln Σ eˣ along one axis, likewise; it is not rounded at the size of x.
Tensor log_softmax(const Tensor& x, Arg<int> axis = -1, Site site = {});
/// gain·(x - mean) / √(variance + epsilon) + bias over the last axis: x [..., F], gain and bias [F]
/// (Ba et al., "Layer normalization", 2016).
Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias,
                  Arg<double> epsilon = 1e-5, Site site = {});
/// gain·x / √(mean(x²) + epsilon) over the last axis: x [..., F], gain [F] (Zhang and Sennrich,
/// "Root mean square layer normalization", 2019).
Tensor rms_norm(const Tensor& x, const Tensor& gain, Arg<double> epsilon = 1e-5, Site site = {});
/// Zeroes each element with probability `rate` and divides the others by 1 - rate. The mask is a
/// function of the generator's position, so the backward pass draws it again instead of storing it.
/// Throws ValueError unless 0 <= rate < 1.
Tensor dropout(const Tensor& x, Arg<double> rate, Rng& rng, Site site = {});

// Losses: scalars in nats, means unless told otherwise. Weights, which may be a mask of zeros and
// ones, have the dtype of the prediction and make a weighted mean of it; a position of weight 0
// adds nothing, whatever its numbers. A mean of nothing (no position, or weights that sum to 0)
// throws ValueError; a sum of nothing is 0. Targets and weights have gradients too, where they are
// real.
/// Whether a loss is the mean of its positions or their sum, which then is not divided by anything:
/// Σ w·loss (PyTorch's reduction).
enum class LossReduction { mean, sum };

/// What a call can give for weights alone: a tensor, a parameter, an optional tensor.
template <class W>
concept LossWeights = std::convertible_to<const W&, std::optional<Tensor>>;

struct CrossEntropyOptions {
  Tensor weights = {};         ///< p [...], of the positions
  Tensor class_weights = {};   ///< c [V]
  double label_smoothing = 0;  ///< e, from 0 to 1
  /// Positions with this target do not count; it need not be one of the classes.
  std::optional<std::int32_t> ignore_index = {};
  LossReduction reduction = LossReduction::mean;  ///< a sum leaves out the divisor
};
/// The negative log-likelihood of the targets under softmax(logits), logits [..., V]; with ℓ =
/// log_softmax(logits):
///
///     Σ p·((1 - e)·c[t]·(-ℓ[t]) + e/V·Σ c·(-ℓ)) / Σ p·c[t]    for targets t i32 [...]
///     Σ p·Σ c·((1 - e)·q + e/V)·(-ℓ) / Σ p                    for probabilities q [..., V]
///
/// These are PyTorch's definitions. A term with a factor of 0 does not count: a class of weight 0
/// may have a logit of -∞. Throws ValueError for a target outside 0 .. V-1 that is not the ignored
/// one, also where the weight is 0, and for ignore_index with probabilities.
Tensor cross_entropy(const Tensor& logits, const Tensor& targets,
                     const CrossEntropyOptions& options = {}, Site site = {});
/// The same as cross_entropy for targets i32 [...], from log-probabilities ℓ [..., V].
Tensor nll(const Tensor& log_probabilities, const Tensor& targets,
           const CrossEntropyOptions& options = {}, Site site = {});

// The losses below are means over elements, for targets of the very shape of x. Weights have
// leading axes of x (none, some or all): each counts for all elements that it leads to.
struct LossOptions {
  Tensor weights = {};
  LossReduction reduction = LossReduction::mean;
};
struct BceOptions {
  Tensor weights = {};
  double positive_weight = 1;  ///< w, of positive examples
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
/// -(w·t·ln σ(x) + (1 - t)·ln(1 - σ(x))) for logits x and probabilities t, without overflow; a term
/// with a factor of 0 does not count, so an infinite logit may be right.
Tensor bce_with_logits(const Tensor& logits, const Tensor& targets, const BceOptions& options = {},
                       Site site = {});
/// The Kullback-Leibler divergence Σ t·(ln t - ℓ) over the last axis, for probabilities t and
/// log-probabilities ℓ [..., V], with 0 ln 0 = 0; the mean over the positions [...], which the
/// weights lead to (PyTorch's "batchmean"). At t = 0 the gradient of t ln t is taken as 0.
Tensor kl_div(const Tensor& log_probabilities, const Tensor& targets,
              const LossOptions& options = {}, Site site = {});

// The same with weights in place of options.
namespace detail {
inline Tensor loss_weights(const std::optional<Tensor>& weights) {
  return weights.value_or(Tensor());
}
}  // namespace detail
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
Tensor huber(const Tensor& x, const Tensor& targets, double delta, const LossWeights auto& weights,
             Site site = {}) {
  return huber(x, targets, delta, {.weights = detail::loss_weights(weights)}, site);
}
Tensor bce_with_logits(const Tensor& logits, const Tensor& targets, const LossWeights auto& weights,
                       double positive_weight = 1, Site site = {}) {
  return bce_with_logits(
      logits, targets,
      {.weights = detail::loss_weights(weights), .positive_weight = positive_weight}, site);
}
Tensor kl_div(const Tensor& log_probabilities, const Tensor& targets,
              const LossWeights auto& weights, Site site = {}) {
  return kl_div(log_probabilities, targets, {.weights = detail::loss_weights(weights)}, site);
}

}  // namespace reel
