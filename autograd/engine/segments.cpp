#include <reel/autograd/engine/segments.h>

#include <fmt/format.h>

#include <algorithm>

#include <reel/autograd/ops.h>

namespace reel {
namespace {

using SegmentFunction = std::function<void(const Tensor&, const Segment&)>;

struct Sequence {
  Index steps, segment;
  const SequenceOptions& options;
  const Tensor& lengths;
  const SegmentFunction& f;

  Index count() const { return (steps + segment - 1) / segment; }
  Index begin(Index number) const { return std::min(number * segment, steps); }

  // Calls f for segment `number`, whose part begins with step `part_begin`.
  void call(const Tensor& part, Index part_begin, Index number) const {
    const Index first = begin(number), last = begin(number + 1);
    f(part, {first,
             first - part_begin,
             last - part_begin,
             {.reverse = options.reverse, .lengths = lengths_within(first, last)}});
  }

  // Segments first up to last, whose steps x contains. Recursive halving keeps the total work of
  // the backward pass low: the gradient of a slice is as long as the tensor it was taken from.
  void halve(const Tensor& x, Index first, Index last) const {
    if (last - first == 1) return call(x, begin(first), first);
    const Index middle = (first + last) / 2, cut = begin(middle) - begin(first);
    const auto left = [&] { halve(slice(x, 0, 0, cut), first, middle); };
    const auto right = [&] { halve(slice(x, 0, cut, x.shape()[0]), middle, last); };
    if (options.reverse) right();
    left();
    if (!options.reverse) right();
  }

 private:
  std::optional<Tensor> lengths_within(Index first, Index last) const {
    if (!lengths.defined()) return {};
    Tensor within = lengths;
    for (std::int32_t& length : within.begin_update<std::int32_t>())
      length = static_cast<std::int32_t>(std::clamp<Index>(length, first, last) - first);
    return within;
  }
};

}  // namespace

bool in_segments(const SequenceOptions& options, const char* op, Site site) {
  site = SiteScope::resolve(site);
  if (options.segment < 0)
    throw ValueError(
        fmt::format("{}: a segment of {} steps; give a positive number, or 0 to run all "
                    "steps at once",
                    op, options.segment),
        site);
  if (!options.outputs && options.segment == 0)
    throw ValueError(
        fmt::format("{}: all steps at once make all outputs; give a segment too, or drop "
                    ".outputs = false and ignore y",
                    op),
        site);
  return options.segment > 0;
}

Tensor Segment::of(const Tensor& x) const {
  return begin == 0 && end == x.shape()[0] ? x : slice(x, 0, begin, end);
}

void each_segment(const Tensor& x, const SequenceOptions& options, const char* op, Site site,
                  const SegmentFunction& f) {
  const Tensor lengths = resolve_lengths(options, x, op, site);
  const Index steps = x.rank() == 3 ? x.shape()[0] : 0;
  if (steps == 0)  // the shape rule reports the error
    return f(x, {0, 0, x.rank() > 0 ? x.shape()[0] : 0, {.lengths = options.lengths}});
  const Sequence sequence{steps, options.segment, options, lengths, f};
  const Index count = sequence.count();
  if (x.trace().generation != 0) return sequence.halve(x, 0, count);
  for (Index i = 0; i < count; ++i) sequence.call(x, 0, options.reverse ? count - 1 - i : i);
}

Tensor join_segments(Tensors outputs, const SequenceOptions& options) {
  if (outputs.empty()) return {};
  if (options.reverse) std::ranges::reverse(outputs);
  return concat(outputs, 0);
}

}  // namespace reel
