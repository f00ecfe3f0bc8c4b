#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace reel {

/// Each thread's pool of memory blocks. A released block waits in a list of its size class (four
/// classes for each power of two) and serves the next request of that class, so a training loop
/// asks the heap for nothing once it has run a few steps.
///
/// A block belongs to the pool of the thread that asked for it. Another thread that releases it
/// sends it back there; when its own thread has ended, it goes to the heap. A pool holds at most
/// twice what was in use of it at its peak, or 32 MiB where that is more: before it asks the heap
/// for more, it returns the waiting blocks of the classes that have not been asked for the longest.
namespace pool {

/// A block of at least `bytes` bytes, aligned to 64. Its content is undefined.
/// Throws MemoryError when the system does not grant it.
void* allocate(std::size_t bytes);

/// Gives back what `allocate` returned. Any thread may do so.
void release(void* data) noexcept;

/// Of this thread's pool.
struct Statistics {
  std::size_t heap_allocations = 0;  ///< blocks ever asked of the heap
  std::size_t cached_bytes = 0;      ///< bytes waiting in the lists
  std::size_t held_bytes = 0;        ///< bytes asked of the heap and not returned to it
  std::size_t peak_bytes = 0;        ///< the most that was ever in use, not waiting
};
Statistics statistics();

/// Returns this thread's waiting blocks to the heap.
void trim() noexcept;

/// From now on, fills every block that any thread is given with this byte, or with none leaves it
/// as it was; returns the setting before. 0xFF is NaN, and -1 in an i32, so an element of an output
/// that nobody wrote shows. For tests.
std::optional<unsigned char> fill_blocks(std::optional<unsigned char> byte);

/// What lies before every block; `references` is for Buffer.
struct Owner;
struct Header {
  Owner* owner;       // the pool that it belongs to, null for one that goes to the heap
  Header* next;       // while it waits
  std::size_t bytes;  // of the block, this header included
  std::uint32_t size_class;
  std::atomic<std::uint32_t> references;
};
inline constexpr std::size_t header_bytes = 64;

}  // namespace pool

/// Lets a standard container live in the pool: `std::vector<T, PoolAllocator<T>>`.
template <class T>
struct PoolAllocator {
  using value_type = T;
  PoolAllocator() = default;
  template <class U>
  PoolAllocator(const PoolAllocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(pool::allocate(n * sizeof(T))); }
  void deallocate(T* p, std::size_t) noexcept { pool::release(p); }
  bool operator==(const PoolAllocator&) const { return true; }
};

template <class T>
using PoolVector = std::vector<T, PoolAllocator<T>>;

/// Uninitialised pooled memory for the duration of a kernel.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : data_(static_cast<T*>(pool::allocate(static_cast<std::size_t>(count) * sizeof(T)))) {}
  ~Scratch() { pool::release(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() const { return data_; }
  T& operator[](std::int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

/// A reference-counted block of the pool: the storage that tensor handles share.
class Buffer {
 public:
  Buffer() = default;
  /// Throws MemoryError when the system does not grant it.
  explicit Buffer(std::size_t bytes) : block_(header_of(pool::allocate(bytes))) {
    block_->references.store(1, std::memory_order_relaxed);
  }
  Buffer(const Buffer& other) : block_(other.block_) { retain(); }
  Buffer(Buffer&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  Buffer& operator=(Buffer other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~Buffer() { drop(); }

  explicit operator bool() const { return block_ != nullptr; }
  void* data() const { return reinterpret_cast<std::byte*>(block_) + pool::header_bytes; }
  /// Whether this handle is the only one, so that writing in place is invisible to others.
  bool unique() const { return block_->references.load(std::memory_order_acquire) == 1; }
  bool shares(const Buffer& other) const { return block_ == other.block_; }

 private:
  static pool::Header* header_of(void* block) {
    return reinterpret_cast<pool::Header*>(static_cast<std::byte*>(block) - pool::header_bytes);
  }
  void retain() const {
    if (block_) block_->references.fetch_add(1, std::memory_order_relaxed);
  }
  void drop() noexcept {
    // The only handle needs no atomic subtraction: nobody else can copy it meanwhile.
    if (block_ && (unique() || block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1))
      pool::release(data());
  }

  pool::Header* block_ = nullptr;
};

}  // namespace reel
