#pragma once

#include <initializer_list>
#include <iosfwd>
#include <span>
#include <string>
#include <vector>

#include <reel/autograd/argument.h>
#include <reel/autograd/dtype.h>
#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/error.h>
#include <reel/autograd/shape.h>

namespace reel {

/// Where a tensor was recorded: a slot of one generation of one tape. Generation 0 means not
/// recorded.
struct Trace {
  std::uint64_t generation = 0;
  std::int32_t slot = -1;
};

/// An immutable array of numbers: a small handle to a shared, contiguous, row-major buffer.
///
/// Copying a handle copies no numbers. Sequences are time-major, [T, B, F]. While a tape is
/// current, results of ops on watched tensors also know where they were recorded.
class Tensor {
 public:
  /// An undefined tensor: it has no numbers, and only `defined()` may be called.
  Tensor() = default;
  /// Uninitialised numbers, to be filled through `edit()`.
  Tensor(const Shape& shape, DType dtype);
  Tensor(Buffer buffer, const Shape& shape, DType dtype, Trace trace = {})
      : buffer_(std::move(buffer)),
        shape_(shape),
        generation_(trace.generation),
        slot_(trace.slot),
        dtype_(dtype) {}

  bool defined() const { return static_cast<bool>(buffer_); }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  /// The number of elements.
  Index size() const { return shape_.size(); }
  /// The size of one axis; -1 is the last. Throws ShapeError if there is no such axis.
  Index size(Arg<int> axis, Site site = {}) const {
    return shape_[normalized_axis(axis, rank(), "size", site)];
  }
  DType dtype() const { return dtype_; }

  /// The numbers in row-major order. Throws DTypeError if T is not the element type, and, like
  /// every access to the numbers, ValueError for an undefined tensor.
  template <Element T>
  std::span<const T> values(Site site = {}) const {
    require(dtype_of<T>, "values", site);
    return {static_cast<const T*>(buffer_.data()), static_cast<std::size_t>(size())};
  }
  template <Element T>
  const T* begin() const {
    return values<T>().data();
  }

  /// The numbers, for in-place writes. A buffer that other handles share is copied first (copy on
  /// write), so they never see the change; this handle is no longer recorded on any tape. The span
  /// may be kept: a tape that reads the numbers in a backward pass copies them when an op uses
  /// them, as later writes reach every handle of the buffer.
  template <Element T>
  std::span<T> edit(Site site = {}) {
    const std::span<T> numbers = begin_update<T>(site);
    buffer_.expose();
    return numbers;
  }
  /// The same for code that writes at once and keeps no span. Both throw DTypeError, having changed
  /// nothing, if T is not the element type.
  template <Element T>
  std::span<T> begin_update(Site site = {}) {
    require(dtype_of<T>, "edit", site);
    own();
    return {static_cast<T*>(buffer_.data()), static_cast<std::size_t>(size())};
  }

  /// The only element. Throws ShapeError unless there is exactly one.
  double item(Site site = {}) const;
  /// One element, given an index for each axis. Throws ShapeError if out of range.
  double at(std::initializer_list<Index> indices, Site site = {}) const;
  /// All elements as doubles.
  std::vector<double> to_vector(Site site = {}) const;

  /// An index, with the source location where it was written.
  struct Place {
    template <GivenAs<Index> Integer>
    Place(Integer i, Site here = {}) : index(Arg<Index>(i)), site(here) {}
    template <MistakenFor<Index> Number>
    Place(Number, Site here = {}) = delete;
    Index index;
    Site site;
  };
  /// x[t] is element t of the first axis, as select(x, 0, t): a step [B, F] of a sequence
  /// [T, B, F]. A negative index counts from the end. Throws ShapeError if out of range.
  Tensor operator[](const Place& place) const;

  /// The numbers converted to another element type, rounded to nearest; not recorded. Throws
  /// ValueError when converting to i32 if a number is out of range or NaN.
  Tensor to(DType dtype, Site site = {}) const;
  /// The same numbers without their history. Used for states carried from one window of truncated
  /// backpropagation to the next: the value goes on, the gradient stops.
  Tensor detach() const { return Tensor(buffer_, shape_, dtype_); }
  /// The same numbers, shape and dtype in a buffer of its own, without their history; an undefined
  /// tensor stays undefined. Throws MemoryError if there is not enough memory.
  Tensor copy() const {
    Tensor result = detach();
    if (defined()) result.own();
    return result;
  }

