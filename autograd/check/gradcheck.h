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
  /// slow: every coordinate by itself. fast: all coordinates of an input at once, in `directions`
  /// random directions, so that the number of evaluations does not depend on the inputs' sizes.
  enum class Mode { slow, fast };

  /// Checks the gradient (1), the gradient of a random projection of the gradient (2), and so on;
  /// the orders below are checked as well.
  int order = 1;
  Mode mode = Mode::slow;
  /// A coordinate passes if |analytic - numeric| <= atol + rtol |analytic|, and a direction u if it
  /// is within what would pass in the strictest coordinate, min over j of |uⱼ| (atol + rtol |gⱼ|):
  /// one coordinate that fails by itself fails every direction too. Both get room for rounding.
  double rtol = 1e-6, atol = 1e-8;
  /// The distance between the points of the differences.
  double step = 0x1p-11;
  int directions = 3;
  /// Of the random cotangents and directions.
  std::uint64_t seed = 0;
  /// The sources of random numbers that the function draws from. They are put back before every
  /// evaluation, so that all see the same draws, and are afterwards where they were.
  std::vector<Rng*> replay = {};
  /// Lets f32 pass. Differences of f32 values carry 3 to 4 digits: give a step near 2^-6 and
  /// tolerances to match.
  bool allow_f32 = false;
};

/// What a gradient check found.
struct GradientReport {
  /// From harmless to serious. A kink is a point where the slopes to both sides differ, however
  /// near one looks, and the analytic value is one of them or between them: no proof of an error,
  /// but differences cannot tell.
  enum class Verdict { ok, kink, wrong, not_finite, not_deterministic };

  /// The worst that was seen in one input at one order.
  struct Row {
    std::string name;
    Shape shape;
    int order = 1;
    /// The worst coordinate, "lstm.w_hh[forget, 3, 17]" where the parameter's rows have names;
    /// after the fast mode a direction, unless one coordinate could be found to blame.
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
  /// A line for each row that failed, with numbers rounded to what does not depend on the machine.
  std::string summary() const;
};

/// "ok", "kink", "wrong", "not finite", "not deterministic".
std::string_view name_of(GradientReport::Verdict verdict);

struct NamedInput {
  std::string name;
  Tensor value;
};

/// Compares the gradients of `f` with central differences. f runs while a tape is current, and may
/// itself take gradients: `Tape::current()->gradient(y, x, {.create_graph = true})`, or hvp and its
/// like.
///
/// f(x) is projected on a cotangent c, random unless f(x) is a single number. The analytic value is
/// that of Tape::gradient; the numeric one is the dot product of c with (8 (f(x+h) - f(x-h)) -
/// (f(x+2h) - f(x-2h))) / 12h, whose error is of order h^4. Where they differ they are compared
/// once more with smaller and larger h: near a kink, where f bends strongly and where rounding is
/// coarse another step may tell more, and a wrong gradient is wrong at all. An error that is less
/// than what neighbouring steps differ by, and passes at the whole derivative's size, passes.
///
/// For order n the gradients of order n - 1, taken with `create_graph`, stand in the place of f,
/// and have to equal those without it: of a fused op, order 1 checks the kernel, the orders above
/// its specification and that the two agree. They are gradients of y + tanh(y)/2 for y = f(x), so
/// that what arrives at an op depends on x as it does within a model. i32 inputs are constants.
///
/// Everything is evaluated twice at x, and more often when something is wrong: results with other
/// bits are reported as not deterministic.
///
/// A model that was trained in f32 is checked on a copy of its parameters: construct it once more
/// on `params.to(f64)`, and check that one.
/// Throws DTypeError for f32 unless allowed, and for a result of another dtype than the inputs,
/// ValueError for options out of range, and what f throws.
GradientReport check_gradients(const TensorFunction& f, const std::vector<NamedInput>& inputs,
                               const GradcheckOptions& options = {});
/// The same with inputs named "x0", "x1" and so on.
GradientReport check_gradients(const TensorFunction& f, const std::vector<Tensor>& inputs,
                               const GradcheckOptions& options = {});

/// The same for all parameters of `params`, of which `loss` is a function, and further inputs that
/// it takes. The parameters have their old values, to the bit, when this returns or throws.
GradientReport check_gradients(const TensorFunction& loss, const Params& params,
                               const std::vector<NamedInput>& inputs,
                               const GradcheckOptions& options = {});
GradientReport check_gradients(const std::function<Tensor()>& loss, const Params& params,
                               const GradcheckOptions& options = {});

}  // namespace reel
