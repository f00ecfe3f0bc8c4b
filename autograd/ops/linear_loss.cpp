#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <span>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/kernels/matmul.h>
#include <reel/autograd/kernels/products.h>
#include <reel/autograd/kernels/thread_pool.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/check_indices.h>
#include <reel/autograd/ops/class_blocks.h>
#include <reel/autograd/ops/class_loss.h>

namespace reel {
using namespace op;
namespace {

using namespace detail;
using kernels::ceil_div;
using kernels::MatrixView;
using kernels::PackedMatrix;
using kernels::Write;

enum Input { x_input, w_input, b_input, targets_input, weights_input };
enum Output { loss_output, dx_output, dw_output, db_output, losses_output };

// The classes of a block: as many as a sum of a product has terms in one of its blocks. Their
// logits, of a chunk of rows, are still in the second-level cache when the powers are taken.
constexpr Index block_classes = kernels::block_depth;

// The rows whose logits exist at a time: as many as a block of a sum has terms, unless they take
// more than 32 MiB.
template <class T>
Index chunk_rows(Index rows, Index classes) {
  constexpr Index logits = (Index{1} << 25) / sizeof(T), least = 64;
  const Index most = std::clamp(logits / classes, least, most_chunk_rows);
  const Index chunks = std::max<Index>(ceil_div(rows, most), 1);
  return padded_rows(ceil_div(rows, chunks));
}

// Blocks whose contributions to the gradient of x are added up by one task, in as long a chain as
// that of a product at most; the sums of the stripes are added in double.
struct Stripes {
  explicit Stripes(Index blocks)
      : height(std::min(ceil_div(blocks, Index{16}), kernels::longest_sum / block_classes)),
        count(ceil_div(blocks, height)) {}
  Index height, count;
};

// A block of classes, and the rows of the weights that belong to it.
template <class T>
struct Block {
  Index index, begin, classes;
  MatrixView<T> w;
};

// A chunk of rows, with what its logits come to.
template <class T>
struct Chunk {
  Index begin, rows;
  Index width = padded_rows(rows);
  RowSums<T> sums = {};
  PerRow<T> target_logits = {};
  PerRow<double> factors = {};  // of the rows' losses
  // The gradient of a logit x is scale · eˣ - shift, apart from its target's.
  PerRow<T> scale = {}, shift = {};
};

// One call. The logits of a chunk lie class by class: the weights are then a factor of all three
// products as they are, and it is the rows of x that are packed. The gradient is made in the
// forward pass, while the powers of a chunk are there: that of the loss itself, which a backward
// pass has only to multiply by the one that arrives.
template <class T>
class Call {
 public:
  Call(Ctx<T> c, const ClassTargets& attr)
      : c_(c),
        classes_(c.shape(w_input)[0]),
        features_(c.shape(w_input)[1]),
        blocks_(ceil_div(classes_, block_classes)),
        rows_{nullptr,
              {c.in(weights_input).data()},
              {nullptr},
              {},
              c.indices(targets_input).data(),
              c.shape(targets_input).size(),
              classes_,
              attr},
        divisor_(divisor("linear_cross_entropy", attr.reduction, rows_.total_weight())),
        losses_(rows_.rows),
        sums_(blocks_),
        bias_sums_(c.recording() ? classes_ : 0) {}

  void run() {
    const Index rows = rows_.rows, most = chunk_rows<T>(rows, classes_);
    const Scratch<T> powers(c_.recording() ? most * classes_ : 0);
    T* const kept = c_.recording() ? powers.data() : nullptr;
    if (c_.recording()) std::fill_n(bias_sums_.data(), classes_, 0.0);
    if (c_.recording() && rows == 0) std::ranges::fill(c_.out(dw_output), T(0));
    for (Index begin = 0; begin < rows; begin += most)
      run({begin, std::min(most, rows - begin)}, kept);
    const double sum = std::accumulate(losses_.data(), losses_.data() + rows, 0.0);
    c_.out(loss_output)[0] = static_cast<T>(sum / divisor_);
    for (Index i = 0; c_.recording() && c_.has(b_input) && i < classes_; ++i)
      c_.out(db_output)[static_cast<std::size_t>(i)] = static_cast<T>(bias_sums_[i]);
  }

 private:
  void run(Chunk<T> chunk, T* powers) {
    take_powers(chunk, powers);
    chunk.sums = unite(std::span(sums_.data(), static_cast<std::size_t>(blocks_)), chunk.width);
    for (Index r = 0; r < chunk.rows; ++r) take_loss(chunk, r);
    if (c_.recording()) add_gradients(chunk, powers);
  }

