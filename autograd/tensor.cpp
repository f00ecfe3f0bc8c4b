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

template <class To, class From>
To converted(From value) {
  if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
    const double nearest = std::nearbyint(static_cast<double>(value));
    if (!(nearest >= std::numeric_limits<To>::min() && nearest <= std::numeric_limits<To>::max()))
      throw ValueError(fmt::format("{} cannot become an i32", value));
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

void Tensor::throw_not(DType dtype) const {
  if (!defined()) throw Error("this tensor is undefined: it was never given a value");
  throw DTypeError(fmt::format("the elements of this tensor are {}, not {}; convert it with to()",
                               name_of(dtype_), name_of(dtype)));
}

void Tensor::own() {
  if (!buffer_.unique()) {
    Buffer copy = buffer_for(shape_, dtype_);
    std::memcpy(copy.data(), buffer_.data(), bytes_of(shape_, dtype_));
    buffer_ = std::move(copy);
  }
  set_trace({});
}

double Tensor::item() const {
  if (!defined() || size() != 1)
    throw ShapeError(
        fmt::format("item: a tensor of shape {} is not a single number", shape_.str()));
  return element(*this, 0);
}

double Tensor::at(std::initializer_list<Index> indices) const {
  Index offset = 0;
  int axis = 0;
  for (Index i : indices) {
    if (axis >= rank() || i < 0 || i >= shape_[axis])
      throw ShapeError(fmt::format("at: no such element in a tensor of shape {}", shape_.str()));
    offset += i * shape_.stride(axis++);
  }
  if (axis != rank())
    throw ShapeError(fmt::format("at: a tensor of shape {} takes {} indices, not {}", shape_.str(),
                                 rank(), axis));
  return element(*this, offset);
}

std::vector<double> Tensor::to_vector() const {
  return dispatch(dtype_, [&]<class T>() {
    const auto all = values<T>();
    return std::vector<double>(all.begin(), all.end());
  });
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return detach();
  Tensor result(shape_, dtype);
  dispatch(dtype_, [&]<class From>() {
    dispatch(dtype, [&]<class To>() {
      std::ranges::transform(values<From>(), result.edit<To>().begin(), converted<To, From>);
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

Tensor full(const Shape& shape, double value, DType dtype) {
  Tensor result(shape, dtype);
  dispatch(dtype, [&]<class T>() { std::ranges::fill(result.edit<T>(), converted<T>(value)); });
  return result;
}

Tensor zeros(const Shape& shape, DType dtype) {
  Tensor result(shape, dtype);
  if (result.size() > 0) std::memset(result.buffer().data(), 0, bytes_of(shape, dtype));
  return result;
}

Tensor ones(const Shape& shape, DType dtype) { return full(shape, 1, dtype); }

Tensor scalar(double value, DType dtype) { return full({}, value, dtype); }

namespace {
template <class From>
Tensor from_values(const Shape& shape, std::span<const From> values, DType dtype) {
  if (static_cast<Index>(values.size()) != shape.size())
    throw ShapeError(fmt::format("tensor: {} values cannot fill shape {}, which has {} elements",
                                 values.size(), shape.str(), shape.size()));
  Tensor result(shape, dtype);
  dispatch(dtype, [&]<class To>() {
    std::ranges::transform(values, result.edit<To>().begin(), converted<To, From>);
  });
  return result;
}
}  // namespace

Tensor tensor(const Shape& shape, std::span<const double> values, DType dtype) {
  return from_values(shape, values, dtype);
}

Tensor tensor(const Shape& shape, std::span<const std::int32_t> values) {
  return from_values(shape, values, i32);
}

}  // namespace reel
