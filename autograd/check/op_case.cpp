#include <reel/autograd/check/op_case.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

namespace reel::op::detail {

bool same_bits(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         (a.size() == 0 ||
          std::memcmp(a.buffer().data(), b.buffer().data(),
                      static_cast<std::size_t>(a.size()) * size_of(a.dtype())) == 0);
}

bool same_bits(std::span<const Tensor> a, std::span<const Tensor> b) {
  return std::ranges::equal(a, b, [](const Tensor& x, const Tensor& y) { return same_bits(x, y); });
}

double relative_difference(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape()) return INFINITY;
  const auto x = a.to_vector(), y = b.to_vector();
  double difference = 0, scale = 1;
  for (std::size_t i = 0; i < x.size(); ++i) {
    scale = std::max(scale, std::abs(y[i]));
    difference = std::max(difference, x[i] == y[i] ? 0 : std::abs(x[i] - y[i]));
    if (std::isnan(x[i]) || std::isnan(y[i])) return INFINITY;
  }
  return difference / scale;
}

std::vector<Tensor> converted(std::span<const Tensor> inputs, DType dtype) {
  std::vector<Tensor> result;
  for (const Tensor& x : inputs) result.push_back(is_given_real(x) ? x.to(dtype) : x);
  return result;
}

bool long_mode() {
  const char* value = std::getenv("REEL_LONG");
  return value && std::strcmp(value, "1") == 0;
}

Tensors Case::run(std::span<const Tensor> x) const {
  std::vector<const Tensor*> pointers;
  for (const Tensor& input : x) pointers.push_back(&input);
  return op::run(op, pointers, sample.attr.data(), call_site);
}

Index Case::elements() const {
  Index count = 0;
  for (const Tensor& x : inputs) count += x.defined() ? x.size() : 0;
  return count;
}

Tensor Case::joined(std::span<const Tensor> x) const {
  const Tensors outputs = run(x);
  if (outputs.size() == 1) return outputs[0];
  std::vector<Tensor> flat;
  for (const Tensor& y : outputs)
    if (is_real(y.dtype())) flat.push_back(reshape(y, {-1}));
  return concat(flat, 0);
}

std::vector<Tensor> Case::gradients(std::span<const Tensor> x,
                                    const std::function<bool(std::size_t)>& wanted, int output,
                                    bool create_graph) const {
  Tape tape;
  std::vector<Tensor> all(x.begin(), x.end()), watched;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (is_given_real(x[i]) && wanted(i)) watched.push_back(all[i] = tape.watch(x[i]));
  const Tensor y = output < 0 ? joined(all) : run(all)[static_cast<std::size_t>(output)];
  const Tensor seed = Rng(5).normal(y.shape(), 0, 1, f64).to(y.dtype());
  if (y.trace().generation == 0) {
    for (Tensor& w : watched) w = zeros(w.shape(), w.dtype());
    return watched;
  }
  auto result = tape.gradient(y, watched, {.seed = seed, .create_graph = create_graph});
  for (Tensor& gradient : result) gradient = gradient.detach();
  return result;
}

std::vector<Tensor> Case::gradients(std::span<const Tensor> x) const {
  return gradients(x, [](std::size_t) { return true; });
}

bool Case::differentiable() const {
  return op.derivative != OpSpec::Derivative::none && std::ranges::any_of(inputs, is_given_real);
}

