#pragma once

#include <reel/autograd/check/gradcheck.h>

#include <limits>
#include <memory>
#include <utility>

// What a gradient check evaluates: a function and its gradients of every order, at any point.
namespace reel::detail {

using Numbers = std::vector<double>;

/// What the function is differentiated with respect to: a parameter, or one of the arguments.
struct Variable {
  std::string name;
  Tensor start;
  std::shared_ptr<ParamEntry> entry;  ///< of a parameter
  std::size_t argument = 0;           ///< otherwise
  Numbers start_numbers = start.to_vector();

  double epsilon() const {
    return start.dtype() == f32 ? std::numeric_limits<float>::epsilon()
                                : std::numeric_limits<double>::epsilon();
  }
};

bool same_bits(const Numbers& a, const Numbers& b);
/// Of either sign and bounded away from zero, so that a projection on them misses nothing.
Numbers random_numbers(Rng& rng, Index count);

/// Restores the positions of random number generators.
class RestoredRngs {
 public:
  explicit RestoredRngs(const std::vector<Rng*>& rngs) {
    for (Rng* rng : rngs) saved_.emplace_back(rng, rng->state());
  }
  ~RestoredRngs() { restore(); }
  RestoredRngs(const RestoredRngs&) = delete;
  RestoredRngs& operator=(const RestoredRngs&) = delete;

  void restore() const {
    for (const auto& [rng, state] : saved_) *rng = Rng(state);
  }

 private:
  std::vector<std::pair<Rng*, Rng::State>> saved_;
};

/// The function of a gradient check. Order 1 is the function itself, order n the gradients of order
/// n - 1, projected onto random cotangents.
class Evaluation {
 public:
  /// Throws ValueError for an undefined input, and DTypeError for f32 unless that is allowed.
  Evaluation(const TensorFunction& f, const Params& params, const std::vector<NamedInput>& inputs,
             const GradcheckOptions& options, Rng& rng);

  const std::vector<Variable>& variables() const { return variables_; }
  /// The outputs of an order, concatenated, at the original point.
  Numbers outputs_at(int order) { return outputs_at(order, arguments_); }
  /// The outputs with one variable perturbed.
  Numbers outputs_at(int order, const Variable& v, const Numbers& direction, double distance);
  /// The gradients of their projection, by variable.
  std::vector<Numbers> gradients(int order);
  /// What the outputs of an order are projected onto.
  Numbers cotangents(int order) const;
  /// Whether outputs are those of y + tanh(y) / 2, as they are above the first order.
  void bend(bool curved) { curved_ = curved; }

 private:
  void add(const Variable& variable);
  std::vector<Tensor> leaves(std::vector<Tensor>& arguments) const;
  std::vector<Tensor> outputs(int order, std::span<const Tensor> arguments,
                              std::span<const Tensor> leaves);
  std::vector<Tensor> gradients(int order, const std::vector<Tensor>& outputs,
                                std::span<const Tensor> leaves, bool create_graph);
  const Tensor& cotangent(int order, std::size_t output, const Tensor& like);
  Numbers outputs_at(int order, std::vector<Tensor> arguments);

  const TensorFunction& f_;
  const GradcheckOptions& options_;
  RestoredRngs restored_rngs_;
  Rng& rng_;
  std::vector<Variable> variables_;
  std::vector<Tensor> arguments_;
  std::vector<std::vector<Tensor>> cotangents_;  // by order, then by output
  bool curved_ = false;
};

}  // namespace reel::detail
