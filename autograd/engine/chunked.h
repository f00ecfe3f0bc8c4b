#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/error.h>

namespace reel {

/// The records of a tape store positions in its sequences as 32-bit numbers.
inline constexpr std::size_t max_tape_index = std::numeric_limits<std::int32_t>::max();

/// Throws ValueError if 32 bits are too few.
inline std::int32_t checked_tape_index(std::size_t place) {
  if (place > max_tape_index)
    throw ValueError(fmt::format(
        "a tape holds no more than {} values; take gradients of shorter windows", max_tape_index));
  return static_cast<std::int32_t>(place);
}

/// A sequence that grows in blocks of the pool: elements never move, growing copies nothing, and at
/// most one block is partly unused.
template <class T>
class Chunked {
 public:
  Chunked() = default;
  Chunked(const Chunked&) = delete;
  Chunked& operator=(const Chunked&) = delete;
  ~Chunked() { clear(); }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](std::size_t i) { return blocks_[i / block_size][i % block_size]; }
  const T& operator[](std::size_t i) const { return blocks_[i / block_size][i % block_size]; }
  T& back() { return (*this)[size_ - 1]; }

  T& push_back(T value) {
    if (size_ == blocks_.size() * block_size)
      blocks_.push_back(static_cast<T*>(pool::allocate(block_size * sizeof(T))));
    T* place = &(*this)[size_];
    std::construct_at(place, std::move(value));
    ++size_;
    return *place;
  }
  /// Appends `count` contiguous elements and returns the index of the first. `count` is at most
  /// `block_size`; a run that does not fit in the last block begins a new one.
  std::size_t append_run(const T* values, std::size_t count) {
    while (size_ % block_size + count > block_size) push_back(T());
    const std::size_t first = size_;
    for (std::size_t i = 0; i < count; ++i) push_back(values[i]);
    return first;
  }
  /// Appends default values up to `size`.
  void grow_to(std::size_t size) {
    while (size_ < size) push_back(T());
  }
  void clear() {
    for (std::size_t i = 0; i < size_; ++i) std::destroy_at(&(*this)[i]);
    for (T* block : blocks_) pool::release(block);
    blocks_.clear();
    size_ = 0;
  }

  static constexpr std::size_t block_size = 256;

 private:
  PoolVector<T*> blocks_;
  std::size_t size_ = 0;
};

}  // namespace reel
