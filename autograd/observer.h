#pragma once

#include <string_view>
#include <utility>

#include <reel/autograd/cell.h>

namespace reel {

namespace kernels {
template <Real T>
struct Recurrence;
template <Real T>
struct DirectionGradients;
}  // namespace kernels

/// One direction of a fused recurrent layer, right before its backward pass.
template <Real T>
struct ObservedPass {
  const CellSpec& cell;
  const kernels::Recurrence<T>& layer;
  const kernels::DirectionGradients<T>& values;  ///< y, and what the forward pass kept
  std::size_t direction;                         ///< index in layer.directions
  const CellInputs& inputs;                      ///< copies
};

/// Sees what recurrent layers do on a thread, within the lifetime of an ObserverScope; see
/// nn/diagnostics.h. The module is current_place.module.
class Observer {
 public:
  virtual ~Observer() = default;
  /// A fused layer is about to be differentiated. Where the result is not null, the pass writes
  /// |dL/dh|² of every token there.
  virtual double* before_backward(const ObservedPass<float>& pass) = 0;
  virtual double* before_backward(const ObservedPass<double>& pass) = 0;
  /// linear_scan is about to run: h_t = a_t h_{t-1} + b_t.
  virtual void scan(const Tensor& a, const Tensor& b, const Tensor& lengths, bool reverse) = 0;
  /// A layer that runs step by step, in ops, has computed the next state, of which this is the
  /// first tensor; steps follow each other.
  virtual void step(std::string_view module, const Tensor& h, bool reverse) = 0;

  /// That of this thread, or null.
  static Observer* current() { return current_; }

 private:
  friend class ObserverScope;
  [[gnu::visibility("default")]] static inline constinit thread_local Observer* current_ = nullptr;
};

/// Makes an observer that of this thread for its lifetime; null: none.
class ObserverScope {
 public:
  explicit ObserverScope(Observer* observer)
      : previous_(std::exchange(Observer::current_, observer)) {}
  ~ObserverScope() { Observer::current_ = previous_; }
  ObserverScope(const ObserverScope&) = delete;
  ObserverScope& operator=(const ObserverScope&) = delete;

 private:
  Observer* previous_;
};

}  // namespace reel
