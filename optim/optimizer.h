#pragma once

#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <reel/autograd/gradients.h>
#include <reel/nn/named_tensors.h>
#include <reel/nn/sizes.h>

/// Optimizers, which update parameters from gradients.
namespace reel::optim {

/// Changes parameters in place, step by step, given their gradients. The base of all optimizers,
/// for programs that choose one at run time: `std::unique_ptr<Optimizer>`.
///
/// It updates the parameters that its part of the store had when it was constructed. Results do not
/// depend on the number of threads, and a step makes no heap allocations. An optimizer of a
/// concrete class may be moved; a moved-from one takes no more steps.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// Updates every parameter that has a gradient; the others, and their moments, stay unchanged.
  /// Throws ValueError, having changed nothing, if the gradients belong to another store, if
  /// parameters were created after the optimizer, or if a finite gradient, or a parameter with
  /// weight decay, is so large that a moment would become infinite and the parameter frozen.
  void step(const Gradients& gradients, Site site = {});

  double learning_rate() const { return learning_rate_; }
  /// Throws ValueError unless 0 <= learning_rate < infinity.
  void set_learning_rate(double learning_rate, Site site = {});

  /// "sgd", "adam", ...: how the names of its state begin.
  const std::string& name() const { return name_; }

  /// Its whole state: for each parameter the number of steps taken, an f64 scalar
  /// "adam.steps.<parameter>", and arrays such as "adam.m.<parameter>" of the parameter's shape and
  /// dtype. The learning rate is not included. Copies no numbers, and later steps do not change the
  /// result (copy on write).
  nn::NamedTensors state() const;
  /// Continues from such a state, bit for bit as if it had never stopped. Throws ValueError, having
  /// changed nothing, if an entry is missing, unexpected, of another shape or dtype, or holds an
  /// impossible value: one that is not finite, or a negative mean of squares.
  void restore(const nn::NamedTensors& state, Site site = {});

 protected:
  /// A setting of an optimizer, which must be in [0, limit).
  struct Setting {
    std::string_view name;
    double value;
    double limit = std::numeric_limits<double>::infinity();
  };

  /// A moment: an array stored for each parameter.
  struct Moment {
    std::string name;
    double least = -std::numeric_limits<double>::infinity();  ///< 0 for a mean of squares
  };

  /// One parameter and its state.
  struct Slot {
    Param param;
    std::vector<Tensor> moments = {};  ///< zero at first, in the order of the names
    double steps = 0;                  ///< including the current one

    void own();
  };
  /// A range of a parameter's elements. The pieces of all parameters are the tasks of a step.
  struct Range {
    Index begin, end;
  };

  /// `moments` names the arrays stored for each parameter, moments of the gradient plus
  /// `weight_decay` times the parameter. Throws ValueError if a setting is out of range or there
  /// are no parameters.
  Optimizer(std::string name, const nn::ModuleParams& params, double learning_rate,
            std::initializer_list<Setting> settings, std::vector<Moment> moments,
            double weight_decay = 0);

  /// Throws ValueError where `epsilon` is too small to stand for a mean of squares, with this decay
  /// rate, that underflows: the square of a smaller gradient vanishes from the denominator of a
  /// step but its moment not from the numerator, and the step would be any number of times too
  /// large, or infinite. The least is √(smallest normal number / (1 - decay)) of the parameters'
  /// dtypes.
  void check_epsilon(double epsilon, double decay) const;

  // Not for all: the formula of one class would meet the moments of another.
  Optimizer(Optimizer&&) = default;
  Optimizer& operator=(Optimizer&&) = default;

  /// Calls `formula(p, g, m...)` for each element p of a piece of the parameter, its gradient g and
  /// its first `count` moments; the formula assigns to p and m.
  template <std::size_t count, class F>
  static void update_each(const Slot& slot, const Tensor& gradient, const Range& piece, F formula) {
    dispatch_real(gradient.dtype(), [&]<class T>() {
      const auto begin = [&](const Tensor& x) {
        return static_cast<T*>(x.buffer().data()) + piece.begin;
      };
      [&]<std::size_t... k>(std::index_sequence<k...>) {
        loop(formula, piece.end - piece.begin, begin(slot.param.value()),
             gradient.begin<T>() + piece.begin, begin(slot.moments[k])...);
      }
      (std::make_index_sequence<count>());
    });
  }

  /// Throws ValueError with the optimizer's name and the line of the call.
  [[noreturn]] void fail(const std::string& why) const;

 private:
  virtual void update(const Slot& slot, const Tensor& gradient, const Range& piece) const = 0;

  void check(const Setting& setting) const;
  void check(const Gradients& gradients) const;
  template <class T>
  bool may_overflow(const Tensor& value, const Tensor& gradient, const Range& piece) const;
  void check_moments(const Slot& slot, const Tensor& gradient) const;
  std::string key(std::string_view what, const Slot& slot) const;
  void check(const std::string& entry, const Tensor& value, double least) const;

  // No aliasing: own() gave each array its own buffer.
  template <class T, class F, class... Moments>
  static void loop(F formula, Index size, T* __restrict p, const T* __restrict g,
                   Moments* __restrict... moments) {
    for (Index i = 0; i < size; ++i) formula(p[i], g[i], moments[i]...);
  }

  std::string name_;
  Params params_;
  double learning_rate_;
  std::vector<Moment> moments_;
  double weight_decay_;
  std::vector<Slot> slots_;
};

}  // namespace reel::optim