  Block<T> block(Index k) const {
    const Index begin = k * block_classes, end = std::min(begin + block_classes, classes_);
    const auto w = MatrixView<T>::row_major(c_.in(w_input).data(), classes_, features_);
    return {k, begin, end - begin, w.row_range(begin, end)};
  }
  const T* x_of(const Chunk<T>& chunk) const {
    return c_.in(x_input).data() + chunk.begin * features_;
  }

  // The powers of every block, which are kept for a gradient.
  void take_powers(Chunk<T>& chunk, T* powers) {
    const Index width = chunk.width, size = chunk.rows * features_;
    const Scratch<T> x(width * features_);  // rows of zeros fill up the last vector
    std::fill(std::copy_n(x_of(chunk), size, x.data()), x.data() + width * features_, T(0));
    const PackedMatrix<T> columns(
        MatrixView<T>::row_major(x.data(), width, features_).transposed());
    kernels::parallel_for(blocks_, [&](Index k) {
      const Block<T> block = this->block(k);
      const Scratch<T> logits(block.classes * width);
      kernels::multiply(block.w, columns, logits.data(), width, Write::assign);
      take_powers(chunk, block, logits.data(), powers ? powers + block.begin * width : nullptr);
    });
  }

  void take_powers(Chunk<T>& chunk, const Block<T>& block, const T* logits, T* powers) {
    const T* const bias = c_.has(b_input) ? c_.in(b_input).data() + block.begin : nullptr;
    each_target(chunk, block, [&](std::size_t r, Index c) {
      chunk.target_logits[r] =
          logits[c * chunk.width + static_cast<Index>(r)] + (bias ? bias[c] : T(0));
    });
    const BlockOfLogits<T> x{logits, bias, block.classes, chunk.width};
    sums_[block.index] = detail::take_powers(x, rows_.attr.smoothing != 0, powers);
  }

  // Calls f(row, class) for the rows whose target is in the block, counted from its first class.
  template <class F>
  void each_target(const Chunk<T>& chunk, const Block<T>& block, F f) const {
    const std::int32_t* const targets = rows_.targets + chunk.begin;
    for (Index r = 0; r < chunk.rows; ++r)
      if (const Index c = targets[r] - block.begin; c >= 0 && c < block.classes)
        f(static_cast<std::size_t>(r), c);
  }

  void take_loss(Chunk<T>& chunk, Index k) {
    const auto r = static_cast<std::size_t>(k);
    const Index row = chunk.begin + k;
    const double weight = rows_.weight(row);
    losses_[row] = unless_zero(weight, [&] { return loss(chunk, r); });
    if (!c_.recording()) return;
    if (c_.has(weights_input))
      c_.out(losses_output)[static_cast<std::size_t>(row)] =
          static_cast<T>(rows_.ignored(row) ? 0 : loss(chunk, r));
    if (weight == 0) return;
    chunk.factors[r] = weight / divisor_;
    chunk.scale[r] = static_cast<T>(chunk.factors[r]) * share_of_largest(chunk.sums, r);
    chunk.shift[r] = static_cast<T>(chunk.factors[r] * rows_.smooth_share());
  }

  double loss(const Chunk<T>& chunk, std::size_t r) const {
    const LogSum<T> sum = log_sum(chunk.sums, r);
    const LogSum<double> exact{static_cast<double>(sum.largest), static_cast<double>(sum.rest)};
    const double hard = unless_zero(rows_.hard_share(), [&] {
      return -exact.log_share(static_cast<double>(chunk.target_logits[r]));
    });
    return hard + unless_zero(rows_.smooth_share(), [&] {
             return static_cast<double>(classes_) * exact.rest - chunk.sums.below[r];
           });
  }

  void add_gradients(const Chunk<T>& chunk, const T* powers) {
    const Stripes stripes(blocks_);
    const Index size = chunk.rows * features_;
    const Scratch<T> parts(stripes.count * size);
    const PackedMatrix<T> x(MatrixView<T>::row_major(x_of(chunk), chunk.rows, features_));
    kernels::parallel_for(stripes.count, [&](Index stripe) {
      const Scratch<T> d(std::min(block_classes, classes_) * chunk.width);
      const Index first = stripe * stripes.height;
      for (Index k = first; k < std::min(first + stripes.height, blocks_); ++k) {
        const Block<T> block = this->block(k);
        take_gradient(chunk, block, powers + block.begin * chunk.width, d.data());
        const auto view =
            MatrixView<T>::row_major(d.data(), block.classes, chunk.rows, chunk.width);
        kernels::multiply(view, x, c_.out(dw_output).data() + block.begin * features_, features_,
                          chunk.begin == 0 ? Write::assign : Write::add);
        kernels::matmul(view.transposed(), block.w, parts.data() + stripe * size, features_,
                        k == first ? Write::assign : Write::add);
      }
    });
    add_stripes(parts.data(), stripes.count, size,
                c_.out(dx_output).data() + chunk.begin * features_);
  }

