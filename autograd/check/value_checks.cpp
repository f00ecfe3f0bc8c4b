// The checks that compare an op's values with a formula: on its samples, at special numbers, and on
// inputs of other sizes.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include <reel/autograd/check/op_case.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/autograd/threads.h>

namespace reel::op {
namespace {

using namespace detail;

Arrays arrays_of(std::span<const Tensor> tensors) {
  Arrays arrays;
  for (const Tensor& x : tensors) {
    Array& array = arrays.emplace_back();
    if (!x.defined()) continue;
    array.shape = x.shape();
    array.x = x.to_vector();
  }
  return arrays;
}

// The tolerances for values of a dtype.
struct Closeness {
  double relative = 0, smallest = 0;
  double (*rounded)(double) = [](double x) { return x; };

  static Closeness of(DType dtype, bool elementwise) {
    if (dtype == f64) return {elementwise ? 1e-13 : 1e-12, std::numeric_limits<double>::min()};
    if (dtype == f32)
      return {elementwise ? 2e-6 : 1e-5, std::numeric_limits<float>::min(),
              [](double x) -> double { return static_cast<float>(x); }};
    return {};
  }
  // NaN and infinities must match exactly; below the smallest normal number zero is accepted.
  bool passes(double value, double expected, double scale) const {
    const double r = rounded(expected);
    if (std::isnan(r) || std::isnan(value)) return std::isnan(r) && std::isnan(value);
    if (value == r) return true;
    if (std::isinf(r))
      return std::abs(value) >= (1 - relative) * 0x1p127 && value * r > 0 &&
             std::isinf(rounded(value * (1 + 4 * relative)));
    return std::abs(value - r) <= relative * std::max(std::abs(r), scale) + smallest;
  }
};

double largest_finite(const Array& y) {
  double largest = 1;
  for (double x : y.x)
    if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
  return largest;
}

// Compares outputs with one or more formulas; each element has to agree with one of them.
void compare(std::span<const Tensor> outputs, const std::vector<Arrays>& expected,
             const Reference& reference, const std::string& what, const Complain& complain) {
  if (outputs.size() != expected[0].size())
    return complain(
        fmt::format("{} outputs, but {} in the reference", outputs.size(), expected[0].size()));
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    const Tensor& y = outputs[k];
    if (y.shape() != expected[0][k].shape)
      return complain(fmt::format("{}: output {} has shape {}, but {} in the reference", what, k,
                                  y.shape().str(), expected[0][k].shape.str()));
    const Closeness closeness = Closeness::of(y.dtype(), reference.elementwise);
    const double scale = reference.elementwise ? 0 : largest_finite(expected[0][k]);
    const auto values = y.to_vector();
    for (std::size_t i = 0; i < values.size(); ++i)
      if (std::ranges::none_of(expected, [&](const Arrays& e) {
            return closeness.passes(values[i], e[k].x[i], scale);
          }))
        return complain(fmt::format("{}: element {} of output {} is {}, but {} in the reference",
                                    what, i, k, values[i], expected[0][k].x[i]));
  }
}

bool fits(const OpSpec& op, const Reference& reference, Complaints& complaints) {
  if (!reference) return false;
  if (reference.attr_size == op.attr_size) return true;
  complaints.push_back(fmt::format("{}: its attributes have {} bytes, those of the reference {}",
                                   op.name, op.attr_size, reference.attr_size));
  return false;
}

Complaints over_reference(const OpSpec& op, const Reference& reference, auto f) {
  Complaints complaints;
  if (!fits(op, reference, complaints)) return complaints;
  return over_cases(op, f);
}

void check_against(const Case& c, const Reference& reference, DType dtype, const std::string& what,
                   const Complain& complain) {
  const auto inputs = converted(c.inputs, dtype);
  compare(c.run(inputs), {reference.formula(arrays_of(inputs), c.sample.attr.data())}, reference,
          what, complain);
}

}  // namespace

Complaints check_values(const OpSpec& op, const Reference& reference) {
  return over_reference(op, reference, [&](const Case& c, const Complain& complain) {
    for (const DType dtype : {f64, f32, i32}) {
      const bool any_real = std::ranges::any_of(c.inputs, is_given_real);
      if (c.op.forward[static_cast<std::size_t>(dtype)] && (any_real || dtype == i32))
        check_against(c, reference, dtype, std::string(name_of(dtype)), complain);
    }
  });
}

// --- special numbers ---

