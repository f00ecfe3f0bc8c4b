#include "random_graphs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/ops.h>

namespace reel::testing {
using namespace op;
namespace {

using Kind = Generator::Kind;
using Values = std::span<const Tensor>;
// Computes the value of a node from those of the nodes before it.
using Node = std::function<Tensor(Values)>;

Tensor flat(const Tensor& x) { return reshape(x, Shape{x.size()}); }

double largest(const Tensor& x) {
  double result = 0;
  for (double value : x.to_vector()) result = std::max(result, std::abs(value));
  return result;
}

bool finite(const Tensor& x) {
  return std::ranges::all_of(x.to_vector(), [](double value) { return std::isfinite(value); });
}

Tensors run_op(const OpSpec& op, std::span<const Tensor> inputs, const void* attr) {
  std::vector<const Tensor*> pointers;
  for (const Tensor& x : inputs) pointers.push_back(&x);
  return run(op, pointers, attr, {});
}

// Whether the generator works for other shapes: neither fixed numbers nor minimum distances.
bool any_shape(const Generator& g) {
  return g.kind != Kind::values && g.kind != Kind::distinct && g.kind != Kind::absent;
}

bool differentiable(const OpSpec& op) {
  return op.derivative != OpSpec::Derivative::none &&
         std::ranges::any_of(op.arguments, [](const auto& a) { return !a.integer; });
}

bool takes_shapes(const OpSpec& op, const void* attr, const std::vector<Shape>& shapes) {
  std::vector<Tensor> inputs;
  std::vector<const Tensor*> pointers;
  for (const Shape& shape : shapes) inputs.push_back(zeros(shape, f64));
  for (const Tensor& x : inputs) pointers.push_back(&x);
  try {
    op.shape(Arguments(op, pointers, {}), attr);
    return true;
  } catch (const Error&) {
    return false;
  }
}

class Builder {
 public:
  explicit Builder(std::uint64_t seed) : rng_(seed, 1) {}

  RandomGraph build() {
    const Index inputs = 1 + rng_.integer(3), ops = 2 + rng_.integer(6);
    for (Index i = 0; i < inputs; ++i) add_input();
    while (made_ < ops) chance(0.2) ? add_broadcast() : add_op();
    graph_.f = [nodes = nodes_, outputs = outputs()](Values x) {
      std::vector<Tensor> values(x.begin(), x.end());
      for (const Node& node : nodes) values.push_back(node(values));
      std::vector<Tensor> joined;
      for (const auto& [i, factor] : outputs) joined.push_back(factor * flat(values[i]));
      return concat(joined, 0);
    };
    return std::move(graph_);
  }

 private:
  bool chance(double probability) { return rng_.uniform() < probability; }
  std::size_t below(std::size_t n) {
    return static_cast<std::size_t>(rng_.integer(static_cast<Index>(n)));
  }

  Shape random_shape() {
    Shape shape;
    for (Index rank = rng_.integer(4); rank > 0; --rank)
      shape = shape.insert(0, 1 + rng_.integer(4));
    return shape;
  }

  void add_input() {
    const Tensor x = rng_.normal(random_shape(), 0, 1, f64);
    graph_.text += fmt::format("  %{} = input {}\n", values_.size(), x.shape().str());
    graph_.inputs.push_back({fmt::format("%{}", values_.size()), x});
    values_.push_back(x);
    used_.push_back(true);
  }

  // Keeps a node unless its value is unsuitable.
  void add(const OpSpec& op, const std::string& arguments, const Node& node) {
    const Tensor value = node(values_);
    if (!finite(value)) return;
    graph_.text += fmt::format("  %{} = {}({}) -> {}\n", values_.size(), op.name, arguments,
                               value.shape().str());
    graph_.ops.insert(op.name);
    nodes_.push_back(node);
    values_.push_back(value);
    used_.push_back(false);
    ++made_;
  }

  // Adds an op with the attributes of one of its samples, and usually its shapes.
  void add_op() {
    const OpSpec& op = *registry()[below(registry().size())];
    const OpSpec::Sample& sample = op.samples[below(op.samples.size())];
    std::vector<Generator> generators = sample.inputs;
    Index elements = 0;
    for (const Generator& g : generators) elements += g.shape.size();
    if (elements > 150) return;
    if (generators.size() == 1 && any_shape(generators[0])) {
      const Shape shape = random_shape();
      if (op.attr_size == 0 && takes_shapes(op, sample.attr.data(), {shape}))
        generators[0].shape = shape;
    }
    differentiable(op) ? add_call(op, sample, generators) : add_factor(op, sample, generators);
  }

  // Adds an op of two operands, with shapes that broadcast.
  void add_broadcast() {
    const OpSpec& op = *registry()[below(registry().size())];
    const OpSpec::Sample& sample = op.samples[0];
    const bool two_operands = op.arguments.size() == 2 && !op.variadic && differentiable(op) &&
                              !op.arguments[0].integer && !op.arguments[1].integer;
    const Shape result{1 + rng_.integer(3), 1 + rng_.integer(3), 1 + rng_.integer(3)};
    std::vector<Generator> generators = sample.inputs;
    for (Generator& g : generators) {
      g.shape = result;
      for (int axis = 0; axis < 3; ++axis)
        if (chance(0.3)) g.shape = g.shape.with(axis, 1);
      while (g.shape.rank() > 0 && g.shape[0] == 1 && chance(0.5)) g.shape = g.shape.erase(0);
    }
    if (two_operands && std::ranges::all_of(generators, any_shape) &&
        takes_shapes(op, sample.attr.data(), {{2, 1, 3}, {4, 1}}))
      add_call(op, sample, generators);
  }

