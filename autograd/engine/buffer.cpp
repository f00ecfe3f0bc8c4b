#include <reel/autograd/engine/buffer.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>
#include <string>

#include <reel/autograd/error.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#ifdef __has_feature
#define REEL_HAS_FEATURE(x) __has_feature(x)
#else
#define REEL_HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || REEL_HAS_FEATURE(address_sanitizer)
#include <sanitizer/asan_interface.h>
#elif REEL_HAS_FEATURE(memory_sanitizer)
#include <sanitizer/msan_interface.h>
#endif

namespace reel {
namespace pool {
namespace {

constexpr std::size_t alignment = 64;
constexpr int steps_per_doubling = 4;
constexpr int smallest_log2 = 8;  // blocks below 256 bytes come in multiples of 64
constexpr int largest_log2 = 48;
constexpr int class_count = 4 + (largest_log2 - smallest_log2) * steps_per_doubling;

struct SizeClass {
  std::uint32_t index;
  std::size_t bytes;  // capacity of a block of the class
};

SizeClass size_class(std::size_t bytes) {
  if (bytes <= 256) {
    const std::size_t quarter = bytes == 0 ? 0 : (bytes - 1) / 64;
    return {static_cast<std::uint32_t>(quarter), (quarter + 1) * 64};
  }
  const int log2 =
      static_cast<int>(std::bit_width(bytes - 1)) - 1;  // 2^log2 < bytes <= 2^(log2 + 1)
  const std::size_t step = (std::size_t{1} << log2) / steps_per_doubling;
  const std::size_t above = (bytes - 1 - (std::size_t{1} << log2)) / step;
  const int index = 4 + (log2 - smallest_log2) * steps_per_doubling + static_cast<int>(above);
  return {static_cast<std::uint32_t>(index), (std::size_t{1} << log2) + (above + 1) * step};
}

// A large block uses huge pages as far as it fills them, if the system has them: a product that
// strides through it then has fewer TLB misses.
constexpr std::size_t huge_page = std::size_t{2} << 20;

std::align_val_t alignment_of(std::size_t bytes) {
  return std::align_val_t{bytes < huge_page ? alignment : huge_page};
}

std::byte* data_of(Header* block) { return reinterpret_cast<std::byte*>(block) + header_bytes; }
Header* header_of(void* data) {
  return reinterpret_cast<Header*>(static_cast<std::byte*>(data) - header_bytes);
}

constexpr int no_fill = -1;
constinit std::atomic<int> fill_byte{no_fill};

// Tells the sanitizers that memory is inaccessible, accessible, or uninitialised.
#if defined(__SANITIZE_ADDRESS__) || REEL_HAS_FEATURE(address_sanitizer)
void poison(void* place, std::size_t bytes) { ASAN_POISON_MEMORY_REGION(place, bytes); }
void unpoison(void* place, std::size_t bytes) { ASAN_UNPOISON_MEMORY_REGION(place, bytes); }
#elif REEL_HAS_FEATURE(memory_sanitizer)
void poison(void* place, std::size_t bytes) { __msan_allocated_memory(place, bytes); }
void unpoison(void* place, std::size_t bytes) { __msan_allocated_memory(place, bytes); }
#else
void poison(void*, std::size_t) {}
void unpoison(void*, std::size_t) {}
#endif

// Marks a block as used with this many bytes, or as free. With a sanitizer anything beyond those
// bytes is out of bounds.
void* opened(Header* block, std::size_t bytes) {
  std::byte* data = data_of(block);
  unpoison(data, bytes);
  if (const int byte = fill_byte.load(std::memory_order_relaxed); byte != no_fill) [[unlikely]]
    std::memset(data, byte, bytes);
  return data;
}
void close(Header* block) { poison(data_of(block), block->bytes - header_bytes); }

}  // namespace

// The part of a thread's pool that other threads access. It lives as long as the thread or any of
// its blocks.
struct Owner {
  std::atomic<std::size_t> users{1};  // the thread and its blocks
  std::atomic<Header*> inbox{
      nullptr};  // blocks that other threads released; `ended` after the thread has ended

