#pragma once

#include <reel/autograd/params.h>
#include <reel/autograd/row_gradient.h>

namespace reel {

/// The gradients of a loss with respect to the parameters of a store: an explicit value returned by
/// the tape, which can be added, scaled and measured, and is passed to an optimizer.
///
/// That of a matrix of which only gather_rows read rows, as an Embedding does, is kept for those
/// rows only. Apart from `find_rows` and `each_part` nothing but time and memory shows the
/// difference.
class Gradients {
 public:
  /// Empty, without a store: `+=` adopts the store of what is added.
  Gradients() = default;
  explicit Gradients(const Params& params);
  Gradients(const Gradients& other);
  Gradients(Gradients&&) = default;
  Gradients& operator=(const Gradients& other) { return *this = Gradients(other); }
  Gradients& operator=(Gradients&&) = default;
  ~Gradients() = default;

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
  const Tensor* find(const Param& param) const { return find(*param.entry()); }
  const Tensor* find(const ParamEntry& entry) const;
  Tensor* find(const ParamEntry& entry);
  /// The gradient of the rows that have one, or null if it is known of the whole parameter only. A
  /// gradient that was asked for as a whole is changed as a whole from then on. Only the values of
  /// the rows may be changed, not which ones they are.
  const RowGradient* find_rows(const ParamEntry& entry) const;
  RowGradient* find_rows(const ParamEntry& entry);

  /// Sets the gradient of one parameter of the store. Throws ShapeError if the shape differs.
  void set(const ParamEntry& entry, Tensor gradient);
  /// The same by rows; ValueError unless these ascend and are rows of the parameter.
  void set(const ParamEntry& entry, RowGradient gradient);
  /// Moves the gradient of one parameter, if there is one, to others of the same store.
  void move_to(Gradients& other, const ParamEntry& entry);

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
    each(*this, f);
  }
  template <class F>
  void each(F&& f) const {
    each(*this, f);
  }
  /// Calls `f(entry, values, rows)` in the same order, without making whole gradients of those by
  /// rows: `rows` is undefined where `values` are of the whole parameter.
  template <class F>
  void each_part(F&& f) {
    each_part(*this, f);
  }
  template <class F>
  void each_part(F&& f) const {
    each_part(*this, f);
  }

 private:
  template <class Self, class F>
  static void each(Self& self, F& f) {
    self.params_.each([&](const std::shared_ptr<ParamEntry>& entry) {
      if (auto* const gradient = self.find(*entry)) f(entry, *gradient);
    });
  }
  template <class Self, class F>
  static void each_part(Self& self, F& f) {
    self.params_.each([&](const std::shared_ptr<ParamEntry>& entry) {
      if (auto* const part = self.find_rows(*entry))
        f(entry, part->values, std::as_const(part->rows));
      else if (auto* const gradient = self.find(*entry))
        f(entry, *gradient, Tensor());
    });
  }
  void require(const ParamEntry& entry) const;
  bool has(const ParamEntry& entry) const;
  void prepare(const ParamEntry& entry);
  void add(const ParamEntry& entry, const Gradients& other);

  bool has_store_ = false;
  Params params_;
  // By ParamEntry::index; undefined where there is none. Of a gradient by rows the whole one is
  // made when it is first asked for.
  PoolVector<RowGradient> rows_;
  mutable PoolVector<Tensor> values_;
};

}  // namespace reel