std::string Case::check_direction() const {
  constexpr double h = 0x1p-17;
  // The direction is 1 or -1 for each number.
  const auto sign = [](Rng& rng) { return rng.uniform() < 0.5 ? -1.0 : 1.0; };
  const auto values_at = [&](double distance) {
    Rng rng(23);
    std::vector<Tensor> x = inputs;
    for (std::size_t i = 0; i < x.size(); ++i)
      if (real(i))
        for (double& number : x[i].begin_update<double>()) number += distance * sign(rng);
    return joined(x).to_vector();
  };
  const auto values = values_at(0);
  const auto seed = Rng(5).normal({std::ssize(values)}, 0, 1, f64).to_vector();  // of gradients()
  const auto difference = [&](double step) {
    const auto ahead = values_at(step), behind = values_at(-step);
    double sum = 0;
    for (std::size_t k = 0; k < seed.size(); ++k)
      sum += seed[k] * (ahead[k] - behind[k]) / (2 * step);
    return sum;
  };
  Rng rng(23);
  double analytic = 0, squares = 0, sizes = 0;
  for (const Tensor& gradient : gradients(inputs))
    for (const double g : gradient.values<double>()) {
      analytic += g * sign(rng);
      squares += g * g;
    }
  for (std::size_t k = 0; k < seed.size(); ++k) sizes += seed[k] * seed[k] * values[k] * values[k];

  const double numeric = difference(h), error = std::abs(analytic - numeric);
  const double rounding = 1e-9 + 100 * 0x1p-50 * std::sqrt(sizes) / h;
  if (error <= rounding + 1e-5 * std::sqrt(squares)) return {};
  if (!std::isfinite(analytic) || !std::isfinite(numeric)) return {};  // overflow of a product
  // Near kinks and in a chaotic layer differences depend on their step, and say nothing.
  const double at_most = std::max(rounding, std::min(error, std::abs(numeric)) / 64);
  if (std::abs(difference(2 * h) - numeric) > at_most) return {};
  return fmt::format("the derivative along a direction is {}, but differences say {}", analytic,
                     numeric);
}

std::vector<Case> cases_of(const OpSpec& op) {
  std::vector<Case> cases;
  for (std::size_t s = 0; s < op.samples.size(); ++s) {
    Rng rng(17, s);
    Case& c =
        cases.emplace_back(Case{op, op.samples[s], fmt::format("{}, sample {}", op.name, s), {}});
    for (const Generator& generator : op.samples[s].inputs)
      c.inputs.push_back(generator.draw(rng, f64));
  }
  return cases;
}

std::optional<OpSpec::Sample> resized(const Case& c, const std::function<Index(Index)>& size) {
  OpSpec::Sample sample = c.sample;
  for (Generator& generator : sample.inputs) {
    if (generator.kind == Generator::Kind::absent) continue;
    if (generator.kind == Generator::Kind::values) return {};  // these numbers are fixed
    for (int axis = 0; axis < generator.shape.rank(); ++axis)
      generator.shape = generator.shape.with(axis, size(generator.shape[axis]));
    if (generator.kind == Generator::Kind::indices) {
      generator.limit = size(generator.limit);
      if (generator.limit == 0 && !generator.inclusive && generator.shape.size() > 0) return {};
    }
  }
  return sample;
}

std::optional<Index> elements_of(const OpSpec& op, const OpSpec::Sample& sample) try {
  std::vector<Tensor> inputs;
  std::vector<const Tensor*> pointers;
  Index count = 0;
  for (const Generator& g : sample.inputs) {
    inputs.push_back(g.kind == Generator::Kind::absent
                         ? Tensor()
                         : Tensor(g.shape, g.kind == Generator::Kind::indices ? i32 : f64));
    count += g.shape.size();
  }
  for (const Tensor& x : inputs) pointers.push_back(&x);
  const Shapes shapes = op.shape(Arguments(op, pointers, call_site), sample.attr.data());
  for (int k = 0; k < shapes.count(); ++k) count += shapes[k].size();
  return count;
} catch (const Error&) {
  return {};
}

std::optional<Case> drawn(const OpSpec& op, const OpSpec::Sample& sample, double scale) try {
  Case c{op, sample, std::string(op.name) + ", with", {}};
  Rng rng(31);
  for (const Generator& generator : sample.inputs) {
    c.inputs.push_back(generator.draw(rng, f64));
    if (scale != 1 && generator.kind == Generator::Kind::normal) {
      for (double& x : c.inputs.back().begin_update<double>()) x *= scale;
    }
    c.title += ' ' + (c.inputs.back().defined() ? generator.shape.str() : "absent");
  }
  c.run(c.inputs);
  return c;
} catch (const ValueError&) {
  return {};  // such as indices that do not match the attributes
}

}  // namespace reel::op::detail
