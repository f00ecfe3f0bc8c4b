#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include <reel/autograd/params.h>
#include <reel/autograd/tensor.h>

namespace reel {

/// How to check gradients.
struct GradcheckOptions {
  /// slow: every coordinate by itself. fast: `directions` random directions for each input, so that
  /// the number of evaluations does not depend on the inputs' sizes.
  enum class Mode { slow, fast };

  /// Checks the gradient (1), the gradient of a random projection of the gradient (2), and so on;
  /// the orders below are checked as well.
  int order = 1;
  Mode mode = Mode::slow;
  /// Accepted: |analytic - numeric| <= atol + rtol * max(|analytic|, |numeric|).
  double rtol = 1e-6, atol = 1e-8;
  /// The distance between the points of the differences. A power of two keeps x + step exact.
  double step = 0x1p-11;
  int directions = 3;
  /// Of the random cotangents and directions.
  std::uint64_t seed = 0;
  /// Lets f32 pass. Differences of f32 values carry 3 to 4 digits: give a step near 2^-6 and
  /// tolerances to match.
  bool allow_f32 = false;
  /// Names an element in the report, for example by its gate; by default "w[3, 17]".
  std::function<std::string(const std::string& name, const Shape& shape, Index flat)>
      coordinate_name = {};
};

/// What a gradient check found.
struct GradientReport {
  /// From harmless to bad. A kink is a point where the slopes to both sides differ and the analytic
  /// value is one of them or between them: no proof of an error, but differences cannot tell.
  enum class Verdict { ok, kink, wrong, not_finite, not_deterministic };

  /// The worst that was seen in one input at one order.
  struct Row {
    std::string name;
    Shape shape;
    int order = 1;
    std::string where;      ///< name of the worst coordinate, or of the worst direction
    Index coordinate = -1;  ///< its place in row-major order; -1 for a direction
    double analytic = 0, numeric = 0, error = 0;  ///< error = |analytic - numeric|
    Index failures = 0, checked = 0;              ///< coordinates, or directions
    Verdict verdict = Verdict::ok;
  };

  bool ok = true;  ///< whether every verdict is ok
  std::vector<Row> rows;

  /// A table, one line for each row.
  std::string str() const;
};

struct NamedTensor {
  std::string name;
  Tensor value;
};

/// A function of tensors, made of ops. It runs while a tape is current, and may itself take
/// gradients: `Tape::current()->gradient(y, x, {.create_graph = true})`.
using TensorFunction = std::function<Tensor(std::span<const Tensor>)>;

/// Compares the gradients of `f` with central differences.
///
/// f(x) of any shape is projected on a random cotangent c. The analytic value is that of
/// Tape::gradient; the numeric one is the dot product of c with
/// (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h, whose error is of order h^4. For order n the
/// gradients of order n - 1, taken with `create_graph`, stand in the place of f. Everything is
/// evaluated twice at x: results with other bits are reported as not deterministic. i32 inputs are
/// constants.
/// Throws DTypeError for f32 unless allowed, ValueError for options out of range, and what f
/// throws.
GradientReport check_gradients(const TensorFunction& f, const std::vector<NamedTensor>& inputs,
                               const GradcheckOptions& options = {});
/// The same with inputs named "x0", "x1" and so on.
GradientReport check_gradients(const TensorFunction& f, const std::vector<Tensor>& inputs,
                               const GradcheckOptions& options = {});

/// The same for all parameters of `params`, of which `loss` is a function, and further inputs that
/// it takes. The parameters have their old values, to the bit, when this returns or throws.
GradientReport check_gradients(const TensorFunction& loss, const Params& params,
                               const std::vector<NamedTensor>& inputs,
                               const GradcheckOptions& options = {});
GradientReport check_gradients(const std::function<Tensor()>& loss, const Params& params,
                               const GradcheckOptions& options = {});

}  // namespace reel
