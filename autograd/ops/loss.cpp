#include <fmt/format.h>

#include <reel/autograd/kernels/thread_pool.h>
#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/op.h>
#include <reel/autograd/ops.h>

namespace reel {
namespace {

// Rows in blocks of a fixed size: what the threads share out.
constexpr Index block_rows = 64;

template <class F>
void each_row(Index rows, F f) {
  kernels::parallel_for((rows + block_rows - 1) / block_rows, [&](Index block) {
    const Index end = std::min(rows, (block + 1) * block_rows);
    for (Index r = block * block_rows; r < end; ++r) f(r);
  });
}

template <class T>
T log_sum_exp(const T* x, Index n) {
  const T largest = *std::max_element(x, x + n);
  // Eight partial sums, added in a fixed order.
  std::array<T, 8> lanes{};
  Index i = 0;
  for (; i + 8 <= n; i += 8)
    for (std::size_t l = 0; l < 8; ++l)
      lanes[l] += kernels::vexp(x[i + static_cast<Index>(l)] - largest);
  for (std::size_t l = 0; i < n; ++i, ++l) lanes[l] += kernels::vexp(x[i] - largest);
  const T sum = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
                ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  return largest + kernels::vlog(sum);
}

void check_targets(std::span<const std::int32_t> targets, Index classes) {
  for (std::size_t i = 0; i < targets.size(); ++i)
    if (targets[i] < 0 || targets[i] >= classes)
      throw ValueError(
          fmt::format("cross_entropy: target {} at position {} is not among the {} classes "
                      "(0 to {}); give a mask and a valid class where there is none",
                      targets[i], i, classes, classes - 1));
}

// logits [N, V], targets [N], weights [N]; the hidden output holds ln Σ eˣ of each row.
const Op<> cross_entropy_op{{
    .name = "cross_entropy",
    .arguments = {"logits", integer("targets"), "weights"},
    .shape = [](const Arguments& in) -> Shapes {
      const int last = in[0].rank() - 1;
      if (last < 0 || in[0].erase(last) != in[1])
        in.fail("the targets must have the axes of the logits but the last, which is the classes");
      if (in[2] != in[1]) in.fail("the weights must have the shape of the targets");
      if (in[0].size() == 0) in.fail("there is nothing to take a mean of");
      return {Shape{}, Shape{in[1].size()}};
    },
    .forward =
        []<Real T>(Ctx<T> c) {
          const Index rows = c.shape(1).size(), classes = static_cast<Index>(c.in(0).size()) / rows;
          const auto targets = c.indices(1);
          check_targets(targets, classes);
          const T *logits = c.in(0).data(), *weights = c.in(2).data();
          Scratch<T> own(c.recording() ? 0 : rows);
          T* log_sums = c.recording() ? c.out(1).data() : own.data();
          each_row(rows,
                   [&](Index r) { log_sums[r] = log_sum_exp(logits + r * classes, classes); });
          double sum = 0, weight = 0;
          for (Index r = 0; r < rows; ++r) {
            const double w = static_cast<double>(weights[r]);
            const T picked = logits[r * classes + targets[static_cast<std::size_t>(r)]];
            if (w != 0) sum += w * static_cast<double>(log_sums[r] - picked);
            weight += w;
          }
          c.out()[0] = static_cast<T>(sum / weight);
        },
    .gradient = fused(
        []<Real T>(BackwardCtx<T> c) {
          const Index rows = c.shape(1).size(), classes = c.shape(0).size() / rows;
          const T *logits = c.in(0), *weights = c.in(2), *log_sums = c.out(1);
          const std::int32_t* targets = c.indices(1);
          double weight = 0;
          for (Index r = 0; r < rows; ++r) weight += static_cast<double>(weights[r]);
          const T scale = static_cast<T>(static_cast<double>(*c.g()) / weight), loss = *c.out();
          if (T* dx = c.grad(0))
            each_row(rows, [&](Index r) {
              const T *x = logits + r * classes, factor = scale * weights[r];
              T* d = dx + r * classes;
              const T log_sum = log_sums[r];
              for (Index i = 0; i < classes; ++i) d[i] = factor * kernels::vexp(x[i] - log_sum);
              d[targets[r]] -= factor;
            });
          if (T* dw = c.grad(2))
            for (Index r = 0; r < rows; ++r)
              dw[r] = scale * (log_sums[r] - logits[r * classes + targets[r]] - loss);
        },
        [](std::span<const Tensor> in) -> Tensors {
          const Tensor &logits = in[0], &targets = in[1], &weights = in[2];
          const Index rows = targets.size(), classes = logits.size() / rows;
          // The element that a target picks, as a row of a one-column table.
          Tensor picks({rows}, i32);
          for (Index r = 0; r < rows; ++r)
            picks.edit<std::int32_t>()[static_cast<std::size_t>(r)] = static_cast<std::int32_t>(
                r * classes + targets.values<std::int32_t>()[static_cast<std::size_t>(r)]);
          const Tensor scores = reshape(log_softmax(logits), Shape{rows * classes, 1});
          const Tensor picked = reshape(gather_rows(scores, picks), weights.shape());
          return {-(sum(weights * picked) / sum(weights))};
        }),
    .samples = {with_inputs(normal({5, 4}), indices({5}, 4), positive({5})),
                with_inputs(normal({2, 3, 17}), indices({2, 3}, 17), positive({2, 3})),
                with_inputs(normal({3}), indices({}, 3), positive({})),
                with_inputs(normal({130, 2}), indices({130}, 2), positive({130}))},
    .hidden_outputs = 1,
}};

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tensor& targets,
                     const std::optional<Tensor>& weights, Site site) {
  const Tensor w = weights ? *weights : ones(targets.shape(), logits.dtype());
  return cross_entropy_op({&logits, &targets, &w}, site);
}

}  // namespace reel
