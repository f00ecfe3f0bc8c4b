#pragma once

#include <deque>
#include <functional>
#include <utility>
#include <vector>

#include <reel/autograd/gradients.h>
#include <reel/nn/named_tensors.h>
#include <reel/nn/sizes.h>

namespace reel::optim {

/// The options of Lbfgs.
struct LbfgsOptions {
  double learning_rate = 1;      ///< the first step that a search tries
  int iterations = 20;           ///< at most, in a call of `step`
  int evaluations = 25;          ///< of the loss in a call of `step`, or one more
  double least_gradient = 1e-7;  ///< stop at this largest element; PyTorch's tolerance_grad
  double least_change = 1e-9;    ///< of the loss or the parameters; PyTorch's tolerance_change
  int history = 100;             ///< the number of earlier steps that are stored
  /// Whether each step searches along its direction, PyTorch's "strong_wolfe"; without, as is
  /// PyTorch's default, t below is the learning rate.
  bool line_search = true;
};

/// The limited-memory BFGS method with a line search for the strong Wolfe conditions, for losses
/// that are computed of all data and draw no random numbers. With g the gradient, H the inverse
/// Hessian as estimated from the last steps s and differences y of gradients (two-loop recursion),
///
///     d <- -H g
///     p <- p + t d, where  f(p + t d) <= f(p) + 1e-4 t g.d  and  |g(p + t d).d| <= 0.9 |g.d|
///
/// as torch.optim.LBFGS with line_search_fn="strong_wolfe" computes it. Without the search t is
/// `learning_rate`, times min(1, 1 / sum |g|) in the first step of all, and the point after the
/// last iteration of a call is not evaluated, as there. Vectors are in double whatever the dtype.
/// Nocedal and Wright, "Numerical Optimization", 2006, algorithms 7.4, 3.5, 3.6.
///
///     lbfgs.step([&] {
///       Tape tape;
///       const Tensor loss = ...;
///       return std::pair(loss.item(), tape.gradient(loss, params));
///     });
class Lbfgs {
 public:
  /// The loss and its gradients, at the current values of the parameters.
  using Evaluate = std::function<std::pair<double, Gradients>()>;

  /// Throws ValueError if an option is out of range or there are no parameters.
  explicit Lbfgs(const nn::ModuleParams& params, const LbfgsOptions& options = {});

  /// Iterates until a limit of the options is reached; returns the loss before. Throws ValueError
  /// if the loss or a gradient is not finite at the beginning, or without a search anywhere, and
  /// what `evaluate` throws; the parameters are then those that it was evaluated with.
  double step(const Evaluate& evaluate, Site site = {});
  /// All evaluations so far.
  Index evaluations() const { return evaluations_; }

  /// "lbfgs.step", "lbfgs.y" ..., f64.
  nn::NamedTensors state() const;
  /// Continues from such a state, bit for bit. Throws ValueError, having changed nothing, if an
  /// entry is missing, or of another model.
  void restore(const nn::NamedTensors& state, Site site = {});

 private:
  using Vector = std::vector<double>;
  struct Point;  // a place on the line of a search
  class Search;

  void require_finite(const Point& point, Site site) const;
  Point at(const Evaluate& evaluate, const Vector& origin, const Vector& direction, double t);
  void assign(const Vector& origin, const Vector& direction, double t);
  Vector values() const;
  Vector flat(const Gradients& gradients) const;
  void remember(const Vector& gradient);
  Vector direction(const Vector& gradient) const;

  LbfgsOptions options_;
  std::vector<Param> params_;
  std::size_t size_ = 0;
  std::deque<std::pair<Vector, Vector>> pairs_;  // s and y
  double scale_ = 1;                             // of the first estimate of H
  Vector step_, gradient_;                       // the last t d, and the gradient before it
  Index iterations_ = 0, evaluations_ = 0;
};

}  // namespace reel::optim