  void drop() noexcept {
    if (users.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
};

namespace {

constinit Header ended{};     // in an inbox: its thread has ended
constinit Owner no_thread{};  // for a thread without a pool, not yet or no longer

// Heap memory, or null. (Uses the throwing form, since a program that replaces operator new may not
// replace the other one.)
void* place_on_heap(std::size_t bytes) try {
  return ::operator new(bytes, alignment_of(bytes));
} catch (const std::bad_alloc&) {
  return nullptr;
}

// A block from the heap, or null.
Header* heap_allocate(SizeClass c, Owner* owner) {
  void* place = place_on_heap(c.bytes);
  if (!place) return nullptr;
#ifdef MADV_HUGEPAGE
  if (c.bytes >= huge_page) madvise(place, c.bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
  Header* block = new (place) Header{owner, nullptr, c.bytes, c.index, {}};
  if (owner) owner->users.fetch_add(1, std::memory_order_relaxed);
  close(block);
  return block;
}

void heap_release(Header* block) noexcept {
  const std::size_t bytes = block->bytes;
  Owner* owner = block->owner;
  unpoison(data_of(block), bytes - header_bytes);
  ::operator delete(block, alignment_of(bytes));
  if (owner) owner->drop();
}

void heap_release_all(Header* block) noexcept {
  while (block) heap_release(std::exchange(block, block->next));
}

// The thread's free lists. Without constructor and destructor, thread-local access to them is
// cheap.
struct Lists {
  struct List {
    Header* head;
    std::uint64_t last_request;
  };
  static constexpr std::size_t always_held = std::size_t{32} << 20;

  std::array<List, class_count> lists{};
  std::uint64_t requests = 0;
  Statistics statistics;
  Owner* owner = &no_thread;
  // Blocks can be allocated after the lists are destroyed (by a static variable's destructor); they
  // then come from the heap.
  bool gone = false;

  std::size_t in_use() const { return statistics.held_bytes - statistics.cached_bytes; }

  void put(Header* block) {
    List& list = lists[block->size_class];
    block->next = list.head;
    list.head = block;
    statistics.cached_bytes += block->bytes;
  }
  Header* take(List& list) {
    Header* block = std::exchange(list.head, list.head->next);
    statistics.cached_bytes -= block->bytes;
    return block;
  }
  void release_one(List& list) noexcept {
    Header* block = take(list);
    statistics.held_bytes -= block->bytes;
    heap_release(block);
  }
  void clear() noexcept {
    for (List& list : lists)
      while (list.head) release_one(list);
  }

  // Collects the blocks that other threads released.
  void collect() noexcept {
    if (!owner->inbox.load(std::memory_order_relaxed)) return;
    Header* block = owner->inbox.exchange(nullptr, std::memory_order_acquire);
    while (block) put(std::exchange(block, block->next));
  }

  // Returns least recently used free blocks to the heap, until `bytes` more are within the bound.
  void make_room(std::size_t bytes) noexcept {
    const std::size_t peak = std::max(statistics.peak_bytes, in_use() + bytes);
    const std::size_t most = std::max(2 * peak, always_held);
    while (statistics.cached_bytes > 0 && statistics.held_bytes + bytes > most) {
      List* oldest = nullptr;
      for (List& list : lists)
        if (list.head && (!oldest || list.last_request < oldest->last_request)) oldest = &list;
      while (oldest->head && statistics.held_bytes + bytes > most) release_one(*oldest);
    }
  }

  // A block that does not come from the free list of its class; null if out of memory.
  Header* refill(SizeClass c) {
    if (owner == &no_thread) {
      if (gone) return heap_allocate(c, nullptr);
      begin();
    }
    collect();
    if (List& list = lists[c.index]; list.head) return take(list);
    make_room(c.bytes);
    Header* block = heap_allocate(c, owner);
    if (!block) {  // free blocks may be what the heap lacks
      clear();
      block = heap_allocate(c, owner);
    }
    if (!block) return nullptr;
    ++statistics.heap_allocations;
    statistics.held_bytes += c.bytes;
    return block;
  }

 private:
  void begin();
};
constinit thread_local Lists thread_lists;

void Lists::begin() {
  struct EndOfThread {
    ~EndOfThread() {
      Lists& lists = thread_lists;
      Owner* owner = std::exchange(lists.owner, &no_thread);
      lists.gone = true;
      lists.clear();
      heap_release_all(owner->inbox.exchange(&ended, std::memory_order_acq_rel));
      owner->drop();
    }
  };
  owner = new Owner;
  thread_local const EndOfThread end_of_thread;
}

// Sends a block back to the pool that it belongs to.
void release_elsewhere(Header* block) noexcept {
  if (!block->owner) return heap_release(block);
  std::atomic<Header*>& inbox = block->owner->inbox;
  Header* head = inbox.load(std::memory_order_acquire);
  do {
    if (head == &ended) return heap_release(block);
    block->next = head;
  } while (!inbox.compare_exchange_weak(head, block, std::memory_order_release,
                                        std::memory_order_acquire));
}

[[noreturn]] void throw_too_much(std::size_t bytes) {
  throw MemoryError(std::to_string(bytes) + " bytes are more than the system grants");
}

}  // namespace

void* allocate(std::size_t bytes) {
  if (bytes > (std::size_t{1} << largest_log2) - header_bytes) throw_too_much(bytes);
  const SizeClass c = size_class(header_bytes + bytes);
  Lists& lists = thread_lists;
  Lists::List& list = lists.lists[c.index];
  list.last_request = ++lists.requests;
  Header* block = list.head ? lists.take(list) : lists.refill(c);
  if (!block) throw_too_much(bytes);
  lists.statistics.peak_bytes = std::max(lists.statistics.peak_bytes, lists.in_use());
  return opened(block, bytes);
}

void release(void* data) noexcept {
  Header* block = header_of(data);
  close(block);
  if (block->owner == thread_lists.owner)
    thread_lists.put(block);
  else
    release_elsewhere(block);
}

Statistics statistics() {
  thread_lists.collect();
  return thread_lists.statistics;
}

void trim() noexcept {
  thread_lists.collect();
  thread_lists.clear();
}

std::optional<unsigned char> fill_blocks(std::optional<unsigned char> byte) {
  const int before = fill_byte.exchange(byte ? *byte : no_fill, std::memory_order_relaxed);
  if (before == no_fill) return std::nullopt;
  return static_cast<unsigned char>(before);
}

}  // namespace pool
}  // namespace reel
