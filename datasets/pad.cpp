#include <reel/datasets/pad.h>

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include <reel/autograd/error.h>

namespace reel::datasets {
namespace {

constexpr Index largest_i32 = std::numeric_limits<std::int32_t>::max();

Tensor as_tensor(const std::vector<Index>& lengths, Site site) {
  if (lengths.empty()) throw ValueError("pad: there are no sequences", site);
  if (std::ranges::max(lengths) > largest_i32)
    throw ValueError(fmt::format("pad: a sequence has {} steps; at most {} are possible",
                                 std::ranges::max(lengths), largest_i32),
                     site);
  return tensor({std::ssize(lengths)}, lengths, i32, site);
}

void require_alike(std::span<const Tensor> sequences, Site site) {
  if (sequences.empty()) return;  // refused with the lengths
  const Tensor& first = sequences.front();
  if (first.rank() == Shape::max_rank)
    throw ShapeError(fmt::format("pad: a batch of sequences {} would have more than {} axes",
                                 first.shape().str(), Shape::max_rank),
                     site);
  for (std::size_t i = 1; i < sequences.size(); ++i) {
    const Tensor& x = sequences[i];
    const auto differs = [&] {
      return fmt::format("pad: sequence {} is {} {}, but sequence 0 is {} {}; {}", i,
                         name_of(x.dtype()), x.shape().str(), name_of(first.dtype()),
                         first.shape().str(), "all but the number of steps must agree");
    };
    if (x.dtype() != first.dtype()) throw DTypeError(differs(), site);
    if (x.shape().erase(0) != first.shape().erase(0)) throw ShapeError(differs(), site);
  }
}

// Copies the steps of sequence b into column b of `to`, which has `batch` columns.
template <class T>
void copy_steps(std::span<const T> steps, Index size_of_step, Index b, Index batch,
                std::span<T> to) {
  if (size_of_step == 0) return;
  const Index count = std::ssize(steps) / size_of_step;
  for (Index t = 0; t < count; ++t)
    std::copy_n(steps.begin() + t * size_of_step, size_of_step,
                to.begin() + (t * batch + b) * size_of_step);
}

}  // namespace

Padded pad(std::span<const std::vector<std::int32_t>> sequences, Arg<Index> value, Site site) {
  const std::vector<Index> lengths = lengths_of(sequences);
  Padded padded{{}, as_tensor(lengths, site)};
  const Index batch = std::ssize(sequences);
  padded.x = full({std::ranges::max(lengths), batch}, static_cast<double>(Index(value)), i32, site);
  const std::span<std::int32_t> to = padded.x.begin_update<std::int32_t>();
  for (Index b = 0; b < batch; ++b)
    copy_steps(std::span(sequences[static_cast<std::size_t>(b)]), 1, b, batch, to);
  return padded;
}

Padded pad(std::span<const Tensor> sequences, Arg<double> value, Site site) {
  const std::vector<Index> lengths = lengths_of(sequences, site);
  require_alike(sequences, site);
  Padded padded{{}, as_tensor(lengths, site)};
  const Index batch = std::ssize(sequences);
  const Tensor& first = sequences.front();
  const Shape shape = first.shape().with(0, std::ranges::max(lengths)).insert(1, batch);
  padded.x = full(shape, value, first.dtype(), site);
  dispatch(first.dtype(), [&]<class T>() {
    const std::span<T> to = padded.x.begin_update<T>();
    for (Index b = 0; b < batch; ++b)
      copy_steps(sequences[static_cast<std::size_t>(b)].values<T>(), shape.stride(1), b, batch, to);
  });
  return padded;
}

Tensor length_mask(const Tensor& lengths, Arg<Index> T, DType dtype, Site site) {
  if (T < 0) throw ValueError(fmt::format("length_mask: T is {}, negative", Index(T)), site);
  const std::span<const std::int32_t> all = lengths.values<std::int32_t>(site);
  if (lengths.rank() != 1)
    throw ShapeError(
        fmt::format("length_mask: lengths are {}, but must be [B]", lengths.shape().str()), site);
  for (std::size_t b = 0; b < all.size(); ++b)
    if (all[b] < 0 || all[b] > T)
      throw ValueError(fmt::format("length_mask: the length of row {} is {}, not in 0 .. {}", b,
                                   all[b], Index(T)),
                       site);
  Tensor mask = detail::new_tensor("length_mask", {T, lengths.size()}, dtype, site);
  dispatch(dtype, [&]<class Number>() {
    auto to = mask.begin_update<Number>().begin();
    for (Index t = 0; t < T; ++t)
      for (const std::int32_t length : all) *to++ = static_cast<Number>(t < length);
  });
  return mask;
}

std::vector<Index> lengths_of(std::span<const std::vector<std::int32_t>> sequences) {
  std::vector<Index> lengths;
  lengths.reserve(sequences.size());
  for (const auto& sequence : sequences) lengths.push_back(std::ssize(sequence));
  return lengths;
}

std::vector<Index> lengths_of(std::span<const Tensor> sequences, Site site) {
  std::vector<Index> lengths;
  lengths.reserve(sequences.size());
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const Tensor& x = sequences[i];
    if (!x.defined()) throw ValueError(fmt::format("sequence {} is undefined", i), site);
    if (x.rank() == 0)
      throw ShapeError(fmt::format("sequence {} is a scalar, without steps", i), site);
    lengths.push_back(x.shape()[0]);
  }
  return lengths;
}

}  // namespace reel::datasets