  void add_call(const OpSpec& op, const OpSpec::Sample& sample,
                const std::vector<Generator>& generators) {
    std::vector<Node> arguments;
    std::string text;
    const std::size_t always = below(generators.size());  // at least one is not a constant
    for (std::size_t i = 0; i < generators.size(); ++i) {
      const Generator& g = generators[i];
      const bool can_flow = g.kind != Kind::indices && g.kind != Kind::absent;
      const bool flows = can_flow && (i == always || chance(0.8));
      const std::size_t source = flows ? any_source() : 0;
      text += fmt::format("{}{}{}", i == 0 ? "" : ", ",
                          flows ? fmt::format("%{} as ", source) : "constant ",
                          g.kind == Kind::absent ? "absent" : g.shape.str());
      arguments.push_back(flows ? feed(g, source) : constant(draw(g)));
    }
    add(op, text, [&op, attr = sample.attr, arguments](Values values) {
      std::vector<Tensor> x;
      for (const Node& argument : arguments) x.push_back(argument(values));
      const Tensors outputs = run_op(op, x, attr.data());
      if (outputs.size() == 1) return outputs[0];
      std::vector<Tensor> joined;
      for (const Tensor& y : outputs)
        if (is_real(y.dtype())) joined.push_back(flat(y));
      return concat(joined, 0);
    });
  }

  // An op without a gradient becomes a constant factor of a node with one.
  void add_factor(const OpSpec& op, const OpSpec::Sample& sample,
                  const std::vector<Generator>& generators) {
    std::vector<Tensor> inputs;
    for (const Generator& g : generators) inputs.push_back(draw(g));
    const Tensor y = run_op(op, inputs, sample.attr.data())[0].to(f64);
    const Tensor factor = 1 + 0.5 / std::max(1.0, largest(y)) * y;
    const std::size_t source = any_source();
    const Node other = in_shape(y.shape(), source);
    add(op, fmt::format("constants) * (%{}", source),
        [=](Values values) { return factor * other(values); });
  }

  // Prefers the last node, so that graphs become deep.
  std::size_t any_source() {
    std::size_t source = chance(0.3) ? values_.size() - 1 : below(values_.size());
    while (values_[source].size() == 0) source = below(values_.size());
    used_[source] = true;
    return source;
  }

  // A node's value, truncated or repeated to fill a shape, plus constants: where all elements of a
  // group are equal, a standard deviation has a kink.
  Node in_shape(const Shape& shape, std::size_t source) {
    const Index have = values_[source].size(), need = shape.size();
    const Index copies = need / have + 1, begin = rng_.integer(copies * have - need + 1);
    const double most = largest(values_[source]), factor = most > 2 ? 2 / most : 1;
    const Tensor offsets = rng_.normal(shape, 0, 0.3, f64);
    return [=](Values values) {
      const std::vector<Tensor> repeated(static_cast<std::size_t>(copies), flat(values[source]));
      return factor * reshape(slice(concat(repeated, 0), 0, begin, begin + need), shape) + offsets;
    };
  }

  // The same, mapped smoothly into the range of the generator.
  Node feed(const Generator& g, std::size_t source) {
    const Node x = in_shape(g.shape, source);
    if (g.kind == Kind::normal) return x;
    const Tensor a = draw(g);
    if (g.kind == Kind::values)  // they may be special
      return [=](Values values) { return a + 0.003 * tanh(x(values)); };
    if (g.kind == Kind::distinct || g.kind == Kind::away_from_zero)
      return [=](Values values) { return a + 0.02 * tanh(x(values)); };
    const Tensor b = draw(g);  // an interval: between two of its points
    return [=](Values values) { return a + (b - a) * sigmoid(x(values)); };
  }

  static Node constant(const Tensor& value) {
    return [=](Values) { return value; };
  }
  Tensor draw(const Generator& g) { return g.draw(rng_, f64); }

  // The unused nodes, each with a factor that gives it moderate size.
  std::vector<std::pair<std::size_t, double>> outputs() const {
    std::vector<std::pair<std::size_t, double>> result;
    for (std::size_t i = 0; i < values_.size(); ++i)
      if (!used_[i]) result.emplace_back(i, 1 / std::max(1.0, largest(values_[i])));
    return result;
  }

  Rng rng_;
  RandomGraph graph_;
  std::vector<Node> nodes_;     // beyond the inputs
  std::vector<Tensor> values_;  // at the initial inputs
  std::vector<bool> used_;
  Index made_ = 0;
};

}  // namespace

RandomGraph random_graph(std::uint64_t seed) { return Builder(seed).build(); }

RandomGraphsReport check_random_graphs(Index count, std::uint64_t first) {
  using Mode = GradcheckOptions::Mode;
  using Verdict = GradientReport::Verdict;
  RandomGraphsReport all;
  for (; all.graphs < count; ++all.graphs) {
    const std::uint64_t seed = first + static_cast<std::uint64_t>(all.graphs);
    const RandomGraph graph = random_graph(seed);
    const auto fail = [&](const std::string& how) {
      all.failures.push_back(fmt::format("random graph, seed {}\n{}{}", seed, graph.text, how));
    };
    all.ops.insert(graph.ops.begin(), graph.ops.end());
    try {
      const GradientReport report = check_gradients(
          graph.f, graph.inputs,
          {.order = seed % 4 == 0 ? 2 : 1, .mode = seed % 4 == 1 ? Mode::slow : Mode::fast});
      if (report.ok) continue;
      const bool kinks = std::ranges::all_of(
          report.rows, [](const auto& row) { return row.verdict <= Verdict::kink; });
      kinks ? void(++all.kinks) : fail(report.str());
    } catch (const std::exception& e) {
      fail(fmt::format("throws: {}\n", e.what()));
    }
  }
  return all;
}

}  // namespace reel::testing
