#pragma once

#include <array>
#include <cstddef>
#include <exception>
#include <utility>

#include <reel/autograd/engine/op.h>

namespace reel {
namespace detail {

/// Kernels that were put off: those of the thread's calls, while this is its current list.
class PutOffKernels {
 public:
  PutOffKernels() : previous_(std::exchange(current_, this)) {}
  ~PutOffKernels() { current_ = previous_; }
  PutOffKernels(const PutOffKernels&) = delete;
  PutOffKernels& operator=(const PutOffKernels&) = delete;

  static PutOffKernels* current() { return current_; }
  void add(const op::OpSpec& op, DType dtype, const op::KernelCall& call, Site site);
  /// Runs them side by side, each on one thread. Throws what the first of those that fail throws.
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

  static inline constinit thread_local PutOffKernels* current_ = nullptr;

  PutOffKernels* previous_;
  PoolVector<DeferredCall> kernels_;
};

}  // namespace detail

/// f(), with the kernels of ops that leave threads idle (`OpSpec::one_thread`) put off until f is
/// done, and then run side by side. Such an op is checked and recorded where f calls it, but its
/// results have no values before this function returns: f may pass them on, not use them. On a tape
/// that measures ops or looks for what is not finite, kernels run where they are called.
/// Throws what f throws, and what a kernel throws.
template <class F>
auto side_by_side(F f) {
  detail::PutOffKernels kernels;
  auto results = f();
  kernels.run();
  return results;
}

}  // namespace reel