  /// "f32 [2, 2] [[1, 2], [3, 4]]"; long axes are abbreviated.
  std::string str() const;

  Trace trace() const { return {generation_, slot_}; }
  /// Says where this handle was recorded. Called by Tape.
  void set_trace(const Trace& trace) {
    generation_ = trace.generation;
    slot_ = trace.slot;
  }
  const Buffer& buffer() const { return buffer_; }
  /// Releases the buffer to the caller; the tensor is undefined afterwards.
  Buffer take_buffer() { return std::move(buffer_); }

 private:
  void require(DType dtype, const char* call, Site site) const {
    if (!defined() || dtype != dtype_) throw_not(dtype, call, site);
  }
  void require_defined(const char* call, Site site) const;
  [[noreturn]] void throw_not(DType dtype, const char* call, Site site) const;
  void own();

  Buffer buffer_;
  Shape shape_;
  // The trace, stored as separate members so that the dtype fits in the padding: a handle takes 64
  // bytes.
  std::uint64_t generation_ = 0;
  std::int32_t slot_ = -1;
  DType dtype_ = DType::f32;
};

/// Several tensors: the results of an op, the parts of a split.
using Tensors = PoolVector<Tensor>;

/// Writes what str() returns.
std::ostream& operator<<(std::ostream& out, const Tensor& x);

/// `detach()` as a function, for states made of tensors (see `detach(state)` in nn/state.h).
inline Tensor detach(const Tensor& x) { return x.detach(); }

namespace detail {
/// A tensor with uninitialised elements, for `call`, which a MemoryError names.
Tensor new_tensor(const char* call, const Shape& shape, DType dtype, Site site);
}  // namespace detail

/// Constants. Every element is `value`, 0 or 1. Throws ValueError if the dtype is i32 and the value
/// is not: 2.7, 3e9, NaN. All functions below throw MemoryError.
Tensor full(const Shape& shape, Arg<double> value, DType dtype = f32, Site site = {});
Tensor zeros(const Shape& shape, DType dtype = f32, Site site = {});
Tensor ones(const Shape& shape, DType dtype = f32, Site site = {});
/// A scalar (rank 0). Throws as full does.
Tensor scalar(Arg<double> value, DType dtype = f32, Site site = {});
/// 0, 1, ..., end - 1; empty if end is negative. Throws ValueError if the dtype is i32 and a number
/// is out of its range.
Tensor arange(Arg<Index> end, DType dtype = i32, Site site = {});
/// begin, begin + step, ... up to but excluding end; possibly empty. Throws also for a step of 0.
Tensor arange(Arg<Index> begin, Arg<Index> end, Arg<Index> step = 1, DType dtype = i32,
              Site site = {});
/// Ones on the diagonal and zeros elsewhere: [n, n] or [rows, columns].
Tensor eye(Arg<Index> n, DType dtype = f32, Site site = {});
Tensor eye(Arg<Index> rows, Arg<Index> columns, DType dtype = f32, Site site = {});

/// Numbers in row-major order, from a list, a vector, a span. Throws ShapeError when their count is
/// not `shape.size()`, and ValueError if the dtype is i32 and a number is not.
Tensor tensor(const Shape& shape, std::span<const double> values, DType dtype = f32,
              Site site = {});
inline Tensor tensor(const Shape& shape, std::initializer_list<double> values, DType dtype = f32,
                     Site site = {}) {
  return tensor(shape, std::span(values.begin(), values.size()), dtype, site);
}
Tensor tensor(const Shape& shape, std::span<const float> values, DType dtype = f32, Site site = {});
/// From integers: token indices, lengths, masks.
Tensor tensor(const Shape& shape, std::span<const std::int32_t> values, DType dtype = i32,
              Site site = {});
Tensor tensor(const Shape& shape, std::span<const Index> values, DType dtype = i32, Site site = {});

}  // namespace reel
