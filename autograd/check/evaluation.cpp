#include <reel/autograd/check/evaluation.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

namespace reel::detail {

bool same_bits(const Numbers& a, const Numbers& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

Numbers random_numbers(Rng& rng, Index count) {
  Numbers numbers(static_cast<std::size_t>(count));
  for (double& x : numbers) x = (rng.uniform() < 0.5 ? -1 : 1) * (0.5 + rng.uniform());
  return numbers;
}

namespace {

Numbers flat(const std::vector<Tensor>& tensors) {
  Numbers all;
  for (const Tensor& x : tensors) {
    const Numbers numbers = x.to_vector();
    all.insert(all.end(), numbers.begin(), numbers.end());
  }
  return all;
}

// x + distance * direction
Tensor moved(const Tensor& x, const Numbers& direction, double distance) {
  Tensor result = x;
  dispatch_real(x.dtype(), [&]<class T>() {
    const std::span<T> numbers = result.begin_update<T>();
    for (std::size_t i = 0; i < numbers.size(); ++i)
      if (direction[i] != 0) numbers[i] += static_cast<T>(distance * direction[i]);
  });
  return result;
}

}  // namespace

Evaluation::Evaluation(const TensorFunction& f, const Params& params,
                       const std::vector<NamedInput>& inputs, const GradcheckOptions& options,
                       Rng& rng)
    : f_(f), options_(options), restored_rngs_(options.replay), rng_(rng) {
  params.each([&](const auto& entry) { add({entry->name, entry->value, entry, 0}); });
  for (const NamedInput& input : inputs) {
    if (!input.value.defined())
      throw ValueError(fmt::format("check_gradients: {} is undefined", input.name));
    if (is_real(input.value.dtype())) add({input.name, input.value, nullptr, arguments_.size()});
    arguments_.push_back(input.value);
  }
}

void Evaluation::add(const Variable& variable) {
  if (variable.start.dtype() == f32 && !options_.allow_f32)
    throw DTypeError(fmt::format(
        "check_gradients: {} is f32, too coarse for differences; {}, or set allow_f32 with a "
        "larger step and tolerances",
        variable.name,
        variable.entry ? "construct the model once more on params.to(f64) and check that one"
                       : "convert it with to(f64)"));
  variables_.push_back(variable);
}

// The variables as leaves of the current tape; f's arguments are built from them.
std::vector<Tensor> Evaluation::leaves(std::vector<Tensor>& arguments) const {
  std::vector<Tensor> result;
  for (const Variable& v : variables_) {
    result.push_back(v.entry ? Tape::current()->leaf(v.entry)
                             : Tape::current()->watch(arguments[v.argument]));
    if (!v.entry) arguments[v.argument] = result.back();
  }
  return result;
}

// What is checked at an order: the function, or the gradients of the order below.
std::vector<Tensor> Evaluation::outputs(int order, std::span<const Tensor> arguments,
                                        std::span<const Tensor> leaves) {
  if (order > 1) return gradients(order - 1, outputs(order - 1, arguments, leaves), leaves, true);
  restored_rngs_.restore();
  const Tensor y = f_(arguments);
  if (!y.defined() || !is_real(y.dtype()))
    throw DTypeError("check_gradients: the result of the function must be f32 or f64");
  for (const Variable& v : variables_)
    if (v.start.dtype() != y.dtype())
      throw DTypeError(fmt::format(
          "check_gradients: the result of the function is {}, but {} is {}, so it does not "
          "depend on it; the function has to use what is checked",
          name_of(y.dtype()), v.name, name_of(v.start.dtype())));
  return {curved_ ? y + 0.5 * tanh(y) : y};
}

// The gradients of the outputs' projection onto this order's cotangents.
std::vector<Tensor> Evaluation::gradients(int order, const std::vector<Tensor>& outputs,
                                          std::span<const Tensor> leaves, bool create_graph) {
  Tensor projection = scalar(0, outputs.empty() ? f64 : outputs[0].dtype());
  for (std::size_t i = 0; i < outputs.size(); ++i)
    projection = projection + sum(outputs[i] * cotangent(order, i, outputs[i]));
  if (projection.trace().generation != 0)
    return Tape::current()->gradient(projection, leaves, {.create_graph = create_graph});
  std::vector<Tensor> constant;
  for (const Tensor& leaf : leaves) constant.push_back(zeros(leaf.shape(), leaf.dtype()));
  return constant;
}

const Tensor& Evaluation::cotangent(int order, std::size_t output, const Tensor& like) {
  cotangents_.resize(std::max(cotangents_.size(), static_cast<std::size_t>(order)));
  auto& of_order = cotangents_[static_cast<std::size_t>(order) - 1];
  if (output == of_order.size()) {
    const bool one_number = order == 1 && like.size() == 1;  // its gradient is meaningful by itself
    of_order.push_back(one_number
                           ? ones(like.shape(), like.dtype())
                           : tensor(like.shape(), random_numbers(rng_, like.size()), like.dtype()));
  }
  if (of_order[output].shape() != like.shape())
    throw ShapeError("check_gradients: the shape of the result differs from call to call");
  return of_order[output];
}

Numbers Evaluation::cotangents(int order) const {
  return flat(cotangents_[static_cast<std::size_t>(order) - 1]);
}

Numbers Evaluation::outputs_at(int order, std::vector<Tensor> arguments) {
  Tape tape;
  const std::vector<Tensor> x = leaves(arguments);
  return flat(outputs(order, arguments, x));
}

Numbers Evaluation::outputs_at(int order, const Variable& v, const Numbers& direction,
                               double distance) {
  const Tensor value = moved(v.start, direction, distance);
  std::vector<Tensor> arguments = arguments_;
  if (!v.entry) {
    arguments[v.argument] = value;
    return outputs_at(order, std::move(arguments));
  }
  ScopedParamValue replaced{Param(v.entry)};
  replaced.assign(value);
  return outputs_at(order, std::move(arguments));
}

std::vector<Numbers> Evaluation::gradients(int order) {
  Tape tape;
  std::vector<Tensor> arguments = arguments_;
  const std::vector<Tensor> x = leaves(arguments);
  std::vector<Numbers> result;
  for (const Tensor& g : gradients(order, outputs(order, arguments, x), x, false))
    result.push_back(g.to_vector());
  return result;
}

}  // namespace reel::detail
