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
#include <reel/optim/clip.h>
#include <reel/optim/group.h>

/// Optimizers, which update parameters from gradients.
namespace reel::optim {

/// Changes parameters in place, step by step, given their gradients. The base of all optimizers,
/// for programs that choose one at run time: `std::unique_ptr<Optimizer>`.
///
/// It updates the parameters that its part of the store had when it was constructed. Results do not
/// depend on the number of threads, and a step makes no heap allocations, except of
/// Muon and Adafactor. An optimizer of a concrete class may be moved; a moved-from one takes no
/// more steps.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// Updates every parameter that has a gradient and is not frozen; the others, and their moments,
  /// stay unchanged.
  /// Throws ValueError, having changed nothing, if the gradients belong to another store, if
  /// parameters were created after the optimizer, or if a finite gradient, or a parameter with
  /// weight decay, is so large that a moment would become infinite and the parameter frozen.
  void step(const Gradients& gradients, Site site = {});

  double learning_rate() const { return learning_rate_; }
  /// Throws ValueError unless 0 <= learning_rate < infinity.
  void set_learning_rate(double learning_rate, Site site = {});

  /// How often the gradients of the k-th group were clipped to its `max_norm`, since the optimizer
  /// was constructed.
  const ClipCount& clip_count(std::size_t group) const { return clip_counts_.at(group); }

  /// "sgd", "adam", ...: how the names of its state begin.
  const std::string& name() const { return name_; }

  /// Its whole state: for each parameter the number of steps taken, an f64 scalar
  /// "adam.steps.<parameter>", and arrays such as "adam.m.<parameter>", of the parameter's dtype
  /// and usually its shape. The learning rate is not included. Copies no numbers, and later steps
  /// do not change the result (copy on write).
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

  /// The shape of a moment.
  enum class Extent : std::uint8_t {
    whole,    ///< that of the parameter
    scalar,   ///< a single f64
    vector,   ///< that of the parameter if it has one axis or none; others do not have the moment
    rows,     ///< of a parameter with two axes or more, of which the last becomes 1
    columns,  ///< the same, but the last but one
  };

  /// A moment: what is stored for each parameter, in its dtype.
  struct Moment {
    std::string name;
    double least = -std::numeric_limits<double>::infinity();  ///< 0 for a mean of squares
    double initial = 0;
    Extent extent = Extent::whole;
  };

  /// How weight decay is applied: added to the gradient, g + lambda p, an L2 penalty; or
  /// decoupled from it, by p <- p - lr lambda p before the formula.
  enum class Decay : std::uint8_t { coupled, decoupled };

  /// The options that every optimizer has.
  struct Common {
    double learning_rate, weight_decay;
    nn::Selection decays;
    std::vector<Group> groups;
    bool keeps_at_zero = false;  ///< whether the formula changes nothing where the gradient is 0
  };
  template <class Options>
  static Common common_of(const Options& options) {
    return {options.learning_rate, options.weight_decay, options.decays, options.groups, false};
  }

  /// One parameter with its settings and its state.
  struct Slot {
    Param param;
    double learning_rate_factor = 1, weight_decay = 0;
    bool lazy_rows = false;
    bool by_rows = false;  ///< whether a step needs only the rows that have a gradient
    std::size_t group = no_group;
    std::vector<Tensor> moments = {};  ///< in the order of the names; undefined if it has none
    double steps = 0;                  ///< including the current one
    Tensor direction = {};             ///< what `begin` made of the gradient as a whole, if it did

    void own();
  };

  /// A range of a parameter's elements in a step. Those of all parameters are the step's tasks.
  struct Piece {
    const Slot& slot;
    const Tensor& gradient;
    double clip;           ///< a factor for the gradient
    double learning_rate;  ///< of this parameter
    Index begin, end;
    Index shift = 0;  ///< from the gradient's elements to these, where it covers only some rows
  };

  /// `moments` names what is stored for each parameter. Throws ValueError if a setting is out of
  /// range, a group selects nothing, or there are no parameters to train.
  Optimizer(std::string name, const nn::ModuleParams& params, Common common,
            std::initializer_list<Setting> settings, std::vector<Moment> moments,
            Decay decay = Decay::coupled);