namespace {

template <class T>
std::vector<double> special_numbers(bool elementwise) {
  using Limits = std::numeric_limits<T>;
  std::vector<double> numbers{NAN, INFINITY, -INFINITY, 0.0, -0.0, 1, -1};
  if (elementwise)
    for (const double x :
         {double{Limits::max()}, double{Limits::min()}, double{Limits::denorm_min()},
          double{Limits::epsilon()}, 0.5, 2.0, 20.0, 100.0, 1e30})
      numbers.insert(numbers.end(), {x, -x});
  return numbers;
}

// Inputs in which one in `share` elements is special.
template <class T>
std::vector<Tensor> with_special_numbers(std::span<const Tensor> inputs, Rng& rng, Index share,
                                         const std::vector<double>& numbers) {
  std::vector<Tensor> result(inputs.begin(), inputs.end());
  for (Tensor& x : result)
    if (is_given_real(x))
      for (T& value : x.begin_update<T>())
        if (rng.integer(share) == 0)
          value =
              static_cast<T>(numbers[static_cast<std::size_t>(rng.integer(std::ssize(numbers)))]);
  return result;
}

// The inputs with subnormal numbers replaced by zeros.
Arrays without_subnormals(Arrays inputs, DType dtype) {
  const double smallest = Closeness::of(dtype, true).smallest;
  for (Array& input : inputs)
    for (double& x : input.x)
      if (std::abs(x) < smallest) x = 0 * x;
  return inputs;
}

template <class T>
void check_special(const Case& c, const Reference& reference, Rng& rng, const Complain& complain) {
  const auto numbers = special_numbers<T>(reference.elementwise);
  const auto inputs = converted(c.inputs, dtype_of<T>);
  const Index size = c.elements();
  const int rounds = static_cast<int>(reference.elementwise ? 1 + 200 / size : 8);
  for (int round = 0; round < rounds; ++round) {
    // All elements, or only one or two, since a NaN would otherwise spread to everything.
    const Index share = reference.elementwise ? 1 : std::max<Index>(1, size / (1 + round % 3));
    const auto x = with_special_numbers<T>(inputs, rng, share, numbers);
    Tensors y;
    try {
      y = c.run(x);
    } catch (const ValueError&) {
      continue;  // such as for weights that sum to 0
    }
    const Arrays in = arrays_of(x);
    std::string what = "special numbers";
    for (const Tensor& input : x) what += ' ' + input.str();
    compare(y,
            {reference.formula(in, c.sample.attr.data()),
             reference.formula(without_subnormals(in, dtype_of<T>), c.sample.attr.data())},
            reference, what, complain);
  }
}

// The slopes of an elementwise formula with respect to one input, for a relative step of each
// element.
std::vector<double> slopes(const Case& c, const Reference& reference, Arrays in, std::size_t i,
                           double step) {
  const std::vector<double> before = reference.formula(in, c.sample.attr.data())[0].x;
  std::vector<double> h;
  for (double& x : in[i].x) {
    const double moved = x + step * std::max(1.0, std::abs(x));
    h.push_back(moved - x);
    x = moved;
  }
  std::vector<double> result = reference.formula(in, c.sample.attr.data())[0].x;
  for (std::size_t e = 0; e < result.size(); ++e)
    result[e] = result[e] == before[e] ? 0 : (result[e] - before[e]) / h[e];
  return result;
}

// Where the formula has slopes on both sides the gradient must be finite; and equal to them if the
// op has one operand and they do not depend on the step.
void check_special_gradient(const Case& c, const Reference& reference, std::span<const Tensor> x,
                            std::size_t i, const Complain& complain) {
  Tape tape;
  std::vector<Tensor> watched(x.begin(), x.end());
  const Tensor leaf = watched[i] = tape.watch(x[i]), y = c.run(watched)[0];
  const auto gradient = tape.gradient(y, {leaf}, {.seed = ones(y.shape(), f64)})[0].to_vector();
  const Arrays in = arrays_of(x);
  const auto left = slopes(c, reference, in, i, -0x1p-20),
             right = slopes(c, reference, in, i, 0x1p-20),
             nearer = slopes(c, reference, in, i, 0x1p-22),
             values = reference.formula(in, c.sample.attr.data())[0].x;
  for (std::size_t e = 0; e < gradient.size(); ++e) {
    const double slope = right[e];
    const auto near = [&](double other, double tolerance) {
      return std::abs(other - slope) <= tolerance * std::abs(slope);
    };
    if (!std::isfinite(left[e]) || !std::isfinite(slope) || !std::isfinite(values[e])) continue;
    const bool smooth = x.size() == 1 && near(left[e], 1e-3) && near(nearer[e], 1e-3) &&
                        (std::abs(in[i].x[e]) < 1e6 || slope == 0);
    if (std::isnan(gradient[e]) ||
        (smooth && !(std::abs(gradient[e] - slope) <= 1e-9 + 1e-2 * std::abs(slope))))
      return complain(fmt::format(
          "the gradient of {} at {} is {}, but slopes of the reference are {} and {}",
          c.op.argument(static_cast<int>(i)).name, in[i].x[e], gradient[e], left[e], slope));
  }
}

void check_special_gradients(const Case& c, const Reference& reference, Rng& rng,
                             const Complain& complain) {
  const auto numbers = special_numbers<double>(true);
  for (int round = 0; round < 4; ++round) {
    const auto x = with_special_numbers<double>(c.inputs, rng, 1, numbers);
    for (std::size_t i = 0; i < x.size(); ++i)
      if (c.real(i)) check_special_gradient(c, reference, x, i, complain);
  }
}

}  // namespace

