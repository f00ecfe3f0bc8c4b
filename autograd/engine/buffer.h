#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace reel {

/// The thread's pool of memory blocks. A released block waits in a list of its size class (four
/// classes for each power of two) and serves the next request of that class, so a training loop
/// asks the heap for nothing once it has run a few steps.
namespace pool {

/// A block of at least `bytes` bytes, aligned to 64. Its content is undefined.
void* allocate(std::size_t bytes);

/// Gives back what `allocate(bytes)` returned, with the same `bytes`. Any thread may do so; the
/// block then belongs to that thread's pool.
void release(void* block, std::size_t bytes) noexcept;

struct Statistics {
  std::size_t heap_allocations = 0;  ///< blocks ever asked of the heap by this thread
  std::size_t cached_bytes = 0;      ///< bytes waiting in this thread's lists
};
Statistics statistics();

/// Returns this thread's waiting blocks to the heap.
void trim() noexcept;

}  // namespace pool

/// Lets a standard container live in the pool: `std::vector<T, PoolAllocator<T>>`.
template <class T>
struct PoolAllocator {
  using value_type = T;
  PoolAllocator() = default;
  template <class U>
  PoolAllocator(const PoolAllocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(pool::allocate(n * sizeof(T))); }
  void deallocate(T* p, std::size_t n) noexcept { pool::release(p, n * sizeof(T)); }
  bool operator==(const PoolAllocator&) const { return true; }
};

template <class T>
using PoolVector = std::vector<T, PoolAllocator<T>>;

/// Uninitialised pooled memory for the duration of a kernel.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : bytes_(static_cast<std::size_t>(count) * sizeof(T)),
        data_(static_cast<T*>(pool::allocate(bytes_))) {}
  ~Scratch() { pool::release(data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() const { return data_; }
  T& operator[](std::int64_t i) const { return data_[i]; }

 private:
  std::size_t bytes_;
  T* data_;
};

/// A reference-counted block of the pool: the storage that tensor handles share.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes);
  Buffer(const Buffer& other) : block_(other.block_) { retain(); }
  Buffer(Buffer&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  Buffer& operator=(Buffer other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~Buffer() { drop(); }

  explicit operator bool() const { return block_ != nullptr; }
  void* data() const { return reinterpret_cast<std::byte*>(block_) + header_bytes; }
  /// Whether this handle is the only one, so that writing in place is invisible to others.
  bool unique() const { return block_->references.load(std::memory_order_acquire) == 1; }
  bool shares(const Buffer& other) const { return block_ == other.block_; }

 private:
  struct Block {
    std::atomic<std::uint32_t> references;
    std::size_t bytes;  // of the block, header included
  };
  static constexpr std::size_t header_bytes = 64;

  void retain() const {
    if (block_) block_->references.fetch_add(1, std::memory_order_relaxed);
  }
  void drop() noexcept {
    // The only handle needs no atomic subtraction: nobody else can copy it meanwhile.
    if (block_ && (unique() || block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1))
      pool::release(block_, block_->bytes);
  }

  Block* block_ = nullptr;
};

}  // namespace reel