  /// Throws ValueError where `epsilon` is too small to stand for a mean of squares, with this decay
  /// rate, that underflows: the square of a smaller gradient vanishes from the denominator of a
  /// step but its moment not from the numerator, and the step would be any number of times too
  /// large, or infinite. The least is √(smallest normal number / (1 - decay)) of the parameters'
  /// dtypes.
  void check_epsilon(double epsilon, double decay) const;
  /// Throws ValueError where `epsilon` is less than the smallest normal number of the parameters'
  /// dtypes, which could be 0 in a denominator.
  void check_epsilon(double epsilon) const;

  /// Throws ValueError if a group has lazy_rows, for formulas of whole matrices.
  void refuse_lazy_rows() const;

  const std::vector<Slot>& slots() const { return slots_; }
  /// The same elements, with the slot's `direction` in place of the gradient.
  static Piece of_direction(const Piece& piece) {
    return {piece.slot, piece.slot.direction, 1, piece.learning_rate, piece.begin, piece.end};
  }

  // Not for all: the formula of one class would meet the moments of another.
  Optimizer(Optimizer&&) = default;
  Optimizer& operator=(Optimizer&&) = default;

  /// Calls `formula(p, g, m...)` for each element p of a piece, its gradient g, clipped and with
  /// weight decay, and its first `count` moments; the formula assigns to p and m.
  template <std::size_t count, class F>
  void each(const Piece& piece, F formula) const {
    const double lambda = piece.slot.weight_decay;
    dispatch_real(piece.gradient.dtype(), [&]<class T>() {
      const T clip = static_cast<T>(piece.clip), penalty = static_cast<T>(lambda);
      const T kept = static_cast<T>(1 - piece.learning_rate * lambda);
      if (lambda == 0)
        loop<T, count>(piece, [=](T& p, T g, auto&... m) { formula(p, clip * g, m...); });
      else if (decay_ == Decay::coupled)
        loop<T, count>(piece,
                       [=](T& p, T g, auto&... m) { formula(p, clip * g + penalty * p, m...); });
      else
        loop<T, count>(piece, [=](T& p, T g, auto&... m) {
          p *= kept;
          formula(p, clip * g, m...);
        });
    });
  }

  /// Throws ValueError with the optimizer's name and the line of the call.
  [[noreturn]] void fail(const std::string& why) const;

 private:
  static constexpr std::size_t no_group = static_cast<std::size_t>(-1);

  /// What a step does once for a parameter, before its pieces: for scalar moments, and for
  /// formulas of whole matrices. With lazy_rows the gradient may cover only some rows.
  virtual void begin(Slot& slot, const Tensor& gradient, double clip) const;
  virtual void update(const Piece& piece) const = 0;

  // A parameter that has a gradient in a step.
  struct Task {
    Slot* slot;
    const Tensor* gradient;
    const Tensor* rows = nullptr;  ///< of which it is the gradient, if not of the whole parameter
    double clip = 1, norm = -1;    ///< of its group, if that is clipped

    Index shift(Index begin) const;
  };

  void add_slot(const Param& param, const Common& common);
  static Tensor initial(const Moment& moment, const Param& param);
  static Index place_in(const Moment& moment, const Shape& shape, Index i);
  void check(const Setting& setting) const;
  void check_group(const Group& group) const;
  void check(const Gradients& gradients) const;
  PoolVector<Task> tasks(const Gradients& gradients);
  void clip(const Gradients& gradients, PoolVector<Task>& tasks);
  void count_clips(const PoolVector<Task>& tasks);
  Piece piece_of(const Task& task, Index begin, Index end) const;
  void update_rows(const Task& task, Index begin, Index end) const;
  template <class T>
  bool may_overflow(const Task& task, Index begin, Index end) const;
  void check_moments(const Task& task, const Gradients& gradients) const;
  double penalty(const Slot& slot) const;
  std::string key(std::string_view what, const Slot& slot) const;
  void check(const std::string& entry, const Tensor& value, double least) const;

  template <class T, std::size_t count, class F>
  static void loop(const Piece& piece, F formula) {
    const auto begin = [&](const Tensor& x) {
      return static_cast<T*>(x.buffer().data()) + piece.begin;
    };
    [&]<std::size_t... k>(std::index_sequence<k...>) {
      loop(formula, piece.end - piece.begin, begin(piece.slot.param.value()),
           piece.gradient.begin<T>() + (piece.begin - piece.shift),
           begin(piece.slot.moments[k])...);
    }
    (std::make_index_sequence<count>());
  }
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
  Decay decay_;
  std::vector<Group> groups_;
  std::vector<ClipCount> clip_counts_;
  std::vector<Slot> slots_;
  std::size_t param_count_ = 0;  // frozen ones included
};

}  // namespace reel::optim