Complaints check_special_values(const OpSpec& op, const Reference& reference) {
  if (!reference.special) return {};
  return over_reference(op, reference, [&](const Case& c, const Complain& complain) {
    if (c.elements() == 0 || c.elements() > 200) return;
    Rng rng(41);
    const auto takes = [&](DType dtype) {
      return c.op.forward[static_cast<std::size_t>(dtype)] != nullptr;
    };
    if (takes(f64)) check_special<double>(c, reference, rng, complain);
    if (takes(f32)) check_special<float>(c, reference, rng, complain);
    const bool one_to_one = std::ranges::all_of(c.inputs, [&](const Tensor& x) {
      return !x.defined() || x.shape() == c.inputs[0].shape();
    });
    if (reference.elementwise && reference.slopes && c.differentiable() && one_to_one)
      check_special_gradients(c, reference, rng, complain);
  });
}

// --- other sizes ---

namespace {

std::set<Index> sizes_of(const Case& c) {
  std::set<Index> sizes;
  for (const Tensor& x : c.inputs) sizes.insert(x.shape().begin(), x.shape().end());
  return sizes;
}

}  // namespace

Complaints check_shapes(const OpSpec& op, const Reference& reference) {
  return over_cases(op, [&](const Case& c, const Complain& complain) {
    Complaints ignored;
    const bool has_reference = fits(op, reference, ignored);
    Rng rng(43);
    const int wanted = long_mode() ? 30 : 3;
    int found = 0;
    for (int attempt = 0; attempt < 10 * wanted && found < wanted; ++attempt) {
      // Equal sizes stay equal, for arguments that have to agree; in every other attempt multiples
      // stay multiples, for gates with blocks of rows.
      std::map<Index, Index> size;
      const Index factor = 2 + rng.integer(3);
      for (const Index s : sizes_of(c))
        size[s] = s <= 1 ? s
                  : attempt % 2 == 1
                      ? factor * s
                      : std::array<Index, 7>{
                            0, 1, 2, 3, 5, 8, 17}[static_cast<std::size_t>(rng.integer(7))];
      const auto sample = resized(c, [&](Index s) { return size.contains(s) ? size[s] : s; });
      if (!sample || elements_of(op, *sample).value_or(5000) >= 5000) continue;
      const auto other = drawn(op, *sample);
      if (!other) continue;
      ++found;
      Complaints complaints;
      check_case(*other, complaints, [&](const Case& o, const Complain& say) {
        if (has_reference) check_against(o, reference, f64, "f64", say);
        if (const auto what = o.differentiable() ? o.check_direction() : ""; !what.empty())
          say(what);
      });
      for (const std::string& complaint : complaints) complain(complaint);
    }
  });
}

namespace {

// A case of about `elements` elements, with one axis size enlarged, or all if that is 0. Sums have
// more terms then and layers more steps; smaller numbers keep them from diverging, but not so small
// that differences would be inaccurate.
std::optional<Case> enlarged(const Case& c, Index one_size, Index elements) {
  std::optional<OpSpec::Sample> best;
  Index count = 0, factor = 2;
  for (Index next = 2; count < elements; next += (next + 1) / 2) {
    const auto sample = resized(
        c, [&](Index s) { return s > 1 && (one_size == 0 || s == one_size) ? next * s : s; });
    const Index before = count;
    if (sample) count = elements_of(c.op, *sample).value_or(0);
    if (count <= before || count > 4 * elements) break;
    best = sample;
    factor = next;
  }
  if (!best) return {};
  return drawn(c.op, *best, std::max(2 / static_cast<double>(factor), 1.0 / 16));
}

void check_large_case(const Case& c, const Reference& reference, const Complain& complain) {
  if (reference) check_against(c, reference, f64, "f64", complain);
  const auto gradients = [&] {
    return c.differentiable() ? c.gradients(c.inputs) : std::vector<Tensor>{};
  };
  const int before = threads();
  set_threads(1);
  const Tensors values = c.run(c.inputs);
  const auto alone = gradients();
  set_threads(3);
  const bool same_values = same_bits(values, c.run(c.inputs));
  const bool same_gradients = same_bits(alone, gradients());
  set_threads(before);
  if (!same_values) complain("other values with another number of threads");
  if (!same_gradients) complain("other gradients with another number of threads");
  if (const auto what = c.differentiable() ? c.check_direction() : ""; !what.empty())
    complain(what);
}

}  // namespace

Complaints check_sizes(const OpSpec& op, const Reference& reference) {
  Complaints complaints, ignored;
  const Reference fitting = fits(op, reference, ignored) ? reference : Reference{};
  const int wanted = long_mode() ? 1000 : 1;
  int all_axes = 0, one_axis = 0;
  const auto check = [&](const std::optional<Case>& large, int& count) {
    if (!large) return;
    ++count;
    check_case(*large, complaints, [&](const Case& c, const Complain& complain) {
      check_large_case(c, fitting, complain);
    });
  };
  for (const Case& c : cases_of(op)) {
    if (c.elements() == 0) continue;
    if (all_axes < wanted) check(enlarged(c, 0, 1 << 16), all_axes);
    for (const Index size : sizes_of(c))
      if (size > 1 && one_axis < wanted)
        check(enlarged(c, size, long_mode() ? 1 << 17 : 1 << 15), one_axis);
  }
  return complaints;
}

}  // namespace reel::op
