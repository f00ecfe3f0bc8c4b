#include <reel/autograd/ops/recurrent_common.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include <reel/autograd/checkpoint.h>
#include <reel/autograd/engine/segments.h>
#include <reel/autograd/kernels/recurrent.h>

namespace reel::detail {
using namespace op;

Shape check_sequence(const Arguments& in, Index gates, int first_state, int states) {
  // The message is built only on failure: this runs in every call.
  const auto require = [&](bool fits, auto message) {
    if (!fits) in.fail(message());
  };
  require(in[0].rank() == 3, [] { return "x must be [T, B, D]: steps, batch, features"; });
  require(in[2].rank() == 2 && in[2][0] == gates * in[2][1],
          [&] { return fmt::format("w_hh must be [{} H, H]", gates); });
  const Index steps = in[0][0], rows = in[0][1], features = in[0][2], h_size = in[2][1];
  require(steps > 0, [] { return "the sequence has no steps"; });
  require(in[1].rank() == 2 && in[1][0] == gates * h_size,
          [&] { return fmt::format("w_ih must be [{}, D] for this w_hh", gates * h_size); });
  require(in[1][1] == features, [&] {
    return fmt::format("x has {} features, but the layer takes {}", features, in[1][1]);
  });
  require(in[3] == Shape{gates * h_size},
          [&] { return fmt::format("b must be [{}]", gates * h_size); });
  for (int i = first_state; i < first_state + states; ++i)
    require(in[i] == Shape{rows, h_size}, [&] {
      return fmt::format("{} must be [{}, {}] for this x", i == first_state ? "h0" : "c0", rows,
                         h_size);
    });
  require(in[in.count() - 1] == Shape{rows},
          [&] { return fmt::format("lengths must be [{}] for this x", rows); });
  return {steps, rows, h_size};
}

bool keeps_one_thread_busy(const Shape& y) {
  constexpr Index smallest_work = 1 << 19;  // multiplications per gate that are worth a thread
  return kernels::row_blocks(y[1]) == 1 && y.size() * y[2] >= smallest_work;
}

Tensors run_in_segments(const char* name, const SequenceOp& op, const Tensor& x,
                        std::initializer_list<Tensor> weights, Tensors states,
                        const SequenceOptions& options, Site site) {
  Tensors outputs;
  each_segment(x, options, name, site, [&](const Tensor& part, const Segment& segment) {
    Tensors inputs{part};
    inputs.insert(inputs.end(), weights);
    inputs.insert(inputs.end(), states.begin(), states.end());
    const auto run = [op, segment, wanted = options.outputs](std::span<const Tensor> in) {
      Tensors arguments(in.begin(), in.end());
      arguments[0] = segment.of(in[0]);
      Tensors results = op(arguments, segment.options);
      if (!wanted) results.erase(results.begin());
      return results;
    };
    const Tensors results = checkpoint(run, inputs, site);
    if (options.outputs) outputs.push_back(results[0]);
    std::copy(results.end() - static_cast<std::ptrdiff_t>(states.size()), results.end(),
              states.begin());
  });
  states.insert(states.begin(), join_segments(std::move(outputs), options));
  return states;
}

}  // namespace reel::detail

namespace reel {

namespace {

void check_lengths(const Tensor& lengths, const Tensor& x, const char* op, Site site) {
  const Index steps = x.size(0), rows = x.size(1);
  const auto message = [&](const std::string& they_are) {
    return fmt::format(
        "{}: lengths must be i32 [{}], one for each row of x {}, and between 0 and {}; {}", op,
        rows, x.shape().str(), steps, they_are);
  };
  if (!lengths.defined()) throw ValueError(message("they are undefined"), site);
  const auto kind = [&] {
    return fmt::format("they are {} {}", name_of(lengths.dtype()), lengths.shape().str());
  };
  if (lengths.dtype() != i32) throw DTypeError(message(kind()), site);
  if (lengths.shape() != Shape{rows}) throw ShapeError(message(kind()), site);
  for (std::int32_t length : lengths.values<std::int32_t>())
    if (length < 0 || length > steps)
      throw ValueError(message(fmt::format("one is {}", length)), site);
}

}  // namespace

Tensor resolve_lengths(const SequenceOptions& options, const Tensor& x, const char* op, Site site) {
  if (x.rank() != 3) return zeros({}, i32);  // the shape rule reports the error
  if (!options.lengths) return full({x.size(1)}, static_cast<double>(x.size(0)), i32);
  check_lengths(*options.lengths, x, op, site);
  return *options.lengths;
}

namespace {

// Whether `good` holds for all numbers of x in the padding. An x of another kind is left to the
// shape rule.
template <class F>
bool all_of_padding(const Tensor& x, const Tensor& lengths, F good) {
  if (x.rank() != 3 || !is_real(x.dtype())) return true;
  const Index rows = x.size(1), features = x.size(2);
  return dispatch_real(x.dtype(), [&]<class T>() {
    for (Index row = 0; row < rows; ++row)
      for (Index t = lengths.begin<std::int32_t>()[row]; t < x.size(0); ++t) {
        const T* from = x.begin<T>() + (t * rows + row) * features;
        if (!std::all_of(from, from + features, good)) return false;
      }
    return true;
  });
}

Tensor zero_padding(const Tensor& x, const Tensor& lengths, Site site) {
  Tensor real({x.size(0), x.size(1), 1}, i32);
  std::int32_t* to = real.begin_update<std::int32_t>().data();
  for (Index t = 0; t < x.size(0); ++t)
    for (std::int32_t length : lengths.values<std::int32_t>()) *to++ = t < length;
  return where(real, x, scalar(0, x.dtype()), site);
}

}  // namespace

Tensor with_zero_padding(const Tensor& x, const Tensor& lengths, Site site) {
  const bool zero = all_of_padding(x, lengths, [](auto number) { return number == 0; });
  return zero ? x : zero_padding(x, lengths, site);
}

Tensor detail::with_finite_padding(const Tensor& x, const Tensor& lengths, Site site) {
  const bool finite = all_of_padding(x, lengths, [](auto number) { return std::isfinite(number); });
  return finite ? x : zero_padding(x, lengths, site);
}

Tensor active_rows(const Tensor& lengths, Index t) {
  const auto all = lengths.values<std::int32_t>();
  if (std::ranges::all_of(all, [t](std::int32_t length) { return t < length; })) return {};
  Tensor active({lengths.size(), 1}, i32);
  std::ranges::transform(
      all, active.begin_update<std::int32_t>().begin(),
      [t](std::int32_t length) { return static_cast<std::int32_t>(t < length); });
  return active;
}

}  // namespace reel
