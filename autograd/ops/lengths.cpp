#include <fmt/format.h>

#include <algorithm>
#include <string>

#include <reel/autograd/ops.h>
#include <reel/autograd/ops/check_lengths.h>
#include <reel/autograd/recurrent.h>

namespace reel {

void check_lengths(const Tensor& lengths, const char* name, const Tensor& x, const char* of,
                   const char* op, Site site) {
  const Index steps = x.size(0), rows = x.size(1);
  const auto message = [&](const std::string& they_are) {
    return fmt::format(
        "{}: {} must be i32 [{}], one for each row of {} {}, and between 0 and {}; {}", op, name,
        rows, of, x.shape().str(), steps, they_are);
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

Tensor given_lengths(const std::optional<Tensor>& lengths, const char* name, const Tensor& x,
                     const char* of, const char* op, Site site) {
  if (!lengths || !x.defined() || x.rank() < 2) return {};
  check_lengths(*lengths, name, x, of, op, site);
  return *lengths;
}

Tensor resolve_lengths(const SequenceOptions& options, const Tensor& x, const char* op, Site site) {
  if (x.rank() != 3) return {};  // the shape rule reports the error
  return given_lengths(options.lengths, "lengths", x, "x", op, site);
}

Tensor with_zero_padding(const Tensor& x, const Tensor& lengths, Site site) {
  if (!lengths.defined() || x.rank() != 3) return x;
  Tensor real({x.size(0), x.size(1), 1}, i32);
  std::int32_t* to = real.begin_update<std::int32_t>().data();
  for (Index t = 0; t < x.size(0); ++t)
    for (std::int32_t length : lengths.values<std::int32_t>()) *to++ = t < length;
  return where(real, x, scalar(0, x.dtype()), site);
}

Tensor active_rows(const Tensor& lengths, Index t) {
  if (!lengths.defined()) return {};
  const auto all = lengths.values<std::int32_t>();
  if (std::ranges::all_of(all, [t](std::int32_t length) { return t < length; })) return {};
  Tensor active({lengths.size(), 1}, i32);
  std::ranges::transform(
      all, active.begin_update<std::int32_t>().begin(),
      [t](std::int32_t length) { return static_cast<std::int32_t>(t < length); });
  return active;
}

}  // namespace reel
