#pragma once

#include <reel/autograd/params.h>

namespace reel {

/// The gradients of a loss with respect to the parameters of a store: an explicit value returned by
/// the tape, which can be added, scaled and measured, and is passed to an optimizer.
class Gradients {
 public:
  /// Empty, without a store: `+=` adopts the store of what is added.
  Gradients() = default;
  explicit Gradients(const Params& params);

  /// A parameter, with the source location where it was written.
  struct Place {
    Place(const Param& p, Site here = {}) : param(p), site(here) {}
    const Param& param;
    Site site;
  };
  /// The gradient of one parameter, by name or handle. Throws GradientError if the loss did not
  /// depend on it.
  const Tensor& operator[](const ParamName& name) const;
  const Tensor& operator[](const Place& place) const;
  /// The same, or null if the loss did not depend on the parameter.
  const Tensor* find(const Param& param) const;
  Tensor* find(const ParamEntry& entry);

  /// Sets the gradient of one parameter of the store. Throws ShapeError if the shape differs.
  void set(const ParamEntry& entry, Tensor gradient);

  /// Adds the gradients of another window or shard, parameter by parameter. Throws ValueError,
  /// having added nothing, if one belongs to another store or part.
  Gradients& operator+=(const Gradients& other);
  /// Multiplies every gradient.
  Gradients& operator*=(Arg<double> factor);
  /// The global Euclidean norm of all gradients, accumulated in double.
  double norm() const;

  const Params& params() const { return params_; }
  /// Calls `f(entry, gradient)` for each parameter that has a gradient, in the store's order.
  template <class F>
  void each(F&& f) {
    params_.each([&](const std::shared_ptr<ParamEntry>& entry) {
      if (Tensor* gradient = find(*entry)) f(entry, *gradient);
    });
  }
  template <class F>
  void each(F&& f) const {
    const_cast<Gradients*>(this)->each([&](const std::shared_ptr<ParamEntry>& entry,
                                           const Tensor& gradient) { f(entry, gradient); });
  }

 private:
  void require(const ParamEntry& entry) const;

  bool has_store_ = false;
  Params params_;
  PoolVector<Tensor> values_;  // by ParamEntry::index; undefined where there is none
};

}  // namespace reel
