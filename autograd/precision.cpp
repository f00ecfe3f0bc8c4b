#include <reel/autograd/precision.h>

#include <atomic>
#include <utility>

#include <reel/autograd/kernels/level.h>

namespace reel {
namespace {

std::atomic<Precision> of_all_threads{Precision::f32};
thread_local std::optional<Precision> of_this_thread;

}  // namespace

const char* name_of(Precision precision) { return precision == Precision::bf16 ? "bf16" : "f32"; }

void set_matmul_precision(Precision precision) {
  of_all_threads.store(precision, std::memory_order_relaxed);
}

Precision matmul_precision() {
  return of_this_thread ? *of_this_thread : of_all_threads.load(std::memory_order_relaxed);
}

bool bf16_is_faster() { return kernels::has_tiles(); }

PrecisionScope::PrecisionScope(Precision precision)
    : before_(std::exchange(of_this_thread, precision)) {}
PrecisionScope::~PrecisionScope() { of_this_thread = before_; }

}  // namespace reel