  static void add_stripes(const T* parts, Index count, Index size, T* sum) {
    constexpr Index piece = 1 << 13;
    kernels::parallel_for(ceil_div(size, piece), [&](Index k) {
      const Index begin = k * piece, n = std::min(piece, size - begin);
      kernels::sum_columns(
          parts + begin, count, n, size, [](T value, Index) { return static_cast<double>(value); },
          [to = sum + begin](Index i, double total) { to[i] = static_cast<T>(total); });
    });
  }

  // The gradient d of a block's logits, and its sums for the biases.
  void take_gradient(const Chunk<T>& chunk, const Block<T>& block, const T* powers, T* d) {
    const Index width = chunk.width;
    scale_powers(powers, block.classes, width, chunk.scale, sums_[block.index].largest, chunk.shift,
                 d);
    each_target(chunk, block, [&](std::size_t r, Index c) {
      if (chunk.factors[r] != 0) take_target(chunk, r, d[c * width + static_cast<Index>(r)]);
    });
    if (rows_.attr.smoothing != 0) correct_largest(chunk, block, powers, d);
    for (Index c = 0; c_.has(b_input) && c < block.classes; ++c)
      bias_sums_[block.begin + c] +=
          kernels::sum_of<T>(chunk.rows, [row = d + c * width](Index r) { return row[r]; });
  }

  void take_target(const Chunk<T>& chunk, std::size_t r, T& d) const {
    const double factor = chunk.factors[r];
    const T share = log_sum(chunk.sums, r).log_share(chunk.target_logits[r]);
    if (rows_.attr.smoothing == 0 && share > T(-0.5))  // without the cancellation near 1
      d = static_cast<T>(factor * kernels::vexpm1(static_cast<double>(share)));
    else
      d -= static_cast<T>(factor * rows_.hard_share());
  }

  // Smoothed, a gradient p Σ k - k is a small difference where the largest shares p are nearly all
  // of their sum: it is made of Σ k and 1, split into the terms of those classes and of the others.
  void correct_largest(const Chunk<T>& chunk, const Block<T>& block, const T* powers, T* d) const {
    const double smooth = rows_.smooth_share(), hard = rows_.hard_share();
    for (Index k = 0; k < chunk.rows; ++k) {
      const auto r = static_cast<std::size_t>(k);
      const double p = static_cast<double>(share_of_largest(chunk.sums, r)),
                   hits = static_cast<double>(chunk.sums.hits[r]);
      if (chunk.factors[r] == 0 || sums_[block.index].largest[r] != 1 || hits * p < 0.5) continue;
      const bool hit_target = chunk.target_logits[r] == chunk.sums.largest[r];
      const double others = static_cast<double>(chunk.sums.others[r]) * p,
                   other_sum =
                       (static_cast<double>(classes_) - hits) * smooth + (hit_target ? 0 : hard);
      const Index target = rows_.targets[chunk.begin + k] - block.begin;
      for (Index c = 0; c < block.classes; ++c) {
        if (powers[c * chunk.width + k] != 1) continue;
        const double own = c == target ? hard : 0;
        const double hit_sum = (hit_target ? hard : 0) - hits * own;  // less that of equal terms
        d[c * chunk.width + k] = static_cast<T>(
            chunk.factors[r] * (p * (hit_sum + other_sum) - (smooth + own) * others));
      }
    }
  }

