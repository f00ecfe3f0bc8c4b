#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/params.h>
#include <reel/autograd/tensor.h>

namespace reel {

/// A function of tensors, made of ops.
using TensorFunction = std::function<Tensor(std::span<const Tensor>)>;

/// How to check gradients.
struct GradcheckOptions {
  /// slow: one coordinate at a time. fast: all coordinates of an input at once, in `directions`
  /// random directions, so that the number of evaluations does not depend on the inputs' sizes.
  enum class Mode { slow, fast };

  /// Checks the gradient (1), the gradient of a random projection of the gradient (2), and so on;
  /// lower orders are checked as well.
  int order = 1;
  Mode mode = Mode::slow;
  /// A coordinate passes if |analytic - numeric| <= atol + rtol |analytic|; a direction u passes if
  /// its error is within the tolerance of the strictest coordinate, min over j of |uⱼ| (atol + rtol
  /// |gⱼ|), so a single coordinate that fails makes every direction fail too. Both allow for
  /// rounding.
  double rtol = 1e-6, atol = 1e-8;
  /// The step size h of the finite differences.
  double step = 0x1p-11;
  int directions = 3;
  /// Seed of the random cotangents and directions.
  std::uint64_t seed = 0;
  /// The random number generators that the function draws from. They are reset before every
  /// evaluation, so that all see the same draws, and restored afterwards.
  std::vector<Rng*> replay = {};
  /// Allows f32. Finite differences of f32 values are accurate to 3 or 4 digits: use a step near
  /// 2^-6 and matching tolerances.
  bool allow_f32 = false;
};

/// What a gradient check found.
struct GradientReport {
  /// From harmless to serious. At a kink the one-sided slopes differ, however small the step, and
  /// the analytic value is one of them or between them: not proof of an error, but finite
  /// differences cannot decide.
  enum class Verdict { ok, kink, wrong, not_finite, not_deterministic };

  /// The worst result for one input at one order.
  struct Row {
    std::string name;
    Shape shape;
    int order = 1;
    /// The worst coordinate, "lstm.w_hh[forget, 3, 17]" where the parameter's rows have names;
    /// in fast mode a direction, unless the failure could be narrowed down to a coordinate.
    std::string where;
    Index coordinate = -1;  ///< its place in row-major order; -1 for a direction
    double analytic = 0, numeric = 0, error = 0;  ///< error = |analytic - numeric|
    double tolerance = 0;                         ///< the largest error that passes
    Index failures = 0, checked = 0;              ///< coordinates, or directions
    Verdict verdict = Verdict::ok;
  };

  bool ok = true;  ///< whether every verdict is ok
  std::vector<Row> rows;

  /// A table, one line for each row.
  std::string str() const;
  /// A line for each row that failed, with numbers rounded to machine-independent digits.
  std::string summary() const;
};

/// "ok", "kink", "wrong", "not finite", "not deterministic".
std::string_view name_of(GradientReport::Verdict verdict);

/// A tensor to differentiate with respect to, and its name in the report.
struct NamedInput {
  std::string name;
  Tensor value;
};

/// Compares the gradients of `f` with central differences. f runs while a tape is current, and may
/// itself take gradients: `Tape::current()->gradient(y, x, {.create_graph = true})`, hvp and
/// similar.
///
/// f(x) is projected onto a cotangent c, random unless f(x) is a single number. The analytic value
/// is that of Tape::gradient; the numeric one is the dot product of c with (8 (f(x+h) - f(x-h)) -
/// (f(x+2h) - f(x-2h))) / 12h, whose error is of order h^4. Where they differ, the comparison is
/// repeated with smaller and larger h: near a kink, at high curvature or with coarse rounding
/// another step may be more accurate, while a wrong gradient fails at every step. An error passes
/// if it is smaller than the difference between neighbouring steps and within the tolerance of the
/// whole derivative.
///
/// For order n the gradients of order n - 1, taken with `create_graph`, take the place of f, and
/// must equal those without it: for a fused op, order 1 checks the kernel; higher orders check its
/// specification and that the two agree. They are gradients of y + tanh(y)/2 for y = f(x), so that
/// the gradient that reaches an op depends on x, as it does within a model. i32 inputs are
/// constants.
///
/// Everything is evaluated twice at x, more often when something is wrong: results that are not
/// bit-identical are reported as not deterministic.
///
/// To check a model trained in f32, construct it again on a copy of its parameters,
/// `params.to(f64)`, and check that one.
/// Throws DTypeError for f32 unless allowed, and for a result whose dtype differs from the inputs',
/// ValueError for options out of range, and what f throws.
GradientReport check_gradients(const TensorFunction& f, const std::vector<NamedInput>& inputs,
                               const GradcheckOptions& options = {});
/// The same with inputs named "x0", "x1" and so on.
GradientReport check_gradients(const TensorFunction& f, const std::vector<Tensor>& inputs,
                               const GradcheckOptions& options = {});

/// The same for all parameters of `params`, on which `loss` depends, and any further inputs that it
/// takes. When this returns or throws, the parameters have their old values, bit for bit.
GradientReport check_gradients(const TensorFunction& loss, const Params& params,
                               const std::vector<NamedInput>& inputs,
                               const GradcheckOptions& options = {});
GradientReport check_gradients(const std::function<Tensor()>& loss, const Params& params,
                               const GradcheckOptions& options = {});

}  // namespace reel
