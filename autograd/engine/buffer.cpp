#include <reel/autograd/engine/buffer.h>

#include <array>
#include <bit>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
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
  int index;
  std::size_t bytes;  // what a block of the class holds
};

SizeClass size_class(std::size_t bytes) {
  if (bytes <= 256) {
    const std::size_t quarter = bytes == 0 ? 0 : (bytes - 1) / 64;
    return {static_cast<int>(quarter), (quarter + 1) * 64};
  }
  const int log2 =
      static_cast<int>(std::bit_width(bytes - 1)) - 1;  // 2^log2 < bytes <= 2^(log2 + 1)
  const std::size_t step = (std::size_t{1} << log2) / steps_per_doubling;
  const std::size_t above = (bytes - 1 - (std::size_t{1} << log2)) / step;
  return {4 + (log2 - smallest_log2) * steps_per_doubling + static_cast<int>(above),
          (std::size_t{1} << log2) + (above + 1) * step};
}

// A large block lies on huge pages as far as it fills them, where the system has such pages:
// a product that strides through it then finds the addresses of its rows.
constexpr std::size_t huge_page = std::size_t{2} << 20;

std::align_val_t alignment_of(std::size_t bytes) {
  return std::align_val_t{bytes < huge_page ? alignment : huge_page};
}

void* heap_allocate(std::size_t bytes) {
  void* block = ::operator new(bytes, alignment_of(bytes));
#ifdef MADV_HUGEPAGE
  if (bytes >= huge_page) madvise(block, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
  return block;
}

void heap_release(void* block, std::size_t bytes) noexcept {
  ::operator delete(block, alignment_of(bytes));
}

// A waiting block holds its size and the link to the next one in its own first bytes.
struct FreeBlock {
  FreeBlock* next;
  std::size_t bytes;
};

// The thread's lists. They need no constructor and no destructor, so reaching them costs nothing.
struct Lists {
  // Blocks can outlive the thread's lists (a tensor in a static variable); they then go to the
  // heap.
  enum class Life : unsigned char { unborn, alive, gone };

  std::array<FreeBlock*, class_count> heads{};
  Statistics statistics;
  Life life = Life::unborn;

  void clear() noexcept {
    for (FreeBlock*& head : heads)
      while (FreeBlock* block = head) {
        head = block->next;
        heap_release(block, block->bytes);
      }
    statistics.cached_bytes = 0;
  }
};
constinit thread_local Lists lists;

// Returns the lists' blocks to the heap when the thread ends.
struct Undertaker {
  Undertaker() { lists.life = Lists::Life::alive; }
  ~Undertaker() {
    lists.life = Lists::Life::gone;
    lists.clear();
  }
};
void give_birth() { thread_local Undertaker undertaker; }

}  // namespace

void* allocate(std::size_t bytes) {
  if (bytes > std::size_t{1} << largest_log2) throw std::bad_alloc();
  const SizeClass c = size_class(bytes);
  FreeBlock*& head = lists.heads[static_cast<std::size_t>(c.index)];
  if (!head) {
    ++lists.statistics.heap_allocations;
    return heap_allocate(c.bytes);
  }
  lists.statistics.cached_bytes -= c.bytes;
  return std::exchange(head, head->next);
}

void release(void* block, std::size_t bytes) noexcept {
  if (lists.life != Lists::Life::alive) {
    if (lists.life == Lists::Life::gone) return heap_release(block, size_class(bytes).bytes);
    give_birth();
  }
  const SizeClass c = size_class(bytes);
  FreeBlock*& head = lists.heads[static_cast<std::size_t>(c.index)];
  head = new (block) FreeBlock{head, c.bytes};
  lists.statistics.cached_bytes += c.bytes;
}

Statistics statistics() { return lists.statistics; }

void trim() noexcept { lists.clear(); }

}  // namespace pool

Buffer::Buffer(std::size_t bytes) {
  const std::size_t total = header_bytes + bytes;
  block_ = new (pool::allocate(total)) Block{1, total};
}

}  // namespace reel
