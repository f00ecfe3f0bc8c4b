#include <reel/autograd/tensor.h>

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <ostream>

namespace reel {
namespace {

std::size_t bytes_of(const Shape& shape, DType dtype) {
  return static_cast<std::size_t>(shape.size()) * size_of(dtype);
}

Buffer buffer_for(const Shape& shape, DType dtype) try {
  return Buffer(bytes_of(shape, dtype));
} catch (const MemoryError& e) {
  throw MemoryError(fmt::format("{} {}: {}", name_of(dtype), shape.str(), e.what()));
}

// A number converted to another element type: rounded to nearest, or with `exact` only if an i32
// can represent it.
template <class To, class From>
To converted(From value, bool exact, const char* call, Site site) {
  if constexpr (std::same_as<To, std::int32_t> && !std::same_as<From, std::int32_t>) {
    const double number = static_cast<double>(value), nearest = std::nearbyint(number);
    if (!(nearest >= std::numeric_limits<To>::min() && nearest <= std::numeric_limits<To>::max()) ||
        (exact && nearest != number))
      throw ValueError(fmt::format("{}: {} cannot become an i32", call, value), site);
    return static_cast<To>(nearest);
  } else {
    return static_cast<To>(value);
  }
}

double element(const Tensor& x, Index i) {
  return dispatch(x.dtype(), [&]<class T>() {
    return static_cast<double>(x.values<T>()[static_cast<std::size_t>(i)]);
  });
}

// Prints the sub-array that starts at element `offset` and spans the axes from `axis` on.
void print(std::string& text, const Tensor& x, int axis, Index offset) {
  if (axis == x.rank()) {
    text += fmt::format("{:.6g}", element(x, offset));
    return;
  }
  const Index size = x.shape()[axis], shown_at_ends = 4;
  text += '[';
  for (Index i = 0; i < size; ++i) {
    if (size > 2 * shown_at_ends && i == shown_at_ends) {
      text += ", ...";
      i = size - shown_at_ends;
    }
    if (i > 0) text += ", ";
    print(text, x, axis + 1, offset + i * x.shape().stride(axis));
  }
  text += ']';
}

}  // namespace

Tensor::Tensor(const Shape& shape, DType dtype)
    : buffer_(buffer_for(shape, dtype)), shape_(shape), dtype_(dtype) {}

void Tensor::require_defined(const char* call, Site site) const {
  if (!defined())
    throw ValueError(
        fmt::format("{}: this tensor is undefined: it was never given a value, or was moved from",
                    call),
        site);
}

void Tensor::throw_not(DType dtype, const char* call, Site site) const {
  require_defined(call, site);
  throw DTypeError(
      fmt::format("{}: the elements of this tensor are {}, not {}; convert it with to()", call,
                  name_of(dtype_), name_of(dtype)),
      site);
}

void Tensor::own() {
  if (!buffer_.unique()) {
    Buffer copy = buffer_for(shape_, dtype_);
    std::memcpy(copy.data(), buffer_.data(), bytes_of(shape_, dtype_));
    buffer_ = std::move(copy);
  }
  set_trace({});
}

double Tensor::item(Site site) const {
  require_defined("item", site);
  if (size() != 1)
    throw ShapeError(fmt::format("item: a tensor of shape {} is not a single number", shape_.str()),
                     site);
  return element(*this, 0);
}

double Tensor::at(std::initializer_list<Index> indices, Site site) const {
  require_defined("at", site);
  Index offset = 0;
  int axis = 0;
  for (Index i : indices) {
    if (axis < rank() && (i < 0 || i >= shape_[axis]))
      throw ShapeError(fmt::format("at: axis {} of a tensor of shape {} has no element {}", axis,
                                   shape_.str(), i),
                       site);
    if (axis < rank()) offset += i * shape_.stride(axis);
    ++axis;
  }
  if (axis != rank())
    throw ShapeError(fmt::format("at: a tensor of shape {} takes {} indices, not {}", shape_.str(),
                                 rank(), axis),
                     site);
  return element(*this, offset);
}

std::vector<double> Tensor::to_vector(Site site) const {
  require_defined("to_vector", site);
  return dispatch(dtype_, [&]<class T>() {
    const auto all = values<T>();
    return std::vector<double>(all.begin(), all.end());
  });
}

Tensor Tensor::to(DType dtype, Site site) const {
  require_defined("to", site);
  if (dtype == dtype_) return detach();
  Tensor result = detail::new_tensor("to", shape_, dtype, site);
  dispatch(dtype_, [&]<class From>() {
    dispatch(dtype, [&]<class To>() {
      std::ranges::transform(values<From>(), result.begin_update<To>().begin(),
                             [site](From x) { return converted<To>(x, false, "to", site); });
    });
  });
  return result;
}

std::string Tensor::str() const {
  if (!defined()) return "undefined";
  std::string text = fmt::format("{} {} ", name_of(dtype_), shape_.str());
  print(text, *this, 0, 0);
  return text;
}

std::ostream& operator<<(std::ostream& out, const Tensor& x) { return out << x.str(); }

Tensor detail::new_tensor(const char* call, const Shape& shape, DType dtype, Site site) try {
  return Tensor(shape, dtype);
} catch (const MemoryError& e) {
  throw MemoryError(fmt::format("{}: {}", call, e.what()), site);
}

Tensor full(const Shape& shape, Arg<double> value, DType dtype, Site site) {
  return dispatch(dtype, [&]<class T>() {
    const T element = converted<T>(double(value), true, "full", site);
    Tensor result = detail::new_tensor("full", shape, dtype, site);
    std::ranges::fill(result.begin_update<T>(), element);
    return result;
  });
}

Tensor zeros(const Shape& shape, DType dtype, Site site) {
  Tensor result = detail::new_tensor("zeros", shape, dtype, site);
  if (result.size() > 0) std::memset(result.buffer().data(), 0, bytes_of(shape, dtype));
  return result;
}

Tensor ones(const Shape& shape, DType dtype, Site site) { return full(shape, 1, dtype, site); }

Tensor scalar(Arg<double> value, DType dtype, Site site) {
  return dispatch(dtype, [&]<class T>() {
    const T element = converted<T>(double(value), true, "scalar", site);
    Tensor result(Shape{}, dtype);
    result.begin_update<T>()[0] = element;
    return result;
  });
}

Tensor arange(Arg<Index> end, DType dtype, Site site) { return arange(0, end, 1, dtype, site); }

Tensor arange(Arg<Index> begin, Arg<Index> end, Arg<Index> step, DType dtype, Site site) {
  if (step == 0) throw ValueError("arange: the step must not be 0", site);
  // In unsigned arithmetic, which can represent any difference.
  const auto unsigned_of = [](Index i) { return static_cast<std::uint64_t>(i); };
  std::uint64_t count = 0;
  if (step > 0 ? begin < end : begin > end) {
    const std::uint64_t distance =
        step > 0 ? unsigned_of(end) - unsigned_of(begin) : unsigned_of(begin) - unsigned_of(end);
    count = (distance - 1) / (step > 0 ? unsigned_of(step) : 0 - unsigned_of(step)) + 1;
  }
  const Index n = static_cast<Index>(count);
  const Index last = static_cast<Index>(unsigned_of(begin) + (count - 1) * unsigned_of(step));
  const Shape shape({n}, site);
  return dispatch(dtype, [&]<class T>() {
    for (const Index i : {Index(begin), last})
      if (n > 0) converted<T>(i, true, "arange", site);
    Tensor result = detail::new_tensor("arange", shape, dtype, site);
    Index i = begin;
    for (T& element : result.begin_update<T>()) {
      element = static_cast<T>(i);
      if (i != last) i += step;
    }
    return result;
  });
}

Tensor eye(Arg<Index> n, DType dtype, Site site) { return eye(n, n, dtype, site); }

Tensor eye(Arg<Index> rows, Arg<Index> columns, DType dtype, Site site) {
  const Shape shape({rows, columns}, site);
  Tensor result = zeros(shape, dtype, site);
  dispatch(dtype, [&]<class T>() {
    const auto elements = result.begin_update<T>();
    for (Index i = 0; i < std::min(shape[0], shape[1]); ++i)
      elements[static_cast<std::size_t>(i * shape[1] + i)] = T(1);
  });
  return result;
}

namespace {
template <class From>
Tensor from_values(const Shape& shape, std::span<const From> values, DType dtype, Site site) {
  if (static_cast<Index>(values.size()) != shape.size())
    throw ShapeError(fmt::format("tensor: {} values cannot fill shape {}, which has {} elements",
                                 values.size(), shape.str(), shape.size()),
                     site);
  Tensor result = detail::new_tensor("tensor", shape, dtype, site);
  dispatch(dtype, [&]<class To>() {
    std::ranges::transform(values, result.begin_update<To>().begin(),
                           [site](From x) { return converted<To>(x, true, "tensor", site); });
  });
  return result;
}
}  // namespace

Tensor tensor(const Shape& shape, std::span<const double> values, DType dtype, Site site) {
  return from_values(shape, values, dtype, site);
}

Tensor tensor(const Shape& shape, std::span<const float> values, DType dtype, Site site) {
  return from_values(shape, values, dtype, site);
}

Tensor tensor(const Shape& shape, std::span<const std::int32_t> values, DType dtype, Site site) {
  return from_values(shape, values, dtype, site);
}

Tensor tensor(const Shape& shape, std::span<const Index> values, DType dtype, Site site) {
  return from_values(shape, values, dtype, site);
}

}  // namespace reel
