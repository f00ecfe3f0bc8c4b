#include <algorithm>
#include <cmath>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/check/op_case.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/autograd/threads.h>

namespace reel::op {
namespace {

using namespace detail;

bool smooth(const OpSpec::Sample& sample) {
  return std::ranges::all_of(sample.inputs, [](const Generator& g) {
    return g.kind == Generator::Kind::normal || g.kind == Generator::Kind::uniform ||
           g.kind == Generator::Kind::indices || g.kind == Generator::Kind::absent;
  });
}

int orders_checked(const Case& c) {
  if (!c.differentiable()) return 0;
  return smooth(c.sample) && c.elements() <= 40 ? 3 : 2;
}

}  // namespace

int orders_checked(const OpSpec& op) {
  int order = 0;
  for (const Case& c : cases_of(op)) order = std::max(order, orders_checked(c));
  return order;
}

Complaints check_precision(const OpSpec& op) {
  return over_cases(op, [](const Case& c, auto complain) {
    const auto compare = [&](const Tensor& low, const Tensor& high, double bound,
                             const char* what) {
      const double difference = relative_difference(low, high);
      if (!(difference <= bound))
        complain(fmt::format("{} differs from f64 by {:.1e}", what, difference));
    };
    const auto single = converted(c.inputs, f32);
    const Tensors exact = c.run(c.inputs), rounded = c.run(single);
    for (std::size_t k = 0; k < exact.size(); ++k) compare(rounded[k], exact[k], 1e-5, "f32");
    if (c.op.forward[static_cast<std::size_t>(i32)]) {
      std::vector<Tensor> integers = c.inputs, whole = c.inputs;
      for (std::size_t i = 0; i < whole.size(); ++i)
        if (c.real(i)) whole[i] = (integers[i] = c.inputs[i].to(i32)).to(f64);
      compare(c.run(integers)[0], c.run(whole)[0], 0, "i32");
    }
    if (!c.differentiable()) return;
    const auto exact_gradients = c.gradients(c.inputs), rounded_gradients = c.gradients(single);
    for (std::size_t i = 0; i < exact_gradients.size(); ++i)
      compare(rounded_gradients[i], exact_gradients[i], 1e-4, "the f32 gradient");
  });
}

Complaints check_derivatives(const OpSpec& op) {
  return over_cases(op, [](const Case& c, auto complain) {
    using Mode = GradcheckOptions::Mode;
    std::vector<NamedInput> given;  // absent arguments are left out
    for (std::size_t i = 0; i < c.inputs.size(); ++i)
      if (c.inputs[i].defined()) given.push_back({fmt::format("x{}", i), c.inputs[i]});
    const auto f = [&](std::span<const Tensor> x) {
      std::vector<Tensor> inputs = c.inputs;
      for (Tensor& input : inputs)
        if (input.defined()) {
          input = x.front();
          x = x.subspan(1);
        }
      return c.joined(inputs);
    };
    const int order = orders_checked(c);
    for (int o = 1; o <= order; ++o) {
      const Mode mode = o == 1 || c.elements() <= 100 ? Mode::slow : Mode::fast;
      const auto report = check_gradients(f, given, {.order = o, .mode = mode});
      if (!report.ok) return complain(report.str());
    }
  });
}

Complaints check_jacobian(const OpSpec& op) {
  return over_cases(op, [](const Case& c, auto complain) {
    if (!c.differentiable()) return;
    const Index size = c.joined(c.inputs).size();
    if (size * c.elements() > 600) return;
    constexpr double h = 0x1p-11;
    for (std::size_t i = 0; i < c.inputs.size(); ++i) {
      if (!c.real(i)) continue;
      Tape tape;
      std::vector<Tensor> x = c.inputs;
      const Tensor watched = x[i] = tape.watch(x[i]);
      const Tensor y = c.joined(x);
      std::vector<std::vector<double>> rows;
      for (Index k = 0; k < size; ++k) {
        Tensor seed = zeros(y.shape(), f64);
        seed.begin_update<double>()[static_cast<std::size_t>(k)] = 1;
        rows.push_back(tape.gradient(y, {watched}, {.seed = seed, .keep = true})[0].to_vector());
      }
      const NoRecord no_record;
      const auto at = [&](std::size_t j, double distance) {
        std::vector<Tensor> near = c.inputs;
        near[i].begin_update<double>()[j] += distance;
        return c.joined(near).to_vector();
      };
      for (std::size_t j = 0; j < static_cast<std::size_t>(watched.size()); ++j) {
        const auto a = at(j, h), b = at(j, -h), aa = at(j, 2 * h), bb = at(j, -2 * h);
        for (std::size_t k = 0; k < rows.size(); ++k) {
          const double numeric = (8 * (a[k] - b[k]) - (aa[k] - bb[k])) / (12 * h);
          if (!(std::abs(rows[k][j] - numeric) <= 1e-8 + 1e-6 * std::abs(numeric)))
            complain(fmt::format("d output {} / d {}[{}] is {}, not {}", k,
                                 c.op.argument(int(i)).name, j, rows[k][j], numeric));
        }
      }
    }
  });
}

Complaints check_inputs_alone(const OpSpec& op) {
  return over_cases(op, [](const Case& c, auto complain) {
    if (!c.differentiable()) return;
    const auto together = c.gradients(c.inputs);
    std::size_t next = 0;
    for (std::size_t i = 0; i < c.inputs.size(); ++i) {
      if (!c.real(i)) continue;
      const Tensor alone = c.gradients(c.inputs, [i](std::size_t j) { return j == i; })[0];
      if (alone.shape() != c.inputs[i].shape())
        complain(fmt::format("the gradient of {} has shape {}", c.op.argument(int(i)).name,
                             alone.shape().str()));
      if (!same_bits(alone, together[next++]))
        complain(fmt::format("the gradient of {} differs when requested alone",
                             c.op.argument(int(i)).name));
    }
  });
}

Complaints check_repeated_tensor(const OpSpec& op) {
  return over_cases(op, [](const Case& c, auto complain) {
    if (!c.differentiable()) return;
    for (std::size_t j = 1; j < c.inputs.size(); ++j)
      for (std::size_t i = 0; i < j; ++i) {
        if (!c.real(i) || !c.real(j) || c.inputs[i].shape() != c.inputs[j].shape()) continue;
        std::vector<Tensor> x = c.inputs;
        x[i] = x[j].copy();
        const auto is_i = [i](std::size_t n) { return n == i; };
        const auto is_j = [j](std::size_t n) { return n == j; };
        const Tensor sum = c.gradients(x, is_i)[0] + c.gradients(x, is_j)[0];
        Tape tape;
        const Tensor shared = x[i] = x[j] = tape.watch(c.inputs[j]);
        const Tensor y = c.joined(x);
        const Tensor seed = Rng(5).normal(y.shape(), 0, 1, f64);
        const Tensor repeated = tape.gradient(y, {shared}, {.seed = seed})[0];
        if (!(relative_difference(repeated, sum) <= 1e-13))
          complain(fmt::format("one tensor as inputs {} and {} gets a gradient that is not the sum",
                               i, j));
      }
  });
}

Complaints check_inputs_unchanged(const OpSpec& op) {
  return over_cases(op, [](const Case& c, auto complain) {
    std::vector<Tensor> before;
    for (const Tensor& x : c.inputs) before.push_back(x.copy());
    c.run(c.inputs);
    if (!same_bits(before, c.inputs)) complain("the forward pass changes its inputs");
    if (!c.differentiable()) return;
    c.gradients(c.inputs);
    if (!same_bits(before, c.inputs)) complain("the backward pass changes its inputs");
  });
}

Complaints check_same_bits(const OpSpec& op) {
  return over_cases(op, [](const Case& c, auto complain) {
    const auto compare = [&](const Tensors& values, const std::vector<Tensor>& gradients,
                             const char* what) {
      if (!same_bits(values, c.run(c.inputs))) complain(fmt::format("other values {}", what));
      if (c.differentiable() && !same_bits(gradients, c.gradients(c.inputs)))
        complain(fmt::format("other gradients {}", what));
    };
    const Tensors values = c.run(c.inputs);
    const auto gradients = c.differentiable() ? c.gradients(c.inputs) : std::vector<Tensor>{};
    compare(values, gradients, "in a second run");
    const int before = threads();
    for (const int n : {1, 2, 3}) {
      set_threads(n);
      compare(values, gradients, "with another number of threads");
    }
    set_threads(before);

    Tape tape;
    std::vector<Tensor> watched = c.inputs;
    for (std::size_t i = 0; i < watched.size(); ++i)
      if (c.real(i)) watched[i] = tape.watch(watched[i]);
    if (!same_bits(values, c.run(watched))) complain("other values while recording");
  });
}

Complaints check_kept_values(const OpSpec& op) {
  return over_cases(op, [](const Case& c, auto complain) {
    if (!c.differentiable()) return;
    const auto declared = [](std::uint32_t mask, std::size_t i) {
      return (mask >> std::min<std::size_t>(i, 31) & 1) != 0;
    };
    for (std::size_t i = 0; i < c.inputs.size(); ++i) {
      if (!c.real(i)) continue;
      Tape tape;
      std::vector<Tensor> x;
      for (const Tensor& input : c.inputs) x.push_back(input.copy());
      const Tensor watched = x[i] = tape.watch(x[i]);
      const Tensors outputs = c.run(x);
      for (std::size_t n = 0; n < x.size(); ++n)
        if (n != i && x[n].defined() && !declared(c.op.keeps.inputs, n) && !x[n].buffer().unique())
          complain(fmt::format("input {} is held, but not declared", n));
      for (std::size_t k = 0; k < outputs.size(); ++k)
        if (!declared(c.op.keeps.outputs, k) && !c.op.shares_input && !outputs[k].buffer().unique())
          complain(fmt::format("output {} is held, but not declared", k));
      const Tensor& y = *std::ranges::find_if(outputs, is_given_real);
      tape.gradient(y, {watched}, {.seed = ones(y.shape(), y.dtype())});
      for (std::size_t n = 0; n < x.size(); ++n)
        if (n != i && x[n].defined() && !x[n].buffer().unique())
          complain(fmt::format("input {} is still held after the backward pass", n));
    }
  });
}

namespace {

// Runs a call that may throw, and checks the error if it does. `names_all`: the error must also
// name the given arguments, with their shapes, and no absent ones.
template <class E>
bool throws(const Case& c, std::span<const Tensor> x, bool names_all, auto complain) {
  std::string message;
  try {
    c.run(x);
    return false;
  } catch (const E& e) {
    message = e.what();
  } catch (const std::exception& e) {
    complain(fmt::format("an error of the wrong type: {}", e.what()));
    return true;
  }
  std::vector<std::string> words{std::string(c.op.called()), call_site.str()};
  for (std::size_t i = 0; names_all && i < x.size(); ++i) {
    const std::size_t first_of_many = c.op.arguments.size() - 1;
    if (!x[i].defined()) {
      const auto name = c.op.argument(static_cast<int>(i)).name;
      if (message.find(fmt::format(", {} is ", name)) != std::string::npos)
        complain(fmt::format("an error names {}, which is absent: {}", name, message));
      continue;
    }
    words.push_back(fmt::format(
        "{}{} is {} {}", c.op.argument(static_cast<int>(i)).name,
        c.op.variadic && i >= first_of_many ? fmt::format("[{}]", i - first_of_many) : "",
        name_of(x[i].dtype()), x[i].shape().str()));
  }
  for (const std::string& word : words)
    if (message.find(word) == std::string::npos)
      complain(fmt::format("an error does not name {}: {}", word, message));
  return true;
}

// Variants of a shape: one axis longer, and for ops without attributes (which may name an axis)
// also one axis more, or none at all.
std::vector<Shape> variants(const Shape& shape, bool other_ranks) {
  std::vector<Shape> result;
  for (int axis = 0; axis < shape.rank(); ++axis)
    result.push_back(shape.with(axis, shape[axis] + 1));
  if (other_ranks && shape.rank() < Shape::max_rank) result.push_back(shape.insert(0, 2));
  if (other_ranks && shape.rank() > 0) result.emplace_back();
  return result;
}

}  // namespace

Complaints check_bad_arguments(const OpSpec& op) {
  bool any_shape_error = false;
  Complaints complaints = over_cases(op, [&](const Case& c, auto complain) {
    const std::ptrdiff_t reals = std::ranges::count_if(c.inputs, is_given_real);
    for (std::size_t i = 0; i < c.inputs.size(); ++i) {
      if (!c.inputs[i].defined()) continue;
      std::vector<Tensor> x = c.inputs;
      x[i] = Tensor();
      if (!c.op.argument(static_cast<int>(i)).optional &&
          !throws<ValueError>(c, x, false, complain))
        complain("an undefined input passes");

      const bool takes_integers = c.op.forward[static_cast<std::size_t>(i32)] != nullptr;
      x[i] = c.inputs[i].to(c.real(i) ? i32 : f64);
      if (!throws<DTypeError>(c, x, true, complain) && !(c.real(i) && reals == 1 && takes_integers))
        complain(fmt::format("input {} may be {}", i, name_of(x[i].dtype())));
      x[i] = c.inputs[i].to(f32);
      if (c.real(i) && reals > 1 && !throws<DTypeError>(c, x, true, complain))
        complain(fmt::format("input {} may be f32 where others are f64", i));

      for (const Shape& shape : variants(c.inputs[i].shape(), c.op.attr_size == 0)) {
        Rng rng(3);
        Generator generator = c.sample.inputs[i];
        generator.shape = shape;
        if (generator.kind == Generator::Kind::values) generator.kind = Generator::Kind::normal;
        x[i] = generator.draw(rng, f64);
        any_shape_error |= throws<ShapeError>(c, x, true, complain);
      }
    }
    std::vector<Tensor> more = c.inputs;
    more.push_back(more.back());
    if (!c.op.variadic && !throws<ValueError>(c, more, false, complain))
      complain("one argument too many passes");
    if (!throws<ValueError>(c, {}, false, complain)) complain("a call without arguments passes");
  });
  if (!any_shape_error && op.arguments.size() > 1)
    complaints.push_back(fmt::format("{}: takes all shapes", op.name));
  return complaints;
}

Complaints check_optional_arguments(const OpSpec& op) {
  Complaints complaints;
  for (std::size_t i = 0; i < op.arguments.size(); ++i) {
    if (!op.arguments[i].optional) continue;
    const auto absent = std::ranges::count_if(op.samples, [&](const OpSpec::Sample& sample) {
      return sample.inputs[i].kind == Generator::Kind::absent;
    });
    if (absent == 0 || absent == std::ssize(op.samples))
      complaints.push_back(fmt::format("{}: no sample has {} {}", op.name,
                                       absent == 0 ? "an absent" : "a given",
                                       op.arguments[i].name));
  }
  return complaints;
}

Complaints check_specification(const OpSpec& op) {
  if (op.derivative != OpSpec::Derivative::fused) return {};
  return over_cases(op, [](const Case& c, auto complain) {
    const Tensors outputs = c.run(c.inputs);
    const Tensors specified = c.op.specification(c.inputs, c.sample.attr.data());
    if (specified.size() != outputs.size())
      return complain(
          fmt::format("{} outputs, but {} in the specification", outputs.size(), specified.size()));
    const auto compare = [&](const Tensor& kernel, const Tensor& specification,
                             const std::string& what) {
      const double difference = relative_difference(kernel, specification);
      if (!(difference <= 1e-12))
        complain(fmt::format("{} differs from the specification by {:.1e}", what, difference));
    };
    for (std::size_t k = 0; k < outputs.size(); ++k)
      compare(outputs[k], specified[k], fmt::format("output {}", k));
    const auto all = [](std::size_t) { return true; };
    const int last = static_cast<int>(outputs.size()) - 1;
    for (int k = last == 0 ? 0 : -1; k <= last; ++k) {
      if (k >= 0 && !is_real(outputs[static_cast<std::size_t>(k)].dtype())) continue;
      const auto kernel = c.gradients(c.inputs, all, k),
                 graph = c.gradients(c.inputs, all, k, true);
      for (std::size_t i = 0; i < kernel.size(); ++i)
        compare(kernel[i], graph[i],
                fmt::format("gradient {} of output {}", i, k < 0 ? "all" : std::to_string(k)));
    }
  });
}

Complaints check_none(const OpSpec& op) {
  return over_cases(op, [](const Case& c, auto complain) {
    if (c.op.derivative != OpSpec::Derivative::none) {
      if (std::ranges::none_of(c.run(c.inputs), is_given_real))
        complain("its results are integers, but it has a gradient");
      return;
    }
    if (c.op.why_none.empty()) complain("it does not say why there is no gradient");
    Tape tape;
    std::vector<Tensor> x = c.inputs, watched;
    for (std::size_t i = 0; i < x.size(); ++i)
      if (c.real(i)) watched.push_back(x[i] = tape.watch(x[i]));
    const Tensor y = c.run(x)[0];
    const std::string reason =
        is_real(y.dtype()) ? std::string(c.op.why_none) : "integers have no gradient";
    try {
      tape.gradient(y, watched, {.seed = ones(y.shape(), y.dtype())});
      complain("its gradient is not refused");
    } catch (const GradientError& e) {
      if (std::string(e.what()).find(reason) == std::string::npos)
        complain(fmt::format("the error does not say why: {}", e.what()));
    }
  });
}

Complaints check_op(const OpSpec& op, const Reference& reference) {
  Complaints all;
  for (const Check& check : all_checks)
    for (const std::string& complaint : check(op, reference))
      all.push_back(fmt::format("{}: {}", check.name, complaint));
  return all;
}

}  // namespace reel::op