  Ctx<T> c_;
  Index classes_, features_, blocks_;
  ClassRows<T> rows_;
  double divisor_;
  Scratch<double> losses_;
  Scratch<RowSums<T>> sums_;  // of each block
  Scratch<double> bias_sums_;
};

// A gradient of the forward pass times the one that arrives, in its own memory if it may be.
template <class T>
void scale_gradient(BackwardCtx<T> c, Input input, Output output) {
  const T g = *c.g();
  const Index size = c.shape(input).size();
  T* const own = c.hand_over(output, input);
  T* const to = own ? own : c.grad(input);
  if (!to || (own && g == 1)) return;
  const T* const from = c.out(output);
  constexpr Index piece = 1 << 15;
  kernels::parallel_for(ceil_div(size, piece), [&](Index k) {
    const Index begin = k * piece, end = std::min(size, begin + piece);
    std::transform(from + begin, from + end, to + begin, [=](T x) { return g * x; });
  });
}

template <class T>
void backward(BackwardCtx<T> c, const ClassTargets& attr) {
  scale_gradient(c, x_input, dx_output);
  scale_gradient(c, w_input, dw_output);
  scale_gradient(c, b_input, db_output);
  T* dp = c.grad(weights_input);
  if (!dp) return;
  const T g = *c.g();
  const Index rows = c.shape(targets_input).size();
  const ClassRows<T> call{nullptr, {c.in(weights_input)}, {nullptr}, {}, c.indices(targets_input),
                          rows,    c.shape(w_input)[0],   attr};
  const bool mean = attr.reduction == LossReduction::mean;
  const double factor = static_cast<double>(g) / (mean ? call.total_weight() : 1);
  const double average = mean ? static_cast<double>(*c.out(loss_output)) : 0;
  for (Index r = 0; r < rows; ++r)
    dp[r] = call.ignored(r)
                ? T(0)
                : static_cast<T>(factor * weight_slope(call.weight(r),
                                                       static_cast<double>(c.out(losses_output)[r]),
                                                       average));
}

void check(const Arguments& in, const ClassTargets& attr) {
  const Shape &x = in[x_input], &w = in[w_input];
  const int last = x.rank() - 1;
  if (last < 0 || w.rank() != 2) in.fail("x must have an axis of features, and w be a matrix");
  if (x[last] != w[1]) in.fail(fmt::format("x has {} features, but w takes {}", x[last], w[1]));
  if (in.has(b_input) && in[b_input] != Shape{w[0]})
    in.fail(fmt::format("w has {} classes, but b is {}", w[0], in[b_input].str()));
  if (x.erase(last) != in[targets_input])
    in.fail("the targets must have the axes of x but the last, which is the features");
  if (in.has(weights_input) && in[weights_input] != in[targets_input])
    in.fail("the weights must have the shape of the targets");
  if (w[0] == 0) in.fail<ValueError>("there are no classes");
  if (in[targets_input].size() == 0 && attr.reduction == LossReduction::mean)
    in.fail<ValueError>("there is nothing to average");
}

// The hidden outputs hold the gradients, and the losses of the rows, if there are weights.
REEL_EARLY const Op<ClassTargets> linear_cross_entropy_op{{
    .name = "linear_cross_entropy",
    .arguments = {"x", "w", optional("b"), integer("targets"), optional("weights")},
    .shape = [](const Arguments& in, const ClassTargets& attr) -> Shapes {
      check(in, attr);
      const Index losses = in.has(weights_input) ? in[weights_input].size() : 0;
      return {Shape{}, in[x_input], in[w_input], Shape{in.has(b_input) ? in[w_input][0] : 0},
              Shape{losses}};
    },
    .forward =
        []<Real T>(Ctx<T> c, const ClassTargets& attr) {
          check_indices("linear_cross_entropy", "target", "classes", c.indices(targets_input),
                        c.shape(w_input)[0], attr.exempt());
          Call<T>(c, attr).run();
        },
    .gradient = fused([]<Real T>(BackwardCtx<T> c, const ClassTargets& attr) { backward(c, attr); },
                      [](std::span<const Tensor> in, const ClassTargets& attr) -> Tensors {
                        const Tensor &x = in[x_input], &w = in[w_input], &b = in[b_input];
                        const Tensor rows = x.rank() > 1 ? x : expand(x, 0);
                        const Tensor products = matmul(rows, w, false, true);
                        const Tensor logits = b.defined() ? products + b : products;
                        return {cross_entropy(x.rank() > 1 ? logits : squeeze(logits, 0),
                                              in[targets_input],
                                              {.weights = in[weights_input],
                                               .label_smoothing = attr.smoothing,
                                               .ignore_index = attr.exempt(),
                                               .reduction = attr.reduction})};
                      }),
    .samples =
        {with_inputs(normal({5, 3}), normal({4, 3}), normal({4}), indices({5}, 4), positive({5})),
         with_inputs(normal({2, 3, 5}), normal({17, 5}), absent(), indices({2, 3}, 17), absent()),
         with_inputs(normal({6, 2}), normal({3, 2}), normal({3}), indices({6}, 3), positive({6}))
             .attr(ClassTargets{.smoothing = 0.3, .ignored = 1, .ignores = true}),
         with_inputs(normal({300, 3}), normal({2, 3}), normal({2}), indices({300}, 2), absent()),
         with_inputs(normal({3}), normal({4, 3}), normal({4}), indices({}, 4), absent())
             .attr(ClassTargets{.reduction = LossReduction::sum}),
         with_inputs(normal({2, 0}), normal({3, 0}), normal({3}), indices({2}, 3), positive({2})),
         with_inputs(normal({2, 2}), normal({1, 2}), absent(), indices({2}, 1), absent())},
    .hidden_outputs = 4,
}};

}  // namespace

Tensor linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& b,
                            const Tensor& targets, const LinearCrossEntropyOptions& options,
                            Site site) {
  check_smoothing("linear_cross_entropy", options.label_smoothing, site);
  return linear_cross_entropy_op({&x, &w, &b, &targets, &options.weights},
                                 {options.label_smoothing, options.ignore_index.value_or(0),
                                  options.ignore_index.has_value(), options.reduction},
                                 site);
}

}  // namespace reel

namespace reel::op::linked {
void linear_loss() {}
}  // namespace reel::op::linked
