#pragma once

#include <array>
#include <cstddef>
#include <exception>
#include <utility>

#include <reel/autograd/engine/op.h>

namespace reel {
namespace detail {

/// Deferred kernels: those of the thread's calls, while this is its current list.
class DeferredKernels {
 public:
  DeferredKernels() : previous_(std::exchange(current_, this)) {}
  ~DeferredKernels() { current_ = previous_; }
  DeferredKernels(const DeferredKernels&) = delete;
  DeferredKernels& operator=(const DeferredKernels&) = delete;

  static DeferredKernels* current() { return current_; }
  void add(const op::OpSpec& op, DType dtype, const op::KernelCall& call, Site site);
  /// Runs them concurrently, each on one thread. Rethrows the exception of the first one that
  /// fails.
  void run();

 private:
  // Owns what an op::KernelCall points to.
  struct DeferredCall {
    const op::OpSpec* op;
    DType dtype;
    Tensors inputs, outputs;
    alignas(8) std::array<std::byte, 64> attr;
    bool recording;
    Site site;
    std::exception_ptr error;

    void run() noexcept;
  };

  static inline constinit thread_local DeferredKernels* current_ = nullptr;

  DeferredKernels* previous_;
  PoolVector<DeferredCall> kernels_;
};

}  // namespace detail

/// f(), with the kernels of ops that leave threads idle (`OpSpec::one_thread`) deferred until f has
/// returned, and then run concurrently. Such an op is checked and recorded when f calls it, but its
/// results have no values before this function returns: f may pass them on but not read them. On a
/// tape with `profile` or `check_finite`, kernels run immediately. Rethrows what f or a kernel
/// throws.
template <class F>
auto side_by_side(F f) {
  detail::DeferredKernels kernels;
  auto results = f();
  kernels.run();
  return results;
}

}  // namespace reel
