#include <reel/autograd/functional.h>

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

namespace reel {
namespace {

// Whether x is recorded on the current tape, or on one where it will be refused: what this tape
// recorded before it was used up is a constant.
bool recorded(const Tensor& x) { return x.trace().generation != 0 && !Tape::current()->used_up(x); }

void require_defined(const Tensor& x, const char* call, const std::string& what) {
  if (!x.defined())
    throw ValueError(fmt::format("{}: {} is undefined", call, what), SiteScope::current());
}

void require_real(const Tensor& x, const char* call, const std::string& what) {
  require_defined(x, call, what);
  if (!is_real(x.dtype()))
    throw DTypeError(fmt::format("{}: {} is i32, and integers have no derivative", call, what),
                     SiteScope::current());
}

void require_like(const Tensor& v, const Tensor& x, const char* call, const std::string& what,
                  const std::string& of) {
  require_defined(v, call, what);
  const std::string text =
      fmt::format("{}: {} is {} {}, but {} is {} {}", call, what, name_of(v.dtype()),
                  v.shape().str(), of, name_of(x.dtype()), x.shape().str());
  if (v.shape() != x.shape()) throw ShapeError(text, SiteScope::current());
  if (v.dtype() != x.dtype()) throw DTypeError(text, SiteScope::current());
}

void require_vectors(std::span<const Tensor> vectors, std::span<const Tensor> inputs,
                     const char* call, const char* what) {
  if (vectors.size() != inputs.size())
    throw ShapeError(fmt::format("{}: there are {} inputs, but {} {}s; give one for each", call,
                                 inputs.size(), vectors.size(), what),
                     SiteScope::current());
  for (std::size_t i = 0; i < inputs.size(); ++i)
    require_like(vectors[i], inputs[i], call, fmt::format("{} {}", what, i),
                 fmt::format("input {}", i));
}

// One evaluation of a function on the current tape, or on one that lives as long as this.
class TracedFunction {
 public:
  TracedFunction(const TensorFunction& f, std::span<const Tensor> inputs, const char* call)
      : call_(call) {
    for (std::size_t i = 0; i < inputs.size(); ++i)
      require_real(inputs[i], call, fmt::format("input {}", i));
    if (!Tape::current()) own_.emplace();
    // A recorded input gets its own slot, so that no other input depends on it.
    for (const Tensor& x : inputs)
      x_.push_back(!own_ && recorded(x) ? reshape(x, x.shape()) : Tape::current()->watch(x));
    {
      const OwnSites own;
      y_ = f(x_);
    }
    require_real(y_, call, "the result of the function");
  }

  const Tensor& y() const { return y_; }
  std::span<const Tensor> x() const { return x_; }

  void require_number() const {
    if (y_.size() != 1)
      throw ShapeError(fmt::format("{}: the result of the function has shape {}, not a single "
                                   "number; reduce it with sum() "
                                   "or mean()",
                                   call_, y_.shape().str()),
                       SiteScope::current());
  }

  // A tensor from the caller, for use in here.
  Tensor constant(const Tensor& v) const { return own_ || !recorded(v) ? v.detach() : v; }

  // The gradients of <y, seed>, zeros where y does not depend on x; recorded if they are to be
  // differentiated `again`, or by the caller.
  std::vector<Tensor> gradients(const Tensor& y, std::span<const Tensor> x, const Tensor& seed,
                                bool again) const {
    if (recorded(y))
      return Tape::current()->gradient(
          y, x, {.seed = seed, .create_graph = again || !own_, .keep = true});
    std::vector<Tensor> result;
    for (const Tensor& input : x) result.push_back(zeros(input.shape(), input.dtype()));
    return result;
  }
  // The gradients of a single number.
  std::vector<Tensor> gradients(const Tensor& y, std::span<const Tensor> x, bool again) const {
    return gradients(y, x, ones(y.shape(), y.dtype()), again);
  }

  // One row per element of y: its gradient with respect to x.
  Tensor rows(const Tensor& y) const {
    std::vector<Tensor> rows;
    for (Index i = 0; i < y.size(); ++i) {
      Tensor seed = zeros(y.shape(), y.dtype());
      dispatch_real(y.dtype(),
                    [&]<class T>() { seed.begin_update<T>()[static_cast<std::size_t>(i)] = T(1); });
      rows.push_back(reshape(gradients(y, x_, seed, false)[0], Shape{x_[0].size()}));
    }
    return rows.empty() ? zeros({0, x_[0].size()}, y.dtype()) : stack(rows);
  }

  // <a, b> over all tensors.
  Tensor inner_product(std::span<const Tensor> a, std::span<const Tensor> b) const {
    Tensor total = scalar(0, y_.dtype());
    for (std::size_t i = 0; i < a.size(); ++i) total = total + sum(a[i] * constant(b[i]));
    return total;
  }

  // The result for the caller: only the numbers if the tape is destroyed here.
  Tensor result(const Tensor& x) const { return own_ ? x.detach() : x; }
  std::vector<Tensor> result(const std::vector<Tensor>& all) const {
    std::vector<Tensor> results;
    for (const Tensor& x : all) results.push_back(result(x));
    return results;
  }

 private:
  const char* call_;
  std::optional<Tape> own_;
  std::vector<Tensor> x_;
  Tensor y_;
};

}  // namespace

VjpResult vjp(const TensorFunction& f, const std::vector<Tensor>& inputs, const Tensor& cotangent,
              Site site) {
  const SiteScope scope(site);
  const TracedFunction e(f, inputs, "vjp");
  require_like(cotangent, e.y(), "vjp", "the cotangent", "the result of the function");
  return {e.result(e.y()), e.result(e.gradients(e.y(), e.x(), e.constant(cotangent), false))};
}

JvpResult jvp(const TensorFunction& f, const std::vector<Tensor>& inputs,
              const std::vector<Tensor>& tangents, Site site) {
  const SiteScope scope(site);
  require_vectors(tangents, inputs, "jvp", "tangent");
  const TracedFunction e(f, inputs, "jvp");
  const Tensor u = Tape::current()->watch(zeros(e.y().shape(), e.y().dtype()));
  const Tensor change = e.inner_product(e.gradients(e.y(), e.x(), u, true), tangents);
  return {e.result(e.y()), e.result(e.gradients(change, {&u, 1}, false)[0])};
}

HvpResult hvp(const TensorFunction& f, const std::vector<Tensor>& inputs,
              const std::vector<Tensor>& vectors, Site site) {
  const SiteScope scope(site);
  require_vectors(vectors, inputs, "hvp", "vector");
  const TracedFunction e(f, inputs, "hvp");
  e.require_number();
  const auto gradients = e.gradients(e.y(), e.x(), true);
  const Tensor change = e.inner_product(gradients, vectors);
  return {e.result(e.y()), e.result(gradients), e.result(e.gradients(change, e.x(), false))};
}

Tensor jacobian(const TensorFunction& f, const Tensor& x, Site site) {
  const SiteScope scope(site);
  const TracedFunction e(f, {&x, 1}, "jacobian");
  return e.result(e.rows(e.y()));
}

Tensor hessian(const TensorFunction& f, const Tensor& x, Site site) {
  const SiteScope scope(site);
  const TracedFunction e(f, {&x, 1}, "hessian");
  e.require_number();
  return e.result(e.rows(e.gradients(e.y(), e.x(), true)[0]));
}

}  // namespace reel
