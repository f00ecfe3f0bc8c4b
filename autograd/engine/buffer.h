#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace reel {

/// Each thread's pool of memory blocks. A released block goes to the free list of its size class
/// (four classes per power of two) and serves the next request of that class, so a training loop
/// makes no heap allocations after its first few steps.
///
/// A block belongs to the pool of the thread that allocated it. A block released by another thread
/// is sent back there, or to the heap if its thread has ended. A pool holds at most twice its peak
/// use, or 32 MiB if that is more: before it allocates more from the heap, it returns the free
/// blocks of the least recently used classes.
namespace pool {

/// A block of at least `bytes` bytes, aligned to 64, with undefined content. Throws MemoryError
/// when out of memory.
void* allocate(std::size_t bytes);

/// Frees what `allocate` returned. May be called from any thread.
void release(void* data) noexcept;

/// Statistics of this thread's pool.
struct Statistics {
  std::size_t heap_allocations = 0;  ///< blocks ever allocated from the heap
  std::size_t cached_bytes = 0;      ///< bytes in the free lists
  std::size_t held_bytes = 0;        ///< bytes allocated from the heap and not returned
  std::size_t peak_bytes = 0;        ///< the most that was ever in use
};
Statistics statistics();

/// Returns this thread's free blocks to the heap.
void trim() noexcept;

/// From now on, fills every block that any thread allocates with this byte, or leaves it
/// uninitialised if there is none; returns the previous setting. 0xFF makes NaN, or -1 in an i32,
/// so that output elements that were never written stand out. For tests.
std::optional<unsigned char> fill_blocks(std::optional<unsigned char> byte);

struct Owner;
/// The header in front of every block; `references` is for Buffer.
struct Header {
  Owner* owner;       // the pool that it belongs to, null for one that returns to the heap
  Header* next;       // while it is free
  std::size_t bytes;  // of the block, this header included
  std::uint32_t size_class;
  std::atomic<std::uint32_t> references;
  bool exposed = false;  // see Buffer
};
inline constexpr std::size_t header_bytes = 64;

}  // namespace pool

/// Lets a standard container allocate from the pool: `std::vector<T, PoolAllocator<T>>`.
template <class T>
struct PoolAllocator {
  using value_type = T;
  PoolAllocator() = default;
  template <class U>
  PoolAllocator(const PoolAllocator<U>&) {}
  /// Throws MemoryError when out of memory.
  T* allocate(std::size_t n) { return static_cast<T*>(pool::allocate(n * sizeof(T))); }
  /// Returns what `allocate` returned to its pool.
  void deallocate(T* p, std::size_t) noexcept { pool::release(p); }
  bool operator==(const PoolAllocator&) const { return true; }
};

template <class T>
using PoolVector = std::vector<T, PoolAllocator<T>>;

/// Uninitialised scratch memory from the pool, for the duration of a kernel.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : data_(static_cast<T*>(pool::allocate(static_cast<std::size_t>(count) * sizeof(T)))) {}
  ~Scratch() {
    if (data_) pool::release(data_);
  }
  Scratch(Scratch&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
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
  /// Throws MemoryError when out of memory.
  explicit Buffer(std::size_t bytes) : block_(header_of(pool::allocate(bytes))) {
    block_->references.store(1, std::memory_order_relaxed);
    block_->exposed = false;
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
  /// Whether this handle is the only one, so that nobody else can see an in-place write.
  bool unique() const { return block_->references.load(std::memory_order_acquire) == 1; }
  /// Whether both are handles of one block.
  bool shares(const Buffer& other) const { return block_ == other.block_; }

  /// Whether a writable span of the numbers was handed out: its holder may write at any time.
  bool exposed() const { return block_ && block_->exposed; }
  /// Only while the handle is unique.
  void expose() { block_->exposed = true; }

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
